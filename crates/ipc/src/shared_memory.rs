//! Shared memory: large payloads that are handed over, not copied.

use crate::handle::Handle;
use crate::side_table::SideTable;
use serde::de::{self, Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};
use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, LazyLock};
use sys::memory::{self as memory, Draft, Mapping};

/// The name under which the codecs recognise shared memory.
pub(crate) const MARKER: &str = "\u{0}brood::SharedMemory";

/// Received descriptors, checked and mapped, on their way from the deserializer to
/// [`SharedMemory`].
pub(crate) static INCOMING: LazyLock<SideTable<(OwnedFd, Mapping)>> = SideTable::lazy();

/// Memory that several processes can read and none can change.
///
/// Sending costs the same for every size, because only a handle travels. The memory is sealed
/// before it is sent and checked when it arrives, so a hostile peer can neither change nor shrink
/// it under its reader. Memory that is not sealed, or larger than
/// [`Options::mapped_bytes_max`](crate::Options::mapped_bytes_max), is refused.
///
/// ```
/// use brood_ipc::SharedMemory;
///
/// let (a, b) = brood_ipc::channel::<SharedMemory, ()>()?;
/// let memory = SharedMemory::with(16 << 20, |bytes| bytes[0] = 7)?;
/// a.send(&memory.try_clone()?)?;
/// assert_eq!(b.recv()?[0], 7);
/// assert_eq!(memory.len(), 16 << 20);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct SharedMemory {
    file: Handle<OwnedFd>,
    mapping: Arc<Mapping>,
}

impl SharedMemory {
    /// Makes `length` zero bytes, calls `fill` to write them, and seals them.
    ///
    /// # Errors
    ///
    /// `EMFILE` when no descriptor number is left; `ENOMEM` when there is not enough memory.
    pub fn with(length: usize, fill: impl FnOnce(&mut [u8])) -> io::Result<SharedMemory> {
        let mut draft = Draft::new("brood", length)?;
        fill(draft.bytes_mut());
        SharedMemory::new(draft.seal()?)
    }

    /// Makes a sealed copy of `bytes`.
    ///
    /// # Errors
    ///
    /// As [`with`](SharedMemory::with).
    pub fn copy_from(bytes: &[u8]) -> io::Result<SharedMemory> {
        SharedMemory::with(bytes.len(), |memory| memory.copy_from_slice(bytes))
    }

    fn new(file: OwnedFd) -> io::Result<SharedMemory> {
        // The memory was made and sealed here, so no limit applies.
        let mapping = Arc::new(Mapping::new(file.as_fd(), usize::MAX)?);
        Ok(SharedMemory { file: Handle::new(file), mapping })
    }

    /// Duplicates the memory, to send one and keep the other.
    ///
    /// # Errors
    ///
    /// `EBADF` when the memory was sent; `EMFILE` when no descriptor number is left.
    pub fn try_clone(&self) -> io::Result<SharedMemory> {
        Ok(SharedMemory { file: self.file.try_clone()?, mapping: Arc::clone(&self.mapping) })
    }
}

impl Deref for SharedMemory {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.mapping
    }
}

impl AsRef<[u8]> for SharedMemory {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

/// Maps received memory, unless it is unsealed or too large.
pub(crate) fn map(file: BorrowedFd<'_>, bytes_max: usize) -> Result<Mapping, String> {
    Mapping::new(file, bytes_max).map_err(|error| match error.raw_os_error() {
        Some(sys::errno::EPERM) => "shared memory that is not sealed".into(),
        Some(sys::errno::EFBIG) => {
            let size = memory::size(file).unwrap_or_default();
            format!("shared memory of {size} bytes, over {bytes_max}")
        }
        Some(sys::errno::EINVAL) => "a handle that is no shared memory".into(),
        _ => format!("shared memory cannot be mapped: {error}"),
    })
}

impl Serialize for SharedMemory {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(MARKER, &self.file)
    }
}

impl<'de> Deserialize<'de> for SharedMemory {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<SharedMemory, D::Error> {
        deserializer.deserialize_newtype_struct(MARKER, MemoryVisitor)
    }
}

struct MemoryVisitor;

impl<'de> Visitor<'de> for MemoryVisitor {
    type Value = SharedMemory;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("shared memory out of an ipc channel")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(
        self,
        inner: D,
    ) -> Result<SharedMemory, D::Error> {
        let number = u64::deserialize(inner)?;
        let (file, mapping) = INCOMING.remove(number).ok_or_else(|| {
            de::Error::custom("shared memory can only be received through an ipc channel")
        })?;
        Ok(SharedMemory { file: Handle::new(file), mapping: Arc::new(mapping) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Error, Options};

    fn refusal(file: OwnedFd, options: &Options) -> String {
        let (a, b) = crate::channel_with::<Handle<OwnedFd>, ()>(options).unwrap();
        a.send(&Handle::new(file)).unwrap();
        drop(a);
        let parts = b.into_handle().unwrap().into_env(3).unwrap().0;
        let b = crate::Channel::<(), SharedMemory>::from_fd(parts, options.clone()).unwrap();
        match b.recv() {
            Err(Error::Decode(why)) => why,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn memory_that_could_change_under_its_reader_is_refused() {
        let options = Options::new();
        let unsealed = memory::create("open", 4096).unwrap();
        assert!(refusal(unsealed, &options).contains("not sealed"));
        let (socket, _b) = sys::socket::pair_stream().unwrap();
        assert!(refusal(socket, &options).contains("no shared memory"));
    }

    #[test]
    fn other_formats_neither_forge_nor_carry_shared_memory() {
        let memory = SharedMemory::copy_from(b"x").unwrap();
        assert!(serde_json::to_string(&memory).is_err());
        let forged = serde_json::from_str::<SharedMemory>("1").unwrap_err();
        assert!(forged.to_string().contains("only be received through an ipc channel"));
        assert_eq!(&*memory.try_clone().unwrap(), b"x", "it was not sent");
    }

    #[test]
    fn memory_over_the_limit_is_refused_before_it_is_mapped() {
        let options = Options::new().mapped_bytes_max(4096);
        let large = Draft::new("large", 4097).unwrap().seal().unwrap();
        assert!(refusal(large, &options).contains("4097 bytes, over 4096"));
    }
}
