//! Children of other users, by name.

use std::time::Duration;

use child_process::{Command, Error, Step};

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::sh;

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("SKIPPED: needs root");
    }
    root
}

fn ids(command: &mut Command) -> String {
    command.current_dir("/").output().unwrap().stdout_text().trim_end().replace('\n', " ")
}

#[apply(case)]
fn a_user_by_name_has_the_ids_and_groups_of_the_database() {
    if !is_root() {
        return;
    }
    let script = "id -u; id -g; id -G";
    // Groups of the parent that the user does not have.
    nix::unistd::setgroups(&[4, 6].map(nix::unistd::Gid::from_raw)).unwrap();
    for name in ["daemon", "nobody"] {
        let expected = ids(&mut sh(&format!("id -u {name}; id -g {name}; id -G {name}")));
        assert_eq!(ids(sh(script).user(name)), expected, "{name}");
    }
    let daemon = ids(sh(script).user("daemon"));
    let mut parts = daemon.split(' ');
    let (uid, gid) = (parts.next().unwrap(), parts.next().unwrap());
    // Each part can be replaced, in any order.
    assert_eq!(ids(sh("id -u; id -g").uid(65_533).user("daemon")), format!("65533 {gid}"));
    assert_eq!(ids(sh("id -u; id -g").user("daemon").gid(65_533)), format!("{uid} 65533"));
    assert_eq!(ids(sh(script).user("daemon").groups([7])), format!("{uid} {gid} {gid} 7"));
}

#[apply(case)]
fn a_user_that_is_unknown_or_cannot_be_had_ends_the_start() {
    for name in ["no such user", "", "a\0b"] {
        let error = Command::new("true").user(name).spawn().unwrap_err();
        assert!(matches!(error, Error::Invalid(_)), "{error:?}");
        assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
    }
    if !is_root() {
        return;
    }
    let mut role = Command::new(current_exe());
    let output = role.args(["role", "becomes_another"]).user("nobody").output().unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
}

/// Runs as a user without rights.
#[apply(role)]
fn becomes_another(_: &[String]) {
    let error = Command::new("true").user("daemon").spawn().unwrap_err();
    assert_eq!((error.step(), error.code()), (Some(Step::Groups), "EPERM"));
}

#[apply(case)]
fn a_start_without_time_is_refused() {
    let error = Command::new("true").start_within(Duration::ZERO).spawn().unwrap_err();
    assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE");
    assert!(sh("true").start_within(Duration::MAX).output().unwrap().status.success());
}
