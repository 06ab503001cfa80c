//! Children with a parent-death signal: they have what the thread that starts them has.

use std::fs;
use std::path::Path;

use child_process::{Command, ExitStatus, Signal, Step};
use nix::sched::{CloneFlags, CpuSet, sched_getaffinity, sched_setaffinity, unshare};
use nix::sys::prctl;
use nix::unistd::Pid;

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{current_exe, eventually};

/// A script that prints what a child has from the thread that started it.
const ATTRIBUTES: &str = "readlink /proc/self/ns/net; pwd; umask; \
    grep -E 'NoNewPrivs|Cpus_allowed:|^Cap' /proc/self/status; cat /proc/self/timerslack_ns";

/// Prints the attributes of a child: with or without a signal, the child is the same.
fn attributes(with_signal: bool) -> String {
    let mut command = sh(ATTRIBUTES);
    if with_signal {
        command.parent_death_signal(Signal::KILL);
    }
    command.output().unwrap().stdout_text().into_owned()
}

/// Gives the calling thread attributes that the other threads have not.
fn restrict() {
    prctl::set_no_new_privs().unwrap();
    prctl::set_timerslack(77_000).unwrap();
    unshare(CloneFlags::CLONE_FS).unwrap();
    std::env::set_current_dir("/dev").unwrap();
    let allowed = sched_getaffinity(Pid::from_raw(0)).unwrap();
    let last = (0..CpuSet::count()).rfind(|cpu| allowed.is_set(*cpu).unwrap()).unwrap();
    let mut only_last = CpuSet::new();
    only_last.set(last).unwrap();
    sched_setaffinity(Pid::from_raw(0), &only_last).unwrap();
    if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
        println!("skipped: no network namespace of its own ({error})");
    }
}

fn on_a_thread<T: Send + 'static>(run: impl FnOnce() -> T + Send + 'static) -> T {
    std::thread::spawn(run).join().unwrap()
}

#[apply(case)]
fn a_child_has_the_attributes_of_the_thread_that_starts_it() {
    let free = attributes(false);
    // Another thread has started such a child before.
    assert_eq!(on_a_thread(|| attributes(true)), free);
    let (plain, with_signal) = on_a_thread(|| {
        restrict();
        (attributes(false), attributes(true))
    });
    assert_ne!(plain, free, "the thread is restricted");
    assert_eq!(with_signal, plain);
    // The restricted thread leaves nothing to the starts of other threads.
    assert_eq!(attributes(true), free);
    assert_eq!(on_a_thread(|| attributes(true)), free);
    // A thread that is restricted between two starts.
    let second = on_a_thread(|| {
        assert_eq!(attributes(true), attributes(false));
        restrict();
        (attributes(true), attributes(false))
    });
    assert_eq!(second.0, second.1);
}

/// Returns the threads of this process that wait for a child.
fn waiting_threads() -> usize {
    let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
    let names = tasks.filter_map(|task| fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim_end() == "brood-parent").count()
}

#[apply(case)]
fn a_thread_waits_for_each_child_and_ends_with_it() {
    let start = || sh("exec sleep 60").parent_death_signal(Signal::KILL).spawn().unwrap();
    let children = on_a_thread(move || [start(), start(), start()]);
    assert_eq!(waiting_threads(), 3);
    for child in &children {
        assert_eq!(child.try_wait().unwrap(), None, "its thread lives");
    }
    // However the child ends: waited for, or dropped.
    let [first, second, third] = children;
    first.kill(Signal::TERM).unwrap();
    assert_eq!(first.wait().unwrap(), ExitStatus::Signal(Signal::TERM));
    second.kill(Signal::KILL).unwrap();
    drop(second);
    eventually("two threads have ended", || (waiting_threads() == 1).then_some(()));
    third.kill(Signal::KILL).unwrap();
    // The child is left as a zombie: the thread ends all the same.
    eventually("the last thread has ended", || (waiting_threads() == 0).then_some(()));
    third.wait().unwrap();
    // A start that fails leaves no thread.
    let failed = on_a_thread(|| {
        Command::new("/nonexistent").parent_death_signal(Signal::KILL).spawn().unwrap_err()
    });
    assert_eq!((failed.step(), failed.code()), (Some(Step::Program), "ENOENT"));
    eventually("no thread is left", || (waiting_threads() == 0).then_some(()));
}

#[apply(case)]
fn a_start_without_its_thread_is_an_error() {
    // A thread cannot be started into another pid namespace than its process.
    let refused = on_a_thread(|| {
        if let Err(error) = unshare(CloneFlags::CLONE_NEWPID) {
            println!("skipped: no pid namespace of its own ({error})");
            return None;
        }
        Some(sh("true").parent_death_signal(Signal::KILL).spawn().unwrap_err())
    });
    if let Some(refused) = refused {
        let step = Some(Step::ParentDeathThread);
        assert_eq!((refused.step(), refused.code()), (step, "EINVAL"), "{refused}");
    }
    assert_eq!(on_a_thread(|| attributes(true)), attributes(false));
}

#[apply(case)]
fn the_signal_comes_with_the_death_of_the_process() {
    for thread in ["main", "other"] {
        let parent = Command::new(current_exe()).args(["role", "starts_and_waits", thread]).spawn();
        let mut parent = parent.unwrap();
        let mut line = String::new();
        let mut stdout = std::io::BufReader::new(parent.take_stdout().unwrap());
        std::io::BufRead::read_line(&mut stdout, &mut line).unwrap();
        let child: u32 = line.trim().parse().unwrap();
        assert!(Path::new(&format!("/proc/{child}")).exists());
        parent.kill(Signal::KILL).unwrap();
        parent.wait().unwrap();
        let gone = || sys::signal::kill(child, Signal::CONT).is_err() || is_zombie(child);
        eventually("the child has died with its parent", || gone().then_some(()));
    }
}

fn is_zombie(pid: u32) -> bool {
    fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") Z "))
}

/// `starts_and_waits main|other`: starts a child on this thread, prints its pid and sleeps.
#[apply(role)]
fn starts_and_waits(args: &[String]) {
    let run = || {
        let child = sh("exec sleep 60").parent_death_signal(Signal::KILL).spawn().unwrap();
        println!("{}", child.pid());
        child
    };
    let child = if args[0] == "main" { run() } else { on_a_thread(run) };
    child.wait().unwrap();
}
