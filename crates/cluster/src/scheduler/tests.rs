//! One schedule with queues made of vectors: rotation, windows, suspects, and waiting.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use super::*;
use crate::contract::{Answer, ClosedCounter};

const MS: Duration = Duration::from_millis(1);

/// A worker's count of its connections that have ended.
#[derive(Debug, Default)]
struct EndCount {
    ended: AtomicU64,
    awaited: AtomicBool,
}

impl EndCount {
    fn end(&self) -> bool {
        self.ended.fetch_add(1, Ordering::Relaxed);
        self.awaited.swap(false, Ordering::Relaxed)
    }
}

impl ClosedCounter for EndCount {
    fn ended(&self) -> u64 {
        self.ended.load(Ordering::Relaxed)
    }

    fn await_next(&self) {
        self.awaited.store(true, Ordering::Relaxed);
    }
}

/// A schedule and the kernel's side of its queues; workers read only when told to.
pub(super) struct Glass {
    pub(super) scheduler: Scheduler<u32>,
    pub(super) now: Instant,
    /// By worker: connections, and 0 for a probe.
    /// Of a Node worker: what it has not answered.
    queues: Vec<(WorkerId, VecDeque<u32>)>,
    pub(super) accepting: bool,
    closed: Vec<(u32, CloseReason)>,
    pub(super) unresponsive: Vec<WorkerId>,
    asks: usize,
    /// The kernel refuses connections for this reason.
    refusal: Option<Refusal>,
    /// The primary can read no queue.
    blind: bool,
}

impl Glass {
    pub(super) fn new(workers: u32, change: impl FnOnce(&mut SupervisorOptions)) -> Self {
        let mut options = SupervisorOptions::default();
        change(&mut options);
        let mut glass = Self {
            scheduler: Scheduler::new(1, &options),
            now: Instant::now(),
            queues: Vec::new(),
            accepting: false,
            closed: Vec::new(),
            unresponsive: Vec::new(),
            asks: 0,
            refusal: None,
            blind: false,
        };
        (1..=workers).for_each(|worker| glass.join(worker));
        glass
    }

    /// One that may have so many connections; gives its count of those that have ended.
    fn join_with_limit(&mut self, worker: WorkerId, max: u32) -> Arc<EndCount> {
        let closed_counter = Arc::new(EndCount::default());
        self.queues.push((worker, VecDeque::new()));
        self.scheduler.grant(worker, worker, WorkerKind::Native, Some(max));
        self.scheduler.set_closed_counter(worker, closed_counter.clone());
        assert!(self.scheduler.open_backend(worker));
        self.step(|scheduler, now, out| scheduler.dispatch(now, out));
        closed_counter
    }

    /// A connection ends in its worker, which says so if it is to.
    fn end_one(&mut self, closed_counter: &EndCount) -> bool {
        let told = closed_counter.end();
        if told {
            self.step(|scheduler, now, out| scheduler.dispatch(now, out));
        }
        told
    }

    fn join(&mut self, worker: WorkerId) {
        self.join_as(worker, WorkerKind::Native);
    }

    pub(super) fn join_as(&mut self, worker: WorkerId, kind: WorkerKind) {
        self.queues.push((worker, VecDeque::new()));
        self.scheduler.grant(worker, worker, kind, None);
        assert!(self.scheduler.open_backend(worker));
        self.step(|scheduler, now, out| scheduler.dispatch(now, out));
    }

    /// Steps, and performs what comes out until nothing does.
    pub(super) fn step(
        &mut self,
        step: impl FnOnce(&mut Scheduler<u32>, Instant, &mut Vec<Output<u32>>),
    ) {
        let mut out = Vec::new();
        step(&mut self.scheduler, self.now, &mut out);
        let mut todo = VecDeque::from(out);
        while let Some(output) = todo.pop_front() {
            let mut out = Vec::new();
            self.perform(output, &mut out);
            todo.extend(out);
        }
        let sum = self.scheduler.counters();
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
    }

