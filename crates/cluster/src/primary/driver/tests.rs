//! Tests of the driver on the loop, with workers that are plain processes.
//!
//! An [`EventFilter`] stands between the loop and the driver. It can keep the ticks of the
//! supervisor from the driver, which would find by polling what an event or a further turn should
//! have reported.

use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use child_process::{ChildStdin, Command, Stdio};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, bounded, unbounded};
use reactor::Handle;

use super::*;
use crate::contract::{ExitKind, WorkerKind};
use crate::counters::Counters;
use crate::primary::Primary;
use crate::primary::primary_state::Readiness;
use crate::primary::spawner::Order;
use crate::primary::worker_process::Pipes;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::worker_options::WorkerOptions;

/// The longest wait for anything that must happen.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// The key of the only address.
const KEY: Key = 1;

/// The events that reach the driver.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Passing {
    WithoutTicks,
    TicksAlone,
    /// The next event ends the driver as a panic in it does.
    Panics,
}

/// The driver after one event.
#[derive(Debug)]
struct Snapshot {
    event: reactor::Event,
    counters: Counters,
    watched: Vec<WatchedFd>,
    has_unread_stderr: bool,
}

type Change = Box<dyn FnOnce(&mut Driver) + Send>;

/// A source that passes events to the driver, and takes a snapshot after each of them.
struct EventFilter {
    driver: Driver,
    passing: Arc<Mutex<Passing>>,
    changes: Receiver<Change>,
    snapshots: Sender<Snapshot>,
}

impl Source for EventFilter {
    fn event(&mut self, event: reactor::Event, turn: &mut Turn<'_>) {
        let passing = *self.passing.lock().unwrap_or_else(PoisonError::into_inner);
        let is_tick = event == reactor::Event::Deadline;
        match passing {
            Passing::WithoutTicks if is_tick => return,
            Passing::TicksAlone if !is_tick => return,
            Passing::WithoutTicks | Passing::TicksAlone => {}
            Passing::Panics => panic!("as a driver that panics"),
        }
        self.changes.try_iter().for_each(|change| change(&mut self.driver));
        self.driver.event(event, turn);
        let watched = self.driver.watched.values().copied().collect();
        let has_unread_stderr = self.driver.workers.has_unread_stderr();
        let counters = self.driver.supervisor.counters();
        let _ = self.snapshots.send(Snapshot { event, counters, watched, has_unread_stderr });
    }
}

/// A primary whose driver is behind a filter, and which starts no processes by itself.
struct FilteredPrimary {
    primary: Primary,
    shared: Arc<Shared>,
    handle: Handle,
    passing: Arc<Mutex<Passing>>,
    changes: Sender<Change>,
    snapshots: Receiver<Snapshot>,
    orders: Receiver<Order>,
    /// The workers end when these are closed.
    stdins: Vec<ChildStdin>,
}

impl FilteredPrimary {
    fn new(options: SupervisorOptions) -> Self {
        Self::with_jobs(options, |_| ())
    }

    /// Makes a primary whose driver finds what `jobs` sends at its first wake-up.
    fn with_jobs(options: SupervisorOptions, jobs: impl FnOnce(&Shared)) -> Self {
        let policy = options.policy;
        let readiness = Readiness { listens: true, within: options.ready };
        let (shared, received) = Shared::new(Settings::of_this_process(), readiness);
        let (spawner, orders) = Spawner::recording();
        let (signals, inherited) = (Signals::default(), InheritedSockets::default());
        let mut driver =
            Driver::new(options, signals, inherited, shared.clone(), received, spawner).unwrap();
        driver.stderr_writer = StderrWriter::discarding(shared.clone());
        let passing = Arc::new(Mutex::new(Passing::WithoutTicks));
        let (changes, changes_received) = unbounded();
        let (snapshots_sender, snapshots) = unbounded();
        let handle = reactor::reactor().unwrap().add(EventFilter {
            driver,
            passing: passing.clone(),
            changes: changes_received,
            snapshots: snapshots_sender,
        });
        jobs(&shared);
        shared.connect(handle.clone());
        let primary = Primary { shared: shared.clone(), workers: 1, policy };
        let stdins = Vec::new();
        Self { primary, shared, handle, passing, changes, snapshots, orders, stdins }
    }

