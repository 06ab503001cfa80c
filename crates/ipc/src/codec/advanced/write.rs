//! Writing V8's format, version 15, byte for byte as Node 20 does, except for the cause of an
//! error: the cause comes last, where every version from 18 on reads it.
//!
//! Pure.

use super::big_int::BigInt;
use super::value::{Entry, ErrorKind, Item, Key, Node, NodeId, Text, Value};
use std::collections::HashMap;

pub(super) fn write(value: &Value) -> Vec<u8> {
    write_part(value, value.root())
}

/// Writes the part of `value` that `item` refers to, as a value of its own.
pub(super) fn write_part(value: &Value, item: &Item) -> Vec<u8> {
    let mut writer = Writer { value, out: vec![0xff, 0x0f], numbers: HashMap::new(), next: 0 };
    writer.item(item);
    writer.out
}

struct Writer<'a> {
    value: &'a Value,
    out: Vec<u8>,
    /// The number under which each object was written.
    ///
    /// A table of all objects would be made anew for every part of a value, however small.
    numbers: HashMap<NodeId, u32>,
    next: u32,
}

impl Writer<'_> {
    fn item(&mut self, item: &Item) {
        match item {
            Item::Undefined => self.out.push(b'_'),
            Item::Null => self.out.push(b'0'),
            Item::Bool(true) => self.out.push(b'T'),
            Item::Bool(false) => self.out.push(b'F'),
            Item::Int(number) => self.int(*number),
            Item::Double(number) => self.tagged_double(b'N', *number),
            Item::BigInt(number) => {
                self.out.push(b'Z');
                self.big_int(number);
            }
            Item::String(text) => self.text(text),
            Item::Object(id) => self.object(*id),
        }
    }

    fn object(&mut self, id: NodeId) {
        if let Some(&number) = self.numbers.get(&id) {
            self.out.push(b'^');
            self.varint(number);
            return;
        }
        let value = self.value;
        let node = value.node(id);
        if let Node::BufferView { buffer, letter, offset, length, flags } = node {
            let is_buffer = matches!(
                value.node(*buffer),
                Node::ArrayBuffer(_) | Node::ResizableArrayBuffer { .. }
            );
            if !is_buffer {
                self.out.push(b'_');
                return;
            }
            self.object(*buffer);
            self.number(id);
            self.out.extend_from_slice(b"V");
            self.out.push(*letter);
            self.varint(*offset);
            self.varint(*length);
            self.varint(*flags);
            return;
        }
        self.number(id);
        self.node(node);
    }

    fn number(&mut self, id: NodeId) {
        self.numbers.insert(id, self.next);
        self.next += 1;
    }

    fn node(&mut self, node: &Node) {
        match node {
            Node::Object(entries) => {
                self.out.push(b'o');
                self.entries(entries);
                self.end(b'{', entries.len());
            }
            Node::Array { items, extra } => self.array(items, extra),
            Node::Sparse { length, entries } => {
                self.out.push(b'a');
                self.varint(*length);
                self.entries(entries);
                self.end(b'@', entries.len());
                self.varint(*length);
            }
            Node::Date(time) => self.tagged_double(b'D', *time),
            Node::RegExp { source, flags } => {
                self.out.push(b'R');
                self.text(source);
                self.varint(*flags);
            }
            Node::Map(pairs) => {
                self.out.push(b';');
                for (key, item) in pairs {
                    self.item(key);
                    self.item(item);
                }
                self.end(b':', 2 * pairs.len());
            }
            Node::Set(items) => {
                self.out.push(b'\'');
                items.iter().for_each(|item| self.item(item));
                self.end(b',', items.len());
            }
            Node::Boolean(true) => self.out.push(b'y'),
            Node::Boolean(false) => self.out.push(b'x'),
            Node::Number(number) => self.tagged_double(b'n', *number),
            Node::BigInt(number) => {
                self.out.push(b'z');
                self.big_int(number);
            }
            Node::String(text) => {
                self.out.push(b's');
                self.text(text);
            }
            Node::Error { kind, message, cause, stack } => {
                self.error(*kind, message.as_ref(), cause.as_ref(), stack.as_ref());
            }
            Node::ArrayBuffer(bytes) => {
                self.out.push(b'B');
                self.bytes(bytes);
            }
            Node::ResizableArrayBuffer { bytes, bytes_max } => {
                self.out.push(b'~');
                self.length(bytes.len());
                self.varint(*bytes_max);
                self.out.extend_from_slice(bytes);
            }
            Node::View { kind, bytes } => {
                self.out.extend_from_slice(&[b'\\', 0, *kind as u8]);
                self.bytes(bytes);
            }
            Node::Host(item) => {
                self.out.extend_from_slice(&[b'\\', 1]);
                self.item(item);
            }
            Node::BufferView { .. } => unreachable!("`object` writes these"),
        }
    }

    fn array(&mut self, items: &[Option<Item>], extra: &[Entry]) {
        self.out.push(b'A');
        self.length(items.len());
        for item in items {
            match item {
                Some(item) => self.item(item),
                None => self.out.push(b'-'),
            }
        }
        self.entries(extra);
        self.end(b'$', extra.len());
        self.length(items.len());
    }

    fn error(
        &mut self,
        kind: ErrorKind,
        message: Option<&Text>,
        cause: Option<&Item>,
        stack: Option<&Text>,
    ) {
        self.out.push(b'r');
        let letter = ErrorKind::LETTERS.iter().find(|(_, other)| *other == kind);
        self.out.extend(letter.map(|(letter, _)| *letter));
        if let Some(message) = message {
            self.out.push(b'm');
            self.text(message);
        }
        if let Some(stack) = stack {
            self.out.push(b's');
            self.text(stack);
        }
        if let Some(cause) = cause {
            self.out.push(b'c');
            self.item(cause);
        }
        self.out.push(b'.');
    }

    fn entries(&mut self, entries: &[Entry]) {
        for Entry { key, item } in entries {
            match key {
                Key::Index(index) => match i32::try_from(*index) {
                    Ok(small) => self.int(small),
                    Err(_) => self.tagged_double(b'N', f64::from(*index)),
                },
                Key::Name(name) => self.text(name),
            }
            self.item(item);
        }
    }

    fn end(&mut self, tag: u8, count: usize) {
        self.out.push(tag);
        self.length(count);
    }

    fn int(&mut self, number: i32) {
        self.out.push(b'I');
        self.varint(((number << 1) ^ (number >> 31)) as u32);
    }

    fn tagged_double(&mut self, tag: u8, number: f64) {
        self.out.push(tag);
        // V8 knows only one NaN.
        let number = if number.is_nan() { f64::from_bits(0x7ff8 << 48) } else { number };
        self.out.extend_from_slice(&number.to_le_bytes());
    }

    fn big_int(&mut self, number: &BigInt) {
        // BigInt has no negative zero.
        let negative = number.negative && !number.magnitude.is_empty();
        self.length(2 * number.magnitude.len() + usize::from(negative));
        self.out.extend_from_slice(&number.magnitude);
    }

    fn text(&mut self, text: &Text) {
        let units = text.units();
        if units.iter().all(|unit| *unit <= 0xff) {
            self.out.push(b'"');
            self.length(units.len());
            self.out.extend(units.iter().map(|unit| *unit as u8));
            return;
        }
        let length = 2 * units.len();
        // The code units are aligned, by a padding byte before the tag.
        if (self.out.len() + 1 + varint_bytes(length)) % 2 == 1 {
            self.out.push(0);
        }
        self.out.push(b'c');
        self.length(length);
        self.out.extend(units.iter().flat_map(|unit| unit.to_le_bytes()));
    }

    fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.out.extend_from_slice(bytes);
    }

    fn length(&mut self, length: usize) {
        self.varint(u32::try_from(length).unwrap_or(u32::MAX));
    }

    fn varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.out.push(number as u8 | 0x80);
            number >>= 7;
        }
        self.out.push(number as u8);
    }
}

fn varint_bytes(mut number: usize) -> usize {
    let mut count = 1;
    while number >= 0x80 {
        number >>= 7;
        count += 1;
    }
    count
}
