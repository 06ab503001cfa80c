//! Backends of Node workers: windows, answers, back-off, and the end of the channel.

use super::*;
use crate::scheduler::node_answers::NODE_WINDOW;

fn taken(_: u32) -> Answer<u32> {
    Answer::Taken
}

fn nodes(workers: u32) -> SchedulerHarness {
    let mut harness = SchedulerHarness::new(0, |_| {});
    (1..=workers).for_each(|worker| harness.add_as(WorkerId(worker), WorkerKind::Node));
    harness
}

#[test]
fn connections_are_dispatched_in_rotation_to_workers_that_have_answered() {
    let mut harness = nodes(3);
    for connection in [1, 2, 3, 4, 5, 6] {
        harness.accept([connection]);
        let worker = (connection - 1) % 3 + 1;
        assert_eq!(harness.queue(WorkerId(worker)), [connection]);
        harness.answer(WorkerId(worker), 0, taken);
    }
    harness.advance(TICK, &[]);
    assert_eq!(harness.scheduler.deadline(), None, "all connections are answered");
}

#[test]
fn a_worker_gets_a_second_unanswered_connection_only_when_no_backend_is_free() {
    let mut harness = nodes(2);
    harness.accept([1, 2]);
    harness.answer(WorkerId(2), 0, taken);
    harness.accept([3]);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![1], vec![3]));
    harness.accept([4, 5, 6]);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
        (vec![1, 4, 6], vec![3, 5])
    );
    harness.accept(7..=18);
    assert_eq!((harness.queue(WorkerId(1)).len(), harness.queue(WorkerId(2)).len()), (8, 8));
    assert!(!harness.accepting, "both windows are full");
    harness.answer(WorkerId(2), 3, taken);
    assert_eq!(
        harness.queue(WorkerId(2)).len(),
        8,
        "the waiting connection was dispatched at once"
    );
}

#[test]
fn a_sticky_client_gets_its_worker_again_before_the_worker_has_answered() {
    let mut harness =
        SchedulerHarness::new(0, |options| options.policy = crate::policy::Policy::Sticky);
    (1..=4).for_each(|worker| harness.add_as(WorkerId(worker), WorkerKind::Node));
    harness.accept([7; NODE_WINDOW]);
    let home = (1..=4).find(|worker| !harness.queue(WorkerId(*worker)).is_empty()).unwrap();
    assert_eq!(harness.queue(WorkerId(home)), [7; NODE_WINDOW]);
    harness.accept([7]);
    assert_eq!(harness.queue(WorkerId(home)).len(), NODE_WINDOW, "another worker got the ninth");
}

#[test]
fn a_free_native_worker_comes_before_a_second_connection_for_a_node_worker() {
    let mut harness = SchedulerHarness::new(1, |_| {});
    harness.add_as(WorkerId(2), WorkerKind::Node);
    harness.accept([1, 2, 3, 4, 5]);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
        (vec![1, 3, 4, 5], vec![2])
    );
    harness.answer(WorkerId(2), 0, taken);
    harness.accept([6, 7, 8]);
    assert_eq!(
        (harness.queue(WorkerId(1)), harness.queue(WorkerId(2))),
        (vec![1, 3, 4, 5, 7, 8], vec![6])
    );
}

#[test]
fn a_frozen_worker_gets_nothing_new_and_keeps_its_connections_until_its_channel_has_closed() {
    let mut harness = nodes(2);
    harness.accept([1, 2]);
    harness.answer(WorkerId(2), 0, taken);
    harness.advance(2 * TICK, &[]);
    for connection in 3..=9 {
        harness.accept([connection]);
        harness.answer(WorkerId(2), 0, taken);
    }
    assert_eq!(harness.queue(WorkerId(1)), [1], "nothing is reclaimed");
    assert!(harness.unresponsive.is_empty());
    harness.advance(5000 * MS, &[]);
    assert!(
        harness.unresponsive.contains(&WorkerId(1)) && !harness.unresponsive.contains(&WorkerId(2))
    );
    // The supervisor kills the worker.
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert_eq!(harness.queue(WorkerId(1)), [1], "the worker may have taken the connection");
    harness.step(|scheduler, _, out| scheduler.channel_closed(WorkerId(1), out));
    assert_eq!(harness.queue(WorkerId(2)), [1]);
    assert!(!harness.scheduler.has_backend(WorkerId(1)));
}

#[test]
fn the_time_of_a_worker_whose_channel_is_not_read_does_not_count() {
    let mut harness = nodes(2);
    harness.accept([1]);
    for connection in 2..1000 {
        harness.scheduler.paused(WorkerId(1));
        harness.advance(TICK, &[]);
        harness.accept([connection]);
        harness.answer(WorkerId(2), 0, taken);
    }
    assert!(harness.unresponsive.is_empty());
    assert_eq!(harness.queue(WorkerId(1)), [1], "only an answer ends the pause");
    harness.answer(WorkerId(1), 0, taken);
    harness.accept([1000, 1001]);
    assert_eq!((harness.queue(WorkerId(1)).len(), harness.queue(WorkerId(2)).len()), (1, 1));
    harness.advance(5020 * MS, &[]);
    assert!(harness.unresponsive.contains(&WorkerId(1)));
}