    fn perform(&mut self, output: Output<u32>, out: &mut Vec<Output<u32>>) {
        let (scheduler, now) = (&mut self.scheduler, self.now);
        let queue_of = |worker| move |queue: &&mut (WorkerId, VecDeque<u32>)| queue.0 == worker;
        let mut queues = self.queues.iter_mut();
        match output {
            Output::Send { worker, connection, .. } => match self.refusal {
                Some(why) => scheduler.refused(worker, Some(connection), why, now, out),
                None => queues.find(queue_of(worker)).unwrap().1.push_back(connection),
            },
            Output::Probe { worker, .. } => {
                queues.find(queue_of(worker)).unwrap().1.push_back(0);
            }
            Output::PollDepth { worker, .. } => {
                self.asks += 1;
                let unread = queues.find(queue_of(worker)).unwrap().1.len() as u32;
                if scheduler.depth(worker, unread, now, out) == Verdict::Unresponsive {
                    self.unresponsive.push(worker);
                }
            }
            Output::Reclaim { worker, .. } => {
                let queue = &mut queues.find(queue_of(worker)).unwrap().1;
                let count = if self.blind { 0 } else { queue.len() };
                let (probes, connections): (Vec<u32>, Vec<u32>) =
                    queue.drain(..count).partition(|record| *record == 0);
                scheduler.reclaimed(worker, connections, probes.len() as u32, now, out);
            }
            Output::Accept { on, .. } => self.accepting = on,
            Output::Close { connection, reason } => self.closed.push((connection, reason)),
            Output::DropQueue { worker, .. } => self.queues.retain(|queue| queue.0 != worker),
            Output::EndQueue { .. } => {}
            other => panic!("{other:?} is not for a schedule"),
        }
    }

    pub(super) fn accept(&mut self, connections: impl IntoIterator<Item = u32>) {
        for connection in connections {
            self.step(|scheduler, now, out| scheduler.accepted(connection, now, out));
        }
    }

    /// Time passes, with all ticks in it; these workers read all they get meanwhile.
    pub(super) fn pass(&mut self, time: Duration, readers: &[WorkerId]) {
        let end = self.now + time;
        while let Some(due) = self.scheduler.deadline().filter(|due| *due <= end) {
            self.now = due;
            self.read(readers);
            self.tick();
            assert!(self.scheduler.deadline().is_none_or(|next| next > due));
        }
        self.now = end;
        self.read(readers);
    }

    fn tick(&mut self) {
        let mut silent = Vec::new();
        self.step(|scheduler, now, out| silent = scheduler.tick(now, out));
        self.unresponsive.extend(silent);
    }

    /// A Node worker answers the `nth` of what it has.
    pub(super) fn answer(
        &mut self,
        worker: WorkerId,
        nth: usize,
        answer: impl FnOnce(u32) -> Answer<u32>,
    ) {
        let queue = self.queues.iter_mut().find(|queue| queue.0 == worker).unwrap();
        let answer = answer(queue.1.remove(nth).unwrap());
        self.step(|scheduler, now, out| scheduler.answered(worker, nth, answer, now, out));
    }

    fn read(&mut self, readers: &[WorkerId]) {
        let read = self.queues.iter_mut().filter(|queue| readers.contains(&queue.0));
        read.for_each(|queue| queue.1.clear());
    }

    pub(super) fn queue(&self, worker: WorkerId) -> Vec<u32> {
        let queue = self.queues.iter().find(|queue| queue.0 == worker);
        queue.map(|queue| queue.1.iter().copied().collect()).unwrap_or_default()
    }
}

#[test]
fn a_thousand_connections_go_to_eight_workers_in_equal_parts() {
    let mut glass = Glass::new(8, |_| {});
    let mut counts = [0; 8];
    for connection in 1..=1000 {
        glass.accept([connection]);
        glass.now += 3 * MS;
        let at = (0..8).find(|at| glass.queue(at + 1).contains(&connection)).unwrap();
        counts[at as usize] += 1;
        let all: Vec<WorkerId> = (1..=8).collect();
        glass.read(&all);
        if glass.scheduler.deadline().is_some_and(|due| due <= glass.now) {
            glass.tick();
        }
    }
    assert_eq!(counts, [125; 8]);
}

