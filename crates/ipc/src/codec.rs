//! Codecs: the conversion between values and payloads of frames.
//!
//! [`Codec`] is the whole interface. [`Bincode`], [`Json`] and [`Advanced`] implement it, and
//! [`Serialization`] names one of them at run time. The same pair of wrappers surrounds each of
//! them: it carries handles and long bytes beside the payload, and limits a hostile payload to
//! [`NESTING_MAX`] levels and to about as many list elements as bytes arrived.

pub mod advanced;
mod bincode;
mod extract;
mod fingerprint;
mod json;
pub(crate) mod wrapped_deserializer;
pub(crate) mod wrapped_serializer;

pub use self::advanced::Advanced;
pub use self::bincode::Bincode;
pub use self::json::Json;

use self::wrapped_deserializer::DecodeContext;
use self::wrapped_serializer::{Bounded, EncodeContext};
use crate::error::Error;
use crate::handle::Slot;
use crate::serialization::Serialization;
use ::bytes::Bytes;
use serde::{Serialize, de::DeserializeOwned};
use std::any::type_name;
use std::borrow::Cow;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// The number of characters of the reason for which a payload cannot be read, at most.
const REASON_CHARS_MAX: usize = 512;

pub(crate) const NESTING_MAX: usize = Serialization::NESTING_MAX;

pub(crate) const ZERO_SIZE_ELEMENTS_MAX: usize = Serialization::ZERO_SIZE_ELEMENTS_MAX;

/// A payload to write: bytes within a limit, and the handles beside them.
#[derive(Debug)]
pub struct PayloadWriter<'a> {
    pub(crate) context: &'a EncodeContext,
    pub(crate) bytes: Bounded<'a>,
}

/// A payload to read: bytes, and the handles that arrived with them.
#[derive(Debug)]
pub struct PayloadReader<'a> {
    pub(crate) context: &'a DecodeContext<'a>,
    pub(crate) bytes: &'a [u8],
}

/// The conversion between values and payloads.
///
/// The trait is sealed: other crates cannot implement it.
pub trait Codec: sealed::Sealed {
    /// The name of the codec at run time.
    const SERIALIZATION: Serialization;

    /// Writes `value`, in one pass.
    ///
    /// # Errors
    ///
    /// The reason for which the value cannot be written.
    fn encode<T: Serialize + ?Sized>(value: &T, writer: PayloadWriter<'_>) -> Result<(), String>;

    /// Reads a value that fills the payload.
    ///
    /// # Errors
    ///
    /// The reason for which the payload cannot be read.
    fn decode<T: DeserializeOwned>(reader: PayloadReader<'_>) -> Result<T, String>;
}

/// The limits for the values of one payload.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DecodeLimits {
    /// The size of the shared memory that is mapped, in bytes.
    pub(crate) mapped_bytes_max: usize,
    /// The number of bytes beside the length of the payload that are copied through references.
    pub(crate) frame_bytes_max: usize,
}

/// Limits for the tests: no shared memory, and many copies through references.
#[cfg(test)]
const LIMITS: DecodeLimits = DecodeLimits { mapped_bytes_max: 0, frame_bytes_max: 1 << 30 };

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Bincode {}
    impl Sealed for super::Json {}
    impl Sealed for super::Advanced {}
}

/// The parts of a value that are not in the bytes of its payload.
#[derive(Debug)]
pub(crate) struct Extracted {
    /// The slots of its handles. The handles stay in the value until a sender takes them.
    pub(crate) slots: Vec<Arc<Slot>>,
    /// Long pieces, each with the position in the bytes before which it belongs.
    pub(crate) pieces: Vec<(usize, Bytes)>,
    /// The fingerprint of the value.
    pub(crate) fingerprint: u32,
}

