//! Serializing any type of serde to a JavaScript value.

use super::MARKER;
use super::big_int::BigInt;
use super::value::{Entry, Item, Key, Node, NodeId, Text, Value, ViewKind};
use serde::de::value::Error;
use serde::ser::{
    Error as _, Serialize, SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant,
    SerializeTuple, SerializeTupleStruct, SerializeTupleVariant, Serializer,
};

/// The largest integer that is written as a number. JavaScript would lose digits of larger ones.
const SAFE_INTEGER: u64 = (1 << 53) - 1;

/// The serializer of one value into a document.
pub(super) struct ItemSerializer<'d> {
    pub(super) document: &'d mut Value,
}

/// A list, map or object while its parts are added.
pub(super) struct Parts<'d> {
    document: &'d mut Value,
    id: NodeId,
    /// The name of the variant around the content, if there is one.
    variant: Option<&'static str>,
    items: Vec<Option<Item>>,
    entries: Vec<(Item, Item)>,
    key: Option<Item>,
}

impl<'d> ItemSerializer<'d> {
    fn parts(self, variant: Option<&'static str>) -> Parts<'d> {
        let id = self.document.add(Node::Object(Vec::new()));
        let (items, entries) = (Vec::new(), Vec::new());
        Parts { document: self.document, id, variant, items, entries, key: None }
    }
}

impl Parts<'_> {
    fn item<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<Item, Error> {
        value.serialize(ItemSerializer { document: self.document })
    }

    fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let item = self.item(value)?;
        self.items.push(Some(item));
        Ok(())
    }

    fn field<T: Serialize + ?Sized>(&mut self, key: &str, value: &T) -> Result<(), Error> {
        let item = self.item(value)?;
        self.entries.push((Item::String(key.into()), item));
        Ok(())
    }

    fn finish(self, node: Node) -> Item {
        *self.document.node_mut(self.id) = node;
        let item = Item::Object(self.id);
        match self.variant {
            None => item,
            Some(name) => {
                let entry = Entry { key: Key::Name(name.into()), item };
                Item::Object(self.document.add(Node::Object(vec![entry])))
            }
        }
    }

    fn list(mut self) -> Item {
        let items = std::mem::take(&mut self.items);
        self.finish(Node::Array { items, extra: Vec::new() })
    }

    /// Finishes an object, or a `Map` when a key is no string.
    fn object(mut self) -> Item {
        let entries = std::mem::take(&mut self.entries);
        if !entries.iter().all(|(key, _)| matches!(key, Item::String(_))) {
            return self.finish(Node::Map(entries));
        }
        let entries = entries
            .into_iter()
            .map(|(key, item)| {
                let Item::String(name) = key else { unreachable!("checked above") };
                let key = match name.to_str() {
                    Some(text) => Key::from(text.as_str()),
                    None => Key::Name(name),
                };
                Entry { key, item }
            })
            .collect();
        self.finish(Node::Object(entries))
    }
}

fn double(number: f64) -> Item {
    let small = number as i32;
    // V8 holds whole numbers as integers, except for negative zero.
    if f64::from(small).to_bits() == number.to_bits() {
        return Item::Int(small);
    }
    Item::Double(number)
}

fn signed(number: i128) -> Item {
    match i32::try_from(number) {
        Ok(small) => Item::Int(small),
        Err(_) if number.unsigned_abs() <= u128::from(SAFE_INTEGER) => Item::Double(number as f64),
        Err(_) => Item::BigInt(BigInt::from(number)),
    }
}

fn unsigned(number: u128) -> Item {
    match i128::try_from(number) {
        Ok(number) => signed(number),
        Err(_) => Item::BigInt(BigInt::from(number)),
    }
}

macro_rules! numbers {
    ($($method:ident($type:ty) => $make:ident($wide:ty),)*) => {
        $(fn $method(self, number: $type) -> Result<Item, Error> {
            Ok($make(<$wide>::from(number)))
        })*
    };
}

impl<'d> Serializer for ItemSerializer<'d> {
    type Ok = Item;
    type Error = Error;
    type SerializeSeq = Parts<'d>;
    type SerializeTuple = Parts<'d>;
    type SerializeTupleStruct = Parts<'d>;
    type SerializeTupleVariant = Parts<'d>;
    type SerializeMap = Parts<'d>;
    type SerializeStruct = Parts<'d>;
    type SerializeStructVariant = Parts<'d>;

