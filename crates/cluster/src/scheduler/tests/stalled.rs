//! Stalled workers: reclaims, suspects, probes, and workers that are reported as unresponsive.

use super::*;

#[test]
fn a_worker_that_does_not_read_is_skipped_and_its_queue_is_reclaimed() {
    let mut harness = SchedulerHarness::new(4, |_| {});
    harness.accept(1..=8);
    // Worker 2 is frozen, and clients keep coming.
    let mut waited = 0;
    for connection in 9..=100 {
        harness.advance(5 * MS, &[WorkerId(1), WorkerId(3), WorkerId(4)]);
        harness.accept([connection]);
        if harness.queue(WorkerId(2)).iter().any(|record| *record != 0) {
            waited += 5;
        }
    }
    assert!(waited <= 140, "reclaimed after {waited} ms");
    assert_eq!(harness.queue(WorkerId(2)), [0], "the queue holds nothing but one probe");
    let sum = harness.scheduler.counters();
    assert_eq!((sum.reclaimed, sum.re_dispatched, sum.closed()), (3, 3, 0));
    // Worker 2 runs again: it reads the probe and gets its share.
    harness.advance(TICK, &[WorkerId(1), WorkerId(2), WorkerId(3), WorkerId(4)]);
    harness.accept(1..=4);
    assert_eq!(harness.queue(WorkerId(2)).len(), 1);
}

#[test]
fn connections_are_not_passed_back_and_forth_between_two_frozen_workers() {
    let mut harness = SchedulerHarness::new(3, |_| {});
    harness.accept(1..=6);
    harness.advance(2000 * MS, &[WorkerId(1)]);
    let sum = harness.scheduler.counters();
    assert_eq!((sum.reclaimed, sum.re_dispatched), (4, 4));
    assert_eq!((harness.queue(WorkerId(2)), harness.queue(WorkerId(3))), (vec![0], vec![0]));
}

#[test]
fn while_all_workers_are_stalled_nothing_is_reclaimed_or_accepted() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept(1..=6);
    assert!(harness.accepting);
    harness.advance(1000 * MS, &[]);
    assert!(!harness.accepting);
    assert_eq!(harness.scheduler.counters().reclaimed, 0);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
        (vec![1, 3, 5], vec![2, 4, 6])
    );
    // Worker 1 goes on, and gets what worker 2 has not read.
    harness.advance(300 * MS, &[WorkerId(1)]);
    assert!(harness.accepting);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![], vec![0]));
}

#[test]
fn a_worker_that_never_reads_is_unresponsive_whether_others_serve_or_not() {
    for workers in [1, 2] {
        let mut harness =
            SchedulerHarness::new(workers, |options| options.unresponsive = 1000 * MS);
        harness.accept(1..=workers);
        harness.advance(900 * MS, &[WorkerId(2)]);
        assert!(harness.unresponsive.is_empty());
        harness.advance(200 * MS, &[WorkerId(2)]);
        assert_eq!(harness.unresponsive.first(), Some(&WorkerId(1)));
    }
}

#[test]
fn a_slow_worker_is_not_unresponsive() {
    let mut harness = SchedulerHarness::new(1, |options| options.unresponsive = 200 * MS);
    harness.accept(1..=20);
    for _ in 0..20 {
        harness.advance(150 * MS, &[]);
        harness.queues.get_mut(&WorkerId(1)).unwrap().read();
    }
    assert!(harness.unresponsive.is_empty());
}

#[test]
fn the_time_in_which_this_process_was_suspended_does_not_count() {
    let mut harness = SchedulerHarness::new(2, |options| options.unresponsive = 1000 * MS);
    harness.accept([1]);
    harness.now += Duration::from_secs(3600);
    harness.tick();
    assert_eq!(harness.queue(WorkerId(1)), [1]);
    assert!(harness.unresponsive.is_empty());
    harness.advance(200 * MS, &[WorkerId(2)]);
    assert_eq!(harness.queue(WorkerId(1)), [0]);
}