/// Encodes `value` behind the content of `bytes`, with at most `bytes_max` bytes.
///
/// The handles stay in `value`. A sender takes them out of the slots when nothing else can fail.
///
/// # Errors
///
/// [`Error::TooLong`], which does not count the long pieces; [`Error::Encode`].
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
    let EncodeContext { slots, pieces, overflow, fingerprint, .. } = context;
    match result {
        Ok(()) => Ok(Extracted {
            slots: slots.into_inner(),
            pieces: pieces.into_inner(),
            fingerprint: fingerprint.finish(),
        }),
        Err(_) if overflow.get() => Err(Error::TooLong { max: bytes_max }),
        Err(why) => Err(Error::Encode(why)),
    }
}

/// Decodes a payload whose sender wrote a value with this fingerprint. Closes handles that the
/// value does not take.
///
/// # Errors
///
/// [`Error::Decode`]; [`Error::WrongType`], with a codec that writes no types itself.
#[inline]
pub(crate) fn decode<T: DeserializeOwned>(
    serialization: Serialization,
    bytes: &[u8],
    owner: Option<&Bytes>,
    handles: Vec<OwnedFd>,
    limits: DecodeLimits,
    fingerprint: u32,
) -> Result<T, Error> {
    decode_and_learn(serialization, bytes, owner, handles, limits, fingerprint, None)
}

/// Decodes as [`decode`] does, and learns the features of V8 that the peer has written.
#[inline]
pub(crate) fn decode_and_learn<T: DeserializeOwned>(
    serialization: Serialization,
    bytes: &[u8],
    owner: Option<&Bytes>,
    handles: Vec<OwnedFd>,
    limits: DecodeLimits,
    fingerprint: u32,
    features: Option<&advanced::Features>,
) -> Result<T, Error> {
    let positional = serialization == Serialization::Bincode;
    let mut context = DecodeContext::new(handles, owner, bytes.len(), limits, positional);
    context.features = features;
    let reader = PayloadReader { context: &context, bytes };
    let result = match serialization {
        Serialization::Bincode => Bincode::decode(reader),
        Serialization::Json => Json::decode(reader),
        Serialization::Advanced => Advanced::decode(reader),
    };
    match result {
        Ok(value) if !positional || context.fingerprint.finish() == fingerprint => Ok(value),
        Ok(_) => {
            let (sent, read) = (fingerprint, context.fingerprint.finish());
            Err(Error::WrongType { expected: type_name::<T>(), sent, read })
        }
        Err(why) => Err(unreadable(&why, type_name::<T>(), context.asked.get(), positional)),
    }
}

#[cold]
fn unreadable(why: &str, name: &str, asked: bool, positional: bool) -> Error {
    let why = shortened(why);
    Error::Decode(match asked {
        true => format!(
            "`{name}` has a part that bincode cannot read, because the bytes do not say its type \
             (`serde_json::Value`, an untagged enum or one with `#[serde(tag = …)]`); choose \
             `Serialization::Json` or `Advanced` on both sides"
        ),
        // The reasons of bincode ("unexpected end of file", or none) do not name the cause.
        false if positional => format!(
            "it is not a `{name}` ({}); sender and receiver must use the same type",
            why.trim_start_matches("io error: ").trim_end_matches([':', ' '])
        )
        .replace(" ()", ""),
        false => format!("{why}, as `{name}`"),
    })
}

/// Cuts a reason that quotes the payload.
fn shortened(why: &str) -> Cow<'_, str> {
    match why.char_indices().nth(REASON_CHARS_MAX) {
        Some((at, _)) => Cow::Owned(format!("{}…", &why[..at])),
        None => Cow::Borrowed(why),
    }
}

/// Returns the fingerprint of `value`, or 0 when the native codec cannot write it.
#[cfg(feature = "fuzzing")]
pub(crate) fn fingerprint<T: Serialize + ?Sized>(value: &T) -> u32 {
    let bytes = &mut Vec::new();
    encode(value, Serialization::Bincode, bytes, usize::MAX).map_or(0, |parts| parts.fingerprint)
}

#[cfg(test)]
mod tests;
