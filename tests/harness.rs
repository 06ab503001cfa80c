//! The harness itself: what it notices, what it says, what it cleans up.
#![allow(clippy::unwrap_used, reason = "test code")]

mod common;

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use common::CASE_MAX;
use sys::pidfd::PidFd;

const SETTLE: Duration = Duration::from_millis(200);

fn try_case(name: &str, deadline: Duration) -> Result<String, String> {
    common::try_case(name, deadline, SETTLE)
}

/// Runs a case that must fail, and looks for what the report must say.
#[track_caller]
fn fails(name: &str, saying: &[&str]) {
    let report = try_case(name, CASE_MAX).unwrap_err();
    for text in saying {
        assert!(report.contains(text), "no {text:?} in:\n{report}");
    }
}

#[test]
fn a_clean_case_passes() {
    let output = try_case("a_clean_case_passes", CASE_MAX).unwrap();
    assert_eq!(output, "said on standard output\n");
}

#[test]
fn a_panic_is_told_with_its_text() {
    let said = ["exit status: 101", "the text of the panic", "said before the panic"];
    fails("a_panic_is_told_with_its_text", &said);
}

#[test]
fn a_leaked_descriptor_is_named() {
    fails("a_leaked_descriptor_is_named", &["exit status: 3", "descriptor", "/dev/zero"]);
}

#[test]
fn a_zombie_is_named() {
    fails("a_zombie_is_named", &["exit status: 3", "fixture, a zombie"]);
}

#[test]
fn a_running_child_is_named() {
    fails("a_running_child_is_named", &["exit status: 3", "child", "role hang", "still running"]);
}

#[test]
fn an_escaped_grandchild_is_named_and_killed() {
    let name = "an_escaped_grandchild_is_named_and_killed";
    let report = try_case(name, CASE_MAX).unwrap_err();
    let (_, tail) = report.split_once("  process ").unwrap();
    let (pid, what) = tail.split_once(": ").unwrap();
    assert!(what.contains("role hang"), "{report}");
    // Killed, which may take a moment; init may not have reaped it yet.
    let gone = PidFd::open(pid.parse().unwrap())
        .map_or(true, |it| sys::poll::readable(it.as_fd(), Some(Duration::from_secs(10))).unwrap());
    assert!(gone, "{report}");
}

#[test]
fn a_running_thread_is_named() {
    fails("a_running_thread_is_named", &["exit status: 3", "thread forgotten"]);
}

#[test]
fn a_case_that_hangs_is_killed_at_its_deadline() {
    let name = "a_case_that_hangs_is_killed_at_its_deadline";
    let (begin, deadline) = (Instant::now(), Duration::from_millis(500));
    let report = try_case(name, deadline).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    for text in ["not done after 500ms", "thread brood-loop", "said before the hang"] {
        assert!(report.contains(text), "no {text:?} in:\n{report}");
    }
}

#[test]
fn an_unknown_case_is_an_error() {
    fails("no_such_case", &["exit status: 2", "no case named no_such_case"]);
}
