//! Programs that fork without exec, as a daemon does, after they have used the event loop.

use std::fs;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use child_process::{Child, Command, Event, Fork, Module, exec, parent};

use crate::harness::{apply, case, role};
use crate::support::shell::sh;
use crate::support::{current_exe, wait};

#[apply(case)]
fn a_forked_process_gets_errors_and_never_hangs() {
    let mut program = Command::new(current_exe());
    program.args(["role", "becomes_a_daemon"]).timeout(Duration::from_secs(20));
    // The output ends when the daemon ends.
    let output = program.output().unwrap();
    let text = output.stdout_text();
    assert!(text.ends_with("the end\n"), "{text}{}", output.stderr_text());
}

#[apply(case)]
fn a_process_that_forks_before_the_first_use_works() {
    let mut program = Command::new(current_exe());
    program.args(["role", "is_a_daemon_first"]).timeout(Duration::from_secs(20));
    let output = program.output().unwrap();
    assert_eq!(output.stdout_text(), "done\n", "{}", output.stderr_text());
}

/// A forked process has a copy of the exit hook, which waits until Node has closed the channel.
#[apply(case)]
fn a_forked_process_of_a_node_parent_ends_at_once() {
    let mut fork = Fork::new(Module::node("role"));
    fork.exec_path(current_exe()).silent(true).arg("leaves_a_copy");
    let mut child = fork.spawn().unwrap();
    let began = Instant::now();
    let mut text = String::new();
    child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
    assert_eq!(text, "the end\n");
    assert!(began.elapsed() < Duration::from_secs(4), "the hook waits for five seconds");
    assert!(child.wait().unwrap().success());
}

/// Uses the channel to a Node parent, becomes a daemon, and ends.
#[apply(role)]
fn leaves_a_copy(_: &[String]) {
    assert!(parent().unwrap().is_node());
    nix::unistd::daemon(true, true).unwrap();
    println!("the end");
}

/// Returns the text of the first error among the events of a child, which must end.
fn first_error(child: &Child) -> String {
    let events = child.take_events().unwrap();
    let error = events.iter().find_map(|event| match event {
        Event::Error(error) => Some(with_causes(&error)),
        _ => None,
    });
    error.expect("an error, and no wait for ever")
}

fn check(what: &str, text: &str) {
    let cause = "forked without exec";
    assert!(text.contains(cause), "{what}: {text}");
    println!("{what}");
    std::io::stdout().flush().unwrap();
}

fn zombies() -> usize {
    let own = format!(") Z {} ", std::process::id());
    let stats = fs::read_dir("/proc").unwrap().flatten();
    let stats = stats.filter_map(|entry| fs::read_to_string(entry.path().join("stat")).ok());
    stats.filter(|stat| stat.contains(&own)).count()
}

fn with_causes(error: &dyn std::error::Error) -> String {
    let cause = error.source().map(with_causes).unwrap_or_default();
    format!("{error}: {cause}")
}

/// Uses the loop, becomes a daemon, and goes on.
#[apply(role)]
fn becomes_a_daemon(_: &[String]) {
    assert!(exec("true").unwrap().wait().unwrap().status.success());
    let shell = || Fork::new(Module::program("/bin/sh")).args(["-c", "cat <&3"]).spawn();
    let kept = shell().unwrap();
    let followed = shell().unwrap();
    let events = followed.take_events().unwrap();
    assert!(matches!(events.recv().unwrap(), Event::Spawn));
    let mut guarded = sh("read line").kill_on_drop(true).spawn().unwrap();
    let (guarded_pid, guarded_input) = (guarded.pid(), guarded.take_stdin());
    let callback = sh("read line").spawn().unwrap();
    let running = exec("exec sleep 1").unwrap();
    nix::unistd::daemon(true, true).unwrap();
    check("an older exec", &with_causes(&running.wait().unwrap_err()));
    check("exec", &with_causes(&exec("true").unwrap_err()));
    check("a timeout", &{
        let mut command = sh("true");
        with_causes(&command.timeout(Duration::from_secs(1)).spawn().unwrap_err())
    });
    check("a fork", &with_causes(&shell().unwrap_err()));
    // A wait that needs no loop works.
    let output = sh("echo text").output().unwrap();
    assert_eq!(output.stdout_text(), "text\n");
    let child = sh("exit 3").spawn().unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(3));
    check("events", &first_error(&sh("true").spawn().unwrap()));
    // A dropped child is reaped by the next start.
    let mut ending = sh("read line").spawn().unwrap();
    let input = ending.take_stdin();
    drop(ending);
    drop(input);
    let until = Instant::now() + Duration::from_secs(10);
    while sh("true").output().is_ok() && zombies() > 0 {
        assert!(Instant::now() < until, "a dropped child stays a zombie");
    }
    // Children of the process before the fork. They are not this process's to kill.
    drop(guarded);
    wait(Duration::from_millis(50));
    let stat = fs::read_to_string(format!("/proc/{guarded_pid}/stat")).unwrap();
    assert!(!stat.contains(") Z "), "{stat}");
    drop(guarded_input);
    check("a message", &with_causes(&kept.send("x").unwrap_err()));
    check("events of an older child", &first_error(&kept));
    callback.on_exit(|_| ());
    drop((kept, followed, callback));
    println!("the end");
    // The end of the process waits for nothing either.
}

/// Becomes a daemon first and uses the loop then.
#[apply(role)]
fn is_a_daemon_first(_: &[String]) {
    assert!(sh("true").output().unwrap().status.success());
    nix::unistd::daemon(true, true).unwrap();
    print!("{}", exec("echo done").unwrap().wait().unwrap().stdout_text());
}
