//! Programs as process 1 of a pid namespace, and processes that adopt orphans.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::time::Duration;

use child_process::{Child, ChildOutput, Command, ExitStatus, Signal, reap_orphans};
use sys::signal::SignalWatch;

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{current_exe, eventually, stopped};

/// Returns a command that runs a role as process 1; `None` where no namespace can be made.
fn as_process_1(role: &str) -> Option<Command> {
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    if !Command::new("unshare")
        .args(namespace)
        .arg("true")
        .output()
        .is_ok_and(|o| o.status.success())
    {
        println!("skipped: no pid namespace can be made");
        return None;
    }
    let mut command = Command::new("unshare");
    command.args(namespace).arg(current_exe()).args(["role", role]);
    Some(command)
}

/// Runs a role as process 1, and returns its status and output.
fn ended(role: &str, args: &[&str]) -> Option<(ExitStatus, String)> {
    let output = as_process_1(role)?.args(args).output().unwrap();
    let text = output.stdout_text().into_owned() + &output.stderr_text();
    Some((output.status, text))
}

/// Returns how many processes that this one can see are zombies.
fn zombies() -> usize {
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(") Z ")).count()
}

/// Leaves orphans behind: by a shell that ends first, by `kill_tree`, and by a timeout.
fn leave_orphans() {
    for _ in 0..5 {
        assert!(sh("(sleep 0.05) & exit 0").output().unwrap().status.success());
        let mut tree = sh("sleep 100 & sleep 100 & echo; wait");
        let mut tree = tree.process_group(0).spawn().unwrap();
        BufReader::new(tree.take_stdout().unwrap()).read_line(&mut String::new()).unwrap();
        tree.kill_tree(Signal::KILL).unwrap();
        tree.wait().unwrap();
        let limit = Duration::from_millis(50);
        sh("sleep 0.2; true").timeout(limit).output().unwrap_err();
    }
}

/// Starts children whose statuses must not be lost, by this library and by the standard one.
fn no_status_is_lost() {
    for code in 0..20 {
        let ours = sh(&format!("exit {code}")).spawn().unwrap();
        let script = format!("exit {code}");
        let mut theirs = std::process::Command::new("sh").args(["-c", &script]).spawn().unwrap();
        assert_eq!(ours.wait().unwrap(), ExitStatus::Code(code));
        assert_eq!(theirs.wait().unwrap().code(), Some(code));
    }
}

#[apply(case)]
fn process_1_leaves_no_zombies_and_ends_with_the_code_of_the_program() {
    if let Some((status, text)) = ended("has_an_init", &["7"]) {
        assert_eq!((status, text.as_str()), (ExitStatus::Code(7), "no zombies\n"), "{text}");
    }
}

/// `has_an_init CODE`
#[apply(role)]
fn has_an_init(args: &[String]) {
    child_process::init().unwrap();
    assert_ne!(std::process::id(), 1);
    leave_orphans();
    no_status_is_lost();
    eventually("all zombies are reaped", || (zombies() == 0).then_some(()));
    // The init holds nothing that the program may close, but a log can be written through it.
    let held = fs::read_dir("/proc/1/fd").unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(held.collect::<BTreeSet<_>>(), ["0", "1", "2"].map(OsString::from).into());
    assert_eq!(fs::read_link("/proc/1/fd/1").unwrap(), fs::read_link("/proc/self/fd/1").unwrap());
    assert_eq!(fs::read_link("/proc/1/cwd").unwrap(), Path::new("/"));
    // A second call does nothing.
    let own = std::process::id();
    child_process::init().unwrap();
    assert_eq!(std::process::id(), own);
    println!("no zombies");
    std::process::exit(args[0].parse().unwrap());
}

#[apply(case)]
fn a_signal_that_ends_the_program_is_in_the_code_of_process_1() {
    for signal in [Signal::KILL, Signal::TERM, Signal::QUIT, Signal::HUP] {
        let number = signal.number();
        if let Some((status, text)) = ended("ends_by_a_signal", &[&number.to_string()]) {
            assert_eq!(status, ExitStatus::Code(128 + number), "{signal}: {text}");
        }
    }
}

/// `ends_by_a_signal NUMBER`
#[apply(role)]
fn ends_by_a_signal(args: &[String]) {
    child_process::init().unwrap();
    let signal = Signal::from_number(args[0].parse().unwrap()).unwrap();
    sys::signal::kill(std::process::id(), signal).unwrap();
    crate::support::wait(Duration::from_secs(10));
}

/// Starts a role as process 1, waits for its first line, and returns process 1 as it is numbered
/// here.
fn started(role: &str) -> Option<(Child, BufReader<ChildOutput>, u32)> {
    let mut unshare = as_process_1(role)?.spawn().unwrap();
    let mut output = BufReader::new(unshare.take_stdout().unwrap());
    assert_eq!(line(&mut output), "ready");
    let pid = unshare.pid();
    Some((unshare, output, only_child(pid)))
}

fn only_child(pid: u32) -> u32 {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
    children.trim().parse().unwrap()
}

fn line(output: &mut BufReader<ChildOutput>) -> String {
    let mut line = String::new();
    output.read_line(&mut line).unwrap();
    line.trim_end().to_owned()
}

#[apply(case)]
fn signals_to_process_1_reach_the_program() {
    let Some((unshare, mut output, init)) = started("names_signals") else { return };
    for signal in
        [Signal::TERM, Signal::HUP, Signal::INT, Signal::USR1, Signal::WINCH, Signal::PIPE]
    {
        sys::signal::kill(init, signal).unwrap();
        assert_eq!(line(&mut output), signal.to_string());
    }
    // A program without a handler ends by the default action, which process 1 has not.
    sys::signal::kill(init, Signal::USR2).unwrap();
    assert_eq!(unshare.wait().unwrap(), ExitStatus::Code(128 + Signal::USR2.number()));
}

