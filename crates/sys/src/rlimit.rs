//! The resource limits of this process.
//!
//! Limits apply to the whole process: reading them is harmless, changing them is for programs, not
//! for libraries. The limits of a child are part of its
//! [`Attributes`](crate::spawn::Attributes).
//!
//! A limit of descriptors that [`raise_descriptors`] has raised is not inherited: children get the
//! previous soft limit, because a program that calls `select(2)` cannot handle numbers over 1,023.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::sync::{Mutex, PoisonError};

/// A resource that the kernel limits. See `getrlimit(2)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Resource {
    /// Bytes of address space.
    AddressSpace,
    /// Bytes of a core file.
    CoreBytes,
    /// Seconds of processor time.
    CpuSeconds,
    /// Bytes of data segment.
    DataBytes,
    /// The number of open descriptors: one more than the highest descriptor.
    Descriptors,
    /// Bytes of one file.
    FileBytes,
    /// Bytes of locked memory.
    LockedBytes,
    /// Bytes in POSIX message queues.
    QueueBytes,
    /// The ceiling of the nice value, as 20 − nice.
    Nice,
    /// Processes and threads of the user.
    Processes,
    /// The ceiling of the real-time priority.
    RealTimePriority,
    /// Microseconds of real-time processor time between two system calls.
    RealTimeMicros,
    /// Pending signals.
    Signals,
    /// Bytes of stack.
    StackBytes,
}

impl Resource {
    /// The number that the system call takes.
    #[allow(clippy::unnecessary_cast, reason = "musl has signed numbers")]
    pub(crate) const fn number(self) -> u32 {
        let number = match self {
            Self::AddressSpace => libc::RLIMIT_AS,
            Self::CoreBytes => libc::RLIMIT_CORE,
            Self::CpuSeconds => libc::RLIMIT_CPU,
            Self::DataBytes => libc::RLIMIT_DATA,
            Self::Descriptors => libc::RLIMIT_NOFILE,
            Self::FileBytes => libc::RLIMIT_FSIZE,
            Self::LockedBytes => libc::RLIMIT_MEMLOCK,
            Self::QueueBytes => libc::RLIMIT_MSGQUEUE,
            Self::Nice => libc::RLIMIT_NICE,
            Self::Processes => libc::RLIMIT_NPROC,
            Self::RealTimePriority => libc::RLIMIT_RTPRIO,
            Self::RealTimeMicros => libc::RLIMIT_RTTIME,
            Self::Signals => libc::RLIMIT_SIGPENDING,
            Self::StackBytes => libc::RLIMIT_STACK,
        };
        number as u32
    }
}

impl Resource {
    const ALL: [Self; 14] = [
        Self::AddressSpace,
        Self::CoreBytes,
        Self::CpuSeconds,
        Self::DataBytes,
        Self::Descriptors,
        Self::FileBytes,
        Self::LockedBytes,
        Self::QueueBytes,
        Self::Nice,
        Self::Processes,
        Self::RealTimePriority,
        Self::RealTimeMicros,
        Self::Signals,
        Self::StackBytes,
    ];

    /// Returns the resource with this number.
    pub(crate) fn of_number(number: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|resource| resource.number() == number)
    }
}

/// The value of a limit that does not exist.
pub const INFINITY: u64 = u64::MAX;

/// A limit: the kernel enforces `soft`, which can be raised up to `hard`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit {
    /// The value that is enforced.
    pub soft: u64,
    /// The value up to which `soft` can be raised without privileges.
    pub hard: u64,
}

/// Reads a limit of this process.
///
/// # Errors
///
/// As `prlimit(2)`.
pub fn get(resource: Resource) -> io::Result<Limit> {
    let mut old = MaybeUninit::<libc::rlimit64>::uninit();
    prlimit(resource, ptr::null(), old.as_mut_ptr())?;
    // SAFETY: the call succeeded, so the kernel has written the whole structure.
    let old = unsafe { old.assume_init() };
    Ok(Limit { soft: old.rlim_cur, hard: old.rlim_max })
}

/// Changes a limit of this process, for all its threads.
///
/// # Errors
///
/// `EPERM` when the hard limit would rise without privileges, `EINVAL` when soft is over hard.
pub fn set(resource: Resource, limit: Limit) -> io::Result<()> {
    let new = libc::rlimit64 { rlim_cur: limit.soft, rlim_max: limit.hard };
    prlimit(resource, &raw const new, ptr::null_mut())
}

fn prlimit(
    resource: Resource,
    new: *const libc::rlimit64,
    old: *mut libc::rlimit64,
) -> io::Result<()> {
    // SAFETY: both pointers are null or lead to a structure of the caller's that outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource.number(), new, old) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Returns the soft and the hard limit of open descriptors.
///
/// # Errors
///
/// As `prlimit(2)`.
pub fn descriptors() -> io::Result<(u64, u64)> {
    get(Resource::Descriptors).map(|limit| (limit.soft, limit.hard))
}

/// Sets the soft limit of open descriptors.
///
/// # Errors
///
/// `EINVAL` when it is over the hard limit.
pub fn set_descriptors(soft: u64) -> io::Result<()> {
    let (_, hard) = descriptors()?;
    set(Resource::Descriptors, Limit { soft, hard })
}

/// The soft limits before and after [`raise_descriptors`].
#[derive(Clone, Copy)]
struct Raised {
    from: u64,
    to: u64,
}

static RAISED: Mutex<Option<Raised>> = Mutex::new(None);

/// Raises the soft limit of open descriptors to the smaller of `max` and the hard limit, and
/// returns the soft limit that then holds.
///
/// The limit is never lowered. Children that [`spawn`](crate::spawn::spawn) starts get the previous
/// soft limit, unless their attributes set one, or the soft limit was changed after this call.
/// Children that other code starts inherit the raised limit. A second call keeps the limit of
/// before the first.
///
/// # Errors
///
/// As `prlimit(2)`; the limit is then unchanged.
///
/// ```
/// use brood_sys::rlimit;
///
/// let (soft, hard) = rlimit::descriptors()?;
/// assert_eq!(rlimit::raise_descriptors(1 << 20)?, soft.max(hard.min(1 << 20)));
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn raise_descriptors(max: u64) -> io::Result<u64> {
    let mut raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
    let (soft, hard) = descriptors()?;
    let to = hard.min(max);
    if to <= soft {
        return Ok(soft);
    }
    set(Resource::Descriptors, Limit { soft: to, hard })?;
    let from = raised.filter(|earlier| earlier.to == soft).map_or(soft, |earlier| earlier.from);
    *raised = Some(Raised { from, to });
    Ok(to)
}

/// Returns the limit of descriptors of a child that sets none; `None` if it inherits ours.
pub(crate) fn descriptors_of_children() -> Option<Limit> {
    let raised = RAISED.lock().unwrap_or_else(PoisonError::into_inner);
    let Raised { from, to } = (*raised)?;
    let (soft, hard) = descriptors().ok()?;
    (soft == to).then_some(Limit { soft: from, hard })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_read() {
        let (soft, hard) = descriptors().unwrap();
        assert!(soft > 0 && soft <= hard);
        assert_eq!(get(Resource::Descriptors).unwrap(), Limit { soft, hard });
    }

    #[test]
    fn a_soft_limit_over_the_hard_one_is_refused() {
        let refused = set(Resource::CoreBytes, Limit { soft: 2, hard: 1 }).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    }
}
