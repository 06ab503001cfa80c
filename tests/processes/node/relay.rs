//! Messages between workers by way of the primary: `Builder::relay`.

use std::collections::BTreeMap;
use std::time::Duration;

use cluster::{Event, Primary, Worker, WorkerOptions};
use ipc::Serialization;
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::node::{node, script, serializations};
use crate::support::node_cluster::{Cluster, application};

const COUNT: u32 = 300;

/// The end of the workers is none of the subjects here.
const SOON: Duration = Duration::from_millis(200);

/// The messages that a worker has received: their senders and numbers, in order.
#[derive(Serialize, Deserialize)]
struct Report {
    report: u32,
    received: Vec<(u32, u32)>,
}

/// A message of the workers; the half of a surrogate pair is no text in Rust.
#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Word {
    Order(String),
    Message { from: u32, n: u32 },
    Report(Report),
}

/// The messages of Rust workers that bincode carries.
#[derive(Serialize, Deserialize)]
enum NativeWord {
    Go,
    ReportNow,
    Message { from: u32, n: u32 },
    Report(u32, Vec<(u32, u32)>),
}

/// `relay_json`: as `cluster_relay.js`, in JSON.
#[apply(role)]
fn relay_json(_: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let (from, mut received) = (worker.id().get(), Vec::new());
    for message in worker.take_messages().expect("the first call") {
        match message.decode::<Word>().expect("a word") {
            Word::Order(order) if order == "go" => (0..COUNT).for_each(|n| {
                let word = json!({ "from": from, "n": n, "half": "" });
                let _ = worker.send(&word).expect("sent");
            }),
            Word::Order(_) => {
                let report = Report { report: from, received: std::mem::take(&mut received) };
                let _ = worker.send(&report).expect("sent");
            }
            Word::Message { from, n } => received.push((from, n)),
            Word::Report(_) => {}
        }
    }
}

/// `relay_native`: the same in bincode.
#[apply(role)]
fn relay_native(_: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let (from, mut received) = (worker.id().get(), Vec::new());
    for message in worker.take_messages().expect("the first call") {
        match message.decode::<NativeWord>().expect("a word") {
            NativeWord::Go => (0..COUNT).for_each(|n| {
                let _ = worker.send(&NativeWord::Message { from, n }).expect("sent");
            }),
            NativeWord::ReportNow => {
                let report = NativeWord::Report(from, std::mem::take(&mut received));
                let _ = worker.send(&report).expect("sent");
            }
            NativeWord::Message { from, n } => received.push((from, n)),
            NativeWord::Report(..) => {}
        }
    }
}

/// Checks that this worker has received every other worker, each in order, and not itself.
fn check(worker: u32, received: &[(u32, u32)], others: &[u32]) {
    let mut by_sender = BTreeMap::<u32, Vec<u32>>::new();
    received.iter().for_each(|(from, n)| by_sender.entry(*from).or_default().push(*n));
    assert_eq!(by_sender.keys().copied().collect::<Vec<_>>(), others, "worker {worker}");
    let all: Vec<u32> = (0..COUNT).collect();
    assert!(by_sender.values().all(|row| *row == all), "worker {worker}: lost or out of order");
}

/// Waits until the primary has seen all messages of the workers; they have been sent on by then.
fn await_messages(cluster: &Cluster, mut left: u32) {
    while left > 0 {
        cluster.find(|event| match event {
            Event::Error { error, .. } => panic!("{error:?}"),
            event => matches!(event, Event::Message { .. }).then_some(()),
        });
        left -= 1;
    }
}

fn reported(cluster: &Cluster) -> BTreeMap<u32, Vec<(u32, u32)>> {
    let mut reports = BTreeMap::new();
    while reports.len() < 3 {
        let report = cluster.find(|event| match event {
            Event::Message { message, .. } => Some(message.decode::<Report>().expect("a report")),
            Event::Error { error, .. } => panic!("{error:?}"),
            _ => None,
        });
        reports.insert(report.report, report.received);
    }
    reports
}

