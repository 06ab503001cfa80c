//! Workers that break the protocol: each is ended and replaced, and nobody else notices.

use std::net::TcpListener;

use child_process::{ExitStatus, Signal};
use cluster::{Address, Error, Event, ListenOptions, Primary, Worker, WorkerOptions};

use crate::harness::{apply, case, role};
use crate::support::hostile_worker::{self as hostile, ToPrimary, header, tcp};
use crate::support::http::{self, Outcome};
use crate::support::pool::Pool;
use crate::support::{WAIT_MAX, eventually, wait};

/// The breaches, each with the event that reports it.
const BREACHES: [(&str, &str); 12] = [
    ("flags", "frame with unknown flags 0x01"),
    ("kind", "frame of unknown kind 99"),
    ("length", "frame of 4294967295 bytes, over the limit of 67108864"),
    ("unknown", "internal message of an unknown form"),
    ("path", "path of 4097 bytes, over the limit of 4096"),
    ("name", "abstract name of 108 bytes, over the limit of 107"),
    ("data", "data of 65537 bytes, over the limit of 65536"),
    ("connections", "listen request with a limit of 0 connections"),
    ("online", "message `online` out of turn"),
    ("listening", "message `listening` for listener 1, which the worker has not"),
    ("close", "message `close` for listener 1, which the worker has not"),
    ("room", "message `has room` for listener 18446744073709551615, which the worker has not"),
];

/// `breaks_rule BREACH`: breaks one rule of the protocol, and stays.
#[apply(role)]
fn breaks_rule(args: &[String]) {
    let mut primary = hostile::Primary::take();
    primary.read();
    primary.say(&ToPrimary::Online);
    let options = hostile::ListenOptions { backlog: 1, ..Default::default() };
    let name = |bytes| hostile::Address::UnixAbstract(vec![b'n'; bytes]);
    match args[0].as_str() {
        "flags" => primary.write(&[2, 3, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0], &[]),
        "kind" => primary.write(&header(99, 0, 0), &[]),
        "length" => primary.write(&header(3, 0, u32::MAX), &[]),
        "unknown" => primary.say(&ToPrimary::Unknown { number: 7 }),
        "path" => {
            let address = hostile::Address::UnixPath(vec![b'/'; 4097]);
            primary.say(&ToPrimary::ListensAlone { address });
        }
        "name" => primary.request(name(108), options),
        "data" => {
            let data = Some(vec![0; (64 << 10) + 1]);
            primary.request(tcp(0), hostile::ListenOptions { data, ..options });
        }
        "connections" => {
            let max_connections = Some(0);
            primary.request(tcp(0), hostile::ListenOptions { max_connections, ..options });
        }
        "online" => primary.say(&ToPrimary::Online),
        // The listener of the other worker.
        "listening" => primary.say(&ToPrimary::Listening { key: 1 }),
        "close" => {
            primary.request(tcp(0), options);
            let grant = primary.answer().expect("an answer").expect("a port");
            primary.say(&ToPrimary::Close { key: grant.key });
            primary.say(&ToPrimary::Close { key: grant.key });
        }
        "room" => primary.say(&ToPrimary::HasRoom { key: u64::MAX }),
        other => panic!("{other}"),
    }
    // The primary ends the process.
    wait(WAIT_MAX);
}

/// Each breach ends its worker by `SIGKILL`, is reported and counted once, and the worker is
/// replaced; the other worker serves on.
#[apply(case)]
fn a_worker_that_breaks_the_protocol_is_ended_and_replaced() {
    for (number, (breach, expected)) in BREACHES.into_iter().enumerate() {
        let builder = Primary::builder().workers(1);
        let pool = Pool::of(builder, &["cluster_worker", "127.0.0.1:0", "0"]);
        let address = pool.ready_tcp();
        let forked = pool.primary.fork(WorkerOptions::new().args(["role", "breaks_rule", breach]));
        let id = forked.expect("fork").id();
        let of = |event: &Event| matches!(event, Event::Violation { .. });
        let Event::Violation { worker, violation } = pool.next("violation", of) else { return };
        assert_eq!((worker.id(), violation.to_string().as_str()), (id, expected), "{breach}");
        assert_eq!(pool.exit(id.get()), ExitStatus::Signal(Signal::KILL), "{breach}");
        let next = |event: &Event| matches!(event, Event::Fork { worker } if worker.id() > id);
        pool.next("replacement", next);
        assert!(pool.primary.counters().violations >= 1, "{number}");
        let asked = http::get(address);
        assert!(matches!(asked.outcome, Outcome::Answered { .. }), "{breach}: {asked:?}");
        pool.primary.shutdown();
        pool.primary.wait().expect("ended without a failure");
    }
}

