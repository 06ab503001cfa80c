//! What the kernel says of this machine, for `os-info`.
//!
//! One system call per function, the answer in plain numbers and bytes: nothing is read from
//! `/proc`, nothing is kept between calls, and no descriptor stays open.

use std::io;

/// The most CPUs an affinity mask is read for; the kernel's own limit is 8192.
const AFFINITY_BYTES_MAX: usize = 8192;

/// Counts the CPUs the calling thread may run on.
///
/// # Errors
///
/// What `sched_getaffinity(2)` answers; some sandboxes forbid it.
pub fn affinity_count() -> io::Result<usize> {
    with_affinity(|mask| mask.iter().map(|word| word.count_ones() as usize).sum())
}

/// The numbers of the CPUs the calling thread may run on, rising.
///
/// # Errors
///
/// As [`affinity_count`].
pub fn affinity() -> io::Result<Vec<u32>> {
    with_affinity(|mask| {
        let bits = (0u32..).zip(mask).flat_map(|(at, word)| (0..64).map(move |bit| (at, word, bit)));
        bits.filter(|(_, word, bit)| *word & (1 << bit) != 0)
            .map(|(at, _, bit)| at * 64 + bit)
            .collect()
    })
}

fn with_affinity<T>(ask: impl FnOnce(&[u64]) -> T) -> io::Result<T> {
    let mut small = [0u64; 16];
    match affinity_into(&mut small) {
        // The kernel has more CPUs than these 1024 bits.
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => {
            let mut large = vec![0u64; AFFINITY_BYTES_MAX / 8];
            let words = affinity_into(&mut large)?;
            Ok(ask(&large[..words]))
        }
        words => Ok(ask(&small[..words?])),
    }
}

/// Fills `mask` and says how many words of it the kernel wrote.
fn affinity_into(mask: &mut [u64]) -> io::Result<usize> {
    // The system call and not libc's function, which clears the rest of the mask but does not
    // say how much the kernel knew.
    // SAFETY: the kernel writes at most the given number of bytes into `mask`, and any bits are
    // valid words.
    let bytes = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(mask), mask.as_mut_ptr())
    };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    Ok(bytes.div_ceil(8).min(mask.len()))
}

/// How many CPUs the system has online.
///
/// # Errors
///
/// What `sysconf(3)` answers.
pub fn cpus_online() -> io::Result<usize> {
    // SAFETY: the call takes an integer and touches no memory of ours.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The four names of `uname(2)`, as the kernel writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// `Linux`.
    pub system: Vec<u8>,
    /// `6.8.0-45-generic`.
    pub release: Vec<u8>,
    /// `#45-Ubuntu SMP …`.
    pub version: Vec<u8>,
    /// `x86_64`.
    pub machine: Vec<u8>,
    /// The host name: what `gethostname(3)` answers, too.
    pub node: Vec<u8>,
}

/// Asks for the names of this system.
///
/// # Errors
///
/// What `uname(2)` answers.
pub fn names() -> io::Result<Names> {
    let names = nix::sys::utsname::uname()?;
    let bytes = |text: &std::ffi::OsStr| std::os::unix::ffi::OsStrExt::as_bytes(text).to_vec();
    Ok(Names {
        system: bytes(names.sysname()),
        release: bytes(names.release()),
        version: bytes(names.version()),
        machine: bytes(names.machine()),
        node: bytes(names.nodename()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_affinity_has_at_least_one_cpu_and_its_count_agrees() {
        let cpus = affinity().unwrap();
        assert!(!cpus.is_empty() && cpus.is_sorted());
        assert_eq!(cpus.len(), affinity_count().unwrap());
        assert!(cpus.len() <= cpus_online().unwrap());
    }
}
