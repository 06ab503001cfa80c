//! Client affinity: patience with slow workers, and polls before a client moves.

use super::*;
use crate::scheduler::dispatch::IN_FLIGHT_PAUSE;

/// Returns the harness, and the workers in the order in which they get client 1: a connection is
/// of that client if its number is 1 modulo 16, see `ClientAffinity`.
fn sticky_harness(
    workers: u32,
    change: impl FnOnce(&mut SupervisorOptions),
) -> (SchedulerHarness, Vec<WorkerId>) {
    let harness = SchedulerHarness::new(workers, |options| {
        options.policy = Policy::Sticky;
        change(options);
    });
    let mut order: Vec<WorkerId> = (1..=workers).map(WorkerId).collect();
    order.sort_by_key(|slot| std::cmp::Reverse(crate::scheduler::pick::sticky::weight(1, slot.0)));
    (harness, order)
}

#[test]
fn a_sticky_client_stays_with_a_worker_until_the_worker_is_killed() {
    let (mut harness, order) = sticky_harness(3, |options| {
        options.unresponsive = Duration::from_secs(5);
    });
    harness.accept([1]);
    let mut sent = vec![1];
    for half in 1..10 {
        harness.advance(500 * MS, &[]);
        harness.accept([1 + 16 * half]);
        sent.push(1 + 16 * half);
        assert_eq!(harness.queue(order[0]), sent, "{half} halves of a second");
        assert!(harness.unresponsive.is_empty());
    }
    harness.advance(500 * MS + TICK, &[]);
    assert!(harness.unresponsive.contains(&order[0]));
    harness.step(|scheduler, _, out| scheduler.close_backend(order[0], out));
    assert_eq!(harness.queue(order[1]), sent);
    assert_eq!(harness.scheduler.counters().reclaimed, 10);
}

#[test]
fn a_sticky_client_stays_for_ever_where_no_limit_is_set() {
    let (mut harness, order) = sticky_harness(3, |options| options.unresponsive = Duration::MAX);
    harness.accept([1]);
    harness.advance(Duration::from_secs(120), &[]);
    harness.accept([17]);
    assert_eq!(harness.queue(order[0]), [1, 17]);
}

#[test]
fn a_connection_waits_for_its_full_home_while_those_of_other_homes_go_on() {
    for kind in [WorkerKind::Native, WorkerKind::Node] {
        let (mut harness, order) = sticky_harness(3, |options| options.window = 2);
        if kind == WorkerKind::Node {
            let unresponsive = Duration::from_secs(9);
            (harness, _) = sticky_harness(0, |options| {
                (options.window, options.unresponsive_node) = (2, unresponsive);
            });
            (1..=3).for_each(|worker| harness.add_as(WorkerId(worker), kind));
        }
        harness.accept([1, 17, 33, 49]);
        assert_eq!(harness.queue(order[0]), [1, 17], "{kind:?}");
        assert_eq!(harness.scheduler.counters().waiting, 2);
        // Another client, whose home is another worker.
        let other = (2..16)
            .find(|client| {
                let weight = |worker: &WorkerId| {
                    crate::scheduler::pick::sticky::weight(u64::from(*client), worker.0)
                };
                order.iter().max_by_key(|worker| weight(worker)) != Some(&order[0])
            })
            .unwrap();
        assert!(harness.accepting);
        harness.accept([other]);
        assert_eq!(harness.scheduler.counters().waiting, 2, "it did not wait behind the others");
        // Four seconds later the home reads, and gets the rest.
        harness.advance(4000 * MS, &order[1..]);
        assert_eq!(harness.queue(order[0]), [1, 17], "{kind:?}");
        match kind {
            WorkerKind::Native => harness.advance(TICK, &order[..1]),
            WorkerKind::Node => {
                for _ in 0..2 {
                    harness.answer(order[0], 0, |_| Answer::Taken);
                }
            }
        }
        harness.advance(TICK, &[]);
        let last = harness.queue(order[0]);
        assert!(last.ends_with(&[33, 49]) || last.is_empty(), "{kind:?}: {last:?}");
        assert_eq!(harness.scheduler.worker_counters(order[0]).dispatched, 4, "{kind:?}");
    }
}

#[test]
fn a_home_with_room_gets_its_clients_though_older_connections_wait_for_another() {
    let (mut harness, order) = sticky_harness(3, |options| options.window = 1);
    let weight = |client: u32, worker: &WorkerId| {
        crate::scheduler::pick::sticky::weight(u64::from(client), worker.0)
    };
    let is_of_the_second =
        |client: &u32| order.iter().max_by_key(|worker| weight(*client, worker)) == Some(&order[1]);
    let other = (2..16).find(is_of_the_second).unwrap();
    harness.accept([1, 17, other, other + 16]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![1], vec![other]));
    harness.read(&order[1..2]);
    harness.advance(2 * MS, &[]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![1], vec![other + 16]));
    assert_eq!(harness.scheduler.counters().waiting, 1);
}

