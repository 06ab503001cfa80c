//! drain

use super::*;

#[test]
fn a_queue_that_cannot_be_read_back_is_tried_again_and_at_last_given_up() {
    for gives_in in [true, false] {
        let mut harness = SchedulerHarness::new(2, |_| {});
        harness.accept([1, 2, 3]);
        harness.is_out_of_descriptors = true;
        harness.step(|scheduler, _, out| scheduler.close_backend(1, out));
        assert!(harness.scheduler.has_backend(1));
        harness.advance(1000 * MS, &[2]);
        assert!(harness.scheduler.has_backend(1));
        if gives_in {
            harness.is_out_of_descriptors = false;
            harness.advance(50 * MS, &[]);
            assert_eq!(harness.queue(2), [1, 3]);
        } else {
            harness.advance(Duration::from_secs(10), &[2]);
            assert_eq!(harness.scheduler.counters().closed_overflow, 2);
        }
        assert!(!harness.scheduler.has_backend(1));
    }
}

#[test]
fn a_leaving_worker_keeps_its_queue_only_when_nobody_else_serves() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept(1..=4);
    harness.step(|scheduler, _, out| scheduler.drain_backend(1, out));
    assert!(harness.scheduler.may_disconnect(1));
    assert_eq!((harness.queue(1), harness.queue(2)), (vec![], vec![2, 4, 1, 3]));
    harness.step(|scheduler, _, out| scheduler.drain_backend(2, out));
    assert!(harness.scheduler.may_disconnect(2) && !harness.accepting);
    assert_eq!(harness.queue(2), [2, 4, 1, 3]);
    harness.step(|scheduler, _, out| scheduler.close_backend(2, out));
    assert_eq!(harness.scheduler.counters().waiting, 4);
    harness.step(|scheduler, _, out| scheduler.close_waiting(CloseReason::NotListening, out));
    assert_eq!(harness.closed.len(), 4);
}