#[test]
fn the_kernel_is_asked_rarely() {
    let mut glass = Glass::new(200, |_| {});
    let all: Vec<WorkerId> = (1..=200).collect();
    for connection in 1..=12_800 {
        glass.accept([connection]);
        glass.read(&all);
    }
    // Once for each window full.
    assert_eq!(glass.asks, 200);
}

#[test]
fn the_turn_is_kept_when_workers_join_and_leave() {
    let mut glass = Glass::new(3, |_| {});
    glass.accept([1, 2]);
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    // What worker 1 had goes to worker 3, whose turn it is.
    assert_eq!(glass.queue(3), [1]);
    glass.join(9);
    glass.accept([4, 5]);
    assert_eq!((glass.queue(2), glass.queue(3), glass.queue(9)), (vec![2, 5], vec![1], vec![4]));
}

#[test]
fn a_lane_that_was_late_is_looked_at_when_its_turn_comes() {
    let mut glass = Glass::new(3, |_| {});
    glass.accept(1..=3);
    glass.pass(SLOW, &[1, 3]);
    // It has not read yet: its turn passes, after one look.
    let asks = glass.asks;
    glass.accept(4..=6);
    assert_eq!((glass.queue(1), glass.queue(2), glass.queue(3)), (vec![4, 6], vec![2], vec![5]));
    assert_eq!(glass.asks, asks + 1);
    // It has, long before the next tick: its turn is its own.
    glass.now += MS;
    glass.read(&[2]);
    glass.accept(7..=8);
    assert_eq!((glass.queue(2), glass.queue(3)), (vec![7], vec![5, 8]));
    assert_eq!(glass.asks, asks + 2);
    assert!(glass.accepting);
}

#[test]
fn a_late_lane_is_looked_at_once_however_many_come_at_once() {
    for (policy, polls_left) in [(Policy::RoundRobin, 190), (Policy::LeastLoaded, 8)] {
        let mut glass = Glass::new(200, |options| options.policy = policy);
        glass.accept(1..=200);
        let others: Vec<WorkerId> = (191..=200).collect();
        glass.pass(SLOW, &others);
        // Those that are late may have ended theirs: they have the least, as far as is known.
        let closed_counter = Arc::new(EndCount { ended: 9.into(), ..EndCount::default() });
        (1..=190)
            .for_each(|worker| glass.scheduler.set_closed_counter(worker, closed_counter.clone()));
        let asks = glass.asks;
        glass.accept(201..=220);
        assert_eq!(glass.asks - asks, polls_left, "{policy:?}");
        let has_new = |worker: &WorkerId| glass.queue(*worker).len() == 2;
        assert!(others.iter().all(has_new), "{policy:?}");
        // A little later they may have read.
        glass.now += MS;
        glass.read(&(1..=190).collect::<Vec<_>>());
        glass.accept([221]);
        assert_eq!(glass.asks - asks, 2 * polls_left, "{policy:?}");
        assert_eq!(glass.queue(1), [221], "{policy:?}");
    }
}

#[test]
fn a_late_lane_comes_before_a_node_worker_that_has_one_unanswered() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded] {
        let mut glass = Glass::new(0, |options| options.policy = policy);
        glass.join_as(1, WorkerKind::Node);
        glass.join(2);
        glass.accept([1, 2]);
        glass.answer(1, 0, |_| Answer::Taken);
        glass.pass(SLOW - 5 * MS, &[]);
        glass.accept([3, 4]);
        assert_eq!((glass.queue(1), glass.queue(2)), (vec![3], vec![2, 4]), "{policy:?}");
        glass.pass(5 * MS, &[]);
        let asks = glass.asks;
        glass.accept([5]);
        assert_eq!((glass.queue(1), glass.asks), (vec![3, 5], asks + 1), "{policy:?}");
        glass.now += MS;
        glass.read(&[2]);
        glass.accept([6]);
        assert_eq!((glass.queue(1), glass.queue(2)), (vec![3, 5], vec![6]), "{policy:?}");
    }
}

