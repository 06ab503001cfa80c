//! The options of a command, and the errors that name them.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use child_process::{Command, Error, Fork, Limit, Module, Resource, Signal, Stdio, Step};

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::{TestFolder, sh};

fn is_root() -> bool {
    fs::read_to_string("/proc/self/status").unwrap().contains("Uid:\t0\t0")
}

#[apply(case)]
fn a_child_sees_its_own_descriptors_only() {
    let null = File::open("/dev/null").unwrap();
    let many: Vec<_> = (0..1000).map(|_| null.try_clone().unwrap()).collect();
    // Some descriptors are inheritable, as a careless library leaves them.
    for file in many.iter().step_by(3) {
        sys::fd::set_close_on_exec(file.as_fd(), false).unwrap();
    }
    let mut list = Command::new("ls");
    list.arg("/proc/self/fd").descriptor(7, null.try_clone().unwrap());
    assert_eq!(list.output().unwrap().stdout_text(), "0\n1\n2\n3\n7\n", "3 is the folder itself");
}

#[apply(case)]
fn a_missing_directory_is_distinguished_from_a_missing_program() {
    let error = Command::new("true").current_dir("/nonexistent").spawn().unwrap_err();
    assert_eq!((error.code(), error.step()), ("ENOENT", Some(Step::CurrentDir)));
    let Error::Spawn(failure) = error else { panic!("{error:?}") };
    assert_eq!(failure.current_dir.as_deref(), Some(Path::new("/nonexistent")));
    let error = Command::new("nonexistent-program").spawn().unwrap_err();
    assert_eq!((error.code(), error.step()), ("ENOENT", Some(Step::Program)));
}

#[apply(case)]
fn bad_options_are_refused_before_anything_starts() {
    let check = |command: &mut Command, field: &str, code: &str| {
        let Err(Error::Invalid(invalid)) = command.spawn() else { panic!("{field} was accepted") };
        assert_eq!((invalid.field.as_str(), invalid.code()), (field, code));
    };
    let value = "ERR_INVALID_ARG_VALUE";
    let range = "ERR_OUT_OF_RANGE";
    check(&mut Command::new(""), "program", value);
    check(&mut Command::new("a\0b"), "program", value);
    check(Command::new("a").arg("b\0"), "args[0]", value);
    check(Command::new("a").env("K", "\0"), "env K", value);
    check(Command::new("a").current_dir("\0"), "cwd", value);
    check(Command::new("a").uid(u32::MAX), "uid", range);
    check(Command::new("a").gid(u32::MAX), "gid", range);
    check(Command::new("a").nice(20), "nice", range);
    check(Command::new("a").umask(0o1000), "umask", range);
    check(Command::new("a").affinity([]), "affinity", value);
    check(Command::new("a").detached(true).process_group(0), "process_group", value);
    check(Command::new("a").descriptor(-1, Stdio::null()), "stdio[-1]", range);
    let mut two = Command::new("a");
    two.descriptor(3, Stdio::ipc()).descriptor(4, Stdio::ipc());
    check(&mut two, "stdio", "ERR_IPC_ONE_PIPE");
    let mut fork = Fork::new(Module::this_program());
    check(fork.descriptor(3, Stdio::null()), "stdio", "ERR_CHILD_PROCESS_IPC_REQUIRED");
    let mut sync = Command::new("a");
    let error = sync.descriptor(3, Stdio::ipc()).output().unwrap_err();
    assert_eq!(error.code(), "ERR_IPC_SYNC_FORK");
    let mut spent = Command::new("true");
    spent.stdin(File::open("/dev/null").unwrap());
    assert!(spent.spawn().unwrap().wait().unwrap().success());
    check(&mut spent, "stdio[0]", value);
}

#[apply(case)]
fn every_option_reaches_the_child() {
    let mut command = sh("umask; ulimit -n; nice; echo $0");
    command.umask(0o027).limit(Resource::Descriptors, Limit { soft: 40, hard: 50 }).nice(3);
    assert_eq!(command.output().unwrap().stdout_text(), "0027\n40\n3\n/bin/sh\n");
    let mut status = Command::new("cat");
    status.arg("/proc/self/status").no_new_privileges().affinity([0]);
    status.block_signals([Signal::USR1]);
    let status = status.output().unwrap();
    let text = status.stdout_text();
    let line = |name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().last().unwrap().to_owned()
    };
    assert_eq!(line("NoNewPrivs"), "1");
    assert_eq!(line("Cpus_allowed_list"), "0");
    assert_eq!(line("SigBlk"), format!("{:016x}", 1 << (Signal::USR1.number() - 1)));
    let error = sh("true").cgroup("/nonexistent").spawn().unwrap_err();
    assert_eq!((error.code(), error.step()), ("ENOENT", Some(Step::Cgroup)));
}

#[apply(case)]
fn users_change_as_root_and_only_then() {
    if !is_root() {
        let error = sh("true").uid(0).spawn().unwrap_err();
        return assert_eq!((error.code(), error.step()), ("EPERM", Some(Step::Uid)));
    }
    let ids = sh("id -u; id -g; id -G").uid(65_534).gid(65_533).output().unwrap();
    assert_eq!(ids.stdout_text(), "65534\n65533\n65533\n");
    // A parent with supplementary groups passes none of them on to another user.
    let mut parent = Command::new(current_exe());
    let groups = parent.args(["role", "print_groups_of_another_user"]).groups([5, 6]).output();
    assert_eq!(groups.unwrap().stdout_text(), "0 5 6\n65533\n");
    let groups = sh("id -G").gid(1).groups([5, 6]).output().unwrap();
    assert_eq!(groups.stdout_text(), "1 5 6\n");
    // A program that only root may run cannot be started as another user.
    let folder = TestFolder::new("users");
    let program = folder.file("private", "#!/bin/sh\n", 0o700);
    assert!(Command::new(&program).output().unwrap().status.success());
    let error = Command::new(&program).uid(65_534).spawn().unwrap_err();
    assert_eq!((error.code(), error.step()), ("EACCES", Some(Step::Program)));
    // The same holds for a folder of PATH that only root may search.
    fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o700)).unwrap();
    let mut bare = Command::new("private");
    bare.env("PATH", format!("{}:/bin", folder.0.display()));
    assert!(bare.output().unwrap().status.success());
    assert_eq!(bare.uid(65_534).spawn().unwrap_err().code(), "EACCES");
}

/// `print_groups_of_another_user`: prints its own groups, and those of a child that is another user.
#[apply(role)]
fn print_groups_of_another_user(_args: &[String]) {
    let mut other = sh("id -G");
    let other = other.uid(65_534).gid(65_533).output().unwrap();
    print!("{}{}", sh("id -G").output().unwrap().stdout_text(), other.stdout_text());
}

#[apply(case)]
fn a_full_table_of_descriptors_is_a_clear_error() {
    sys::rlimit::set_descriptors(128).unwrap();
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    let error = Command::new("true").spawn().unwrap_err();
    assert_eq!((error.code(), error.step()), ("EMFILE", Some(Step::Process)));
    let number = |file: &File| sys::fd::number(file.as_fd());
    let before: BTreeSet<i32> = all.iter().map(number).collect();
    drop(all.pop());
    drop(all.pop());
    // There is room for one pipe and no more; the spawn closes the pipe again.
    assert_eq!(Command::new("true").spawn().unwrap_err().code(), "EMFILE");
    all.push(File::open("/dev/null").unwrap());
    all.push(File::open("/dev/null").unwrap());
    assert_eq!(before, all.iter().map(number).collect());
}