/// Prints the names of the signals that arrive.
#[apply(role)]
fn names_signals(_: &[String]) {
    child_process::init().unwrap();
    let signals =
        [Signal::TERM, Signal::HUP, Signal::INT, Signal::USR1, Signal::WINCH, Signal::PIPE];
    let watch = SignalWatch::new(&signals).unwrap();
    println!("ready");
    loop {
        let there = sys::poll::readable(std::os::fd::AsFd::as_fd(&watch), None);
        if there.unwrap_or(false) {
            watch.take().iter().for_each(|signal| println!("{signal}"));
        }
    }
}

#[apply(case)]
fn a_stopped_program_is_continued_through_process_1() {
    let Some((unshare, mut output, init)) = started("stops_itself") else { return };
    stopped(only_child(init));
    sys::signal::kill(init, Signal::CONT).unwrap();
    assert_eq!(line(&mut output), "continued");
    assert_eq!(unshare.wait().unwrap(), ExitStatus::Code(0));
}

/// Stops, and says when it goes on.
#[apply(role)]
fn stops_itself(_: &[String]) {
    child_process::init().unwrap();
    println!("ready");
    sys::signal::kill(std::process::id(), Signal::STOP).unwrap();
    println!("continued");
}

#[apply(case)]
fn process_1_with_several_threads_is_refused_and_goes_on() {
    if let Some((status, text)) = ended("has_threads", &[]) {
        assert_eq!(status, ExitStatus::Code(0), "{text}");
        assert!(text.contains("has several threads"), "{text}");
    }
}

/// Calls `init` too late.
#[apply(role)]
fn has_threads(_: &[String]) {
    let (sender, receiver) = std::sync::mpsc::channel::<()>();
    let thread = std::thread::spawn(move || receiver.recv());
    let error = child_process::init().unwrap_err();
    println!("{}", std::error::Error::source(&error).unwrap());
    assert_eq!(std::process::id(), 1);
    drop(sender);
    let _ = thread.join();
    // Alone again.
    let alone = || fs::read_dir("/proc/self/task").unwrap().count() == 1;
    eventually("the thread is gone", || alone().then_some(()));
    child_process::init().unwrap();
    assert_ne!(std::process::id(), 1);
}

#[apply(case)]
fn the_program_is_the_receiver_that_process_1_was() {
    let Some(mut command) = as_process_1("is_the_receiver") else { return };
    command.env("LISTEN_PID", "1").env("LISTEN_FDS", "2").env("WATCHDOG_PID", "99");
    let output = command.output().unwrap();
    assert!(output.status.success(), "{}", output.stderr_text());
}

/// Checks the variables that name a process.
#[apply(role)]
fn is_the_receiver(_: &[String]) {
    child_process::init().unwrap();
    assert_eq!(std::env::var("LISTEN_PID").unwrap(), std::process::id().to_string());
    assert_eq!(std::env::var("LISTEN_FDS").unwrap(), "2");
    assert_eq!(std::env::var("WATCHDOG_PID").unwrap(), "99");
}

#[apply(case)]
fn a_process_that_is_not_process_1_stays_as_it_is() {
    let (own, parent) = (std::process::id(), std::os::unix::process::parent_id());
    child_process::init().unwrap();
    assert_eq!((std::process::id(), std::os::unix::process::parent_id()), (own, parent));
}

#[apply(case)]
fn process_1_without_an_init_reaps_orphans_on_request() {
    if let Some((status, text)) = ended("reaps_orphans", &[]) {
        assert_eq!((status, text.as_str()), (ExitStatus::Code(0), "no zombies\n"), "{text}");
    }
}

/// Reaps orphans as process 1, and loses no status of its own children.
#[apply(role)]
fn reaps_orphans(_: &[String]) {
    // Children that have ended before the first call, held by a handle: not ours to lose.
    let held = sh("exit 9").spawn().unwrap();
    leave_orphans();
    assert!(zombies() >= 5, "without a request, orphans stay");
    reap_orphans(Duration::MAX).unwrap();
    reap_orphans(Duration::from_millis(300)).unwrap();
    leave_orphans();
    no_status_is_lost();
    eventually("all orphans are reaped", || (zombies() == 1).then_some(()));
    assert_eq!(held.wait().unwrap(), ExitStatus::Code(9));
    // A child of other code is taken once its grace is over.
    let mut theirs = std::process::Command::new("true").spawn().unwrap();
    eventually("it is reaped", || (zombies() == 0 && theirs.try_wait().is_err()).then_some(()));
    println!("no zombies");
}

/// The numbers in `/proc` are those of another namespace: an orphan by number could be anybody.
#[apply(case)]
fn orphans_are_not_searched_in_proc_of_another_pid_namespace() {
    if as_process_1("cannot_find_orphans").is_none() {
        return;
    }
    let mut unshare = Command::new("unshare");
    let unshare = unshare.args(["--pid", "--fork"]).arg(current_exe());
    let output = unshare.args(["role", "cannot_find_orphans"]).output().unwrap();
    assert_eq!(output.stdout_text(), "refused\n", "{}", output.stderr_text());
}

/// Asks for orphans to be reaped, where they cannot be found.
#[apply(role)]
fn cannot_find_orphans(_: &[String]) {
    let error = reap_orphans(Duration::from_millis(10)).unwrap_err();
    let why = format!("{error:?}");
    assert!(why.contains("reading /proc") && why.contains("another pid namespace"), "{why}");
    assert_eq!(sh("exit 3").output().unwrap().status, ExitStatus::Code(3));
    println!("refused");
}
