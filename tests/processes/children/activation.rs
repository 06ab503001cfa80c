//! Programs that a service manager starts with sockets, and that use other libraries to take them.

use std::net::TcpListener;
use std::os::fd::AsFd;

use child_process::{Command, Module};

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::sh;

/// A script that prints the variables of a service manager and what its descriptors lead to.
const SEEN: &str = "echo ${LISTEN_FDS-none} ${LISTEN_PID-none} ${LISTEN_FDNAMES-none} $$; \
    readlink /proc/$$/fd/*";

#[apply(case)]
fn the_sockets_are_left_to_whoever_takes_them() {
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut program = Command::new("/bin/sh");
    program.args(["-c", "export LISTEN_PID=$$; exec \"$0\" role takes_no_sockets"]);
    program.arg(current_exe()).env("LISTEN_FDS", "1").env("LISTEN_FDNAMES", "web");
    let output = program.descriptor(3, socket).output().unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
}

/// Uses children and nothing else; the sockets are for another library.
#[apply(role)]
fn takes_no_sockets(_: &[String]) {
    let own_pid = std::process::id().to_string();
    let variable = |name| std::env::var(name).unwrap();
    assert_eq!(variable("LISTEN_FDS"), "1");
    assert_eq!(variable("LISTEN_PID"), own_pid);
    assert_eq!(variable("LISTEN_FDNAMES"), "web");
    // Descriptor 3 is as the service manager left it: it survives an exec of this process.
    let copy = sys::startup::inheritable(3).unwrap();
    assert!(sys::fd::kind(copy.as_fd()).unwrap() == sys::fd::Kind::TcpListener);
    let inode = sys::fd::inode(copy.as_fd()).unwrap();
    drop(copy);
    // A child has the variables, which name another process, and not the socket.
    let mut fork = child_process::Fork::new(Module::program("/bin/sh"));
    fork.silent(true).args(["-c", SEEN]);
    fork.descriptor(3, child_process::Stdio::null());
    fork.descriptor(4, child_process::Stdio::ipc());
    let texts = [sh(SEEN).output().unwrap().stdout_text().into_owned(), {
        let mut text = String::new();
        let mut child = fork.spawn().unwrap();
        std::io::Read::read_to_string(&mut child.take_stdout().unwrap(), &mut text).unwrap();
        child.wait().unwrap();
        text
    }];
    for text in texts {
        let words: Vec<&str> = text.split_whitespace().collect();
        assert_eq!(words[..3], ["1", own_pid.as_str(), "web"], "{text}");
        assert_ne!(words[3], own_pid, "the variables name another process");
        assert!(!words[4..].contains(&format!("socket:[{inode}]").as_str()), "{text}");
    }
    // The cluster would find them as well.
    let taken = sys::startup::listen_sockets();
    assert_eq!(taken.len(), 1);
    assert_eq!(taken[0].0, "web");
    assert!(sys::startup::inheritable(3).is_err(), "it is close-on-exec now");
    assert!(sys::startup::listen_sockets().is_empty(), "each socket is taken once");
    let text = sh(SEEN).output().unwrap().stdout_text().into_owned();
    assert!(text.starts_with("none none none"), "{text}");
}
