//! Timeouts and cancellation of children.

use std::time::{Duration, Instant};

use child_process::{CancelToken, Error, ExitStatus, Signal};

use crate::harness::{apply, case};
use crate::support::shell::{sh, story};

#[apply(case)]
fn a_timeout_is_reported_although_the_child_then_exits_well() {
    let script = "trap 'echo late; exit 0' TERM; echo ready; while :; do sleep 0.01; done";
    let error = sh(script).timeout(Duration::from_millis(300)).output().unwrap_err();
    assert_eq!((error.code(), error.status), ("ETIMEDOUT", Some(ExitStatus::Code(0))));
    assert_eq!(error.stdout, b"ready\nlate\n");
    let exec = sh(script).timeout(Duration::from_millis(300)).exec().unwrap();
    assert_eq!(exec.wait().unwrap_err().code(), "ETIMEDOUT");
    let child = sh(script).timeout(Duration::from_millis(300)).spawn().unwrap();
    let seen = story(&child);
    assert_eq!(seen, ["Spawn", "Error(TimedOut)", "Exit(Code(0))", "Close(Code(0))"]);
}

#[apply(case)]
fn a_timeout_does_not_wait_for_grandchildren() {
    let begin = Instant::now();
    let mut command = sh("sleep 30 & echo $!; wait");
    let error = command.timeout(Duration::from_millis(300)).output().unwrap_err();
    assert!(matches!(error.error, Error::TimedOut));
    assert!(begin.elapsed() < Duration::from_secs(10));
    let sleeper = String::from_utf8_lossy(&error.stdout).trim().parse().unwrap();
    sys::signal::kill(sleeper, Signal::KILL).unwrap();
}

#[apply(case)]
fn a_cancelled_token_ends_children_and_reports_the_reason() {
    let token = CancelToken::new();
    let child = sh("exec sleep 60").cancel_with(&token).spawn().unwrap();
    let exec = sh("echo first; exec sleep 60").cancel_with(&token).exec().unwrap();
    assert_eq!(token.children(), 2);
    token.cancel_because("enough");
    token.cancel_because("too late");
    let expected = ["Spawn", "Error(Cancelled(Some(\"enough\")))"];
    let seen = story(&child);
    let (spawn_and_error, rest) = seen.split_at(2);
    let mut sorted = spawn_and_error.to_vec();
    sorted.sort_by_key(|event| event != "Spawn");
    assert_eq!(sorted, expected);
    assert_eq!(rest, ["Exit(Signal(SIGTERM))", "Close(Signal(SIGTERM))"]);
    let error = exec.wait().unwrap_err();
    assert_eq!(error.code(), "ABORT_ERR");
    assert!(matches!(&error.error, Error::Cancelled(Some(why)) if why == "enough"), "{error:?}");
    // A token that was cancelled before: the child is started, and ended at once.
    let late = sh("exec sleep 60").cancel_with(&token).kill_signal(Signal::KILL).spawn().unwrap();
    assert_eq!(late.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
    assert_eq!(token.children(), 0);
}
