//! JSON, Node's default.

use super::wrapped_deserializer::RootSeed;
use super::wrapped_serializer::WrappedSerializer;
use super::{Codec, PayloadReader, PayloadWriter};
use crate::serialization::Serialization;
use serde::de::DeserializeSeed;
use serde::{Serialize, de::DeserializeOwned};
use std::marker::PhantomData;

/// JSON: self-describing, with every feature of serde, and slower.
///
/// A handle is written as its index among the handles of the message.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Json;

impl Codec for Json {
    const SERIALIZATION: Serialization = Serialization::Json;

    fn encode<T: Serialize + ?Sized>(value: &T, writer: PayloadWriter<'_>) -> Result<(), String> {
        let mut inner = serde_json::Serializer::new(writer.bytes);
        value
            .serialize(WrappedSerializer::new(&mut inner, writer.context))
            .map_err(|error| error.to_string())
    }

    fn decode<T: DeserializeOwned>(reader: PayloadReader<'_>) -> Result<T, String> {
        let mut inner = serde_json::Deserializer::from_slice(reader.bytes);
        let root = RootSeed { context: reader.context, kind: PhantomData };
        let value = root.deserialize(&mut inner).map_err(|error| error.to_string())?;
        inner.end().map_err(|error| error.to_string())?;
        Ok(value)
    }
}
