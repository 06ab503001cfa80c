//! Children with a terminal: Ctrl-C, job control, size, and the end.

use std::fs::File;
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use child_process::{
    Child, Command, Error, Event, ExitStatus, Signal, Stdio, Step, Terminal, TerminalSize,
};

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{WAIT_MAX, current_exe};

fn with_terminal(command: &mut Command) -> (Child, Typist) {
    command.stdio([Stdio::pty(), Stdio::pty(), Stdio::pty()]);
    let mut child = command.spawn().unwrap();
    let terminal = child.take_terminal().unwrap();
    assert!(child.take_terminal().is_none() && child.take_stdout().is_none());
    (child, Typist { terminal, seen: String::new() })
}

/// A user at the terminal.
struct Typist {
    terminal: Terminal,
    seen: String,
}

impl Typist {
    fn types(&mut self, keys: &str) {
        self.terminal.write_all(keys.as_bytes()).unwrap();
    }

    /// Reads until the text appears, and forgets what came before its end.
    fn sees(&mut self, text: &str) {
        let until = Instant::now() + WAIT_MAX;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = until.saturating_duration_since(Instant::now());
            let there = sys::poll::readable(self.terminal.as_fd(), Some(left)).unwrap();
            assert!(there, "no {text:?} in {:?}", self.seen);
            let mut bytes = [0; 1024];
            let count = self.terminal.read(&mut bytes).unwrap();
            assert_ne!(count, 0, "no {text:?} in {:?}", self.seen);
            self.seen += &String::from_utf8_lossy(&bytes[..count]);
        }
    }
}

#[apply(case)]
fn an_interactive_shell_has_ctrl_c_and_job_control() {
    let mut shell = Command::new("sh");
    shell.arg("-i").env("PS1", "ready> ").env("TERM", "dumb").env_remove("ENV");
    let (child, mut user) = with_terminal(&mut shell);
    user.sees("ready> ");
    user.types("(: </dev/tty) && echo has a term''inal\n");
    user.sees("has a terminal");
    // Ctrl-C ends what runs in the foreground, and not the shell.
    user.types("sh -c 'echo beg\"\"ins; exec sleep 60'\n");
    user.sees("begins\r\n");
    user.types("\x03");
    user.types("echo code $?''.\n");
    user.sees("code 130.");
    // Ctrl-Z stops it, and it goes on in the foreground.
    user.types("sh -c 'echo sta\"\"rts; read line; echo got $line'\n");
    user.sees("starts\r\n");
    user.types("\x1a");
    user.sees("Stopped");
    user.types("fg\n");
    user.types("a line\n");
    user.sees("got a line");
    // Ctrl-D ends the input of the shell.
    user.types("\x04");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
}

#[apply(case)]
fn a_terminal_of_the_caller_becomes_the_controlling_one() {
    let line = "trap 'echo interrupted; exit 0' INT; (: </dev/tty) && echo ready; sleep 60 & wait";
    let (ours, theirs) = sys::terminal::open(24, 80).unwrap();
    let mut command = sh(line);
    command.stdin(theirs.try_clone().unwrap()).stdout(theirs.try_clone().unwrap());
    let child = command.stderr(theirs).controlling_terminal(0).spawn().unwrap();
    drop(command);
    let mut ours = File::from(ours);
    read_to(&mut ours, "ready");
    ours.write_all(b"\x03").unwrap();
    read_to(&mut ours, "interrupted");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
}

fn read_to(terminal: &mut File, text: &str) {
    let mut seen = String::new();
    while !seen.contains(text) {
        let mut bytes = [0; 256];
        let count = terminal.read(&mut bytes).unwrap();
        seen += &String::from_utf8_lossy(&bytes[..count]);
    }
}

#[apply(case)]
fn the_size_reaches_the_child_and_its_change_is_a_signal() {
    let script = "trap 'stty size; exit' WINCH; stty size; while :; do sleep 0.01; done";
    let mut command = sh(script);
    command.terminal_size(TerminalSize::new(50, 132));
    let (child, mut user) = with_terminal(&mut command);
    user.sees("50 132");
    let wide = TerminalSize::new(u16::MAX, u16::MAX);
    user.terminal.resize(wide).unwrap();
    user.sees("65535 65535");
    assert_eq!(user.terminal.size().unwrap(), wide);
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
    // The default, and zero for a size that is not known.
    assert_eq!(
        with_terminal(&mut sh("true")).1.terminal.size().unwrap(),
        TerminalSize::new(24, 80)
    );
    let mut unknown = sh("true");
    unknown.terminal_size(TerminalSize::new(0, 0));
    assert_eq!(with_terminal(&mut unknown).1.terminal.size().unwrap(), TerminalSize::new(0, 0));
}