#[test]
fn of_several_that_were_late_each_is_heard_before_it_is_passed_over() {
    let mut glass = Glass::new(4, |_| {});
    glass.accept(1..=4);
    glass.pass(SLOW, &[3, 4]);
    glass.read(&[2]);
    // 1 has not read, and that is known first.
    glass.accept([5]);
    assert_eq!((glass.queue(1), glass.queue(2), glass.queue(3)), (vec![1], vec![5], vec![]));
    assert_eq!(glass.scheduler.counters().waiting, 0);
}

#[test]
fn the_least_loaded_is_looked_at_before_another_is_chosen() {
    let mut glass = Glass::new(0, |options| options.policy = Policy::LeastLoaded);
    let _ends = [glass.join_with_limit(1, 9), glass.join_with_limit(2, 9)];
    glass.accept(1..=6);
    glass.read(&[2]);
    let closed_counter = glass.join_with_limit(3, 9);
    glass.accept([7]);
    assert_eq!((glass.queue(1), glass.queue(3)), (vec![1, 3, 5], vec![7]));
    // 3 has the least and 1 no more than 2 has, but both are late.
    glass.pass(SLOW, &[]);
    let asks = glass.asks;
    glass.accept([8]);
    assert_eq!((glass.queue(2), glass.asks), (vec![8], asks + 2));
    glass.now += MS;
    glass.read(&[3]);
    glass.accept([9]);
    assert_eq!((glass.queue(3), glass.asks), (vec![9], asks + 4));
    assert!(!glass.end_one(&closed_counter), "nobody waits for it");
}

/// Clients that are all one, see `Affinity`, and the workers they would go to, first to last.
fn sticky_glass(
    workers: u32,
    change: impl FnOnce(&mut SupervisorOptions),
) -> (Glass, Vec<WorkerId>) {
    let glass = Glass::new(workers, |options| {
        options.policy = Policy::Sticky;
        change(options);
    });
    let mut order: Vec<WorkerId> = (1..=workers).collect();
    order.sort_by_key(|slot| std::cmp::Reverse(sticky::weight(1, *slot)));
    (glass, order)
}

#[test]
fn a_sticky_client_stays_with_a_worker_that_is_slow() {
    let (mut glass, order) = sticky_glass(3, |_| {});
    glass.accept([1]);
    let mut sent = vec![1];
    for tenth in 1..10 {
        glass.pass(100 * MS, &[]);
        glass.accept([1 + 16 * tenth]);
        sent.push(1 + 16 * tenth);
        assert_eq!(glass.queue(order[0]), sent, "{tenth} tenths of a second");
    }
    // Not for ever.
    glass.pass(100 * MS, &[]);
    assert_eq!((glass.queue(order[0]), glass.queue(order[1])), (vec![0], sent));
    assert_eq!(glass.scheduler.counters().reclaimed, 10);
}

#[test]
fn a_sticky_client_is_not_left_waiting_where_the_address_is_given_up() {
    let (mut glass, order) = sticky_glass(2, |_| {});
    glass.accept([1]);
    glass.step(|scheduler, _, out| scheduler.give_up_address(out));
    glass.pass(STALLED + TICK, &[]);
    assert_eq!(glass.queue(order[1]), [1]);
}

#[test]
fn a_sticky_client_is_back_as_soon_as_its_worker_can_have_it() {
    let (mut glass, order) = sticky_glass(3, |_| {});
    glass.accept([1]);
    glass.pass(PATIENCE, &order[1..]);
    assert_eq!(glass.queue(order[0]), [0], "a suspect");
    glass.now += MS;
    glass.read(&order);
    // Before any tick could tell.
    glass.accept([17]);
    assert_eq!(glass.queue(order[0]), [17]);
    // The same where nobody else is free, which is no reason to take anything back.
    let (mut glass, order) = sticky_glass(1, |_| {});
    glass.accept([1]);
    glass.pass(PATIENCE * 2, &[]);
    assert_eq!((glass.queue(order[0]), glass.accepting), (vec![1], false));
    glass.pass(TICK, &order);
    glass.accept([17]);
    assert_eq!((glass.queue(order[0]), glass.accepting), (vec![17], true));
}

