//! Every option of a cluster at its ends: the option is taken, or refused where it is set.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use child_process::Signal;
use cluster::{Builder, Error, ListenOptions, Policy, Primary, Worker, WorkerOptions, WorkerStdio};

use crate::harness::{apply, case, role};
use crate::support::WAIT_MAX;
use crate::support::pool::Pool;

const ENDS: [Duration; 2] = [Duration::ZERO, Duration::MAX];

/// `serve_with OPTION`: listens with one option at an end, and sends a byte to each client. An
/// option that is refused is a message.
#[apply(role)]
fn serve_with(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let options = ListenOptions::new();
    let options = match args[0].as_str() {
        "nothing" => options,
        "backlog 0" => options.backlog(0),
        "backlog max" => options.backlog(u32::MAX),
        "max_connections 0" => options.max_connections(0),
        "max_connections max" => options.max_connections(u32::MAX),
        "data none" => options.data([]),
        "data most" => options.data(vec![0; ListenOptions::DATA_BYTES_MAX]),
        "data over" => options.data(vec![0; ListenOptions::DATA_BYTES_MAX + 1]),
        "orphan_drain 0" => {
            worker.set_orphan_drain(Duration::ZERO);
            options
        }
        "orphan_drain max" => {
            worker.set_orphan_drain(Duration::MAX);
            options
        }
        other => panic!("no option {other}"),
    };
    let listener = match options.listen("127.0.0.1:0") {
        Ok(listener) => listener,
        Err(error) => {
            worker.send(error.code()).expect("sent");
            worker.draining().wait();
            return;
        }
    };
    for accepted in listener.incoming() {
        let (mut stream, _peer) = accepted.expect("accept");
        stream.write_all(b"!").expect("the client waits");
    }
}

fn ask(address: SocketAddr) {
    let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX).expect("connect");
    stream.set_read_timeout(Some(WAIT_MAX)).expect("a valid timeout");
    stream.read_exact(&mut [0]).expect("an answer");
}

/// A cluster with these options serves, replaces a killed worker if it is to, and ends.
fn serves(name: &str, builder: Builder, is_replaced: bool) {
    println!("{name}");
    let pool = Pool::of(builder.workers(1), &["serve_with", "nothing"]);
    let (id, address) = pool.listening_tcp();
    ask(address);
    pool.worker(id).kill(Signal::KILL).expect("kill");
    pool.exit(id);
    if is_replaced {
        assert_ne!(pool.listening_tcp().0, id);
        ask(address);
    }
    pool.primary.shutdown();
    // A worker without time to end is killed, which is no failure of the cluster.
    pool.primary.wait().unwrap_or_else(|error| panic!("{name}: {error}"));
}

/// Each time of the builder is 0 or without end.
#[apply(case)]
fn every_time_of_the_builder_is_taken_at_its_ends() {
    let new = Primary::builder;
    for end in ENDS {
        serves(&format!("unresponsive_after {end:?}"), new().unresponsive_after(end), true);
        serves(&format!("disconnect_within {end:?}"), new().disconnect_within(end), true);
        serves(&format!("terminate_within {end:?}"), new().terminate_within(end), true);
        serves(&format!("sigterm_after {end:?}"), new().sigterm_after(end), true);
        serves(&format!("listens_after {end:?}"), new().listens_after(end), true);
        serves(&format!("ready_within {end:?}"), new().ready_within(end), true);
        serves(&format!("restart_reset {end:?}"), new().restart_reset(end), true);
        for count in [0, u32::MAX] {
            let name = format!("restart_burst {count} {end:?}");
            serves(&name, new().restart_burst(count, end), true);
        }
        for max in ENDS {
            let builder = new().restart_burst(0, Duration::ZERO).restart_delay(end, max);
            let is_replaced = end.min(max).is_zero();
            serves(&format!("restart_delay {end:?} {max:?}"), builder, is_replaced);
        }
    }
    for policy in [Policy::Sticky, Policy::LeastLoaded, Policy::Shared, Policy::ReusePort] {
        for end in ENDS {
            let name = format!("{policy:?}, unresponsive_after {end:?}");
            serves(&name, new().policy(policy).unresponsive_after(end), true);
        }
    }
}

/// Each number of the builder is refused at the ends that no cluster can have.
#[apply(case)]
fn every_number_of_the_builder_is_refused_at_its_ends() {
    let new = || Primary::builder().workers(1);
    let stdio = |number| new().worker(WorkerOptions::new().stdio(number, WorkerStdio::Null));
    for (option, builder) in [
        ("workers", new().workers(0)),
        ("workers", new().workers(u32::MAX)),
        ("window", new().window(0)),
        ("window", new().window(u32::MAX)),
        ("stdio", stdio(i32::MIN)),
        ("stdio", stdio(i32::MAX)),
    ] {
        match builder.build() {
            Err(Error::InvalidOption { option: refused, .. }) => assert_eq!(refused, option),
            other => panic!("{option}: {other:?}"),
        }
    }
    let primary = new().build().expect("build");
    let scaled = primary.scale(u32::MAX);
    assert!(matches!(scaled, Err(Error::InvalidOption { option: "workers", .. })), "{scaled:?}");
    serves("window 1", new().window(1), true);
}

/// Each option of a listener, and the worker's own, at its ends.
#[apply(case)]
fn every_option_of_a_listener_is_taken_or_refused_at_its_ends() {
    let refused = ["max_connections 0", "data over"];
    let taken = [
        "backlog 0",
        "backlog max",
        "max_connections max",
        "data none",
        "data most",
        "orphan_drain 0",
        "orphan_drain max",
    ];
    for policy in [Policy::RoundRobin, Policy::Shared, Policy::ReusePort] {
        for option in refused.into_iter().chain(taken) {
            println!("{policy:?} {option}");
            let builder = Primary::builder().workers(1).policy(policy).listens(false);
            let pool = Pool::of(builder, &["serve_with", option]);
            if refused.contains(&option) {
                assert_eq!(pool.said::<String>().1, "ERR_INVALID_ARG_VALUE", "{option}");
            } else {
                ask(pool.listening_tcp().1);
            }
            pool.end();
        }
    }
}
