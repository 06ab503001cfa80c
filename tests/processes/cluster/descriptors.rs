//! Workers without a free descriptor: no client is lost, whatever has used the descriptors up.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Listener, Policy, Primary, Restart, Worker};
use sys::rlimit;

use crate::harness::{apply, case, role, storm};
use crate::support::pool::{Pool, each_connection_was_given_to_a_worker};
use crate::support::{OrLeave, WAIT_MAX, eventually, storm_time, wait};

const POLICIES: [Policy; 5] =
    [Policy::RoundRobin, Policy::Shared, Policy::LeastLoaded, Policy::Sticky, Policy::ReusePort];

/// Opens files until no descriptor is left.
fn use_up() -> Vec<File> {
    std::iter::from_fn(|| File::open("/dev/null").ok()).collect()
}

/// Connects, and reads the answer to the end: the number of a worker.
fn ask(address: SocketAddr) -> Result<u32, String> {
    let text = || {
        let mut stream = TcpStream::connect_timeout(&address, WAIT_MAX)?;
        stream.set_read_timeout(Some(WAIT_MAX))?;
        let mut text = String::new();
        stream.read_to_string(&mut text).map(|_| text)
    };
    let text = text().map_err(|error| format!("{error}"))?;
    text.parse().map_err(|_| format!("an answer of {} bytes", text.len()))
}

/// Answers each client with the number of the worker.
fn answer(listener: &Listener, id: u32) {
    for accepted in listener.incoming() {
        match accepted {
            Ok((mut stream, _peer)) => write!(stream, "{id}").expect("the client waits"),
            Err(error) => {
                assert_eq!(error.code(), "EMFILE", "{error}");
                wait(Duration::from_millis(1));
            }
        }
    }
}

/// `answer_without_descriptors`: of the workers, every fifth has files in all of its descriptors.
#[apply(role)]
fn answer_without_descriptors(_args: &[String]) {
    let id = Worker::current().expect("started by a primary").id().get();
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let mut files = Vec::new();
    if id % 5 == 1 {
        rlimit::set_descriptors(64).expect("lower");
        files = use_up();
    }
    answer(&listener, id);
    drop(files);
}

/// A worker whose descriptors are used up by files says `EMFILE`, and its clients go to the others.
#[apply(case)]
fn clients_of_a_worker_whose_descriptors_are_files_go_to_others() {
    for policy in POLICIES {
        let pool =
            Pool::of(Primary::builder().workers(2).policy(policy), &["answer_without_descriptors"]);
        let address = pool.ready_tcp();
        for _ in 0..40 {
            assert_eq!(ask(address), Ok(2), "{policy:?}");
        }
        println!("{policy:?}: {:?}", pool.primary.counters());
        pool.primary.shutdown();
        pool.primary.wait().expect("ended without a failure");
        each_connection_was_given_to_a_worker(&pool.primary);
    }
}

/// `answer_with_lowered_limit`: worker 1 may open no descriptor for half a second after its third
/// client.
#[apply(role)]
fn answer_with_lowered_limit(_args: &[String]) {
    let id = Worker::current().expect("started by a primary").id().get();
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let (soft, _) = rlimit::descriptors().expect("a limit");
    thread::scope(|scope| {
        if id == 1 {
            for _ in 0..3 {
                let (mut stream, _peer) = listener.accept().expect("accept");
                write!(stream, "{id}").expect("the client waits");
            }
            rlimit::set_descriptors(3).expect("lower");
            scope.spawn(move || {
                wait(Duration::from_millis(500));
                rlimit::set_descriptors(soft).expect("raise");
            });
        }
        answer(&listener, id);
    });
}

/// A limit that is lowered after a worker has begun to serve costs no client, and the worker serves
/// again when the limit is raised.
#[apply(case)]
fn a_limit_of_descriptors_that_is_lowered_later_costs_no_client() {
    for policy in POLICIES {
        let pool =
            Pool::of(Primary::builder().workers(2).policy(policy), &["answer_with_lowered_limit"]);
        let address = pool.ready_tcp();
        let mut answers = BTreeMap::new();
        let until = Instant::now() + Duration::from_millis(300);
        while Instant::now() < until {
            let id = ask(address).unwrap_or_else(|error| panic!("{policy:?}: {error}"));
            *answers.entry(id).or_insert(0) += 1;
        }
        println!("{policy:?}: {answers:?}");
        // The kernel or the client's address may choose the other worker all the time.
        if matches!(policy, Policy::RoundRobin | Policy::LeastLoaded | Policy::ReusePort) {
            assert_eq!(answers.get(&1), Some(&3), "{policy:?}");
            eventually("worker 1 serves again", || (ask(address) == Ok(1)).then_some(()));
        }
        pool.primary.shutdown();
        pool.primary.wait().expect("ended without a failure");
        each_connection_was_given_to_a_worker(&pool.primary);
    }
}

