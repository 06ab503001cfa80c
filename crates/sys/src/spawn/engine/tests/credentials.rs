//! Changes of user and group, by one child and by many at once.

use super::*;
use crate::dumpable;

#[test]
fn credentials_change_and_the_parents_flag_stays() {
    if is_root() {
        in_a_process_of_its_own("credentials::credentials_change");
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn credentials_change() {
    assert_eq!(dumpable::get(), 1);
    let mut plan = sh("id -u; id -g; id -G");
    let attributes = plan.attributes.to_mut();
    (attributes.uid, attributes.gid) = (Some(65_534), Some(65_533));
    assert_eq!(stdout_of(&plan), "65534\n65533\n65533");
    plan.attributes.to_mut().groups = Some(vec![7, 9]);
    assert_eq!(stdout_of(&plan), "65534\n65533\n65533 7 9");
    assert_eq!(dumpable::get(), 1);
    // A program that only root may execute: it runs as root and is refused to the new user.
    let directory = temp_dir("credentials");
    file(&directory.join("mine"), "#!/bin/sh\nexit 0\n", 0o700);
    let mut plan = Plan::new(vec![c_path(&directory.join("mine"))], vec![c("mine")]);
    assert!(spawn(&plan).unwrap().pidfd.wait().unwrap().success());
    plan.attributes.to_mut().uid = Some(65_534);
    assert_eq!(failure(&plan), (Step::Program, "EACCES"), "counts as the new user");
    fs::remove_dir_all(directory).unwrap();
    // The user "nobody" may not become another user.
    // SAFETY: integers only; the process is this test's own.
    assert_eq!(unsafe { libc::setresuid(65_534, 65_534, 65_534) }, 0);
    let mut plan = sh("true");
    plan.attributes.to_mut().uid = Some(0);
    assert_eq!(failure(&plan), (Step::Uid, "EPERM"));
    let attributes = plan.attributes.to_mut();
    (attributes.uid, attributes.gid) = (None, Some(1));
    assert_eq!(failure(&plan), (Step::Gid, "EPERM"));
    let attributes = plan.attributes.to_mut();
    (attributes.gid, attributes.groups) = (None, Some(vec![1]));
    assert_eq!(failure(&plan), (Step::Groups, "EPERM"));
}

#[test]
fn another_user_keeps_no_supplementary_group_of_root() {
    if is_root() {
        in_a_process_of_its_own("credentials::supplementary_groups");
    }
}

/// Root has no supplementary group in most containers, so the process gets some.
#[test]
#[ignore = "runs in a process of its own"]
fn supplementary_groups() {
    nix::unistd::setgroups(&[5, 6].map(nix::unistd::Gid::from_raw)).unwrap();
    let mut plan = sh("id -G");
    assert_eq!(stdout_of(&plan), "0 5 6", "root keeps its groups");
    plan.attributes.to_mut().uid = Some(65_534);
    assert_eq!(stdout_of(&plan), "0", "the group is not changed, the others are dropped");
    plan.attributes.to_mut().gid = Some(65_533);
    assert_eq!(stdout_of(&plan), "65533");
    plan.attributes.to_mut().uid = None;
    assert_eq!(stdout_of(&plan), "65533");
    plan.attributes.to_mut().groups = Some(Vec::new());
    assert_eq!(stdout_of(&plan), "65533");
}

#[test]
fn many_credential_changes_at_once_never_open_our_memory() {
    if is_root() {
        in_a_process_of_its_own("credentials::credential_changes_at_once");
    }
}

/// A child that is slow to find its program borrows this process's memory under its new user all
/// the while. Another such spawn that ends meanwhile must not make that memory readable.
#[test]
#[ignore = "runs in a process of its own"]
fn credential_changes_at_once() {
    const ROUNDS: usize = 300;
    const SLOW_ROUNDS: usize = 20;
    const SLOW_CANDIDATES: usize = 10_000;
    let repeat = |rounds: usize, missing: usize| {
        move || {
            let mut plan = Plan::new(vec![c("/nonexistent/x"); missing], vec![c("true")]);
            plan.candidates.push(c("/bin/true"));
            plan.attributes.to_mut().uid = Some(65_534);
            for _ in 0..rounds {
                assert!(spawn(&plan).unwrap().pidfd.wait().unwrap().success());
            }
        }
    };
    // On a busy machine a slow child may come and go between two samples: then there are more.
    let was_seen = std::sync::Arc::new(std::sync::atomic::AtomicBool::new(false));
    let slow_sees = std::sync::Arc::clone(&was_seen);
    let slow = thread::spawn(move || {
        for round in 0..SLOW_ROUNDS * 20 {
            if round >= SLOW_ROUNDS && slow_sees.load(std::sync::atomic::Ordering::Relaxed) {
                break;
            }
            repeat(1, SLOW_CANDIDATES)();
        }
    });
    let fast = [thread::spawn(repeat(ROUNDS, 0)), thread::spawn(repeat(ROUNDS, 0))];
    let mut seen = 0;
    while !slow.is_finished() {
        // A task of this process under the other user, while it still runs this program.
        for entry in fs::read_dir("/proc").unwrap().flatten() {
            if is_readable_by_its_new_user(&entry.path()) == Some(false) {
                seen += 1;
                was_seen.store(true, std::sync::atomic::Ordering::Relaxed);
            }
        }
    }
    slow.join().unwrap();
    for fast in fast {
        fast.join().unwrap();
    }
    assert!(seen > 0, "the slow child was never sampled");
    assert_eq!(dumpable::get(), 1);
}

/// `None` unless the process is a child of this one under the other user that still borrows the
/// memory. The owner of a `/proc` entry is root exactly while the process is not dumpable.
fn is_readable_by_its_new_user(process: &std::path::Path) -> Option<bool> {
    use std::os::unix::fs::MetadataExt;
    let status = fs::read_to_string(process.join("status")).ok()?;
    let mine = format!("PPid:\t{}\n", std::process::id());
    let borrowed = status.contains(&mine) && status.contains("Uid:\t65534\t");
    let program = fs::read_link(process.join("exe")).ok()?;
    let owner = fs::metadata(process.join("mem")).ok()?.uid();
    let still = fs::read_link(process.join("exe")).ok()?;
    let ours = std::env::current_exe().ok()?;
    let same = borrowed && program == ours && still == ours;
    assert!(!same || owner == 0, "our memory is open to the new user");
    same.then_some(owner != 0)
}

#[test]
fn groups_that_cannot_be_dropped_end_the_start() {
    if is_root() {
        in_a_process_of_its_own("credentials::groups_without_the_capability");
    }
}

/// A process that may change its user and not its groups.
#[test]
#[ignore = "runs in a process of its own"]
fn groups_without_the_capability() {
    const CAP_SETGID: u32 = 6;
    // SAFETY: a list of one group, which is read.
    let set = unsafe { libc::syscall(libc::SYS_setgroups, 1usize, [7u32].as_ptr()) };
    assert_eq!(set, 0);
    // The third version, of the calling thread; then effective, permitted and inheritable sets.
    let header = [0x2008_0522u32, 0];
    let mut sets = [0u32; 6];
    // SAFETY: a header and room for its two groups of sets.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    for set in &mut sets[..2] {
        *set &= !(1 << CAP_SETGID);
    }
    // SAFETY: as above, and nothing is written.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
    let mut plan = sh("id -G");
    plan.attributes.to_mut().uid = Some(65_534);
    assert_eq!(failure(&plan), (Step::Groups, "EPERM"));
    // The same user gains nothing by the groups that it has.
    plan.attributes.to_mut().uid = Some(0);
    assert!(spawn(&plan).unwrap().pidfd.wait().unwrap().success());
}
