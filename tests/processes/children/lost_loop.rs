//! Programs whose other code closes the descriptors of the event loop: all waits end with an error.

use std::fs;
use std::time::Duration;

use child_process::{Command, Event, Fork, Module, exec};

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{WAIT_MAX, current_exe, eventually};

#[apply(case)]
fn a_closed_loop_ends_every_wait_with_an_error() {
    let mut program = Command::new(current_exe());
    program.args(["role", "closes_the_loop"]).timeout(Duration::from_secs(20));
    let output = program.output().unwrap();
    let text = output.stdout_text();
    assert_eq!(text, "the end\n", "{}", output.stderr_text());
}

/// Closes the descriptor on which the loop waits, while children run.
#[apply(role)]
fn closes_the_loop(_: &[String]) {
    let running = exec("exec sleep 60").unwrap();
    let (sender, results) = std::sync::mpsc::channel();
    let called = exec("exec sleep 60").unwrap();
    called.on_done(move |outcome| sender.send(outcome.is_err()).unwrap());
    let child = sh("read line").spawn().unwrap();
    let events = child.take_events().unwrap();
    let fork = || Fork::new(Module::program("/bin/sh")).args(["-c", "cat <&3 >/dev/null"]).spawn();
    let connected = fork().unwrap();
    let messages = connected.take_events().unwrap();
    for events in [&events, &messages] {
        assert!(matches!(events.recv_timeout(WAIT_MAX).unwrap(), Event::Spawn));
    }
    let numbers = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let polls = numbers.filter(|entry| {
        fs::read_link(entry.path()).is_ok_and(|link| link.ends_with("anon_inode:[eventpoll]"))
    });
    let polls: Vec<i32> =
        polls.map(|entry| entry.file_name().to_str().unwrap().parse().unwrap()).collect();
    assert_eq!(polls.len(), 1);
    nix::unistd::close(polls[0]).unwrap();
    // The loop is waiting. Its next wait fails.
    let _ = exec("true");
    assert!(running.wait().is_err());
    assert!(results.recv_timeout(WAIT_MAX).unwrap(), "the callback gets the error");
    for events in [events, messages] {
        let errors = events.iter().filter(|event| matches!(event, Event::Error(_))).count();
        assert!(errors >= 1, "an error, and the end");
    }
    eventually("starts that need the loop fail", || exec("true").is_err().then_some(()));
    assert!(fork().is_err());
    // A wait that needs no loop works.
    assert_eq!(sh("echo text").output().unwrap().stdout_text(), "text\n");
    println!("the end");
}
