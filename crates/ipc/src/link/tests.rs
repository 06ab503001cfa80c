//! The loop-driven endpoint against a blocking one: order, limits, back-pressure, the last event.

use super::*;
use crate::channel::{Channel, channel, channel_with};
use crate::internal::send_internal;
use crate::{Blob, Handle};
use crossbeam_channel::{Receiver, unbounded};

mod hang_up;
mod node_answers;
mod node_peer;

const LONG: Duration = Duration::from_secs(20);

fn pair<S, R>(options: &Options) -> (Link, Receiver<LinkEvent>, Channel<S, R>) {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let link = Link::start(a, options.clone(), move |event| drop(sender.send(event))).unwrap();
    (link, events, Channel::from_socket(b, options.clone()))
}

fn message<T: serde::de::DeserializeOwned>(events: &Receiver<LinkEvent>) -> T {
    match events.recv_timeout(LONG).unwrap() {
        LinkEvent::Message(message) => message.decode().unwrap(),
        other => panic!("{other:?}"),
    }
}

fn disconnect(events: &Receiver<LinkEvent>) -> (usize, Option<Error>) {
    match events.recv_timeout(LONG).unwrap() {
        LinkEvent::Disconnect { undelivered, error } => {
            // The sink is dropped with the source, so no event can follow.
            assert!(events.recv_timeout(LONG).is_err());
            (undelivered, error)
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn messages_go_both_ways_in_order_and_disconnect_is_last_and_once() {
    let (link, events, peer) = pair::<u32, u32>(&Options::new());
    for number in 0..10_000 {
        link.send(&number).unwrap();
        peer.feed(&number).unwrap();
    }
    peer.flush().unwrap();
    for number in 0..10_000 {
        assert_eq!(peer.recv().unwrap(), number);
        assert_eq!(message::<u32>(&events), number);
    }
    drop(peer);
    let (undelivered, error) = disconnect(&events);
    assert_eq!(undelivered, 0);
    assert!(error.is_none(), "{error:?}");
    assert!(!link.is_connected());
    assert!(matches!(link.send(&1).unwrap_err(), Error::Closed));
}

#[test]
fn disconnect_writes_everything_first() {
    let (link, events, peer) = pair::<(), Vec<u8>>(&Options::new());
    let mut accepted = 0;
    while link.send(&vec![7_u8; 10_000]).unwrap().has_room() {
        accepted += 1;
    }
    link.disconnect();
    assert!(link.send(&vec![1_u8]).is_err());
    let received = peer.iter().map(|bytes| assert_eq!(bytes.unwrap().len(), 10_000)).count();
    assert_eq!(received, accepted + 1);
    assert_eq!(disconnect(&events).0, 0);
}

#[test]
fn the_last_clone_disconnects() {
    let (link, events, peer) = pair::<(), u32>(&Options::new());
    let clone = link.clone();
    clone.send(&5_u32).unwrap();
    drop(link);
    assert!(clone.is_connected());
    drop(clone);
    assert_eq!(peer.recv().unwrap(), 5);
    assert!(matches!(peer.recv(), Err(Error::Closed)));
    disconnect(&events);
}

#[test]
fn a_peer_that_never_reads_fills_the_queue_and_then_sends_fail() {
    let (link, events, peer) = pair::<(), Blob>(&Options::new());
    let blob = Blob::from(vec![0; 100_000]);
    let mut high = 0;
    let full = loop {
        match link.send(&blob) {
            Ok(queued) => high += usize::from(!queued.has_room()),
            Err(error) => break error,
        }
    };
    assert!(matches!(full, Error::Full));
    assert_eq!(blob.len(), 100_000);
    assert!(high > 10, "the high-water mark is reported before the limit: {high}");
    assert!(link.queued_bytes() <= Options::QUEUED_BYTES_MAX);
    drop(peer);
    let (undelivered, error) = disconnect(&events);
    assert!(undelivered > 10 && error.is_none());
}

#[test]
fn a_full_queue_has_limited_room_for_internal_messages() {
    let options = Options::new().frame_bytes_max(200_000);
    let (link, events, peer) = pair::<(), Blob>(&options);
    let fill = || while link.send(&Blob::from(vec![0; 100_000])).is_ok() {};
    fill();
    send_internal(&link, &Blob::from(vec![1; 100_000])).unwrap();
    fill();
    let full = loop {
        if let Err(failed) = send_internal(&link, &Blob::from(vec![1; 100_000])) {
            break failed;
        }
    };
    assert!(matches!(full, Error::Full));
    assert!(link.queued_bytes() <= 2 * Options::QUEUED_BYTES_MAX);
    drop(peer);
    assert!(disconnect(&events).1.is_none());
}

#[test]
fn one_long_message_leaves_room_for_internal_messages() {
    let (link, events, peer) = pair::<Blob, Blob>(&Options::new());
    link.send(&Blob::from(vec![0; 16 << 20])).unwrap();
    link.send(&Blob::from(vec![0])).unwrap_err();
    (0..100).for_each(|_| _ = send_internal(&link, &Blob::from(vec![1; 1000])).unwrap());
    assert_eq!(peer.recv().unwrap().len(), 16 << 20);
    drop(peer);
    assert!(disconnect(&events).1.is_none());
}

#[test]
fn internal_messages_have_their_own_event_and_never_reach_a_user() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let sink = Box::new(move |event| drop(sender.send(event)));
    let link = Link::begin(a, Options::new(), sink, true).unwrap();
    let peer = Channel::<u32, u32>::from_socket(b, Options::new());
    send_internal(&link, "control").unwrap();
    link.send(&7_u32).unwrap();
    assert_eq!(peer.recv().unwrap(), 7);
    let (sender, others) = unbounded();
    let far = peer.into_link(move |event| drop(sender.send(event))).unwrap();
    send_internal(&far, &8_u32).unwrap();
    assert!(matches!(events.recv_timeout(LONG).unwrap(), InternalEvent::Internal(_)));
    drop(far);
    assert!(matches!(events.recv_timeout(LONG).unwrap(), InternalEvent::Disconnect { .. }));
    disconnect(&others);
}

#[test]
fn unread_messages_pause_reading_and_taken_ones_resume_it() {
    let options = Options::new().unread_bytes_max(100_000);
    let (_link, events, peer) = pair::<Vec<u8>, ()>(&options);
    let sent = std::thread::spawn(move || {
        for _ in 0..2_000 {
            peer.send(&vec![0; 1_000]).unwrap();
        }
    });
    // 2 MB do not fit: the limit, one more read, and the socket's own buffer are less.
    let mut kept = vec![events.recv_timeout(LONG).unwrap()];
    while let Ok(event) = events.recv_timeout(Duration::from_millis(200)) {
        kept.push(event);
    }
    assert!(kept.len() < 300, "{}", kept.len());
    assert!(!sent.is_finished());
    let mut count = kept.len();
    drop(kept);
    while let LinkEvent::Message(_) = events.recv_timeout(LONG).unwrap() {
        count += 1;
    }
    assert_eq!(count, 2_000);
    sent.join().unwrap();
}

#[test]
fn unread_handles_pause_reading() {
    let options = Options::new().unread_handles_max(8);
    let (_link, events, peer) = pair::<Handle<OwnedFd>, ()>(&options);
    for _ in 0..40 {
        let (a, _b) = sys::socket::pair_stream().unwrap();
        peer.send(&Handle::new(a)).unwrap();
    }
    let mut kept = vec![events.recv_timeout(LONG).unwrap()];
    while let Ok(event) = events.recv_timeout(Duration::from_millis(200)) {
        kept.push(event);
    }
    assert_eq!(kept.len(), 8);
    drop(kept);
    for _ in 8..40 {
        message::<Handle<OwnedFd>>(&events);
    }
}

#[test]
fn a_paused_link_reads_nothing_before_it_is_resumed() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    let link = Link::start_paused(a, Options::new(), sink).unwrap();
    let peer = Channel::<u32, u32>::from_socket(b, Options::new());
    peer.send(&1).unwrap();
    link.send(&2_u32).unwrap();
    assert_eq!(peer.recv().unwrap(), 2);
    drop(peer);
    assert!(events.recv_timeout(Duration::from_millis(100)).is_err());
    link.resume();
    assert_eq!(message::<u32>(&events), 1);
    disconnect(&events);
}

#[test]
fn a_peer_of_another_codec_or_tag_is_an_error_that_names_both() {
    let (a, b) = sys::socket::pair_stream().unwrap();
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    let _link = Link::start(a, Options::new(), sink).unwrap();
    let other = Options::new().serialization(crate::Serialization::Json);
    let peer = Channel::<u32, u32>::from_socket(b, other);
    peer.send(&1).unwrap();
    let (_, error) = disconnect(&events);
    let text = error.unwrap().to_string();
    assert!(text.contains("codec json") && text.contains("codec bincode"), "{text}");
    assert!(matches!(peer.recv(), Err(Error::Mismatch { .. })));
}

#[test]
fn a_descriptor_that_is_no_unix_stream_is_refused() {
    let (a, _b) = sys::socket::pair_seqpacket().unwrap();
    let refused = Link::start(a, Options::new(), |_| {}).unwrap_err();
    assert!(matches!(refused, Error::NotAChannel(_)));
}

#[test]
fn an_endpoint_with_messages_already_read_moves_to_the_loop_without_losing_one() {
    let (a, b) = channel::<u32, u32>().unwrap();
    for number in 0..100 {
        a.feed(&number).unwrap();
    }
    a.flush().unwrap();
    assert_eq!(b.recv().unwrap(), 0);
    let (sender, events) = unbounded();
    let _link = b.into_link(move |event| drop(sender.send(event))).unwrap();
    for number in 1..100 {
        assert_eq!(message::<u32>(&events), number);
    }
}

#[test]
fn many_threads_send_without_mixing_messages() {
    let (link, _events, peer) =
        pair::<(), (u8, Vec<u8>)>(&Options::new().queued_bytes_max(usize::MAX));
    let threads: Vec<_> = (0..4_u8)
        .map(|thread| {
            let link = link.clone();
            std::thread::spawn(move || {
                for length in 0..500 {
                    link.send(&(thread, vec![thread; length])).unwrap();
                }
            })
        })
        .collect();
    let mut next = [0; 4];
    for _ in 0..2_000 {
        let (thread, bytes) = peer.recv().unwrap();
        assert_eq!(bytes, vec![thread; next[usize::from(thread)]]);
        next[usize::from(thread)] += 1;
    }
    threads.into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_sender_that_drops_with_much_queued_still_delivers_it() {
    let options = Options::new().queued_bytes_max(8 << 20);
    let (a, b) = channel_with::<Blob, ()>(&options).unwrap();
    let mut accepted = 0;
    while accepted < 5_000_000 / 50_000 {
        a.try_send(&Blob::from(vec![1; 50_000])).unwrap();
        accepted += 1;
    }
    drop(a);
    assert_eq!(b.iter().map(Result::unwrap).count(), accepted);
}
