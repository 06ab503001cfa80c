//! Two serializers that extract one thing each: the slot of a handle, and the bytes of a blob.

use crate::blob;
use crate::handle::{self, Slot};
use bytes::Bytes;
use serde::ser::{Error as _, Impossible, Serialize, Serializer};
use std::sync::Arc;

type Plain = serde::de::value::Error;

/// Refuses all methods of a serializer except the one that the markers of this crate call.
macro_rules! refuse {
    ($ok:ty, $($method:ident($($type:ty),*),)*) => {
        type Ok = $ok;
        type Error = Plain;
        type SerializeSeq = Impossible<$ok, Plain>;
        type SerializeTuple = Impossible<$ok, Plain>;
        type SerializeTupleStruct = Impossible<$ok, Plain>;
        type SerializeTupleVariant = Impossible<$ok, Plain>;
        type SerializeMap = Impossible<$ok, Plain>;
        type SerializeStruct = Impossible<$ok, Plain>;
        type SerializeStructVariant = Impossible<$ok, Plain>;
        $(refuse!(@one $ok, $method($($type),*));)*

        fn serialize_some<T: Serialize + ?Sized>(self, _: &T) -> Result<$ok, Plain> {
            Err(not_ours())
        }
        fn serialize_newtype_struct<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: &T,
        ) -> Result<$ok, Plain> {
            Err(not_ours())
        }
        fn serialize_newtype_variant<T: Serialize + ?Sized>(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: &T,
        ) -> Result<$ok, Plain> {
            Err(not_ours())
        }
        fn serialize_seq(self, _: Option<usize>) -> Result<Self::SerializeSeq, Plain> {
            Err(not_ours())
        }
        fn serialize_tuple(self, _: usize) -> Result<Self::SerializeTuple, Plain> {
            Err(not_ours())
        }
        fn serialize_tuple_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleStruct, Plain> {
            Err(not_ours())
        }
        fn serialize_tuple_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeTupleVariant, Plain> {
            Err(not_ours())
        }
        fn serialize_map(self, _: Option<usize>) -> Result<Self::SerializeMap, Plain> {
            Err(not_ours())
        }
        fn serialize_struct(
            self,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStruct, Plain> {
            Err(not_ours())
        }
        fn serialize_struct_variant(
            self,
            _: &'static str,
            _: u32,
            _: &'static str,
            _: usize,
        ) -> Result<Self::SerializeStructVariant, Plain> {
            Err(not_ours())
        }
    };
    (@one $ok:ty, $method:ident()) => {
        fn $method(self) -> Result<$ok, Plain> {
            Err(not_ours())
        }
    };
    (@one $ok:ty, $method:ident($a:ty)) => {
        fn $method(self, _: $a) -> Result<$ok, Plain> {
            Err(not_ours())
        }
    };
    (@one $ok:ty, $method:ident($a:ty, $b:ty, $c:ty)) => {
        fn $method(self, _: $a, _: $b, _: $c) -> Result<$ok, Plain> {
            Err(not_ours())
        }
    };
}

fn not_ours() -> Plain {
    Plain::custom("a marker of the ipc crate around something else")
}

/// Extracts the slot that a handle has inserted into the side table.
pub(super) struct ExtractSlot;

impl Serializer for ExtractSlot {
    refuse! { Arc<Slot>,
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32),
        serialize_f32(f32), serialize_f64(f64), serialize_char(char), serialize_str(&str),
        serialize_bytes(&[u8]), serialize_none(), serialize_unit(),
        serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    }

    fn serialize_u64(self, number: u64) -> Result<Arc<Slot>, Plain> {
        handle::OUTGOING.remove(number).ok_or_else(not_ours)
    }
}

/// Extracts the bytes of a blob; `Some` when they are long enough to be kept apart.
pub(super) struct ExtractBytes;

impl Serializer for ExtractBytes {
    refuse! { Option<Bytes>,
        serialize_bool(bool), serialize_i8(i8), serialize_i16(i16), serialize_i32(i32),
        serialize_i64(i64), serialize_u8(u8), serialize_u16(u16), serialize_u32(u32),
        serialize_u64(u64), serialize_f32(f32), serialize_f64(f64), serialize_char(char),
        serialize_str(&str), serialize_none(), serialize_unit(),
        serialize_unit_struct(&'static str),
        serialize_unit_variant(&'static str, u32, &'static str),
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Option<Bytes>, Plain> {
        if bytes.len() < blob::PIECE_BYTES_MIN {
            return Ok(None);
        }
        Ok(blob::SHARED_BYTES.find(bytes))
    }
}
