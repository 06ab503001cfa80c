//! Sequences and maps, whose elements are alike: only the first number or text counts for the
//! fingerprint.

use super::WrappedDeserializer;
use serde::de::{DeserializeSeed, Deserializer, EnumAccess, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// The visitor of a sequence or a map, whose elements are alike.
pub(super) struct ListVisitor<'i, 'b, V>(pub(super) WrappedDeserializer<'i, 'b, V>);

impl<'de, V: Visitor<'de>> Visitor<'de> for ListVisitor<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.expecting(f)
    }

    visits! {
        0: visit_bool(bool), visit_i8(i8), visit_i16(i16), visit_i32(i32), visit_i64(i64),
        visit_i128(i128), visit_u8(u8), visit_u16(u16), visit_u32(u32), visit_u64(u64),
        visit_u128(u128), visit_f32(f32), visit_f64(f64), visit_char(char), visit_str(&str),
        visit_borrowed_str(&'de str), visit_string(String), visit_bytes(&[u8]),
        visit_borrowed_bytes(&'de [u8]), visit_byte_buf(Vec<u8>),
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.0.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.0.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.0.deeper(inner)?;
        self.0.inner.visit_seq(ListAccess(inner))
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.0.deeper(inner)?;
        self.0.inner.visit_map(ListAccess(inner))
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        self.0.visit_enum(inner)
    }
}

/// The elements of a sequence or a map. After the first one, the others are repeated.
struct ListAccess<'i, 'b, A>(WrappedDeserializer<'i, 'b, A>);

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for ListAccess<'_, '_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.context.count_element()?;
        let seed = self.0.with(seed);
        self.0.is_repeated = true;
        self.0.inner.next_element_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        SeqAccess::size_hint(&self.0)
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for ListAccess<'_, '_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.0.context.count_element()?;
        let seed = self.0.with(seed);
        self.0.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.0.with(seed);
        self.0.is_repeated = true;
        self.0.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        MapAccess::size_hint(&self.0)
    }
}
