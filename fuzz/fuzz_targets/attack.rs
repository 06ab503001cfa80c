//! One run of the fuzzer, within the memory that the library promises. The environment variable
//! `FUZZ_TARGET` names the target; without it, the first byte of the data selects one.
//!
//! The targets are the frame decoder with handles, the decoder of every codec, the handshake, and
//! whole endpoints on the loop, with our protocol and with Node's.

use crate::bounded;
use ipc::frame::{Decoder, Header, Kind, Limits};
use ipc::{Channel, Error, Handle, Hello, Options, Serialization, SharedMemory, internal};
use std::io::IoSlice;
use std::net::TcpStream;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::sync::{OnceLock, mpsc};
use std::time::Duration;

#[derive(serde::Serialize, serde::Deserialize)]
enum Shape {
    Unit,
    Nested(Option<Box<Shape>>),
    Lists(Vec<Vec<u16>>, Vec<()>, String),
    Fields {
        blob: ipc::Blob,
        map: std::collections::BTreeMap<String, i64>,
        value: ipc::advanced::Value,
    },
    Handles(Vec<Handle<OwnedFd>>, Option<Handle<TcpStream>>, Option<SharedMemory>),
}

/// The names of the targets.
pub const TARGETS: [&str; 9] = [
    "frames",
    "value",
    "decode_bincode",
    "decode_advanced",
    "decode_json",
    "handshake",
    "link",
    "node_json",
    "node_advanced",
];

/// Runs one input, and returns the number of its target and the most memory that it held. Each run
/// may hold only the memory that the library promises ([`bounded`](crate::bounded)).
pub fn attack(data: &[u8]) -> (usize, usize) {
    static NAMED: OnceLock<Option<usize>> = OnceLock::new();
    let named = *NAMED.get_or_init(|| {
        let name = std::env::var("FUZZ_TARGET").ok()?;
        Some(TARGETS.iter().position(|target| *target == name).expect("FUZZ_TARGET names a target"))
    });
    let (target, data) = match (named, data.split_first()) {
        (Some(target), _) => (target, data),
        (None, Some((&choice, data))) => (usize::from(choice) % TARGETS.len(), data),
        (None, None) => return (0, 0),
    };
    (target, bounded::within_bound(data.len(), || run(target, data)))
}

fn run(target: usize, data: &[u8]) {
    use Serialization::{Advanced, Bincode, Json};
    match TARGETS[target] {
        "frames" => frames(data),
        "value" => value(data),
        "decode_bincode" => decode(data, Bincode),
        "decode_advanced" => decode(data, Advanced),
        "decode_json" => decode(data, Json),
        "handshake" => handshake(data),
        "link" => link(data, Bincode, false),
        "node_json" => link(data, Json, true),
        _ => link(data, Advanced, true),
    }
}

/// The limits of an endpoint. Copies through references are bound by the length of a frame.
fn options(serialization: Serialization) -> Options {
    Options::new().serialization(serialization).frame_bytes_max(1 << 20)
}

