//! Round robin: equal shares, strict order, few polls, and no deadline without unread records.

use super::*;

#[test]
fn a_thousand_connections_are_dispatched_to_eight_workers_in_equal_parts() {
    let mut harness = SchedulerHarness::new(8, |_| {});
    let mut counts = [0; 8];
    for connection in 1..=1000 {
        harness.accept([connection]);
        harness.now += 3 * MS;
        let at = (0..8).find(|at| harness.queue(WorkerId(at + 1)).contains(&connection)).unwrap();
        counts[at as usize] += 1;
        let all: Vec<WorkerId> = (1..=8).map(WorkerId).collect();
        harness.read(&all);
        if harness.scheduler.deadline().is_some_and(|due| due <= harness.now) {
            harness.tick();
        }
    }
    assert_eq!(counts, [125; 8]);
}

#[test]
fn the_kernel_is_polled_once_for_each_full_window() {
    let mut harness = SchedulerHarness::new(200, |_| {});
    let all: Vec<WorkerId> = (1..=200).map(WorkerId).collect();
    for connection in 1..=12_800 {
        harness.accept([connection]);
        harness.read(&all);
    }
    assert_eq!(harness.polls, 200);
}

#[test]
fn the_rotation_continues_when_backends_are_added_and_removed() {
    let mut harness = SchedulerHarness::new(3, |_| {});
    harness.accept([1, 2]);
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    // Worker 3 is next in the rotation, and gets what worker 1 had.
    assert_eq!(harness.queue(WorkerId(3)), [1]);
    harness.add(WorkerId(9));
    harness.accept([4, 5]);
    assert_eq!(
        (harness.queue(WorkerId(2)), harness.queue(WorkerId(3)), harness.queue(WorkerId(9))),
        (vec![2, 5], vec![1], vec![4])
    );
}

#[test]
fn any_backend_with_unread_records_is_polled_every_tick() {
    for unread in 1..=5 {
        let mut harness = SchedulerHarness::new(5, |_| {});
        harness.accept(1..=5);
        let readers: Vec<WorkerId> =
            (1..=5).map(WorkerId).filter(|worker| *worker != WorkerId(unread)).collect();
        for _ in 0..4 {
            harness.advance(TICK, &readers);
            assert!(harness.scheduler.deadline().is_some(), "worker {unread} has not read");
        }
        harness.advance(TICK, &[WorkerId(1), WorkerId(2), WorkerId(3), WorkerId(4), WorkerId(5)]);
        assert_eq!(harness.scheduler.deadline(), None);
    }
}

#[test]
fn without_unread_records_there_is_no_deadline() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    assert_eq!(harness.scheduler.deadline(), None);
    harness.accept([1]);
    assert_eq!(harness.scheduler.deadline(), Some(harness.now + TICK));
    harness.advance(TICK, &[WorkerId(1), WorkerId(2)]);
    assert_eq!(harness.scheduler.deadline(), None);
}

#[test]
fn a_worker_that_has_not_reported_that_it_listens_gets_nothing() {
    let mut harness = SchedulerHarness::new(1, |_| {});
    harness.scheduler.add_backend(WorkerId(2), 2, WorkerKind::Native, None);
    harness.accept(1..=3);
    assert_eq!(harness.queue(WorkerId(1)), [1, 2, 3]);
    assert!(!harness.scheduler.open_backend(WorkerId(7)));
    assert!(harness.scheduler.open_backend(WorkerId(2)));
    assert!(!harness.scheduler.open_backend(WorkerId(2)), "a second report changes nothing");
}

/// Accepts one connection each half millisecond; these workers read all the time.
fn accept_for(harness: &mut SchedulerHarness, connections: std::ops::Range<u32>, readers: &[u32]) {
    let readers: Vec<WorkerId> = readers.iter().copied().map(WorkerId).collect();
    for connection in connections {
        harness.accept([connection]);
        let least = harness.scheduler.backends.iter().map(|backend| backend.owed).min();
        assert_eq!(least, Some(0), "turns that all are owed alike are owed to none");
        harness.advance(MS / 2, &readers);
    }
}

