//! What a payload from Node is: a message of its user, one of its internals, or news of a handle.
//!
//! An object whose `cmd` begins with `NODE_` is internal. Nearly every payload is told apart by a
//! search for these five bytes; only then is it read, without recursion and without building what
//! lies inside.
//!
//! Pure.

use super::decoder::Framing;
use crate::codec::advanced::{Item, Value};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// How every internal command begins; longer than this, it is one.
const PREFIX: &str = "NODE_";

/// How often a handle's envelope may lie in another one: Node wraps what it sends again.
const WRAPPED_MAX: usize = 8;

/// What one payload is.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind<'a> {
    /// A message for the user.
    User,
    /// A message for the crate above.
    Internal,
    /// It is inside, with a handle.
    Handle(InnerMessage<'a>),
    /// The handle that was sent is there, or is not.
    Acknowledgement { taken: bool },
    /// How many sockets with this key are open here?
    SocketCount(String),
    /// Say when no socket with this key is open here.
    SocketsClosed(String),
}

/// A message that came with a handle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InnerMessage<'a> {
    pub(crate) payload: Cow<'a, [u8]>,
    pub(crate) internal: bool,
    /// The server that a connection was accepted by, where that counts them.
    pub(crate) key: Option<String>,
}

/// The parts of an envelope that matter.
#[derive(Debug, Default)]
struct Envelope<'a> {
    cmd: String,
    inside: Option<Cow<'a, [u8]>>,
    key: Option<String>,
}

/// Says what a payload is.
pub(crate) fn classify(framing: Framing, payload: &[u8]) -> PayloadKind<'_> {
    let Some(Envelope { cmd, inside, key }) = open(framing, payload) else {
        return PayloadKind::User;
    };
    match (cmd.as_str(), key) {
        ("NODE_HANDLE_ACK", _) => PayloadKind::Acknowledgement { taken: true },
        ("NODE_HANDLE_NACK", _) => PayloadKind::Acknowledgement { taken: false },
        ("NODE_SOCKET_GET_COUNT", Some(key)) => PayloadKind::SocketCount(key),
        ("NODE_SOCKET_NOTIFY_CLOSE", Some(key)) => PayloadKind::SocketsClosed(key),
        ("NODE_HANDLE", key) => PayloadKind::Handle(unwrap(framing, inside, key)),
        _ => PayloadKind::Internal,
    }
}

/// Whether a payload is an internal message, which a user must not send: one acknowledgement too
/// many ends a Node process.
pub(crate) fn is_internal(framing: Framing, payload: &[u8]) -> bool {
    // What serde writes has no escapes for letters, but ready-made JSON may.
    let escaped = framing == Framing::Lines && memmem::find(payload, b"\\u00").is_some();
    (escaped || contains_prefix(payload)) && read(framing, payload).is_some()
}

/// Whether the beginning of a payload is that of one with a handle, as Node writes it.
pub(crate) fn begins_with_handle(framing: Framing, head: &[u8]) -> bool {
    match framing {
        Framing::Lines => head.starts_with(br#"{"cmd":"NODE_HANDLE","#),
        Framing::Lengths => {
            head.get(2..).is_some_and(|head| head.starts_with(b"o\"\x03cmd\"\x0bNODE_HANDLE\""))
        }
    }
}

fn contains_prefix(payload: &[u8]) -> bool {
    memmem::find(payload, PREFIX.as_bytes()).is_some()
}

fn open(framing: Framing, payload: &[u8]) -> Option<Envelope<'_>> {
    if contains_prefix(payload) { read(framing, payload) } else { None }
}

