//! Rust programs that leave a Node program: no order of their last steps ends it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use child_process::Command;
use serde_json::json;

use super::primary::NodePrimary;
use crate::harness::{apply, case, role, storm};
use crate::support::http::{self, Outcome};
use crate::support::node::{node, script, serializations};
use crate::support::{Folder, WAIT_MAX, current_exe, eventually, storm_time};

/// The last steps of workers, as `life` takes them, with the exit code and whether the primary knows
/// that the exit was wanted.
const ENDS: [(&[&str], i32, bool); 13] = [
    (&["leave", "drain"], 0, true),
    (&["udp-if-may", "leave", "drain"], 0, true),
    (&["listen", "leave", "drain"], 0, true),
    (&["kill"], 0, true),
    (&["listen", "kill"], 0, true),
    (&["leave"], 0, true),
    (&["leave", "exit=3"], 3, true),
    (&["say=bye", "leave", "say=more", "exit=3"], 3, true),
    (&["say=bye", "exit=3"], 3, false),
    (&["listen", "exit=0"], 0, false),
    (&["ask", "exit=3"], 3, false),
    (&["leave", "cut"], 0, true),
    (&["cut", "drain"], 0, false),
];

/// Every order of disconnect, exit, last message and close leaves the primary alive, and it learns
/// the code and whether the exit was wanted.
#[apply(case)]
fn no_end_of_a_rust_worker_ends_its_node_primary() {
    for (steps, code, wanted) in ENDS {
        let role: Vec<_> = std::iter::once("life").chain(steps.iter().copied()).collect();
        for (policy, serialization) in [("rr", "json"), ("none", "advanced")] {
            println!("{steps:?} {policy} {serialization}");
            let Some(primary) = NodePrimary::start(policy, serialization, &role) else { return };
            let workers = 6;
            (0..workers).for_each(|_| primary.order(json!({ "order": "fork" })));
            for _ in 0..workers {
                let seen = primary.next("exit");
                assert_eq!((&seen["code"], &seen["wanted"]), (&json!(code), &json!(wanted)));
            }
            primary.end(0);
        }
    }
}

/// A worker that has left closes its channel by itself, and learns of the end.
#[apply(case)]
fn a_worker_that_has_drained_closes_its_channel_to_a_node_primary() {
    for first in [&["leave"][..], &["say=bye", "leave"], &["udp-if-may", "leave"]] {
        let steps = [&["life"][..], first, &["closed"]].concat();
        let Some(primary) = NodePrimary::start("rr", "json", &steps) else { return };
        primary.order(json!({ "order": "fork" }));
        primary.next("disconnect");
        let seen = primary.next("exit");
        assert_eq!((&seen["code"], &seen["wanted"]), (&json!(0), &json!(true)), "{first:?}");
        primary.end(0);
    }
    // The same after a disconnect by the primary.
    let Some(primary) = NodePrimary::start("none", "json", &["life", "closed"]) else { return };
    primary.order(json!({ "order": "fork" }));
    primary.next("online");
    primary.order(json!({ "order": "disconnect", "id": 1 }));
    assert_eq!(primary.next("exit")["code"], json!(0));
    primary.end(0);
}

/// A worker that has closed its channel, and whose `main` does not return, ends with its primary.
#[apply(case)]
fn a_worker_that_has_closed_its_channel_does_not_outlive_its_primary() {
    let role = ["life", "leave", "closed", "for-ever"];
    let Some(primary) = NodePrimary::start("rr", "json", &role) else { return };
    primary.order(json!({ "order": "fork" }));
    let pid = primary.next("fork")["pid"].as_u64().expect("a pid");
    let worker = sys::pidfd::PidFd::open(pid.try_into().expect("a pid")).expect("it runs");
    primary.next("disconnect");
    let has_ended =
        |limit| sys::poll::readable(std::os::fd::AsFd::as_fd(&worker), Some(limit)).expect("poll");
    assert!(!has_ended(Duration::from_millis(300)), "its primary lives");
    primary.end(0);
    assert!(has_ended(Duration::from_secs(10)));
}

