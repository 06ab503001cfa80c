//! Tests of the loop with real descriptors and threads. Every wait ends with a message or after
//! `WAIT_MAX`.

use std::io::{self, PipeReader, PipeWriter, Read, Write};
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, unbounded};

use crate::{Event, Handle, Interest, Reactor, Source, Token, Turn, on_loop, reactor};

const WAIT_MAX: Duration = Duration::from_secs(10);

/// A source made of a closure.
struct Probe<F>(F);

impl<F: FnMut(Event, &mut Turn<'_>) + Send + 'static> Source for Probe<F> {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        (self.0)(event, turn);
    }
}

fn add(source: impl FnMut(Event, &mut Turn<'_>) + Send + 'static) -> Handle {
    reactor().unwrap().add(Probe(source))
}

/// Adds a source that sends every event to a channel. The channel closes when the source is
/// dropped.
fn add_recorder(
    mut also: impl FnMut(Event, &mut Turn<'_>) + Send + 'static,
) -> (Handle, Receiver<Event>) {
    let (sender, events) = unbounded();
    let handle = add(move |event, turn| {
        also(event, turn);
        let _ = sender.send(event);
    });
    assert_eq!(next(&events), Event::Start);
    (handle, events)
}

fn next<T>(events: &Receiver<T>) -> T {
    events.recv_timeout(WAIT_MAX).unwrap()
}

fn assert_closed<T: std::fmt::Debug>(events: &Receiver<T>) {
    let answer = events.recv_timeout(WAIT_MAX);
    assert_eq!(answer.unwrap_err(), crossbeam_channel::RecvTimeoutError::Disconnected);
}

fn ready(token: u32, readable: bool, writable: bool) -> Event {
    Event::Ready { token: Token(token.into()), readable, writable }
}

/// Adds a source that registers the reading end of a pipe under token 7 and records its events.
fn add_reader(reader: PipeReader) -> (Handle, Receiver<Event>) {
    add_recorder(move |event, turn| {
        if event == Event::Start {
            turn.register(reader.as_fd(), Token(7), Interest::READABLE).unwrap();
        }
    })
}

#[test]
fn bytes_and_the_end_of_a_pipe_are_reported_with_the_token() {
    let (reader, mut writer) = io::pipe().unwrap();
    let (handle, events) = add_reader(reader);
    writer.write_all(b"x").unwrap();
    assert_eq!(next(&events), ready(7, true, false));
    drop(writer);
    assert!(matches!(next(&events), Event::Ready { token: Token(7), readable: true, .. }));
    handle.remove();
    assert_closed(&events);
}

#[test]
fn a_hang_up_alone_is_reported_without_the_bytes_before_it() {
    let (reader, mut writer) = io::pipe().unwrap();
    let (handle, events) = add_recorder(move |event, turn| {
        if event == Event::Start {
            turn.register(reader.as_fd(), Token(3), Interest::HANGUP).unwrap();
        }
    });
    writer.write_all(b"x").unwrap();
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    drop(writer);
    assert!(matches!(next(&events), Event::Ready { token: Token(3), readable: true, .. }));
    handle.remove();
    assert_closed(&events);
}

#[test]
fn a_spurious_wake_up_finds_nothing_and_harms_nothing() {
    let (readers, mut writers): (Vec<_>, Vec<_>) = (0..2).map(|_| io::pipe().unwrap()).unzip();
    let (go, wait) = mpsc::channel::<()>();
    let (busy, is_busy) = unbounded();
    let blocker = add(move |event, _| {
        if event == Event::Wake {
            busy.send(()).unwrap();
            wait.recv_timeout(WAIT_MAX).unwrap();
        }
    });
    // The source that gets its event first takes the bytes of both, so that the event of the
    // other source is spurious.
    let (sender, events) = unbounded();
    for mine in 0..2 {
        let mut both: Vec<_> = readers.iter().map(|fd| fd.try_clone().unwrap()).collect();
        let sender = sender.clone();
        add(move |event, turn| match event {
            Event::Start => {
                turn.register(both[mine].as_fd(), Token(0), Interest::READABLE).unwrap();
            }
            _ => sender.send(both.iter_mut().map(take_if_there).sum()).unwrap(),
        });
    }
    for _ in 0..3 {
        blocker.wake();
        next(&is_busy);
        for writer in &mut writers {
            writer.write_all(b"x").unwrap();
        }
        go.send(()).unwrap();
        let taken: [usize; 2] = [next(&events), next(&events)];
        assert_eq!(taken, [2, 0]);
    }
}

fn take_if_there(reader: &mut PipeReader) -> usize {
    match sys::poll::readable(reader.as_fd(), Some(Duration::ZERO)).unwrap() {
        true => reader.read(&mut [0]).unwrap(),
        false => 0,
    }
}

#[test]
fn a_source_that_asks_again_and_again_leaves_the_others_their_turn() {
    let greedy_turns = Arc::new(AtomicUsize::new(0));
    let turns = Arc::clone(&greedy_turns);
    let greedy = add(move |_, turn| {
        turns.fetch_add(1, Ordering::Relaxed);
        turn.again();
    });
    let (reader, mut writer) = io::pipe().unwrap();
    let (modest, events) = add_reader(reader);
    for _ in 0..100 {
        modest.wake();
        assert_eq!(next(&events), Event::Wake);
        writer.write_all(b"x").unwrap();
        assert_eq!(next(&events), ready(7, true, false));
    }
    assert!(greedy_turns.load(Ordering::Relaxed) > 100);
    greedy.remove();
    modest.remove();
}

#[test]
fn two_sources_that_ask_again_alternate() {
    let (sender, events) = unbounded();
    let greedy = |name: char, sender: Sender<char>| {
        move |event: Event, turn: &mut Turn<'_>| {
            if matches!(event, Event::Wake | Event::Again) {
                turn.again();
                // Two requests in one event count as one.
                turn.again();
                if sender.send(name).is_err() {
                    turn.remove();
                }
            }
        }
    };
    let (a, b) = (add(greedy('a', sender.clone())), add(greedy('b', sender)));
    a.wake();
    b.wake();
    let names: Vec<char> = events.iter().skip_while(|&name| name == 'a').take(100).collect();
    assert!(names.chunks(2).all(|pair| pair == ['b', 'a']), "{names:?}");
}

#[test]
fn the_handle_of_a_source_is_known_before_its_first_event() {
    let (sender, results) = unbounded();
    let known = Arc::new(OnceLock::<Handle>::new());
    let on_loop = known.clone();
    let handle = reactor().unwrap().add_with(|handle| {
        known.get_or_init(|| handle.clone());
        Probe(move |event, _: &mut Turn<'_>| {
            if event == Event::Start {
                on_loop.get().unwrap().wake();
            }
            let _ = sender.send(event);
        })
    });
    assert_eq!([next(&results), next(&results)], [Event::Start, Event::Wake]);
    handle.remove();
    assert_closed(&results);
}

