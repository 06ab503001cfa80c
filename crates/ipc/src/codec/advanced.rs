//! Node's `advanced` serialization: the format of V8's structured clone.
//!
//! A [`Value`] keeps what JSON cannot express: cycles and shared objects, `Map`, `Set`, `BigInt`,
//! typed arrays, `Date`, `RegExp`, `Error`, holes, lone surrogates. [`Advanced`] is the codec, for
//! [`Value`]s and for all other types of serde.

mod big_int;
mod copy_budget;
mod features;
mod item_deserializer;
mod item_serializer;
mod pattern;
mod read;
mod serde_impls;
mod validate;
mod value;
mod write;

pub use big_int::BigInt;
pub use value::{Entry, ErrorKind, Item, Key, Node, NodeId, Text, Value, ViewKind};

pub(crate) use features::Features;
pub(crate) use validate::readable_by_v8;

use self::copy_budget::CopyBudget;
use super::wrapped_deserializer::RootSeed;
use super::wrapped_serializer::{EncodeContext, WrappedSerializer};
use super::{Codec, PayloadReader, PayloadWriter};
use crate::serialization::Serialization;
use serde::de::DeserializeSeed;
use serde::{Serialize, de::DeserializeOwned};
use std::io::Write;
use std::marker::PhantomData;

/// The name under which this codec recognises a [`Value`]. Other codecs see its bytes.
pub(crate) const MARKER: &str = "\u{0}brood::Value";

/// Node's `advanced` serialization.
///
/// A struct becomes an object, a sequence an array, bytes a `Buffer`, `None` and `()` become
/// `null`, integers beyond 2^53 a `BigInt`, and a map with keys other than strings a `Map`. Enums
/// are written as in JSON. A program that decodes a [`Value`] sees everything that a peer can send.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Advanced;

impl Codec for Advanced {
    const SERIALIZATION: Serialization = Serialization::Advanced;

    fn encode<T: Serialize + ?Sized>(value: &T, writer: PayloadWriter<'_>) -> Result<(), String> {
        let document = to_value(value, writer.context)?;
        let mut out = writer.bytes;
        out.write_all(&document.to_bytes()).map_err(|error| error.to_string())
    }

    fn decode<T: DeserializeOwned>(reader: PayloadReader<'_>) -> Result<T, String> {
        let document = Value::from_bytes(reader.bytes)?;
        if let Some(features) = reader.context.features {
            if features::may_have_features(&document) {
                validate::learn(&document, features);
            }
        }
        let copies_max = reader.bytes.len().saturating_add(reader.context.limits.frame_bytes_max);
        let budget = CopyBudget::new(document.node_count(), copies_max);
        let inner = item_deserializer::ItemDeserializer::new(&document, document.root(), &budget);
        let root = RootSeed { context: reader.context, kind: PhantomData };
        root.deserialize(inner).map_err(|error| error.to_string())
    }
}

/// Converts any value of serde to a JavaScript value.
pub(crate) fn to_value<T: Serialize + ?Sized>(
    value: &T,
    context: &EncodeContext,
) -> Result<Value, String> {
    let mut document = Value::default();
    let inner = item_serializer::ItemSerializer { document: &mut document };
    let root = value
        .serialize(WrappedSerializer::new(inner, context))
        .map_err(|error| error.to_string())?;
    document.set_root(root);
    Ok(document)
}

#[cfg(test)]
mod tests;
