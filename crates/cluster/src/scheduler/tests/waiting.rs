//! Waiting connections: their order, their number, and what the kernel refuses.

use super::*;
use crate::scheduler::dispatch::IN_FLIGHT_PAUSE;

#[test]
fn reclaimed_connections_keep_their_place_in_the_line() {
    let mut harness = SchedulerHarness::new(2, |options| options.window = 2);
    for connection in 1..=4 {
        harness.accept([connection]);
        harness.now += MS;
    }
    harness.accept([5, 6]);
    assert!(!harness.accepting);
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    harness.add(WorkerId(3));
    assert_eq!((harness.queue(WorkerId(3)), harness.queue(WorkerId(2))), (vec![1, 3], vec![2, 4]));
    assert_eq!(harness.scheduler.counters().waiting, 2);
    harness.advance(TICK, &[WorkerId(2), WorkerId(3)]);
    assert_eq!(harness.scheduler.counters().waiting, 0);
    assert!(harness.accepting);
}

#[test]
fn connections_of_several_queues_are_in_the_order_of_their_age() {
    let mut harness = SchedulerHarness::new(3, |_| {});
    harness.accept(1..=9);
    harness.read(&[WorkerId(2)]);
    harness.accept(10..=12);
    for worker in [1, 3, 2].map(WorkerId) {
        harness.step(|scheduler, _, out| scheduler.drain_backend(worker, out));
    }
    for worker in [1, 3, 2].map(WorkerId) {
        harness.step(|scheduler, _, out| scheduler.close_backend(worker, out));
    }
    harness.add(WorkerId(4));
    assert_eq!(harness.queue(WorkerId(4)), [1, 3, 4, 6, 7, 9, 10, 11, 12]);
}

#[test]
fn the_newest_connections_are_closed_when_too_many_wait() {
    let mut harness =
        SchedulerHarness::new(1, |options| (options.window, options.waiting) = (2, 2));
    harness.accept(1..=5);
    assert_eq!(harness.closed, [(5, CloseReason::Overflow)]);
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert_eq!(harness.closed[1..], [(4, CloseReason::Overflow), (3, CloseReason::Overflow)]);
    harness.add(WorkerId(2));
    assert_eq!(harness.queue(WorkerId(2)), [1, 2]);
}

#[test]
fn a_full_queue_gets_nothing_until_it_is_writable() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.refusal = Some(Refusal::Full);
    harness.accept([1]);
    assert!(!harness.accepting);
    assert_eq!(harness.scheduler.counters().waiting, 1);
    harness.refusal = None;
    harness.step(|scheduler, now, out| scheduler.writable(WorkerId(2), now, out));
    assert_eq!(harness.queue(WorkerId(2)), [1]);
    assert!(harness.accepting);
    // Without the report for worker 1 the next poll finds its empty queue.
    harness.advance(TICK, &[]);
    harness.accept([2, 3]);
    assert_eq!([harness.queue(WorkerId(1)), harness.queue(WorkerId(2))].concat().len(), 3);
}

#[test]
fn a_backend_is_used_again_after_a_late_refusal() {
    let mut harness = SchedulerHarness::new(1, |_| {});
    let mut out = Vec::new();
    let start = harness.now;
    let scheduler = &mut harness.scheduler;
    scheduler.accepted(1, start, &mut out);
    scheduler.tick(start + TICK, &mut out);
    scheduler.accepted(2, start + TICK, &mut out);
    // The answers are late: connection 1 was read, and connection 2 was refused.
    let now = start + 3 * TICK;
    assert_eq!(scheduler.depth(WorkerId(1), 0, now, &mut out), WorkerHealth::Responsive);
    scheduler.send_failed(WorkerId(1), Some(2), Refusal::InFlight, now, &mut out);
    out.clear();
    scheduler.tick(now + IN_FLIGHT_PAUSE, &mut out);
    let sent = |output: &Output<u32>| matches!(output, Output::Send { connection: 2, .. });
    assert!(out.iter().any(sent), "{out:?}");
}

#[test]
fn too_many_descriptors_in_flight_pause_the_dispatch() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.refusal = Some(Refusal::InFlight);
    harness.accept(1..=200);
    for _ in 0..101 {
        let due = harness.scheduler.deadline().expect("a retry is due");
        assert!(due > harness.now);
        harness.now = due;
        harness.tick();
    }
    assert_eq!(harness.scheduler.counters().waiting, 200);
    harness.refusal = None;
    harness.advance(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(harness.scheduler.counters().waiting, 200 - 64, "a batch, and a pause again");
    harness.advance(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(harness.scheduler.counters().waiting, 72);
    harness.advance(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(harness.scheduler.blocked_until, None, "only room helps");
    harness.advance(100 * MS, &[]);
    assert_eq!(harness.scheduler.counters().waiting, 72, "two windows are full");
    let mut first = [&harness.queue(WorkerId(1))[..3], &harness.queue(WorkerId(2))[..3]].concat();
    first.sort_unstable();
    assert_eq!(first, [1, 2, 3, 4, 5, 6], "oldest first");
}

#[test]
fn a_backend_whose_queue_is_gone_is_closed_and_its_connections_go_to_others() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept([1, 2]);
    harness.refusal = Some(Refusal::Gone);
    harness.accept([3]);
    assert!(!harness.scheduler.has_backend(WorkerId(1)));
    assert!(!harness.scheduler.has_backend(WorkerId(2)), "the connection was sent to worker 2 too");
    assert_eq!(harness.scheduler.counters().waiting, 3);
    harness.refusal = None;
    harness.add(WorkerId(3));
    assert_eq!(harness.queue(WorkerId(3)).len(), 3);
}