#[test]
fn a_deadline_comes_once_and_not_early_and_the_last_one_set_counts() {
    let (sender, events) = unbounded();
    let _handle = add(move |event, turn| match event {
        Event::Start => {
            turn.set_deadline(Some(turn.now()));
            turn.set_deadline(Some(turn.now() + Duration::from_millis(30)));
            sender.send((event, turn.now())).unwrap();
        }
        Event::Deadline => {
            sender.send((event, turn.now())).unwrap();
            // The channel stays open, so that a second deadline would be received.
            turn.set_deadline(None);
        }
        _ => unreachable!("nothing else was asked for"),
    });
    let (_, start) = next(&events);
    let (event, at) = next(&events);
    assert_eq!(event, Event::Deadline);
    assert!(at - start >= Duration::from_millis(30));
    assert!(events.recv_timeout(Duration::from_millis(60)).is_err());
}

#[test]
fn a_deadline_in_the_past_comes_in_the_next_turn() {
    let mut left = 3;
    let (_handle, events) = add_recorder(move |_, turn| {
        left -= 1;
        match left {
            0 => turn.remove(),
            _ => turn.set_deadline(Some(turn.now() - Duration::from_millis(1))),
        }
    });
    assert_eq!(next(&events), Event::Deadline);
    assert_eq!(next(&events), Event::Deadline);
    assert_closed(&events);
}

