//! limit

use std::sync::atomic::{AtomicU64, Ordering};

use super::*;
use crate::contract::ClosedCounter;

#[test]
fn a_worker_at_its_limit_is_passed_over_and_the_first_with_room_gets_who_waited_longest() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky] {
        let mut harness = SchedulerHarness::new(0, |options| options.policy = policy);
        let (one, nine) = (harness.add_with_limit(1, 1), harness.add_with_limit(2, 9));
        harness.accept(1..=10);
        assert_eq!((harness.queue(1).len(), harness.queue(2).len()), (1, 9), "{policy:?}");
        assert!(!harness.accepting, "the kernel keeps the rest");
        // Two were on their way when that was said.
        harness.accept(11..=12);
        harness.advance(1000 * MS, &[1, 2]);
        assert_eq!(harness.scheduler.deadline(), None, "nobody looks again and again");
        assert_eq!(harness.scheduler.counters().waiting, 2);
        assert!(harness.close_one(&nine), "the primary is told");
        assert_eq!((harness.queue(2), harness.accepting), (vec![11], false));
        assert!(harness.close_one(&one));
        assert_eq!((harness.queue(1), harness.accepting), (vec![12], false));
        assert!(harness.close_one(&one) && harness.accepting);
        harness.close_one(&nine);
        assert!(!harness.close_one(&nine), "who is not waited for says nothing");
        assert_eq!(harness.scheduler.counters().reclaimed, 0, "nobody is handed round");
    }
}

#[test]
fn room_that_nobody_tells_of_is_seen_by_who_looks() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    let closed_counter = harness.add_with_limit(1, 1);
    assert!(!harness.scheduler.awaits_room(), "it has room");
    harness.accept(1..=2);
    harness.read(&[1]);
    assert!(harness.scheduler.awaits_room());
    assert!(closed_counter.close(), "what it says is not heard");
    assert!(harness.scheduler.awaits_room());
    harness.step(|scheduler, now, out| scheduler.dispatch_waiting(now, out));
    assert_eq!(harness.queue(1), [2]);
    assert!(harness.scheduler.awaits_room(), "the next one");
    harness.add(2);
    assert!(!harness.scheduler.awaits_room(), "somebody is free");
}

/// One of its connections ends just when the primary says that it waits for that.
#[derive(Debug, Default)]
struct JustThen(AtomicU64);

impl ClosedCounter for JustThen {
    fn closed(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn notify_next(&self) {
        self.0.store(1, Ordering::Relaxed);
    }
}

#[test]
fn what_ends_while_the_primary_begins_to_wait_is_seen() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_with_limit(1, 2);
    harness.scheduler.set_closed_counter(1, Arc::new(JustThen::default()));
    harness.accept(1..=2);
    assert!(harness.accepting, "one had ended after the look");
    harness.accept(3..=4);
    assert_eq!((harness.queue(1), harness.accepting), (vec![1, 2, 3], false));
}

#[test]
fn a_limit_goes_with_the_address_and_what_comes_back_is_no_load() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_with_limit(1, 2);
    harness.accept(1..=4);
    assert_eq!((harness.queue(1), harness.accepting), (vec![1, 2], false));
    harness.add_with_limit(2, 1);
    assert_eq!((harness.queue(2), harness.scheduler.counters().waiting), (vec![3], 1));
    harness.step(|scheduler, _, out| scheduler.close_backend(1, out));
    assert_eq!(harness.scheduler.counters().waiting, 3);
    let third = harness.add_with_limit(3, 2);
    assert_eq!((harness.queue(3), harness.scheduler.counters().waiting), (vec![1, 2], 1));
    harness.read(&[3]);
    assert!(harness.close_one(&third));
    assert_eq!((harness.queue(3), harness.accepting), (vec![4], false));
    harness.accept(5..=6);
    harness.step(|scheduler, now, out| {
        scheduler.close_address(out);
        scheduler.lift_limits(now, out);
    });
    assert_eq!(harness.scheduler.counters().waiting, 0, "whoever is left serves them");
}
