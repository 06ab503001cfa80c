//! What one run does with its bytes: the frame decoder with handles, and every codec's decoder.

use ipc::frame::{Decoder, Header, Limits};
use ipc::{Channel, Options, Serialization};
use std::io::Write;
use std::os::unix::net::UnixStream;

#[derive(serde::Deserialize)]
#[allow(dead_code, reason = "only decoding is of interest")]
enum Shape {
    Unit,
    Nested(Option<Box<Shape>>),
    Lists(Vec<Vec<u16>>, Vec<()>, String),
    Fields {
        blob: ipc::Blob,
        map: std::collections::BTreeMap<String, i64>,
        value: ipc::advanced::Value,
    },
}

pub fn attack(data: &[u8]) {
    let Some((&choice, data)) = data.split_first() else { return };
    match choice % 4 {
        0 => frames(data),
        1 => value(data),
        2 => decode(data, Serialization::Bincode),
        _ => decode(data, Serialization::Advanced),
    }
}

/// The stream in pieces whose lengths, handles and losses the data itself chooses.
fn frames(data: &[u8]) {
    let limits = Limits { frame_bytes_max: 1 << 20, handles_max: 253 };
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

/// What is read can be written, and is then read as the same.
fn value(data: &[u8]) {
    if let Ok(value) = ipc::advanced::Value::from_bytes(data) {
        let bytes = value.to_bytes();
        let again = ipc::advanced::Value::from_bytes(&bytes).expect("we wrote it");
        assert_eq!(again.to_bytes(), bytes);
    }
}

/// A payload through a real channel.
fn decode(data: &[u8], serialization: Serialization) {
    let Ok((mut attacker, victim)) = UnixStream::pair() else { return };
    let options = Options { serialization, ..Options::default() };
    let Ok(channel) = Channel::<(), Shape>::from_fd(victim.into(), options) else { return };
    let hello = ipc::Hello::new(serialization, "").to_bytes();
    for (kind, payload) in [
        (ipc::frame::Kind::Hello, &hello[..]),
        (ipc::frame::Kind::Message, &data[..data.len().min(60_000)]),
    ] {
        let header = Header { kind, handles: 0, length: payload.len() };
        let _ = attacker.write_all(&header.to_bytes());
        let _ = attacker.write_all(payload);
    }
    drop(attacker);
    let _ = channel.recv();
}
