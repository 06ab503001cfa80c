//! The parent's side of a spawn: the attempts, and what each of them needs.

use std::error;
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::ptr;
use std::thread;
use std::time::{Duration, Instant};

use super::clone::clone;
use super::credentials::Lease;
use super::loan::Loan;
use super::plan::{Plan, Step};
use super::remnants;
use crate::errno;
use crate::pidfd::{self, PidFd};

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process id, which means this process until it is reaped.
    pub pid: u32,
    /// The descriptor of the process.
    pub pidfd: PidFd,
}

/// The reason why no program was started. Nothing of the attempt is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// The system call that failed, if the step has several.
    pub call: Option<&'static str>,
    /// The error number of the kernel, see [`crate::errno`].
    pub errno: i32,
}

pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        if let Some(call) = self.call {
            write!(f, "{call}: ")?;
        }
        f.write_str(&errno::text(self.errno))
    }
}

impl error::Error for SpawnError {}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}

/// Starts the child that `plan` describes and returns when it has executed its program.
///
/// The calling thread waits meanwhile; the other threads run on. No memory is copied, so the cost
/// does not grow with the memory of this process. The kernel binds the child's parent-death signal,
/// if there is one, to the calling thread, whose signals are blocked during the wait.
///
/// A program that is open for writing (`ETXTBSY`) is tried again for up to 127 ms.
///
/// A child that has not executed its program after [`Plan::start_within`] is killed: it is stopped
/// or traced, or its program, its working directory or its control group does not answer. A child
/// whose end the kernel delays, in a frozen control group or in an uninterruptible system call, is
/// left behind after another second, with the memory that it borrows (128 KiB of address space). A
/// later spawn reaps it. With 64 such children, a spawn fails with `EAGAIN`.
///
/// If `SIGCHLD` is ignored, a kernel before 6.15 would forget how children ended. The disposition
/// is then set to default for the whole process.
///
/// # Errors
///
/// The step that failed and the reason; `ETIMEDOUT` with the step that did not end in time. The
/// child is gone and reaped then, unless it was left behind.
///
/// ```
/// use brood_sys::spawn::{Plan, spawn};
///
/// let child = spawn(&Plan::new(vec![c"/bin/true".into()], vec![c"true".into()]))?;
/// assert!(child.pidfd.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn(plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    // No instant for a limit that the clock cannot hold.
    let until = Instant::now().checked_add(plan.start_within);
    for pause in BUSY_PAUSES_MS {
        match spawn_once(plan, until) {
            Err(error) if error.errno == libc::ETXTBSY => {
                thread::sleep(Duration::from_millis(pause));
            }
            result => return result,
        }
    }
    spawn_once(plan, until)
}

/// The pauses before a program that is open for writing is tried again. A program that this process
/// has just written is open in every child that another thread starts, until that child executes
/// its own program.
const BUSY_PAUSES_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

fn spawn_once(plan: &Plan<'_>, until: Option<Instant>) -> Result<Spawned, SpawnError> {
    remnants::collect()?;
    let loan = Loan::new(plan)?;
    stop_ignoring_exits();
    let lease = if plan.attributes.changes_credentials() {
        let lease = Lease::new(loan.above());
        Some(lease.map_err(|error| process_error("pipe2", &error))?)
    } else {
        None
    };
    clone(loan, lease, until)
}

/// Makes the error of a call that creates the process.
pub(super) fn process_error(call: &'static str, error: &io::Error) -> SpawnError {
    SpawnError { step: Step::Process, call: Some(call), errno: errno_of(error) }
}

/// Resets an ignored `SIGCHLD`: old kernels then reap children themselves and forget their status.
fn stop_ignoring_exits() {
    if pidfd::remembers_exit() {
        return;
    }
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the structure has the right size.
    unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroes are a valid `sigaction`, and the kernel wrote over them.
    let mut now = unsafe { now.assume_init() };
    if now.sa_sigaction == libc::SIG_IGN || now.sa_flags & libc::SA_NOCLDWAIT != 0 {
        now.sa_flags &= !libc::SA_NOCLDWAIT;
        if now.sa_sigaction == libc::SIG_IGN {
            now.sa_sigaction = libc::SIG_DFL;
        }
        // SAFETY: a whole structure, with a handler that was there or the default.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const now, ptr::null_mut()) };
    }
}

#[cfg(test)]
mod tests;
