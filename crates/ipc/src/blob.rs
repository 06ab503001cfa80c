//! Bytes inside a message that are not copied more than needed.

use bytes::Bytes;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::ops::Deref;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The name under which the codecs recognise a blob.
pub(crate) const MARKER: &str = "\u{0}brood::Blob";

/// The length from which a blob is kept apart; shorter ones are cheaper to copy, in bytes.
pub(crate) const PIECE_BYTES_MIN: usize = 16 * 1024;

/// The owners of bytes during one call of `serialize` or `deserialize`.
pub(crate) static SHARED_BYTES: SharedBytes = SharedBytes(Mutex::new(Vec::new()));

/// Finds the owner of a slice, because serde passes on only the slice.
///
/// The owner that is found has the address and length of the slice, and so the same bytes. A
/// mistake here could cost a copy, but never yield wrong bytes.
pub(crate) struct SharedBytes(Mutex<Vec<Bytes>>);

impl SharedBytes {
    pub(crate) fn insert(&self, bytes: &Bytes) {
        self.lock().push(bytes.clone());
    }

    pub(crate) fn remove(&self, bytes: &[u8]) -> Option<Bytes> {
        let mut all = self.lock();
        let at = all.iter().position(|shared| is_same(shared, bytes))?;
        Some(all.swap_remove(at))
    }

    pub(crate) fn find(&self, bytes: &[u8]) -> Option<Bytes> {
        self.lock().iter().find(|shared| is_same(shared, bytes)).cloned()
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Bytes>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn is_same(shared: &Bytes, bytes: &[u8]) -> bool {
    shared.as_ptr() == bytes.as_ptr() && shared.len() == bytes.len()
}

/// A payload of bytes inside a message, which is not copied more than needed.
///
/// serde treats a `Vec<u8>` as a list of numbers and copies them one at a time. A blob of at least
/// 16 KiB is copied neither by the sender nor by the receiver when the codec is bincode. Every
/// other serde format sees plain bytes.
///
/// ```
/// use brood_ipc::Blob;
///
/// let (a, b) = brood_ipc::channel::<(u32, Blob), ()>()?;
/// a.send(&(7, Blob::from(vec![1; 100_000])))?;
/// assert_eq!(b.recv()?.1.len(), 100_000);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Blob(Bytes);

impl Blob {
    /// Returns the bytes, shared.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }

    /// Returns the bytes, copied only if another owner shares them.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.0.into()
    }
}

impl Deref for Blob {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Blob {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Blob {
    fn from(bytes: Vec<u8>) -> Blob {
        Blob(bytes.into())
    }
}

impl From<Bytes> for Blob {
    fn from(bytes: Bytes) -> Blob {
        Blob(bytes)
    }
}

impl From<&[u8]> for Blob {
    fn from(bytes: &[u8]) -> Blob {
        Blob(Bytes::copy_from_slice(bytes))
    }
}

impl fmt::Debug for Blob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Blob({} bytes)", self.len())
    }
}

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.len() < PIECE_BYTES_MIN {
            return serializer.serialize_bytes(&self.0);
        }
        // serde passes on only the slice, and the serializer finds its owner in the table.
        SHARED_BYTES.insert(&self.0);
        let result = serializer.serialize_newtype_struct(MARKER, &PlainBytes(&self.0));
        SHARED_BYTES.remove(&self.0);
        result
    }
}

struct PlainBytes<'a>(&'a [u8]);

impl Serialize for PlainBytes<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(self.0)
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Blob, D::Error> {
        deserializer.deserialize_newtype_struct(MARKER, BlobVisitor)
    }
}

struct BlobVisitor;

impl<'de> Visitor<'de> for BlobVisitor {
    type Value = Blob;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, inner: D) -> Result<Blob, D::Error> {
        inner.deserialize_byte_buf(self)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Blob, E> {
        Ok(Blob(SHARED_BYTES.remove(bytes).unwrap_or_else(|| Bytes::copy_from_slice(bytes))))
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Blob, E> {
        Ok(Blob(bytes.into()))
    }

    fn visit_seq<A: de::SeqAccess<'de>>(self, mut elements: A) -> Result<Blob, A::Error> {
        let mut bytes = Vec::with_capacity(elements.size_hint().unwrap_or(0).min(4096));
        while let Some(byte) = elements.next_element()? {
            bytes.push(byte);
        }
        Ok(Blob(bytes.into()))
    }
}