/// Takes envelopes off until something else lies there.
fn unwrap<'a>(
    framing: Framing,
    inside: Option<Cow<'a, [u8]>>,
    mut key: Option<String>,
) -> InnerMessage<'a> {
    let nothing = match framing {
        Framing::Lines => &b"null"[..],
        Framing::Lengths => &[0xff, 0x0f, b'_'],
    };
    let mut payload = inside.unwrap_or(Cow::Borrowed(nothing));
    let mut internal = false;
    for _ in 0..WRAPPED_MAX {
        let Some(envelope) = open(framing, &payload).map(Envelope::into_owned) else { break };
        internal = true;
        if envelope.cmd != "NODE_HANDLE" {
            break;
        }
        key = key.or(envelope.key);
        payload = envelope.inside.unwrap_or(Cow::Borrowed(nothing));
        internal = false;
    }
    InnerMessage { payload, internal, key }
}

impl Envelope<'_> {
    fn into_owned(self) -> Envelope<'static> {
        let inside = self.inside.map(|inside| Cow::Owned(inside.into_owned()));
        Envelope { cmd: self.cmd, inside, key: self.key }
    }
}

/// Reads an envelope; `None` when the payload is none.
fn read(framing: Framing, payload: &[u8]) -> Option<Envelope<'_>> {
    let envelope = match framing {
        Framing::Lines => match std::str::from_utf8(payload) {
            Ok(text) => read_json(text),
            Err(_) => read_json(&String::from_utf8_lossy(payload)).map(Envelope::into_owned),
        },
        Framing::Lengths => read_advanced(payload),
    }?;
    let is_one = envelope.cmd.len() > PREFIX.len() && envelope.cmd.starts_with(PREFIX);
    is_one.then_some(envelope)
}

fn read_json(text: &str) -> Option<Envelope<'_>> {
    /// Anything may stand anywhere: a type that is wrong is no reason not to answer.
    #[derive(Deserialize)]
    struct Raw<'a> {
        #[serde(borrow)]
        cmd: &'a RawValue,
        #[serde(borrow)]
        msg: Option<&'a RawValue>,
        #[serde(borrow)]
        key: Option<&'a RawValue>,
    }
    let Raw { cmd, msg, key } = serde_json::from_str(text).ok()?;
    let string = |raw: &RawValue| serde_json::from_str::<String>(raw.get()).ok();
    Some(Envelope {
        cmd: string(cmd)?,
        inside: msg.map(|raw| Cow::Borrowed(raw.get().as_bytes())),
        key: key.and_then(string),
    })
}

fn read_advanced(payload: &[u8]) -> Option<Envelope<'static>> {
    let mut value = Value::from_bytes(payload).ok()?;
    let text = |key| match value.get(value.root(), key) {
        Some(Item::String(text)) => text.to_str(),
        _ => None,
    };
    let (cmd, key) = (text("cmd")?, text("key"));
    let inside = value.get(value.root(), "msg").cloned().map(|root| {
        value.set_root(root);
        Cow::Owned(value.to_bytes())
    });
    Some(Envelope { cmd, inside, key })
}

/// The payload with what no Rust string can hold replaced by U+FFFD, as far as it is JSON: bytes
/// that are no UTF-8, and surrogates that stand alone. `None` when there is none of it.
pub(crate) fn repaired_utf16(payload: &[u8]) -> Option<Vec<u8>> {
    let text = String::from_utf8_lossy(payload);
    let mut changed = matches!(text, Cow::Owned(_));
    let mut bytes = text.into_owned().into_bytes();
    let mut at = 0;
    while let Some(found) = bytes.get(at..).and_then(|rest| memchr::memchr(b'\\', rest)) {
        at += found;
        let Some(unit) = escaped_unit(&bytes, at) else {
            at += 2;
            continue;
        };
        let low = |unit| matches!(unit, Some(0xdc00..=0xdfff));
        match unit {
            0xd800..=0xdbff if low(escaped_unit(&bytes, at + 6)) => at += 12,
            0xd800..=0xdfff => {
                bytes[at + 2..at + 6].copy_from_slice(b"fffd");
                changed = true;
                at += 6;
            }
            _ => at += 6,
        }
    }
    changed.then_some(bytes)
}

/// The code unit that is escaped at `at`.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests;
