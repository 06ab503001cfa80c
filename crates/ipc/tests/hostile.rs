//! Attacks of a hostile or broken peer, which must cost only its own channel.
//!
//! Every attack is played against blocking and loop-driven endpoints. A process of its own counts
//! descriptors after each of them (`descriptors_are_never_leaked`).

#![allow(clippy::unwrap_used, reason = "a test may panic anywhere")]

use brood_ipc::frame::{FrameError, Header, Kind};
use brood_ipc::{Channel, Error, Handle, Hello, Link, LinkEvent, Options, Serialization, internal};
use crossbeam_channel::{Receiver, unbounded};
use std::io::{IoSlice, Write};
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(20);

/// The attacker's socket, which sends arbitrary bytes.
struct Attacker(UnixStream);

impl Attacker {
    fn send_handshake(&self) {
        self.write(&frame(Kind::Hello, 0, &Hello::new(Serialization::Bincode, "").to_bytes()));
    }

    fn write(&self, bytes: &[u8]) {
        // The victim may have closed already.
        let _ = (&self.0).write_all(bytes);
    }

    fn write_with(&self, bytes: &[u8], fds: &[BorrowedFd<'_>]) {
        sys::scm::send_blocking(self.0.as_fd(), &[IoSlice::new(bytes)], fds).unwrap();
    }
}

fn frame(kind: Kind, handles: usize, payload: &[u8]) -> Vec<u8> {
    // Most of the tests send numbers of this type.
    let fingerprint = internal::fingerprint(&0_u32);
    let header = Header { kind, handles, length: payload.len(), fingerprint };
    [&header.to_bytes()[..], payload].concat()
}

fn message(payload: &[u8]) -> Vec<u8> {
    frame(Kind::Message, 0, payload)
}

fn pair() -> (Attacker, OwnedFd) {
    let (attacker, victim) = UnixStream::pair().unwrap();
    (Attacker(attacker), victim.into())
}

/// Plays `attack` against a blocking and a loop-driven endpoint, and returns the error of each.
fn errors(attack: impl Fn(&Attacker)) -> [Option<Error>; 2] {
    let (attacker, socket) = pair();
    let blocking = Channel::<(), u32>::from_fd(socket, Options::new()).unwrap();
    attack(&attacker);
    attacker.0.shutdown(std::net::Shutdown::Write).unwrap();
    let first = blocking.iter().find_map(Result::err);
    let (attacker, socket) = pair();
    let (_link, events) = link(socket);
    attack(&attacker);
    attacker.0.shutdown(std::net::Shutdown::Write).unwrap();
    let second = loop {
        match events.recv_timeout(LONG).unwrap() {
            LinkEvent::Message(message) => match message.decode::<u32>() {
                Ok(_) => {}
                Err(error) => break Some(error),
            },
            LinkEvent::Disconnect { error, .. } => break error,
            other => panic!("{other:?}"),
        }
    };
    [first, second]
}

fn link(socket: OwnedFd) -> (Link, Receiver<LinkEvent>) {
    let (sender, events) = unbounded();
    let sink = move |event| drop(sender.send(event));
    (Link::start(socket, Options::new(), sink).unwrap(), events)
}

fn closes_with(expected: &FrameError, attack: impl Fn(&Attacker)) {
    for error in errors(attack) {
        match error {
            Some(Error::Protocol(error)) => assert_eq!(&error, expected),
            other => panic!("{other:?} instead of {expected:?}"),
        }
    }
}

fn undecodable(attack: impl Fn(&Attacker)) {
    for error in errors(attack) {
        assert!(matches!(error, Some(Error::Decode(_))), "{error:?}");
    }
}

#[test]
fn a_length_over_the_limit_closes_the_channel_before_a_byte_of_the_payload_arrives() {
    let max = Options::FRAME_BYTES_MAX;
    for announced in [max as u32 + 1, u32::MAX, i32::MIN as u32] {
        let over = FrameError::Length { announced: u64::from(announced), max };
        closes_with(&over, |attacker| {
            attacker.send_handshake();
            let [a, b, c, d] = announced.to_le_bytes();
            attacker.write(&[2, 2, 0, 0, a, b, c, d]);
        });
    }
}

#[test]
fn too_many_handles_close_the_channel() {
    for count in [254_u8, 255] {
        let over = FrameError::Handles { announced: usize::from(count), max: 253 };
        closes_with(&over, |attacker| {
            attacker.send_handshake();
            attacker.write(&[2, 2, 0, count, 0, 0, 0, 0]);
        });
    }
}

#[test]
fn handles_that_no_frame_declares_close_the_channel() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    for count in [1, 2, 253] {
        closes_with(&FrameError::HandlesUndeclared, |attacker| {
            attacker.send_handshake();
            attacker.write_with(&message(&7_u32.to_le_bytes()), &vec![listener.as_fd(); count]);
        });
    }
    closes_with(&FrameError::HandlesUndeclared, |attacker| {
        attacker.send_handshake();
        let bytes = frame(Kind::Message, 1, &7_u32.to_le_bytes());
        attacker.write_with(&bytes, &[listener.as_fd(), listener.as_fd()]);
    });
}

