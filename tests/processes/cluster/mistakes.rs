//! Usual mistakes: each ends with an error that says what is missing, and none of them hangs.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use child_process::ExitStatus;
use cluster::{
    Address, Builder, Error, Event, NotReady, Primary, Restart, Worker, WorkerOptions, WorkerState,
};

use crate::harness::{apply, case, role};
use crate::support::OrLeave;
use crate::support::pool::Pool;

/// Long enough for a worker to come as far as it will.
const WITHIN: Duration = Duration::from_secs(3);

fn soon() -> Builder {
    Primary::builder().workers(1).ready_within(WITHIN)
}

/// As [`soon`], for programs that a signal has to end.
fn soon_by_signal() -> Builder {
    soon().disconnect_within(Duration::from_millis(50))
}

/// Returns the workers that the primary waited for in vain.
#[track_caller]
fn not_ready(pool: &Pool) -> NotReady {
    match pool.primary.ready() {
        Err(Error::NotReady(not_ready)) => {
            println!("{not_ready}");
            *not_ready
        }
        other => panic!("{other:?}"),
    }
}

/// The states of the workers that were not ready.
fn states(not_ready: &NotReady) -> Vec<WorkerState> {
    not_ready.workers.iter().map(|worker| worker.state).collect()
}

/// `never_listens`: is online until it is disconnected.
#[apply(role)]
fn never_listens(_args: &[String]) {
    Worker::current().expect("started by a primary").draining().wait();
}

/// A worker that never listens is named, and the start ends without a worker left behind.
#[apply(case)]
fn a_worker_that_never_listens_is_named_when_the_time_has_passed() {
    let pool = Pool::of(soon().workers(2), &["never_listens"]);
    let error = not_ready(&pool);
    assert_eq!(states(&error), [WorkerState::Online; 2]);
    assert_eq!((error.within, error.ended), (WITHIN, 0));
    assert!(error.workers.iter().all(|worker| worker.exec.is_none()));
    assert!(pool.primary.workers().is_empty());
    pool.end();
}

/// `listens_when_asked`: listens after the first message.
#[apply(role)]
fn listens_when_asked(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    worker.take_messages().expect("taken once").recv().expect("asked");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    listener.incoming().for_each(drop);
}

/// A worker that joins others may take its time: all keep running, and `ready` is called again.
#[apply(case)]
fn a_worker_that_joins_others_may_be_waited_for_again() {
    let pool = Pool::of(soon(), &["listens_when_asked"]);
    pool.next("online", |event| matches!(event, Event::Online { .. }));
    pool.worker(1).send(&()).expect("send");
    pool.primary.ready().expect("listens");
    pool.primary.scale(2).expect("scale");
    assert_eq!(states(&not_ready(&pool)), [WorkerState::Online]);
    assert_eq!(pool.primary.workers().len(), 2);
    pool.worker(2).send(&()).expect("send");
    pool.primary.ready().expect("listens by now");
    pool.end();
}

/// `binds_by_std ADDRESS`: a server that knows nothing of its primary.
#[apply(role)]
fn binds_by_std(args: &[String]) {
    let listener = TcpListener::bind(args[0].as_str()).expect("bind");
    drop(listener.accept());
}

/// A server that binds its port itself and has no branch for workers is named.
#[apply(case)]
fn a_program_without_a_branch_for_workers_is_named() {
    let pool = Pool::of(soon_by_signal(), &["binds_by_std", "127.0.0.1:0"]);
    let error = not_ready(&pool);
    assert_eq!(states(&error), [WorkerState::Started]);
    assert!(error.to_string().contains("`Worker::current`"), "{error}");
    assert!(pool.primary.workers().is_empty(), "ended by a signal");
}

/// A program that is no worker at all is named by its path.
#[apply(case)]
fn a_foreign_program_is_named() {
    let options = WorkerOptions::new().exec("/bin/sh").args(["-c", "exec sleep 60"]);
    let primary = soon_by_signal().worker(options).build().expect("build");
    primary.start();
    let Err(Error::NotReady(error)) = primary.ready() else { panic!("it is no worker") };
    assert_eq!(states(&error), [WorkerState::Started]);
    assert_eq!(error.workers[0].exec.as_deref(), Some("/bin/sh".as_ref()));
    assert!(primary.workers().is_empty(), "ended by a signal");
}

