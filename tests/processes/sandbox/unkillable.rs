//! A process that cannot be signalled: its timeout and its cancellation answer all the same.

use std::fs;
use std::time::Duration;

use child_process::{CancelToken, Command, Error, Event, ExecError, Output};
use sys::testing::{KILL, REFUSED, refuse};

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{current_exe, eventually, wait};

#[apply(case)]
fn a_child_that_cannot_be_signalled_outlives_its_timeout_and_its_cancellation() {
    for errno in ["EPERM", "ENOSYS"] {
        let mut role = Command::new(current_exe());
        let output = role.args(["role", "without_signals", errno]).output().unwrap();
        assert_eq!(output.stdout_text(), "answered\n", "{}", output.stderr_text());
    }
}

const SOON: Duration = Duration::from_millis(100);

/// `without_signals ERRNO`: runs commands where every call that sends a signal is refused.
#[apply(role)]
fn without_signals(args: &[String]) {
    let errno = sys::testing::errno_by_name(&args[0]).expect("an error");
    let calls = REFUSED.iter().filter(|call| call.name == "pidfd_send_signal");
    let calls: Vec<_> = calls.copied().chain([KILL]).collect();
    refuse(&calls, errno).expect("a filter");
    refused(slow().timeout(SOON).output(), &args[0]);
    refused(slow().timeout(SOON).exec().unwrap().wait(), &args[0]);
    let cancelled_soon = || {
        let token = CancelToken::new();
        let later = token.clone();
        std::thread::spawn(move || {
            wait(SOON);
            later.cancel();
        });
        token
    };
    refused(slow().cancel_with(&cancelled_soon()).output(), &args[0]);
    refused(slow().cancel_with(&cancelled_soon()).exec().unwrap().wait(), &args[0]);
    let cancelled = CancelToken::new();
    cancelled.cancel();
    refused(slow().cancel_with(&cancelled).output(), &args[0]);
    let child = slow().timeout(SOON).spawn().unwrap();
    let events: Vec<Event> = child.take_events().unwrap().iter().collect();
    let is_error = |event: &&Event| matches!(event, Event::Error(_));
    assert_eq!(events.iter().filter(is_error).count(), 1, "{events:?}");
    assert!(matches!(&events[1], Event::Error(Error::Os("kill", _))), "{events:?}");
    assert!(matches!(events.last(), Some(Event::Close(status)) if status.success()));
    eventually("the children end and are reaped", || children().is_empty().then_some(()));
    println!("answered");
}

/// Returns a command that takes much longer than its timeout.
fn slow() -> Command {
    sh("exec sleep 3")
}

/// Checks for the error of the call, while the child still runs.
fn refused(result: Result<Output, ExecError>, errno: &str) {
    let failed = result.unwrap_err();
    assert!(matches!(failed.error, Error::Os("kill", _)), "{failed:?}");
    assert_eq!((failed.code(), failed.status, failed.killed()), (errno, None, false));
    assert!(!children().is_empty(), "the answer does not wait for the end of the child");
}

fn children() -> String {
    let threads = fs::read_dir("/proc/self/task").expect("threads").flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    lists.collect()
}