/// Decodes the stream in pieces. The data itself selects their lengths, handles and losses.
fn frames(data: &[u8]) {
    let limits = Limits { frame_bytes_max: 1 << 20, handles_max: 253, received_handles_max: 253 };
    let mut decoder = Decoder::<u32>::new(limits);
    let mut rest = data;
    let mut number = 0;
    while let Some((&control, tail)) = rest.split_first() {
        let handles = u32::from(control >> 6);
        decoder.arrived(number..number + handles, control & 32 != 0);
        number += handles;
        let (buffer, room) = decoder.space();
        let take = usize::from(control & 31).min(room).min(tail.len());
        buffer.extend_from_slice(&tail[..take]);
        rest = &tail[take..];
        loop {
            match decoder.next_frame() {
                Ok(Some(frame)) => assert!(frame.handles.len() <= 253),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        if control & 16 != 0 {
            drop(decoder.swap_buffer(Vec::new()));
        }
    }
    let _ = decoder.end();
}

/// Checks that a decoded value can be encoded, and that the result decodes to the same value.
fn value(data: &[u8]) {
    if let Ok(value) = ipc::advanced::Value::from_bytes(data) {
        let bytes = value.to_bytes();
        let again = ipc::advanced::Value::from_bytes(&bytes).expect("the encoder wrote it");
        assert_eq!(again.to_bytes(), bytes);
    }
}

/// Checks that a decoded handshake message encodes to the same message, whatever its content is.
fn handshake(data: &[u8]) {
    if let Some(hello) = Hello::parse(data) {
        assert_eq!(Hello::parse(&hello.to_bytes()).as_ref(), Some(&hello));
        let _ = hello.to_string();
    }
}

fn frame(kind: Kind, handles: usize, payload: &[u8], fingerprint: u32) -> Vec<u8> {
    let header = Header { kind, handles, length: payload.len(), fingerprint };
    [&header.to_bytes()[..], payload].concat()
}

fn send_hello(attacker: &UnixStream, serialization: Serialization) {
    let hello = Hello::new(serialization, "").to_bytes();
    send(attacker, &frame(Kind::Hello, 0, &hello, 0), 0);
}

fn send(attacker: &UnixStream, bytes: &[u8], handles: usize) {
    // The handle is not the attacker's own endpoint, because a copy would keep the channel open.
    static ANY: OnceLock<UnixDatagram> = OnceLock::new();
    let any = ANY.get_or_init(|| UnixDatagram::unbound().expect("a socket can be opened"));
    let handles = vec![any.as_fd(); if bytes.is_empty() { 0 } else { handles }];
    let _ = sys::scm::send_blocking(attacker.as_fd(), &[IoSlice::new(bytes)], &handles);
}

/// Sends a payload through a real channel, with as many handles as its first byte states.
///
/// A message that is refused for its fingerprint alone is sent again with the right one. The sender
/// of the value must then compute the same fingerprint as its receiver did.
fn decode(data: &[u8], serialization: Serialization) {
    let Some((&handles, data)) = data.split_first() else { return };
    let Ok((attacker, victim)) = UnixStream::pair() else { return };
    let options = options(serialization);
    let Ok(channel) = Channel::<(), Shape>::from_fd(victim, options) else { return };
    send_hello(&attacker, serialization);
    let handles = usize::from(handles % 4);
    let data = &data[..data.len().min(60_000)];
    send(&attacker, &frame(Kind::Message, handles, data, 0), handles);
    if let Err(Error::WrongType { read, .. }) = channel.recv() {
        send(&attacker, &frame(Kind::Message, handles, data, read), handles);
        let value = channel.recv().expect("only the fingerprint was wrong");
        assert_eq!(internal::fingerprint(&value), read);
    }
    drop(attacker);
    let _ = channel.recv();
}

/// Sends a stream to a whole endpoint on the loop, which must then close.
fn link(data: &[u8], serialization: Serialization, node: bool) {
    let Some((&control, data)) = data.split_first() else { return };
    let Ok((attacker, victim)) = UnixStream::pair() else { return };
    let (sender, ended) = mpsc::channel();
    let sink = move |event| match event {
        internal::Event::Message(message) => drop(message.decode::<Shape>()),
        internal::Event::Disconnect { .. } => drop(sender.send(())),
        _ => {}
    };
    let options = options(serialization);
    let start = if node { internal::start_node } else { internal::start_paused };
    let Ok(link) = start(victim.into(), options, sink) else { return };
    link.resume();
    if !node && control & 1 != 0 {
        send_hello(&attacker, serialization);
    }
    let data = &data[..data.len().min(60_000)];
    let (first, second) = data.split_at(usize::from(control).min(data.len()));
    send(&attacker, first, usize::from(control >> 1 & 3));
    send(&attacker, second, usize::from(control >> 3 & 1));
    drop(attacker);
    ended.recv_timeout(Duration::from_secs(10)).expect("the end of the peer closes the channel");
}