    /// Makes a primary with workers that have been granted a queue and do not listen.
    fn granted(workers: u32, options: SupervisorOptions) -> Self {
        let mut primary = Self::new(options);
        primary.shared.request_workers(Job::Input(Input::Start(workers)));
        for _ in 0..workers {
            primary.start_worker(None);
        }
        primary
    }

    /// Answers the next order with a process.
    fn spawn_worker(&mut self, stderr: Option<OwnedFd>) -> WorkerId {
        let Order::Worker(order, _) = self.orders.recv_timeout(WAIT_MAX).unwrap() else {
            panic!("no worker is ordered");
        };
        let worker = order.worker;
        let mut child = Command::new("cat").stdin(Stdio::pipe()).spawn().unwrap();
        self.stdins.push(child.take_stdin().unwrap());
        let (child, kind) = (Arc::new(child), WorkerKind::Native);
        let spawned =
            Spawned { child, kind, stderr, exec: None, pipes: Pipes::default(), credentials: None };
        self.shared.send_job(Job::Spawned { worker, result: Ok(spawned) });
        worker
    }

    /// Starts the worker of the next order, up to the grant of its listener.
    fn start_worker(&mut self, stderr: Option<OwnedFd>) -> WorkerId {
        let worker = self.spawn_worker(stderr);
        let address = Address::from("127.0.0.1:0".parse::<std::net::SocketAddr>().unwrap());
        let options = ListenOptions::new();
        self.shared.input(Input::Online { worker });
        let facts = crate::listen_rules::ListenFacts::default();
        self.shared.input(Input::ListenRequested { worker, request: 1, address, options, facts });
        self.after_jobs();
        worker
    }

    /// Waits until the driver has done all jobs so far.
    fn after_jobs(&self) {
        let _ = self.primary.counters();
    }

    fn pass(&self, passing: Passing) {
        *self.passing.lock().unwrap() = passing;
    }

    /// Ends the driver as a panic in it does.
    fn panic(&self) {
        self.pass(Passing::Panics);
        self.handle.wake();
    }

    /// Changes the driver on the loop, and lets it handle its inputs in one event.
    fn change(&self, change: impl FnOnce(&mut Driver) + Send + 'static) {
        self.changes.send(Box::new(change)).unwrap();
        self.handle.wake();
    }

    fn inputs(&self, inputs: impl IntoIterator<Item = Input<Connection>>) {
        let inputs: Vec<_> = inputs.into_iter().collect();
        self.change(|driver| driver.inputs.extend(inputs));
    }

    fn connect(&self) -> TcpStream {
        match self.primary.address() {
            Some(Address::Tcp { address, .. }) => TcpStream::connect(address).unwrap(),
            address => panic!("{address:?}"),
        }
    }

    /// Waits until the driver has reached this state. Wakes it for nothing.
    fn until(&self, what: &str, mut reached: impl FnMut(&Snapshot) -> bool) -> Vec<Snapshot> {
        let mut seen: Vec<Snapshot> = Vec::new();
        while !seen.last().is_some_and(&mut reached) {
            match self.snapshots.recv_timeout(WAIT_MAX) {
                Ok(snapshot) => seen.push(snapshot),
                Err(error) => panic!("{error} until {what}: {:?}", seen.last()),
            }
        }
        seen
    }

    /// Fills the queue of a worker with packets that are no records.
    fn fill_queue(&self, worker: WorkerId) {
        self.change(move |driver| {
            let queue = driver.workers.queue(worker, KEY).unwrap();
            while send_packet(queue.write_end()) {}
        });
    }

    /// Reads the queue of a worker, as the worker does.
    fn read_queue(&self, worker: WorkerId) {
        self.change(move |driver| drop(driver.workers.reclaim(worker, KEY)));
    }
}

/// Sends a packet that is no record. Returns whether there was room.
fn send_packet(socket: BorrowedFd<'_>) -> bool {
    sys::scm::send(socket, &[std::io::IoSlice::new(b"no record")], &[]).is_ok()
}

fn listening(worker: u32) -> Input<Connection> {
    Input::Listening { worker: WorkerId(worker), key: KEY }
}

fn ended(worker: WorkerId) -> [Input<Connection>; 2] {
    [Input::ChannelClosed { worker }, Input::Exited { worker, exit: ExitKind::Code(0) }]
}

fn watches_queue(snapshot: &Snapshot) -> bool {
    snapshot.watched.iter().any(|it| matches!(it, WatchedFd::Queue(_, KEY)))
}