#[test]
fn a_worker_that_was_stalled_before_a_suspension_has_the_rest_of_its_time_after_it() {
    let mut harness = SchedulerHarness::new(1, |options| options.unresponsive = 1000 * MS);
    harness.accept([1]);
    harness.advance(500 * MS, &[]);
    harness.now += Duration::from_secs(3600);
    harness.tick();
    harness.advance(400 * MS, &[]);
    assert!(harness.unresponsive.is_empty());
    harness.advance(200 * MS, &[]);
    assert_eq!(harness.unresponsive.first(), Some(&WorkerId(1)));
}

#[test]
fn a_suspect_is_reclaimed_again_only_when_more_than_its_probe_lies_in_its_queue() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept([1, 2]);
    harness.is_out_of_descriptors = true;
    harness.advance(STALLED, &[WorkerId(2)]);
    assert_eq!(harness.queue(WorkerId(1)), [1, PROBE], "nothing could be reclaimed");
    harness.is_out_of_descriptors = false;
    harness.advance(TICK, &[]);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![PROBE], vec![1]));
    let reclaims = harness.reclaims;
    harness.advance(1000 * MS, &[WorkerId(2)]);
    assert_eq!((harness.queue(WorkerId(1)), harness.reclaims), (vec![PROBE], reclaims));
}

#[test]
fn a_worker_short_of_descriptors_loses_its_records_at_once_and_is_back_when_it_has_some() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    let page = Arc::new(ModelPage::default());
    harness.scheduler.set_page(WorkerId(1), page.clone());
    harness.accept([1, 2]);
    page.set_short_of_descriptors(true);
    // The worker cannot read its connection; the first tick reclaims it.
    harness.advance(TICK, &[WorkerId(2)]);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.scheduler.counters().reclaimed),
        (vec![PROBE], 1)
    );
    // It reads probes, and gets no connection for that, nor is it taken for unresponsive.
    harness.advance(40_000 * MS, &[WorkerId(1), WorkerId(2)]);
    harness.accept([3, 4]);
    assert_eq!(harness.queue(WorkerId(2)), [3, 4]);
    assert!(harness.unresponsive.is_empty());
    page.set_short_of_descriptors(false);
    harness.advance(TICK, &[WorkerId(1), WorkerId(2)]);
    harness.accept([5, 6]);
    assert_eq!(harness.queue(WorkerId(1)).len() + harness.queue(WorkerId(2)).len(), 2);
    assert_eq!(harness.queue(WorkerId(1)).len(), 1);
}

#[test]
fn a_paused_listener_gets_nothing_and_its_worker_is_not_unresponsive() {
    for workers in [1, 2] {
        let mut harness =
            SchedulerHarness::new(workers, |options| options.unresponsive = 1000 * MS);
        let page = Arc::new(ModelPage::default());
        harness.scheduler.set_page(WorkerId(1), page.clone());
        harness.accept(1..=workers);
        page.set_paused(true);
        let others = [WorkerId(2)];
        harness.advance(5000 * MS, &others);
        assert!(harness.unresponsive.is_empty());
        harness.accept([8, 9]);
        harness.advance(100 * MS, &[]);
        let queue = harness.queue(WorkerId(1));
        if workers == 1 {
            assert_eq!((queue, harness.accepting), (vec![1], false), "clients wait");
        } else {
            assert_eq!((queue, harness.queue(WorkerId(2))), (vec![PROBE], vec![8, 9]));
        }
        // The worker accepts again.
        page.set_paused(false);
        harness.step(|scheduler, now, out| scheduler.dispatch_waiting(now, out));
        harness.advance(TICK, &[WorkerId(1), WorkerId(2)]);
        harness.accept([10, 11]);
        assert!(harness.accepting && !harness.queue(WorkerId(1)).is_empty());
    }
}

#[test]
fn a_worker_that_gives_signs_of_life_is_not_unresponsive() {
    let mut harness = SchedulerHarness::new(1, |options| options.unresponsive = 1000 * MS);
    let page = Arc::new(ModelPage::default());
    harness.scheduler.set_page(WorkerId(1), page.clone());
    harness.accept([1]);
    for _ in 0..10 {
        harness.advance(800 * MS, &[]);
        page.give_sign_of_life();
    }
    assert!(harness.unresponsive.is_empty());
    harness.advance(1300 * MS, &[]);
    assert_eq!(harness.unresponsive.first(), Some(&WorkerId(1)));
}
