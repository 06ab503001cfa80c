//! A wrapper around any deserializer: returns handles and long bytes to the value, limits nesting,
//! and stops lists that claim more elements than bytes arrived.

use crate::blob;
use crate::codec::{NESTING_MAX, ZERO_SIZE_ELEMENTS_MAX};
use crate::handle;
use crate::shared_memory;
use bytes::Bytes;
use serde::de::value::{BorrowedBytesDeserializer, U64Deserializer};
use serde::de::{
    Deserialize, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess,
    VariantAccess, Visitor,
};
use std::cell::{Cell, RefCell};
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};

/// [`ZERO_SIZE_ELEMENTS_MAX`]; a smaller number under Miri, which counts to the limit for minutes.
const ELEMENTS_FREE: usize = if cfg!(miri) { 2_000 } else { ZERO_SIZE_ELEMENTS_MAX };

/// The state beside the bytes while one value is read.
#[derive(Debug)]
pub(crate) struct DecodeContext<'b> {
    handles: RefCell<Vec<Option<OwnedFd>>>,
    /// The owner of the bytes, when there is one, from which blobs are cut.
    owner: Option<&'b Bytes>,
    /// The number of further list elements that the payload may announce.
    elements: Cell<usize>,
    /// The largest shared memory that may be mapped, in bytes.
    mapped_bytes_max: usize,
}

impl<'b> DecodeContext<'b> {
    /// `length` is the length of the payload, of which every element that is not empty takes a
    /// byte.
    pub(crate) fn new(
        handles: Vec<OwnedFd>,
        owner: Option<&'b Bytes>,
        length: usize,
        mapped_bytes_max: usize,
    ) -> DecodeContext<'b> {
        DecodeContext {
            handles: RefCell::new(handles.into_iter().map(Some).collect()),
            owner,
            elements: Cell::new(length.saturating_add(ELEMENTS_FREE)),
            mapped_bytes_max,
        }
    }

    fn take_handle(&self, index: u32) -> Option<OwnedFd> {
        self.handles.borrow_mut().get_mut(index as usize)?.take()
    }

    #[inline]
    fn count_element<E: serde::de::Error>(&self) -> Result<(), E> {
        match self.elements.get().checked_sub(1) {
            Some(left) => {
                self.elements.set(left);
                Ok(())
            }
            None => Err(E::custom("more list elements than bytes")),
        }
    }
}

/// The seed that reads the value of the whole payload.
pub(crate) struct RootSeed<'i, 'b, T> {
    pub(crate) context: &'i DecodeContext<'b>,
    pub(crate) kind: std::marker::PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> DeserializeSeed<'de> for RootSeed<'_, '_, T> {
    type Value = T;

    #[inline]
    fn deserialize<D: Deserializer<'de>>(self, inner: D) -> Result<T, D::Error> {
        T::deserialize(WrappedDeserializer { inner, context: self.context, depth: 0 })
    }
}

/// A deserializer, a visitor or a part of one, with the handles beside the bytes and the depth.
#[derive(Debug)]
pub(crate) struct WrappedDeserializer<'i, 'b, X> {
    inner: X,
    context: &'i DecodeContext<'b>,
    depth: usize,
}

impl<'i, 'b, X> WrappedDeserializer<'i, 'b, X> {
    #[inline]
    fn with<Y>(&self, inner: Y) -> WrappedDeserializer<'i, 'b, Y> {
        WrappedDeserializer { inner, context: self.context, depth: self.depth }
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
        Ok(WrappedDeserializer { inner, context: self.context, depth })
    }
}

