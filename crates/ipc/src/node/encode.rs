//! Encoding a value, perhaps with an attached handle, into one frame that Node can read.
//!
//! Node does not survive a line that is not JSON, a value that V8 cannot read, or an unexpected
//! acknowledgement. Anything that could be one of them is an error here.
//!
//! Pure.

use super::decoder::Framing;
use super::envelope::{BUN_INTERNAL, is_internal};
use super::handle_type::HandleType;
use crate::codec::advanced::{self, Entry, Features, Item, Key, Node, Value};
use crate::codec::wrapped_serializer::{Bounded, EncodeContext};
use crate::codec::{Codec, Json, PayloadWriter};
use crate::error::Error;
use memchr::memchr_iter;
use serde::Serialize;

/// The longest payload; Node understands longer lengths differently.
pub(crate) const PAYLOAD_BYTES_MAX: usize = (1 << 31) - 1;

/// The author of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Origin {
    /// A user, who may not send Node's own messages.
    User,
    /// This crate or the crate above.
    Internal,
    /// The same to Bun, which takes messages without its own mark for those of users.
    InternalForBun,
}

/// Encodes `value` into a frame in `out`, which is empty, for a peer that is known to read these
/// features of V8.
pub(crate) fn encode<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    framing: Framing,
    handle: Option<HandleType>,
    origin: Origin,
    max: usize,
    features: &Features,
) -> Result<(), Error> {
    let context = EncodeContext::new(false, false);
    match framing {
        Framing::Lines => json(out, value, handle, origin, max, &context)?,
        Framing::Lengths => {
            let value = advanced::to_value(value, &context).map_err(Error::Encode)?;
            advanced::readable_by_v8(&value, features).map_err(Error::Encode)?;
            advanced(out, value, handle, origin, max)?;
        }
    }
    if context.slots.borrow().is_empty() {
        return Ok(());
    }
    let why = "a handle is attached to a message for Node, not inside it: use send_with_handle";
    Err(Error::Encode(why.into()))
}

fn not_yours() -> Error {
    Error::Encode("a message whose `cmd` begins with NODE_ is Node's own".into())
}

fn json<T: Serialize + ?Sized>(
    out: &mut Vec<u8>,
    value: &T,
    handle: Option<HandleType>,
    origin: Origin,
    max: usize,
    context: &EncodeContext,
) -> Result<(), Error> {
    let for_bun = origin == Origin::InternalForBun;
    if for_bun {
        out.push(BUN_INTERNAL);
    }
    let envelope = handle.filter(|_| !for_bun);
    if let Some(handle) = envelope {
        out.extend_from_slice(br#"{"cmd":"NODE_HANDLE","type":""#);
        out.extend_from_slice(handle.name().as_bytes());
        out.extend_from_slice(br#"","msg":"#);
    }
    let from = out.len();
    let bytes = Bounded::new(out, context, max);
    let written = Json::encode(value, PayloadWriter { context, bytes });
    if context.overflow.get() {
        return Err(Error::TooLong { max });
    }
    written.map_err(Error::Encode)?;
    // `RawValue` may hold JSON that is laid out over several lines.
    let breaks: Vec<usize> = memchr_iter(b'\n', &out[from..]).collect();
    for at in breaks {
        out[from + at] = b' ';
    }
    if origin == Origin::User && is_internal(Framing::Lines, &out[from..]) {
        return Err(not_yours());
    }
    if for_bun && handle.is_some() {
        // Bun has no envelope: the mark stands among the members of the message itself.
        out.splice(from..from + 1, br#"{"$hasHandle":true,"#.iter().copied());
    }
    if let Some(handle) = envelope {
        out.extend_from_slice(handle.members().as_bytes());
        out.push(b'}');
    }
    out.push(b'\n');
    Ok(())
}

fn advanced(
    out: &mut Vec<u8>,
    mut value: Value,
    handle: Option<HandleType>,
    origin: Origin,
    max: usize,
) -> Result<(), Error> {
    let text = |text: &str| Item::String(text.into());
    let cmd = value.get(value.root(), "cmd").and_then(|cmd| match cmd {
        Item::String(text) => text.to_str(),
        _ => None,
    });
    if origin == Origin::User && cmd.is_some_and(|cmd| cmd.len() > 5 && cmd.starts_with("NODE_")) {
        return Err(not_yours());
    }
    if let Some(handle) = handle {
        let entry = |key: &str, item| Entry { key: Key::from(key), item };
        let mut entries = vec![
            entry("cmd", text("NODE_HANDLE")),
            entry("type", text(handle.name())),
            entry("msg", value.root().clone()),
        ];
        entries.extend(handle.datagram_type().map(|family| entry("dgramType", text(family))));
        let envelope = value.add(Node::Object(entries));
        value.set_root(Item::Object(envelope));
    }
    let payload = value.to_bytes();
    if payload.len() > max.min(PAYLOAD_BYTES_MAX) {
        return Err(Error::TooLong { max });
    }
    out.extend_from_slice(&(payload.len() as u32).to_be_bytes());
    out.extend_from_slice(&payload);
    Ok(())
}

#[cfg(test)]
mod tests;
