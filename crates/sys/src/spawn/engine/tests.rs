//! Tests of the engine against the real kernel. The programs are scripts for `/bin/sh`.

mod credentials;
mod ends;
mod parents;

use std::ffi::CString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::Command;
use std::sync::atomic::AtomicU8;
use std::thread;

use super::super::{Descriptor, Source, clone};
use super::*;
use crate::pidfd::ExitStatus;
use crate::poll;
use crate::rlimit::{Limit, Resource};
use crate::signal::Signal;

fn c(text: &str) -> CString {
    CString::new(text).unwrap()
}

fn sh(script: &str) -> Plan<'static> {
    let mut plan = Plan::new(vec![c("/bin/sh")], vec![c("sh"), c("-c"), c(script)]);
    plan.environment = vec![c("PATH=/usr/bin:/bin")];
    plan
}

fn pipe() -> (File, OwnedFd) {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).unwrap();
    (File::from(reader), writer)
}

/// Runs the plan with its standard output in a pipe, and returns the output and the status.
fn output_of(plan: &Plan<'_>) -> (String, ExitStatus) {
    let (mut reader, writer) = pipe();
    let mut plan = plan.clone();
    plan.descriptors.push(Descriptor { number: 1, source: Source::Fd(writer.as_fd()) });
    let child = spawn(&plan).unwrap();
    drop(plan);
    drop(writer);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (text, child.pidfd.wait().unwrap())
}

fn stdout_of(plan: &Plan<'_>) -> String {
    let (text, status) = output_of(plan);
    assert_eq!(status, ExitStatus::Code(0), "{text}");
    text.trim_end().to_owned()
}

fn failure(plan: &Plan<'_>) -> (Step, &'static str) {
    let error = spawn(plan).unwrap_err();
    (error.step, errno::name(error.errno))
}

fn temp_dir(name: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("brood-spawn-{}-{name}", std::process::id()));
    fs::create_dir_all(&path).unwrap();
    path
}

fn file(path: &PathBuf, text: &str, mode: u32) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn c_path(path: &std::path::Path) -> CString {
    c(path.to_str().unwrap())
}

/// Runs one of the ignored tests below in a process of its own, because it changes or checks state
/// of the whole process.
fn in_a_process_of_its_own(name: &str) {
    let name = format!("spawn::engine::tests::{name}");
    let me = std::env::current_exe().unwrap();
    let arguments = ["--exact", &name, "--ignored", "--nocapture", "--test-threads=1"];
    let output = Command::new(me).args(arguments).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.contains("1 passed"), "{output:?}");
}

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        eprintln!("skipped: needs root");
    }
    root
}

/// An emulator copies the memory of the parent, as `fork` does, and does not wait for the child.
#[test]
fn failures_come_through_a_pipe_where_the_memory_is_copied() {
    let known = AtomicU8::new(clone::UNKNOWN);
    for (program, failure) in [(c"/nonexistent", Some(libc::ENOENT)), (c"/bin/true", None)] {
        let plan = Plan::new(vec![program.into()], vec![c"name".into()]);
        let loan = Loan::new(&plan).unwrap();
        let started = clone::clone_with(loan, None, None, 0, &known);
        assert_eq!(started.as_ref().err().map(|error| error.errno), failure);
        if let Ok(child) = started {
            assert!(child.pidfd.wait_child(child.pid).unwrap().success());
        }
    }
}

#[test]
fn a_child_runs_and_its_exit_code_comes_back() {
    let child = spawn(&sh("exit 23")).unwrap();
    assert!(child.pid > 1);
    assert_eq!(child.pidfd.wait().unwrap(), ExitStatus::Code(23));
}

