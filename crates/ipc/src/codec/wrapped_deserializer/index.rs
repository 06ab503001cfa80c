//! The index of an enum's variant, which counts for the fingerprint.

use super::DecodeContext;
use crate::codec::fingerprint::Part;
use serde::de::{Deserialize, DeserializeSeed, Deserializer, IntoDeserializer};

/// The seed of a variant's index, on the way to the enum.
///
/// The wrapper of values does not see the index, because the enum reads an identifier.
pub(super) struct IndexSeed<'i, 'b, S> {
    pub(super) seed: S,
    pub(super) context: &'i DecodeContext<'b>,
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for IndexSeed<'_, '_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let index = u32::deserialize(inner)?;
        self.context.fingerprint.fold(Part::index(index));
        self.seed.deserialize(index.into_deserializer())
    }
}
