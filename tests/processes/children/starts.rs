//! Starts that fail and are tried again, and the signals with which a child starts.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::AsFd;
use std::time::Duration;

use child_process::{Command, Limit, Resource, Signal, Step};

use crate::harness::{apply, case, role};
use crate::support::shell::{TestFolder, sh};
use crate::support::{current_exe, wait};

#[apply(case)]
fn a_start_that_fails_leaves_the_descriptors_in_the_command() {
    let folder = TestFolder::new("starts");
    let path = folder.file("input", "text of the file\n", 0o600);
    let program = folder.0.join("program");
    type Fails = fn(&mut Command);
    let fails: [Fails; 4] = [
        // A missing program, with and without a thread for the parent-death signal.
        |_| {},
        |command| {
            command.parent_death_signal(Signal::KILL);
        },
        // Other steps, before and after the descriptors are placed.
        |command| {
            command.current_dir("/nonexistent");
        },
        |command| {
            command.limit(Resource::Descriptors, Limit { soft: 2, hard: 1 });
        },
    ];
    for (number, fail) in fails.into_iter().enumerate() {
        let mut command = Command::new(&program);
        command.stdin(File::open(&path).unwrap()).descriptor(7, File::open(&path).unwrap());
        fail(&mut command);
        let start = move || {
            for _ in 0..2 {
                let error = command.spawn().unwrap_err();
                assert!(error.step().is_some(), "{error}");
            }
            command
        };
        let mut command = std::thread::spawn(start).join().unwrap();
        if number < 2 {
            std::os::unix::fs::symlink("/bin/cat", &program).unwrap();
            assert_eq!(command.output().unwrap().stdout_text(), "text of the file\n");
            std::fs::remove_file(&program).unwrap();
            // Now the descriptors have moved.
            assert_eq!(command.output().unwrap_err().error.code(), "ERR_INVALID_ARG_VALUE");
        }
    }
}

#[apply(case)]
fn a_program_that_is_just_written_starts() {
    let folder = TestFolder::new("busy");
    let program = folder.0.join("true");
    std::fs::copy("/bin/true", &program).unwrap();
    let writer = OpenOptions::new().append(true).open(&program).unwrap();
    // Open for writing for longer than all attempts take.
    let error = Command::new(&program).spawn().unwrap_err();
    assert_eq!((error.step(), error.code()), (Some(Step::Program), "ETXTBSY"));
    let late = std::thread::spawn(move || {
        wait(Duration::from_millis(20));
        drop(writer);
    });
    assert!(Command::new(&program).output().unwrap().status.success());
    late.join().unwrap();
    // Other threads start children meanwhile, which have the file open until they execute.
    let others = || {
        (0..100).for_each(|_| assert!(Command::new("true").output().unwrap().status.success()));
    };
    std::thread::scope(|scope| {
        scope.spawn(others);
        scope.spawn(others);
        for round in 0..50 {
            let program = folder.0.join(round.to_string());
            let mut file = OpenOptions::new();
            let mut file = file.write(true).create(true).truncate(true).open(&program).unwrap();
            file.write_all(&std::fs::read("/bin/true").unwrap()).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o700);
            file.set_permissions(mode).unwrap();
            drop(file);
            assert!(Command::new(&program).output().unwrap().status.success());
        }
    });
}

#[apply(case)]
fn ignored_signals_are_reset_only_by_request() {
    let line = "trap '' TERM HUP PIPE CHLD; exec \"$0\" role ignores_signals";
    let mut program = sh(line);
    let output = program.arg(current_exe()).output().unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
}

/// Starts children while it ignores signals.
#[apply(role)]
fn ignores_signals(_: &[String]) {
    let ignored = |command: &mut Command| {
        let status = command.arg("/proc/self/status").output().unwrap();
        let text = status.stdout_text().into_owned();
        let line = text.lines().find_map(|line| line.strip_prefix("SigIgn:")).unwrap();
        // The numbers from 32 on are the C library's.
        u64::from_str_radix(line.trim(), 16).unwrap() & 0x7fff_ffff
    };
    let bit = |signal: Signal| 1u64 << (signal.number() - 1);
    let inherited = bit(Signal::TERM) | bit(Signal::HUP);
    assert_eq!(ignored(&mut Command::new("cat")), inherited);
    assert_eq!(ignored(Command::new("cat").default_signals(false)), inherited);
    assert_eq!(ignored(Command::new("cat").default_signals(true)), 0);
}

#[apply(case)]
fn a_second_start_has_other_descriptors_after_the_first_failed() {
    // The pipes of a failed start are closed.
    let before = sys::fd::open_descriptors().unwrap();
    let null = File::open("/dev/null").unwrap();
    let mut command = Command::new("/nonexistent");
    command.stderr(null.as_fd().try_clone_to_owned().unwrap());
    command.spawn().unwrap_err();
    drop((command, null));
    assert_eq!(sys::fd::open_descriptors().unwrap(), before);
}
