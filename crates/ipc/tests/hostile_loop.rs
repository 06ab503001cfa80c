//! Slow peers, and receivers without descriptors, on the loop: other channels must not notice them.

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use brood_ipc::frame::{Decoder, Header, Kind, Limits};
use brood_ipc::{Channel, Error, Handle, Hello, Link, LinkEvent, Options, Serialization};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(20);

type Many = Vec<Handle<OwnedFd>>;

fn link(socket: UnixStream) -> (Link, Receiver<LinkEvent>) {
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    let link = Link::start_paused(socket, Options::new(), sink).unwrap();
    (link, events)
}

fn message<T: serde::de::DeserializeOwned>(events: &Receiver<LinkEvent>) -> Result<T, Error> {
    match events.recv_timeout(LONG).unwrap() {
        LinkEvent::Message(message) => message.decode(),
        other => panic!("{other:?}"),
    }
}

/// Another channel on the same loop, which must make progress meanwhile.
struct Other {
    peer: Channel<u32, u32>,
    link: Link,
    events: Receiver<LinkEvent>,
}

impl Other {
    fn new() -> Other {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let (link, events) = link(ours);
        link.resume();
        let other = Other { peer: Channel::from_fd(theirs, Options::new()).unwrap(), link, events };
        other.goes_on(0);
        other
    }

    fn goes_on(&self, number: u32) {
        self.peer.send(&number).unwrap();
        assert_eq!(message::<u32>(&self.events).unwrap(), number);
        self.link.send(&number).unwrap();
        assert_eq!(self.peer.recv_timeout(LONG).unwrap(), Some(number));
    }
}

#[test]
fn a_peer_that_reads_a_byte_at_a_time_gets_everything_and_does_not_delay_other_channels() {
    let (ours, mut slow) = UnixStream::pair().unwrap();
    let (link, events) = link(ours);
    link.resume();
    let other = Other::new();
    let hello = Hello::new(Serialization::Bincode, "").to_bytes();
    let header = Header { kind: Kind::Hello, handles: 0, length: hello.len(), fingerprint: 0 };
    slow.write_all(&[&header.to_bytes()[..], &hello].concat()).unwrap();

    let numbered = |number: u32| (number, vec![number as u8; 10_000]);
    let mut accepted = 0;
    let full = loop {
        match link.send(&numbered(accepted)) {
            Ok(_) => accepted += 1,
            Err(failed) => break failed,
        }
    };
    assert!(matches!(full, Error::Full));
    let mut bytes = Vec::new();
    for number in 1..=500 {
        let mut byte = [0];
        slow.read_exact(&mut byte).unwrap();
        bytes.extend(byte);
        assert!(link.queued_bytes() <= Options::QUEUED_BYTES_MAX);
        if number % 50 == 0 {
            other.goes_on(number);
        }
    }
    link.disconnect();
    slow.read_to_end(&mut bytes).unwrap();
    let limits = Limits { frame_bytes_max: 1 << 20, handles_max: 0, received_handles_max: 0 };
    let mut decoder = Decoder::<u32>::new(limits);
    let (mut rest, mut arrived) = (&bytes[..], 0);
    while !rest.is_empty() {
        let (buffer, room) = decoder.space();
        let (now, later) = rest.split_at(room.min(rest.len()));
        buffer.extend_from_slice(now);
        rest = later;
        while let Some(frame) = decoder.next_frame().unwrap() {
            if frame.kind == Kind::Message {
                let payload = frame.payload.as_ref();
                assert_eq!(payload[..4], u32::to_le_bytes(arrived), "in the order sent");
                assert_eq!(payload.len(), 4 + 8 + 10_000, "and whole");
                arrived += 1;
            }
        }
    }
    decoder.end().unwrap();
    assert_eq!(arrived, accepted);
    drop(slow);
    let last = events.recv_timeout(LONG).unwrap();
    assert!(matches!(last, LinkEvent::Disconnect { undelivered: 0, error: None }), "{last:?}");
}

#[test]
fn a_loop_out_of_descriptors_loses_the_handles_and_keeps_every_channel() {
    let done = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "alone_a_loop_out_of_descriptors", "--ignored", "--test-threads=1"])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stdout));
}

#[test]
#[ignore = "changes the limit of its process; run by the test above"]
fn alone_a_loop_out_of_descriptors() {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let sender = Channel::<Many, ()>::from_fd(theirs, Options::new()).unwrap();
    let (link, events) = link(ours);
    let other = Other::new();
    let many =
        || -> Many { (0..20).map(|_| Handle::new(UnixStream::pair().unwrap().0.into())).collect() };
    let open = || sys::fd::open_descriptors().unwrap();
    let before = open().len();
    sender.send(&many()).unwrap();
    sender.send(&vec![]).unwrap();

    // All descriptor numbers below the highest are taken, and five more are allowed.
    let (soft, _) = sys::rlimit::descriptors().unwrap();
    let fill = || sender.as_fd().try_clone_to_owned().unwrap();
    let highest = *open().last().unwrap();
    let mut fillers = vec![fill()];
    while sys::fd::number(fillers.last().unwrap().as_fd()) < highest {
        fillers.push(fill());
    }
    let highest = u64::try_from(*open().last().unwrap()).unwrap();
    sys::rlimit::set_descriptors(highest + 1 + 5).unwrap();
    link.resume();
    let lost = message::<Many>(&events).map(|handles| handles.len());
    assert!(matches!(lost, Err(Error::HandlesLost)), "{lost:?}");
    assert_eq!(message::<Many>(&events).unwrap().len(), 0);
    other.goes_on(1);
    sys::rlimit::set_descriptors(soft).unwrap();
    drop(fillers);
    assert_eq!(open().len(), before, "handles that came with it are closed");
    sender.send(&many()).unwrap();
    assert_eq!(message::<Many>(&events).unwrap().len(), 20);
    other.goes_on(2);
    assert_eq!(open().len(), before);
}
