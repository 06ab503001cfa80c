//! A wrapper around any serializer: extracts handles and long bytes, limits nesting, folds the
//! fingerprint, and refuses what a positional codec could not read back.

use crate::blob;
use crate::codec::NESTING_MAX;
use crate::codec::extract::{ExtractBytes, ExtractSlot};
use crate::codec::fingerprint::{Fingerprint, Part};
use crate::handle::{self, Slot};
use bytes::Bytes;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};
use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io;
use std::sync::Arc;

/// The state beside the bytes while one value is written.
#[derive(Debug)]
pub(crate) struct EncodeContext {
    pub(crate) slots: RefCell<Vec<Arc<Slot>>>,
    /// Long pieces, each with the number of bytes that were written before it.
    pub(crate) pieces: RefCell<Vec<(usize, Bytes)>>,
    /// Whether the bytes went over the limit.
    pub(crate) overflow: Cell<bool>,
    pub(crate) fingerprint: Fingerprint,
    written: Cell<usize>,
    positional: bool,
    takes_pieces: bool,
}

impl std::fmt::Debug for Slot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Slot")
    }
}

impl EncodeContext {
    /// `positional`: fields have no names, so none can be left out. `takes_pieces`: the codec
    /// writes bytes unchanged behind a length of eight bytes, so long ones can be kept apart.
    pub(crate) fn new(positional: bool, takes_pieces: bool) -> EncodeContext {
        EncodeContext {
            slots: RefCell::new(Vec::new()),
            pieces: RefCell::new(Vec::new()),
            overflow: Cell::new(false),
            fingerprint: Fingerprint::default(),
            written: Cell::new(0),
            positional,
            takes_pieces,
        }
    }
}

/// A writer that stops at a limit, so that one pass is enough.
#[derive(Debug)]
pub(crate) struct Bounded<'a> {
    out: &'a mut Vec<u8>,
    context: &'a EncodeContext,
    end: usize,
}

impl<'a> Bounded<'a> {
    pub(crate) fn new(out: &'a mut Vec<u8>, context: &'a EncodeContext, max: usize) -> Bounded<'a> {
        let end = out.len().saturating_add(max);
        context.written.set(out.len());
        Bounded { out, context, end }
    }

    #[cold]
    fn overflow(&self) -> io::Error {
        self.context.overflow.set(true);
        io::ErrorKind::WriteZero.into()
    }
}

impl io::Write for Bounded<'_> {
    #[inline]
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.write_all(bytes).map(|()| bytes.len())
    }

    #[inline]
    fn write_all(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.len() > self.end - self.out.len() {
            return Err(self.overflow());
        }
        self.out.extend_from_slice(bytes);
        self.context.written.set(self.out.len());
        Ok(())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A serializer or a part of one, with the extracted parts and the depth.
#[derive(Debug)]
pub(crate) struct WrappedSerializer<'o, S> {
    inner: S,
    context: &'o EncodeContext,
    depth: usize,
    /// Whether a number or text here is of the same type as one before, which the fingerprint has:
    /// for a value, whether the value itself is such an element; for a list or map, whether its
    /// next elements are.
    is_repeated: bool,
}

impl<'o, S> WrappedSerializer<'o, S> {
    pub(crate) fn new(inner: S, context: &'o EncodeContext) -> WrappedSerializer<'o, S> {
        WrappedSerializer { inner, context, depth: 0, is_repeated: false }
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
}

/// A value inside another value.
struct Nested<'o, 'v, T: ?Sized> {
    value: &'v T,
    context: &'o EncodeContext,
    depth: usize,
    is_repeated: bool,
}

impl<T: Serialize + ?Sized> Serialize for Nested<'_, '_, T> {
    #[inline]
    fn serialize<S: Serializer>(&self, inner: S) -> Result<S::Ok, S::Error> {
        // Recursion must end before the stack does.
        if self.depth > NESTING_MAX {
            return Err(S::Error::custom(format_args!("nested deeper than {NESTING_MAX} levels")));
        }
        let Nested { value, context, depth, is_repeated } = *self;
        value.serialize(WrappedSerializer { inner, context, depth, is_repeated })
    }
}

impl<'o, S> WrappedSerializer<'o, S> {
    #[inline]
    fn nested<'v, T: ?Sized>(&self, value: &'v T) -> Nested<'o, 'v, T> {
        Nested { value, context: self.context, depth: self.depth + 1, is_repeated: false }
    }

    /// Returns the next element of a list or a map, or the content of a newtype.
    #[inline]
    fn alike<'v, T: ?Sized>(&self, value: &'v T) -> Nested<'o, 'v, T> {
        Nested { is_repeated: self.is_repeated, ..self.nested(value) }
    }
}

