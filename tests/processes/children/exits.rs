//! The exits of children, and the reports of them.

use std::io::Read;
use std::path::PathBuf;
use std::time::Duration;

use child_process::internal::InternalChannel;
use child_process::{Command, Event, ExitStatus, Signal, Stdio};

use crate::harness::{apply, case, role, storm};
use crate::support::shell::{sh, story};
use crate::support::{WAIT_MAX, current_exe, eventually, wait};

#[apply(case)]
fn dropped_children_are_reaped_when_they_end() {
    for _ in 0..20 {
        drop(Command::new("true").spawn().unwrap());
    }
    // The ledger of the case shows a child that is left.
}

#[apply(case)]
fn waiting_and_listening_see_the_same_end() {
    for round in 0..50 {
        let child = sh(&format!("exit {round}")).spawn().unwrap();
        let events = child.take_events().unwrap();
        assert_eq!(child.wait().unwrap(), ExitStatus::Code(round));
        let seen: Vec<_> = events.into_iter().map(|event| format!("{event:?}")).collect();
        let (exit, close) = (format!("Exit(Code({round}))"), format!("Close(Code({round}))"));
        assert_eq!(seen, ["Spawn".to_owned(), exit, close]);
    }
}

#[apply(storm)]
fn two_hundred_children_from_eight_threads_leave_nothing() {
    let threads: Vec<_> = (0..8)
        .map(|number| {
            std::thread::spawn(move || {
                let children: Vec<_> = (0..25)
                    .map(|round| {
                        let code = number * 25 + round;
                        (code, sh(&format!("cat; exit {code}")).spawn().unwrap())
                    })
                    .collect();
                for (code, child) in children {
                    assert_eq!(child.wait().unwrap(), ExitStatus::Code(code));
                }
            })
        })
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[apply(case)]
fn exit_is_reported_although_a_grandchild_holds_the_pipe() {
    let child = sh("sleep 60 & echo $!; exit 4").spawn().unwrap();
    let (events, mut child) = (child.take_events().unwrap(), child);
    let mut pid = String::new();
    let mut stdout = child.take_stdout().unwrap();
    let mut byte = [0];
    while !pid.ends_with('\n') {
        stdout.read_exact(&mut byte).unwrap();
        pid.push(char::from(byte[0]));
    }
    let next = || format!("{:?}", events.recv_timeout(WAIT_MAX).unwrap());
    assert_eq!((next(), next()), ("Spawn".to_owned(), "Exit(Code(4))".to_owned()));
    assert!(events.try_recv().is_err(), "the outputs are open still");
    sys::signal::kill(pid.trim().parse().unwrap(), Signal::KILL).unwrap();
    assert_eq!(next(), "Close(Code(4))");
    // The drop is late, because our end of the output would count as closed after it.
    drop(stdout);
}

#[apply(case)]
fn a_child_with_a_parent_death_signal_outlives_the_thread_that_spawned_it() {
    let spawner = std::thread::spawn(|| {
        sh("exec sleep 60").parent_death_signal(Signal::KILL).spawn().unwrap()
    });
    let child = spawner.join().unwrap();
    assert_eq!(child.wait_timeout(Duration::from_millis(100)).unwrap(), None);
    child.kill(Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap(), ExitStatus::Signal(Signal::TERM));
}

#[apply(case)]
fn a_child_is_killed_on_drop_only_by_request() {
    let child = sh("exec sleep 60").kill_on_drop(true).spawn().unwrap();
    let pid = child.pid();
    drop(child);
    eventually("the child is reaped", || {
        (!PathBuf::from(format!("/proc/{pid}")).exists()).then_some(())
    });
}

#[apply(case)]
fn callbacks_are_called_in_order_beside_events() {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let child = sh("exit 2").spawn().unwrap();
    let report = |name: &'static str| {
        let sender = sender.clone();
        move || sender.send(name.to_owned()).unwrap()
    };
    let (exit, close) = (sender.clone(), sender.clone());
    child
        .on_spawn(report("spawn"))
        .on_exit(move |status| exit.send(format!("exit {status}")).unwrap())
        .on_exit(|_| panic!("expected by a test"))
        .on_close(move |status| close.send(format!("close {status}")).unwrap());
    let next = || receiver.recv_timeout(WAIT_MAX).unwrap();
    assert_eq!([next(), next(), next()], ["spawn", "exit code 2", "close code 2"]);
    assert_eq!(story(&child), ["Spawn", "Exit(Code(2))", "Close(Code(2))"]);
}

#[apply(case)]
fn a_result_reaches_its_callback() {
    let (sender, receiver) = crossbeam_channel::unbounded();
    let exec = child_process::exec("echo out; echo err >&2; exit 7").unwrap();
    exec.on_done(move |outcome| {
        sender.send((outcome, reactor::callback::on_callback_thread())).unwrap();
    });
    let (outcome, on_callback_thread) = receiver.recv_timeout(WAIT_MAX).unwrap();
    assert!(on_callback_thread);
    let error = outcome.unwrap_err();
    assert_eq!(error.status, Some(ExitStatus::Code(7)));
    assert_eq!((error.stdout.as_slice(), error.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
    assert_eq!(error.line, "echo out; echo err >&2; exit 7");
}

/// The receiver of events is taken once, because two receivers would share the messages.
#[apply(case)]
fn a_second_receiver_of_events_is_refused() {
    let child = sh("exit 2").spawn().unwrap();
    let events = child.take_events().unwrap();
    assert!(child.take_events().is_none());
    assert!(matches!(events.iter().last(), Some(Event::Close(ExitStatus::Code(2)))));
    assert!(child.take_events().is_none(), "it was taken, and has ended");
}

#[apply(storm)]
fn idle_children_cost_no_wake_ups() {
    let children: Vec<_> = (0..100)
        .map(|_| {
            let child = sh("exec sleep 60").stdout(Stdio::pipe()).spawn().unwrap();
            child.subscribe(|_| {});
            child
        })
        .collect();
    let turns = || reactor::reactor().unwrap().turns();
    let quiet = eventually("the loop is quiet", || {
        let before = turns();
        wait(Duration::from_millis(50));
        (turns() == before).then_some(before)
    });
    wait(Duration::from_millis(200));
    assert_eq!(turns(), quiet);
    for child in &children {
        child.kill(Signal::KILL).unwrap();
        assert_eq!(child.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
    }
}

#[apply(case)]
fn exits_are_reported_although_sigchld_is_ignored() {
    let mut careless = sh("trap '' CHLD; exec \"$0\" role children_of_a_careless_parent");
    careless.arg(current_exe());
    let said = careless.output().unwrap();
    assert_eq!(said.stdout_text(), "code 5\nSIGKILL\n", "{}", said.stderr_text());
}

/// `children_of_a_careless_parent`: runs with SIGCHLD ignored and prints how its children ended.
#[apply(role)]
fn children_of_a_careless_parent(_args: &[String]) {
    let five = sh("exit 5").spawn().unwrap();
    println!("{}", five.wait().unwrap());
    let killed = sh("kill -9 $$").spawn().unwrap();
    println!("{}", killed.wait().unwrap());
}