#[test]
fn wake_ups_before_the_turn_become_one() {
    let (go, wait) = mpsc::channel::<()>();
    let (busy, is_busy) = unbounded();
    let blocker = add(move |event, turn| {
        if event == Event::Wake {
            busy.send(()).unwrap();
            wait.recv_timeout(WAIT_MAX).unwrap();
            turn.remove();
        }
    });
    let (handle, events) = add_recorder(|_, _| {});
    blocker.wake();
    next(&is_busy);
    for _ in 0..1000 {
        handle.wake();
    }
    go.send(()).unwrap();
    assert_eq!(next(&events), Event::Wake);
    // A later wake-up is a new one.
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    handle.remove();
    assert_closed(&events);
}

#[test]
fn no_wake_up_is_lost_between_many_threads() {
    let counter = Arc::new(AtomicUsize::new(0));
    let seen = Arc::clone(&counter);
    let (sender, events) = unbounded();
    let handle = add(move |event, _| {
        if event == Event::Wake && seen.load(Ordering::Relaxed) == 8000 {
            let _ = sender.send(());
        }
    });
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..1000 {
                    counter.fetch_add(1, Ordering::Relaxed);
                    handle.wake();
                }
            });
        }
    });
    next(&events);
}

#[test]
fn a_source_is_removed_from_another_thread() {
    let (reader, mut writer) = io::pipe().unwrap();
    let (handle, events) = add_reader(reader);
    handle.remove();
    assert_closed(&events);
    // Calls for a source that is gone do nothing.
    handle.wake();
    handle.remove();
    // The reading end was closed with its source.
    assert_eq!(writer.write(b"x").unwrap_err().kind(), io::ErrorKind::BrokenPipe);
}

#[test]
fn a_source_that_removes_itself_gets_no_more_events() {
    let (handle, events) = add_recorder(|event, turn| {
        if event == Event::Wake {
            turn.again();
            turn.set_deadline(Some(turn.now()));
            turn.remove();
        }
    });
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    assert_closed(&events);
}

#[test]
fn a_panic_removes_the_source_and_the_loop_goes_on() {
    let (reader, mut writer) = io::pipe().unwrap();
    let (sender, events) = unbounded::<()>();
    let handle = add(move |event, turn| {
        let _held = &sender;
        match event {
            Event::Start => turn.register(reader.as_fd(), Token(0), Interest::READABLE).unwrap(),
            _ => panic!("expected by a test"),
        }
    });
    writer.write_all(b"x").unwrap();
    assert_closed(&events);
    handle.wake();
    let (other, events) = add_recorder(|_, _| {});
    other.wake();
    assert_eq!(next(&events), Event::Wake);
    other.remove();
}

#[test]
fn a_source_adds_and_wakes_others_from_the_loop() {
    let (sender, events) = unbounded();
    let _first = add(move |_, turn| {
        let sender = sender.clone();
        assert!(on_loop());
        let second = add(move |event, turn| {
            sender.send(event).unwrap();
            if event == Event::Wake {
                turn.remove();
            }
        });
        second.wake();
        turn.remove();
    });
    assert_eq!([next(&events), next(&events)], [Event::Start, Event::Wake]);
    assert_closed(&events);
    assert!(!on_loop());
}

