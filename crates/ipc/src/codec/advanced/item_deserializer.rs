//! Deserializing any type of serde from a JavaScript value.

use super::big_int::BigInt;
use super::copy_budget::{CopyBudget, own_bytes};
use super::value::{Entry, Item, Node, Value};
use super::{MARKER, write};
use serde::de::value::{
    BytesDeserializer, Error, MapDeserializer, SeqDeserializer, StringDeserializer,
};
use serde::de::{self, Deserializer, EnumAccess, IntoDeserializer, VariantAccess, Visitor};

/// The longest array with gaps that is read; a longer one is refused, because gaps cost nothing to
/// announce.
const SPARSE_MAX: u32 = 65_536;

/// The deserializer of one item of a document.
#[derive(Clone, Copy)]
pub(super) struct ItemDeserializer<'v> {
    document: &'v Value,
    item: &'v Item,
    budget: &'v CopyBudget,
}

static UNDEFINED: Item = Item::Undefined;

impl<'v> ItemDeserializer<'v> {
    pub(super) fn new(
        document: &'v Value,
        item: &'v Item,
        budget: &'v CopyBudget,
    ) -> ItemDeserializer<'v> {
        ItemDeserializer { document, item, budget }
    }

    fn at(self, item: &'v Item) -> ItemDeserializer<'v> {
        ItemDeserializer { item, ..self }
    }

    fn node(self) -> Option<&'v Node> {
        match self.item {
            Item::Object(id) => Some(self.document.node(*id)),
            _ => None,
        }
    }

    /// Counts a visit of the object whose content is copied next, if the item is one.
    fn visit(self) -> Result<(), Error> {
        let Item::Object(id) = self.item else { return Ok(()) };
        let node = self.document.node(*id);
        // Each view is an object of its own, and all of them copy the same buffer.
        let owner = if let Node::BufferView { buffer, .. } = node { *buffer } else { *id };
        self.budget.visit(owner, || own_bytes(node))
    }

    fn entries<'de, V: Visitor<'de>>(
        self,
        entries: &'v [Entry],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let pairs = entries.iter().map(|entry| (entry.key.to_string(), self.at(&entry.item)));
        visitor.visit_map(MapDeserializer::new(pairs))
    }

    fn list<'de, V: Visitor<'de>>(
        self,
        items: impl Iterator<Item = &'v Item>,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_seq(SeqDeserializer::new(items.map(|item| self.at(item))))
    }

    fn any_node<'de, V: Visitor<'de>>(self, node: &'v Node, visitor: V) -> Result<V::Value, Error> {
        match node {
            Node::Object(entries) => self.entries(entries, visitor),
            Node::Array { items, .. } => {
                self.list(items.iter().map(|item| item.as_ref().unwrap_or(&UNDEFINED)), visitor)
            }
            Node::Sparse { length, entries } => self.sparse(*length, entries, visitor),
            Node::Date(number) | Node::Number(number) => visitor.visit_f64(*number),
            Node::RegExp { source: text, .. } | Node::String(text) => {
                visitor.visit_string(text.to_string())
            }
            Node::Map(pairs) => visitor.visit_map(MapDeserializer::new(
                pairs.iter().map(|(key, item)| (self.at(key), self.at(item))),
            )),
            Node::Set(items) => self.list(items.iter(), visitor),
            Node::Boolean(value) => visitor.visit_bool(*value),
            Node::BigInt(number) => big_int(number, visitor),
            Node::Error { kind, message, stack, .. } => {
                let fields = [
                    ("name", Some(kind.name().to_owned())),
                    ("message", message.as_ref().map(ToString::to_string)),
                    ("stack", stack.as_ref().map(ToString::to_string)),
                ];
                let there = fields.into_iter().filter_map(|(key, text)| Some((key, text?)));
                visitor.visit_map(MapDeserializer::new(there))
            }
            Node::ArrayBuffer(bytes)
            | Node::ResizableArrayBuffer { bytes, .. }
            | Node::View { bytes, .. } => visitor.visit_bytes(bytes),
            Node::BufferView { buffer, offset, length, .. } => {
                let (Node::ArrayBuffer(bytes) | Node::ResizableArrayBuffer { bytes, .. }) =
                    self.document.node(*buffer)
                else {
                    return Err(de::Error::custom("a view on something else than a buffer"));
                };
                let from = *offset as usize;
                let part = bytes.get(from..from + *length as usize).unwrap_or_default();
                visitor.visit_bytes(part)
            }
            Node::Host(item) => self.at(item).deserialize_any(visitor),
        }
    }

    fn sparse<'de, V: Visitor<'de>>(
        self,
        length: u32,
        entries: &'v [Entry],
        visitor: V,
    ) -> Result<V::Value, Error> {
        if length > SPARSE_MAX {
            return Err(de::Error::custom("an array with too many gaps"));
        }
        let mut elements: Vec<(u32, &Item)> = entries
            .iter()
            .filter_map(|entry| match entry.key {
                super::Key::Index(index) => Some((index, &entry.item)),
                super::Key::Name(_) => None,
            })
            .collect();
        elements.sort_by_key(|(index, _)| *index);
        let mut elements = elements.into_iter().peekable();
        // Gaps take no memory here, because an array of gaps may be inside another one.
        let items = (0..length).map(|index| {
            elements.next_if(|(at, _)| *at == index).map_or(&UNDEFINED, |(_, item)| item)
        });
        self.list(items, visitor)
    }
}

