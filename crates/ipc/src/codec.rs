//! Codecs: how a value becomes the payload of a frame, and comes back.
//!
//! [`Codec`] is the whole interface; [`Bincode`], [`Json`] and [`Advanced`] implement it, and
//! [`Serialization`] names one of them at run time. Around each lies the same pair of wrappers,
//! which carries handles and long bytes beside the payload and holds a hostile payload to
//! [`NESTING_MAX`] levels and to no more list elements than bytes came.

pub mod advanced;
mod bincode;
pub(crate) mod deserializer;
mod extract;
mod json;
pub(crate) mod serializer;

pub use self::advanced::Advanced;
pub use self::bincode::Bincode;
pub use self::json::Json;

use self::deserializer::Incoming;
use self::serializer::{Bounded, Outgoing};
use crate::error::Error;
use crate::frame::{HEADER_BYTES, Kind};
use crate::handle::Slot;
use crate::options::Options;
use crate::serialization::Serialization;
use crate::transport::outbox::Encoded;
use ::bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// How deep a value may be nested, in levels of serde (a struct, a list, an option and an enum are
/// one each).
pub const NESTING_MAX: usize = 128;

/// How many list elements a payload may have beyond one per byte: elements of no size cost
/// nothing to announce and would let eight bytes keep a reader busy for minutes.
pub const ZERO_SIZE_ELEMENTS_MAX: usize = 65_536;

/// A payload on its way out: bytes within a ceiling, and the handles beside them.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    pub(crate) outgoing: &'a Outgoing,
    pub(crate) bytes: Bounded<'a>,
}

/// A payload on its way in: bytes, and the handles that came with them.
#[derive(Debug)]
pub struct PayloadReader<'a> {
    pub(crate) incoming: Incoming<'a>,
    pub(crate) bytes: &'a [u8],
}

/// How a value becomes the payload of a frame, and comes back.
///
/// It cannot be implemented outside of this crate.
pub trait Codec: sealed::Sealed {
    /// Its name at run time.
    const SERIALIZATION: Serialization;

    /// Writes `value`, in one pass.
    ///
    /// # Errors
    ///
    /// Why it cannot be written.
    fn encode<T: Serialize + ?Sized>(value: &T, writer: PayloadWriter<'_>) -> Result<(), String>;

    /// Reads a value that fills the payload.
    ///
    /// # Errors
    ///
    /// Why it cannot be read.
    fn decode<T: DeserializeOwned>(reader: PayloadReader<'_>) -> Result<T, String>;
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Bincode {}
    impl Sealed for super::Json {}
    impl Sealed for super::Advanced {}
}

/// A finished frame with the slots of its handles, or why not, with the memory lent.
type EncodeResult = Result<(Encoded, Vec<Arc<Slot>>), (Error, Vec<u8>)>;

/// Encodes `value` into a finished frame that uses the memory of `scratch`.
///
/// The handles in `value` stay where they are: the caller takes them out of the slots once it is
/// sure to send.
pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    kind: Kind,
    options: &Options,
    scratch: Vec<u8>,
) -> EncodeResult {
    let positional = options.serialization == Serialization::Bincode;
    let outgoing = Outgoing::new(positional, positional);
    let Encoded { mut inline, .. } = Encoded::begin(scratch);
    let limits = options.limits();
    let bytes = Bounded::new(&mut inline, &outgoing, limits.frame_bytes_max);
    let writer = PayloadWriter { outgoing: &outgoing, bytes };
    let result = match options.serialization {
        Serialization::Bincode => Bincode::encode(value, writer),
        Serialization::Json => Json::encode(value, writer),
        Serialization::Advanced => Advanced::encode(value, writer),
    };
    let Outgoing { slots, pieces, overflow, .. } = outgoing;
    let (slots, overflow) = (slots.into_inner(), overflow.get());
    let mut encoded = Encoded { inline, pieces: pieces.into_inner() };
    let error = match result {
        Err(_) if overflow => Error::TooLong { max: limits.frame_bytes_max },
        Err(why) => Error::Encode(why),
        Ok(()) if encoded.length() - HEADER_BYTES > limits.frame_bytes_max => {
            Error::TooLong { max: limits.frame_bytes_max }
        }
        Ok(()) if slots.len() > limits.handles_max => {
            Error::TooManyHandles { count: slots.len(), max: limits.handles_max }
        }
        Ok(()) => {
            encoded.finish(kind, slots.len());
            return Ok((encoded, slots));
        }
    };
    Err((error, encoded.inline))
}

/// Takes the handles out of their slots: all of them, or none.
#[inline]
pub(crate) fn take_handles(slots: &[Arc<Slot>]) -> Result<Vec<OwnedFd>, Error> {
    if slots.is_empty() { Ok(Vec::new()) } else { take_all(slots) }
}

fn take_all(slots: &[Arc<Slot>]) -> Result<Vec<OwnedFd>, Error> {
    let mut taken = Vec::with_capacity(slots.len());
    for slot in slots {
        match slot.take() {
            Some(fd) => taken.push(fd),
            None => {
                put_back(slots, taken);
                return Err(Error::Encode("a handle that was already sent".into()));
            }
        }
    }
    Ok(taken)
}

/// Gives handles back to the value they came from.
pub(crate) fn put_back(slots: &[Arc<Slot>], fds: Vec<OwnedFd>) {
    for (slot, fd) in slots.iter().zip(fds) {
        slot.restore(fd);
    }
}

/// Decodes a payload. Handles that the value does not take are closed.
pub(crate) fn decode<T: DeserializeOwned>(
    serialization: Serialization,
    bytes: &[u8],
    owner: Option<&Bytes>,
    handles: Vec<OwnedFd>,
    mapped_bytes_max: usize,
) -> Result<T, Error> {
    let incoming = Incoming::new(handles, owner, bytes.len(), mapped_bytes_max);
    let reader = PayloadReader { incoming, bytes };
    match serialization {
        Serialization::Bincode => Bincode::decode(reader),
        Serialization::Json => Json::decode(reader),
        Serialization::Advanced => Advanced::decode(reader),
    }
    .map_err(Error::Decode)
}

#[cfg(test)]
mod tests;
