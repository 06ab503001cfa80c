//! Tests of every cell of the table, and of what holds for every order of events.

use super::*;
use crate::supervisor::restart::Rng;

use Action::{Forget, Kill, Release, SendDisconnect, Terminate, Vacate};
use Event as E;
use Intent as W;
use Stage as S;

const FORK: Action = Action::Emit(Notice::Fork);
const ONLINE: Action = Action::Emit(Notice::Online);
const DISCONNECT: Action = Action::Emit(Notice::Disconnect);
const EXIT: Action = Action::Emit(Notice::Exit);

const TIMES: Times = Times {
    disconnect: Duration::from_secs(5),
    term: Duration::from_secs(2),
    sigterm_after: None,
    ready_after: Some(Duration::from_secs(1)),
};

const EVENTS: [Event; 11] = [
    E::Spawned,
    E::SpawnFailed,
    E::Online,
    E::Listening,
    E::Finish,
    E::QueuesEnded,
    E::Kill,
    E::ChannelClosed,
    E::Exited,
    E::Due,
    E::Expire,
];

/// Returns a life after these events.
fn after(events: &[Event]) -> Lifecycle {
    let mut life = Lifecycle::new();
    for event in events {
        life.step(*event, Instant::now(), &TIMES);
    }
    life
}

type Cell = (Stage, &'static [Action]);

/// Checks the cells of a row, in the order of [`EVENTS`].
fn check_row(way: &[Event], stage: Stage, row: [Cell; 11]) {
    assert_eq!(after(way).stage(), stage, "{way:?}");
    for (event, (next, actions)) in EVENTS.into_iter().zip(row) {
        let mut life = after(way);
        let returned = life.step(event, Instant::now(), &TIMES);
        assert_eq!((life.stage(), returned), (next, actions), "{stage:?} and {event:?}");
    }
}

const END: &[Action] = &[Release, EXIT, Vacate];

#[test]
fn a_worker_that_is_being_started() {
    use S::Starting as O;
    let row = |intent: Intent, spawned: Cell, online: Cell, listening: Cell, finish: Intent| {
        [
            spawned,
            (S::Dead, &[Vacate, Forget][..]),
            online,
            listening,
            (O(finish), &[][..]),
            (O(intent), &[][..]),
            (O(W::Kill), &[][..]),
            (O(intent), &[DISCONNECT][..]),
            (S::Dead, END),
            (O(intent), &[][..]),
            (O(intent), &[][..]),
        ]
    };
    let run =
        row(W::Run, (S::Started, &[FORK]), (S::Online, &[ONLINE]), (S::Listening, &[]), W::Finish);
    check_row(&[], O(W::Run), run);
    let stays: Cell = (O(W::Finish), &[]);
    let finish = row(W::Finish, (S::Draining, &[FORK]), stays, stays, W::Finish);
    check_row(&[E::Finish], O(W::Finish), finish);
    let stays: Cell = (O(W::Kill), &[]);
    let kill = row(W::Kill, (S::Killed, &[FORK, Kill]), stays, stays, W::Kill);
    check_row(&[E::Kill], O(W::Kill), kill);
}

#[test]
fn a_worker_whose_runtime_has_not_reported() {
    check_row(
        &[E::Spawned],
        S::Started,
        [
            (S::Started, &[]),
            (S::Started, &[]),
            (S::Online, &[ONLINE]),
            (S::Listening, &[]),
            (S::Draining, &[]),
            (S::Started, &[]),
            (S::Killed, &[Release, Kill]),
            (S::Disconnected, &[Release, DISCONNECT]),
            (S::Dead, END),
            (S::Started, &[]),
            (S::Started, &[]),
        ],
    );
}

#[test]
fn a_worker_that_is_online() {
    check_row(
        &[E::Spawned, E::Online],
        S::Online,
        [
            (S::Online, &[]),
            (S::Online, &[]),
            (S::Online, &[]),
            (S::Listening, &[]),
            (S::Draining, &[]),
            (S::Online, &[]),
            (S::Killed, &[Release, Kill]),
            (S::Disconnected, &[Release, DISCONNECT]),
            (S::Dead, END),
            (S::Online, &[]),
            (S::Online, &[]),
        ],
    );
}

#[test]
fn a_worker_that_listens() {
    check_row(
        &[E::Spawned, E::Online, E::Listening],
        S::Listening,
        [
            (S::Listening, &[]),
            (S::Listening, &[]),
            (S::Listening, &[]),
            (S::Listening, &[]),
            (S::Draining, &[]),
            (S::Listening, &[]),
            (S::Killed, &[Release, Kill]),
            (S::Disconnected, &[Release, DISCONNECT]),
            (S::Dead, END),
            (S::Listening, &[]),
            (S::Listening, &[]),
        ],
    );
}

#[test]
fn a_worker_whose_channel_closed() {
    check_row(
        &[E::Spawned, E::Online, E::ChannelClosed],
        S::Disconnected,
        [
            (S::Disconnected, &[]),
            (S::Disconnected, &[]),
            (S::Disconnected, &[]),
            (S::Disconnected, &[]),
            (S::Disconnected, &[]),
            (S::Disconnected, &[]),
            (S::Killed, &[Release, Kill]),
            (S::Disconnected, &[]),
            (S::Dead, &[Release, EXIT, Vacate, Forget]),
            (S::Terminated, &[Terminate]),
            (S::Terminated, &[Terminate]),
        ],
    );
}

#[test]
fn a_worker_that_finishes() {
    check_row(
        &[E::Spawned, E::Online, E::Finish],
        S::Draining,
        [
            (S::Draining, &[]),
            (S::Draining, &[]),
            (S::Draining, &[]),
            (S::Draining, &[]),
            (S::Draining, &[]),
            (S::Draining, &[SendDisconnect]),
            (S::Killed, &[Release, Kill]),
            (S::Draining, &[DISCONNECT]),
            (S::Dead, END),
            (S::Terminated, &[Terminate]),
            (S::Terminated, &[Terminate]),
        ],
    );
}

#[test]
fn a_worker_that_got_sigterm() {
    check_row(
        &[E::Spawned, E::Online, E::Finish, E::Due],
        S::Terminated,
        [
            (S::Terminated, &[]),
            (S::Terminated, &[]),
            (S::Terminated, &[]),
            (S::Terminated, &[]),
            (S::Terminated, &[]),
            (S::Terminated, &[]),
            (S::Killed, &[Release, Kill]),
            (S::Terminated, &[DISCONNECT]),
            (S::Dead, END),
            (S::Killed, &[Release, Kill]),
            (S::Terminated, &[]),
        ],
    );
}

#[test]
fn a_worker_that_got_sigkill() {
    check_row(
        &[E::Spawned, E::Online, E::Kill],
        S::Killed,
        [
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[]),
            (S::Killed, &[DISCONNECT]),
            (S::Dead, END),
            (S::Killed, &[]),
            (S::Killed, &[]),
        ],
    );
}