#[test]
fn the_pause_after_too_many_descriptors_is_not_made_longer_by_a_look() {
    let (mut glass, order) = sticky_glass(3, |_| {});
    glass.accept([1]);
    glass.pass(PATIENCE, &order[1..]);
    assert_eq!(glass.queue(order[0]), [0], "a suspect, and frozen");
    glass.refusal = Some(Refusal::InFlight);
    glass.accept([17, 33, 49, 65, 81]);
    assert_eq!(glass.scheduler.counters().waiting, 5);
    glass.refusal = None;
    glass.pass(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(glass.queue(order[1]), [17, 33, 49, 65, 81]);
}

#[test]
fn a_full_window_of_a_sticky_client_is_looked_at_before_it_moves() {
    let (mut glass, order) = sticky_glass(3, |options| options.window = 2);
    glass.accept([1, 17]);
    assert_eq!(glass.queue(order[0]), [1, 17]);
    let asks = glass.asks;
    glass.accept([33]);
    assert_eq!((glass.queue(order[1]), glass.asks), (vec![33], asks + 1), "it really is full");
    glass.now += MS;
    glass.read(&order[..1]);
    glass.accept([49]);
    assert_eq!((glass.queue(order[0]), glass.asks), (vec![49], asks + 2));
    // Full again, and read again, in no time: what was seen is not what is.
    glass.accept([97]);
    glass.read(&order[..1]);
    glass.accept([113]);
    assert_eq!(glass.queue(order[0]), [113]);
    // The same where the kernel says so.
    glass.refusal = Some(Refusal::Full);
    glass.accept([65]);
    assert_eq!(glass.scheduler.counters().waiting, 1, "all are");
    glass.refusal = None;
    glass.read(&order);
    glass.now += MS;
    glass.step(|scheduler, now, out| scheduler.writable(order[1], now, out));
    assert_eq!((glass.queue(order[0]), glass.queue(order[1])), (vec![65], vec![]));
}

#[test]
fn any_lane_with_something_unread_keeps_the_ticks_coming() {
    for unread in 1..=5 {
        let mut glass = Glass::new(5, |_| {});
        glass.accept(1..=5);
        let readers: Vec<WorkerId> = (1..=5).filter(|worker| *worker != unread).collect();
        for _ in 0..4 {
            glass.pass(TICK, &readers);
            assert!(glass.scheduler.deadline().is_some(), "worker {unread} has not read");
        }
        glass.pass(TICK, &[1, 2, 3, 4, 5]);
        assert_eq!(glass.scheduler.deadline(), None);
    }
}

#[test]
fn nothing_outstanding_means_no_deadline() {
    let mut glass = Glass::new(2, |_| {});
    assert_eq!(glass.scheduler.deadline(), None);
    glass.accept([1]);
    assert_eq!(glass.scheduler.deadline(), Some(glass.now + TICK));
    glass.pass(TICK, &[1, 2]);
    assert_eq!(glass.scheduler.deadline(), None);
}

#[test]
fn a_worker_that_does_not_read_is_skipped_and_emptied() {
    let mut glass = Glass::new(4, |_| {});
    glass.accept(1..=8);
    // Worker 2 is frozen; clients keep coming.
    let mut waited = 0;
    for connection in 9..=100 {
        glass.pass(5 * MS, &[1, 3, 4]);
        glass.accept([connection]);
        if glass.queue(2).iter().any(|record| *record != 0) {
            waited += 5;
        }
    }
    assert!(waited <= 140, "taken back after {waited} ms");
    assert_eq!(glass.queue(2), [0], "nothing but one probe");
    let sum = glass.scheduler.counters();
    assert_eq!((sum.reclaimed, sum.re_dispatched, sum.closed()), (3, 3, 0));
    // It runs again: the probe is read, and it gets its share.
    glass.pass(TICK, &[1, 2, 3, 4]);
    glass.accept(1..=4);
    assert_eq!(glass.queue(2).len(), 1);
}

#[test]
fn two_frozen_workers_do_not_play_ping_pong() {
    let mut glass = Glass::new(3, |_| {});
    glass.accept(1..=6);
    glass.pass(2000 * MS, &[1]);
    let sum = glass.scheduler.counters();
    assert_eq!((sum.reclaimed, sum.re_dispatched), (4, 4));
    assert_eq!((glass.queue(2), glass.queue(3)), (vec![0], vec![0]));
}

#[test]
fn with_all_workers_stuck_nothing_is_taken_back_or_accepted() {
    let mut glass = Glass::new(2, |_| {});
    glass.accept(1..=6);
    assert!(glass.accepting);
    glass.pass(1000 * MS, &[]);
    assert!(!glass.accepting);
    assert_eq!(glass.scheduler.counters().reclaimed, 0);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1, 3, 5], vec![2, 4, 6]));
    // One of them goes on, and serves what the other left.
    glass.pass(300 * MS, &[1]);
    assert!(glass.accepting);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![], vec![0]));
}