fn dispatched(harness: &SchedulerHarness, worker: u32) -> u64 {
    harness.scheduler.worker_counters(WorkerId(worker)).dispatched
}

#[test]
fn a_worker_that_was_behind_gets_its_turns_back_without_a_burst() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    accept_for(&mut harness, 1..151, &[2]);
    let (one, two) = (dispatched(&harness, 1), dispatched(&harness, 2));
    assert!(one < 40 && one + two == 150, "{one} and {two}");
    // While it catches up the other worker gets at least every fourth connection.
    let mut last = two;
    for first in (151..600).step_by(4) {
        accept_for(&mut harness, first..first + 4, &[1, 2]);
        let now = dispatched(&harness, 2);
        assert!(now > last, "{first}");
        last = now;
    }
    assert!(dispatched(&harness, 1).abs_diff(dispatched(&harness, 2)) <= 1);
    assert_eq!(harness.scheduler.counters().reclaimed, 0);
    // The rotation is strict again.
    let before = dispatched(&harness, 1);
    accept_for(&mut harness, 700..720, &[1, 2]);
    assert_eq!(dispatched(&harness, 1) - before, 10);
}

#[test]
fn turns_that_all_are_owed_alike_are_owed_to_none() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    accept_for(&mut harness, 1..141, &[2]);
    let owed = harness.scheduler.backends[0].owed;
    assert!(owed > 30, "{owed}");
    // Worker 2 is behind before worker 1 has all of its turns back.
    accept_for(&mut harness, 141..241, &[1]);
    assert!(harness.scheduler.backends[1].is_slow);
}

#[test]
fn the_rotation_beside_a_worker_at_its_limit_is_strict() {
    let mut harness = SchedulerHarness::new(0, |_| {});
    harness.add_with_limit(WorkerId(1), 1);
    (2..=4).map(WorkerId).for_each(|worker| harness.add(worker));
    harness.accept(1..=4);
    for round in 0..20 {
        harness.accept(5 + 3 * round..8 + 3 * round);
        for worker in 2..=4 {
            let last = harness.queue(WorkerId(worker)).last().copied();
            assert_eq!(last, Some(3 + worker + 3 * round), "{round}");
        }
    }
    assert!(harness.scheduler.backends.iter().all(|backend| backend.owed == 0));
}

#[test]
fn workers_that_are_behind_in_turns_end_even() {
    let mut harness = SchedulerHarness::new(3, |_| {});
    for round in 0..30 {
        let readers: Vec<u32> = (1..=3).filter(|worker| *worker != 1 + round % 3).collect();
        accept_for(&mut harness, 1 + round * 100..91 + round * 100, &readers);
        accept_for(&mut harness, 91 + round * 100..101 + round * 100, &[1, 2, 3]);
    }
    accept_for(&mut harness, 5001..5501, &[1, 2, 3]);
    let counts = [1, 2, 3].map(|worker| dispatched(&harness, worker));
    let spread = counts.iter().max().unwrap() - counts.iter().min().unwrap();
    assert!(spread <= 1, "{counts:?}");
}

#[test]
fn a_worker_that_had_stalled_gets_nothing_back() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    accept_for(&mut harness, 1..401, &[2]);
    let reclaimed = harness.scheduler.counters().reclaimed;
    assert!(reclaimed > 0);
    harness.advance(TICK * 2, &[1, 2].map(WorkerId));
    let before = [1, 2].map(|worker| dispatched(&harness, worker));
    accept_for(&mut harness, 501..601, &[1, 2]);
    let after = [1, 2].map(|worker| dispatched(&harness, worker));
    assert_eq!([after[0] - before[0], after[1] - before[1]], [50, 50]);
}
