//! Node workers that leave by themselves after some requests, as `max-requests` of process managers
//! does it: they are replaced, and no client is refused.

use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use child_process::Command;
use cluster::{Event, Policy};

use crate::harness::{apply, case};
use crate::support::http::{self, Asked, Outcome};
use crate::support::node::{node, script};
use crate::support::node_cluster::{Cluster, application};

/// Returns whether `server.close()`, which `worker.disconnect()` calls as well, drops connections of
/// which Node has read nothing, as it does in Node 26 and not in Node 20. No primary can give such a
/// connection to another worker.
fn close_drops_silent_connections() -> bool {
    let Some(node) = node() else { return false };
    let mut command = Command::new(node);
    let output = command.arg(script("closes_silent.js")).output().expect("the script runs");
    match output.stdout_text().trim() {
        "yes" => true,
        "no" => false,
        other => panic!("{other:?}"),
    }
}

/// `server.close(() => process.exit())` and `worker.disconnect()`, with one worker and two: clients
/// wait for the next worker, and the service goes on.
#[apply(case)]
fn node_workers_that_leave_by_themselves_are_replaced_and_lose_no_client() {
    let closes_silent = close_drops_silent_connections();
    for policy in [Policy::RoundRobin, Policy::Shared] {
        for (way, workers) in [("close", 1), ("disconnect", 1), ("close", 2), ("disconnect", 2)] {
            let Some(builder) = application("cluster_recycle.js", &["0", "5", way]) else { return };
            let builder = builder.workers(workers).policy(policy);
            let cluster = Cluster::start(builder.restart_burst(1000, Duration::from_micros(1)));
            let (address, what) = (cluster.address(), format!("{policy:?} {way} x {workers}"));
            let until = Instant::now() + Duration::from_millis(1500);
            let dropped = AtomicU64::new(0);
            let client = || {
                let mut answered = 0;
                while Instant::now() < until {
                    match http::get(address) {
                        Asked { outcome: Outcome::Answered { .. }, .. } => answered += 1,
                        Asked { outcome: Outcome::Dropped, .. } if closes_silent => {
                            dropped.fetch_add(1, Ordering::Relaxed);
                        }
                        asked => panic!("{what}, after {answered} answers: {asked:?}"),
                    }
                }
                answered
            };
            let answered: u64 = thread::scope(|scope| {
                let clients: Vec<_> = (0..2).map(|_| scope.spawn(client)).collect();
                clients.into_iter().map(|it| it.join().expect("all are answered")).sum()
            });
            let exits = cluster.events.try_iter().filter(|it| matches!(it, Event::Exit { .. }));
            let (left, dropped) = (exits.count() as u64, dropped.into_inner());
            println!("{what}: {answered} answered, {dropped} dropped, {left} workers left");
            assert!(answered > 10, "{what}: {answered}");
            // A worker that leaves can have one connection of the client that has no answer yet. The
            // last one to leave may not have ended.
            assert!(dropped <= left + workers as u64, "{what}: {dropped} of {left}");
            cluster.primary.shutdown();
            cluster.primary.wait().expect("ended without a failure");
        }
    }
}