macro_rules! plain {
    ($($method:ident($type:ty): $part:ident,)*) => {
        $(#[inline]
        fn $method(self, value: $type) -> Result<S::Ok, S::Error> {
            self.fold_plain(Part::$part);
            self.inner.$method(value)
        })*
    };
}

/// Opens a compound part of the inner serializer and wraps it.
macro_rules! open {
    ($self:ident, $open:expr) => {{
        let WrappedSerializer { inner, context, depth, .. } = $self;
        #[allow(clippy::redundant_closure_call, reason = "the macro's argument names the inner")]
        let inner = ($open)(inner)?;
        Ok(WrappedSerializer { inner, context, depth, is_repeated: false })
    }};
}

impl<'o, S: Serializer> Serializer for WrappedSerializer<'o, S> {
    type Ok = S::Ok;
    type Error = S::Error;
    type SerializeSeq = WrappedSerializer<'o, S::SerializeSeq>;
    type SerializeTuple = WrappedSerializer<'o, S::SerializeTuple>;
    type SerializeTupleStruct = WrappedSerializer<'o, S::SerializeTupleStruct>;
    type SerializeTupleVariant = WrappedSerializer<'o, S::SerializeTupleVariant>;
    type SerializeMap = WrappedSerializer<'o, S::SerializeMap>;
    type SerializeStruct = WrappedSerializer<'o, S::SerializeStruct>;
    type SerializeStructVariant = WrappedSerializer<'o, S::SerializeStructVariant>;