/// `listens_and_exits`: worker 1 never listens, every other worker listens and exits at once.
#[apply(role)]
fn listens_and_exits(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    if worker.id().get() == 1 {
        return worker.draining().wait();
    }
    let _listener = cluster::listen("127.0.0.1:0").or_leave();
}

/// A worker that listens and exits with 0 before all are ready fails the start.
#[apply(case)]
fn a_worker_that_listens_and_exits_before_all_are_ready_fails_the_start() {
    let pool = Pool::of(soon().workers(2), &["listens_and_exits"]);
    let error = pool.primary.ready().expect_err("ended");
    let said = error.to_string();
    assert!(said.starts_with("worker 2 ended with code 0 before all workers were ready"), "{said}");
    let Error::EndedBeforeReady { worker, status, online, listened, .. } = error else {
        panic!("{error:?}");
    };
    assert_eq!((worker.get(), status, online, listened), (2, ExitStatus::Code(0), true, true));
    assert!(pool.primary.workers().is_empty(), "no worker is left");
}

/// `listens_when_first`: worker 1 listens, every other worker listens as well and exits at once.
#[apply(role)]
fn listens_when_first(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    if worker.id().get() == 1 {
        listener.incoming().for_each(drop);
    }
}

/// Workers that join others, listen and exit are replaced, and do not make `ready` hang: it answers
/// in time, though by chance all may have listened for a moment.
#[apply(case)]
fn workers_that_join_others_listen_and_exit_do_not_make_ready_hang() {
    let pool = Pool::of(soon(), &["listens_when_first"]);
    pool.primary.ready().expect("worker 1 listens");
    pool.primary.scale(3).expect("scale");
    match pool.primary.ready() {
        Ok(()) => {}
        Err(Error::NotReady(error)) => {
            assert!(error.ended > 1, "{error}");
            let (last, status) = error.last_ended.expect("some have ended");
            assert_eq!((status, last.get() > 1), (ExitStatus::Code(0), true), "{error}");
        }
        Err(other) => panic!("{other:?}"),
    }
    assert!(pool.primary.workers().iter().any(|worker| worker.id().get() == 1), "worker 1 serves");
    pool.end();
}

/// A start that takes too long ends without the time that workers have to finish.
#[apply(case)]
fn a_start_that_takes_too_long_ends_at_once() {
    let builder = soon().workers(2).ready_within(Duration::from_millis(500));
    let builder = builder.disconnect_within(Duration::from_secs(60));
    let pool = Pool::of(builder, &["binds_by_std", "127.0.0.1:0"]);
    let begun = std::time::Instant::now();
    not_ready(&pool);
    // Long before the workers would have to finish.
    assert!(begun.elapsed() < Duration::from_secs(20), "{:?}", begun.elapsed());
    assert!(pool.primary.workers().is_empty(), "ended by a signal");
}

/// `ready` without a start ends with an error that names the missing call.
#[apply(case)]
fn a_forgotten_start_is_named() {
    let builder = Primary::builder().ready_within(Duration::from_millis(20));
    let pool = Pool::still(builder, &["never_listens"]);
    let error = not_ready(&pool);
    assert!(error.workers.is_empty() && error.to_string().contains("`start`"), "{error}");
}

/// `exits_at_once CODE`: ends without a word.
#[apply(role)]
fn exits_at_once(args: &[String]) {
    std::process::exit(args[0].parse().expect("a code"));
}

/// `builds_a_primary`: a program whose `main` has no branch for workers.
#[apply(role)]
fn builds_a_primary(_args: &[String]) {
    let error = Primary::builder().build().expect_err("it is a worker");
    assert!(matches!(error, Error::IsWorker), "{error:?}");
    std::process::exit(1);
}