#[test]
fn jobs_beyond_those_of_one_turn_are_done_without_another_wake_up() {
    let (reply, replied) = unbounded();
    let jobs = 2 * JOBS_PER_TURN + 1;
    let primary = FilteredPrimary::with_jobs(SupervisorOptions::default(), |shared| {
        (0..jobs).for_each(|_| shared.send_job(Job::Count(reply.clone())));
    });
    for job in 1..=jobs {
        assert!(replied.recv_timeout(WAIT_MAX).is_ok(), "job {job} of {jobs}");
    }
    let events: Vec<_> = primary.snapshots.try_iter().map(|it| it.event).collect();
    assert_eq!(events.iter().filter(|it| **it == reactor::Event::Wake).count(), 1, "{events:?}");
}

#[test]
fn clients_beyond_those_of_one_turn_are_accepted_without_another_wake_up() {
    let clients = 3 * reactor::ACCEPTS_PER_TURN + 8;
    let _ = sys::rlimit::raise_descriptors(4096);
    // Together the queues have room for all.
    let primary = FilteredPrimary::granted(4, SupervisorOptions::default());
    let _clients: Vec<_> = (0..clients).map(|_| primary.connect()).collect();
    // In one event, because each wake-up accepts once more.
    primary.inputs((1..=4).map(listening));
    let all = u64::try_from(clients).unwrap();
    primary.until("all are dispatched", |it| it.counters.dispatched == all);
}

#[test]
fn room_in_a_full_queue_is_an_event_and_later_reads_are_none() {
    let primary = FilteredPrimary::granted(1, SupervisorOptions::default());
    primary.inputs([listening(1)]);
    primary.fill_queue(WorkerId(1));
    let _client = primary.connect();
    primary.until("the queue is watched", |it| it.counters.waiting == 1 && watches_queue(it));
    primary.read_queue(WorkerId(1));
    let room = |it: &Snapshot| it.counters.dispatched == 1 && !watches_queue(it);
    let seen = primary.until("there is room", room);
    let by_queue = |it: &&Snapshot| {
        matches!(it.event, reactor::Event::Ready { writable: true, readable: false, .. })
    };
    assert_eq!(seen.iter().filter(by_queue).count(), 1, "{seen:?}");
    primary.read_queue(WorkerId(1));
    primary.after_jobs();
    let _second = primary.connect();
    let seen = primary.until("the second is dispatched", |it| it.counters.dispatched == 2);
    assert_eq!(seen.iter().filter(by_queue).count(), 0, "{seen:?}");
}

#[test]
fn a_queue_that_is_dropped_while_it_is_full_is_not_watched_any_more() {
    let primary = FilteredPrimary::granted(1, SupervisorOptions::default());
    primary.inputs([listening(1)]);
    primary.fill_queue(WorkerId(1));
    let _client = primary.connect();
    primary.until("the queue is watched", watches_queue);
    primary.inputs(ended(WorkerId(1)));
    // The worker has no queue any more, and the client waits for the next one.
    let seen = primary.until("the worker is over", |it| it.event == reactor::Event::Wake);
    assert!(!watches_queue(seen.last().unwrap()), "{seen:?}");
    assert_eq!(seen.last().unwrap().counters.waiting, 1);
    // The driver goes on.
    assert!(primary.orders.recv_timeout(WAIT_MAX).is_ok());
    assert_eq!(primary.primary.counters().waiting, 1);
}

#[test]
fn nothing_of_a_worker_that_is_over_is_watched() {
    let mut primary = FilteredPrimary::new(SupervisorOptions::default());
    primary.shared.request_workers(Job::Input(Input::Start(1)));
    // Its children may hold the standard error open for longer than it lives.
    let (stderr, _held) = UnixStream::pair().unwrap();
    let worker = primary.start_worker(Some(stderr.into()));
    let of_worker = |it: &Snapshot| it.watched.iter().any(|it| it.worker() == Some(worker));
    primary.until("standard error is watched", of_worker);
    primary.inputs([listening(worker.0)].into_iter().chain(ended(worker)));
    primary.until("nothing of the worker is watched", |it| !of_worker(it));
    // The replacement is ordered, so the driver goes on.
    assert_eq!(primary.start_worker(None), WorkerId(worker.0 + 1));
}