    plain! {
        serialize_bool(bool): BOOL, serialize_i8(i8): I8, serialize_i16(i16): I16,
        serialize_i32(i32): I32, serialize_i64(i64): I64, serialize_i128(i128): I128,
        serialize_u8(u8): U8, serialize_u16(u16): U16, serialize_u32(u32): U32,
        serialize_u64(u64): U64, serialize_u128(u128): U128, serialize_f32(f32): F32,
        serialize_f64(f64): F64, serialize_char(char): CHAR, serialize_str(&str): TEXT,
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<S::Ok, S::Error> {
        self.context.fingerprint.fold_bytes(value.len());
        self.inner.serialize_bytes(value)
    }

    fn serialize_unit_struct(self, name: &'static str) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit_struct(name)
    }

    fn serialize_none(self) -> Result<S::Ok, S::Error> {
        self.fold(Part::NONE);
        self.inner.serialize_none()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.fold(Part::SOME);
        let nested = self.nested(value);
        self.inner.serialize_some(&nested)
    }

    fn serialize_unit(self) -> Result<S::Ok, S::Error> {
        self.inner.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
    ) -> Result<S::Ok, S::Error> {
        self.fold(Part::index(index));
        self.fold(Part::UNIT_VARIANT);
        self.inner.serialize_unit_variant(name, index, variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        match name {
            handle::MARKER => self.write_handle(value),
            blob::MARKER if self.context.takes_pieces => self.write_blob(value),
            _ => {
                let nested = self.alike(value);
                self.inner.serialize_newtype_struct(name, &nested)
            }
        }
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<S::Ok, S::Error> {
        self.fold(Part::index(index));
        self.fold(Part::NEWTYPE_VARIANT);
        let nested = self.nested(value);
        self.inner.serialize_newtype_variant(name, index, variant, &nested)
    }

    fn serialize_seq(self, length: Option<usize>) -> Result<Self::SerializeSeq, S::Error> {
        if length.is_none() && self.context.positional {
            return Err(S::Error::custom(
                "a sequence of unknown length cannot be written by bincode; choose \
                 `Serialization::Json` or `Advanced`, or collect the sequence first",
            ));
        }
        self.fold(Part::SEQUENCE);
        open!(self, |inner: S| inner.serialize_seq(length))
    }

    fn serialize_tuple(self, length: usize) -> Result<Self::SerializeTuple, S::Error> {
        open!(self, |inner: S| inner.serialize_tuple(length))
    }

    fn serialize_tuple_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleStruct, S::Error> {
        open!(self, |inner: S| inner.serialize_tuple_struct(name, length))
    }

    fn serialize_tuple_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeTupleVariant, S::Error> {
        self.fold(Part::index(index));
        self.fold(Part::TUPLE_VARIANT);
        open!(self, |inner: S| inner.serialize_tuple_variant(name, index, variant, length))
    }

    fn serialize_map(self, length: Option<usize>) -> Result<Self::SerializeMap, S::Error> {
        if length.is_none() && self.context.positional {
            return Err(S::Error::custom(
                "a map of unknown length (`#[serde(flatten)]` makes one) cannot be written by \
                 bincode; choose `Serialization::Json` or `Advanced`",
            ));
        }
        self.fold(Part::MAP);
        open!(self, |inner: S| inner.serialize_map(length))
    }

    fn serialize_struct(
        self,
        name: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStruct, S::Error> {
        open!(self, |inner: S| inner.serialize_struct(name, length))
    }

    fn serialize_struct_variant(
        self,
        name: &'static str,
        index: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Self::SerializeStructVariant, S::Error> {
        self.fold(Part::index(index));
        self.fold(Part::STRUCT_VARIANT);
        open!(self, |inner: S| inner.serialize_struct_variant(name, index, variant, length))
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        self.fold_plain(Part::TEXT);
        self.inner.collect_str(value)
    }

    fn is_human_readable(&self) -> bool {
        self.inner.is_human_readable()
    }
}

impl<S: Serializer> WrappedSerializer<'_, S> {
    /// Writes the handle's index among the message's handles, and keeps its slot.
    fn write_handle<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        let slot = value.serialize(ExtractSlot).map_err(S::Error::custom)?;
        let mut slots = self.context.slots.borrow_mut();
        let index = u32::try_from(slots.len()).map_err(S::Error::custom)?;
        slots.push(slot);
        drop(slots);
        self.fold(Part::HANDLE);
        self.inner.serialize_newtype_struct(handle::MARKER, &index)
    }

    /// Writes the length, and keeps long bytes as a piece of their own.
    fn write_blob<T: Serialize + ?Sized>(self, value: &T) -> Result<S::Ok, S::Error> {
        match value.serialize(ExtractBytes).map_err(S::Error::custom)? {
            None => {
                let nested = self.nested(value);
                self.inner.serialize_newtype_struct(blob::MARKER, &nested)
            }
            Some(piece) => {
                self.context.fingerprint.fold_bytes(piece.len());
                let length = piece.len() as u64;
                let done = self.inner.serialize_u64(length)?;
                let at = self.context.written.get();
                self.context.pieces.borrow_mut().push((at, piece));
                Ok(done)
            }
        }
    }
}

impl<P: SerializeSeq> SerializeSeq for WrappedSerializer<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    #[inline]
    fn serialize_element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let element = self.alike(value);
        self.is_repeated = true;
        self.inner.serialize_element(&element)
    }

    fn end(self) -> Result<P::Ok, P::Error> {
        self.inner.end()
    }
}

macro_rules! elements {
    ($($trait:ident $method:ident,)*) => {
        $(impl<'o, P: $trait> $trait for WrappedSerializer<'o, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
                let nested = self.nested(value);
                self.inner.$method(&nested)
            }

            fn end(self) -> Result<P::Ok, P::Error> {
                self.inner.end()
            }
        })*
    };
}

elements! {
    SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field,
    SerializeTupleVariant serialize_field,
}

macro_rules! fields {
    ($($trait:ident,)*) => {
        $(impl<'o, P: $trait> $trait for WrappedSerializer<'o, P> {
            type Ok = P::Ok;
            type Error = P::Error;

            #[inline]
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), P::Error> {
                let nested = self.nested(value);
                self.inner.serialize_field(key, &nested)
            }

            fn skip_field(&mut self, key: &'static str) -> Result<(), P::Error> {
                if self.context.positional {
                    return Err(P::Error::custom(format_args!(
                        "field `{key}` is left out (`skip_serializing_if`), which bincode cannot \
                         read back; choose `Serialization::Json` or `Advanced`"
                    )));
                }
                self.inner.skip_field(key)
            }

            fn end(self) -> Result<P::Ok, P::Error> {
                self.inner.end()
            }
        })*
    };
}

fields! { SerializeStruct, SerializeStructVariant, }

impl<P: SerializeMap> SerializeMap for WrappedSerializer<'_, P> {
    type Ok = P::Ok;
    type Error = P::Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), P::Error> {
        let key = self.alike(key);
        self.inner.serialize_key(&key)
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), P::Error> {
        let value = self.alike(value);
        self.is_repeated = true;
        self.inner.serialize_value(&value)
    }

    fn end(self) -> Result<P::Ok, P::Error> {
        self.inner.end()
    }
}
