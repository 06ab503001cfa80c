//! Checks before a value is written: whether it can be written at all, and whether V8 could read
//! the result. A Node process ends when V8 cannot read a value.
//!
//! Pure.

use super::features::Features;
use super::pattern;
use super::value::{Entry, Item, Key, Node, NodeId, Text, Value, ViewKind};
use crate::codec::NESTING_MAX;
use std::collections::HashSet;
use std::sync::atomic::AtomicBool;

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
    Validator::new(value, Purpose::Write).item(value.root(), 0)
}

/// Checks that the V8 of a peer can read the value.
///
/// # Errors
///
/// A description of the part that V8 would refuse.
pub(crate) fn readable_by_v8(value: &Value, features: &Features) -> Result<(), String> {
    Validator::new(value, Purpose::Send(features)).item(value.root(), 0)
}

/// Learns the features of a value that the V8 of a peer has written.
pub(super) fn learn(value: &Value, features: &Features) {
    // A value in which V8 itself could not read a part teaches the parts before that one.
    let _ = Validator::new(value, Purpose::Learn(features)).item(value.root(), 0);
}

/// The use of a value, which decides over the parts that only newer versions of V8 know.
#[derive(Clone, Copy)]
enum Purpose<'a> {
    /// The value is written for any reader.
    Write,
    /// The value is for a peer that is known to read these features.
    Send(&'a Features),
    /// The value is from a peer.
    Learn(&'a Features),
}

struct Validator<'a> {
    value: &'a Value,
    seen: HashSet<NodeId>,
    /// The enclosing objects that V8 creates only after it has read their content.
    unfinished: Vec<NodeId>,
    purpose: Purpose<'a>,
}

impl<'a> Validator<'a> {
    fn new(value: &'a Value, purpose: Purpose<'a>) -> Self {
        Self { value, seen: HashSet::new(), unfinished: Vec::new(), purpose }
    }

    /// Returns whether V8 reads the value.
    fn for_v8(&self) -> bool {
        !matches!(self.purpose, Purpose::Write)
    }

    /// Checks a part that only newer versions of V8 know.
    fn newer(&self, feature: fn(&Features) -> &AtomicBool, name: &str) -> Result<(), String> {
        match self.purpose {
            Purpose::Send(known) if !Features::knows(feature(known)) => {
                Err(format!("{name}, which the peer has not sent itself and may not know"))
            }
            Purpose::Learn(known) => {
                Features::learn(feature(known));
                Ok(())
            }
            Purpose::Write | Purpose::Send(_) => Ok(()),
        }
    }

    fn regexp(&self, source: &Text, flags: u32) -> Result<(), String> {
        let known_everywhere = regexp(source, flags);
        match self.purpose {
            Purpose::Send(known) if known.knows_pattern(source, flags) => Ok(()),
            Purpose::Send(_) => known_everywhere,
            Purpose::Learn(known) if known_everywhere.is_err() => {
                known.learn_pattern(source, flags);
                Ok(())
            }
            Purpose::Write | Purpose::Learn(_) => Ok(()),
        }
    }

    /// Checks a reference to an object that is written already.
    fn again(&self, id: NodeId) -> Result<(), String> {
        if !self.for_v8() || !self.unfinished.contains(&id) {
            return Ok(());
        }
        let what = "an object that contains itself before V8 has created it";
        match self.value.node(id) {
            Node::Error { .. } => self.newer(|known| &known.error_in_itself, what),
            _ => Err(what.into()),
        }
    }

    fn item(&mut self, item: &'a Item, depth: usize) -> Result<(), String> {
        let &Item::Object(id) = item else { return Ok(()) };
        if !self.seen.insert(id) {
            return self.again(id);
        }
        if depth >= NESTING_MAX {
            return Err(format!("nested deeper than {NESTING_MAX} levels"));
        }
        match self.value.node(id) {
            Node::Object(entries) => self.entries(entries, depth),
            Node::Array { items, extra } => {
                if self.for_v8() {
                    elements(items, extra)?;
                }
                let mut items = items.iter().flatten();
                items.try_for_each(|item| self.item(item, depth + 1))?;
                self.entries(extra, depth)
            }
            Node::Sparse { entries, .. } => {
                if self.for_v8() {
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
                _ if self.for_v8() => Err("a native object without content".into()),
                _ => Ok(()),
            },
            Node::RegExp { source, flags } => self.regexp(source, *flags),
            Node::ResizableArrayBuffer { bytes, bytes_max } => {
                if bytes.len() > *bytes_max as usize {
                    return Err("a buffer that is longer than its largest length".into());
                }
                self.newer(|known| &known.resizable, "a resizable buffer")
            }
            Node::View { kind, bytes } if bytes.len() % kind.element_bytes() != 0 => {
                Err("a typed array that ends inside an element".into())
            }
            Node::View { kind: ViewKind::Float16, .. } => {
                self.newer(|known| &known.float16, "a Float16Array")
            }
            Node::BufferView { buffer, letter, offset, length, flags } => {
                if *flags != 0 && self.for_v8() {
                    return Err("a view with flags, on a buffer of fixed length".into());
                }
                self.view(*buffer, *letter, *offset, *length)
            }
            Node::Date(_)
            | Node::Boolean(_)
            | Node::Number(_)
            | Node::BigInt(_)
            | Node::String(_)
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
        let bytes = match self.value.node(buffer) {
            Node::ArrayBuffer(bytes) => bytes,
            Node::ResizableArrayBuffer { bytes, .. } if !self.for_v8() => bytes,
            Node::ResizableArrayBuffer { .. } => {
                return Err("a view on a resizable buffer".into());
            }
            _ => return Err("a view on something else than a buffer".into()),
        };
        let element: u32 = match letter {
            b'b' | b'B' | b'C' | b'?' => 1,
            b'w' | b'W' | b'h' => 2,
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