#[test]
fn a_dead_worker_whose_channel_has_not_closed() {
    check_row(
        &[E::Spawned, E::Exited],
        S::Dead,
        [
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[]),
            (S::Dead, &[DISCONNECT, Forget]),
            (S::Dead, &[]),
            (S::Dead, &[DISCONNECT, Forget]),
            (S::Dead, &[]),
        ],
    );
}

#[test]
fn events_that_overtake_the_start() {
    for (way, stage, actions) in [
        (&[E::Online][..], S::Online, &[FORK][..]),
        (&[E::Listening], S::Listening, &[FORK]),
        (&[E::ChannelClosed], S::Disconnected, &[FORK]),
        (&[E::Online, E::Finish], S::Draining, &[FORK]),
        (&[E::Online, E::Kill], S::Killed, &[FORK, Kill]),
        (&[E::Exited], S::Dead, &[]),
    ] {
        let mut life = after(way);
        let returned = life.step(E::Spawned, Instant::now(), &TIMES);
        assert_eq!((life.stage(), returned), (stage, actions), "{way:?}");
    }
    let mut life = after(&[E::Listening]);
    assert_eq!(life.step(E::Online, Instant::now(), &TIMES), [ONLINE]);
    assert_eq!(after(&[E::ChannelClosed, E::Online]).stage(), S::Starting(W::Run));
}

#[test]
fn only_an_exit_after_a_request_counts_as_requested() {
    for (way, requested) in [
        (&[E::Spawned, E::Exited][..], false),
        (&[E::Spawned, E::Kill, E::Exited], false),
        (&[E::Spawned, E::ChannelClosed, E::Due, E::Due, E::Exited], false),
        (&[E::Spawned, E::Exited, E::Finish], false),
        (&[E::Finish, E::Spawned, E::Exited], true),
        (&[E::Spawned, E::Finish, E::Exited], true),
        (&[E::Spawned, E::ChannelClosed, E::Finish, E::Exited], true),
        (&[E::Spawned, E::Finish, E::Due, E::Due, E::Exited], true),
    ] {
        assert_eq!(after(way).exit_requested(), requested, "{way:?}");
    }
}

