//! Rust workers of a Node primary that have no free descriptor: no client is lost.

use std::collections::BTreeMap;
use std::fs::File;
use std::thread;
use std::time::Duration;

use cluster::Worker;
use sys::rlimit;

use super::primary::NodePrimary;
use crate::harness::{apply, case, role};
use crate::support::http::{self, Outcome};
use crate::support::{OrLeave, eventually, wait};

/// `node_worker_without_descriptors`: answers HTTP with its number. Files hold all descriptors of
/// worker 1 for half a second from its third connection on.
#[apply(role)]
fn node_worker_without_descriptors(_args: &[String]) {
    let id = Worker::current().expect("started by a primary").id().get();
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let (soft, _) = rlimit::descriptors().expect("a limit");
    let (mut served, mut refused) = (0_u32, 0_u32);
    thread::scope(|scope| {
        for accepted in listener.incoming() {
            match accepted {
                Ok((stream, _peer)) => {
                    served += 1;
                    // The client may be gone; the outcome is checked on its side.
                    let _ = http::answer(stream, &id.to_string(), Duration::ZERO);
                }
                Err(error) => {
                    assert_eq!(error.code(), "EMFILE", "{error}");
                    refused += 1;
                    continue;
                }
            }
            if id == 1 && served == 3 {
                rlimit::set_descriptors(64).expect("lower");
                let files: Vec<_> = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
                scope.spawn(move || {
                    wait(Duration::from_millis(500));
                    drop(files);
                    rlimit::set_descriptors(soft).expect("raise");
                });
            }
        }
    });
    assert!(id != 1 || refused > 0, "accept reported nothing");
}

/// A Rust worker without descriptors declines the connections of its Node primary, which has copies
/// and gives them to another worker.
#[apply(case)]
fn a_rust_worker_out_of_descriptors_loses_no_client_of_its_node_primary() {
    for serialization in ["json", "advanced"] {
        let role = ["node_worker_without_descriptors"];
        let Some(primary) = NodePrimary::start("rr", serialization, &role) else { return };
        let address = primary.workers(2);
        let ask = || match http::get(address).outcome {
            Outcome::Answered { body } => body,
            other => panic!("{other:?}"),
        };
        let mut answers = BTreeMap::new();
        for _ in 0..60 {
            *answers.entry(ask()).or_insert(0) += 1;
        }
        println!("{serialization}: {answers:?}");
        eventually("worker 1 serves again", || {
            wait(Duration::from_millis(5));
            (ask() == "1").then_some(())
        });
        primary.end(2);
    }
}
