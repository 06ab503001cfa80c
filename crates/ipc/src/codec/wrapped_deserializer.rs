//! A wrapper around any deserializer: returns handles and long bytes to the value, limits nesting,
//! folds the fingerprint, and stops lists that claim more elements than bytes arrived.

use crate::codec::NESTING_MAX;
use crate::codec::fingerprint::Part;
use crate::{blob, handle, shared_memory};
use serde::de::value::{BorrowedBytesDeserializer, U64Deserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::fmt;
use std::os::fd::AsFd;

macro_rules! visits {
    ($inner:tt: $($method:ident($type:ty),)*) => {
        $(#[inline]
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.$inner.$method(value)
        })*
    };
}

mod bulk;
mod context;
mod index;
mod lists;

pub(crate) use self::context::DecodeContext;

use self::bulk::{Bulk, Raw};
use self::index::IndexSeed;
use self::lists::ListVisitor;

/// The seed that reads the value of the whole payload.
pub(crate) struct RootSeed<'i, 'b, T> {
    pub(crate) context: &'i DecodeContext<'b>,
    pub(crate) kind: std::marker::PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for RootSeed<'_, '_, T> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T, D::Error> {
        T::deserialize(WrappedDeserializer {
            inner,
            context: self.context,
            depth: 0,
            is_repeated: false,
        })
    }
}

/// A deserializer, a visitor or a part of one, with the handles beside the bytes and the depth.
#[derive(Debug)]
pub(crate) struct WrappedDeserializer<'i, 'b, X> {
    inner: X,
    context: &'i DecodeContext<'b>,
    depth: usize,
    /// Whether a number or text here is of the same type as one before, which the fingerprint has.
    is_repeated: bool,
}

impl<'i, 'b, X> WrappedDeserializer<'i, 'b, X> {
    #[inline]
    fn with<Y>(&self, inner: Y) -> WrappedDeserializer<'i, 'b, Y> {
        let WrappedDeserializer { context, depth, is_repeated, .. } = *self;
        WrappedDeserializer { inner, context, depth, is_repeated }
    }

    /// Wraps a value inside this one.
    #[inline]
    fn inside<Y>(&self, inner: Y) -> WrappedDeserializer<'i, 'b, Y> {
        WrappedDeserializer { is_repeated: false, ..self.with(inner) }
    }

    #[inline]
    fn deeper<Y, E: serde::de::Error>(
        &self,
        inner: Y,
    ) -> Result<WrappedDeserializer<'i, 'b, Y>, E> {
        let depth = self.depth + 1;
        if depth > NESTING_MAX {
            return Err(E::custom(format_args!("nested deeper than {NESTING_MAX} levels")));
        }
        Ok(WrappedDeserializer { depth, ..self.with(inner) })
    }

    #[inline(always)]
    fn fold(&self, part: Part) {
        self.context.fingerprint.fold(part);
    }

    #[inline(always)]
    fn fold_plain(&self, part: Part) {
        if !self.is_repeated {
            self.fold(part);
        }
    }

    /// Refuses a request that only a codec with types in its bytes can answer.
    fn ask<E: serde::de::Error>(&self) -> Result<(), E> {
        if !self.context.positional {
            return Ok(());
        }
        self.context.asked.set(true);
        Err(E::custom("a type that asks what comes next"))
    }
}

/// Values without parts, for which the visitor needs no wrapper.
macro_rules! plain {
    ($($method:ident: $part:ident,)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.fold_plain(Part::$part);
            self.inner.$method(visitor)
        })*
    };
}

macro_rules! wrapped {
    ($($method:ident($($name:ident: $type:ty),*),)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(
            self,
            $($name: $type,)*
            visitor: V,
        ) -> Result<V::Value, D::Error> {
            let visitor = self.inside(visitor);
            self.inner.$method($($name,)* visitor)
        })*
    };
}

