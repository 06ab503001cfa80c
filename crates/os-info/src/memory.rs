//! The memory of the host.

use crate::Error;
use crate::files::read_short;
use crate::parse::meminfo;
use std::path::Path;

/// The memory of the host, in bytes. What the container may use of it is in
/// [`Limits`](crate::Limits).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Memory {
    /// All of it.
    pub total_bytes: u64,
    /// What nothing uses.
    pub free_bytes: u64,
    /// What programs can have, mostly more than what is free: caches give way.
    pub available_bytes: u64,
    /// All swap space.
    pub swap_total_bytes: u64,
    /// Swap space that nothing uses.
    pub swap_free_bytes: u64,
}

/// How many bytes of memory the host has.
///
/// # Errors
///
/// What `sysinfo(2)` answers.
///
/// Node: reads `/proc/meminfo`; LXCFS mounts another one there, with the container's limit. Here
/// that limit is in [`limits`](crate::limits).
pub fn totalmem() -> Result<u64, Error> {
    Ok(load()?.memory_total)
}

/// How many bytes of the host's memory programs can have: caches that would give way count.
///
/// Without a readable `/proc/meminfo`, and with kernels before 3.14, what nothing uses.
///
/// ```
/// assert!(os_info::freemem()? <= os_info::totalmem()?);
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// What `sysinfo(2)` answers.
pub fn freemem() -> Result<u64, Error> {
    // The line stands among the first three: no need to copy the rest.
    let mut buffer = [0; 256];
    let meminfo = read_short(Path::new("/proc/meminfo"), &mut buffer);
    available_or_free(meminfo.ok().and_then(meminfo::available))
}

pub(crate) fn available_or_free(available: Option<u64>) -> Result<u64, Error> {
    match available {
        Some(bytes) => Ok(bytes),
        None => Ok(load()?.memory_free),
    }
}

/// All of `/proc/meminfo`; a missing line is 0, but total and free are the kernel's own.
pub(crate) fn from_meminfo(bytes: &[u8]) -> Result<Memory, Error> {
    let found = meminfo::all(bytes);
    let malformed = || Error::Malformed { file: "/proc/meminfo" };
    let total_bytes = found.total.ok_or_else(malformed)?;
    let free_bytes = found.free.ok_or_else(malformed)?;
    Ok(Memory {
        total_bytes,
        free_bytes,
        available_bytes: found.available.unwrap_or(free_bytes),
        swap_total_bytes: found.swap_total.unwrap_or(0),
        swap_free_bytes: found.swap_free.unwrap_or(0),
    })
}

fn load() -> Result<sys::host::Load, Error> {
    sys::host::load().map_err(|error| Error::os("sysinfo", error))
}
