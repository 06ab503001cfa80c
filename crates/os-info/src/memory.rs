//! The memory of the host.

use std::path::Path;

use crate::Error;
use crate::files::read_short;
use crate::parse::meminfo;

/// The memory of the host, in bytes.
///
/// [`Limits`](crate::Limits) has the share that the container may use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct Memory {
    /// The total memory.
    pub total_bytes: u64,
    /// The memory that nothing uses.
    pub free_bytes: u64,
    /// The memory that programs can allocate. Mostly more than the free memory, because the kernel
    /// can reclaim caches.
    pub available_bytes: u64,
    /// The total swap space.
    pub swap_total_bytes: u64,
    /// The swap space that nothing uses.
    pub swap_free_bytes: u64,
}

/// Returns the total memory of the host in bytes.
///
/// # Errors
///
/// The error of `sysinfo(2)`.
///
/// Node: reads `/proc/meminfo`. LXCFS mounts a file there that states the container's limit. In
/// this crate [`limits`](crate::limits) returns that limit.
pub fn totalmem() -> Result<u64, Error> {
    Ok(load()?.memory_total)
}

/// Returns the memory of the host that programs can allocate, in bytes. Caches that the kernel can
/// reclaim count.
///
/// Without a readable `/proc/meminfo`, and with kernels before 3.14, the result is the memory that
/// nothing uses.
///
/// ```
/// assert!(brood_os_info::freemem()? <= brood_os_info::totalmem()?);
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// The error of `sysinfo(2)`.
pub fn freemem() -> Result<u64, Error> {
    // The line is one of the first three, so that the rest need not be copied.
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

/// Reads `/proc/meminfo`. A missing swap line counts as 0 and missing available memory as the free
/// memory. The lines with total and free memory are required.
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
