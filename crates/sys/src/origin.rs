//! The process to which a value belongs: `fork(2)` is noticed without a system call.
//!
//! A process that was forked and executes nothing has a copy of all memory, but none of the other
//! threads. Waiting there for one of them would never end, so their users keep an [`Origin`] and
//! check it. The kernel clears one page of memory in every forked process (`MADV_WIPEONFORK`, Linux
//! 4.14); where that is refused, each check is a `getpid(2)`.

use std::ptr;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

/// The size of the mapping. The kernel rounds it up to its page.
const BYTES: usize = 4096;

/// The number of this process, in memory that is zero after a fork. Null before the first use.
static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(ptr::null_mut());
/// Stands in `PAGE` where the kernel offers no such memory. Its value is never read.
static NO_PAGE: AtomicU64 = AtomicU64::new(0);
/// The next number. A forked process goes on from its parent's, so a number never returns in it.
static NEXT: AtomicU64 = AtomicU64::new(1);

/// The process in which a value was made.
///
/// ```
/// let origin = brood_sys::origin::Origin::here();
/// assert!(origin.is_here(), "and false in a process that was forked meanwhile");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Origin(u64);

impl Origin {
    /// Returns the calling process.
    #[must_use]
    pub fn here() -> Self {
        let page = page();
        if ptr::eq(page, &raw const NO_PAGE) {
            return Self(u64::from(std::process::id()));
        }
        // SAFETY: a mapping of ours that is never removed, or the static.
        let number = unsafe { &*page };
        match number.load(Ordering::Acquire) {
            0 => {
                let fresh = NEXT.fetch_add(1, Ordering::Relaxed);
                let set = number.compare_exchange(0, fresh, Ordering::AcqRel, Ordering::Acquire);
                Self(set.map_or_else(|other| other, |_| fresh))
            }
            number => Self(number),
        }
    }

    /// Returns whether the calling process is this one, and not one that was forked from it.
    #[must_use]
    pub fn is_here(self) -> bool {
        self == Self::here()
    }
}

fn page() -> *const AtomicU64 {
    let page = PAGE.load(Ordering::Acquire);
    if !page.is_null() {
        return page;
    }
    let fresh = map().unwrap_or((&raw const NO_PAGE).cast_mut());
    let none = ptr::null_mut();
    match PAGE.compare_exchange(none, fresh, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => fresh,
        Err(others) => {
            if !ptr::eq(fresh, &raw const NO_PAGE) {
                // SAFETY: the mapping is ours, and no other thread has seen it.
                unsafe { libc::munmap(fresh.cast(), BYTES) };
            }
            others
        }
    }
}

/// Maps the memory that is zero after a fork; `None` if the kernel offers none.
fn map() -> Option<*mut AtomicU64> {
    let (access, kind) = (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE);
    let kind = kind | libc::MAP_ANONYMOUS;
    // SAFETY: a fresh mapping at a place that the kernel chooses.
    let page = unsafe { libc::mmap(ptr::null_mut(), BYTES, access, kind, -1, 0) };
    if page == libc::MAP_FAILED {
        return None;
    }
    // SAFETY: the mapping just made.
    if unsafe { libc::madvise(page, BYTES, libc::MADV_WIPEONFORK) } < 0 {
        // SAFETY: the mapping just made, which nobody else knows.
        unsafe { libc::munmap(page, BYTES) };
        return None;
    }
    Some(page.cast())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `check` in a forked process. It must not allocate: other tests hold locks.
    fn in_a_fork(check: impl Fn() -> bool) -> bool {
        // SAFETY: the child makes system calls and reads memory only, and does not return.
        let pid = unsafe { libc::fork() };
        if pid == 0 {
            // SAFETY: ends the child at once.
            unsafe { libc::_exit(i32::from(!check())) };
        }
        let mut status = 0;
        // SAFETY: the status is ours, and the child is.
        assert_eq!(unsafe { libc::waitpid(pid, &raw mut status, 0) }, pid);
        status == 0
    }

    #[test]
    fn a_fork_is_another_origin_and_a_fork_of_that_a_third() {
        let here = Origin::here();
        assert!(here.is_here());
        assert!(in_a_fork(|| {
            let child = Origin::here();
            !here.is_here() && child.is_here() && in_a_fork(|| !here.is_here() && !child.is_here())
        }));
        assert!(here.is_here());
    }
}
