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

use self::deserializer::DecodeContext;
use self::serializer::{Bounded, EncodeContext};
use crate::error::Error;
use crate::handle::Slot;
use crate::serialization::Serialization;
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
    pub(crate) context: &'a EncodeContext,
    pub(crate) bytes: Bounded<'a>,
}

/// A payload on its way in: bytes, and the handles that came with them.
#[derive(Debug)]
pub struct PayloadReader<'a> {
    pub(crate) context: DecodeContext<'a>,
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

/// What a value holds beside the bytes of its payload.
#[derive(Debug)]
pub(crate) struct Extracted {
    /// The slots of its handles, which stay in the value until a sender takes them.
    pub(crate) slots: Vec<Arc<Slot>>,
    /// Long pieces, each with the place in the bytes before which it belongs.
    pub(crate) pieces: Vec<(usize, Bytes)>,
}

/// Encodes `value` behind what is in `bytes`, with at most `bytes_max` bytes.
///
/// The handles in `value` stay where they are: a sender takes them out of the slots once it is sure
/// to send.
///
/// # Errors
///
/// [`Error::TooLong`], though not because of the pieces; [`Error::Encode`].
pub(crate) fn encode<T: Serialize + ?Sized>(
    value: &T,
    serialization: Serialization,
    bytes: &mut Vec<u8>,
    bytes_max: usize,
) -> Result<Extracted, Error> {
    let positional = serialization == Serialization::Bincode;
    let context = EncodeContext::new(positional, positional);
    let bytes = Bounded::new(bytes, &context, bytes_max);
    let writer = PayloadWriter { context: &context, bytes };
    let result = match serialization {
        Serialization::Bincode => Bincode::encode(value, writer),
        Serialization::Json => Json::encode(value, writer),
        Serialization::Advanced => Advanced::encode(value, writer),
    };
    let EncodeContext { slots, pieces, overflow, .. } = context;
    match result {
        Ok(()) => Ok(Extracted { slots: slots.into_inner(), pieces: pieces.into_inner() }),
        Err(_) if overflow.get() => Err(Error::TooLong { max: bytes_max }),
        Err(why) => Err(Error::Encode(why)),
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
    let context = DecodeContext::new(handles, owner, bytes.len(), mapped_bytes_max);
    let reader = PayloadReader { context, bytes };
    match serialization {
        Serialization::Bincode => Bincode::decode(reader),
        Serialization::Json => Json::decode(reader),
        Serialization::Advanced => Advanced::decode(reader),
    }
    .map_err(Error::Decode)
}

#[cfg(test)]
mod tests;
