//! The account of the parts of a value that are copied more than once.
//!
//! A reference takes two or three bytes in V8's format, and a Rust value holds a copy of the whole
//! object for each of them. The first visit of an object is free. Each further one is charged with
//! the bytes that the object holds itself, and the objects inside are visited by themselves.
//!
//! Pure. Limit: the length of the payload and
//! [`Options::frame_bytes_max`](crate::Options::frame_bytes_max) together.

use super::value::{Entry, Item, Key, Node, NodeId, Text};
use serde::de;
use std::cell::{Cell, RefCell};

/// The bytes that may still be copied through references, and the objects that were visited.
#[derive(Debug)]
pub(super) struct CopyBudget {
    visited: RefCell<Vec<bool>>,
    left: Cell<usize>,
    max: usize,
}

impl CopyBudget {
    pub(super) fn new(nodes: usize, max: usize) -> CopyBudget {
        CopyBudget { visited: RefCell::new(vec![false; nodes]), left: Cell::new(max), max }
    }

    /// Counts a visit of an object that holds `bytes` bytes itself.
    ///
    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn visit<E: de::Error>(
        &self,
        id: NodeId,
        bytes: impl FnOnce() -> usize,
    ) -> Result<(), E> {
        let was_visited = std::mem::replace(&mut self.visited.borrow_mut()[id.0], true);
        if was_visited { self.charge(bytes()) } else { Ok(()) }
    }

    /// Counts `bytes` bytes of a copy.
    ///
    /// # Errors
    ///
    /// The budget is used up.
    pub(super) fn charge<E: de::Error>(&self, bytes: usize) -> Result<(), E> {
        match self.left.get().checked_sub(bytes) {
            Some(left) => {
                self.left.set(left);
                Ok(())
            }
            None => Err(E::custom(format_args!(
                "references to one object would copy more than {} bytes",
                self.max
            ))),
        }
    }
}

/// Returns the bytes that an object holds itself, with its primitive parts: those of its texts in
/// code units, and at least 1 for each part.
pub(super) fn own_bytes(node: &Node) -> usize {
    let entries = |entries: &[Entry]| entries.iter().map(entry_bytes).sum::<usize>();
    1 + match node {
        Node::Object(list) | Node::Sparse { entries: list, .. } => entries(list),
        Node::Array { items, extra } => {
            items.iter().map(|item| item.as_ref().map_or(1, item_bytes)).sum::<usize>()
                + entries(extra)
        }
        Node::Map(pairs) => {
            pairs.iter().map(|(key, item)| item_bytes(key) + item_bytes(item)).sum()
        }
        Node::Set(items) => items.iter().map(item_bytes).sum(),
        Node::RegExp { source: text, .. } | Node::String(text) => text_bytes(text),
        Node::BigInt(number) => number.magnitude.len(),
        Node::Error { message, stack, cause, .. } => {
            message.iter().chain(stack).map(text_bytes).sum::<usize>()
                + cause.as_ref().map_or(0, item_bytes)
        }
        Node::ArrayBuffer(bytes)
        | Node::ResizableArrayBuffer { bytes, .. }
        | Node::View { bytes, .. } => bytes.len(),
        Node::BufferView { length, .. } => *length as usize,
        Node::Host(item) => item_bytes(item),
        Node::Date(_) | Node::Boolean(_) | Node::Number(_) => 0,
    }
}

fn entry_bytes(entry: &Entry) -> usize {
    let key = match &entry.key {
        Key::Index(_) => 1,
        Key::Name(name) => text_bytes(name),
    };
    key + item_bytes(&entry.item)
}

fn item_bytes(item: &Item) -> usize {
    1 + match item {
        Item::String(text) => text_bytes(text),
        Item::BigInt(number) => number.magnitude.len(),
        Item::Undefined
        | Item::Null
        | Item::Bool(_)
        | Item::Int(_)
        | Item::Double(_)
        | Item::Object(_) => 0,
    }
}

fn text_bytes(text: &Text) -> usize {
    text.units().len()
}

#[cfg(test)]
mod tests;
