//! Every event in every state, and the times at which a socket is tried again.

use super::*;

const MS: Duration = Duration::from_millis(1);
/// The handshake time of closing sockets.
const HANDSHAKES: Duration = Duration::from_millis(5);

/// The columns of the first table.
const OF_THE_LOOP: [AcceptEvent; 7] = [
    AcceptEvent::Accepted,
    AcceptEvent::WouldBlock,
    AcceptEvent::ConnectionError,
    AcceptEvent::ResourceError,
    AcceptEvent::Readable,
    AcceptEvent::Watched,
    AcceptEvent::WatchFailed,
];

/// The columns of the second table.
const OF_THE_SUPERVISOR: [AcceptEvent; 7] = [
    AcceptEvent::Accept(true),
    AcceptEvent::Accept(false),
    AcceptEvent::AcceptOnBehalf(true),
    AcceptEvent::AcceptOnBehalf(false),
    AcceptEvent::PolledSome,
    AcceptEvent::PolledNone,
    AcceptEvent::Close { handshakes: HANDSHAKES },
];

/// Writes a state as letters: the acceptor, `P` or `W` with the polls left; then `o` when on, `w`
/// when watched, `r` when perhaps ready, `e` after an edge, `p` when paused, and of a closing
/// socket `c`, with `0` when its backlog was empty, or the number of connections taken.
fn letters(state: &AcceptState) -> String {
    let mut letters = match state.acceptor {
        Acceptor::Primary => "P".to_owned(),
        Acceptor::Worker { polls_left } => format!("W{polls_left}"),
    };
    let flags = [
        (state.is_on, 'o'),
        (state.is_watched, 'w'),
        (state.may_be_ready, 'r'),
        (state.is_reported, 'e'),
        (state.paused_until.is_some(), 'p'),
    ];
    letters.extend(flags.into_iter().filter(|(is_set, _)| *is_set).map(|(_, letter)| letter));
    if let Some(closing) = &state.closing {
        letters.push('c');
        letters.extend(closing.is_empty.then_some('0'));
        letters.extend((closing.taken > 0).then(|| closing.taken.to_string()));
    }
    letters
}

