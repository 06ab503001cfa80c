//! Descriptors of hostile peers: how many a process holds, and those that it never takes.
//!
//! Each test runs in a process of its own, because it counts the descriptors of the process.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use brood_ipc::frame::{Header, Kind};
use brood_ipc::{Channel, Error, Handle, Hello, Link, LinkEvent, Options, Serialization, internal};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{IoSlice, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

type Many = Vec<Handle<OwnedFd>>;

fn alone(test: &str) {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", test, "--ignored", "--test-threads=1", "--nocapture"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&done.stdout);
    assert!(done.status.success() && text.contains("1 passed"), "{text}");
}

fn open() -> usize {
    sys::fd::open_descriptors().unwrap().len()
}

fn handshake(peer: &UnixStream) {
    let hello = Hello::new(Serialization::Bincode, "").to_bytes();
    let header = Header { kind: Kind::Hello, handles: 0, length: hello.len(), fingerprint: 0 };
    let mut peer = peer;
    peer.write_all(&[&header.to_bytes()[..], &hello].concat()).unwrap();
}

/// Sends the header of a message with `handles` handles, and none of its 100 bytes.
fn half_a_frame(peer: &UnixStream, handles: usize) {
    let header = Header { kind: Kind::Message, handles, length: 100, fingerprint: 0 };
    let fds = vec![peer.as_fd(); handles];
    sys::scm::send_blocking(peer.as_fd(), &[IoSlice::new(&header.to_bytes())], &fds).unwrap();
}

fn link(socket: UnixStream, options: Options) -> (Link, Receiver<LinkEvent>) {
    let (sender, events) = unbounded();
    let link = Link::start(socket, options, move |event| drop(sender.send(event))).unwrap();
    (link, events)
}

fn message(events: &Receiver<LinkEvent>) -> brood_ipc::Message {
    match events.recv_timeout(LONG).unwrap() {
        LinkEvent::Message(message) => message,
        other => panic!("{other:?}"),
    }
}

/// A channel through the loop, which has handled everything that was sent before.
struct Other {
    peer: Channel<u32, ()>,
    _link: Link,
    events: Receiver<LinkEvent>,
}

impl Other {
    fn new() -> Other {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (_link, events) = link(ours, Options::new());
        Other { peer: Channel::from_fd(theirs, Options::new()).unwrap(), _link, events }
    }

    fn settle(&self) {
        // One turn of the loop handles its sources in any order, and the next one comes after it.
        for number in 0..3 {
            self.peer.send(&number).unwrap();
            assert_eq!(message(&self.events).decode::<u32>().unwrap(), number);
        }
    }
}

#[test]
fn handles_of_frames_that_never_end_take_only_a_share() {
    alone("alone_half_frames");
}

#[test]
#[ignore = "changes the limit of its process; run by the test above"]
fn alone_half_frames() {
    sys::rlimit::set_descriptors(1024).unwrap();
    let other = Other::new();
    other.settle();
    let peers: Vec<_> = (0..8)
        .map(|_| {
            let (ours, peer) = UnixStream::pair().unwrap();
            (link(ours, Options::new()), peer)
        })
        .collect();
    let before = open();
    for (_, peer) in &peers {
        handshake(peer);
        half_a_frame(peer, 253);
        other.settle();
    }
    // A quarter of 1024, and the few handles that every frame may keep.
    assert!(open() - before <= 256, "{} more", open() - before);
    std::net::TcpListener::bind("127.0.0.1:0").unwrap();

    // The first frame keeps its handles, and the others arrive without them.
    for (index, ((_, events), peer)) in peers.iter().enumerate() {
        let mut peer = peer;
        peer.write_all(&[0; 100]).unwrap();
        let message = message(events);
        assert_eq!(message.handle_count(), if index == 0 { 253 } else { 0 });
        if index > 0 {
            assert!(matches!(message.decode::<Many>(), Err(Error::HandlesLost)));
        }
    }
    other.settle();
    assert_eq!(open(), before, "the handles are closed with their messages");

    // An honest frame with a few handles keeps them beside a hostile one, however slow it is.
    half_a_frame(&peers[0].1, 253);
    other.settle();
    let ((_, events), peer) = &peers[1];
    half_a_frame(peer, 4);
    other.settle();
    assert_eq!(open(), before + 253 + 4);
    let mut peer = peer;
    peer.write_all(&[0; 100]).unwrap();
    assert_eq!(message(events).handle_count(), 4);
    drop(peers);
    other.settle();
}

#[test]
fn blocking_endpoints_share_the_same_account() {
    alone("alone_half_frames_of_blocking_endpoints");
}

#[test]
#[ignore = "changes the limit of its process; run by the test above"]
fn alone_half_frames_of_blocking_endpoints() {
    sys::rlimit::set_descriptors(1024).unwrap();
    let peers: Vec<_> = (0..8)
        .map(|_| {
            let (ours, peer) = UnixStream::pair().unwrap();
            (Channel::<(), Many>::from_fd(ours, Options::new()).unwrap(), peer)
        })
        .collect();
    let before = open();
    for (channel, peer) in &peers {
        handshake(peer);
        half_a_frame(peer, 253);
        assert!(channel.try_recv().unwrap().is_none());
    }
    assert!(open() - before <= 256, "{} more", open() - before);
}

#[test]
fn handles_of_lines_that_never_end_take_only_a_share() {
    alone("alone_half_lines");
}

#[test]
#[ignore = "changes the limit of its process; run by the test above"]
fn alone_half_lines() {
    sys::rlimit::set_descriptors(1024).unwrap();
    let other = Other::new();
    other.settle();
    let options = || Options::new().serialization(Serialization::Json);
    let peers: Vec<_> = (0..16)
        .map(|_| {
            let (ours, peer) = UnixStream::pair().unwrap();
            let link = internal::start_node(ours.into(), options(), |_| {}).unwrap();
            link.resume();
            (link, peer)
        })
        .collect();
    let before = open();
    for (_, peer) in &peers {
        let fds = vec![peer.as_fd(); 60];
        sys::scm::send_blocking(peer.as_fd(), &[IoSlice::new(b"[")], &fds).unwrap();
        other.settle();
    }
    assert!(open() - before <= 256, "{} more", open() - before);
}

#[test]
fn a_channel_that_takes_no_handles_opens_none() {
    alone("alone_no_handles");
}

#[test]
#[ignore = "counts the descriptors of its process; run by the test above"]
fn alone_no_handles() {
    let options = || Options::new().received_handles_max(0);
    let refused = |error| match error {
        Error::HandlesRefused { count, max: 0 } => count,
        other => panic!("{other:?}"),
    };
    let other = Other::new();
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sender = Channel::<(u8, Many), ()>::from_fd(theirs, Options::new()).unwrap();
    let (_link, events) = link(ours, options());
    other.settle();
    let many = |count| (0..count).map(|_| Handle::new(UnixStream::pair().unwrap().0.into()));
    let before = open();
    sender.send(&(1, many(100).collect())).unwrap();
    sender.send(&(2, Vec::new())).unwrap();
    let first = message(&events);
    assert_eq!((first.handle_count(), open()), (0, before));
    assert!(format!("{first:?}").contains("Refused"), "{first:?}");
    let error = first.decode::<(u8, Many)>().unwrap_err();
    assert!(error.to_string().contains("`Options::received_handles_max`"), "{error}");
    assert_eq!(refused(error), 100);
    assert_eq!(message(&events).decode::<(u8, Many)>().unwrap().0, 2, "the channel stays open");

    let (ours, theirs) = UnixStream::pair().unwrap();
    let sender = Channel::<(u8, Many), ()>::from_fd(theirs, Options::new()).unwrap();
    let blocking = Channel::<(), (u8, Many)>::from_fd(ours, options()).unwrap();
    sender.send(&(1, many(3).collect())).unwrap();
    sender.send(&(2, many(3).collect())).unwrap();
    assert_eq!(refused(blocking.recv().unwrap_err()), 3);
    assert_eq!(refused(blocking.recv_message().map(drop).unwrap_err()), 3);
    // One handle is allowed, so the frame with two of them arrives without any.
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sender = Channel::<Many, ()>::from_fd(theirs, Options::new()).unwrap();
    let one = Channel::<(), Many>::from_fd(ours, Options::new().received_handles_max(1)).unwrap();
    let before = open();
    for (count, arrives) in [(1, true), (2, false), (1, true)] {
        sender.send(&many(count).collect()).unwrap();
        assert_eq!(one.recv().is_ok(), arrives);
    }
    assert_eq!(open(), before);
}

#[test]
fn a_node_peer_whose_handles_are_refused_gets_its_acknowledgement() {
    let (ours, mut peer) = UnixStream::pair().unwrap();
    let options = Options::new().serialization(Serialization::Json).received_handles_max(0);
    let (sender, events) = unbounded();
    let link =
        internal::start_node(ours.into(), options, move |event| drop(sender.send(event))).unwrap();
    link.resume();
    let line = b"{\"cmd\":\"NODE_HANDLE\",\"type\":\"net.Native\",\"msg\":7}\n";
    sys::scm::send_blocking(peer.as_fd(), &[IoSlice::new(line)], &[peer.as_fd()]).unwrap();
    match events.recv_timeout(LONG).unwrap() {
        internal::Event::Message(mut message) => {
            assert_eq!((message.bytes(), message.handle_count()), (&b"7"[..], 0));
            assert!(message.take_handle().is_none());
            let error = message.decode::<u8>().unwrap_err();
            assert!(matches!(error, Error::HandlesRefused { count: 1, max: 0 }), "{error:?}");
        }
        other => panic!("{other:?}"),
    }
    let expected = "{\"cmd\":\"NODE_HANDLE_ACK\"}\n";
    let mut answer = vec![0; expected.len()];
    peer.read_exact(&mut answer).unwrap();
    assert_eq!(answer, expected.as_bytes());
}