/// The drain begins although the primary does not answer, and a primary that goes on survives.
#[apply(case)]
fn a_worker_leaves_a_node_primary_that_does_not_answer() {
    let folder = Folder::new("drained");
    let drained = folder.0.join("drained");
    let touch = format!("touch={}", drained.display());
    let role = ["life", "await", "leave", "drain", &touch];
    let Some(primary) = NodePrimary::start("rr", "json", &role) else { return };
    primary.order(json!({ "order": "fork" }));
    primary.next("online");
    primary.order(json!({ "order": "send-and-stop", "id": 1, "message": "go on" }));
    eventually("the drain begins without an answer", || drained.exists().then_some(()));
    primary.child.kill(child_process::Signal::CONT).expect("it runs");
    assert_eq!(primary.next("exit")["code"], json!(0));
    primary.end(0);
}

/// `end_of_child HOW`: greets the Node program that forked it, and ends.
#[apply(role)]
fn end_of_child(args: &[String]) {
    let parent = child_process::parent().expect("started by a Node program");
    let (sender, receiver) = crossbeam_channel::unbounded();
    parent.on_message(move |_| {
        let _ = sender.send(());
    });
    parent.send("hello").expect("sent");
    let _ = receiver.recv_timeout(WAIT_MAX);
    match args[0].as_str() {
        "return" => {}
        "exit" => std::process::exit(0),
        "disconnect" => parent.disconnect().expect("connected"),
        "last-message" => drop(parent.send(&"x".repeat(300_000)).expect("sent")),
        other => panic!("no end {other}"),
    }
}

/// A Node parent that talks to its children without a pause survives their ends.
#[apply(case)]
fn no_end_of_a_rust_child_ends_its_node_parent() {
    let Some(node) = node() else { return };
    for how in ["return", "exit", "disconnect", "last-message"] {
        for serialization in serializations() {
            let mut command = Command::new(&node);
            command.arg(script("exit_race.cjs")).args(["20", serialization.name()]);
            command.arg(current_exe()).args(["role", "end_of_child", how]);
            command.timeout(WAIT_MAX);
            let output = command.output().unwrap_or_else(|error| panic!("{how}: {error:?}"));
            assert_eq!(output.stdout, b"alive\n", "{how}");
        }
    }
}

/// Workers come and go 200 times, by disconnects of both sides and by both at once, under clients:
/// no client is lost, and the primary lives.
#[apply(storm)]
fn a_node_primary_survives_rust_workers_that_come_and_go() {
    let role = ["node_worker_come_and_go", "127.0.0.1:0"];
    let Some(primary) = NodePrimary::start("rr", "json", &role) else { return };
    let address = primary.workers(3);
    let time = storm_time(5, 15);
    let (stop, start) = (AtomicBool::new(false), Instant::now());
    thread::scope(|scope| {
        let clients: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut answered = 0_u32;
                    while !stop.load(Ordering::Relaxed) {
                        let asked = http::get(address);
                        assert!(matches!(asked.outcome, Outcome::Answered { .. }), "{asked:?}");
                        answered += 1;
                    }
                    answered
                })
            })
            .collect();
        let mut gone = 0;
        while gone < 200 && start.elapsed() < time {
            let id = gone + 1;
            primary.order(json!({ "order": "fork" }));
            primary.next("listening");
            if id % 3 != 1 {
                primary.order(json!({ "order": "send", "id": id, "message": "disconnect" }));
            }
            if id % 3 != 2 {
                primary.order(json!({ "order": "disconnect-if-there", "id": id }));
            }
            let seen = primary.next("exit");
            assert_eq!((&seen["code"], &seen["wanted"]), (&json!(0), &json!(true)), "{seen}");
            gone += 1;
        }
        stop.store(true, Ordering::Relaxed);
        let answered: u32 = clients.into_iter().map(|client| client.join().expect("fine")).sum();
        println!("{gone} came and went in {:?}, {answered} answered", start.elapsed());
        assert!(gone >= 20 && answered > 50, "the storm was too weak to prove anything");
    });
    primary.end(3);
}
