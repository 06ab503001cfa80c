//! The bytes of a blob, as the codec returns them.

use serde::de::{SeqAccess, Visitor};
use std::fmt;

pub(super) enum Bulk<'de> {
    Borrowed(&'de [u8]),
    Owned(Vec<u8>),
}

impl Bulk<'_> {
    pub(super) fn len(&self) -> usize {
        match self {
            Bulk::Borrowed(bytes) => bytes.len(),
            Bulk::Owned(bytes) => bytes.len(),
        }
    }
}

/// Takes bytes as they come.
pub(super) struct Raw;

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
