//! Node workers that leave by themselves after some requests, as `max-requests` of process managers
//! does it: they are replaced, and no client is refused.

use std::thread;
use std::time::{Duration, Instant};

use cluster::{Event, Policy};

use crate::harness::{apply, case};
use crate::support::http::{self, Asked, Outcome};
use crate::support::node_cluster::{Cluster, application};

/// `server.close(() => process.exit())` and `worker.disconnect()`, with one worker and two: clients
/// wait for the next worker, and the service goes on.
#[apply(case)]
fn node_workers_that_leave_by_themselves_are_replaced_and_lose_no_client() {
    for policy in [Policy::RoundRobin, Policy::Shared] {
        for (way, workers) in [("close", 1), ("disconnect", 1), ("close", 2), ("disconnect", 2)] {
            let Some(builder) = application("cluster_recycle.js", &["0", "5", way]) else { return };
            let builder = builder.workers(workers).policy(policy);
            let cluster = Cluster::start(builder.restart_burst(1000, Duration::from_micros(1)));
            let (address, what) = (cluster.address(), format!("{policy:?} {way} x {workers}"));
            let until = Instant::now() + Duration::from_millis(1500);
            let client = || {
                let mut answered = 0;
                while Instant::now() < until {
                    match http::get(address) {
                        Asked { outcome: Outcome::Answered { .. }, .. } => answered += 1,
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
            println!("{what}: {answered} answered, {} workers left", exits.count());
            assert!(answered > 10, "{what}: {answered}");
            cluster.primary.shutdown();
            cluster.primary.wait().expect("ended without a failure");
        }
    }
}
