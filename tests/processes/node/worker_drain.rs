//! The end of Node workers that have requests and long connections.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::thread;
use std::time::Duration;

use child_process::{ExitStatus, Signal};
use cluster::{Event, Policy};

use crate::harness::{apply, case};
use crate::support::WAIT_MAX;
use crate::support::node_cluster::{Cluster, application};

fn send(address: SocketAddr, head: &str) -> TcpStream {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("set");
    stream.write_all(format!("{head}host: x\r\n\r\n").as_bytes()).expect("written");
    stream
}

/// Makes a request that takes this long, and waits until the application has it.
fn request(cluster: &Cluster, milliseconds: u32) -> TcpStream {
    let stream = send(cluster.address(), &format!("GET /{milliseconds} HTTP/1.1\r\n"));
    assert_eq!(cluster.message(1), "asked");
    stream
}

/// Makes a connection that stays open.
fn upgraded(cluster: &Cluster) -> TcpStream {
    let head = "GET / HTTP/1.1\r\nconnection: upgrade\r\nupgrade: x\r\n";
    let mut stream = send(cluster.address(), head);
    let mut answer = [0; 34];
    stream.read_exact(&mut answer).expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 101 "), "{:?}", answer.escape_ascii().to_string());
    stream
}

fn rest(mut stream: TcpStream) -> Result<String, std::io::ErrorKind> {
    let mut text = String::new();
    stream.read_to_string(&mut text).map(|_| text).map_err(|error| error.kind())
}

fn is_answered(stream: TcpStream) {
    let answer = rest(stream).expect("answered");
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("answered"), "{answer:?}");
}

/// With `sigterm_after` an application that handles the signal closes its long connections itself,
/// at a shutdown and at a reload, under both ways of dispatch.
#[apply(case)]
fn a_node_application_that_handles_sigterm_closes_its_connections_itself() {
    for (policy, reload) in
        [(Policy::RoundRobin, false), (Policy::RoundRobin, true), (Policy::Shared, true)]
    {
        let Some(builder) = application("cluster_drain.js", &["0", "handles"]) else { return };
        // Without the signal nothing would end the long connection.
        let builder = builder.workers(1).policy(policy).disconnect_within(Duration::MAX);
        let cluster = Cluster::start(builder.sigterm_after(Duration::ZERO));
        let (long, asked) = (upgraded(&cluster), request(&cluster, 500));
        thread::scope(|scope| {
            if reload {
                scope.spawn(|| cluster.primary.reload().expect("reloaded"));
            } else {
                cluster.primary.shutdown();
            }
            assert!(rest(long).expect("closed in order").ends_with("bye"));
            is_answered(asked);
            assert_eq!(cluster.exit(1), (ExitStatus::Code(0), Some(true)));
        });
        if reload {
            let first = cluster.find(|event| match event {
                Event::Reloaded => Some(2),
                Event::Exit { worker, .. } => Some(worker.id().get()),
                _ => None,
            });
            assert_eq!(first, 2, "the successor gets no signal");
        }
        cluster.end();
    }
}

/// `SIGTERM`, which ends an application without a handler, comes later than that by default.
#[apply(case)]
fn a_node_application_without_a_handler_answers_requests_of_six_seconds() {
    let Some(builder) = application("cluster_drain.js", &["0"]) else { return };
    let cluster = Cluster::start(builder.workers(1));
    let asked = request(&cluster, 6000);
    cluster.primary.shutdown();
    is_answered(asked);
    assert_eq!(cluster.exit(1), (ExitStatus::Code(0), Some(true)));
    cluster.end();
}

/// The limits of the user hold for Node workers: `SIGTERM` after the one, `SIGKILL` after the other.
#[apply(case)]
fn a_node_worker_that_does_not_end_in_time_gets_sigterm_and_then_sigkill() {
    let soon = Duration::from_millis(200);
    for (args, early, signal) in [
        (&["0"][..], None, Signal::TERM),
        (&["0"], Some(Duration::ZERO), Signal::TERM),
        // The request outlives the handler's work.
        (&["0", "handles"], None, Signal::KILL),
        (&["0", "handles"], Some(Duration::ZERO), Signal::KILL),
    ] {
        let Some(builder) = application("cluster_drain.js", args) else { return };
        let builder = builder.workers(1).disconnect_within(soon).terminate_within(soon);
        let builder = match early {
            Some(early) => builder.sigterm_after(early),
            None => builder,
        };
        let cluster = Cluster::start(builder);
        let asked = request(&cluster, 600_000);
        cluster.primary.shutdown();
        assert_eq!(cluster.exit(1), (ExitStatus::Signal(signal), Some(true)), "{args:?}");
        drop(asked);
        cluster.end();
    }
}
