//! Reading V8's format, versions 13 to 15, from a peer that may be hostile.
//!
//! Memory stays within a small multiple of the bytes that arrived: memory is never reserved for an
//! announced length, and nesting ends at [`NESTING_MAX`].
//!
//! Pure.

use super::big_int::BigInt;
use super::value::{Entry, ErrorKind, Item, Key, Node, NodeId, Text, Value, ViewKind};
use crate::codec::NESTING_MAX;
use std::collections::HashSet;

pub(super) fn read(bytes: &[u8]) -> Result<Value, String> {
    let mut reader = Reader { bytes, value: Value::default(), depth: 0, version: 0 };
    match (reader.byte()?, reader.varint()?) {
        (0xff, version @ 13..=15) => reader.version = version,
        (0xff, version) => return Err(format!("version {version}, not 13 to 15")),
        _ => return Err("no version header".into()),
    }
    let root = reader.item()?;
    if !reader.bytes.is_empty() {
        return Err(format!("{} bytes behind the value", reader.bytes.len()));
    }
    reader.value.set_root(root);
    Ok(reader.value)
}

struct Reader<'a> {
    bytes: &'a [u8],
    value: Value,
    depth: usize,
    version: u32,
}

type Result<T, E = String> = std::result::Result<T, E>;

impl<'a> Reader<'a> {
    fn item(&mut self) -> Result<Item> {
        let tag = self.tag()?;
        self.item_of(tag)
    }

    fn item_of(&mut self, tag: u8) -> Result<Item> {
        if self.depth >= NESTING_MAX {
            return Err(format!("nested deeper than {NESTING_MAX} levels"));
        }
        self.depth += 1;
        let item = self.item_inside(tag);
        self.depth -= 1;
        item
    }

    fn item_inside(&mut self, tag: u8) -> Result<Item> {
        Ok(match tag {
            b'_' => Item::Undefined,
            b'0' => Item::Null,
            b'T' => Item::Bool(true),
            b'F' => Item::Bool(false),
            b'I' => Item::Int(self.zigzag()?),
            b'U' => {
                let number = self.varint()?;
                i32::try_from(number).map_or(Item::Double(f64::from(number)), Item::Int)
            }
            b'N' => Item::Double(self.double()?),
            b'Z' => Item::BigInt(self.big_int()?),
            b'"' | b'c' | b'S' => Item::String(self.text_of(tag)?),
            b'?' => {
                self.varint()?;
                self.item()?
            }
            b'^' => self.back_reference()?,
            _ => self.object(tag)?,
        })
    }

    fn back_reference(&mut self) -> Result<Item> {
        let number = self.varint()? as usize;
        if number >= self.value.node_count() {
            return Err(format!("reference to object {number}, which does not exist"));
        }
        let item = Item::Object(NodeId(number));
        match self.value.node(NodeId(number)) {
            Node::ArrayBuffer(_) | Node::ResizableArrayBuffer { .. } => {
                self.maybe_view(NodeId(number))
            }
            _ => Ok(item),
        }
    }

    /// V8 numbers objects in the order in which they begin, which is the order of the nodes here.
    fn object(&mut self, tag: u8) -> Result<Item> {
        let id = self.value.add(Node::Host(Item::Undefined));
        let node = match tag {
            b'o' => Node::Object(self.entries(b'{')?),
            b'A' => self.array()?,
            b'a' => self.sparse()?,
            b'D' => Node::Date(self.double()?),
            b'R' => Node::RegExp { source: self.text()?, flags: self.varint()? },
            b';' => self.map()?,
            b'\'' => self.set()?,
            b'y' => Node::Boolean(true),
            b'x' => Node::Boolean(false),
            b'n' => Node::Number(self.double()?),
            b'z' => Node::BigInt(self.big_int()?),
            b's' => Node::String(self.text()?),
            b'r' => self.error()?,
            b'B' => {
                *self.value.node_mut(id) = Node::ArrayBuffer(self.bytes()?.to_vec());
                return self.maybe_view(id);
            }
            b'~' => {
                *self.value.node_mut(id) = self.resizable()?;
                return self.maybe_view(id);
            }
            b'\\' => self.host()?,
            other => return Err(format!("unknown tag {other:#04x}")),
        };
        *self.value.node_mut(id) = node;
        Ok(Item::Object(id))
    }

    fn array(&mut self) -> Result<Node> {
        let length = self.varint()?;
        let mut items = Vec::new();
        for _ in 0..length {
            items.push(match self.tag()? {
                b'-' => None,
                tag => Some(self.item_of(tag)?),
            });
        }
        let extra = self.entries(b'$')?;
        if self.varint()? != length {
            return Err("an array whose lengths differ".into());
        }
        Ok(Node::Array { items, extra })
    }

    fn sparse(&mut self) -> Result<Node> {
        let length = self.varint()?;
        let entries = self.entries(b'@')?;
        if self.varint()? != length {
            return Err("an array whose lengths differ".into());
        }
        Ok(Node::Sparse { length, entries })
    }

    /// Reads properties until `end`, and their count.
    fn entries(&mut self, end: u8) -> Result<Vec<Entry>> {
        let mut entries = Vec::new();
        let mut seen = HashSet::new();
        loop {
            let tag = self.tag()?;
            if tag == end {
                break;
            }
            let key = match self.item_of(tag)? {
                Item::Int(number) => match u32::try_from(number) {
                    Ok(index) => Key::Index(index),
                    Err(_) => Key::Name(Text::from(number.to_string().as_str())),
                },
                Item::Double(number) => Key::from(number.to_string().as_str()),
                Item::String(name) => Key::Name(name),
                other => return Err(format!("a property with the key {other:?}")),
            };
            if !seen.insert(key.clone()) {
                return Err(format!("the key {key} twice"));
            }
            let item = self.item()?;
            entries.push(Entry { key, item });
        }
        self.count(entries.len())?;
        Ok(entries)
    }

