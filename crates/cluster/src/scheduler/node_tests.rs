//! Lanes of Node workers: one at a time, answers, rests, and the proof of death.

use super::node_backend::NODE_WINDOW;
use super::tests::Glass;
use super::*;
use crate::contract::Answer;

const MS: Duration = Duration::from_millis(1);

fn taken(_: u32) -> Answer<u32> {
    Answer::Taken
}

fn nodes(workers: u32) -> Glass {
    let mut glass = Glass::new(0, |_| {});
    (1..=workers).for_each(|worker| glass.join_as(worker, WorkerKind::Node));
    glass
}

#[test]
fn connections_are_dealt_in_turn_to_those_who_answered() {
    let mut glass = nodes(3);
    for connection in [1, 2, 3, 4, 5, 6] {
        glass.accept([connection]);
        let worker = (connection - 1) % 3 + 1;
        assert_eq!(glass.queue(worker), [connection]);
        glass.answer(worker, 0, taken);
    }
    glass.pass(TICK, &[]);
    assert_eq!(glass.scheduler.deadline(), None, "all is answered");
}

#[test]
fn who_has_one_unanswered_gets_a_second_only_when_nobody_is_free() {
    let mut glass = nodes(2);
    glass.accept([1, 2]);
    glass.answer(2, 0, taken);
    glass.accept([3]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1], vec![3]));
    glass.accept([4, 5, 6]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1, 4, 6], vec![3, 5]));
    glass.accept(7..=18);
    assert_eq!((glass.queue(1).len(), glass.queue(2).len()), (8, 8));
    assert!(!glass.accepting, "both have all they may");
    glass.answer(2, 3, taken);
    assert_eq!(glass.queue(2).len(), 8, "what waited came at once");
}

#[test]
fn a_sticky_client_finds_its_worker_also_before_that_has_answered() {
    let mut glass = Glass::new(0, |options| options.policy = crate::policy::Policy::Sticky);
    (1..=4).for_each(|worker| glass.join_as(worker, WorkerKind::Node));
    glass.accept([7; NODE_WINDOW]);
    let home = (1..=4).find(|worker| !glass.queue(*worker).is_empty()).unwrap();
    assert_eq!(glass.queue(home), [7; NODE_WINDOW]);
    glass.accept([7]);
    assert_eq!(glass.queue(home).len(), NODE_WINDOW, "another took the ninth");
}

#[test]
fn a_free_native_worker_goes_before_a_second_one_for_a_node_worker() {
    let mut glass = Glass::new(1, |_| {});
    glass.join_as(2, WorkerKind::Node);
    glass.accept([1, 2, 3, 4, 5]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1, 3, 4, 5], vec![2]));
    glass.answer(2, 0, taken);
    glass.accept([6, 7, 8]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1, 3, 4, 5, 7, 8], vec![6]));
}

#[test]
fn a_frozen_worker_gets_nothing_new_and_keeps_what_it_has_until_it_is_gone() {
    let mut glass = nodes(2);
    glass.accept([1, 2]);
    glass.answer(2, 0, taken);
    glass.pass(2 * TICK, &[]);
    for connection in 3..=9 {
        glass.accept([connection]);
        glass.answer(2, 0, taken);
    }
    assert_eq!(glass.queue(1), [1], "nothing is taken back");
    assert!(glass.unresponsive.is_empty());
    glass.pass(5000 * MS, &[]);
    assert!(glass.unresponsive.contains(&1) && !glass.unresponsive.contains(&2));
    // The core kills it.
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    assert_eq!(glass.queue(1), [1], "it may have taken it before");
    glass.step(|scheduler, _, out| scheduler.hung_up(1, out));
    assert_eq!(glass.queue(2), [1]);
    assert!(!glass.scheduler.has_backend(1));
}

#[test]
fn the_time_of_one_that_cannot_be_heard_does_not_run() {
    let mut glass = nodes(2);
    glass.accept([1]);
    for connection in 2..1000 {
        glass.scheduler.paused(1);
        glass.pass(TICK, &[]);
        glass.accept([connection]);
        glass.answer(2, 0, taken);
    }
    assert!(glass.unresponsive.is_empty());
    assert_eq!(glass.queue(1), [1], "it is heard no sooner than it answers");
    glass.answer(1, 0, taken);
    glass.accept([1000, 1001]);
    assert_eq!((glass.queue(1).len(), glass.queue(2).len()), (1, 1));
    glass.pass(5020 * MS, &[]);
    assert!(glass.unresponsive.contains(&1));
}

#[test]
fn an_answer_that_came_before_the_end_counts() {
    let mut glass = nodes(2);
    glass.accept([1, 2]);
    glass.step(|scheduler, _, out| scheduler.close_backend(1, out));
    assert!(glass.scheduler.has_backend(1));
    glass.answer(1, 0, taken);
    assert!(!glass.scheduler.has_backend(1), "nothing is awaited");
    glass.step(|scheduler, _, out| scheduler.hung_up(1, out));
    assert_eq!(glass.queue(2), [2]);
}

#[test]
fn a_worker_that_lost_one_for_want_of_descriptors_rests_and_is_asked_again() {
    let mut glass = nodes(2);
    glass.accept([1]);
    glass.answer(1, 0, Answer::Lost);
    assert_eq!(glass.queue(2), [1]);
    glass.answer(2, 0, taken);
    glass.accept([2]);
    assert_eq!(glass.queue(2), [2], "1 rests");
    glass.answer(2, 0, taken);
    glass.pass(2 * TICK, &[]);
    glass.accept([3, 4]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![3], vec![4]));
}

#[test]
fn two_at_their_limit_play_no_ping_pong() {
    let mut glass = nodes(2);
    glass.accept([1]);
    let mut declined = 0;
    let end = glass.now + 2000 * MS;
    while glass.now < end {
        for worker in [1, 2] {
            if !glass.queue(worker).is_empty() {
                glass.answer(worker, 0, Answer::Declined);
                declined += 1;
            }
        }
        assert!(!glass.accepting, "nothing new while one waits");
        glass.pass(MS, &[]);
    }
    assert!((20..=50).contains(&declined), "{declined}");
    glass.pass(100 * MS, &[]);
    let worker = if glass.queue(1).is_empty() { 2 } else { 1 };
    glass.answer(worker, 0, taken);
    assert!(glass.accepting);
}

#[test]
fn one_that_declines_gives_to_others_in_the_order_of_age() {
    let mut glass = nodes(1);
    glass.accept([1, 2, 3]);
    glass.join_as(2, WorkerKind::Node);
    glass.answer(1, 1, Answer::Declined);
    glass.answer(1, 0, Answer::Declined);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![3], vec![2, 1]));
    let sum = glass.scheduler.worker_counters(1);
    assert_eq!((sum.dispatched, sum.reclaimed), (3, 2));
}

#[test]
fn one_that_is_to_finish_gets_nothing_more_and_may_be_told_at_once() {
    let mut glass = nodes(2);
    glass.accept([1, 2]);
    glass.step(|scheduler, _, out| scheduler.leave(1, out));
    assert!(glass.scheduler.has_ended(1), "what it was told comes after what it was given");
    glass.answer(2, 0, taken);
    glass.accept([3]);
    assert_eq!((glass.queue(1), glass.queue(2)), (vec![1], vec![3]));
    glass.step(|scheduler, _, out| scheduler.hung_up(1, out));
    assert_eq!(glass.queue(2), [3, 1], "it had not answered");
}