#[test]
fn the_step_that_failed_is_named() {
    let missing = Plan::new(vec![c("/nonexistent/program")], vec![c("x")]);
    assert_eq!(failure(&missing), (Step::Program, "ENOENT"));
    let mut nowhere = sh("true");
    nowhere.current_dir = Some(c("/nonexistent"));
    assert_eq!(failure(&nowhere), (Step::CurrentDir, "ENOENT"));
    let directory = Plan::new(vec![c("/tmp")], vec![c("x")]);
    assert_eq!(failure(&directory), (Step::Program, "EACCES"));
    let mut group = sh("true");
    group.attributes.to_mut().process_group = Some(1);
    assert_eq!(failure(&group), (Step::ProcessGroup, "EPERM"));
    let mut limit = sh("true");
    limit.attributes.to_mut().limits = vec![(Resource::CoreBytes, Limit { soft: 2, hard: 1 })];
    assert_eq!(failure(&limit), (Step::Limit(Resource::CoreBytes), "EINVAL"));
    let mut inherit = sh("true");
    inherit.descriptors = vec![Descriptor { number: 9, source: Source::Inherit(1_000_000) }];
    assert_eq!(failure(&inherit), (Step::Descriptor(9), "EBADF"));
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut cgroup = sh("true");
    cgroup.cgroup = Some(full.as_fd());
    assert_eq!(failure(&cgroup), (Step::Cgroup, "ENOSPC"));
}

#[test]
fn a_failed_child_is_reaped() {
    let error = spawn(&Plan::new(vec![c("/nonexistent")], vec![c("x")])).unwrap_err();
    assert_eq!(error.to_string(), "program: no such file or directory");
    assert_eq!(io::Error::from(error).kind(), io::ErrorKind::NotFound);
    in_a_process_of_its_own("no_child_is_left_after_failures");
}

#[test]
#[ignore = "runs in a process of its own"]
fn no_child_is_left_after_failures() {
    let before = crate::fd::open_descriptors().unwrap();
    for _ in 0..50 {
        spawn(&Plan::new(vec![c("/nonexistent")], vec![c("x")])).unwrap_err();
    }
    let all = nix::sys::wait::waitpid(None, None);
    assert_eq!(all, Err(nix::errno::Errno::ECHILD));
    assert_eq!(crate::fd::open_descriptors().unwrap(), before);
}