#[test]
fn standard_error_beyond_that_of_one_turn_is_read_without_another_wake_up() {
    let mut primary = FilteredPrimary::new(SupervisorOptions::default());
    primary.shared.request_workers(Job::Input(Input::Start(1)));
    // A read returns one packet, so a few bytes are many reads.
    let (stderr, worker_end) = sys::socket::pair_seqpacket().unwrap();
    let written = (0..).take_while(|_| send_packet(worker_end.as_fd())).count();
    assert!(written > 150, "{written} packets");
    primary.spawn_worker(Some(stderr));
    let unread = || sys::socket::unsent_bytes(worker_end.as_fd()).unwrap();
    primary.until("all is read", |it| !it.has_unread_stderr && unread() == 0);
}

#[test]
fn a_message_that_is_there_at_a_deadline_counts_before_the_deadline() {
    let options = SupervisorOptions { ready: Duration::from_secs(2), ..Default::default() };
    let mut primary = FilteredPrimary::granted(1, options);
    primary.inputs([listening(1)]);
    let (reply, reloaded) = bounded(1);
    primary.shared.send_job(Job::Reload(reply));
    assert_eq!(primary.start_worker(None), WorkerId(2));
    primary.snapshots.try_iter().for_each(drop);
    // The loop delivers the deadline of the successor before the wake-up of its last message.
    primary.pass(Passing::TicksAlone);
    primary.shared.input(listening(2));
    primary.until("the deadline", |it| it.event == reactor::Event::Deadline);
    primary.pass(Passing::WithoutTicks);
    primary.inputs(ended(WorkerId(1)));
    let result = reloaded.recv_timeout(WAIT_MAX).unwrap();
    assert!(result.is_ok(), "{result:?}");
}

#[test]
fn callers_that_wait_for_workers_return_when_the_driver_panics() {
    let primary = FilteredPrimary::new(SupervisorOptions::default());
    let events = primary.primary.take_events().unwrap();
    primary.shared.request_workers(Job::Input(Input::Start(1)));
    // No order is answered, so nothing of this ends by itself.
    let (reload, reloaded) = bounded(1);
    primary.shared.send_job(Job::Reload(reload));
    let (fork, forked) = bounded(1);
    primary.shared.request_workers(Job::Fork(Arc::default(), fork));
    primary.after_jobs();
    assert!(reloaded.is_empty() && forked.is_empty());
    thread::scope(|scope| {
        let ready = scope.spawn(|| primary.primary.ready());
        let over = scope.spawn(|| primary.primary.wait());
        primary.panic();
        let results = [ready.join().unwrap(), over.join().unwrap()];
        // The first of them takes the error.
        let panicked = |it: &&Result<(), Error>| matches!(it, Err(Error::Os("run the cluster", _)));
        assert_eq!(results.iter().filter(panicked).count(), 1, "{results:?}");
    });
    assert_eq!(reloaded.recv_timeout(WAIT_MAX).unwrap_err(), RecvTimeoutError::Disconnected);
    assert_eq!(forked.recv_timeout(WAIT_MAX).unwrap_err(), RecvTimeoutError::Disconnected);
    while events.recv_timeout(WAIT_MAX).is_ok() {}
    assert_eq!(events.try_recv().unwrap_err(), TryRecvError::Disconnected);
    assert!(matches!(primary.primary.fork(WorkerOptions::new()), Err(Error::NotRunning)));
    assert!(primary.primary.workers().is_empty());
}

#[test]
fn callers_that_wait_for_the_end_of_all_workers_are_called_when_the_driver_panics() {
    let primary = FilteredPrimary::new(SupervisorOptions::default());
    let (gone, all_gone) = unbounded();
    let disconnect = |name| {
        let gone = gone.clone();
        primary.primary.disconnect(move || gone.send(name).unwrap());
    };
    primary.shared.request_workers(Job::Input(Input::Start(1)));
    disconnect("taken by the driver");
    primary.after_jobs();
    // The driver does not see the next request any more.
    primary.pass(Passing::Panics);
    disconnect("in the queue");
    let mut called = [(); 2].map(|()| all_gone.recv_timeout(WAIT_MAX).expect("both"));
    called.sort_unstable();
    assert_eq!(called, ["in the queue", "taken by the driver"]);
    disconnect("after the end");
    assert_eq!(all_gone.recv_timeout(WAIT_MAX), Ok("after the end"));
}
