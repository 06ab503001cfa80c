//! The limit of open descriptors: raised for this process, and not for its children.

use std::fs::File;
use std::os::fd::AsFd;

use child_process::{Command, Limit, Resource, Signal, raise_descriptors};
use sys::rlimit;

use crate::harness::{apply, case};
use crate::support::shell::sh;

/// The soft limit of this process when a case begins.
const SOFT: u64 = 200;

/// Sets the soft limit to [`SOFT`] and raises it to twice that.
fn raise() -> u64 {
    rlimit::set_descriptors(SOFT).unwrap();
    assert_eq!(raise_descriptors(2 * SOFT).unwrap(), 2 * SOFT);
    assert_eq!(rlimit::descriptors().unwrap().0, 2 * SOFT);
    rlimit::descriptors().unwrap().1
}

fn limits_of(command: &mut Command) -> String {
    command.output().unwrap().stdout_text().replace('\n', " ").trim_end().to_owned()
}

fn ulimit() -> Command {
    sh("ulimit -Sn; ulimit -Hn")
}

#[apply(case)]
fn children_get_the_limit_of_before_the_raise() {
    let hard = raise();
    let before = format!("{SOFT} {hard}");
    assert_eq!(limits_of(&mut ulimit()), before);
    assert_eq!(limits_of(ulimit().parent_death_signal(Signal::TERM)), before);
    // Another raise keeps the limit that was there before the first.
    assert_eq!(raise_descriptors(u64::MAX).unwrap(), hard);
    assert_eq!(limits_of(&mut ulimit()), before);
    // The limit is never lowered.
    assert_eq!(raise_descriptors(10).unwrap(), hard);
    assert_eq!(raise_descriptors(0).unwrap(), hard);
    assert_eq!(limits_of(&mut ulimit()), before);
}

#[apply(case)]
fn a_limit_of_the_command_wins() {
    let hard = raise();
    let mut command = ulimit();
    command.limit(Resource::Descriptors, Limit { soft: 77, hard });
    assert_eq!(limits_of(&mut command), format!("77 {hard}"));
    // Another limit leaves the one of descriptors as it was.
    let mut command = ulimit();
    command.limit(Resource::CoreBytes, Limit { soft: 0, hard: 0 });
    assert_eq!(limits_of(&mut command), format!("{SOFT} {hard}"));
}

#[apply(case)]
fn a_limit_that_the_program_sets_after_the_raise_is_inherited() {
    let hard = raise();
    rlimit::set_descriptors(90).unwrap();
    assert_eq!(limits_of(&mut ulimit()), format!("90 {hard}"));
    // A raise from there has a previous limit of its own.
    assert_eq!(raise_descriptors(300).unwrap(), 300);
    assert_eq!(limits_of(&mut ulimit()), format!("90 {hard}"));
}

#[apply(case)]
fn a_child_keeps_descriptors_over_its_limit() {
    raise();
    let null = File::open("/dev/null").unwrap();
    let high = i32::try_from(SOFT + 50).unwrap();
    let mut command = sh(&format!("ls -l /proc/self/fd/{high} >/dev/null && ulimit -Sn"));
    command.descriptor(high, null.as_fd().try_clone_to_owned().unwrap());
    assert_eq!(limits_of(&mut command), SOFT.to_string());
}
