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