/// `dies_in_a_frame`: exits with half a frame sent, as a worker that is killed does.
#[apply(role)]
fn dies_in_a_frame(_args: &[String]) {
    let primary = hostile::Primary::take();
    primary.say(&ToPrimary::Online);
    eventually("the message has left", || {
        (sys::socket::unsent_bytes(std::os::fd::AsFd::as_fd(&*primary.socket)).ok()? == 0)
            .then_some(())
    });
    primary.write(&header(2, 0, 1000), &[]);
    std::process::exit(3);
}

/// A worker that dies while it writes has broken nothing.
#[apply(case)]
fn half_a_frame_of_a_worker_that_dies_is_no_breach() {
    let pool = Pool::start(1, &["dies_in_a_frame"]);
    assert_eq!(pool.exit(1), ExitStatus::Code(3));
    assert_eq!(pool.primary.counters().violations, 0);
    assert!(!pool.events().any(|event| matches!(event, Event::Violation { .. })));
    pool.primary.shutdown();
    pool.primary.wait().expect("ended without a failure");
}

/// `asks_too_much`: makes the mistakes that a program can make, then reports the errors.
#[apply(role)]
fn asks_too_much(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let code = |result: Result<cluster::Listener<std::os::unix::net::UnixStream>, Error>| {
        result.map(drop).unwrap_err().code()
    };
    let options = ListenOptions::new();
    let exclusive = ListenOptions::new().exclusive(true);
    let codes = [
        code(options.listen_at(Address::UnixAbstract(vec![b'n'; 108]))),
        code(options.listen_unix("/".to_owned() + &"p".repeat(5000))),
        code(exclusive.listen_unix("/tmp/".to_owned() + &"../tmp/".repeat(700) + "unused")),
        code(options.listen_at(Address::Inherited("i".repeat(256)))),
        code(ListenOptions::new().data(vec![0; 1 << 20]).listen_unix("/tmp/unused")),
        code(ListenOptions::new().max_connections(0).listen_unix("/tmp/unused")),
    ];
    worker.send(&codes.map(str::to_owned)).expect("send");
    worker.draining().wait();
}

/// Mistakes of a worker's program are errors in the worker, and no breach.
#[apply(case)]
fn mistakes_of_a_workers_program_are_no_breach() {
    let pool = Pool::start(1, &["asks_too_much"]);
    let (_, codes): (u32, [String; 6]) = pool.said();
    let too_long = "ENAMETOOLONG";
    let invalid = "ERR_INVALID_ARG_VALUE";
    assert_eq!(codes, [too_long, too_long, too_long, too_long, invalid, invalid]);
    assert_eq!(pool.primary.counters().violations, 0);
    pool.end();
}

/// `fails_to_listen ADDRESS TIMES`: requests an address that is in use, again and again.
#[apply(role)]
fn fails_to_listen(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let times: usize = args[1].parse().expect("a number");
    for _ in 0..times {
        let error = cluster::listen(args[0].as_str()).expect_err("the address is in use");
        assert_eq!(error.code(), "EADDRINUSE");
    }
    worker.send(&()).expect("send");
    worker.draining().wait();
}

/// A worker that fails without end fills a bounded part of the queue of events, and the number of
/// the events that were left out is reported.
#[apply(case)]
fn events_that_a_worker_repeats_are_left_out_and_counted() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("bind");
    let address = taken.local_addr().expect("bound").to_string();
    let worker = WorkerOptions::new().args(["role", "fails_to_listen", &address, "1000"]);
    let builder = Primary::builder().workers(1).listens(false).worker(worker);
    let primary = builder.build().expect("build");
    let events = primary.take_events().expect("taken once");
    let (done, waited) = crossbeam_channel::bounded(1);
    primary.on_message(move |_, _| done.send(()).expect("the case waits"));
    primary.start();
    waited.recv_timeout(WAIT_MAX).expect("the worker has failed often enough");
    primary.shutdown();
    primary.wait().expect("ended without a failure");
    let (mut failures, mut left_out) = (0, 0);
    for event in events.try_iter() {
        if let Event::Error { error, .. } = event {
            match &*error {
                Error::Listen { .. } => failures += 1,
                Error::EventsLeftOut(count) => left_out += count,
                other => panic!("{other:?}"),
            }
        }
    }
    println!("{failures} failures, {left_out} left out");
    assert_eq!((failures, left_out), (64, 1000 - 64));
}