#[test]
fn declared_handles_that_never_arrive_close_the_channel() {
    closes_with(&FrameError::HandlesMissing, |attacker| {
        attacker.send_handshake();
        attacker.write(&frame(Kind::Message, 3, &7_u32.to_le_bytes()));
    });
}

#[test]
fn garbage_closes_the_channel() {
    closes_with(&FrameError::Version(b'G'), |attacker| attacker.write(b"GET / HTTP/1.1\r\n\r\n"));
    closes_with(&FrameError::Version(0), |attacker| attacker.write(&[0; 1000]));
    closes_with(&FrameError::Hello, |attacker| attacker.write(&message(&7_u32.to_le_bytes())));
    closes_with(&FrameError::Kind(16), |attacker| {
        attacker.send_handshake();
        attacker.write(&frame(Kind::Offer, 0, b""));
    });
    closes_with(&FrameError::Hello, |attacker| {
        attacker.send_handshake();
        attacker.send_handshake();
    });
}

#[test]
fn the_end_of_the_stream_inside_a_frame_is_an_error() {
    closes_with(&FrameError::EndInFrame, |attacker| {
        attacker.send_handshake();
        attacker.write(&message(&7_u32.to_le_bytes())[..10]);
    });
    closes_with(&FrameError::EndInFrame, |attacker| {
        attacker.send_handshake();
        attacker.write(&message(&vec![0; 1_000_000])[..100_000]);
    });
}

#[test]
fn a_payload_of_another_type_affects_one_message_only() {
    undecodable(|attacker| {
        attacker.send_handshake();
        attacker.write(&message(b"xyz"));
        attacker.write(&message(&7_u32.to_le_bytes()));
    });
    undecodable(|attacker| {
        attacker.send_handshake();
        attacker.write(&message(&[0; 100]));
    });
    let (attacker, socket) = pair();
    let channel = Channel::<(), u32>::from_fd(socket, Options::new()).unwrap();
    attacker.send_handshake();
    attacker.write(&[message(b"xyz"), message(&7_u32.to_le_bytes())].concat());
    assert!(matches!(channel.recv(), Err(Error::Decode(_))));
    assert_eq!(channel.recv().unwrap(), 7);
}

#[test]
fn another_version_in_the_handshake_is_an_error_that_names_both() {
    let hello = Hello { protocol: 77, ..Hello::new(Serialization::Bincode, "") };
    for error in errors(|attacker| attacker.write(&frame(Kind::Hello, 0, &hello.to_bytes()))) {
        let text = error.unwrap().to_string();
        assert!(text.contains("protocol 77") && text.contains("protocol 2,"), "{text}");
    }
}