/// A worker that exits before it is ready fails the start, and the error says how far it came.
#[apply(case)]
fn a_worker_that_exits_at_once_fails_the_start() {
    for (role, code, came_online) in
        [(&["exits_at_once", "0"][..], 0, false), (&["builds_a_primary"][..], 1, true)]
    {
        let pool = Pool::of(soon(), role);
        let error = pool.primary.ready().expect_err("ended");
        println!("{error:?}");
        let Error::EndedBeforeReady { status, online, .. } = error else { panic!("{error:?}") };
        assert_eq!((status, online), (ExitStatus::Code(code), came_online), "{role:?}");
    }
}

/// A program that does not exist is named by the error of the start, and by the event.
#[apply(case)]
fn a_wrong_path_is_named() {
    let options = WorkerOptions::new().exec("/nonexistent/server");
    let primary = soon().worker(options).build().expect("build");
    let events = primary.take_events().expect("taken once");
    primary.start();
    let error = primary.ready().expect_err("no such program");
    assert!(matches!(error, Error::Fork(_)), "{error:?}");
    assert_eq!(error.code(), "ENOENT");
    let named = |line: String| assert!(line.contains("/nonexistent/server"), "{line}");
    named(format!("{error:?}"));
    let reported = events.iter().find(|event| matches!(event, Event::Error { .. }));
    named(reported.expect("an error").to_string());
}

/// `listens_at ADDRESS`: listens until the worker is disconnected.
#[apply(role)]
fn listens_at(args: &[String]) {
    Worker::current().expect("started by a primary");
    match cluster::listen(args[0].as_str()) {
        Ok(listener) => listener.incoming().for_each(drop),
        Err(_) => std::process::exit(1),
    }
}

#[track_caller]
fn assert_in_use(primary: &Primary, at: SocketAddr) {
    match primary.ready() {
        Err(Error::Listen { address: Address::Tcp { address, .. }, source }) => {
            assert_eq!((address, source.kind()), (at, std::io::ErrorKind::AddrInUse));
        }
        other => panic!("{other:?}"),
    }
}

/// A second primary cannot have the address of the first, and the first goes on.
#[apply(case)]
fn a_second_primary_at_the_same_address_is_refused() {
    let one = Pool::of(soon(), &["listens_at", "127.0.0.1:0"]);
    let address = one.ready_tcp();
    let other = Pool::of(soon(), &["listens_at", &address.to_string()]);
    assert_in_use(&other.primary, address);
    std::net::TcpStream::connect(address).expect("the first serves");
    one.end();
}

/// A primary that listens itself has the address, and its workers are refused.
#[apply(case)]
fn a_primary_that_listens_itself_takes_the_address_from_its_workers() {
    let listener = cluster::listen("127.0.0.1:0").expect("listen");
    let Address::Tcp { address, .. } = *listener.address() else { panic!("no TCP") };
    let pool = Pool::of(soon(), &["listens_at", &address.to_string()]);
    assert_in_use(&pool.primary, address);
}

/// `listens_after_the_primary`: listens when its primary is gone; exits with 7 if that is refused
/// because the listener is closed.
#[apply(role)]
fn listens_after_the_primary(_args: &[String]) {
    Worker::current().expect("started by a primary").draining().wait();
    let refused = cluster::listen("127.0.0.1:0").expect_err("the primary is gone");
    std::process::exit(if matches!(refused, Error::Closed) { 7 } else { 1 });
}

/// A primary that is dropped ends its workers, and the error of their listeners gives that reason.
#[apply(case)]
fn a_dropped_primary_closes_its_workers() {
    let options = WorkerOptions::new().args(["role", "listens_after_the_primary"]);
    let builder = Primary::builder().workers(1).listens(false).restart(Restart::Never);
    let primary = builder.worker(options).build().expect("build");
    let events = primary.take_events().expect("taken once");
    primary.start();
    primary.ready().expect("online");
    drop(primary);
    let exit = events.iter().find_map(|event| match event {
        Event::Exit { status, .. } => Some(status),
        _ => None,
    });
    assert_eq!(exit, Some(ExitStatus::Code(7)));
}
