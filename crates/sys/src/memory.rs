//! Shared memory: memfd, seals, mappings.
//!
//! A sealed memory file can neither shrink, grow nor change, so mapping it is sound even with a
//! hostile peer: there is no `SIGBUS` and no data race. [`Mapping`] maps sealed files only.

use std::ffi::CString;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use crate::fd::{above_standard, cvt};

/// The seals that make contents and size final, and the set of seals as well.
const SEALS: libc::c_int =
    libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE | libc::F_SEAL_SEAL;

/// Makes a memory file of `length` zero bytes, sealable and close-on-exec.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left; `InvalidInput` when `name` contains a NUL.
pub fn create(name: &str, length: u64) -> io::Result<OwnedFd> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING;
    // SAFETY: the name is a C string that lives through the call.
    let number = cvt(unsafe { libc::memfd_create(name.as_ptr(), flags) })?;
    // SAFETY: the kernel just returned this descriptor, so it is open and nothing else owns it.
    let file = above_standard(unsafe { OwnedFd::from_raw_fd(number) });
    let length = libc::off_t::try_from(length).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the call takes integers and touches no memory of ours.
    cvt(unsafe { libc::ftruncate(file.as_raw_fd(), length) })?;
    Ok(file)
}

/// Makes contents and size of a memory file final, for every process and permanently.
///
/// # Errors
///
/// `EBUSY` while a writable mapping exists; `EPERM` when sealing was already forbidden.
pub fn seal(file: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory of ours.
    cvt(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, SEALS) })?;
    Ok(())
}

/// Returns whether size and contents of `file` are final.
///
/// # Errors
///
/// `EINVAL` when `file` is not a memory file.
pub fn is_sealed(file: BorrowedFd<'_>) -> io::Result<bool> {
    let final_size_and_bytes = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_WRITE;
    // SAFETY: the call takes integers and touches no memory of ours.
    let seals = cvt(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) })?;
    Ok(seals & final_size_and_bytes == final_size_and_bytes)
}

/// Returns the size of the file, in bytes.
///
/// # Errors
///
/// As `fstat(2)`.
pub fn size(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(u64::try_from(nix::sys::stat::fstat(file)?.st_size).unwrap_or(0))
}

/// A mapped range of addresses. Unmapped on drop.
#[derive(Debug)]
struct Region {
    /// `None` for an empty range: the kernel maps no zero bytes.
    start: Option<NonNull<u8>>,
    length: usize,
}

// SAFETY: a region is memory like any other, used through the owner's borrows only.
unsafe impl Send for Region {}
// SAFETY: as above; `&Region` gives no way to write.
unsafe impl Sync for Region {}

impl Region {
    fn new(file: BorrowedFd<'_>, length: usize, access: libc::c_int) -> io::Result<Self> {
        if length == 0 {
            return Ok(Self { start: None, length });
        }
        let fd = file.as_raw_fd();
        // SAFETY: a new mapping at an address the kernel chooses replaces none of ours.
        let start =
            unsafe { libc::mmap(std::ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
        if start == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { start: NonNull::new(start.cast()), length })
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if let Some(start) = self.start {
            // SAFETY: the two values came from one successful `mmap`, and nothing borrows them.
            let done = unsafe { libc::munmap(start.as_ptr().cast(), self.length) };
            debug_assert_eq!(done, 0);
        }
    }
}

/// A sealed memory file, mapped for reading. Unmapped on drop.
#[derive(Debug)]
pub struct Mapping(Region);

impl Mapping {
    /// Maps a sealed memory file for reading.
    ///
    /// # Errors
    ///
    /// `EINVAL` when `file` is not a memory file, `EPERM` when its size or contents may still
    /// change, `EFBIG` when it is larger than `length_max`, `ENOMEM` when there is no address
    /// space for it.
    pub fn new(file: BorrowedFd<'_>, length_max: usize) -> io::Result<Self> {
        if !is_sealed(file)? {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        match usize::try_from(size(file)?) {
            Ok(length) if length <= length_max => {
                Ok(Self(Region::new(file, length, libc::PROT_READ)?))
            }
            _ => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        }
    }
}

impl Deref for Mapping {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self.0.start {
            None => &[],
            // SAFETY: the region is `length` bytes long, lives as long as `self`, and the seals of
            // the file forbid every change of contents and size.
            Some(start) => unsafe { slice::from_raw_parts(start.as_ptr(), self.0.length) },
        }
    }
}

/// A memory file under construction, mapped for writing by its only owner.
#[derive(Debug)]
pub struct Draft {
    file: OwnedFd,
    region: Region,
}

impl Draft {
    /// Makes a memory file of `length` zero bytes and maps it for writing.
    ///
    /// # Errors
    ///
    /// As [`create`]; `ENOMEM` when there is no address space for it.
    pub fn new(name: &str, length: usize) -> io::Result<Self> {
        let file = create(name, length as u64)?;
        let region = Region::new(file.as_fd(), length, libc::PROT_READ | libc::PROT_WRITE)?;
        Ok(Self { file, region })
    }

    /// Unmaps and seals the file, and returns it.
    ///
    /// # Errors
    ///
    /// As [`seal`].
    pub fn seal(self) -> io::Result<OwnedFd> {
        drop(self.region);
        seal(self.file.as_fd())?;
        Ok(self.file)
    }

