//! The end of backends: reclaims that are tried again, and queues that are left to their workers.

use super::*;

#[test]
fn a_queue_that_cannot_be_reclaimed_is_retried_and_at_last_abandoned() {
    for succeeds in [true, false] {
        let mut harness = SchedulerHarness::new(2, |_| {});
        harness.accept([1, 2, 3]);
        harness.is_out_of_descriptors = true;
        harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
        assert!(harness.scheduler.has_backend(WorkerId(1)));
        harness.advance(1000 * MS, &[WorkerId(2)]);
        assert!(harness.scheduler.has_backend(WorkerId(1)));
        if succeeds {
            harness.is_out_of_descriptors = false;
            harness.advance(50 * MS, &[]);
            assert_eq!(harness.queue(WorkerId(2)), [1, 3]);
        } else {
            harness.advance(Duration::from_secs(10), &[WorkerId(2)]);
            assert_eq!(harness.scheduler.counters().closed_overflow, 2);
        }
        assert!(!harness.scheduler.has_backend(WorkerId(1)));
    }
}

#[test]
fn a_draining_worker_keeps_its_queue_only_when_no_other_backend_is_open() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept(1..=4);
    harness.step(|scheduler, _, out| scheduler.drain_backend(WorkerId(1), out));
    assert!(harness.scheduler.may_disconnect(WorkerId(1)));
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
        (vec![], vec![2, 4, 1, 3])
    );
    harness.step(|scheduler, _, out| scheduler.drain_backend(WorkerId(2), out));
    assert!(harness.scheduler.may_disconnect(WorkerId(2)) && !harness.accepting);
    assert_eq!(harness.queue(WorkerId(2)), [2, 4, 1, 3]);
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(2), out));
    assert_eq!(harness.scheduler.counters().waiting, 4);
    harness.step(|scheduler, _, out| scheduler.close_waiting(CloseReason::NotListening, out));
    assert_eq!(harness.closed.len(), 4);
}
