//! Failed sends, for every kind of endpoint and every reason: the value keeps usable handles, and
//! the buffer in which it was encoded is recycled. A successful send takes the handles.

use super::*;
use crate::buffer_pool::FrameBuffer;
use crate::{Channel, Handle, Link, SendHandleError};
use serde::Deserialize;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

/// The capacity of the seeded buffer, more than any message of these tests needs.
const BUFFER_BYTES: usize = 100 * 1024;

#[derive(Debug, Serialize, Deserialize)]
struct TestMessage {
    handles: Vec<Handle<UnixStream>>,
    bytes: Vec<u8>,
    #[serde(serialize_with = "refuse_if_set")]
    is_refused: bool,
}

fn refuse_if_set<S: serde::Serializer>(is_set: &bool, serializer: S) -> Result<S::Ok, S::Error> {
    match is_set {
        true => Err(serde::ser::Error::custom("refused")),
        false => serializer.serialize_bool(false),
    }
}

/// The way in which a message is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Send,
    TrySend,
    Feed,
    Loop,
    #[cfg(feature = "tokio")]
    Async,
}

const ALL: &[Way] = &[
    Way::Send,
    Way::TrySend,
    Way::Feed,
    Way::Loop,
    #[cfg(feature = "tokio")]
    Way::Async,
];

type Send = Box<dyn FnMut(&TestMessage) -> Result<(), Error>>;

impl Way {
    /// Opens an endpoint that is used this way; with `closed`, one that accepts no messages any
    /// more.
    fn open(self, socket: OwnedFd, options: Options, closed: bool) -> Send {
        let channel = Channel::<TestMessage, ()>::from_fd;
        match self {
            Way::Send => {
                let channel = channel(socket, options).unwrap();
                Box::new(move |value| channel.send(value))
            }
            Way::TrySend => {
                let channel = channel(socket, options).unwrap();
                Box::new(move |value| channel.try_send(value))
            }
            Way::Feed => {
                let channel = channel(socket, options).unwrap();
                Box::new(move |value| channel.feed(value))
            }
            Way::Loop => {
                let link = Link::start(socket, options, |_| {}).unwrap();
                if closed {
                    link.disconnect();
                }
                Box::new(move |value| link.send(value).map(drop))
            }
            #[cfg(feature = "tokio")]
            Way::Async => {
                let runtime =
                    ::tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
                let mut channel = runtime
                    .block_on(async { channel(socket, options).unwrap().into_async().unwrap() });
                Box::new(move |value| runtime.block_on(channel.send(value)))
            }
        }
    }
}

/// The reason for which a send fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reason {
    Full,
    Closed,
    TooLong,
    NotSerializable,
    HandleUnavailable,
    TooManyHandles,
}

impl Reason {
    fn ways(self) -> &'static [Way] {
        match self {
            // The other ways wait for room.
            Reason::Full => &[Way::TrySend, Way::Loop],
            Reason::Closed
            | Reason::TooLong
            | Reason::NotSerializable
            | Reason::HandleUnavailable
            | Reason::TooManyHandles => ALL,
        }
    }

    fn is_reason_of(self, error: &Error) -> bool {
        match self {
            Reason::Full => matches!(error, Error::Full),
            Reason::Closed => matches!(error, Error::Closed),
            Reason::TooLong => matches!(error, Error::TooLong { max: 50_000 }),
            Reason::NotSerializable => matches!(error, Error::Encode(why) if why == "refused"),
            Reason::HandleUnavailable => {
                matches!(error, Error::Encode(why) if why.contains("already sent"))
            }
            Reason::TooManyHandles => matches!(error, Error::TooManyHandles { count: 3, max: 2 }),
        }
    }
}

/// Returns a handle that another message has taken.
fn sent_handle() -> Handle<UnixStream> {
    let handle = Handle::new(UnixStream::pair().unwrap().0);
    let (other, _peer) = sys::socket::pair_stream().unwrap();
    let other = Channel::<Handle<UnixStream>, ()>::from_fd(other, Options::new()).unwrap();
    other.feed(&handle).unwrap();
    assert!(handle.is_sent());
    handle
}

/// Gives the thread a buffer, and returns its address.
fn seed_buffer() -> *const u8 {
    let mut buffer = FrameBuffer::take();
    buffer.reserve(BUFFER_BYTES);
    buffer.as_ptr()
}