#[apply(case)]
fn node_workers_get_the_messages_of_all_others_in_order() {
    for serialization in serializations() {
        let args = [COUNT.to_string()];
        let Some(builder) = application("cluster_relay.js", &[args[0].as_str()]) else { return };
        let options = WorkerOptions::new().serialization(serialization);
        let builder = builder.worker(options).listens(false).relay();
        let cluster = Cluster::start(builder.workers(3));
        cluster.primary.broadcast("go").expect("sent");
        await_messages(&cluster, 3 * COUNT);
        cluster.primary.broadcast("report").expect("sent");
        let reports = reported(&cluster);
        for (worker, others) in [(1, [2, 3]), (2, [1, 3]), (3, [1, 2])] {
            check(worker, &reports[&worker], &others);
        }
        cluster.end();
    }
}

/// A Rust worker with JSON takes part, with Node workers at its side.
#[apply(case)]
fn rust_and_node_workers_get_each_others_messages() {
    let Some(node) = node() else { return };
    let rust = WorkerOptions::new().exec(current_exe()).args(["role", "relay_json"]);
    let builder = Primary::builder().worker(rust.serialization(Serialization::Json));
    let builder = builder.workers(2).listens(false).disconnect_within(SOON);
    let cluster = Cluster::start(builder.relay());
    let app = WorkerOptions::new().exec(script("cluster_relay.js")).exec_path(node);
    cluster.primary.fork(app.args([COUNT.to_string()])).expect("forked");
    cluster.primary.ready().expect("ready");
    cluster.primary.broadcast("go").expect("sent");
    await_messages(&cluster, 3 * COUNT);
    cluster.primary.broadcast("report").expect("sent");
    let reports = reported(&cluster);
    check(1, &reports[&1], &[2, 3]);
    check(2, &reports[&2], &[1, 3]);
    // The script takes only messages with half of a surrogate pair.
    assert_eq!(reports[&3], []);
    cluster.end();
}

#[apply(case)]
fn rust_workers_get_the_messages_of_all_others_in_order() {
    let rust = WorkerOptions::new().exec(current_exe()).args(["role", "relay_native"]);
    let builder = Primary::builder().worker(rust).workers(3).listens(false);
    let cluster = Cluster::start(builder.disconnect_within(SOON).relay());
    cluster.primary.broadcast(&NativeWord::Go).expect("sent");
    await_messages(&cluster, 3 * COUNT);
    cluster.primary.broadcast(&NativeWord::ReportNow).expect("sent");
    for _ in 0..3 {
        let (worker, received) = cluster.find(|event| match event {
            Event::Message { message, .. } => match message.decode().expect("a word") {
                NativeWord::Report(worker, received) => Some((worker, received)),
                _ => None,
            },
            _ => None,
        });
        let others: Vec<u32> = (1..=3).filter(|it| *it != worker).collect();
        check(worker, &received, &others);
    }
    cluster.end();
}

/// Without the option no message goes on. With it, a worker that has another codec is named once,
/// and the others get their messages.
#[apply(case)]
fn a_worker_with_another_codec_is_named_once() {
    let Some(node) = node() else { return };
    let rust = WorkerOptions::new().exec(current_exe()).args(["role", "relay_native"]);
    let app = WorkerOptions::new().exec(script("cluster_relay.js")).exec_path(node);
    let app = app.args([COUNT.to_string()]);
    for relays in [false, true] {
        let builder = Primary::builder().worker(rust.clone()).workers(1).listens(false);
        let builder = builder.disconnect_within(SOON);
        let cluster = Cluster::start(if relays { builder.relay() } else { builder });
        for _ in 0..2 {
            cluster.primary.fork(app.clone()).expect("forked");
        }
        cluster.primary.ready().expect("ready");
        cluster.worker(2).send("go").expect("sent");
        let mut errors = Vec::new();
        for _ in 0..COUNT {
            cluster.find(|event| match event {
                Event::Error { worker, error } => {
                    errors.push((worker.map(|it| it.get()), error.to_string()));
                    None
                }
                event => matches!(event, Event::Message { .. }).then_some(()),
            });
        }
        cluster.worker(3).send("report").expect("sent");
        let received = cluster.message(3)["received"].as_array().expect("a list").len();
        assert_eq!(received, if relays { COUNT as usize } else { 0 });
        assert_eq!(errors.len(), usize::from(relays), "{errors:?}");
        assert!(errors.iter().all(|(worker, _)| *worker == Some(1)), "{errors:?}");
        cluster.end();
    }
}
