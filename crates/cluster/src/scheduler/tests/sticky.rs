//! Client affinity: patience with slow workers, and polls before a client moves.

use super::*;
use crate::scheduler::dispatch::IN_FLIGHT_PAUSE;

/// Returns the harness, and the workers in the order in which they get client 1: a connection is
/// of that client if its number is 1 modulo 16, see `ClientAffinity`.
fn sticky_harness(
    workers: u32,
    change: impl FnOnce(&mut SupervisorOptions),
) -> (SchedulerHarness, Vec<WorkerId>) {
    let harness = SchedulerHarness::new(workers, |options| {
        options.policy = Policy::Sticky;
        change(options);
    });
    let mut order: Vec<WorkerId> = (1..=workers).map(WorkerId).collect();
    order.sort_by_key(|slot| std::cmp::Reverse(crate::scheduler::pick::sticky::weight(1, slot.0)));
    (harness, order)
}

#[test]
fn a_sticky_client_stays_with_a_worker_that_is_slow() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    harness.accept([1]);
    let mut sent = vec![1];
    for tenth in 1..10 {
        harness.advance(100 * MS, &[]);
        harness.accept([1 + 16 * tenth]);
        sent.push(1 + 16 * tenth);
        assert_eq!(harness.queue(order[0]), sent, "{tenth} tenths of a second");
    }
    // The patience is limited.
    harness.advance(100 * MS, &[]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![0], sent));
    assert_eq!(harness.scheduler.counters().reclaimed, 10);
}

#[test]
fn the_patience_with_slow_workers_ends_when_the_address_is_closed() {
    let (mut harness, order) = sticky_harness(2, |_| {});
    harness.accept([1]);
    harness.step(|scheduler, _, out| scheduler.close_address(out));
    harness.advance(STALLED + TICK, &[]);
    assert_eq!(harness.queue(order[1]), [1]);
}

#[test]
fn a_sticky_client_is_back_as_soon_as_its_worker_is_usable() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    harness.accept([1]);
    harness.advance(STICKY_PATIENCE, &order[1..]);
    assert_eq!(harness.queue(order[0]), [0], "the worker is suspect");
    harness.now += MS;
    harness.read(&order);
    // No tick has polled the worker yet.
    harness.accept([17]);
    assert_eq!(harness.queue(order[0]), [17]);
    // The same holds without another free backend, where nothing is reclaimed.
    let (mut harness, order) = sticky_harness(1, |_| {});
    harness.accept([1]);
    harness.advance(STICKY_PATIENCE * 2, &[]);
    assert_eq!((harness.queue(order[0]), harness.accepting), (vec![1], false));
    harness.advance(TICK, &order);
    harness.accept([17]);
    assert_eq!((harness.queue(order[0]), harness.accepting), (vec![17], true));
}

#[test]
fn a_refresh_does_not_prolong_the_pause_after_too_many_descriptors_in_flight() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    harness.accept([1]);
    harness.advance(STICKY_PATIENCE, &order[1..]);
    assert_eq!(harness.queue(order[0]), [0], "the worker is suspect, and frozen");
    harness.refusal = Some(Refusal::InFlight);
    harness.accept([17, 33, 49, 65, 81]);
    assert_eq!(harness.scheduler.counters().waiting, 5);
    harness.refusal = None;
    harness.advance(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(harness.queue(order[1]), [17, 33, 49, 65, 81]);
}

#[test]
fn a_full_backend_is_polled_before_its_sticky_client_moves() {
    let (mut harness, order) = sticky_harness(3, |options| options.window = 2);
    harness.accept([1, 17]);
    assert_eq!(harness.queue(order[0]), [1, 17]);
    let polls = harness.polls;
    harness.accept([33]);
    assert_eq!(
        (harness.queue(order[1]), harness.polls),
        (vec![33], polls + 1),
        "the poll found the queue full"
    );
    harness.now += MS;
    harness.read(&order[..1]);
    harness.accept([49]);
    assert_eq!((harness.queue(order[0]), harness.polls), (vec![49], polls + 2));
    // The queue is filled and read within a millisecond: a dispatch invalidates the last poll.
    harness.accept([97]);
    harness.read(&order[..1]);
    harness.accept([113]);
    assert_eq!(harness.queue(order[0]), [113]);
    // The same holds when the kernel refuses the record.
    harness.refusal = Some(Refusal::Full);
    harness.accept([65]);
    assert_eq!(harness.scheduler.counters().waiting, 1, "all queues are full");
    harness.refusal = None;
    harness.read(&order);
    harness.now += MS;
    harness.step(|scheduler, now, out| scheduler.writable(order[1], now, out));
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![65], vec![]));
}
