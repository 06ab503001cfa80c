//! Where the two processes run: left to itself, the kernel places them now together, now apart, and
//! a round trip costs five times as much in one case as in the other.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem, ptr};

/// The core of this process while a round runs.
const OURS: usize = 0;

/// Where the other process runs.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// On another core than this process.
    Apart,
    /// On the same.
    Together,
}

impl Place {
    /// The core of the other process.
    pub fn far(self) -> Result<usize, String> {
        match self {
            Place::Together => Ok(OURS),
            Place::Apart if cores().len() > 1 => Ok(1),
            Place::Apart => Err("there is one core only".to_owned()),
        }
    }
}

/// Which cores this thread may use.
type Set = libc::cpu_set_t;

/// Keeps this thread on its core until the answer drops.
pub fn hold() -> Hold {
    let before = allowed();
    keep_on(OURS);
    Hold(before)
}

/// What this thread was allowed before.
#[derive(Debug)]
pub struct Hold(Set);

impl Drop for Hold {
    fn drop(&mut self) {
        allow(&self.0);
    }
}

/// Keeps this thread, and those it starts, on the `place`-th core it may use.
pub fn keep_on(place: usize) {
    let Some(&core) = cores().get(place) else { return };
    // SAFETY: a set of cores is a plain array of bits.
    let mut set: Set = unsafe { mem::zeroed() };
    // SAFETY: the number comes out of such a set.
    unsafe { libc::CPU_SET(core, &mut set) };
    allow(&set);
}

/// The cores that the process had at its start: a thread that is held sees only its own.
fn cores() -> &'static [usize] {
    static ALL: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let set = allowed();
        // SAFETY: every number asked is below the size of the set.
        (0..libc::CPU_SETSIZE as usize)
            .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
            .collect()
    })
}

fn allowed() -> Set {
    // SAFETY: a set of cores is a plain array of bits.
    let mut set: Set = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills the set, whose size it is told. A failure leaves it empty.
    unsafe { libc::sched_getaffinity(0, size_of::<Set>(), &raw mut set) };
    set
}

fn allow(set: &Set) {
    // SAFETY: the kernel reads the set, whose size it is told. A failure changes nothing.
    unsafe { libc::sched_setaffinity(0, size_of::<Set>(), set) };
}

/// Maps a file that a process of our own has sealed, reads its first byte, and unmaps it.
pub fn first_byte(file: BorrowedFd<'_>, length: usize) -> io::Result<u8> {
    let (access, fd) = (libc::PROT_READ, file.as_raw_fd());
    // SAFETY: a new mapping at an address that the kernel chooses replaces none of ours.
    let start = unsafe { libc::mmap(ptr::null_mut(), length, access, libc::MAP_SHARED, fd, 0) };
    if start == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the mapping is readable and holds at least this byte.
    let byte = unsafe { start.cast::<u8>().read_volatile() };
    // SAFETY: this is the mapping made above, and nothing borrows it.
    unsafe { libc::munmap(start, length) };
    Ok(byte)
}
