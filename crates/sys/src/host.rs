//! Facts about this machine from the kernel, for `os-info`.
//!
//! Each function makes one system call and returns plain numbers and bytes. Nothing is read from
//! `/proc`, nothing is kept between calls, and no descriptor stays open.

pub mod constants;
pub mod interfaces;
pub mod user;

use std::io;
use std::mem::MaybeUninit;
use std::time::Duration;

/// The size of the largest affinity mask that is read. The kernel's own limit is 8192 CPUs.
const AFFINITY_BYTES_MAX: usize = 8192;

/// Returns the number of CPUs on which the calling thread may run.
///
/// # Errors
///
/// As `sched_getaffinity(2)`; some sandboxes forbid the call.
pub fn affinity_count() -> io::Result<usize> {
    with_affinity(|mask| mask.iter().map(|word| word.count_ones() as usize).sum())
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

/// Fills `mask` and returns the number of words that the kernel wrote.
fn affinity_into(mask: &mut [u64]) -> io::Result<usize> {
    // Not libc's function: it clears the rest of the mask, and does not return how many bytes the
    // kernel wrote.
    // SAFETY: the kernel writes at most the given number of bytes into `mask`, and any bits are
    // valid words.
    let bytes = unsafe {
        libc::syscall(libc::SYS_sched_getaffinity, 0, size_of_val(mask), mask.as_mut_ptr())
    };
    let bytes = usize::try_from(bytes).map_err(|_| io::Error::last_os_error())?;
    Ok(bytes.div_ceil(8).min(mask.len()))
}

/// Returns the number of CPUs that are online.
///
/// # Errors
///
/// As `sysconf(3)`.
pub fn cpus_online() -> io::Result<usize> {
    // SAFETY: the call takes an integer and touches no memory of ours.
    let count = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
    usize::try_from(count).map_err(|_| io::Error::last_os_error())
}

/// The names in `uname(2)`, as the kernel writes them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// The name of the system: `Linux`.
    pub system: Vec<u8>,
    /// The release: `6.8.0-45-generic`.
    pub release: Vec<u8>,
    /// The version: `#45-Ubuntu SMP …`.
    pub version: Vec<u8>,
    /// The hardware: `x86_64`.
    pub machine: Vec<u8>,
    /// The host name, as `gethostname(3)` returns it.
    pub node: Vec<u8>,
}

/// Returns the names of this system.
///
/// # Errors
///
/// As `uname(2)`.
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

/// Memory and load, from `sysinfo(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Load {
    /// The load averages of the last 1, 5 and 15 minutes, in units of 1/65536.
    pub loads: [u64; 3],
    /// The size of the memory, in bytes.
    pub memory_total: u64,
    /// The unused memory, in bytes. The available memory is larger.
    pub memory_free: u64,
}

/// Returns memory and load.
///
/// # Errors
///
/// As `sysinfo(2)`.
pub fn load() -> io::Result<Load> {
    let mut info = MaybeUninit::<libc::sysinfo>::uninit();
    // SAFETY: the kernel writes one `sysinfo` into memory of ours.
    crate::fd::cvt(unsafe { libc::sysinfo(info.as_mut_ptr()) })?;
    // SAFETY: the call succeeded, so that the kernel filled it.
    let info = unsafe { info.assume_init() };
    let unit = u64::from(info.mem_unit.max(1));
    let bytes = |amount| u64::saturating_mul(amount, unit);
    Ok(Load {
        loads: info.loads,
        memory_total: bytes(info.totalram),
        memory_free: bytes(info.freeram),
    })
}

/// Returns the time since boot, sleep included.
///
/// # Errors
///
/// As `clock_gettime(2)`.
pub fn uptime() -> io::Result<Duration> {
    clock(libc::CLOCK_BOOTTIME)
}

fn clock(id: libc::clockid_t) -> io::Result<Duration> {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the kernel writes one `timespec` into memory of ours.
    crate::fd::cvt(unsafe { libc::clock_gettime(id, &raw mut time) })?;
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    Ok(Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or(0)))
}

/// Returns the processor time that the calling thread has used, in the kernel and outside of it.
///
/// Time in which the thread waited, for a lock as well as for a processor, does not count.
///
/// # Errors
///
/// As `clock_gettime(2)`.
pub fn thread_cpu_time() -> io::Result<Duration> {
    clock(libc::CLOCK_THREAD_CPUTIME_ID)
}

/// Returns the number of ticks of `/proc/stat` in a second.
#[must_use]
pub fn ticks_per_second() -> u64 {
    // SAFETY: the call takes an integer and touches no memory of ours.
    let ticks = unsafe { libc::sysconf(libc::_SC_CLK_TCK) };
    u64::try_from(ticks).unwrap_or(0).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_affinity_has_at_least_one_cpu_and_at_most_those_online() {
        let cpus = affinity_count().unwrap();
        assert!((1..=cpus_online().unwrap()).contains(&cpus));
    }

    #[test]
    fn a_thread_that_waits_uses_no_processor_time_and_one_that_counts_does() {
        let (begin, before) = (std::time::Instant::now(), thread_cpu_time().unwrap());
        let (_open, nothing) = std::sync::mpsc::channel::<()>();
        let _ = nothing.recv_timeout(Duration::from_millis(50));
        let waited = thread_cpu_time().unwrap() - before;
        assert!(waited < begin.elapsed() / 2, "{waited:?}");
        while thread_cpu_time().unwrap() == before + waited {
            std::hint::spin_loop();
        }
        // Another thread's time is another time.
        let theirs = std::thread::spawn(|| thread_cpu_time().unwrap()).join().unwrap();
        assert!(theirs < begin.elapsed());
    }
}
