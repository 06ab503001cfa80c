//! The first start and what follows: `ready` always answers, workers that never listen are workers
//! like others, and those that leave by themselves are replaced.

use std::time::{Duration, Instant};

use child_process::{ExitStatus, Signal};
use cluster::{Builder, Error, Event, Primary, Restart, Worker};

use crate::harness::{apply, case, role};
use crate::support::pool::Pool;

/// `exits_when_listening WAY`: listens and ends at once.
#[apply(role)]
fn exits_when_listening(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let Ok(_listener) = cluster::listen("127.0.0.1:0") else { return };
    match args[0].as_str() {
        "exit" => std::process::exit(0),
        "leave" => {
            worker.disconnect();
            worker.draining().wait();
        }
        _ => {}
    }
}

/// Workers that end as soon as they listen: `ready` answers, well or ill, within its time.
#[apply(case)]
fn ready_answers_whatever_the_workers_do() {
    let within = Duration::from_secs(5);
    for way in ["exit", "return", "leave"] {
        for workers in [1, 2, 2, 3] {
            let builder = Primary::builder().workers(workers).ready_within(within);
            let pool = Pool::of(builder, &["exits_when_listening", way]);
            let begun = Instant::now();
            let ready = pool.primary.ready();
            println!("{way} x {workers}: {ready:?} after {:?}", begun.elapsed());
            match ready {
                // By chance all listened for a moment.
                Ok(()) => {}
                Err(Error::EndedBeforeReady { listened, .. }) => assert!(listened),
                Err(other) => panic!("{other:?}"),
            }
            assert!(begun.elapsed() < within + Duration::from_secs(20), "{:?}", begun.elapsed());
            drop(pool);
        }
    }
}

/// `works_quietly`: a job consumer, which listens on nothing.
#[apply(role)]
fn works_quietly(_: &[String]) {
    Worker::current().expect("started by a primary").draining().wait();
}

fn quiet(workers: u32) -> Builder {
    Primary::builder().workers(workers).listens_after(Duration::from_millis(300))
}

/// Workers that listen on nothing need no option: the start is over after some time, a death is
/// replaced, and a reload succeeds.
#[apply(case)]
fn workers_that_never_listen_are_replaced_and_reloaded() {
    let pool = Pool::of(quiet(2), &["works_quietly"]);
    pool.primary.ready().expect("online for long enough");
    pool.worker(1).kill(Signal::KILL).expect("kill");
    assert_eq!(pool.exit(1), ExitStatus::Signal(Signal::KILL));
    pool.next(
        "worker 3",
        |event| matches!(event, Event::Online { worker } if worker.id().get() == 3),
    );
    pool.primary.reload().expect("reloaded");
    let ids: Vec<_> = pool.primary.workers().iter().map(|worker| worker.id().get()).collect();
    assert_eq!(ids, [4, 5]);
    pool.primary.shutdown();
    pool.primary.wait().expect("ended without a failure");
}

/// An operator kills a worker during the first start: it is replaced, and the others live.
#[apply(case)]
fn a_worker_that_is_killed_from_outside_does_not_fail_the_start() {
    let builder = Primary::builder().workers(2);
    let pool = Pool::of(builder, &["works_quietly"]);
    for id in [1, 2] {
        pool.next(
            "online",
            |event| matches!(event, Event::Online { worker } if worker.id().get() == id),
        );
    }
    pool.worker(1).kill(Signal::KILL).expect("kill");
    assert_eq!(pool.exit(1), ExitStatus::Signal(Signal::KILL));
    pool.next(
        "worker 3",
        |event| matches!(event, Event::Online { worker } if worker.id().get() == 3),
    );
    let ids: Vec<_> = pool.primary.workers().iter().map(|worker| worker.id().get()).collect();
    assert_eq!(ids, [2, 3]);
    pool.primary.shutdown();
    pool.primary.wait().expect("ended without a failure");
}

/// `leaves_on_request WAY`: listens, and leaves when it gets a message: it disconnects, or exits.
#[apply(role)]
fn leaves_on_request(args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let Ok(listener) = cluster::listen("127.0.0.1:0") else { return };
    let own = worker.clone();
    if args[0] == "disconnect" {
        worker.on_message(move |_| own.disconnect());
    } else {
        worker.on_message(move |_| own.exit());
    }
    listener.incoming().for_each(drop);
}

/// Workers that leave one by one are replaced one by one: the service does not end. The option
/// `restart` decides, as for every other end.
#[apply(case)]
fn workers_that_leave_by_themselves_are_replaced() {
    for way in ["disconnect", "exit"] {
        let pool = Pool::of(Primary::builder().workers(2), &["leaves_on_request", way]);
        pool.primary.ready().expect("ready");
        for id in 1..=4 {
            pool.worker(id).send(&()).expect("send");
            assert_eq!(pool.exit(id), ExitStatus::Code(0), "{way}");
            let next = id + 2;
            pool.next("the next worker", |event| {
                matches!(event, Event::Listening { worker, .. } if worker.id().get() == next)
            });
        }
        pool.end();
    }
    let builder = Primary::builder().workers(2).restart(Restart::OnCrash);
    let pool = Pool::of(builder, &["leaves_on_request", "disconnect"]);
    pool.primary.ready().expect("ready");
    for id in [1, 2] {
        pool.worker(id).send(&()).expect("send");
        assert_eq!(pool.exit(id), ExitStatus::Code(0));
    }
    pool.primary.wait().expect("all have done their work");
}
