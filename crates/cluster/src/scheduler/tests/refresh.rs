//! Refresh: slow backends are polled before they are skipped.

use super::*;

#[test]
fn a_slow_backend_is_polled_when_its_turn_comes() {
    let mut harness = SchedulerHarness::new(3, |_| {});
    harness.accept(1..=3);
    harness.advance(SLOW, &[WorkerId(1), WorkerId(3)]);
    // Worker 2 has not read yet: after one poll it is skipped.
    let polls = harness.polls;
    harness.accept(4..=6);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2)), harness.queue(WorkerId(3))),
        (vec![4, 6], vec![2], vec![5])
    );
    assert_eq!(harness.polls, polls + 1);
    // Worker 2 has read long before the next tick: it gets the connection.
    harness.now += MS;
    harness.read(&[WorkerId(2)]);
    // The one after it pays the skipped turn back.
    harness.accept(7..=9);
    assert_eq!((harness.queue(WorkerId(2)), harness.queue(WorkerId(3))), (vec![7, 8], vec![5, 9]));
    assert_eq!(harness.polls, polls + 2);
    assert!(harness.accepting);
}

/// The answer to the poll is due: the connection waits for it though worker 1 is free.
#[test]
fn without_affinity_no_connection_overtakes_one_that_waits_for_a_poll() {
    let mut harness = SchedulerHarness::new(2, |_| {});
    harness.accept([1, 2]);
    harness.advance(SLOW, &[WorkerId(1)]);
    harness.accept([3]);
    harness.now += MS;
    let (scheduler, now, mut out) = (&mut harness.scheduler, harness.now, Vec::new());
    let poll = Output::PollDepth { worker: WorkerId(2), key: 1 };
    scheduler.accepted(4, now, &mut out);
    assert_eq!(out, [poll, Output::Accept { key: 1, on: false }]);
    out.clear();
    scheduler.accepted(5, now, &mut out);
    assert_eq!(out, []);
    scheduler.depth(WorkerId(2), 1, now, &mut out);
    let sent: Vec<_> = out
        .iter()
        .filter_map(|output| match output {
            Output::Send { worker, connection, .. } => Some((worker.0, *connection)),
            _ => None,
        })
        .collect();
    assert_eq!(sent, [(1, 4), (1, 5)], "{out:?}");
}

#[test]
fn a_slow_backend_is_polled_once_however_many_connections_come_at_once() {
    for (policy, polls_left) in [(Policy::RoundRobin, 190), (Policy::LeastLoaded, 8)] {
        let mut harness = SchedulerHarness::new(200, |options| options.policy = policy);
        harness.accept(1..=200);
        let others: Vec<WorkerId> = (191..=200).map(WorkerId).collect();
        harness.advance(SLOW, &others);
        // The slow workers may have closed their connections: by the counter they have the least.
        let page = Arc::new(ModelPage::with_closed(9));
        (1..=190).for_each(|worker| harness.scheduler.set_page(WorkerId(worker), page.clone()));
        let polls = harness.polls;
        harness.accept(201..=220);
        assert_eq!(harness.polls - polls, polls_left, "{policy:?}");
        let has_new = |worker: &WorkerId| harness.queue(*worker).len() == 2;
        assert!(others.iter().all(has_new), "{policy:?}");
        // A millisecond later the polls are not valid any more.
        harness.now += MS;
        harness.read(&(1..=190).map(WorkerId).collect::<Vec<_>>());
        harness.accept([221]);
        assert_eq!(harness.polls - polls, 2 * polls_left, "{policy:?}");
        assert_eq!(harness.queue(WorkerId(1)), [221], "{policy:?}");
    }
}

#[test]
fn a_slow_backend_is_polled_before_a_node_worker_gets_a_second_connection() {
    for policy in [Policy::RoundRobin, Policy::LeastLoaded] {
        let mut harness = SchedulerHarness::new(0, |options| options.policy = policy);
        harness.add_as(WorkerId(1), WorkerKind::Node);
        harness.add(WorkerId(2));
        harness.accept([1, 2]);
        harness.answer(WorkerId(1), 0, |_| Answer::Taken);
        harness.advance(SLOW - 5 * MS, &[]);
        harness.accept([3, 4]);
        assert_eq!(
            (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
            (vec![3], vec![2, 4]),
            "{policy:?}"
        );
        harness.advance(5 * MS, &[]);
        let polls = harness.polls;
        harness.accept([5]);
        assert_eq!(
            (harness.queue(WorkerId(1)), harness.polls),
            (vec![3, 5], polls + 1),
            "{policy:?}"
        );
        harness.now += MS;
        harness.read(&[WorkerId(2)]);
        harness.accept([6]);
        assert_eq!(
            (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
            (vec![3, 5], vec![6]),
            "{policy:?}"
        );
    }
}

#[test]
fn each_of_several_slow_backends_is_polled_before_it_is_skipped() {
    let mut harness = SchedulerHarness::new(4, |_| {});
    harness.accept(1..=4);
    harness.advance(SLOW, &[WorkerId(3), WorkerId(4)]);
    harness.read(&[WorkerId(2)]);
    // The answer that worker 1 has not read arrives first.
    harness.accept([5]);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2)), harness.queue(WorkerId(3))),
        (vec![1], vec![5], vec![])
    );
    assert_eq!(harness.scheduler.counters().waiting, 0);
}

#[test]
fn a_slow_backend_with_less_load_is_polled_before_another_is_picked() {
    let mut harness = SchedulerHarness::new(0, |options| options.policy = Policy::LeastLoaded);
    let _ends = [harness.add_with_limit(WorkerId(1), 9), harness.add_with_limit(WorkerId(2), 9)];
    harness.accept(1..=6);
    harness.read(&[WorkerId(2)]);
    let page = harness.add_with_limit(WorkerId(3), 9);
    harness.accept([7]);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(3))), (vec![1, 3, 5], vec![7]));
    // Worker 3 has the least load, and worker 1 no more than worker 2, but both are slow.
    harness.advance(SLOW, &[]);
    let polls = harness.polls;
    harness.accept([8]);
    assert_eq!((harness.queue(WorkerId(2)), harness.polls), (vec![8], polls + 2));
    harness.now += MS;
    harness.read(&[WorkerId(3)]);
    harness.accept([9]);
    assert_eq!((harness.queue(WorkerId(3)), harness.polls), (vec![9], polls + 4));
    assert!(!harness.close_one(&page), "the primary does not await it");
}