    numbers! {
        serialize_i8(i8) => signed(i128), serialize_i16(i16) => signed(i128),
        serialize_i32(i32) => signed(i128), serialize_i64(i64) => signed(i128),
        serialize_i128(i128) => signed(i128), serialize_u8(u8) => signed(i128),
        serialize_u16(u16) => signed(i128), serialize_u32(u32) => signed(i128),
        serialize_u64(u64) => signed(i128), serialize_u128(u128) => unsigned(u128),
        serialize_f32(f32) => double(f64), serialize_f64(f64) => double(f64),
    }

    fn serialize_bool(self, value: bool) -> Result<Item, Error> {
        Ok(Item::Bool(value))
    }

    fn serialize_char(self, value: char) -> Result<Item, Error> {
        Ok(Item::String(value.to_string().as_str().into()))
    }

    fn serialize_str(self, value: &str) -> Result<Item, Error> {
        Ok(Item::String(Text::from(value)))
    }

    fn serialize_bytes(self, bytes: &[u8]) -> Result<Item, Error> {
        let node = Node::View { kind: ViewKind::Buffer, bytes: bytes.to_vec() };
        Ok(Item::Object(self.document.add(node)))
    }

    fn serialize_none(self) -> Result<Item, Error> {
        Ok(Item::Null)
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<Item, Error> {
        value.serialize(self)
    }

    fn serialize_unit(self) -> Result<Item, Error> {
        Ok(Item::Null)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<Item, Error> {
        Ok(Item::Null)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<Item, Error> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<Item, Error> {
        if name != MARKER {
            return value.serialize(self);
        }
        let mut aside = Value::default();
        let raw = value.serialize(ItemSerializer { document: &mut aside })?;
        let Item::Object(id) = raw else { return Err(Error::custom("a marker around nothing")) };
        let Node::View { bytes, .. } = aside.node(id) else {
            return Err(Error::custom("a marker around something else"));
        };
        let inner = Value::from_bytes(bytes).map_err(Error::custom)?;
        Ok(self.document.graft(inner))
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<Item, Error> {
        let mut parts = self.parts(None);
        parts.field(variant, value)?;
        Ok(parts.object())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Parts<'d>, Error> {
        Ok(self.parts(None))
    }

    fn serialize_tuple(self, _: usize) -> Result<Parts<'d>, Error> {
        Ok(self.parts(None))
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Parts<'d>, Error> {
        Ok(self.parts(None))
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'d>, Error> {
        Ok(self.parts(Some(variant)))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Parts<'d>, Error> {
        Ok(self.parts(None))
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Parts<'d>, Error> {
        Ok(self.parts(None))
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<Parts<'d>, Error> {
        Ok(self.parts(Some(variant)))
    }
}

macro_rules! lists {
    ($($trait:ident $method:ident,)*) => {
        $(impl $trait for Parts<'_> {
            type Ok = Item;
            type Error = Error;
            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
                self.element(value)
            }
            fn end(self) -> Result<Item, Error> {
                Ok(self.list())
            }
        })*
    };
}

lists! {
    SerializeSeq serialize_element, SerializeTuple serialize_element,
    SerializeTupleStruct serialize_field, SerializeTupleVariant serialize_field,
}

macro_rules! objects {
    ($($trait:ident,)*) => {
        $(impl $trait for Parts<'_> {
            type Ok = Item;
            type Error = Error;
            fn serialize_field<T: Serialize + ?Sized>(
                &mut self,
                key: &'static str,
                value: &T,
            ) -> Result<(), Error> {
                self.field(key, value)
            }
            fn end(self) -> Result<Item, Error> {
                Ok(self.object())
            }
        })*
    };
}

objects! { SerializeStruct, SerializeStructVariant, }

impl SerializeMap for Parts<'_> {
    type Ok = Item;
    type Error = Error;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Error> {
        self.key = Some(self.item(key)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Error> {
        let item = self.item(value)?;
        let key = self.key.take().ok_or_else(|| Error::custom("a value without a key"))?;
        self.entries.push((key, item));
        Ok(())
    }

    fn end(self) -> Result<Item, Error> {
        Ok(self.object())
    }
}