#[test]
fn deadlines_belong_to_stages() {
    let now = Instant::now();
    for (way, seconds) in [
        (&[E::Spawned][..], None),
        (&[E::Spawned, E::Online], Some(1)),
        (&[E::Spawned, E::Online, E::Due], None),
        (&[E::Spawned, E::Online, E::Listening], None),
        (&[E::Spawned, E::Online, E::ChannelClosed], Some(5)),
        (&[E::Spawned, E::Finish], Some(5)),
        (&[E::Spawned, E::Finish, E::Due], Some(2)),
        (&[E::Spawned, E::Finish, E::Due, E::Due], None),
        (&[E::Spawned, E::Exited], Some(1)),
        (&[E::Spawned, E::ChannelClosed, E::Exited], None),
    ] {
        let mut life = Lifecycle::new();
        for event in way {
            life.step(*event, now, &TIMES);
        }
        let deadline = life.deadline().map(|at| (at - now).as_secs());
        assert_eq!(deadline, seconds, "{way:?}");
    }
    // An event that changes nothing does not move a deadline.
    let mut life = after(&[E::Spawned, E::Finish]);
    let deadline = life.deadline();
    life.step(E::Online, now + Duration::from_secs(1), &TIMES);
    assert_eq!(life.deadline(), deadline);
}

#[test]
fn a_worker_is_ready_when_it_listens_or_has_been_online_for_long_enough() {
    assert!(!after(&[E::Spawned, E::Online]).is_ready());
    assert!(after(&[E::Spawned, E::Online, E::Due]).is_ready());
    assert!(after(&[E::Spawned, E::Listening]).is_ready());
    assert!(after(&[E::Spawned, E::Listening, E::Exited]).is_ready());
    assert!(after(&[E::Spawned]).may_serve());
    assert!(!after(&[E::Spawned, E::Finish]).may_serve());
    // Messages and requests can overtake `Spawned`.
    assert!(after(&[]).may_serve());
    assert!(!after(&[E::Finish]).may_serve());
    assert!(!after(&[E::ChannelClosed]).may_serve());
}

#[test]
fn in_every_order_of_events_each_action_is_returned_once() {
    for seed in 0..20_000 {
        let mut rng = Rng::new(seed);
        let mut life = Lifecycle::new();
        let mut actions = Vec::new();
        let now = Instant::now();
        for _ in 0..30 {
            let at = usize::try_from(rng.next() % 10).unwrap();
            // All but `Due`, which follows below.
            let at = if at == 9 { 10 } else { at };
            actions.extend(life.step(EVENTS[at], now, &TIMES).iter().cloned());
            if actions.contains(&Forget) {
                break;
            }
            // The supervisor sends `Due` until a life has ended.
            if life.deadline().is_some() && rng.next() % 4 == 0 {
                actions.extend(life.step(E::Due, now, &TIMES).iter().cloned());
            }
            if actions.contains(&Forget) {
                break;
            }
        }
        for once in [FORK, ONLINE, DISCONNECT, EXIT, Vacate, Terminate, SendDisconnect] {
            let times = actions.iter().filter(|action| **action == once).count();
            assert!(times <= 1, "seed {seed}: {once:?} {times} times");
        }
        if actions.contains(&Forget) {
            assert!(actions.contains(&Vacate), "{seed}");
            assert!(!actions.contains(&EXIT) || actions.contains(&DISCONNECT), "{seed}");
        }
    }
}

/// `SIGTERM` is the first notification of a Node program, so its limits are longer. The signal may come earlier, but
/// not before the order to finish, and `SIGKILL` does not come earlier for that.
#[test]
fn a_node_worker_has_limits_of_its_own() {
    let seconds = Duration::from_secs;
    let started = Instant::now();
    // Returns the times of both signals of a worker whose order to finish takes one second.
    let signals = |options: &SupervisorOptions, kind| {
        let times = Times::new(options, kind, None);
        let mut life = after(&[E::Spawned, E::Online, E::Listening]);
        life.step(E::Finish, started, &times);
        let ordered = started + seconds(1);
        assert_eq!(life.step(E::QueuesEnded, ordered, &times), [SendDisconnect]);
        let mut at = [None; 2];
        let wanted: [&[Action]; 2] = [&[Terminate], &[Release, Kill]];
        for (at, actions) in at.iter_mut().zip(wanted) {
            let Some(deadline) = life.deadline() else { break };
            assert_eq!(life.step(E::Due, deadline, &times), actions);
            *at = Some(deadline.duration_since(started).as_millis());
        }
        at
    };
    let mut options = SupervisorOptions::default();
    assert_eq!(signals(&options, WorkerKind::Native), [Some(5000), Some(7000)]);
    assert_eq!(signals(&options, WorkerKind::Node), [Some(9000), Some(27_000)]);
    for (early, sigterm) in [(0, 1200), (2, 3000), (8, 9000), (20, 9000), (u64::MAX, 9000)] {
        options.sigterm_node = Some(seconds(early));
        assert_eq!(signals(&options, WorkerKind::Node), [Some(sigterm), Some(27_000)], "{early} s");
        assert_eq!(signals(&options, WorkerKind::Native), [Some(5000), Some(7000)]);
    }
    options.disconnect_node = Duration::MAX;
    options.sigterm_node = Some(Duration::ZERO);
    assert_eq!(signals(&options, WorkerKind::Node), [Some(1200), Some(19_200)]);
    options.sigterm_node = None;
    assert_eq!(signals(&options, WorkerKind::Node), [None, None]);
}
