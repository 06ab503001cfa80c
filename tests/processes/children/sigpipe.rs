//! Writes to children that do not read, in a process that `SIGPIPE` would end.

use std::io::{ErrorKind, IoSlice, Write};

use child_process::{Child, Command, Event, ExitStatus, Fork, Module, parent};
use ipc::Channel;
use tokio::io::AsyncWriteExt;

use crate::harness::{apply, case, module, role};
use crate::support::current_exe;
use crate::support::shell::sh;

#[apply(case)]
fn no_write_to_a_child_ends_its_parent() {
    let output = Command::new(current_exe()).args(["role", "writes_in_vain"]).output().unwrap();
    assert_eq!(output.status, ExitStatus::Code(0), "{}", output.stderr_text());
    assert_eq!(output.stdout_text(), "survived\n");
}

/// A script that closes its input, and does not end for a moment.
const DEAF: &str = "exec <&-; echo deaf; sleep 0.2";

/// More than a pipe holds.
const MUCH: usize = 1 << 20;

/// `writes_in_vain`: writes to children in every way, with `SIGPIPE` at its default.
#[apply(role)]
fn writes_in_vain(_args: &[String]) {
    sys::testing::reset_sigpipe();
    for script in [DEAF, "exit 0"] {
        let mut command = sh(script);
        assert!(command.input(vec![7; MUCH]).output().unwrap().status.success());
        assert!(command.input(vec![7; MUCH]).exec_sync().unwrap().status.success());
        assert!(command.input(vec![7; MUCH]).exec().unwrap().wait().unwrap().status.success());
    }
    let much = vec![7; MUCH];
    let mut child = deaf();
    let mut stdin = child.take_stdin().unwrap();
    for _ in 0..2 {
        assert_eq!(stdin.write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
        let vectored = stdin.write_vectored(&[IoSlice::new(b"x"), IoSlice::new(b"y")]);
        assert_eq!(vectored.unwrap_err().kind(), ErrorKind::BrokenPipe);
        assert_eq!(stdin.write_all(&much).unwrap_err().kind(), ErrorKind::BrokenPipe);
    }
    child.wait().unwrap();
    // The child closes its input while the write waits for room.
    let mut late = sh("sleep 0.2").spawn().unwrap();
    let mut stdin = late.take_stdin().unwrap();
    assert_eq!(stdin.write_all(&much).unwrap_err().kind(), ErrorKind::BrokenPipe);
    late.wait().unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
    runtime.block_on(async {
        for mut child in [deaf(), sh("sleep 0.2").spawn().unwrap()] {
            let mut stdin = child.take_stdin().unwrap().into_async().unwrap();
            let refused = stdin.write_all(&much).await.unwrap_err();
            assert_eq!(refused.kind(), ErrorKind::BrokenPipe);
            stdin.writable().await.unwrap();
            assert_eq!(stdin.try_write(b"x").unwrap_err().kind(), ErrorKind::BrokenPipe);
            child.wait_async().await.unwrap();
        }
        // Input that the child reads arrives.
        let mut cat = sh("wc -c").spawn().unwrap();
        let mut stdin = cat.take_stdin().unwrap().into_async().unwrap();
        stdin.write_all(&much).await.unwrap();
        drop(stdin);
        let mut count = String::new();
        std::io::Read::read_to_string(&mut cat.take_stdout().unwrap(), &mut count).unwrap();
        assert_eq!(count.trim(), MUCH.to_string());
        cat.wait_async().await.unwrap();
    });
    channels();
    println!("survived");
}

/// Starts a child, and returns when it has closed its input.
fn deaf() -> Child {
    let mut child = sh(DEAF).spawn().unwrap();
    std::io::Read::read_exact(&mut child.take_stdout().unwrap(), &mut [0; 5]).unwrap();
    child
}

fn channels() {
    let child = Fork::new(Module::current_exe("hangs_up")).spawn().unwrap();
    let events = child.take_events().unwrap();
    let sent = (0..1000).take_while(|_| child.send(&vec![7u8; 10_000]).is_ok()).count();
    assert!(sent < 1000, "the channel is closed, or full");
    assert!(matches!(events.iter().last(), Some(Event::Close(_))));
    let (ours, theirs) = ipc::channel::<Vec<u8>, ()>().unwrap();
    drop::<Channel<(), Vec<u8>>>(theirs);
    for _ in 0..3 {
        ours.send(&vec![7; 10]).unwrap_err();
    }
}

/// `hangs_up`: ends without reading.
#[apply(module)]
fn hangs_up() {
    parent().unwrap();
}