#[test]
fn candidates_are_tried_as_execvp_does() {
    let directory = temp_dir("candidates");
    let forbidden = directory.join("forbidden");
    file(&forbidden, "#!/bin/sh\n", 0o644);
    let missing = c_path(&directory.join("missing"));
    let through_a_file = c_path(&forbidden.join("x"));
    let works = vec![missing.clone(), through_a_file.clone(), c_path(&forbidden), c("/bin/true")];
    assert!(spawn(&Plan::new(works, vec![c("x")])).unwrap().pidfd.wait().unwrap().success());
    let none = vec![c_path(&forbidden), missing.clone()];
    assert_eq!(failure(&Plan::new(none, vec![c("x")])), (Step::Program, "EACCES"));
    let nothing = vec![through_a_file, missing];
    assert_eq!(failure(&Plan::new(nothing, vec![c("x")])), (Step::Program, "ENOENT"));
    assert_eq!(failure(&Plan::new(vec![], vec![c("x")])), (Step::Program, "ENOENT"));
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_script_without_an_interpreter_line_runs_through_the_shell() {
    let directory = temp_dir("script");
    let script = directory.join("script");
    file(&script, "echo \"$0 $1 $2\"\n", 0o755);
    let mut plan = Plan::new(vec![c_path(&script)], vec![c("own name"), c("a b"), c("c")]);
    assert_eq!(stdout_of(&plan), format!("{} a b c", script.display()));
    plan.arguments.clear();
    assert_eq!(stdout_of(&plan), script.to_str().unwrap());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn a_relative_program_counts_from_the_childs_directory() {
    let directory = temp_dir("relative");
    file(&directory.join("here"), "#!/bin/sh\npwd\n", 0o755);
    let mut plan = Plan::new(vec![c("./here")], vec![c("here")]);
    plan.current_dir = Some(c_path(&directory));
    assert_eq!(stdout_of(&plan), directory.canonicalize().unwrap().to_str().unwrap());
    fs::remove_dir_all(directory).unwrap();
}

#[test]
fn the_environment_is_exactly_what_was_asked_for() {
    let mut plan = Plan::new(vec![c("/usr/bin/env")], vec![c("env")]);
    plan.environment = vec![c("A=1"), c("B="), c("a=2")];
    assert_eq!(stdout_of(&plan), "A=1\nB=\na=2");
}

#[test]
fn descriptors_cross_over_without_hurting_each_other() {
    let (one, two) = (temp_dir("one"), temp_dir("two"));
    file(&one.join("f"), "first", 0o644);
    file(&two.join("f"), "second", 0o644);
    let (a, b) = (File::open(one.join("f")).unwrap(), File::open(two.join("f")).unwrap());
    let (low, high) = (a.as_raw_fd() as u32, b.as_raw_fd() as u32);
    // Each takes the number of the other, and the first is also needed under a third number.
    let mut plan = sh(&format!("cat <&{high}; cat <&{low}; test -e /proc/self/fd/90"));
    plan.descriptors = vec![
        Descriptor { number: high, source: Source::Fd(a.as_fd()) },
        Descriptor { number: low, source: Source::Fd(b.as_fd()) },
        Descriptor { number: 90, source: Source::Inherit(low) },
    ];
    assert_eq!(stdout_of(&plan), "firstsecond");
    fs::remove_dir_all(one).unwrap();
    fs::remove_dir_all(two).unwrap();
}

#[test]
fn only_the_descriptors_of_the_plan_reach_the_child() {
    let null = File::open("/dev/null").unwrap();
    // Descriptors that another library has left open across `execve`.
    let careless: Vec<OwnedFd> = (0..20).map(|_| nix::unistd::dup(&null).unwrap()).collect();
    assert!(!crate::fd::is_close_on_exec(careless[0].as_fd()).unwrap());
    let mut plan = Plan::new(vec![c("/bin/ls")], vec![c("ls"), c("/proc/self/fd")]);
    plan.descriptors = vec![Descriptor { number: 40, source: Source::Fd(null.as_fd()) }];
    // `ls` itself opens the directory under the first free number, 3.
    assert_eq!(stdout_of(&plan), "0\n1\n2\n3\n40");
}

#[test]
fn null_and_closed_descriptors_are_null_and_closed() {
    let mut plan = sh("readlink /proc/self/fd/0; test -e /proc/self/fd/2 || echo none >&1");
    plan.descriptors = vec![
        Descriptor { number: 0, source: Source::Null },
        Descriptor { number: 2, source: Source::Closed },
    ];
    assert_eq!(stdout_of(&plan), "/dev/null\nnone");
}

#[test]
fn standard_streams_that_the_parent_closed_are_null() {
    in_a_process_of_its_own("closed_standard_streams");
}

#[test]
#[ignore = "runs in a process of its own"]
fn closed_standard_streams() {
    let error = nix::unistd::dup(io::stderr().as_fd()).unwrap();
    for number in [0, 2] {
        // SAFETY: this process is a test of its own; nothing else uses the two.
        unsafe { libc::close(number) };
    }
    // The pipes that are made now get the free numbers.
    let script = "readlink /proc/self/fd/0 /proc/self/fd/2";
    let output = stdout_of(&sh(script));
    nix::unistd::dup2_stderr(&error).unwrap();
    nix::unistd::dup2_stdin(&error).unwrap();
    // Number 0 was the reading end of a pipe of this process, which the child must not get.
    assert!(output.lines().all(|line| line == "/dev/null"), "{output}");
    assert_eq!(output.lines().count(), 2, "{output}");
}

#[test]
fn sessions_groups_masks_and_limits_are_set() {
    let stat = "read -r pid _ _ _ group session _ < /proc/self/stat; echo $((group == pid)) $((session == pid))";
    let mut plan = sh(stat);
    plan.attributes.to_mut().process_group = Some(0);
    assert_eq!(stdout_of(&plan), "1 0");
    let mut plan = sh(stat);
    plan.attributes.to_mut().session = true;
    assert_eq!(stdout_of(&plan), "1 1");
    let mut plan = sh("umask; ulimit -n; nice");
    plan.attributes.to_mut().umask = Some(0o027);
    plan.attributes.to_mut().nice = Some(7);
    // Lower than the number of a descriptor: limits are set after the descriptors.
    plan.attributes.to_mut().limits = vec![(Resource::Descriptors, Limit { soft: 33, hard: 44 })];
    let null = File::open("/dev/null").unwrap();
    plan.descriptors = vec![Descriptor { number: 50, source: Source::Fd(null.as_fd()) }];
    assert_eq!(stdout_of(&plan), "0027\n33\n7");
    let mut plan = sh("grep Cpus_allowed_list /proc/self/status");
    plan.attributes.to_mut().affinity = Some(vec![0]);
    assert_eq!(stdout_of(&plan).split_whitespace().last(), Some("0"));
    let mut plan = sh("grep NoNewPrivs /proc/self/status");
    plan.attributes.to_mut().no_new_privileges = true;
    assert_eq!(stdout_of(&plan).split_whitespace().last(), Some("1"));
}

#[test]
fn handlers_are_reset_and_the_mask_is_that_of_the_plan() {
    let bits = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        u64::from_str_radix(line.split_whitespace().last().unwrap(), 16).unwrap()
    };
    // Rust programs ignore SIGPIPE, and this thread blocks another signal.
    let mut mask = nix::sys::signal::SigSet::empty();
    mask.add(nix::sys::signal::Signal::SIGUSR2);
    mask.thread_block().unwrap();
    let mut plan = Plan::new(vec![c("/bin/cat")], vec![c("cat"), c("/proc/self/status")]);
    let output = stdout_of(&plan);
    assert_eq!((bits(&output, "SigBlk"), bits(&output, "SigCgt")), (0, 0));
    assert_eq!(bits(&output, "SigIgn") & 1 << (libc::SIGPIPE - 1), 0);
    plan.attributes.to_mut().blocked_signals = vec![Signal::USR1, Signal::TERM];
    let output = stdout_of(&plan);
    assert_eq!(bits(&output, "SigBlk"), 1 << (libc::SIGUSR1 - 1) | 1 << (libc::SIGTERM - 1));
    let still = nix::sys::signal::SigSet::thread_get_mask().unwrap();
    assert_eq!(still, mask, "the spawning thread has its own mask back");
}

#[test]
fn descriptors_are_marked_without_close_range() {
    let null = File::open("/dev/null").unwrap();
    // SAFETY: integers only, on an open descriptor.
    let number = unsafe { libc::fcntl(null.as_raw_fd(), libc::F_DUPFD, 900) };
    // SAFETY: the kernel just made it for us.
    let high = unsafe { OwnedFd::from_raw_fd(number) };
    crate::spawn::child::descriptors::close_on_exec_by_walk(900, 999);
    assert!(crate::fd::is_close_on_exec(high.as_fd()).unwrap());
}

#[test]
fn exits_are_reported_although_sigchld_is_ignored() {
    in_a_process_of_its_own("sigchld_is_ignored");
}

#[test]
#[ignore = "runs in a process of its own"]
fn sigchld_is_ignored() {
    // SAFETY: the process is this test's own.
    unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
    assert_eq!(spawn(&sh("exit 5")).unwrap().pidfd.wait().unwrap(), ExitStatus::Code(5));
    let child = spawn(&sh("kill -9 $$")).unwrap();
    assert!(poll::readable(child.pidfd.as_fd(), Some(Duration::from_secs(10))).unwrap());
    assert_eq!(child.pidfd.try_wait().unwrap(), Some(ExitStatus::Signal(Signal::KILL)));
    let output = stdout_of(&sh("grep SigIgn /proc/self/status"));
    let bits = u64::from_str_radix(output.split_whitespace().last().unwrap(), 16).unwrap();
    assert_eq!(bits & 1 << (libc::SIGCHLD - 1), 0, "the child can wait for its own");
}

#[test]
fn a_child_dies_with_the_thread_that_started_it() {
    let (reader, writer) = pipe();
    let spawner = thread::spawn(move || {
        let mut plan = sh("exec sleep 60");
        plan.attributes.to_mut().parent_death_signal = Some(Signal::KILL);
        plan.descriptors = vec![Descriptor { number: 1, source: Source::Fd(writer.as_fd()) }];
        spawn(&plan).unwrap()
    });
    let child = spawner.join().unwrap();
    assert_eq!(child.pidfd.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
    drop(reader);
}

#[test]
fn limits_that_are_reached_are_clear_errors_and_leak_nothing() {
    in_a_process_of_its_own("limits_that_are_reached");
}

#[test]
#[ignore = "runs in a process of its own"]
fn limits_that_are_reached() {
    let before = crate::fd::open_descriptors().unwrap();
    crate::rlimit::set_descriptors(64).unwrap();
    let mut all = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        all.push(file);
    }
    assert_eq!(failure(&sh("true")), (Step::Process, "EMFILE"));
    // Room for the process but not for moving a descriptor out of the way.
    let (last, _) = (all.pop(), all.pop());
    let mut plan = sh("true");
    let descriptor = |number| Descriptor { number, source: Source::Fd(all[0].as_fd()) };
    plan.descriptors = vec![descriptor(4), descriptor(63)];
    assert_eq!(failure(&plan), (Step::Descriptor(4), "EMFILE"));
    drop((last, all));
    crate::rlimit::set_descriptors(1024).unwrap();
    assert_eq!(crate::fd::open_descriptors().unwrap(), before);
    if is_root() {
        // SAFETY: the process is this test's own.
        assert_eq!(unsafe { libc::setresuid(65_533, 65_533, 65_533) }, 0);
    }
    crate::rlimit::set(Resource::Processes, Limit { soft: 1, hard: 1 }).unwrap();
    assert_eq!(failure(&sh("true")), (Step::Process, "EAGAIN"));
    assert_eq!(crate::fd::open_descriptors().unwrap(), before);
}

#[test]
fn many_threads_spawn_at_once() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            thread::spawn(move || {
                for round in 0..25 {
                    let code = number * 25 + round;
                    let status = spawn(&sh(&format!("exit {code}"))).unwrap().pidfd.wait();
                    assert_eq!(status.unwrap(), ExitStatus::Code(code));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn standard_streams_block_in_the_child_and_other_descriptors_stay_as_they_are() {
    let pipe = || nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    let ((input, _written), (_read, error), (other, _kept)) = (pipe(), pipe(), pipe());
    let mut plan = sh("cat /proc/$$/fdinfo/0 /proc/$$/fdinfo/2 /proc/$$/fdinfo/3");
    let ends = [(0, input.as_fd()), (2, error.as_fd()), (3, other.as_fd())];
    let descriptor = |(number, end)| Descriptor { number, source: Source::Fd(end) };
    plan.descriptors = ends.map(descriptor).into();
    let output = stdout_of(&plan);
    let flags = output.lines().filter_map(|line| line.strip_prefix("flags:"));
    let flags = flags.map(|octal| i32::from_str_radix(octal.trim(), 8).unwrap());
    let blocks: Vec<_> = flags.map(|flags| flags & libc::O_NONBLOCK == 0).collect();
    assert_eq!(blocks, [true, true, false], "{output}");
}

#[test]
fn a_written_pipe_becomes_the_childs_input() {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_NONBLOCK).unwrap();
    let mut plan = sh("cat");
    plan.descriptors = vec![Descriptor { number: 0, source: Source::Fd(reader.as_fd()) }];
    let wait = thread::spawn(move || {
        let mut file = File::from(writer);
        file.write_all(b"through").unwrap();
    });
    wait.join().unwrap();
    assert_eq!(stdout_of(&plan), "through");
}
