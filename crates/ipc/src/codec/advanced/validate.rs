//! Checks before a value is written: whether it can be written at all, and whether V8 could read
//! the result. A Node process ends when V8 cannot read a value.
//!
//! Pure.

use super::pattern;
use super::value::{Entry, Item, Key, Node, NodeId, Text, Value};
use crate::codec::NESTING_MAX;
use std::collections::HashSet;

/// The flags of a regular expression that every V8 from version 10 on knows: g i m y u s d.
const REGEXP_FLAGS: u32 = 1 | 2 | 4 | 8 | 16 | 32 | 128;

/// The flag `u`.
const UNICODE: u32 = 16;

/// Checks that everything that the value refers to can be written.
///
/// # Errors
///
/// A description of the part that cannot be written.
pub(super) fn writable(value: &Value) -> Result<(), String> {
    Validator { value, seen: HashSet::new(), unfinished: Vec::new(), for_v8: false }
        .item(value.root(), 0)
}

/// Checks that V8 can read the value.
///
/// # Errors
///
/// A description of the part that V8 would refuse.
pub(crate) fn readable_by_v8(value: &Value) -> Result<(), String> {
    Validator { value, seen: HashSet::new(), unfinished: Vec::new(), for_v8: true }
        .item(value.root(), 0)
}

struct Validator<'a> {
    value: &'a Value,
    seen: HashSet<NodeId>,
    /// The enclosing objects that V8 creates only after it has read their content.
    unfinished: Vec<NodeId>,
    for_v8: bool,
}

impl<'a> Validator<'a> {
    fn item(&mut self, item: &'a Item, depth: usize) -> Result<(), String> {
        let &Item::Object(id) = item else { return Ok(()) };
        if !self.seen.insert(id) {
            let inside_itself = self.for_v8 && self.unfinished.contains(&id);
            return if inside_itself {
                Err("an object that contains itself before V8 has created it".into())
            } else {
                Ok(())
            };
        }
        if depth >= NESTING_MAX {
            return Err(format!("nested deeper than {NESTING_MAX} levels"));
        }
        match self.value.node(id) {
            Node::Object(entries) => self.entries(entries, depth),
            Node::Array { items, extra } => {
                if self.for_v8 {
                    elements(items, extra)?;
                }
                let mut items = items.iter().flatten();
                items.try_for_each(|item| self.item(item, depth + 1))?;
                self.entries(extra, depth)
            }
            Node::Sparse { entries, .. } => {
                if self.for_v8 {
                    elements(&[], entries)?;
                }
                self.entries(entries, depth)
            }
            Node::Map(pairs) => pairs.iter().try_for_each(|(key, item)| {
                self.item(key, depth + 1)?;
                self.item(item, depth + 1)
            }),
            Node::Set(items) => items.iter().try_for_each(|item| self.item(item, depth + 1)),
            Node::Error { cause, .. } => {
                cause.iter().try_for_each(|cause| self.inside(id, cause, depth))
            }
            Node::Host(item) => match item {
                Item::Object(_) => self.inside(id, item, depth),
                _ if self.for_v8 => Err("a native object without content".into()),
                _ => Ok(()),
            },
            Node::RegExp { source, flags } if self.for_v8 => regexp(source, *flags),
            Node::View { kind, bytes } if bytes.len() % kind.element_bytes() != 0 => {
                Err("a typed array that ends inside an element".into())
            }
            Node::BufferView { buffer, letter, offset, length, flags } => {
                if *flags != 0 && self.for_v8 {
                    return Err("a view with flags, on a buffer of fixed length".into());
                }
                self.view(*buffer, *letter, *offset, *length)
            }
            Node::Date(_)
            | Node::Boolean(_)
            | Node::Number(_)
            | Node::BigInt(_)
            | Node::String(_)
            | Node::RegExp { .. }
            | Node::ArrayBuffer(_)
            | Node::View { .. } => Ok(()),
        }
    }

    fn inside(&mut self, id: NodeId, item: &'a Item, depth: usize) -> Result<(), String> {
        self.unfinished.push(id);
        self.item(item, depth + 1)?;
        self.unfinished.pop();
        Ok(())
    }

    fn entries(&mut self, entries: &'a [Entry], depth: usize) -> Result<(), String> {
        let mut keys = HashSet::with_capacity(entries.len());
        for Entry { key, item } in entries {
            // An index may have been written as a name.
            let name = key.to_string();
            if !keys.insert(name) {
                return Err(format!("the key {key} twice"));
            }
            self.item(item, depth + 1)?;
        }
        Ok(())
    }

    fn view(&self, buffer: NodeId, letter: u8, offset: u32, length: u32) -> Result<(), String> {
        let Node::ArrayBuffer(bytes) = self.value.node(buffer) else {
            return Err("a view on something else than a buffer".into());
        };
        let element: u32 = match letter {
            b'b' | b'B' | b'C' | b'?' => 1,
            b'w' | b'W' => 2,
            b'd' | b'D' | b'f' => 4,
            b'F' | b'q' | b'Q' => 8,
            _ => return Err("a view of an unknown kind".into()),
        };
        let end = u64::from(offset) + u64::from(length);
        if end > bytes.len() as u64 || offset % element != 0 || length % element != 0 {
            return Err("a malformed view".into());
        }
        Ok(())
    }
}

/// Refuses a further property that the array already has as an element, or as `length`.
fn elements(items: &[Option<Item>], extra: &[Entry]) -> Result<(), String> {
    let has = |key: &Key| match key {
        Key::Index(index) => items.get(*index as usize).is_some_and(Option::is_some),
        Key::Name(name) => match name.to_str().as_deref().map(Key::from) {
            Some(Key::Index(index)) => items.get(index as usize).is_some_and(Option::is_some),
            _ => *name == Text::from("length"),
        },
    };
    match extra.iter().find(|entry| has(&entry.key)) {
        Some(Entry { key, .. }) => Err(format!("an array with a further property {key}")),
        None => Ok(()),
    }
}

/// Checks an expression, which V8 compiles when it reads one.
///
/// The check refuses some expressions that V8 would accept, and accepts none that V8 would refuse.
fn regexp(source: &Text, flags: u32) -> Result<(), String> {
    if flags & !REGEXP_FLAGS != 0 {
        return Err(format!("a regular expression with the flags {flags:#x}"));
    }
    let units = source.units();
    let plain = |unit: &u16| {
        u8::try_from(*unit)
            .is_ok_and(|byte| byte.is_ascii_alphanumeric() || b" _-.,".contains(&byte))
            || *unit > 0x7f
    };
    if units.iter().all(plain) || pattern::is_valid(units, flags & UNICODE != 0) {
        return Ok(());
    }
    Err(format!("the regular expression /{source}/, which may be invalid"))
}

#[cfg(test)]
mod tests;
