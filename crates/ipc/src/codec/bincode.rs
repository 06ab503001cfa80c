//! The native codec: bincode 1.3 with little-endian integers of fixed width and no bytes behind the
//! value.

use super::wrapped_deserializer::RootSeed;
use super::wrapped_serializer::WrappedSerializer;
use super::{Codec, PayloadReader, PayloadWriter};
use crate::serialization::Serialization;
use bincode::Options as _;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// The native codec, the default between Rust programs.
///
/// The codec is positional: field names do not travel, so both sides must have the same types. The
/// frame carries a fingerprint of the value, by which a receiver notices another type (see [the
/// crate](crate#types-that-differ)). A sender refuses `#[serde(flatten)]`, `skip_serializing_if`
/// and sequences of unknown length. A receiver refuses `serde_json::Value`, untagged enums and those
/// with `#[serde(tag = …)]`, which only a self-describing format can read.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Bincode;

impl Codec for Bincode {
    const SERIALIZATION: Serialization = Serialization::Bincode;

    fn encode<T: Serialize + ?Sized>(value: &T, writer: PayloadWriter<'_>) -> Result<(), String> {
        let mut inner = bincode::Serializer::new(
            writer.bytes,
            bincode::DefaultOptions::new().with_fixint_encoding(),
        );
        value
            .serialize(WrappedSerializer::new(&mut inner, writer.context))
            .map_err(|error| error.to_string())
    }

    fn decode<T: DeserializeOwned>(reader: PayloadReader<'_>) -> Result<T, String> {
        bincode::DefaultOptions::new()
            .with_fixint_encoding()
            .reject_trailing_bytes()
            .deserialize_seed(RootSeed { context: reader.context, kind: PhantomData }, reader.bytes)
            .map_err(|error| error.to_string())
    }
}
