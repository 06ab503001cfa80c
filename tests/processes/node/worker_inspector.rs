//! The inspectors of Node workers.

use std::collections::BTreeSet;
use std::net::TcpListener;

use cluster::{Event, WorkerOptions};

use crate::harness::{apply, case};
use crate::support::node_cluster::{Cluster, application};

/// Returns a port that is followed by `count` unused ones.
fn unused_ports(count: u16) -> u16 {
    let is_unused = |port| TcpListener::bind(("127.0.0.1", port)).is_ok();
    let first = |listener: TcpListener| listener.local_addr().expect("an address").port();
    let mut bases = (0..1000).map(|_| first(TcpListener::bind("127.0.0.1:0").expect("bind")));
    bases
        .find(|base| *base < u16::MAX - count && (1..=count).all(|it| is_unused(base + it)))
        .expect("a row of unused ports")
}

/// Returns the ports of the inspectors of these workers.
fn ports(cluster: &Cluster, workers: impl IntoIterator<Item = u32>) -> BTreeSet<u16> {
    let mut missing: BTreeSet<_> = workers.into_iter().collect();
    let mut ports = BTreeSet::new();
    while !missing.is_empty() {
        let (worker, url) = cluster.find(|event| match event {
            Event::Message { worker, message } => {
                Some((worker.id().get(), message.decode::<String>().expect("text")))
            }
            _ => None,
        });
        let port = url.strip_prefix("ws://127.0.0.1:").and_then(|rest| rest.split('/').next());
        assert!(missing.remove(&worker), "{worker}");
        ports.insert(
            port.unwrap_or_else(|| panic!("worker {worker}: {url}")).parse().expect("a port"),
        );
    }
    ports
}

/// Each worker has the next port, as under Node, and so has the worker that replaces another one.
#[apply(case)]
fn the_port_of_the_inspector_counts_up() {
    let first = unused_ports(4);
    let flag = format!("--inspect={first}");
    for options in [
        WorkerOptions::new().exec_argv([&flag]),
        WorkerOptions::new().env("NODE_OPTIONS", &flag),
        WorkerOptions::new().exec_argv(["--inspect=9229"]).exec_argv(["--inspect", &flag]),
    ] {
        let Some(builder) = application("cluster_inspect.js", &[]) else { return };
        let builder = builder.worker(options).listens(false);
        let cluster = Cluster::start(builder.workers(2));
        assert_eq!(ports(&cluster, [1, 2]), BTreeSet::from([first + 1, first + 2]));
        cluster.primary.reload().expect("reloaded");
        assert_eq!(ports(&cluster, [3, 4]), BTreeSet::from([first + 3, first + 4]));
        cluster.end();
    }
}

/// Port 0 is a free port for each worker, and so is a fixed `inspect_port` of 0.
#[apply(case)]
fn inspectors_at_port_0_have_different_ports() {
    for options in [
        WorkerOptions::new().exec_argv(["--inspect=0"]),
        WorkerOptions::new().exec_argv(["--inspect=9229"]).inspect_port(0),
    ] {
        let Some(builder) = application("cluster_inspect.js", &[]) else { return };
        let cluster = Cluster::start(builder.worker(options).listens(false).workers(3));
        assert_eq!(ports(&cluster, [1, 2, 3]).len(), 3);
        cluster.end();
    }
}
