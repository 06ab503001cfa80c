//! The harness itself: the left-overs that it finds, its reports, its cleaning.
//!
//! Specimens are cases with a known outcome; the cases below them check the reports.

use std::fs::File;
use std::mem;
use std::os::fd::AsFd;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use sys::pidfd::PidFd;

use crate::harness::{self, CASE_MAX, apply, case, registry, specimen};
use crate::support::{current_exe, eventually, wait};

#[apply(specimen)]
fn is_clean() {
    let mut child = role("hang");
    child.kill().unwrap();
    child.wait().unwrap();
    thread::spawn(|| drop(File::open("/dev/null").unwrap())).join().unwrap();
    println!("said on standard output");
}

#[apply(specimen)]
fn panics() {
    println!("said before the panic");
    panic!("the text of the panic");
}

#[apply(specimen)]
fn leaks_a_descriptor() {
    mem::forget(File::open("/dev/zero").unwrap());
}

#[apply(specimen)]
#[expect(clippy::zombie_processes, reason = "the specimen leaves a zombie")]
fn leaves_a_zombie() {
    let mut child = role("hang");
    child.kill().unwrap();
    eventually("the child is a zombie", || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).unwrap();
        stat.contains(") Z ").then_some(())
    });
}

#[apply(specimen)]
fn leaves_a_child() {
    drop(role("hang"));
}

/// Leaves a process that init adopts, in a group and a session of its own.
#[apply(specimen)]
fn leaves_a_grandchild() {
    let mut shell = Command::new("setsid");
    shell.args(["sh", "-c", "\"$0\" role hang & :"]).arg(current_exe());
    shell.stdin(Stdio::null());
    assert!(shell.status().unwrap().success());
}

#[apply(specimen)]
fn leaves_a_thread() {
    let thread = thread::Builder::new().name("forgotten".to_owned());
    thread.spawn(|| wait(Duration::from_secs(60))).unwrap();
}

#[apply(specimen)]
fn hangs() {
    println!("said before the hang");
    wait(Duration::from_secs(60));
}

fn role(name: &str) -> std::process::Child {
    Command::new(current_exe()).args(["role", name]).spawn().unwrap()
}

const SETTLE: Duration = Duration::from_millis(200);

fn try_case(name: &str, deadline: Duration) -> Result<String, String> {
    harness::try_case(&full(name), deadline, SETTLE)
}

fn full(name: &str) -> String {
    format!("harness::self_test::{name}")
}

/// Runs a specimen that must fail, and checks the texts of its report.
#[track_caller]
fn fails(name: &str, saying: &[&str]) {
    let report = try_case(name, CASE_MAX).unwrap_err();
    for text in saying {
        assert!(report.contains(text), "no {text:?} in:\n{report}");
    }
}

#[apply(case)]
fn a_clean_case_passes() {
    let output = try_case("is_clean", CASE_MAX).unwrap();
    assert_eq!(output, "said on standard output\n");
}

#[apply(case)]
fn a_panic_is_reported_with_its_text() {
    let said = ["exit status: 101", "the text of the panic", "said before the panic"];
    fails("panics", &said);
}

#[apply(case)]
fn a_leaked_descriptor_is_named() {
    fails("leaks_a_descriptor", &["exit status: 3", "descriptor", "/dev/zero"]);
}

#[apply(case)]
fn a_zombie_is_named() {
    fails("leaves_a_zombie", &["exit status: 3", ", a zombie"]);
}

#[apply(case)]
fn a_running_child_is_named() {
    fails("leaves_a_child", &["exit status: 3", "child", "role hang", "still running"]);
}

#[apply(case)]
fn an_escaped_grandchild_is_named_and_killed() {
    let name = "leaves_a_grandchild";
    let report = try_case(name, CASE_MAX).unwrap_err();
    let (_, tail) = report.split_once("  process ").unwrap();
    let (pid, what) = tail.split_once(": ").unwrap();
    assert!(what.contains("role hang"), "{report}");
    // The kill may take a moment, and init may not have reaped the process yet.
    let gone = PidFd::open(pid.parse().unwrap())
        .map_or(true, |it| sys::poll::readable(it.as_fd(), Some(Duration::from_secs(10))).unwrap());
    assert!(gone, "{report}");
}

#[apply(case)]
fn a_running_thread_is_named() {
    fails("leaves_a_thread", &["exit status: 3", "thread forgotten"]);
}

#[apply(case)]
fn a_case_that_hangs_is_killed_at_its_deadline() {
    let name = "hangs";
    let (begin, deadline) = (Instant::now(), Duration::from_millis(500));
    let report = try_case(name, deadline).unwrap_err();
    assert!(begin.elapsed() < Duration::from_secs(5));
    for text in ["not done after 500ms", "thread brood-loop", "said before the hang"] {
        assert!(report.contains(text), "no {text:?} in:\n{report}");
    }
}

#[apply(case)]
fn an_unknown_case_is_an_error() {
    fails("no_such_case", &["exit status: 2", "no case named harness::self_test::no_such_case"]);
}

#[apply(case)]
fn no_two_roles_and_no_two_modules_have_one_name() {
    let roles = registry::roles().map(|role| role.name);
    let modules = registry::modules().into_iter().map(|(name, _)| name);
    for mut names in [roles.collect::<Vec<_>>(), modules.collect()] {
        names.sort_unstable();
        let twice = names.windows(2).find(|pair| pair[0] == pair[1]);
        assert_eq!(twice, None, "the second of them would never run");
    }
}