    /// Returns the contents.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        match self.region.start {
            None => &mut [],
            // SAFETY: the region is `length` bytes long and lives as long as `self`; the file has
            // not left this value, so nobody else maps or changes it.
            Some(start) => unsafe { slice::from_raw_parts_mut(start.as_ptr(), self.region.length) },
        }
    }
}

/// A page of counters that two processes map and change atomically.
///
/// The size is sealed, so no peer can take the memory away. The peer can write any value. Unmapped
/// on drop.
#[derive(Debug)]
pub struct Counters(Region);

impl Counters {
    /// The number of counters in a page.
    pub const COUNT: usize = 8;
    const BYTES: usize = Self::COUNT * size_of::<AtomicU64>();

    /// Makes a memory file of counters, all 0, with a final size.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left.
    pub fn create(name: &str) -> io::Result<OwnedFd> {
        let file = create(name, Self::BYTES as u64)?;
        let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW | libc::F_SEAL_SEAL;
        // SAFETY: the call takes integers and touches no memory of ours.
        cvt(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_ADD_SEALS, seals) })?;
        Ok(file)
    }

    /// Maps a file that [`create`](Self::create) has made.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the file is no page of counters, `EPERM` when its size may still change,
    /// `ENOMEM` when there is no address space for it.
    pub fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        // SAFETY: the call takes integers and touches no memory of ours.
        let seals = cvt(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GET_SEALS) })?;
        if seals & libc::F_SEAL_SHRINK == 0 {
            return Err(io::Error::from_raw_os_error(libc::EPERM));
        }
        if size(file)? != Self::BYTES as u64 {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        Ok(Self(Region::new(file, Self::BYTES, libc::PROT_READ | libc::PROT_WRITE)?))
    }

    /// Returns the value of a counter.
    #[must_use]
    pub fn load(&self, counter: usize) -> u64 {
        self.at(counter).load(Ordering::SeqCst)
    }

    /// Adds to a counter.
    pub fn add(&self, counter: usize, number: u64) {
        self.at(counter).fetch_add(number, Ordering::SeqCst);
    }

    /// Sets a counter and returns its previous value.
    pub fn swap(&self, counter: usize, number: u64) -> u64 {
        self.at(counter).swap(number, Ordering::SeqCst)
    }

    /// Sets a counter that has the value `from`. Returns whether it had.
    #[must_use]
    pub fn compare_exchange(&self, counter: usize, from: u64, to: u64) -> bool {
        let place = self.at(counter);
        place.compare_exchange(from, to, Ordering::SeqCst, Ordering::SeqCst).is_ok()
    }

    fn at(&self, counter: usize) -> &AtomicU64 {
        assert!(counter < Self::COUNT, "a page has {} counters", Self::COUNT);
        let start = self.0.start.expect("a page of counters is not empty").cast::<AtomicU64>();
        // SAFETY: `counter` is below `COUNT`, the number of counters that the region has room for.
        let place = unsafe { start.add(counter) };
        // SAFETY: the region is mapped readable and writable as long as `self` lives, a mapping
        // is aligned to a page, its size is sealed, and every process changes it atomically.
        unsafe { place.as_ref() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_draft_is_read_back_from_the_sealed_file() {
        let mut draft = Draft::new("test", 10_000).unwrap();
        draft.bytes_mut()[9_999] = 7;
        let file = draft.seal().unwrap();
        let mapping = Mapping::new(file.as_fd(), usize::MAX).unwrap();
        assert_eq!(mapping.len(), 10_000);
        assert_eq!((mapping[0], mapping[9_999]), (0, 7));
        let too_long = Mapping::new(file.as_fd(), 9_999).unwrap_err();
        assert_eq!(too_long.raw_os_error(), Some(libc::EFBIG));
    }

    #[test]
    fn an_unsealed_or_foreign_file_is_refused() {
        let open = create("open", 4096).unwrap();
        let refused = Mapping::new(open.as_fd(), usize::MAX).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EPERM));
        let file = std::fs::File::open(std::env::current_exe().unwrap()).unwrap();
        assert!(Mapping::new(file.as_fd(), usize::MAX).is_err());
    }

    #[test]
    fn a_sealed_file_can_no_longer_change() {
        let file = Draft::new("final", 100).unwrap().seal().unwrap();
        let mut file = std::fs::File::from(file);
        assert!(file.set_len(50).is_err() && file.set_len(200).is_err());
        assert!(std::io::Write::write(&mut file, b"x").is_err());
    }

    #[test]
    fn an_empty_file_maps_to_nothing() {
        let file = Draft::new("empty", 0).unwrap().seal().unwrap();
        assert!(Mapping::new(file.as_fd(), usize::MAX).unwrap().is_empty());
    }

    #[test]
    fn counters_are_shared_by_all_mappings_and_keep_their_size() {
        let file = Counters::create("counters").unwrap();
        let (ours, theirs) =
            (Counters::map(file.as_fd()).unwrap(), Counters::map(file.as_fd()).unwrap());
        ours.add(1, 2);
        theirs.add(1, 3);
        assert_eq!((ours.load(1), ours.load(0)), (5, 0));
        assert_eq!((theirs.swap(1, 7), ours.load(1)), (5, 7));
        assert!(std::fs::File::from(file).set_len(0).is_err());
        let open = create("open", Counters::BYTES as u64).unwrap();
        assert_eq!(Counters::map(open.as_fd()).unwrap_err().raw_os_error(), Some(libc::EPERM));
    }
}
