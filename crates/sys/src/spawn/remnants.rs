//! Children of starts that are over, which the kernel has not ended yet.
//!
//! `SIGKILL` does not end a process at once that is in a frozen control group of version 1, or in an
//! uninterruptible system call, and a tracer delays the reaping. The memory that such a child
//! borrows stays, because freeing it too early is worse than a leak. Each later spawn reaps and
//! frees what it can.

use std::sync::{Mutex, PoisonError};

use super::credentials::Borrower;
use super::engine::{SpawnError, Spawned};
use super::loan::Loan;
use super::plan::Step;
use super::wait::has_exited;

/// The most remnants, with which no other child is started.
const REMNANTS_MAX: usize = 64;

/// The rest of one start.
#[derive(Debug)]
pub(super) struct Remnant {
    pub(super) child: Spawned,
    /// Whether the child is to be reaped here, because the caller of the spawn does not know it.
    pub(super) is_ours: bool,
    #[allow(dead_code, reason = "held until the child is over")]
    pub(super) loan: Option<Loan>,
    #[allow(dead_code, reason = "held until the child is over")]
    pub(super) borrower: Option<Borrower>,
}

impl Remnant {
    fn is_over(&self) -> bool {
        if self.is_ours {
            // An error means that another part of the program has reaped the child.
            return !matches!(self.child.pidfd.try_wait_child(self.child.pid), Ok(None));
        }
        has_exited(&self.child)
    }
}

static REMNANTS: Mutex<Vec<Remnant>> = Mutex::new(Vec::new());

pub(super) fn add(remnant: Remnant) {
    REMNANTS.lock().unwrap_or_else(PoisonError::into_inner).push(remnant);
}

/// Frees what is over.
///
/// # Errors
///
/// `EAGAIN` when [`REMNANTS_MAX`] are left.
pub(super) fn collect() -> Result<(), SpawnError> {
    let mut remnants = REMNANTS.lock().unwrap_or_else(PoisonError::into_inner);
    remnants.retain(|remnant| !remnant.is_over());
    if remnants.len() < REMNANTS_MAX {
        return Ok(());
    }
    Err(SpawnError { step: Step::Process, call: Some("clone"), errno: libc::EAGAIN })
}

/// Returns the number of remnants.
#[cfg(test)]
pub(super) fn count() -> usize {
    REMNANTS.lock().unwrap_or_else(PoisonError::into_inner).len()
}