    fn map(&mut self) -> Result<Node> {
        let mut pairs = Vec::new();
        loop {
            match self.tag()? {
                b':' => break,
                tag => pairs.push((self.item_of(tag)?, self.item()?)),
            }
        }
        self.count(2 * pairs.len())?;
        Ok(Node::Map(pairs))
    }

    fn set(&mut self) -> Result<Node> {
        let mut items = Vec::new();
        loop {
            match self.tag()? {
                b',' => break,
                tag => items.push(self.item_of(tag)?),
            }
        }
        self.count(items.len())?;
        Ok(Node::Set(items))
    }

    fn count(&mut self, expected: usize) -> Result<()> {
        let count = self.varint()? as usize;
        if count == expected { Ok(()) } else { Err("a wrong count".into()) }
    }

    fn error(&mut self) -> Result<Node> {
        let (mut kind, mut message, mut cause, mut stack) = (ErrorKind::Error, None, None, None);
        loop {
            match self.byte()? {
                b'.' => return Ok(Node::Error { kind, message, cause, stack }),
                b'm' => message = Some(self.text()?),
                b'c' => cause = Some(self.item()?),
                b's' => stack = Some(self.text()?),
                letter => match ErrorKind::LETTERS.iter().find(|(other, _)| *other == letter) {
                    Some((_, found)) => kind = *found,
                    None => return Err(format!("unknown tag {letter:#04x} in an error")),
                },
            }
        }
    }

    fn resizable(&mut self) -> Result<Node> {
        let (length, bytes_max) = (self.varint()?, self.varint()?);
        if length > bytes_max {
            return Err("a buffer that is longer than its largest length".into());
        }
        let bytes = self.take(length as usize)?.to_vec();
        Ok(Node::ResizableArrayBuffer { bytes, bytes_max })
    }

    /// Reads the view that follows a buffer, if a view was written.
    fn maybe_view(&mut self, buffer: NodeId) -> Result<Item> {
        if self.bytes.first() != Some(&b'V') {
            return Ok(Item::Object(buffer));
        }
        self.byte()?;
        let letter = self.byte()?;
        let (offset, length) = (self.varint()?, self.varint()?);
        let flags = if self.version >= 14 { self.varint()? } else { 0 };
        let (Node::ArrayBuffer(bytes) | Node::ResizableArrayBuffer { bytes, .. }) =
            self.value.node(buffer)
        else {
            return Err("a view on something else than a buffer".into());
        };
        let end = u64::from(offset) + u64::from(length);
        if !b"bBCwWhdDfFqQ?".contains(&letter) || end > bytes.len() as u64 {
            return Err("a malformed view".into());
        }
        let view = Node::BufferView { buffer, letter, offset, length, flags };
        Ok(Item::Object(self.value.add(view)))
    }

    fn host(&mut self) -> Result<Node> {
        match self.varint()? {
            0 => {
                let kind = self.varint()?;
                let kind = ViewKind::from_number(kind)
                    .ok_or_else(|| format!("typed array of unknown kind {kind}"))?;
                let bytes = self.bytes()?.to_vec();
                if bytes.len() % kind.element_bytes() != 0 {
                    return Err("a typed array that ends inside an element".into());
                }
                Ok(Node::View { kind, bytes })
            }
            1 => Ok(Node::Host(self.item()?)),
            other => Err(format!("host object of unknown kind {other}")),
        }
    }

    fn text(&mut self) -> Result<Text> {
        let tag = self.tag()?;
        self.text_of(tag)
    }

    fn text_of(&mut self, tag: u8) -> Result<Text> {
        let bytes = self.bytes()?;
        Ok(match tag {
            b'"' => Text::from_units(bytes.iter().map(|byte| u16::from(*byte)).collect()),
            b'c' if bytes.len() % 2 == 0 => Text::from_units(
                bytes.chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]])).collect(),
            ),
            b'S' => Text::from(String::from_utf8_lossy(bytes).as_ref()),
            _ => return Err("something else where a string belongs".into()),
        })
    }

    fn big_int(&mut self) -> Result<BigInt> {
        let field = self.varint()?;
        let magnitude = self.take(field as usize / 2)?.to_vec();
        Ok(BigInt { negative: field & 1 == 1, magnitude })
    }

    fn double(&mut self) -> Result<f64> {
        let bytes = self.take(8)?;
        Ok(f64::from_le_bytes(bytes.try_into().expect("eight bytes were taken")))
    }

    fn zigzag(&mut self) -> Result<i32> {
        let number = self.varint()?;
        Ok((number >> 1) as i32 ^ -((number & 1) as i32))
    }

    fn bytes(&mut self) -> Result<&'a [u8]> {
        let length = self.varint()? as usize;
        self.take(length)
    }

    fn varint(&mut self) -> Result<u32> {
        let mut number = 0_u32;
        for shift in (0..35).step_by(7) {
            let byte = self.byte()?;
            if shift == 28 && byte > 0x0f {
                break;
            }
            number |= u32::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err("a number of more than 32 bits".into())
    }

    /// Reads the next tag, behind any padding.
    fn tag(&mut self) -> Result<u8> {
        loop {
            match self.byte()? {
                0 => {}
                tag => return Ok(tag),
            }
        }
    }

    fn byte(&mut self) -> Result<u8> {
        Ok(self.take(1)?[0])
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count).ok_or("the bytes end too early")?;
        self.bytes = rest;
        Ok(taken)
    }
}