#[apply(case)]
fn closing_the_terminal_hangs_up_and_its_end_is_reported() {
    let (child, user) = with_terminal(&mut sh("exec sleep 60"));
    drop(user);
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(Signal::HUP));
    // The terminal of a dropped child is closed as well.
    let mut command = sh("exec sleep 60");
    command.stdio([Stdio::pty(), Stdio::pty(), Stdio::pty()]);
    drop(command.spawn().unwrap());
    // The output of a child that has ended is read to its end.
    let (child, mut user) = with_terminal(&mut sh("echo all of it"));
    let events = child.take_events().unwrap();
    child.wait().unwrap();
    let mut text = String::new();
    user.terminal.read_to_string(&mut text).unwrap();
    assert_eq!(text, "all of it\r\n");
    let last = events.iter().last();
    assert!(matches!(last, Some(Event::Close(ExitStatus::Code(0)))), "{last:?}");
    // As a plain descriptor.
    let (child, user) = with_terminal(&mut sh("true"));
    let descriptor = OwnedFd::from(user.terminal);
    child.wait().unwrap();
    drop(descriptor);
}

#[apply(case)]
fn a_terminal_that_cannot_be_is_an_error() {
    let invalid = |command: &mut Command| match command.spawn() {
        Err(Error::Invalid(invalid)) => invalid.field,
        other => panic!("{other:?}"),
    };
    assert_eq!(invalid(sh("true").controlling_terminal(7)), "controlling_terminal");
    assert_eq!(invalid(sh("true").stdin(Stdio::pty()).process_group(0)), "process_group");
    let refused = sh("true").controlling_terminal(0).spawn().unwrap_err();
    assert_eq!((refused.step(), refused.code()), (Some(Step::Terminal), "ENOTTY"));
    let refused = sh("true").stdout(Stdio::pty()).output().unwrap_err();
    assert!(matches!(refused.error, Error::Invalid(_)), "{refused:?}");
    // The controlling terminal of another session is not taken away.
    let (ours, theirs) = sys::terminal::open(24, 80).unwrap();
    let start = || {
        let mut command = sh("exec sleep 60");
        command.stdin(theirs.try_clone().unwrap()).controlling_terminal(0).spawn()
    };
    let first = start().unwrap();
    let second = start().unwrap_err();
    assert_eq!((second.step(), second.code()), (Some(Step::Terminal), "EPERM"));
    first.kill(Signal::KILL).unwrap();
    first.wait().unwrap();
    drop(ours);
}

#[apply(case)]
fn ctrl_c_reaches_the_program_of_process_1_once() {
    let namespace = ["--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new("unshare").args(namespace).arg("true").output();
    if !probe.is_ok_and(|output| output.status.success()) {
        return println!("skipped: no pid namespace can be made");
    }
    let mut unshare = Command::new("unshare");
    unshare.args(namespace).arg(current_exe()).args(["role", "counts_interrupts"]);
    let (child, mut user) = with_terminal(&mut unshare);
    user.sees("ready\r\n");
    user.types("\x03");
    user.sees("1 interrupts\r\n");
    assert_eq!(child.wait().unwrap(), ExitStatus::Code(0));
}

/// Counts the interrupts until none has come for a while.
#[apply(role)]
fn counts_interrupts(_: &[String]) {
    child_process::init().unwrap();
    let watch = sys::signal::SignalWatch::new(&[Signal::INT]).unwrap();
    println!("ready");
    assert!(sys::poll::readable(watch.as_fd(), Some(WAIT_MAX)).unwrap());
    let mut count = watch.take().len();
    while sys::poll::readable(watch.as_fd(), Some(Duration::from_millis(200))).unwrap() {
        count += watch.take().len();
    }
    println!("{count} interrupts");
}
