//! Workers that are late, and connections that may still come back from workers that leave.

use super::*;

#[test]
fn ticks_that_are_a_little_late_excuse_no_worker_that_reads_nothing() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept([1, 2]);
    let start = harness.now;
    while harness.queue(WorkerId(1)) == [1] {
        // Each tick is late by less than the time from which the process counts as suspended.
        harness.now = harness.scheduler.deadline().expect("a record is unread") + 90 * MS;
        harness.read(&[WorkerId(2)]);
        harness.tick();
        assert!(harness.now - start < 300 * MS, "the worker is excused again and again");
    }
    assert_eq!(harness.queue(WorkerId(1)), [PROBE]);
    assert_eq!(harness.scheduler.counters().reclaimed, 1);
}

#[test]
fn connections_may_come_back_from_a_node_worker_that_leaves_until_it_has_answered() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_as(WorkerId(1), WorkerKind::Node);
    harness.accept([1]);
    harness.add(WorkerId(2));
    assert!(!harness.scheduler.may_reclaim_more(), "nobody leaves");
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert!(harness.scheduler.may_reclaim_more(), "the worker may decline");
    harness.answer(WorkerId(1), 0, Answer::Declined);
    assert_eq!(harness.queue(WorkerId(2)), [1]);
    assert!(!harness.scheduler.may_reclaim_more() && !harness.scheduler.has_backend(WorkerId(1)));
}

#[test]
fn connections_may_come_back_from_a_queue_that_could_not_be_read_to_its_end() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept([1, 2]);
    harness.is_out_of_descriptors = true;
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert!(harness.scheduler.may_reclaim_more(), "the queue is read again later");
    harness.is_out_of_descriptors = false;
    harness.advance(1000 * MS, &[WorkerId(2)]);
    let sum = harness.scheduler.counters();
    assert_eq!((sum.reclaimed, sum.re_dispatched, sum.closed()), (1, 1, 0));
    assert!(!harness.scheduler.may_reclaim_more());
}
