//! Client affinity with Node workers: a client stays with its worker, however many connections it
//! opens at once.

use std::collections::BTreeMap;
use std::sync::Barrier;
use std::thread;

use cluster::Policy;

use crate::harness::{apply, case};
use crate::support::node_cluster::{Cluster, answer, application};

/// One address opens up to 32 connections at once, again and again: one worker gets them all.
#[apply(case)]
fn bursts_of_one_client_stay_with_its_node_worker() {
    let Some(builder) = application("cluster_http.js", &["0", "127.0.0.1"]) else { return };
    let cluster = Cluster::start(builder.workers(3).policy(Policy::Sticky));
    let address = cluster.address();
    let (home, _) = answer(address);
    for at_once in [1, 4, 6, 8, 10, 16, 32] {
        let mut answers = BTreeMap::new();
        for _round in 0..10 {
            let barrier = Barrier::new(at_once);
            let ask = || {
                barrier.wait();
                answer(address).0
            };
            thread::scope(|scope| {
                let clients: Vec<_> = (0..at_once).map(|_| scope.spawn(ask)).collect();
                for client in clients {
                    *answers.entry(client.join().expect("answered")).or_insert(0) += 1;
                }
            });
        }
        println!("{at_once} at once: {answers:?}");
        assert_eq!(answers, BTreeMap::from([(home, 10 * at_once)]), "{at_once} at once");
    }
    cluster.end();
}