#[test]
fn a_worker_that_never_reads_is_reported_whether_others_can_serve_or_not() {
    for workers in [1, 2] {
        let mut glass = Glass::new(workers, |options| options.unresponsive = 1000 * MS);
        glass.accept(1..=workers);
        glass.pass(900 * MS, &[2]);
        assert!(glass.unresponsive.is_empty());
        glass.pass(200 * MS, &[2]);
        assert_eq!(glass.unresponsive.first(), Some(&1));
    }
}

#[test]
fn a_slow_worker_is_not_unresponsive() {
    let mut glass = Glass::new(1, |options| options.unresponsive = 200 * MS);
    glass.accept(1..=20);
    for _ in 0..20 {
        glass.pass(150 * MS, &[]);
        glass.queues[0].1.pop_front();
    }
    assert!(glass.unresponsive.is_empty());
}

#[test]
fn time_in_which_this_process_stood_still_counts_for_nobody() {
    let mut glass = Glass::new(2, |options| options.unresponsive = 1000 * MS);
    glass.accept([1]);
    glass.now += Duration::from_secs(3600);
    glass.tick();
    assert_eq!(glass.queue(1), [1]);
    assert!(glass.unresponsive.is_empty());
    glass.pass(200 * MS, &[2]);
    assert_eq!(glass.queue(1), [0]);
}

#[test]
fn what_is_taken_back_keeps_its_place_in_line() {
    let mut glass = Glass::new(2, |options| options.window = 2);
    for connection in 1..=4 {
        glass.accept([connection]);
        glass.now += MS;
    }
    glass.accept([5, 6]);
    assert!(!glass.accepting);
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    glass.join(3);
    assert_eq!((glass.queue(3), glass.queue(2)), (vec![1, 3], vec![2, 4]));
    assert_eq!(glass.scheduler.counters().waiting, 2);
    glass.pass(TICK, &[2, 3]);
    assert_eq!(glass.scheduler.counters().waiting, 0);
    assert!(glass.accepting);
}

#[test]
fn the_newest_are_closed_when_too_many_wait() {
    let mut glass = Glass::new(1, |options| (options.window, options.waiting) = (2, 2));
    glass.accept(1..=5);
    assert_eq!(glass.closed, [(5, CloseReason::Overflow)]);
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    assert_eq!(glass.closed[1..], [(4, CloseReason::Overflow), (3, CloseReason::Overflow)]);
    glass.join(2);
    assert_eq!(glass.queue(2), [1, 2]);
}

#[test]
fn a_full_queue_waits_until_it_is_writable() {
    let mut glass = Glass::new(2, |_| {});
    glass.refusal = Some(Refusal::Full);
    glass.accept([1]);
    assert!(!glass.accepting);
    assert_eq!(glass.scheduler.counters().waiting, 1);
    glass.refusal = None;
    glass.step(|scheduler, now, out| scheduler.writable(2, now, out));
    assert_eq!(glass.queue(2), [1]);
    assert!(glass.accepting);
    // Lost news of room do no harm: an empty queue has room.
    glass.pass(TICK, &[]);
    glass.accept([2, 3]);
    assert_eq!([glass.queue(1), glass.queue(2)].concat().len(), 3);
}

