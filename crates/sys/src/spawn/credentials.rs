//! The dumpable flag of this process while children with other credentials borrow its memory.
//!
//! A child that changes its credentials makes the kernel mark the memory that it borrows as not
//! dumpable, so that its new user cannot read the memory. The mark must stay until the last such
//! child has left the memory. The first lease saves the flag, and the last restores it. No lock is
//! held in between: a child that another process stops delays no other start.

use std::ffi::c_int;
use std::os::fd::RawFd;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::engine::Spawned;
use super::wait::{Pipe, Report, has_exited};
use crate::dumpable;

/// The longest wait until a child that has executed its program has left the memory.
const LEAVES_WITHIN: Duration = Duration::from_secs(1);

/// The time between two looks at a child while another process holds its end of the pipe.
const LOOK_EVERY: Duration = Duration::from_millis(5);

/// The children that may borrow the memory under other credentials.
#[derive(Debug)]
struct Borrowers {
    count: usize,
    /// The flag before the first of them.
    flag: c_int,
}

static BORROWERS: Mutex<Borrowers> = Mutex::new(Borrowers { count: 0, flag: 0 });

/// A child's place among the borrowers.
#[derive(Debug)]
pub(super) struct Borrower;

impl Borrower {
    fn new() -> Self {
        let mut borrowers = BORROWERS.lock().unwrap_or_else(PoisonError::into_inner);
        if borrowers.count == 0 {
            borrowers.flag = dumpable::get();
        }
        borrowers.count += 1;
        Self
    }
}

impl Drop for Borrower {
    fn drop(&mut self) {
        let mut borrowers = BORROWERS.lock().unwrap_or_else(PoisonError::into_inner);
        borrowers.count -= 1;
        if borrowers.count == 0 && dumpable::get() != borrowers.flag {
            // Refused by a sandbox only, in which the flag stays as the kernel has set it.
            let _ = dumpable::set(borrowers.flag);
        }
    }
}

/// The start of one child with other credentials.
///
/// The kernel reports that a child has left the memory a moment before it does not count any more
/// as a user of the memory. Close-on-exec descriptors are closed only after that moment.
#[derive(Debug)]
pub(super) struct Lease {
    pipe: Pipe,
    borrower: Borrower,
}

impl Lease {
    /// Begins a lease; `above` is the first number above the descriptors of the child.
    pub(super) fn new(above: RawFd) -> std::io::Result<Self> {
        Ok(Self { pipe: Pipe::new(above)?, borrower: Borrower::new() })
    }

    /// Ends the lease of a child that has executed its program or exited. Returns the place of a
    /// child that may still use the memory after [`LEAVES_WITHIN`], to be dropped when it exits.
    pub(super) fn end(self, child: &Spawned) -> Option<Borrower> {
        let mut report = self.pipe.into_report();
        let until = Instant::now() + LEAVES_WITHIN;
        while Instant::now() < until {
            if has_left(&mut report, child) {
                return None;
            }
        }
        Some(self.borrower)
    }

    /// Returns the place of a child that is left behind.
    pub(super) fn into_borrower(self) -> Borrower {
        self.borrower
    }
}

/// Whether the child has left the memory for certain, after a short wait.
fn has_left(report: &mut Report, child: &Spawned) -> bool {
    report.has_ended_within(LOOK_EVERY) || has_other_memory(child.pid) || has_exited(child)
}

/// Whether the kernel says that the process has another memory than this one. The number means the
/// child, which the caller has not reaped.
fn has_other_memory(pid: u32) -> bool {
    const KCMP_VM: libc::c_int = 1;
    let own = std::process::id();
    // SAFETY: integers only.
    let order = unsafe { libc::syscall(libc::SYS_kcmp, own, pid, KCMP_VM, 0, 0) };
    order > 0
}
