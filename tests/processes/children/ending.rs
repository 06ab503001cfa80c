//! How children are ended: the whole tree of a child, stopped children, and children that ignore
//! their kill signal.

use std::io::{BufRead, BufReader};
use std::time::{Duration, Instant};

use child_process::{
    CancelToken, Child, Command, Error, Event, ExecError, ExitStatus, Output, Signal, Signalled,
    Stdio,
};

use crate::harness::{apply, case};
use crate::support::shell::{sh, story};
use crate::support::{WAIT_MAX, eventually, stopped, wait};

/// Longer than a shell takes to set its trap on a loaded machine.
const TIMEOUT: Duration = Duration::from_secs(1);
const KILL_AFTER: Duration = Duration::from_millis(300);

/// A script that says `ready` and ignores SIGTERM, like the processes that it starts.
const DEAF: &str = "trap '' TERM; echo ready; while :; do sleep 0.05; done";

/// Starts a shell, and returns when its script has said so.
fn started(command: &mut Command) -> Child {
    let mut child = command.spawn().unwrap();
    let mut line = String::new();
    BufReader::new(child.take_stdout().unwrap()).read_line(&mut line).unwrap();
    assert_eq!(line, "ready\n");
    child
}

/// The answer is that of the child, whichever of the signals to child, group and descendants ends
/// it first.
#[apply(case)]
fn the_tree_of_a_running_child_takes_every_signal() {
    let scripts = [
        "sleep 60 & sleep 60 & echo ready; wait",
        "(sleep 60 & echo ready; wait) & wait; exit 3",
        "echo ready; exec sleep 60",
    ];
    for signal in [Signal::KILL, Signal::TERM, Signal::USR1] {
        for (script, group) in scripts.iter().flat_map(|script| [(script, true), (script, false)]) {
            for _ in 0..8 {
                let mut shell = sh(script);
                shell.stdin(Stdio::null()).stderr(Stdio::null());
                if group {
                    shell.process_group(0);
                }
                let child = started(&mut shell);
                let sent = child.kill_tree(signal).unwrap();
                assert_eq!(sent, Signalled::Delivered, "{signal} for {script}, {group}");
                assert!(child.killed());
                child.wait().unwrap();
                assert_eq!(child.kill_tree(signal).unwrap(), Signalled::AlreadyExited);
            }
        }
    }
}

/// The leader is a zombie: its id still means the group, and the others of the group are reached.
#[apply(case)]
fn the_group_of_a_child_that_has_ended_is_signalled() {
    for signal in [Signal::KILL, Signal::TERM] {
        let mut shell = sh("sleep 60 & echo ready; exec >&-; exit 3");
        let mut child = shell.process_group(0).stdin(Stdio::null()).spawn().unwrap();
        let mut lines = BufReader::new(child.take_stdout().unwrap());
        lines.read_line(&mut String::new()).unwrap();
        assert!(sys::poll::readable(std::os::fd::AsFd::as_fd(&child), Some(WAIT_MAX)).unwrap());
        assert_eq!(child.kill_tree(signal).unwrap(), Signalled::AlreadyExited);
        // The end of the output shows the end of the last process of the group.
        assert_eq!(lines.read_line(&mut String::new()).unwrap(), 0);
        assert_eq!(child.wait().unwrap(), ExitStatus::Code(3));
    }
}

/// Runs the command in every way in which output is collected.
fn collected(make: impl Fn() -> Command) -> Vec<Result<Output, ExecError>> {
    vec![make().output(), make().exec_sync(), make().exec().unwrap().wait()]
}

#[apply(case)]
fn a_stopped_child_answers_its_timeout() {
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let make = || {
            let mut command = sh("kill -STOP $$; echo woken");
            command.timeout(TIMEOUT).kill_signal(signal);
            command
        };
        for result in collected(make) {
            let failed = result.unwrap_err();
            assert_eq!(failed.code(), "ETIMEDOUT");
            assert_eq!(failed.status, Some(ExitStatus::Signal(signal)));
        }
        let child = make().spawn().unwrap();
        assert_eq!(story(&child)[..2], ["Spawn", "Error(TimedOut)"]);
        assert_eq!(child.wait().unwrap(), ExitStatus::Signal(signal));
    }
}

/// Checks that a child with these options is killed, with each way of waiting for it.
fn is_killed(options: impl Fn(&mut Command), code: &str, script: &str) {
    let make = || {
        let mut command = sh(script);
        options(command.kill_after(KILL_AFTER));
        command
    };
    for result in collected(make) {
        let failed = result.unwrap_err();
        assert_eq!((failed.code(), failed.status), (code, Some(ExitStatus::Signal(Signal::KILL))));
        assert!(failed.killed());
    }
}

