//! The reasons for which the loop wakes: arriving messages, and room in a socket while bytes wait
//! for it, but never a peer that has read. This test is alone in its process, because it counts the
//! loop's turns.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use brood_ipc::{Blob, Channel, Link, LinkEvent, Options, Serialization, internal};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

/// The number of repetitions while turns are counted.
const TIMES: u64 = 200;

/// The number of turns that may have other causes, such as a request to watch for room in a socket.
const SLACK: u64 = 5;

/// The time after which a message is no longer coalesced with the one before. Within that time, the
/// loop writes it on purpose.
const AFTER_COALESCING: Duration = Duration::from_micros(100);

#[test]
fn the_loop_wakes_for_what_arrives_and_not_for_what_a_peer_has_read() {
    native();
    after_a_full_socket();
    between_two_links();
    on_the_loop();
    node();
}

/// Returns the number of turns that the loop makes while `step` runs [`TIMES`] times.
fn turns(mut step: impl FnMut()) -> u64 {
    let before = at_rest();
    for _ in 0..TIMES {
        step();
        let begin = Instant::now();
        while begin.elapsed() < AFTER_COALESCING {
            std::hint::spin_loop();
        }
    }
    at_rest() - before
}

/// Returns the number of turns so far, after the loop has come to rest.
fn at_rest() -> u64 {
    let count = || reactor::reactor().unwrap().turns();
    let (_never, silence) = crossbeam_channel::bounded::<()>(0);
    for _ in 0..200 {
        let before = count();
        let _ = silence.recv_timeout(Duration::from_millis(20));
        if count() == before {
            return before;
        }
    }
    panic!("the loop does not come to rest");
}

fn none(what: &str, turns: u64) {
    assert!(turns <= SLACK, "{what}: {turns} turns for {TIMES} times");
}

fn one_each(what: &str, turns: u64) {
    // The number is lower when one turn finds two messages.
    assert!(turns > 0 && turns <= TIMES + SLACK, "{what}: {turns} turns for {TIMES} times");
}

type Events = Receiver<LinkEvent>;

fn native_pair() -> (Link, Events, Channel<Blob, Blob>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    let link = Link::start(ours, Options::new(), sink).unwrap();
    let peer = Channel::from_fd(theirs, Options::new()).unwrap();
    // Handshakes and all other work that happens once.
    link.send(&small()).unwrap();
    peer.send(&peer.recv().unwrap()).unwrap();
    message(&events);
    (link, events, peer)
}

fn small() -> Blob {
    Blob::from(vec![1; 64])
}

fn message(events: &Events) {
    let event = events.recv_timeout(LONG).unwrap();
    assert!(matches!(event, LinkEvent::Message(_)), "{event:?}");
}

fn native() {
    let (link, events, peer) = native_pair();
    let send = || {
        link.send(&small()).unwrap();
        peer.recv().unwrap();
    };
    none("to a peer that reads", turns(send));
    let receive = || {
        peer.send(&small()).unwrap();
        message(&events);
    };
    one_each("from a peer", turns(receive));
    let both = || {
        link.send(&small()).unwrap();
        peer.send(&peer.recv().unwrap()).unwrap();
        message(&events);
    };
    one_each("question and answer", turns(both));
    // A peer whose socket holds several messages reads one after the other.
    let late = || {
        for _ in 0..3 {
            peer.feed(&small()).unwrap();
        }
        peer.flush().unwrap();
        (0..3).for_each(|_| message(&events));
    };
    one_each("three at once", turns(late));
}

/// After a full socket has been emptied, room in the socket is not watched any more.
fn after_a_full_socket() {
    let (link, events, peer) = native_pair();
    let long = Blob::from(vec![2; 50_000]);
    let mut count = 0;
    while link.send(&long).unwrap().has_room() {
        count += 1;
    }
    (0..=count).for_each(|_| assert_eq!(peer.recv().unwrap().len(), long.len()));
    let send = || {
        link.send(&small()).unwrap();
        peer.recv().unwrap();
    };
    none("after a full socket", turns(send));
    drop(peer);
    let last = events.recv_timeout(LONG).unwrap();
    assert!(matches!(last, LinkEvent::Disconnect { undelivered: 0, error: None }), "{last:?}");
}

fn link(socket: UnixStream) -> (Link, Events) {
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    (Link::start(socket, Options::new(), sink).unwrap(), events)
}

/// One loop serves both endpoints, and wakes for the receiving one.
fn between_two_links() {
    let (a, b) = UnixStream::pair().unwrap();
    let ((a, _from_b), (_b, from_a)) = (link(a), link(b));
    let send = || {
        a.send(&small()).unwrap();
        message(&from_a);
    };
    send();
    one_each("from link to link", turns(send));
}

/// A message that is sent from the loop itself costs no turn of its own.
fn on_the_loop() {
    let (a, b) = UnixStream::pair().unwrap();
    let (asks, answers) = link(a);
    let own = Arc::new(OnceLock::<Link>::new());
    let echo = Arc::clone(&own);
    let sink = move |event| {
        if let (LinkEvent::Message(message), Some(link)) = (event, echo.get()) {
            link.send(&message.decode::<Blob>().unwrap()).unwrap();
        }
    };
    own.set(Link::start(b, Options::new(), sink).unwrap()).unwrap();
    let ask = || {
        asks.send(&small()).unwrap();
        message(&answers);
    };
    ask();
    let turns = turns(ask);
    assert!(turns <= 2 * TIMES + SLACK, "a question and an answer: {turns} turns");
}

/// The same with a Node peer, with handles and acknowledgements.
fn node() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (sender, events) = unbounded();
    let sink = move |event| match event {
        internal::Event::Message(message) => drop(sender.send(LinkEvent::Message(message))),
        other => panic!("{other:?}"),
    };
    let options = Options::new().serialization(Serialization::Json);
    let link = internal::start_node(ours.into(), options, sink).unwrap();
    link.resume();
    let mut lines = BufReader::new(theirs.try_clone().unwrap());
    let mut line = move || {
        let mut line = String::new();
        lines.read_line(&mut line).unwrap();
        line
    };
    let send = || {
        link.send("to Node").unwrap();
        assert_eq!(line(), "\"to Node\"\n");
    };
    none("to a Node peer that reads", turns(send));
    let receive = || {
        (&theirs).write_all(b"{\"from\":\"Node\"}\n").unwrap();
        message(&events);
    };
    one_each("from a Node peer", turns(receive));
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let handle = || {
        link.send_with_handle("m", server.try_clone().unwrap()).unwrap();
        assert!(line().contains("\"NODE_HANDLE\""));
        (&theirs).write_all(b"{\"cmd\":\"NODE_HANDLE_ACK\"}\n").unwrap();
        // The acknowledgement has been read when the message behind it has arrived.
        (&theirs).write_all(b"1\n").unwrap();
        message(&events);
    };
    let turns = turns(handle);
    assert!(turns <= 2 * TIMES + SLACK, "handles to a Node peer: {turns} turns");
}