/// Sequences and maps, whose elements are alike.
macro_rules! lists {
    ($($method:ident: $part:ident,)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
            self.fold(Part::$part);
            let visitor = ListVisitor(self.inside(visitor));
            self.inner.$method(visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for WrappedDeserializer<'_, '_, D> {
    type Error = D::Error;

    plain! {
        deserialize_bool: BOOL, deserialize_i8: I8, deserialize_i16: I16, deserialize_i32: I32,
        deserialize_i64: I64, deserialize_i128: I128, deserialize_u8: U8, deserialize_u16: U16,
        deserialize_u32: U32, deserialize_u64: U64, deserialize_u128: U128, deserialize_f32: F32,
        deserialize_f64: F64, deserialize_char: CHAR, deserialize_str: TEXT,
        deserialize_string: TEXT,
    }

    lists! { deserialize_seq: SEQUENCE, deserialize_map: MAP, }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.ask()?;
        let visitor = self.inside(visitor);
        self.inner.deserialize_any(visitor)
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.ask()?;
        let visitor = self.inside(visitor);
        self.inner.deserialize_ignored_any(visitor)
    }

    fn deserialize_unit<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.inner.deserialize_unit(visitor)
    }

    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        // The tag of an adjacently tagged enum: bincode writes no names.
        self.ask()?;
        self.inner.deserialize_identifier(visitor)
    }

    wrapped! {
        deserialize_bytes(), deserialize_byte_buf(), deserialize_option(),
        deserialize_unit_struct(name: &'static str),
        deserialize_tuple(length: usize),
        deserialize_tuple_struct(name: &'static str, length: usize),
        deserialize_struct(name: &'static str, fields: &'static [&'static str]),
        deserialize_enum(name: &'static str, variants: &'static [&'static str]),
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, D::Error> {
        match name {
            handle::MARKER => self.read_handle(visitor),
            blob::MARKER => self.read_blob(visitor),
            shared_memory::MARKER => self.read_memory(visitor),
            _ => {
                let visitor = self.with(visitor);
                self.inner.deserialize_newtype_struct(name, visitor)
            }
        }
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<'de, D: Deserializer<'de>> WrappedDeserializer<'_, '_, D> {
    fn read_handle<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.fold(Part::HANDLE);
        let index = u32::deserialize(self.inner)?;
        let fd = self.context.take_handle(index).ok_or_else(did_not_come)?;
        let number = handle::INCOMING.insert(fd);
        let value = visitor.visit_newtype_struct(U64Deserializer::<D::Error>::new(number));
        // A foreign visitor may leave the entry, whose descriptor is closed here.
        drop(handle::INCOMING.remove(number));
        value
    }

    /// Checks the size of the memory before it is mapped.
    fn read_memory<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        self.fold(Part::HANDLE);
        let index = u32::deserialize(self.inner)?;
        let fd = self.context.take_handle(index).ok_or_else(did_not_come)?;
        // A size over the limit must not be mapped at all: mapping reserves address space.
        let left = &self.context.mapped_left;
        let mapping = shared_memory::map(fd.as_fd(), left.get()).map_err(D::Error::custom)?;
        left.set(left.get().saturating_sub(mapping.len()));
        let number = shared_memory::INCOMING.insert((fd, mapping));
        let value = visitor.visit_newtype_struct(U64Deserializer::<D::Error>::new(number));
        drop(shared_memory::INCOMING.remove(number));
        value
    }

    fn read_blob<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Some(owner) = self.context.owner else {
            let visitor = self.inside(visitor);
            return self.inner.deserialize_newtype_struct(blob::MARKER, visitor);
        };
        let fingerprint = &self.context.fingerprint;
        let bulk = self.inner.deserialize_bytes(Raw)?;
        fingerprint.fold_bytes(bulk.len());
        match bulk {
            Bulk::Borrowed(bytes) if bytes.len() >= blob::PIECE_BYTES_MIN => {
                let piece = owner.slice_ref(bytes);
                blob::SHARED_BYTES.insert(&piece);
                let inner = BorrowedBytesDeserializer::new(bytes);
                let value = visitor.visit_newtype_struct(inner);
                blob::SHARED_BYTES.remove(&piece);
                value
            }
            Bulk::Borrowed(bytes) => {
                visitor.visit_newtype_struct(BorrowedBytesDeserializer::new(bytes))
            }
            Bulk::Owned(bytes) => visitor
                .visit_newtype_struct(serde::de::value::BytesDeserializer::new(bytes.as_slice())),
        }
    }
}

fn did_not_come<E: serde::de::Error>() -> E {
    E::custom("a handle that did not arrive, or was already taken")
}

impl<'de, V: Visitor<'de>> Visitor<'de> for WrappedDeserializer<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        inner: visit_bool(bool), visit_i8(i8), visit_i16(i16), visit_i32(i32), visit_i64(i64),
        visit_i128(i128), visit_u8(u8), visit_u16(u16), visit_u32(u32), visit_u64(u64),
        visit_u128(u128), visit_f32(f32), visit_f64(f64), visit_char(char), visit_str(&str),
        visit_borrowed_str(&'de str), visit_string(String),
    }

    fn visit_bytes<E: serde::de::Error>(self, value: &[u8]) -> Result<V::Value, E> {
        self.context.fingerprint.fold_bytes(value.len());
        self.inner.visit_bytes(value)
    }

    fn visit_borrowed_bytes<E: serde::de::Error>(self, value: &'de [u8]) -> Result<V::Value, E> {
        self.context.fingerprint.fold_bytes(value.len());
        self.inner.visit_borrowed_bytes(value)
    }

    fn visit_byte_buf<E: serde::de::Error>(self, value: Vec<u8>) -> Result<V::Value, E> {
        self.context.fingerprint.fold_bytes(value.len());
        self.inner.visit_byte_buf(value)
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.fold(Part::NONE);
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        self.fold(Part::SOME);
        let inner = self.deeper(inner)?;
        self.inner.visit_some(inner)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
        let inner = self.deeper(inner)?;
        self.inner.visit_newtype_struct(inner)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.deeper(inner)?;
        self.inner.visit_seq(inner)
    }

    fn visit_map<A: MapAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.deeper(inner)?;
        self.inner.visit_map(inner)
    }

    fn visit_enum<A: EnumAccess<'de>>(self, inner: A) -> Result<V::Value, A::Error> {
        let inner = self.deeper(inner)?;
        self.inner.visit_enum(inner)
    }
}

impl<'de, S: DeserializeSeed<'de>> DeserializeSeed<'de> for WrappedDeserializer<'_, '_, S> {
    type Value = S::Value;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<S::Value, D::Error> {
        let inner = self.with(inner);
        self.inner.deserialize(inner)
    }
}

impl<'de, A: SeqAccess<'de>> SeqAccess<'de> for WrappedDeserializer<'_, '_, A> {
    type Error = A::Error;

    #[inline]
    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.context.count_element()?;
        let seed = self.inside(seed);
        self.inner.next_element_seed(seed)
    }

    /// Visitors reserve memory for the hint, so it never exceeds the elements that can still come.
    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(self.context.elements.get()))
    }
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for WrappedDeserializer<'_, '_, A> {
    type Error = A::Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, A::Error> {
        self.context.count_element()?;
        let seed = self.inside(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.inside(seed);
        self.inner.next_value_seed(seed)
    }

    fn size_hint(&self) -> Option<usize> {
        self.inner.size_hint().map(|hint| hint.min(self.context.elements.get()))
    }
}

impl<'i, 'b, 'de, A: EnumAccess<'de>> EnumAccess<'de> for WrappedDeserializer<'i, 'b, A> {
    type Error = A::Error;
    type Variant = WrappedDeserializer<'i, 'b, A::Variant>;

    fn variant_seed<S: DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Self::Variant), A::Error> {
        let context = self.context;
        let wrapped = self.inside(());
        let (value, variant) = match context.positional {
            true => self.inner.variant_seed(IndexSeed { seed, context })?,
            false => {
                let seed = wrapped.with(seed);
                self.inner.variant_seed(seed)?
            }
        };
        Ok((value, wrapped.with(variant)))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for WrappedDeserializer<'_, '_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.fold(Part::UNIT_VARIANT);
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        self.fold(Part::NEWTYPE_VARIANT);
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.fold(Part::TUPLE_VARIANT);
        let visitor = self.with(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        self.fold(Part::STRUCT_VARIANT);
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