/// Values without parts, for which the visitor needs no wrapper.
macro_rules! plain {
    ($($method:ident,)*) => {
        $(#[inline]
        fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
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
            let visitor = self.with(visitor);
            self.inner.$method($($name,)* visitor)
        })*
    };
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for WrappedDeserializer<'_, '_, D> {
    type Error = D::Error;

    plain! {
        deserialize_bool, deserialize_i8, deserialize_i16, deserialize_i32, deserialize_i64,
        deserialize_i128, deserialize_u8, deserialize_u16, deserialize_u32, deserialize_u64,
        deserialize_u128, deserialize_f32, deserialize_f64, deserialize_char, deserialize_str,
        deserialize_string, deserialize_bytes, deserialize_byte_buf, deserialize_unit,
        deserialize_identifier,
    }

    wrapped! {
        deserialize_any(), deserialize_option(), deserialize_seq(), deserialize_map(),
        deserialize_ignored_any(), deserialize_unit_struct(name: &'static str),
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
        let index = u32::deserialize(self.inner)?;
        let fd = self.context.take_handle(index).ok_or_else(did_not_come)?;
        // A size over the limit must not be mapped at all: mapping reserves address space.
        let mapping = shared_memory::map(fd.as_fd(), self.context.mapped_bytes_max);
        let number = shared_memory::INCOMING.insert((fd, mapping.map_err(D::Error::custom)?));
        let value = visitor.visit_newtype_struct(U64Deserializer::<D::Error>::new(number));
        drop(shared_memory::INCOMING.remove(number));
        value
    }

    fn read_blob<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        let Some(owner) = self.context.owner else {
            return self.inner.deserialize_newtype_struct(blob::MARKER, visitor);
        };
        match self.inner.deserialize_bytes(Raw)? {
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

enum Bulk<'de> {
    Borrowed(&'de [u8]),
    Owned(Vec<u8>),
}

/// Takes bytes as they come.
struct Raw;

impl<'de> Visitor<'de> for Raw {
    type Value = Bulk<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_borrowed_bytes<E>(self, bytes: &'de [u8]) -> Result<Bulk<'de>, E> {
        Ok(Bulk::Borrowed(bytes))
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Bulk<'de>, E> {
        Ok(Bulk::Owned(bytes.to_vec()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Bulk<'de>, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = elements.next_element()? {
            bytes.push(byte);
        }
        Ok(Bulk::Owned(bytes))
    }
}

macro_rules! visits {
    ($($method:ident($type:ty),)*) => {
        $(#[inline]
        fn $method<E: serde::de::Error>(self, value: $type) -> Result<V::Value, E> {
            self.inner.$method(value)
        })*
    };
}

impl<'de, V: Visitor<'de>> Visitor<'de> for WrappedDeserializer<'_, '_, V> {
    type Value = V::Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.expecting(f)
    }

    visits! {
        visit_bool(bool), visit_i8(i8), visit_i16(i16), visit_i32(i32), visit_i64(i64),
        visit_i128(i128), visit_u8(u8), visit_u16(u16), visit_u32(u32), visit_u64(u64),
        visit_u128(u128), visit_f32(f32), visit_f64(f64), visit_char(char), visit_str(&str),
        visit_borrowed_str(&'de str), visit_string(String), visit_bytes(&[u8]),
        visit_borrowed_bytes(&'de [u8]), visit_byte_buf(Vec<u8>),
    }

    fn visit_none<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_none()
    }

    fn visit_unit<E: serde::de::Error>(self) -> Result<V::Value, E> {
        self.inner.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, inner: D) -> Result<V::Value, D::Error> {
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
        let seed = self.with(seed);
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
        let seed = self.with(seed);
        self.inner.next_key_seed(seed)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
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
        let seed = self.with(seed);
        let WrappedDeserializer { inner, context, depth } = self;
        let (value, variant) = inner.variant_seed(seed)?;
        Ok((value, WrappedDeserializer { inner: variant, context, depth }))
    }
}

impl<'de, A: VariantAccess<'de>> VariantAccess<'de> for WrappedDeserializer<'_, '_, A> {
    type Error = A::Error;

    fn unit_variant(self) -> Result<(), A::Error> {
        self.inner.unit_variant()
    }

    fn newtype_variant_seed<S: DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, A::Error> {
        let seed = self.with(seed);
        self.inner.newtype_variant_seed(seed)
    }

    fn tuple_variant<V: Visitor<'de>>(
        self,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.tuple_variant(length, visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, A::Error> {
        let visitor = self.with(visitor);
        self.inner.struct_variant(fields, visitor)
    }
}
