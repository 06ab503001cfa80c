//! The placement of the two processes on cores.
//!
//! The kernel alone would place them now on one core, now on two, and a round trip costs five times
//! as much in one case as in the other.

use std::os::fd::{AsRawFd, BorrowedFd};
use std::{io, mem, ptr};

/// The core of this process during a round.
const OURS: usize = 0;

/// The placement of the other process.
#[derive(Clone, Copy, Debug)]
pub enum Place {
    /// The other process has another core than this process.
    Apart,
    /// Both processes share a core.
    Together,
}

impl Place {
    /// Returns the core of the other process.
    pub fn remote_core(self) -> Result<usize, String> {
        match self {
            Place::Together => Ok(OURS),
            Place::Apart if cores().len() > 1 => Ok(1),
            Place::Apart => Err("there is one core only".to_owned()),
        }
    }
}

/// The cores that a thread may use.
type Set = libc::cpu_set_t;

/// Keeps this thread on its core until the returned value is dropped.
pub fn hold() -> Hold {
    let before = allowed();
    keep_on(OURS);
    Hold(before)
}

/// The cores that this thread could use before.
#[derive(Debug)]
pub struct Hold(Set);

impl Drop for Hold {
    fn drop(&mut self) {
        allow(&self.0);
    }
}

/// Keeps this thread, and the threads that it starts, on the core with index `place`.
pub fn keep_on(place: usize) {
    let Some(&core) = cores().get(place) else { return };
    // SAFETY: a set of cores is a plain array of bits.
    let mut set: Set = unsafe { mem::zeroed() };
    // SAFETY: the number comes out of such a set.
    unsafe { libc::CPU_SET(core, &mut set) };
    allow(&set);
}

/// Returns the cores that the process had at its start. A thread that is kept on one core sees only
/// that core.
fn cores() -> &'static [usize] {
    static ALL: std::sync::OnceLock<Vec<usize>> = std::sync::OnceLock::new();
    ALL.get_or_init(|| {
        let set = allowed();
        // SAFETY: every number is below the size of the set.
        (0..libc::CPU_SETSIZE as usize)
            .filter(|core| unsafe { libc::CPU_ISSET(*core, &set) })
            .collect()
    })
}

fn allowed() -> Set {
    // SAFETY: a set of cores is a plain array of bits.
    let mut set: Set = unsafe { mem::zeroed() };
    // SAFETY: the kernel fills the set, whose size is an argument. A failure leaves it empty.
    unsafe { libc::sched_getaffinity(0, size_of::<Set>(), &raw mut set) };
    set
}

fn allow(set: &Set) {
    // SAFETY: the kernel reads the set, whose size is an argument. A failure changes nothing.
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