/// The literal bytes of version 1 of the protocol.
#[test]
fn a_peer_of_version_one_and_this_side_name_both_versions() {
    const OLD: [u8; 16] = [1, 1, 0, 0, 8, 0, 0, 0, 1, 0, 1, 0, 0, 0, 0, 0];
    for error in errors(|attacker| attacker.write(&OLD)) {
        let Some(Error::Mismatch { ours, theirs }) = error else { panic!("{error:?}") };
        assert_eq!((ours.protocol, theirs.protocol), (2, 1));
    }
    // The layout of our own handshake is the old one, so that the peer can read it.
    let (attacker, socket) = pair();
    let channel = Channel::<u32, ()>::from_fd(socket, Options::new()).unwrap();
    channel.send(&7).unwrap();
    let mut bytes = [0; 16];
    std::io::Read::read_exact(&mut &attacker.0, &mut bytes).unwrap();
    assert_eq!(bytes, [1, 1, 0, 0, 8, 0, 0, 0, 2, 0, 1, 0, 0, 0, 0, 0]);
}

/// Plays one payload against a channel of type `R`, and returns the error of that message.
fn refusal<R: serde::de::DeserializeOwned>(payload: &[u8], fds: &[BorrowedFd<'_>]) -> String {
    let (attacker, socket) = pair();
    let channel = Channel::<(), R>::from_fd(socket, Options::new()).unwrap();
    attacker.send_handshake();
    attacker.write_with(&frame(Kind::Message, fds.len(), payload), fds);
    match channel.recv().map(drop) {
        Err(Error::Decode(why)) => why,
        other => panic!("{other:?}"),
    }
}

#[test]
fn eight_bytes_that_announce_billions_of_empty_elements_are_refused_at_once() {
    let begin = Instant::now();
    for announced in [1_u64 << 32, u64::MAX, i64::MIN as u64] {
        let why = refusal::<Vec<()>>(&announced.to_le_bytes(), &[]);
        assert!(why.contains("more list elements"), "{why}");
        refusal::<Vec<u64>>(&announced.to_le_bytes(), &[]);
        refusal::<String>(&announced.to_le_bytes(), &[]);
    }
    assert!(begin.elapsed() < LONG);
}

#[derive(serde::Deserialize)]
#[allow(dead_code, reason = "it is only decoded")]
struct Deep(Option<Box<Deep>>);

#[test]
fn deep_nesting_is_refused_and_no_stack_overflows() {
    // The payload is as long as the socket allows before the receiver reads.
    let why = refusal::<Deep>(&vec![1; 50_000], &[]);
    assert!(why.contains("nested deeper"), "{why}");
}

#[test]
fn shared_memory_that_can_still_shrink_is_refused() {
    let open = sys::memory::create("open", 1 << 20).unwrap();
    let why = refusal::<brood_ipc::SharedMemory>(&0_u32.to_le_bytes(), &[open.as_fd()]);
    assert!(why.contains("not sealed"), "{why}");
    // The memory was not kept either, so its owner can still change it.
    std::fs::File::from(open).set_len(0).unwrap();
    let file = tempfile::tempfile().unwrap();
    let why = refusal::<brood_ipc::SharedMemory>(&0_u32.to_le_bytes(), &[file.as_fd()]);
    assert!(why.contains("no shared memory") || why.contains("not sealed"), "{why}");
}

#[test]
fn a_receiver_with_a_timeout_is_not_held_by_a_peer_that_trickles() {
    let (slow, socket) = pair();
    let channel = Channel::<(), u32>::from_fd(socket, Options::new()).unwrap();
    slow.send_handshake();
    for byte in &message(&7_u32.to_le_bytes())[..11] {
        slow.write(&[*byte]);
        let nothing = channel.recv_timeout(Duration::from_millis(5)).unwrap();
        assert_eq!(nothing, None, "a part of a message is no message");
    }
    slow.write(&message(&7_u32.to_le_bytes())[11..]);
    assert_eq!(channel.recv_timeout(LONG).unwrap(), Some(7));
}

#[test]
fn a_peer_that_sends_a_byte_at_a_time_does_not_block_other_channels() {
    let (slow, socket) = pair();
    let (_link, events) = link(socket);
    slow.send_handshake();
    let bytes = message(&7_u32.to_le_bytes());
    for (at, byte) in bytes.iter().enumerate() {
        slow.write(&[*byte]);
        // Another channel on the same loop makes progress after every byte.
        let (other, socket) = pair();
        let (_link, others) = link(socket);
        other.send_handshake();
        other.write(&message(&(at as u32).to_le_bytes()));
        let LinkEvent::Message(message) = others.recv_timeout(LONG).unwrap() else { panic!() };
        assert_eq!(message.decode::<u32>().unwrap(), at as u32);
    }
    let LinkEvent::Message(message) = events.recv_timeout(LONG).unwrap() else { panic!() };
    assert_eq!(message.decode::<u32>().unwrap(), 7);
}

#[test]
fn a_peer_that_never_reads_does_not_block_other_channels() {
    let (_deaf, socket) = pair();
    let (link_to_deaf, _events) = link(socket);
    while link_to_deaf.send(&vec![0_u8; 10_000]).is_ok() {}
    let (other, socket) = pair();
    let (_link, others) = link(socket);
    other.send_handshake();
    other.write(&message(&1_u32.to_le_bytes()));
    assert!(matches!(others.recv_timeout(LONG).unwrap(), LinkEvent::Message(_)));
}

#[test]
fn a_descriptor_of_the_wrong_kind_is_refused_and_closed() {
    let (attacker, socket) = pair();
    let channel =
        Channel::<(), Handle<std::net::TcpStream>>::from_fd(socket, Options::new()).unwrap();
    attacker.send_handshake();
    let (read, _write) = UnixStream::pair().unwrap();
    attacker.write_with(&frame(Kind::Message, 1, &0_u32.to_le_bytes()), &[read.as_fd()]);
    let refused = channel.recv().unwrap_err();
    assert!(refused.to_string().contains("UnixStream, not a"), "{refused}");
}

#[test]
fn order_holds_when_writes_stop_anywhere_in_frames_with_handles() {
    // A small send buffer makes the kernel stop in the middle of frames.
    let (sender, receiver) = brood_ipc::channel::<(u32, Vec<u8>, Handle<OwnedFd>), ()>().unwrap();
    let thread = std::thread::spawn(move || {
        for number in 0..200 {
            let (socket, _other) = UnixStream::pair().unwrap();
            let bytes = vec![number as u8; 3_333];
            sender.send(&(number, bytes, Handle::new(socket.into()))).unwrap();
        }
    });
    for number in 0..200 {
        let (seen, bytes, handle) = receiver.recv().unwrap();
        assert_eq!((seen, bytes), (number, vec![number as u8; 3_333]));
        assert!(sys::socket::is_unix_stream(handle.into_inner().as_fd()));
    }
    thread.join().unwrap();
}

/// Runs one of the ignored tests below in a process of its own, with `stdin` as descriptor 0.
fn in_child(name: &str, stdin: Stdio) -> bool {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--ignored", "--test-threads=1"])
        .stdin(stdin)
        .stdout(Stdio::null())
        .status()
        .unwrap()
        .success()
}

#[test]
fn a_receiver_out_of_descriptors_loses_the_handles_and_keeps_the_channel() {
    assert!(in_child("alone_out_of_descriptors", Stdio::null()));
}

#[test]
#[ignore = "changes the limit of its process; run by the test above"]
fn alone_out_of_descriptors() {
    let (a, b) = brood_ipc::channel::<Vec<Handle<OwnedFd>>, ()>().unwrap();
    let many = || -> Vec<Handle<OwnedFd>> {
        (0..20).map(|_| Handle::new(UnixStream::pair().unwrap().0.into())).collect()
    };
    let before = sys::fd::open_descriptors().unwrap().len();
    a.send(&many()).unwrap();
    a.send(&vec![]).unwrap();
    let (soft, _) = sys::rlimit::descriptors().unwrap();
    let highest = *sys::fd::open_descriptors().unwrap().last().unwrap();
    let mut fillers = vec![a.as_fd().try_clone_to_owned().unwrap()];
    while sys::fd::number(fillers.last().unwrap().as_fd()) < highest {
        fillers.push(a.as_fd().try_clone_to_owned().unwrap());
    }
    let highest = *sys::fd::open_descriptors().unwrap().last().unwrap() as u64;
    sys::rlimit::set_descriptors(highest + 1 + 5).unwrap();
    let lost = b.recv().map(|handles| handles.len());
    assert!(matches!(lost, Err(Error::HandlesLost)), "{lost:?}");
    assert_eq!(b.recv().unwrap().len(), 0);
    sys::rlimit::set_descriptors(soft).unwrap();
    drop(fillers);
    assert_eq!(sys::fd::open_descriptors().unwrap().len(), before);
    a.send(&many()).unwrap();
    assert_eq!(b.recv().unwrap().len(), 20);
    assert_eq!(sys::fd::open_descriptors().unwrap().len(), before);
}

#[test]
fn descriptors_are_never_leaked() {
    assert!(in_child("alone_every_attack_leaves_no_descriptor", Stdio::null()));
}

#[test]
#[ignore = "counts the descriptors of its process; run by the test above"]
fn alone_every_attack_leaves_no_descriptor() {
    // The loop opens its own descriptors first.
    a_peer_that_never_reads_does_not_block_other_channels();
    let count = || sys::fd::open_descriptors().unwrap().len();
    let before = count();
    for _ in 0..3 {
        handles_that_no_frame_declares_close_the_channel();
        declared_handles_that_never_arrive_close_the_channel();
        a_descriptor_of_the_wrong_kind_is_refused_and_closed();
        shared_memory_that_can_still_shrink_is_refused();
        the_end_of_the_stream_inside_a_frame_is_an_error();
        order_holds_when_writes_stop_anywhere_in_frames_with_handles();
    }
    // The loop closes a socket just after it has emitted the disconnect.
    let (_never, news) = unbounded::<()>();
    let deadline = Instant::now() + LONG;
    while count() > before && Instant::now() < deadline {
        let _ = news.recv_timeout(Duration::from_millis(5));
    }
    assert!(count() <= before, "{} instead of {before}", count());
}

#[test]
fn main_may_return_with_five_megabytes_queued_and_all_of_them_arrive() {
    for name in ["alone_return_with_much_queued_in_a_link", "alone_return_with_much_fed"] {
        let (ours, theirs) = UnixStream::pair().unwrap();
        let options = Options::new().tag("exit");
        let channel = Channel::<(), brood_ipc::Blob>::from_fd(ours, options).unwrap();
        let reader = std::thread::spawn(move || {
            channel.iter().map(|blob| blob.unwrap().len()).sum::<usize>()
        });
        assert!(in_child(name, Stdio::from(OwnedFd::from(theirs))));
        assert_eq!(reader.join().unwrap(), 5_000_000, "{name}");
    }
}

fn exit_options() -> Options {
    Options::new().tag("exit").queued_bytes_max(8 << 20)
}

fn inherited() -> OwnedFd {
    std::io::stdin().as_fd().try_clone_to_owned().unwrap()
}

#[test]
#[ignore = "ends with much queued; run by the test above"]
fn alone_return_with_much_queued_in_a_link() {
    let link = Link::start(inherited(), exit_options(), |_| {}).unwrap();
    for _ in 0..100 {
        link.send(&brood_ipc::Blob::from(vec![0; 50_000])).unwrap();
    }
    // The process exits without dropping the link.
    std::mem::forget(link);
}

#[test]
#[ignore = "ends with much queued; run by the test above"]
fn alone_return_with_much_fed() {
    let channel = Channel::<brood_ipc::Blob, ()>::from_fd(inherited(), exit_options()).unwrap();
    for _ in 0..100 {
        channel.try_send(&brood_ipc::Blob::from(vec![0; 50_000])).unwrap();
    }
}

#[test]
fn endpoints_are_send_and_sync() {
    fn check<T: Send + Sync>() {}
    check::<Channel<std::cell::RefCell<u8>, std::cell::RefCell<u8>>>();
    check::<brood_ipc::Sender<u8>>();
    check::<brood_ipc::Receiver<u8>>();
    check::<Link>();
    check::<Handle<OwnedFd>>();
    check::<brood_ipc::Message>();
    check::<brood_ipc::SharedMemory>();
    check::<Error>();
    check::<brood_ipc::Event<u8>>();
    check::<brood_ipc::LinkSender<u8>>();
    check::<brood_ipc::ChannelHandle<u8, u8>>();
}