#[test]
fn a_refusal_that_comes_late_leaves_no_lane_behind() {
    let mut glass = Glass::new(1, |_| {});
    let mut out = Vec::new();
    let start = glass.now;
    let scheduler = &mut glass.scheduler;
    scheduler.accepted(1, start, &mut out);
    scheduler.tick(start + TICK, &mut out);
    scheduler.accepted(2, start + TICK, &mut out);
    // The answers are late: 1 was read, 2 never got in.
    let now = start + 3 * TICK;
    assert_eq!(scheduler.depth(1, 0, now, &mut out), Verdict::Fine);
    scheduler.refused(1, Some(2), Refusal::InFlight, now, &mut out);
    out.clear();
    scheduler.tick(now + IN_FLIGHT_PAUSE, &mut out);
    let sent = |output: &Output<u32>| matches!(output, Output::Send { connection: 2, .. });
    assert!(out.iter().any(sent), "{out:?}");
}

#[test]
fn too_many_descriptors_in_flight_are_a_pause_and_not_a_storm() {
    let mut glass = Glass::new(2, |_| {});
    glass.refusal = Some(Refusal::InFlight);
    glass.accept(1..=200);
    for _ in 0..101 {
        let due = glass.scheduler.deadline().expect("tried again");
        assert!(due > glass.now);
        glass.now = due;
        glass.tick();
    }
    assert_eq!(glass.scheduler.counters().waiting, 200);
    glass.refusal = None;
    glass.pass(100 * MS, &[]);
    assert_eq!(glass.scheduler.counters().waiting, 72, "two windows are full");
    let mut first = [&glass.queue(1)[..3], &glass.queue(2)[..3]].concat();
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4, 5, 6], "in line");
}

#[test]
fn a_lane_whose_queue_is_gone_is_closed_and_its_connections_given_away() {
    let mut glass = Glass::new(2, |_| {});
    glass.accept([1, 2]);
    glass.refusal = Some(Refusal::Gone);
    glass.accept([3]);
    assert!(!glass.scheduler.has_backend(1));
    assert!(!glass.scheduler.has_backend(2), "it was tried there too");
    assert_eq!(glass.scheduler.counters().waiting, 3);
    glass.refusal = None;
    glass.join(3);
    assert_eq!(glass.queue(3).len(), 3);
}

#[test]
fn a_queue_that_cannot_be_read_back_is_tried_again_and_at_last_given_up() {
    for gives_in in [true, false] {
        let mut glass = Glass::new(2, |_| {});
        glass.accept([1, 2, 3]);
        glass.blind = true;
        glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
        assert!(glass.scheduler.has_backend(1));
        glass.pass(1000 * MS, &[2]);
        assert!(glass.scheduler.has_backend(1));
        if gives_in {
            glass.blind = false;
            glass.pass(50 * MS, &[]);
            assert_eq!(glass.queue(2), [1, 3]);
        } else {
            glass.pass(Duration::from_secs(10), &[2]);
            assert_eq!(glass.scheduler.counters().closed_overflow, 2);
        }
        assert!(!glass.scheduler.has_backend(1));
    }
}

#[test]
fn a_leaving_worker_keeps_its_queue_only_when_nobody_else_serves() {
    let mut glass = Glass::new(2, |_| {});
    glass.accept(1..=4);
    glass.step(|scheduler, _, out| scheduler.leave(1, out));
    assert!(glass.scheduler.has_ended(1));
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![], vec![2, 4, 1, 3]));
    glass.step(|scheduler, _, out| scheduler.leave(2, out));
    assert!(glass.scheduler.has_ended(2) && !glass.accepting);
    assert_eq!(glass.queue(2), [2, 4, 1, 3]);
    glass.step(|scheduler, _, out| scheduler.close_backend(2, out));
    assert_eq!(glass.scheduler.counters().waiting, 4);
    glass.step(|scheduler, _, out| scheduler.close_waiting(CloseReason::NotListening, out));
    assert_eq!(glass.closed.len(), 4);
}

#[test]
fn a_worker_that_has_not_said_that_it_listens_gets_nothing() {
    let mut glass = Glass::new(1, |_| {});
    glass.scheduler.grant(2, 2, WorkerKind::Native, None);
    glass.accept(1..=3);
    assert_eq!(glass.queue(1), [1, 2, 3]);
    assert!(!glass.scheduler.open_backend(7));
    assert!(glass.scheduler.open_backend(2));
    assert!(!glass.scheduler.open_backend(2), "said once");
}