#[test]
fn an_answer_that_arrives_before_the_channel_closes_counts() {
    let mut harness = nodes(2);
    harness.accept([1, 2]);
    harness.step(|scheduler, _, out| scheduler.close_backend(WorkerId(1), out));
    assert!(harness.scheduler.has_backend(WorkerId(1)));
    harness.answer(WorkerId(1), 0, taken);
    assert!(!harness.scheduler.has_backend(WorkerId(1)), "no answer is due");
    harness.step(|scheduler, _, out| scheduler.channel_closed(WorkerId(1), out));
    assert_eq!(harness.queue(WorkerId(2)), [2]);
}

#[test]
fn the_end_of_a_channel_on_which_nothing_is_unanswered_removes_the_backend_at_once() {
    let mut harness = nodes(2);
    harness.accept([1]);
    harness.answer(WorkerId(1), 0, taken);
    let mut out = Vec::new();
    harness.scheduler.channel_closed(WorkerId(1), &mut out);
    assert_eq!(out, [Output::DropQueue { worker: WorkerId(1), key: 1 }]);
}

#[test]
fn a_worker_that_lost_a_connection_for_want_of_descriptors_is_retried_after_a_back_off() {
    let mut harness = nodes(2);
    harness.accept([1]);
    harness.answer(WorkerId(1), 0, Answer::Lost);
    assert_eq!(harness.queue(WorkerId(2)), [1]);
    harness.answer(WorkerId(2), 0, taken);
    harness.accept([2]);
    assert_eq!(harness.queue(WorkerId(2)), [2], "worker 1 is in its back-off");
    harness.answer(WorkerId(2), 0, taken);
    harness.advance(2 * TICK, &[]);
    harness.accept([3, 4]);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![3], vec![4]));
}

#[test]
fn the_answers_to_one_batch_begin_one_back_off() {
    let mut harness = nodes(1);
    harness.accept(1..=4);
    for _ in 1..=4 {
        harness.answer(WorkerId(1), 0, Answer::Declined);
    }
    assert!(harness.queue(WorkerId(1)).is_empty());
    harness.advance(TICK, &[]);
    assert!(!harness.queue(WorkerId(1)).is_empty(), "the first back-off is a tick");
}

#[test]
fn a_connection_is_not_passed_back_and_forth_between_two_workers_at_their_limit() {
    let mut harness = nodes(2);
    harness.accept([1]);
    let mut declined = 0;
    let end = harness.now + 2000 * MS;
    while harness.now < end {
        for worker in [1, 2] {
            if !harness.queue(WorkerId(worker)).is_empty() {
                harness.answer(WorkerId(worker), 0, Answer::Declined);
                declined += 1;
            }
        }
        assert!(!harness.accepting, "nothing is accepted while a connection waits");
        harness.advance(MS, &[]);
    }
    assert!((20..=50).contains(&declined), "{declined}");
    harness.advance(100 * MS, &[]);
    let worker = if harness.queue(WorkerId(1)).is_empty() { 2 } else { 1 };
    harness.answer(WorkerId(worker), 0, taken);
    assert!(harness.accepting);
}

#[test]
fn declined_connections_go_to_other_workers() {
    let mut harness = nodes(1);
    harness.accept([1, 2, 3]);
    harness.add_as(WorkerId(2), WorkerKind::Node);
    harness.answer(WorkerId(1), 1, Answer::Declined);
    harness.answer(WorkerId(1), 0, Answer::Declined);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![3], vec![2, 1]));
    let sum = harness.scheduler.worker_counters(WorkerId(1));
    assert_eq!((sum.dispatched, sum.reclaimed), (3, 2));
}

#[test]
fn a_draining_worker_gets_nothing_more_and_may_be_disconnected_at_once() {
    let mut harness = nodes(2);
    harness.accept([1, 2]);
    harness.step(|scheduler, _, out| scheduler.drain_backend(WorkerId(1), out));
    assert!(
        harness.scheduler.may_disconnect(WorkerId(1)),
        "the disconnect message follows the connections on the channel"
    );
    harness.answer(WorkerId(2), 0, taken);
    harness.accept([3]);
    assert_eq!((harness.queue(WorkerId(1)), harness.queue(WorkerId(2))), (vec![1], vec![3]));
    harness.step(|scheduler, _, out| scheduler.channel_closed(WorkerId(1), out));
    assert_eq!(harness.queue(WorkerId(2)), [3, 1], "worker 1 had not answered");
}
