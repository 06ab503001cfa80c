//! The kinds of payloads from Node: messages of users, internal messages, and messages about
//! handles.
//!
//! An object whose `cmd` begins with `NODE_` is internal. A search for these five bytes is enough
//! for nearly every payload. Only a payload that contains them is parsed, without recursion and
//! without building the values inside.
//!
//! Bun writes the byte 0x02 before the JSON of an internal message, with which no JSON begins. The
//! message is internal whatever its `cmd` is, and says nothing about handles: Bun writes those
//! messages as Node does, and ignores an acknowledgement behind that byte. Bun reads an internal
//! message with a handle only in a form of its own, with the member `$hasHandle`.
//!
//! Pure.

use super::decoder::Framing;
use crate::codec::advanced::{Item, Value};
use memchr::memmem;
use serde::Deserialize;
use serde_json::value::RawValue;
use std::borrow::Cow;

/// The beginning of every internal command. A command is longer than the prefix.
const PREFIX: &str = "NODE_";

/// The byte before an internal message of Bun.
pub(crate) const BUN_INTERNAL: u8 = 2;

/// The number of envelopes around a message at most: Node wraps a message that it sends again.
const WRAPPED_MAX: usize = 8;

/// The kind of one payload.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum PayloadKind<'a> {
    /// A message for the user.
    User,
    /// A message for the crate above.
    Internal,
    /// A message with an attached handle.
    Handle(InnerMessage<'a>),
    /// The acknowledgement or rejection of a handle.
    Acknowledgement { taken: bool },
    /// A request for the number of sockets with this key that are open in this process.
    SocketCount(String),
    /// A request for a notice when no socket with this key is open in this process.
    SocketsClosed(String),
}

/// A message that arrived with a handle.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct InnerMessage<'a> {
    pub(crate) payload: Cow<'a, [u8]>,
    pub(crate) internal: bool,
    /// The key of the server that accepted the connection, if that server counts its connections.
    pub(crate) key: Option<String>,
}

/// The fields of an envelope that this crate reads.
#[derive(Debug, Default)]
struct Envelope<'a> {
    cmd: String,
    inside: Option<Cow<'a, [u8]>>,
    key: Option<String>,
}

/// Returns the JSON of an internal message of Bun.
pub(crate) fn bun_internal(framing: Framing, payload: &[u8]) -> Option<&[u8]> {
    if framing == Framing::Lines { payload.strip_prefix(&[BUN_INTERNAL]) } else { None }
}

/// Returns the kind of a payload.
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

/// Returns whether a payload is an internal message, which a user must not send: an acknowledgement
/// too many ends a Node process.
pub(crate) fn is_internal(framing: Framing, payload: &[u8]) -> bool {
    // serde never escapes letters, but a `RawValue` may contain escaped ones.
    let escaped = framing == Framing::Lines && memmem::find(payload, b"\\u00").is_some();
    (escaped || contains_prefix(payload)) && read(framing, payload).is_some()
}

/// Returns whether a payload begins as Node begins a message with a handle.
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

/// Opens nested envelopes until another value is found.
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

/// Reads an envelope. Returns `None` when the payload is no envelope.
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
    /// Any value may stand in any field, and a value of a wrong type must not prevent an
    /// acknowledgement.
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

/// Replaces text that no Rust string can hold by U+FFFD: bytes that are not UTF-8, and lone
/// surrogates. Returns `None` when nothing was replaced. Escapes are recognised as in JSON.
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

/// Returns the code unit that is escaped at `at`.
fn escaped_unit(bytes: &[u8], at: usize) -> Option<u16> {
    let digits = bytes.get(at..at + 6)?.strip_prefix(b"\\u")?;
    let digits = std::str::from_utf8(digits).ok()?;
    u16::from_str_radix(digits, 16).ok().filter(|_| !digits.starts_with('+'))
}

#[cfg(test)]
mod tests;