#[test]
fn a_worker_at_its_limit_is_passed_over_and_the_first_with_room_gets_who_waited_longest() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky] {
        let mut glass = Glass::new(0, |options| options.policy = policy);
        let (one, nine) = (glass.join_with_limit(1, 1), glass.join_with_limit(2, 9));
        glass.accept(1..=10);
        assert_eq!((glass.queue(1).len(), glass.queue(2).len()), (1, 9), "{policy:?}");
        assert!(!glass.accepting, "the kernel keeps the rest");
        // Two were on their way when that was said.
        glass.accept(11..=12);
        glass.pass(1000 * MS, &[1, 2]);
        assert_eq!(glass.scheduler.deadline(), None, "nobody looks again and again");
        assert_eq!(glass.scheduler.counters().waiting, 2);
        assert!(glass.end_one(&nine), "the primary is told");
        assert_eq!((glass.queue(2), glass.accepting), (vec![11], false));
        assert!(glass.end_one(&one));
        assert_eq!((glass.queue(1), glass.accepting), (vec![12], false));
        assert!(glass.end_one(&one) && glass.accepting);
        glass.end_one(&nine);
        assert!(!glass.end_one(&nine), "who is not waited for says nothing");
        assert_eq!(glass.scheduler.counters().reclaimed, 0, "nobody is handed round");
    }
}

#[test]
fn room_that_nobody_tells_of_is_seen_by_who_looks() {
    let mut glass = Glass::new(0, |_| {});
    let closed_counter = glass.join_with_limit(1, 1);
    assert!(!glass.scheduler.awaits_room(), "it has room");
    glass.accept(1..=2);
    glass.read(&[1]);
    assert!(glass.scheduler.awaits_room());
    assert!(closed_counter.end(), "what it says is not heard");
    assert!(glass.scheduler.awaits_room());
    glass.step(|scheduler, now, out| scheduler.dispatch(now, out));
    assert_eq!(glass.queue(1), [2]);
    assert!(glass.scheduler.awaits_room(), "the next one");
    glass.join(2);
    assert!(!glass.scheduler.awaits_room(), "somebody is free");
}

/// One of its connections ends just when the primary says that it waits for that.
#[derive(Debug, Default)]
struct JustThen(AtomicU64);

impl ClosedCounter for JustThen {
    fn ended(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn await_next(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[test]
fn what_ends_while_the_primary_begins_to_wait_is_seen() {
    let mut glass = Glass::new(0, |_| {});
    glass.join_with_limit(1, 2);
    glass.scheduler.set_closed_counter(1, Arc::new(JustThen::default()));
    glass.accept(1..=2);
    assert!(glass.accepting, "one had ended after the look");
    glass.accept(3..=4);
    assert_eq!((glass.queue(1), glass.accepting), (vec![1, 2, 3], false));
}

#[test]
fn a_limit_goes_with_the_address_and_what_comes_back_is_no_load() {
    let mut glass = Glass::new(0, |_| {});
    glass.join_with_limit(1, 2);
    glass.accept(1..=4);
    assert_eq!((glass.queue(1), glass.accepting), (vec![1, 2], false));
    glass.join_with_limit(2, 1);
    assert_eq!((glass.queue(2), glass.scheduler.counters().waiting), (vec![3], 1));
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    assert_eq!(glass.scheduler.counters().waiting, 3);
    let third = glass.join_with_limit(3, 2);
    assert_eq!((glass.queue(3), glass.scheduler.counters().waiting), (vec![1, 2], 1));
    glass.read(&[3]);
    assert!(glass.end_one(&third));
    assert_eq!((glass.queue(3), glass.accepting), (vec![4], false));
    glass.accept(5..=6);
    glass.step(|scheduler, now, out| {
        scheduler.give_up_address(out);
        scheduler.lift_limits(now, out);
    });
    assert_eq!(glass.scheduler.counters().waiting, 0, "whoever is left serves them");
}
