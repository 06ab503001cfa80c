//! A peer that is gone, towards a link that does not read: paused by its owner, or by its credit.

use super::*;
use crate::internal::{notice_hang_up, peer_is_gone, start_node};
use crate::serialization::Serialization;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

fn paused(options: Options) -> (Link, Receiver<LinkEvent>, OwnedFd) {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let link = Link::start_paused(a, options, move |event| drop(sender.send(event))).unwrap();
    (link, events, b)
}

fn paused_node(options: Options) -> (Link, Receiver<InternalEvent>, UnixStream) {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let options = options.serialization(Serialization::Json);
    let link = start_node(a, options, move |event| drop(sender.send(event))).unwrap();
    (link, events, UnixStream::from(b))
}

/// A handle to send, and the other end of it, which ends when the handle is closed.
fn handle_and_witness() -> (OwnedFd, UnixStream) {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let witness = UnixStream::from(b);
    witness.set_read_timeout(Some(LONG)).unwrap();
    (a, witness)
}

fn is_closed(mut witness: UnixStream) {
    assert_eq!(witness.read(&mut [0]).expect("the handle is closed in time"), 0);
}

/// Fills the socket and puts a handle behind that, for a peer that never reads.
fn queue_a_handle(link: &Link) -> UnixStream {
    assert!(link.send(&Blob::from(vec![0; 4 << 20])).is_ok());
    let (handle, witness) = handle_and_witness();
    crate::internal::send_internal(link, &Handle::new(handle)).unwrap();
    witness
}

#[test]
fn a_link_that_does_not_read_notices_that_its_peer_is_gone() {
    let (link, events, peer) = paused(Options::new());
    let peer = Channel::<u32, ()>::from_socket(peer, Options::new());
    peer.send(&1).unwrap();
    let witness = queue_a_handle(&link);
    assert!(link.is_connected());
    drop(peer);
    assert!(!link.is_connected());
    is_closed(witness);
    assert_eq!(link.queued_bytes(), 0);
    let (handle, witness) = handle_and_witness();
    let value = Handle::new(handle);
    assert!(matches!(link.send(&value).unwrap_err(), Error::Closed));
    // The handle of a refused message is still usable.
    drop(value.into_inner());
    is_closed(witness);
    link.resume();
    assert_eq!(message::<u32>(&events), 1);
    assert_eq!(disconnect(&events).0, 2);
}

#[test]
fn a_send_to_a_peer_that_is_gone_fails_and_leaves_the_handle() {
    let (link, _events, peer) = paused(Options::new());
    let (node_link, _node_events, node_peer) = paused_node(Options::new());
    drop((peer, node_peer));
    // A send is accepted as long as the loop has not written the handshake.
    loop {
        let (handle, witness) = handle_and_witness();
        let value = Handle::new(handle);
        let sent = link.send(&value);
        if let Err(error) = sent {
            assert!(matches!(error, Error::Closed), "{error:?}");
            drop(value.into_inner());
            is_closed(witness);
            break;
        }
        is_closed(witness);
    }
    loop {
        let (handle, witness) = handle_and_witness();
        let sent = node_link.send_with_handle("x", handle);
        if let Err(failed) = sent {
            assert!(matches!(failed.error, Error::Closed), "{failed:?}");
            drop(failed.handle);
            is_closed(witness);
            break;
        }
        is_closed(witness);
    }
    assert!(!link.is_connected() && !node_link.is_connected());
}

/// The loop cannot notice the peer's end before: it needs the lock of the queue.
#[test]
fn the_write_that_finds_the_peer_gone_reports_that_and_keeps_the_message() {
    let (link, _events, peer) = paused(Options::new());
    let shared = &link.owner.shared;
    let begin = Instant::now();
    let mut queue = loop {
        let queue = shared.queue();
        if !queue.loop_writes {
            break queue;
        }
        drop(queue);
        assert!(begin.elapsed() < LONG, "the loop writes the handshake");
        std::thread::yield_now();
    };
    drop(peer);
    let mut frame = OutgoingFrame::encode("x", Kind::Message, &shared.options).unwrap();
    frame.queue(&mut queue.outbox).unwrap();
    queue.written_at = None;
    assert_eq!(shared.write_or_wake(&mut queue), Written::PeerGone);
    assert!(!queue.outbox.is_empty());
    drop(queue);
    assert!(matches!(link.send("y"), Err(Error::Closed)));
}

#[test]
fn a_link_with_much_unread_notices_that_its_peer_is_gone() {
    let options = Options::new().unread_bytes_max(1000);
    let (link, events, peer) = pair::<Blob, ()>(&options);
    peer.send(&Blob::from(vec![0; 2000])).unwrap();
    let first = events.recv_timeout(LONG).unwrap();
    while !link.is_backpressured() {
        std::thread::yield_now();
    }
    peer.send(&Blob::from(vec![0; 7])).unwrap();
    let witness = queue_a_handle(&link);
    drop(peer);
    is_closed(witness);
    assert!(!link.is_connected());
    assert!(matches!(link.send(&1).unwrap_err(), Error::Closed));
    assert!(events.try_recv().is_err(), "the link waits for its credit");
    drop(first);
    assert_eq!(message::<Blob>(&events).len(), 7);
    assert_eq!(disconnect(&events).0, 2);
}