#[test]
fn a_reused_descriptor_number_gets_no_events_of_the_old_one() {
    let (first, mut first_writer) = io::pipe().unwrap();
    let (second, mut second_writer) = io::pipe().unwrap();
    // The copy keeps the first pipe's registration alive in the kernel.
    let _copy = first.try_clone().unwrap();
    let mut readers: Vec<PipeReader> = vec![second, first];
    let (handle, events) = add_recorder(move |event, turn| match event {
        Event::Start => {
            let first = readers.last().unwrap();
            turn.register(first.as_fd(), Token(1), Interest::READABLE).unwrap();
        }
        Event::Wake => {
            turn.deregister(readers.pop().unwrap().as_fd()).unwrap();
            let second = readers.last().unwrap().try_clone().unwrap();
            turn.register(second.as_fd(), Token(2), Interest::READABLE).unwrap();
            readers.push(second);
        }
        _ => {}
    });
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    first_writer.write_all(b"x").unwrap();
    second_writer.write_all(b"x").unwrap();
    assert_eq!(next(&events), ready(2, true, false));
    handle.remove();
    assert_closed(&events);
}

#[test]
fn a_removed_source_does_not_take_the_number_of_another_with_it() {
    // The careless source closes its descriptor without deregistering it. One of the careful
    // sources gets the number.
    let (held, holder) = io::pipe().unwrap();
    let mut held = Some(held);
    let (careless, events) = add_recorder(move |event, turn| match event {
        Event::Start => {
            let fd = held.as_ref().unwrap().as_fd();
            turn.register(fd, Token(1), Interest::READABLE).unwrap();
        }
        _ => drop(held.take()),
    });
    careless.wake();
    assert_eq!(next(&events), Event::Wake);
    let pipes: Vec<(PipeReader, PipeWriter)> = (0..8).map(|_| io::pipe().unwrap()).collect();
    let (readers, mut writers): (Vec<_>, Vec<_>) = pipes.into_iter().unzip();
    let sources: Vec<_> = readers.into_iter().map(add_reader).collect();
    careless.remove();
    assert_closed(&events);
    for ((handle, events), writer) in sources.iter().zip(&mut writers) {
        writer.write_all(b"x").unwrap();
        assert_eq!(next(events), ready(7, true, false));
        handle.remove();
    }
    drop(holder);
}

#[test]
fn only_the_owner_may_change_a_registration_and_reregistering_reports_again() {
    let (reader, mut writer) = io::pipe().unwrap();
    writer.write_all(b"x").unwrap();
    let foreign_copy = reader.try_clone().unwrap();
    let mut asked = 0;
    let (handle, events) = add_recorder(move |event, turn| match event {
        Event::Start => {
            let error = turn.deregister(foreign_copy.as_fd()).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            turn.register(reader.as_fd(), Token(1), Interest::READABLE).unwrap();
            let twice = turn.register(reader.as_fd(), Token(1), Interest::READABLE);
            assert_eq!(twice.unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        }
        Event::Ready { .. } if asked == 0 => {
            asked += 1;
            turn.reregister(reader.as_fd(), Token(2), Interest::READABLE).unwrap();
        }
        _ => {}
    });
    assert_eq!(next(&events), ready(1, true, false));
    assert_eq!(next(&events), ready(2, true, false));
    handle.remove();
    assert_closed(&events);
}

#[test]
fn an_idle_loop_makes_no_turns() {
    let reactor = Reactor::start().unwrap();
    let (sender, events) = unbounded();
    let (reader, writer) = io::pipe().unwrap();
    let handle = reactor.add(Probe(move |event, turn: &mut Turn<'_>| {
        if event == Event::Start {
            turn.register(reader.as_fd(), Token(0), Interest::READABLE).unwrap();
            // The deadline is far away. The wait for it takes one turn, not one per second.
            turn.set_deadline(Some(turn.now() + Duration::from_secs(3600)));
        }
        sender.send(event).unwrap();
    }));
    assert_eq!(next(&events), Event::Start);
    handle.wake();
    assert_eq!(next(&events), Event::Wake);
    let (turns, begin) = (reactor.turns(), Instant::now());
    assert!(events.recv_timeout(Duration::from_millis(300)).is_err());
    assert!(begin.elapsed() >= Duration::from_millis(300));
    assert!(reactor.turns() <= turns + 1, "from {turns} to {}", reactor.turns());
    drop(writer);
}