fn check(reason: Reason, way: Way) {
    let (endpoint, peer) = sys::socket::pair_stream().unwrap();
    let peer = (reason != Reason::Closed).then_some(peer);
    let options = Options::new().frame_bytes_max(50_000).handles_max(2).queued_bytes_max(100_000);
    let mut send = way.open(endpoint, options, reason == Reason::Closed);
    // Some ways accept a few messages before they fail.
    for _ in 0..100 {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let mut handles = vec![Handle::new(theirs)];
        match reason {
            Reason::HandleUnavailable => handles.push(sent_handle()),
            Reason::TooManyHandles => {
                handles.extend((0..2).map(|_| Handle::new(UnixStream::pair().unwrap().0)));
            }
            _ => {}
        }
        let buffer = seed_buffer();
        let length = if reason == Reason::TooLong { 60_000 } else { 40_000 };
        let is_refused = reason == Reason::NotSerializable;
        let value = TestMessage { handles, bytes: vec![7; length], is_refused };
        let Err(error) = send(&value) else {
            assert!(matches!(reason, Reason::Full | Reason::Closed), "{reason:?} {way:?}");
            assert!(value.handles.iter().all(Handle::is_sent), "{reason:?} {way:?}");
            continue;
        };
        assert!(reason.is_reason_of(&error), "{reason:?} {way:?}: {error:?}");
        assert_eq!(FrameBuffer::take().as_ptr(), buffer, "{reason:?} {way:?}: recycled");
        assert_eq!(value.bytes.len(), length);
        let mut handles = value.handles.into_iter();
        let mut first = handles.next().unwrap().into_inner();
        first.write_all(b"!").unwrap();
        (&ours).read_exact(&mut [0]).unwrap();
        let is_sent = reason == Reason::HandleUnavailable;
        assert!(handles.all(|handle| handle.is_sent() == is_sent), "{reason:?} {way:?}");
        drop(peer);
        return;
    }
    panic!("{way:?} never failed by {reason:?}");
}

#[test]
fn a_failed_send_leaves_the_handles_usable_and_recycles_the_buffer() {
    for reason in [
        Reason::Full,
        Reason::Closed,
        Reason::TooLong,
        Reason::NotSerializable,
        Reason::HandleUnavailable,
        Reason::TooManyHandles,
    ] {
        reason.ways().iter().for_each(|way| check(reason, *way));
    }
}

#[test]
fn after_a_send_that_found_the_peer_gone_the_next_send_fails_too() {
    for way in ALL {
        let (endpoint, peer) = sys::socket::pair_stream().unwrap();
        drop(peer);
        let mut send = way.open(endpoint, Options::new(), true);
        let message = || TestMessage { handles: vec![], bytes: vec![7; 40_000], is_refused: false };
        let failures: Vec<bool> = (0..6).map(|_| send(&message()).is_err()).collect();
        let first = failures.iter().position(|failed| *failed).unwrap();
        assert!(first <= 1 && failures[first..].iter().all(|failed| *failed), "{way:?}");
    }
}

#[test]
fn a_failed_send_to_node_gives_the_descriptor_back_and_recycles_the_buffer() {
    let serialization = crate::Serialization::Json;
    let options = Options::new().serialization(serialization).frame_bytes_max(50_000);
    let (ours, _theirs) = sys::socket::pair_stream().unwrap();
    let link = crate::internal::start_node(ours, options, |_| {}).unwrap();
    for reason in [Reason::TooLong, Reason::NotSerializable, Reason::Closed] {
        let buffer = seed_buffer();
        let length = if reason == Reason::TooLong { 60_000 } else { 10 };
        let is_refused = reason == Reason::NotSerializable;
        if reason == Reason::Closed {
            link.disconnect();
        }
        let message = TestMessage { handles: vec![], bytes: vec![7; length], is_refused };
        let (ours, theirs) = UnixStream::pair().unwrap();
        let failed = link.send_with_handle(&message, theirs).unwrap_err();
        let SendHandleError { handle, error } = failed;
        assert!(reason.is_reason_of(&error), "{reason:?}: {error:?}");
        assert_eq!(FrameBuffer::take().as_ptr(), buffer, "{reason:?}");
        UnixStream::from(handle).write_all(b"!").unwrap();
        (&ours).read_exact(&mut [0]).unwrap();
    }
}