#[test]
fn a_dropped_link_closes_when_its_peer_is_gone_whatever_is_unread() {
    for bytes in [0, 10, 1 << 20, 16 << 20] {
        for (disconnects, peer_goes_first) in [(false, false), (false, true), (true, false)] {
            let (link, events, peer) = paused(Options::new());
            let peer = Channel::<Blob, ()>::from_socket(peer, Options::new());
            peer.try_send(&Blob::from(vec![0; 100_000])).unwrap();
            let _ = link.send(&Blob::from(vec![0; bytes]));
            if disconnects {
                link.disconnect();
            }
            if peer_goes_first {
                drop(peer);
                drop(link);
            } else {
                drop(link);
                drop(peer);
            }
            disconnect(&events);
        }
    }
}

#[test]
fn after_a_disconnect_a_peer_that_has_exited_is_not_waited_for() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let link = Link::start_paused(a, Options::new(), move |event| drop(sender.send(event)));
    let link = link.unwrap();
    let witness = queue_a_handle(&link);
    link.disconnect();
    // Another process holds the peer's socket, as a grandchild does.
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err());
    peer_is_gone(&link);
    is_closed(witness);
    assert_eq!(disconnect(&events).0, 2);
    drop(b);
}

#[test]
fn a_hang_up_is_noticed_at_once_on_request() {
    let (link, _events, peer) = pair::<(), ()>(&Options::new());
    notice_hang_up(&link);
    assert!(link.is_connected());
    drop(peer);
    notice_hang_up(&link);
    assert!(!link.is_connected());
}

#[test]
fn the_end_of_a_node_channel_waits_for_the_owner_behind_its_messages() {
    for (sent, expected) in [
        ("1\n2\n", None),
        // The stream ends inside of a message.
        ("1\n2\n\"cut", Some("the stream ended inside a frame")),
    ] {
        let (link, events, mut peer) = paused_node(Options::new());
        let (handle, witness) = handle_and_witness();
        link.send_with_handle(&Blob::from(vec![0; 100_000]), handle).unwrap();
        let (second, second_witness) = handle_and_witness();
        link.send_with_handle("behind an acknowledgement", second).unwrap();
        peer.write_all(sent.as_bytes()).unwrap();
        drop(peer);
        is_closed(witness);
        is_closed(second_witness);
        assert!(!link.is_connected());
        assert!(matches!(link.send("x").unwrap_err(), Error::Closed));
        assert!(events.recv_timeout(Duration::from_millis(50)).is_err(), "the owner does not read");
        link.resume();
        for number in 1..=2 {
            match events.recv_timeout(LONG).unwrap() {
                InternalEvent::Message(message) => {
                    assert_eq!(message.decode::<u32>().unwrap(), number);
                }
                other => panic!("{other:?}"),
            }
        }
        match events.recv_timeout(LONG).unwrap() {
            InternalEvent::Disconnect { error, .. } => {
                let error = error.map(|error| format!("{error:?}"));
                assert_eq!(error.is_some(), expected.is_some(), "{error:?}");
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_broken_rule_of_a_node_peer_waits_for_the_owner_and_closes_at_once() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let options = Options::new().serialization(Serialization::Advanced);
    let link = start_node(a, options, move |event| drop(sender.send(event))).unwrap();
    let mut peer = UnixStream::from(b);
    // The number 1, and a length that Node does not know.
    peer.write_all(&[0, 0, 0, 4, 0xff, 15, b'I', 2, 0xff, 0xff, 0xff, 0xff]).unwrap();
    peer.set_read_timeout(Some(LONG)).unwrap();
    assert_eq!(peer.read(&mut [0]).unwrap(), 0, "the peer sees the end");
    assert!(!link.is_connected());
    assert!(events.recv_timeout(Duration::from_millis(50)).is_err(), "the owner does not read");
    link.resume();
    let first = events.recv_timeout(LONG).unwrap();
    assert!(matches!(first, InternalEvent::Message(_)), "{first:?}");
    match events.recv_timeout(LONG).unwrap() {
        InternalEvent::Disconnect { error: Some(Error::Protocol(_)), .. } => {}
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_queue_that_nobody_reads_after_a_disconnect_is_given_up() {
    let options = || Options::new().flush_within(Duration::from_millis(50));
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let link = Link::start(a, options(), move |event| drop(sender.send(event))).unwrap();
    let long = vec![7_u8; 1 << 20];
    while link.send(&long).is_ok() {}
    link.disconnect();
    match events.recv_timeout(LONG).unwrap() {
        LinkEvent::Disconnect { undelivered, error: None } => assert!(undelivered > 0),
        other => panic!("{other:?}"),
    }
    drop(b);
    // The queue of a dropped endpoint, too.
    let (a, b) = sys::socket::pair_stream().unwrap();
    let channel = Channel::<Vec<u8>, ()>::from_fd(a, options()).unwrap();
    while channel.try_send(&long).is_ok() {}
    drop(channel);
    let ended = sys::poll::wait(&[(b.as_fd(), sys::poll::Interest::HANGUP)], Some(LONG)).unwrap();
    assert!(ended[0].any(), "the socket is closed");
}

#[test]
fn a_peer_that_reads_slowly_after_a_disconnect_gets_everything() {
    let options = Options::new().flush_within(LONG);
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let link = Link::start(a, options, move |event| drop(sender.send(event))).unwrap();
    let mut sent = 0;
    while link.send(&vec![7_u8; 1 << 20]).is_ok() {
        sent += 1;
    }
    link.disconnect();
    let peer = Channel::<(), Vec<u8>>::from_fd(b, Options::new()).unwrap();
    assert_eq!(peer.iter().filter(Result::is_ok).count(), sent);
    let last = events.recv_timeout(LONG).unwrap();
    assert!(matches!(last, LinkEvent::Disconnect { undelivered: 0, error: None }), "{last:?}");
}