/// Two bursts of one client at a Node worker, of which the second comes before the primary has the
/// answers to the first: together they are more than the window of a Node worker.
#[test]
fn a_second_burst_of_a_client_before_the_answers_to_the_first_stays_at_its_worker() {
    let (mut harness, order) = sticky_harness(0, |_| {});
    assert!(order.is_empty());
    (1..=3).for_each(|worker| harness.add_as(WorkerId(worker), WorkerKind::Node));
    harness.accept((0..12).map(|number| 1 + 16 * number));
    let home = (1..=3).map(WorkerId).find(|worker| !harness.queue(*worker).is_empty()).unwrap();
    for _ in 0..12 {
        harness.answer(home, 0, |_| Answer::Taken);
    }
    assert_eq!(harness.scheduler.worker_counters(home).dispatched, 12);
}

#[test]
fn a_full_list_of_waiting_connections_passes_a_home_over_that_has_hung_for_a_second() {
    let (mut harness, order) = sticky_harness(3, |options| {
        (options.window, options.waiting) = (2, 6);
    });
    harness.accept((0..6).map(|number| 1 + 16 * number));
    assert_eq!((harness.queue(order[0]).len(), harness.scheduler.counters().waiting), (2, 4));
    assert!(!harness.accepting, "the list has room for what may come back");
    harness.advance(900 * MS, &order[1..]);
    assert_eq!(harness.scheduler.counters().waiting, 4);
    harness.advance(100 * MS + TICK, &order[1..]);
    assert!(harness.scheduler.counters().waiting < 4, "one of them moved");
    assert!(harness.accepting, "and the other clients are served");
    assert!(harness.closed.is_empty());
}

#[test]
fn the_patience_with_slow_workers_ends_when_the_address_is_closed() {
    let (mut harness, order) = sticky_harness(2, |_| {});
    harness.accept([1]);
    harness.step(|scheduler, _, out| scheduler.close_address(out));
    harness.advance(STALLED + TICK, &[]);
    assert_eq!(harness.queue(order[1]), [1]);
}

#[test]
fn a_sticky_client_waits_out_a_pause_after_too_many_descriptors_in_flight() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    harness.refusal = Some(Refusal::InFlight);
    harness.accept([17, 33, 49, 65, 81]);
    assert_eq!(harness.scheduler.counters().waiting, 5);
    harness.refusal = None;
    harness.advance(IN_FLIGHT_PAUSE, &[]);
    assert_eq!(harness.queue(order[0]), [17, 33, 49, 65, 81]);
}

#[test]
fn a_full_home_is_polled_before_its_client_waits() {
    let (mut harness, order) = sticky_harness(3, |options| options.window = 2);
    harness.accept([1, 17]);
    assert_eq!(harness.queue(order[0]), [1, 17]);
    let polls = harness.polls;
    harness.accept([33]);
    assert_eq!((harness.scheduler.counters().waiting, harness.polls), (1, polls + 1));
    // The worker reads, and the connection follows within milliseconds.
    harness.read(&order[..1]);
    harness.advance(2 * MS, &[]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![33], vec![]));
    // The same holds when the kernel refuses the record.
    harness.refusal = Some(Refusal::Full);
    harness.accept([65]);
    assert_eq!(harness.scheduler.counters().waiting, 1, "its queue is full");
    harness.refusal = None;
    harness.read(&order);
    harness.now += MS;
    harness.step(|scheduler, now, out| scheduler.writable(order[0], now, out));
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![65], vec![]));
}

#[test]
fn clients_of_a_worker_that_can_take_no_more_go_to_another() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    let page = Arc::new(ModelPage::default());
    harness.scheduler.set_page(order[0], page.clone());
    page.set_short_of_descriptors(true);
    harness.accept([1]);
    harness.advance(TICK, &[]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![PROBE], vec![1]));
    page.set_short_of_descriptors(false);
    harness.advance(TICK, &order);
    harness.accept([17]);
    assert_eq!(harness.queue(order[0]), [17]);
}

#[test]
fn a_home_that_can_take_clients_again_is_polled_before_its_client_moves() {
    let (mut harness, order) = sticky_harness(3, |_| {});
    let page = Arc::new(ModelPage::default());
    harness.scheduler.set_page(order[0], page.clone());
    page.set_short_of_descriptors(true);
    harness.accept([1]);
    harness.advance(TICK, &[]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![PROBE], vec![1]));
    // Its worker has a descriptor again and reads the probe, long before the next tick.
    page.set_short_of_descriptors(false);
    harness.now += MS;
    harness.read(&order[..1]);
    let polls = harness.polls;
    harness.accept([17]);
    assert_eq!((harness.queue(order[0]), harness.queue(order[1])), (vec![17], vec![1]));
    assert_eq!(harness.polls, polls + 1, "of the home alone");
}
