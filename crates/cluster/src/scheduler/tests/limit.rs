//! Connection limits: backends at their limit, and the reports of room.

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::contract::SharedPage;

#[test]
fn a_worker_at_its_limit_is_skipped_and_the_first_with_room_gets_the_oldest_connection() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky] {
        let mut harness = SchedulerHarness::new(0, |options| options.policy = policy);
        let (one, nine) =
            (harness.add_with_limit(WorkerId(1), 1), harness.add_with_limit(WorkerId(2), 9));
        harness.accept(1..=10);
        assert_eq!(
            (harness.queue(WorkerId(1)).len(), harness.queue(WorkerId(2)).len()),
            (1, 9),
            "{policy:?}"
        );
        assert!(!harness.accepting, "further clients stay in the backlog");
        // Two connections were accepted before the primary stopped.
        harness.accept(11..=12);
        harness.advance(1000 * MS, &[WorkerId(1), WorkerId(2)]);
        assert_eq!(harness.scheduler.deadline(), None, "a limit is not polled");
        assert_eq!(harness.scheduler.counters().waiting, 2);
        assert!(harness.close_one(&nine), "the worker reports room");
        assert_eq!((harness.queue(WorkerId(2)), harness.accepting), (vec![11], false));
        assert!(harness.close_one(&one));
        assert_eq!((harness.queue(WorkerId(1)), harness.accepting), (vec![12], false));
        assert!(harness.close_one(&one) && harness.accepting);
        harness.close_one(&nine);
        assert!(!harness.close_one(&nine), "a close that is not awaited is not reported");
        assert_eq!(harness.scheduler.counters().reclaimed, 0, "no connection is passed on");
    }
}

#[test]
fn room_is_found_by_a_dispatch_when_its_report_is_lost() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    let page = harness.add_with_limit(WorkerId(1), 1);
    assert!(!harness.scheduler.awaits_room(), "the worker has room");
    harness.accept(1..=2);
    harness.read(&[WorkerId(1)]);
    assert!(harness.scheduler.awaits_room());
    assert!(page.close(), "the report is lost");
    assert!(harness.scheduler.awaits_room());
    harness.step(|scheduler, now, out| scheduler.dispatch_waiting(now, out));
    assert_eq!(harness.queue(WorkerId(1)), [2]);
    assert!(harness.scheduler.awaits_room(), "the worker is at its limit again");
    harness.add(WorkerId(2));
    assert!(!harness.scheduler.awaits_room(), "worker 2 is free");
}

/// A counter whose worker closes a connection while the primary begins to await a close.
#[derive(Debug, Default)]
struct ClosesWhenAwaited(AtomicU64);

impl SharedPage for ClosesWhenAwaited {
    fn closed(&self) -> Option<u64> {
        Some(self.0.load(Ordering::Relaxed))
    }

    fn is_short_of_descriptors(&self) -> bool {
        false
    }

    fn is_paused(&self) -> bool {
        false
    }

    fn signs_of_life(&self) -> u64 {
        0
    }

    fn notify_next(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[test]
fn a_connection_that_closes_while_the_primary_begins_to_await_a_close_is_counted() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_with_limit(WorkerId(1), 2);
    harness.scheduler.set_page(WorkerId(1), Arc::new(ClosesWhenAwaited::default()));
    harness.accept(1..=2);
    assert!(harness.accepting, "the load is read after the request");
    harness.accept(3..=4);
    assert_eq!((harness.queue(WorkerId(1)), harness.accepting), (vec![1, 2, 3], false));
}

#[test]
fn closing_the_address_lifts_the_limits_and_reclaimed_connections_are_no_load() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_with_limit(WorkerId(1), 2);
    harness.accept(1..=4);
    assert_eq!((harness.queue(WorkerId(1)), harness.accepting), (vec![1, 2], false));
    harness.add_with_limit(WorkerId(2), 1);
    assert_eq!((harness.queue(WorkerId(2)), harness.scheduler.counters().waiting), (vec![3], 1));
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert_eq!(harness.scheduler.counters().waiting, 3);
    let third = harness.add_with_limit(WorkerId(3), 2);
    assert_eq!((harness.queue(WorkerId(3)), harness.scheduler.counters().waiting), (vec![1, 2], 1));
    harness.read(&[WorkerId(3)]);
    assert!(harness.close_one(&third));
    assert_eq!((harness.queue(WorkerId(3)), harness.accepting), (vec![4], false));
    harness.accept(5..=6);
    harness.step(|scheduler, now, out| {
        scheduler.close_address(out);
        scheduler.lift_limits(now, out);
    });
    assert_eq!(harness.scheduler.counters().waiting, 0, "the workers that are left get them");
}