/// The rows of both tables.
fn states(now: Instant) -> [(&'static str, AcceptState); 13] {
    use AcceptEvent as E;
    let after = |events: &[AcceptEvent]| {
        let mut state = AcceptState::new();
        events.iter().for_each(|event| _ = state.step(*event, now));
        state
    };
    let (accept, close) = (E::Accept(true), E::Close { handshakes: HANDSHAKES });
    let mut drained = after(&[accept, E::Watched, close]);
    drained.step(E::WouldBlock, now + HANDSHAKES);
    let mut last_poll = after(&[accept, E::Watched, E::AcceptOnBehalf(false)]);
    (1..QUIET_POLLS_MAX).for_each(|_| _ = last_poll.step(E::PolledNone, now));
    let mut closing_worker = last_poll.clone();
    closing_worker.step(close, now);
    let mut watched_worker = last_poll.clone();
    watched_worker.step(E::Watched, now);
    [
        ("off", after(&[])),
        ("on", after(&[accept, E::Watched])),
        ("quiet", after(&[accept, E::Watched, E::WouldBlock])),
        ("reported", after(&[accept, E::Watched, E::WouldBlock, E::Readable])),
        ("paused", after(&[accept, E::Watched, E::ResourceError])),
        ("unwatched", after(&[accept, E::WatchFailed])),
        ("stopped", after(&[accept, E::Watched, E::WouldBlock, E::Accept(false)])),
        ("worker", after(&[accept, E::Watched, E::AcceptOnBehalf(false)])),
        ("last poll", last_poll),
        ("watched worker", watched_worker),
        ("closing", after(&[accept, E::Watched, close, E::WouldBlock])),
        ("closing worker", closing_worker),
        ("drained", drained),
    ]
}

/// Compares each cell: the next state, and the action as `:w` watch, `:u` unwatch, `:t` retry,
/// `:!` report.
fn check(events: &[AcceptEvent], table: &str) {
    let now = Instant::now();
    let mut rows = table.lines().map(str::trim).filter(|row| !row.is_empty());
    for (name, state) in states(now) {
        let cells = events.iter().map(|event| {
            let mut next = state.clone();
            let action = match next.step(*event, now + HANDSHAKES) {
                None => "",
                Some(AcceptAction::Watch) => ":w",
                Some(AcceptAction::Unwatch) => ":u",
                Some(AcceptAction::Retry) => ":t",
                Some(AcceptAction::ReportUnaccepted) => ":!",
            };
            letters(&next) + action
        });
        let row: Vec<String> = std::iter::once(letters(&state)).chain(cells).collect();
        let expected: Vec<&str> = rows.next().unwrap().split_whitespace().collect();
        assert_eq!(row, expected, "{name}");
    }
    assert_eq!(rows.next(), None);
}

#[test]
fn every_event_of_the_loop_has_its_answer_in_every_state() {
    // from   accepted  block     conn.err  res.err   readable  watched   failed
    check(
        &OF_THE_LOOP,
        "
         Pr     Pr        P:w       Pr        Prp       Pre       Pwr:t     Prp
         Powr   Powr      Pow       Powr      Powrp     Powre     Powr:t    Powrp
         Pow    Pow       Pow       Pow       Powp      Powre     Pow       Powrp
         Powre  Powr      Pow       Powr      Powrp     Powre     Powre:t   Powrep
         Powrp  Powr      Pow       Powr      Powrp     Powrep    Powrp:t   Powrp
         Porp   Por       Po:w      Por       Porp      Porep     Powrp:t   Porp
         Pw     Pw        Pw        Pw        Pwp       Pwre      Pw        Pwrp
         W10or  W10or     W10o:w    W10or     W10orp    W10ore    W0owr     W10or
         W1or   W1or      W1o:w     W1or      W1orp     W10ore    W0owr     W1or
         W0owr  W0owr     W0ow      W0owr     W0owrp    W10ore:u  W0owr     W0owr
         Powc   Powc1     Powc0     Powc      Powpc     Powrec    Powc      Powrpc
         W1orc  W1orc1    W1oc0     W1orc     W1orpc    W10orec   W0owrc    W1orc
         Powc0  Powc01    Powc0     Powc0     Powpc0    Powrec0   Powc0     Powrpc0
        ",
    );
}

#[test]
fn every_event_of_the_supervisor_has_its_answer_in_every_state() {
    // from   accept    not       on behalf worker    some      none      close
    check(
        &OF_THE_SUPERVISOR,
        "
         Pr     Por:w     Pr        Pr        W10r      Pr        Pr        Prc
         Powr   Powr:t    Pwr       Powr:t    W10or:u   Powr      Powr      Powrc
         Pow    Pow:t     Pw        Powr:t    W10or:u   Pow       Pow       Powrc
         Powre  Powre:t   Pwre      Powre:t   W10ore:u  Powre     Powre     Powrec
         Powrp  Powrp:t   Pwrp      Powrp:t   W10orp:u  Powrp     Powrp     Powrpc
         Porp   Porp:w    Prp       Porp:w    W10orp    Porp      Porp      Porpc
         Pw     Pow:t     Pw        Pwr       W10r:u    Pw        Pw        Pwrc
         W10or  W10or     W10r      Por:w     W10or     W10or:!   W9or      W10orc
         W1or   W1or      W1r       Por:w     W10or     W10or:!   W1or:w    W1orc
         W0owr  W0owr     W0wr      Powr:t    W10or:u   W10owr:!  W0owr     W0owrc
         Powc   Powc:t    Pwc       Powrc:t   W10orc:u  Powc      Powc      Powrc
         W1orc  W1orc     W1rc      Porc:w    W10orc    W10orc:!  W1orc:w   W1orc
         Powc0  Powc0:t   Pwc0      Powrc0:t  W10orc0:u Powc0     Powc0     Powrc0
        ",
    );
}

#[test]
fn a_socket_is_tried_again_when_its_pause_or_its_handshakes_are_over() {
    let now = Instant::now();
    // Whether to accept at once and in a second, the deadline, whether it is polled.
    let (pause, handshakes) = (Some(now + ACCEPT_PAUSE), Some(now + HANDSHAKES));
    let expected = [
        ("off", (false, false, None, false)),
        ("on", (true, true, None, false)),
        ("quiet", (false, false, None, false)),
        ("reported", (true, true, None, false)),
        ("paused", (false, true, pause, false)),
        ("unwatched", (false, true, pause, false)),
        ("stopped", (false, false, None, false)),
        ("worker", (false, false, None, true)),
        ("last poll", (false, false, None, true)),
        ("watched worker", (false, false, None, false)),
        ("closing", (false, true, handshakes, false)),
        ("closing worker", (true, true, handshakes, false)),
        ("drained", (false, false, None, false)),
    ];
    for ((name, state), expected) in states(now).into_iter().zip(expected) {
        let later = state.wants_accept(now + Duration::from_secs(1));
        let row = (state.wants_accept(now), later, state.deadline(now), state.is_polled());
        assert_eq!((name, row), expected);
        let none_is_past = state.deadline(now + ACCEPT_PAUSE);
        assert_eq!(none_is_past, None, "{name}: a deadline is never in the past");
    }
}

#[test]
fn a_closing_socket_is_drained_when_it_is_empty_after_the_handshakes_or_gave_enough_or_waited() {
    use AcceptEvent as E;
    let now = Instant::now();
    let mut state = AcceptState::new();
    assert!(!state.is_closing() && !state.is_drained(now));
    state.step(E::Close { handshakes: HANDSHAKES }, now);
    state.step(E::Close { handshakes: Duration::ZERO }, now + MS);
    assert!(state.is_closing() && state.wants_accept(now), "although it is off");
    state.step(E::WouldBlock, now);
    assert!(!state.is_drained(now) && !state.wants_accept(now), "a handshake may be under way");
    let late = now + HANDSHAKES;
    assert!(state.wants_accept(late), "without an edge, and as it was first closed");
    let mut empty = state.clone();
    empty.step(E::WouldBlock, late);
    assert!(empty.is_drained(late) && !empty.wants_accept(late));
    (0..DRAIN_CONNECTIONS_MAX).for_each(|_| {
        assert!(!state.is_drained(late));
        state.step(E::Accepted, late);
    });
    assert!(state.is_drained(late));
    let mut starved = AcceptState::new();
    starved.step(E::Close { handshakes: HANDSHAKES }, now);
    starved.step(E::ResourceError, late);
    assert_eq!(starved.deadline(late), Some(late + ACCEPT_PAUSE));
    assert!(!starved.is_drained(now + CLOSE_WITHIN - MS) && starved.is_drained(now + CLOSE_WITHIN));
}

#[test]
fn a_workers_socket_is_polled_until_it_was_quiet_for_a_while_and_then_watched() {
    use AcceptEvent as E;
    let now = Instant::now();
    let mut state = AcceptState::new();
    state.step(E::Accept(true), now);
    state.step(E::Watched, now);
    assert_eq!(state.step(E::AcceptOnBehalf(false), now), Some(AcceptAction::Unwatch));
    for round in 0..3 {
        assert_eq!(state.step(E::PolledSome, now), Some(AcceptAction::ReportUnaccepted), "{round}");
        (1..QUIET_POLLS_MAX).for_each(|_| assert_eq!(state.step(E::PolledNone, now), None));
        assert!(state.is_polled());
    }
    assert_eq!(state.step(E::PolledNone, now), Some(AcceptAction::Watch));
    assert_eq!((state.step(E::WatchFailed, now), state.is_polled()), (None, true), "once more");
    assert_eq!(state.step(E::PolledNone, now), Some(AcceptAction::Watch));
    assert_eq!((state.step(E::Watched, now), state.is_polled()), (None, false));
    assert_eq!(state.step(E::Readable, now), Some(AcceptAction::Unwatch));
    assert!(state.is_polled() && !state.wants_accept(now));
}

#[test]
fn all_sockets_are_polled_together() {
    let now = Instant::now();
    let mut timer = PollTimer::default();
    timer.arm(now, || false);
    assert_eq!(timer.deadline(), None, "nothing is polled");
    timer.arm(now, || true);
    timer.arm(now + MS, || panic!("it is set"));
    assert_eq!(timer.deadline(), Some(now + POLL_INTERVAL));
    assert!(!timer.take_due(now + POLL_INTERVAL - MS) && timer.take_due(now + POLL_INTERVAL));
    assert!(!timer.take_due(now + POLL_INTERVAL) && timer.deadline().is_none());
}

#[test]
fn handshakes_take_a_round_trip_and_within_the_machine_less() {
    let tcp = |text: &str| Address::Tcp { address: text.parse().unwrap(), v6_only: false };
    for (address, expected) in [
        (tcp("192.0.2.1:80"), HANDSHAKE_MAX),
        (tcp("0.0.0.0:80"), HANDSHAKE_MAX),
        (tcp("127.0.0.1:80"), HANDSHAKE_LOOPBACK_MAX),
        (tcp("[::1]:80"), HANDSHAKE_LOOPBACK_MAX),
        (Address::UnixPath("/s".into()), Duration::ZERO),
    ] {
        assert_eq!(handshakes_max(&address), expected, "{address}");
    }
}