/// `answer_while_others_open_files`: as `answer_without_descriptors`; besides, two threads take and
/// give the last descriptors all the time, and two threads accept.
#[apply(role)]
fn answer_while_others_open_files(_args: &[String]) {
    let id = Worker::current().expect("started by a primary").id().get();
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        if id % 5 == 1 {
            rlimit::set_descriptors(64).expect("lower");
            let (files, ended) = (Mutex::new(use_up()), &ended);
            let files = std::sync::Arc::new(files);
            for _ in 0..2 {
                let files = files.clone();
                scope.spawn(move || {
                    while !ended.load(Ordering::Relaxed) {
                        let (file, other) = {
                            let mut files = files.lock().expect("lock");
                            (files.pop(), files.pop())
                        };
                        drop((file, other));
                        thread::yield_now();
                        files.lock().expect("lock").extend(use_up());
                    }
                });
            }
        }
        thread::scope(|scope| {
            scope.spawn(|| answer(&listener, id));
            answer(&listener, id);
        });
        ended.store(true, Ordering::Relaxed);
    });
}

/// One of five workers is out of descriptors nearly all the time, while the cluster is reloaded
/// again and again: no client is lost, and none hangs.
fn storm_over_workers_out_of_descriptors(policy: Policy) {
    let time = storm_time(3, 8);
    let pool =
        Pool::of(Primary::builder().workers(5).policy(policy), &["answer_while_others_open_files"]);
    let address = pool.ready_tcp();
    let (stop, asked) = (AtomicBool::new(false), Mutex::new((BTreeMap::new(), Vec::new())));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    let answer = ask(address);
                    let mut asked = asked.lock().expect("lock");
                    match answer {
                        Ok(id) => *asked.0.entry(id % 5).or_insert(0_u32) += 1,
                        Err(error) => asked.1.push(error),
                    }
                }
            });
        }
        let until = Instant::now() + time;
        while Instant::now() < until {
            wait(Duration::from_millis(300));
            pool.primary.reload().expect("reloaded");
            pool.events().for_each(drop);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let (answers, lost) = asked.into_inner().expect("lock");
    let counters = pool.primary.counters();
    println!("{policy:?}: {answers:?}, {} lost; {counters:?}", lost.len());
    assert_eq!(lost, Vec::<String>::new(), "{policy:?}");
    assert!(answers.values().sum::<u32>() > 200, "the storm was too weak to prove anything");
    pool.primary.shutdown();
    pool.primary.wait().expect("ended without a failure");
    each_connection_was_given_to_a_worker(&pool.primary);
}

#[apply(storm)]
fn a_storm_over_workers_out_of_descriptors_costs_no_client_under_round_robin() {
    storm_over_workers_out_of_descriptors(Policy::RoundRobin);
}

#[apply(storm)]
fn a_storm_over_workers_out_of_descriptors_costs_no_client_under_shared() {
    storm_over_workers_out_of_descriptors(Policy::Shared);
}

#[apply(storm)]
fn a_storm_over_workers_out_of_descriptors_costs_no_client_under_least_loaded() {
    storm_over_workers_out_of_descriptors(Policy::LeastLoaded);
}

#[apply(storm)]
fn a_storm_over_workers_out_of_descriptors_costs_no_client_under_sticky() {
    storm_over_workers_out_of_descriptors(Policy::Sticky);
}

#[apply(storm)]
fn a_storm_over_workers_out_of_descriptors_costs_no_client_under_reuse_port() {
    storm_over_workers_out_of_descriptors(Policy::ReusePort);
}

/// `say_limits`: sends its soft limit, the hard limit, and the soft limit of a child of its own.
#[apply(role)]
fn say_limits(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let (soft, hard) = rlimit::descriptors().expect("a limit");
    let child = child_process::Command::new("sh").args(["-c", "ulimit -Sn"]).output();
    let child: u64 = child.expect("a shell").stdout_text().trim().parse().expect("a number");
    worker.send(&(soft, hard, child)).expect("send");
}

/// The primary and its workers raise their soft limits, unless they are not to; their children get
/// the limit that the primary had.
#[apply(case)]
fn the_limit_of_descriptors_is_raised_for_primary_and_workers_but_not_for_their_children() {
    let (_, hard) = rlimit::descriptors().expect("a limit");
    let low = 128.min(hard);
    rlimit::set_descriptors(low).expect("lower");
    for (raises, soft) in [(false, low), (true, hard.min(1 << 20))] {
        let builder = Primary::builder().workers(1).listens(false).restart(Restart::Never);
        let pool = Pool::of(builder.raise_descriptors(raises), &["say_limits"]);
        assert_eq!(rlimit::descriptors().expect("a limit"), (soft, hard));
        assert_eq!(pool.said::<(u64, u64, u64)>().1, (soft, hard, low), "{raises}");
        pool.primary.wait().expect("ended");
    }
}