fn big_int<'de, V: Visitor<'de>>(number: &BigInt, visitor: V) -> Result<V::Value, Error> {
    if let Some(number) = number.to_u128() {
        return match u64::try_from(number) {
            Ok(number) => visitor.visit_u64(number),
            Err(_) => visitor.visit_u128(number),
        };
    }
    let number =
        number.to_i128().ok_or_else(|| de::Error::custom("a BigInt of more than 128 bits"))?;
    match i64::try_from(number) {
        Ok(number) => visitor.visit_i64(number),
        Err(_) => visitor.visit_i128(number),
    }
}

impl<'de> Deserializer<'de> for ItemDeserializer<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item {
            Item::Undefined | Item::Null => visitor.visit_unit(),
            Item::Bool(value) => visitor.visit_bool(*value),
            Item::Int(number) => visitor.visit_i32(*number),
            Item::Double(number) => {
                let whole = *number as i64;
                // Rust asks for an integer where JavaScript has only one kind of number.
                if whole as f64 == *number && whole.unsigned_abs() > u64::from(u32::MAX >> 1) {
                    return visitor.visit_i64(whole);
                }
                visitor.visit_f64(*number)
            }
            Item::BigInt(number) => big_int(number, visitor),
            Item::String(text) => match text.to_str() {
                Some(text) => visitor.visit_string(text),
                None => Err(de::Error::custom("a string with a lone surrogate")),
            },
            Item::Object(id) => {
                self.visit()?;
                self.any_node(self.document.node(*id), visitor)
            }
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item {
            Item::Undefined | Item::Null => visitor.visit_none(),
            _ => visitor.visit_some(self),
        }
    }

    fn deserialize_f64<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.item {
            Item::Double(number) => visitor.visit_f64(*number),
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_f32<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_f64(visitor)
    }

    /// A list may be asked for where the value holds bytes.
    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.node() {
            Some(
                Node::ArrayBuffer(bytes)
                | Node::ResizableArrayBuffer { bytes, .. }
                | Node::View { bytes, .. },
            ) => {
                self.visit()?;
                visitor.visit_seq(SeqDeserializer::new(bytes.iter().copied()))
            }
            _ => self.deserialize_any(visitor),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        if name != MARKER {
            return visitor.visit_newtype_struct(self);
        }
        let bytes = write::write_part(self.document, self.item);
        self.budget.charge::<Error>(bytes.len())?;
        visitor.visit_newtype_struct(BytesDeserializer::new(&bytes))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match (self.item, self.node()) {
            (Item::String(text), _) => {
                visitor.visit_enum(Variant { name: text.to_string(), content: None })
            }
            (_, Some(Node::Object(entries))) if entries.len() == 1 => {
                self.visit()?;
                let (name, content) = (entries[0].key.to_string(), self.at(&entries[0].item));
                visitor.visit_enum(Variant { name, content: Some(content) })
            }
            _ => Err(de::Error::custom("an enum is a string or an object with one property")),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 char str string bytes byte_buf unit
        unit_struct tuple tuple_struct map struct identifier ignored_any
    }
}

impl<'de> IntoDeserializer<'de, Error> for ItemDeserializer<'_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

struct Variant<'v> {
    name: String,
    content: Option<ItemDeserializer<'v>>,
}

impl<'de, 'v> EnumAccess<'de> for Variant<'v> {
    type Error = Error;
    type Variant = Content<'v>;

    fn variant_seed<S: de::DeserializeSeed<'de>>(
        self,
        seed: S,
    ) -> Result<(S::Value, Content<'v>), Error> {
        let name: StringDeserializer<Error> = self.name.into_deserializer();
        Ok((seed.deserialize(name)?, Content(self.content)))
    }
}

struct Content<'v>(Option<ItemDeserializer<'v>>);

impl<'v> Content<'v> {
    fn some(self) -> Result<ItemDeserializer<'v>, Error> {
        self.0.ok_or_else(|| de::Error::custom("a variant without its content"))
    }
}

impl<'de> VariantAccess<'de> for Content<'_> {
    type Error = Error;

    fn unit_variant(self) -> Result<(), Error> {
        match self.0 {
            None => Ok(()),
            Some(_) => Err(de::Error::custom("a variant with content where none belongs")),
        }
    }

    fn newtype_variant_seed<S: de::DeserializeSeed<'de>>(self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(self.some()?)
    }

    fn tuple_variant<V: Visitor<'de>>(self, _: usize, visitor: V) -> Result<V::Value, Error> {
        self.some()?.deserialize_seq(visitor)
    }

    fn struct_variant<V: Visitor<'de>>(
        self,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.some()?.deserialize_any(visitor)
    }
}
