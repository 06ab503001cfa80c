//! Options with the smallest and the largest values: taken, or refused where they are set.

use std::time::Duration;

use child_process::{Command, Error, ExitStatus, Limit, Resource, Stdio, TerminalSize, exec};

use crate::harness::{apply, case};
use crate::support::shell::{sh, story};

/// Times that never pass in a test, to the last that fits.
fn long_times() -> [Duration; 5] {
    let clock_max = u64::try_from(i64::MAX).unwrap();
    [
        Duration::from_millis(u32::MAX.into()),
        Duration::from_secs(u32::MAX.into()),
        Duration::from_secs(clock_max - 10_000_000_000),
        Duration::from_secs(clock_max),
        Duration::MAX,
    ]
}

#[apply(case)]
fn long_times_are_no_times() {
    for time in long_times() {
        let child = sh("exit 3").timeout(time).spawn().unwrap();
        assert_eq!(story(&child), ["Spawn", "Exit(Code(3))", "Close(Code(3))"], "{time:?}");
        let child = sh("exit 3").spawn().unwrap();
        assert_eq!(child.wait_timeout(time).unwrap(), Some(ExitStatus::Code(3)), "{time:?}");
        let output = sh("echo text").timeout(time).output().unwrap();
        assert_eq!(output.stdout, b"text\n", "{time:?}");
        let output = sh("echo text").timeout(time).exec().unwrap().wait().unwrap();
        assert_eq!(output.stdout, b"text\n", "{time:?}");
    }
    // The loop still works.
    assert!(exec("true").unwrap().wait().unwrap().status.success());
}

#[apply(case)]
fn short_times_pass_at_once() {
    let nanosecond = Duration::from_nanos(1);
    let slow = || sh("exec sleep 60");
    assert_eq!(
        story(&slow().timeout(nanosecond).spawn().unwrap()),
        ["Spawn", "Error(TimedOut)", "Exit(Signal(SIGTERM))", "Close(Signal(SIGTERM))"]
    );
    let error = slow().timeout(nanosecond).output().unwrap_err().error;
    assert!(matches!(error, Error::TimedOut), "{error}");
    let error = slow().timeout(nanosecond).exec().unwrap().wait().unwrap_err().error;
    assert!(matches!(error, Error::TimedOut), "{error}");
    let child = sh("read line").spawn().unwrap();
    assert_eq!(child.wait_timeout(Duration::ZERO).unwrap(), None);
    // Zero is no timeout, as in Node.
    let output = sh("echo text").timeout(Duration::ZERO).output().unwrap();
    assert_eq!(output.stdout, b"text\n");
}

#[apply(case)]
fn numbers_at_their_ends_are_taken_or_refused() {
    let refused = |command: &mut Command| match command.spawn() {
        Err(Error::Invalid(_)) => {}
        other => panic!("{other:?}"),
    };
    for number in [i32::MIN, -1, 65_536, i32::MAX] {
        refused(sh("true").descriptor(number, Stdio::null()));
        refused(sh("true").controlling_terminal(number));
    }
    refused(sh("true").uid(u32::MAX));
    refused(sh("true").gid(u32::MAX));
    refused(sh("true").groups([0, u32::MAX]));
    refused(sh("true").umask(u32::MAX));
    refused(sh("true").process_group(u32::MAX));
    refused(sh("true").nice(i32::MIN));
    refused(sh("true").nice(i32::MAX));
    refused(sh("true").affinity([u32::MAX]));
    let output = |command: &mut Command| command.output().unwrap().stdout;
    assert_eq!(output(sh("echo text").max_buffer(usize::MAX)), b"text\n");
    assert_eq!(output(sh("true").max_buffer(0)), b"");
    assert!(matches!(
        sh("echo text").max_buffer(0).output().unwrap_err().error,
        Error::MaxBuffer(_)
    ));
    let endless = Limit { soft: u64::MAX, hard: u64::MAX };
    // Refused by the kernel, which has a maximum; never a panic.
    let _ = sh("true").limit(Resource::Descriptors, endless).spawn();
    let nothing = Limit { soft: 0, hard: 0 };
    assert_eq!(output(sh("ulimit -c").limit(Resource::CoreBytes, nothing)), b"0\n");
    for size in [TerminalSize::new(0, 0), TerminalSize::new(u16::MAX, u16::MAX)] {
        let mut command = sh("true");
        assert!(command.stdin(Stdio::pty()).terminal_size(size).spawn().is_ok());
    }
    let (soft, hard) = sys::rlimit::descriptors().unwrap();
    assert_eq!(child_process::raise_descriptors(0).unwrap(), soft);
    assert_eq!(child_process::raise_descriptors(u64::MAX).unwrap(), hard);
    assert!(exec("true").unwrap().wait().unwrap().status.success());
}