#[apply(case)]
fn a_child_that_ignores_its_kill_signal_is_killed() {
    let timeout = |command: &mut Command| {
        command.timeout(TIMEOUT);
    };
    is_killed(timeout, "ETIMEDOUT", DEAF);
    let noisy = "trap '' TERM PIPE; yes | head -c 100000; while :; do sleep 0.05; done";
    let code = "ERR_CHILD_PROCESS_STDIO_MAXBUFFER";
    let max_buffer = |command: &mut Command| {
        command.max_buffer(1000);
    };
    is_killed(max_buffer, code, noisy);
    let child = sh(DEAF).timeout(TIMEOUT).kill_after(KILL_AFTER).spawn().unwrap();
    let ends = ["Exit(Signal(SIGKILL))", "Close(Signal(SIGKILL))"];
    assert_eq!(story(&child), [["Spawn", "Error(TimedOut)"], ends].concat());
    // Only the handle waits: the loop ends the child all the same.
    let child = sh(DEAF).timeout(TIMEOUT).kill_after(KILL_AFTER).spawn().unwrap();
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
}

#[apply(case)]
fn a_cancelled_child_that_ignores_its_kill_signal_is_killed() {
    let cancelled_later = |command: &mut Command| {
        let token = CancelToken::new();
        command.cancel_with(&token);
        std::thread::spawn(move || {
            // The shell sets its trap meanwhile.
            wait(TIMEOUT);
            token.cancel();
        });
    };
    is_killed(
        cancelled_later,
        "ABORT_ERR",
        "trap '' TERM; kill -STOP $$; while :; do sleep 0.05; done",
    );
    let token = CancelToken::new();
    let (mut first, mut second) = (sh(DEAF), sh(DEAF));
    let first = started(first.kill_after(KILL_AFTER).cancel_with(&token));
    let second = started(second.kill_after(Duration::ZERO).cancel_with(&token));
    token.cancel();
    for child in [&first, &second] {
        assert_eq!(child.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
    }
    let events = first.take_events().unwrap();
    assert!(matches!(events.iter().nth(1), Some(Event::Error(Error::Cancelled(None)))));
}

#[apply(case)]
fn the_longest_grace_period_leaves_the_child_its_time() {
    for longest in [Duration::MAX, Duration::from_secs(u64::MAX)] {
        let script = "trap 'sleep 0.5; exit 4' TERM; while :; do sleep 0.05; done";
        let mut patient = sh(script);
        let failed = patient.timeout(TIMEOUT).kill_after(longest).output().unwrap_err();
        assert_eq!((failed.code(), failed.status), ("ETIMEDOUT", Some(ExitStatus::Code(4))));
        // A timeout that never passes is taken as well.
        let well = sh("exit 0").timeout(longest).kill_after(longest).output().unwrap();
        assert!(well.status.success());
    }
}

#[apply(case)]
fn a_timeout_can_reach_the_whole_tree() {
    for signal in [Signal::TERM, Signal::KILL] {
        let begin = Instant::now();
        let script = "sleep 61 & (sleep 61; true) & wait";
        let mut shell = sh(script);
        shell.timeout(TIMEOUT).kill_signal(signal).kill_tree(true);
        let failed = shell.output().unwrap_err();
        assert_eq!((failed.code(), failed.status), ("ETIMEDOUT", Some(ExitStatus::Signal(signal))));
        let mut child = sh(script).timeout(TIMEOUT).kill_signal(signal).kill_tree(true).spawn();
        let child = child.as_mut().unwrap();
        // The output ends with the last process of the tree.
        let mut lines = BufReader::new(child.take_stdout().unwrap());
        assert_eq!(lines.read_line(&mut String::new()).unwrap(), 0);
        child.wait().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(30));
    }
}

#[apply(case)]
fn a_stopped_tree_is_continued_to_handle_its_signal() {
    let mut shell = sh("sleep 61 & echo ready; wait");
    let child = started(shell.stdin(Stdio::null()));
    child.kill_tree(Signal::STOP).unwrap();
    stopped(child.pid());
    // A plain signal waits behind the stop, as kill(1) leaves it.
    assert_eq!(child.kill_tree(Signal::TERM).unwrap(), Signalled::Delivered);
    assert_eq!(child.try_wait().unwrap(), None);
    child.kill_tree(Signal::CONT).unwrap();
    eventually("the child ends", || child.try_wait().unwrap());
}
