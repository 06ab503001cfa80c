//! The system call that starts a child, and its substitutes in sandboxes and emulators.
//!
//! The kernel makes the child and its pidfd with one `clone(CLONE_PIDFD)`. Where that flag is
//! refused, the child is started without it and opened with `pidfd_open`, which names the right
//! process because the child is not reaped yet.
//!
//! The child shares the memory of this process, and `CLONE_VFORK` is left out: nothing but the end
//! of the child wakes a thread in a `vfork`, and a child that another process stops or traces would
//! hold the thread for ever.
//!
//! Emulators copy the memory of this process for the child, although `CLONE_VM` asks to share it,
//! and know the flag only with `CLONE_VFORK`, for which they do not wait: qemu-user refuses any
//! other combination, and Valgrind ends the program. The failures of such children come through a
//! pipe. The first child of a process shows which of the two ways works: the pipe is made for that
//! child only, or for every child where the kernel does not report that a child has left the memory.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use super::child::{self, Failure};
use super::credentials::Lease;
use super::engine::{SpawnError, Spawned, process_error};
use super::loan::Loan;
use super::remnants::{self, Remnant};
use super::wait::{BlockedSignals, Left, Pipe, has_exited, reap_within, until_left};
use crate::errno::is_refusal;
use crate::fd::above_standard;
use crate::pidfd::PidFd;
use crate::signal::{Signal, kill};

/// The names of the calls in errors.
const CLONE: &str = "clone";
const CLONE_PIDFD: &str = "clone(CLONE_PIDFD)";
const PIDFD_OPEN: &str = "pidfd_open";

pub(super) const UNKNOWN: u8 = 0;
const BY_WORD: u8 = 1;
const BY_PIPE: u8 = 2;

/// The way by which this process learns that a child has left the memory.
static REPORTED: AtomicU8 = AtomicU8::new(UNKNOWN);

/// The longest wait for the end and the reaping of a child that was killed or has failed.
const ENDS_WITHIN: Duration = Duration::from_secs(1);

/// Starts the child and returns when it has executed its program, or failed and been reaped.
pub(super) fn clone(
    loan: Loan,
    lease: Option<Lease>,
    until: Option<Instant>,
) -> Result<Spawned, SpawnError> {
    clone_with(loan, lease, until, flags(), &REPORTED)
}

/// Starts the child. Without `flags` it gets a copy of the memory, as in an emulator. `known` is the
/// way by which earlier children were seen to leave the memory.
pub(super) fn clone_with(
    mut loan: Loan,
    lease: Option<Lease>,
    until: Option<Instant>,
    flags: i32,
    known: &AtomicU8,
) -> Result<Spawned, SpawnError> {
    let way = known.load(Ordering::Relaxed);
    let pipe = if way == BY_WORD { Ok(None) } else { Pipe::new(loan.above()).map(Some) };
    let pipe = match pipe {
        Ok(pipe) => pipe,
        // Without a spare descriptor, the pipe is left out where it is most likely not needed.
        Err(_) if way == UNKNOWN => None,
        Err(error) => return Err(process_error("pipe2", &error)),
    };
    loan.set_report(pipe.as_ref().map_or(-1, Pipe::writer));
    let _blocked = BlockedSignals::new();
    let (child, loan) = start(loan, flags)?;
    let mut report = pipe.map(Pipe::into_report);
    let Some(left) = until_left(&loan, &child, report.as_mut(), until) else {
        return Err(give_up(child, loan, lease));
    };
    match left {
        Left::Word => known.store(BY_WORD, Ordering::Relaxed),
        // A child that was killed early has said nothing about the way.
        Left::Pipe if !has_exited(&child) => known.store(BY_PIPE, Ordering::Relaxed),
        Left::Pipe | Left::Exit => {}
    }
    let reported = report.and_then(|report| report.failure());
    let failure = if loan.was_entered() { loan.failure() } else { reported };
    drop(loan);
    match failure {
        None => Ok(started(child, lease)),
        Some(Failure { step, errno }) => {
            let borrower = lease.and_then(|lease| lease.end(&child));
            if !reap_within(&child, ENDS_WITHIN) {
                remnants::add(Remnant { child, is_ours: true, loan: None, borrower });
            }
            Err(SpawnError { step, call: None, errno })
        }
    }
}

/// Ends the lease of a child that has executed its program.
fn started(child: Spawned, lease: Option<Lease>) -> Spawned {
    let Some(borrower) = lease.and_then(|lease| lease.end(&child)) else { return child };
    // Without a descriptor to watch the child, the memory stays marked as not dumpable for good.
    match child.pidfd.try_clone() {
        Ok(pidfd) => {
            let copy = Spawned { pid: child.pid, pidfd };
            let (is_ours, borrower) = (false, Some(borrower));
            remnants::add(Remnant { child: copy, is_ours, loan: None, borrower });
        }
        Err(_) => std::mem::forget(borrower),
    }
    child
}

/// Kills a child that has not left the memory in time, and returns the error of its step.
fn give_up(child: Spawned, loan: Loan, lease: Option<Lease>) -> SpawnError {
    let error = SpawnError { step: loan.step(), call: None, errno: libc::ETIMEDOUT };
    loan.give_up();
    // A kernel without the call, or a sandbox, may have the older one. Both fail if the child has
    // another user and this process may not signal it: the child then ends at its next step.
    if child.pidfd.send_signal(Signal::KILL).is_err() {
        let _ = kill(child.pid, Signal::KILL);
    }
    if !reap_within(&child, ENDS_WITHIN) {
        let borrower = lease.map(Lease::into_borrower);
        remnants::add(Remnant { child, is_ours: true, loan: Some(loan), borrower });
    }
    error
}

/// Returns the flags of `clone`.
fn flags() -> i32 {
    static FLAGS: OnceLock<i32> = OnceLock::new();
    *FLAGS.get_or_init(|| {
        let preloaded = std::env::var_os("LD_PRELOAD").unwrap_or_default();
        // Valgrind's own library, in every program that it runs.
        let emulated = preloaded.to_string_lossy().contains("vgpreload_core");
        if emulated { libc::CLONE_VM | libc::CLONE_VFORK } else { libc::CLONE_VM }
    })
}

/// Makes the child. Returns the loan as long as there is a child that may use it.
fn start(loan: Loan, flags: i32) -> Result<(Spawned, Loan), SpawnError> {
    let mut pidfd: i32 = -1;
    let refused = match enter(&loan, flags | libc::CLONE_PIDFD, &mut pidfd) {
        Ok(pid) => {
            // SAFETY: the kernel has put a new descriptor there, close-on-exec.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            let pidfd = PidFd::from_owned(above_standard(pidfd));
            return Ok((Spawned { pid, pidfd }, loan));
        }
        Err(error) if is_refusal(&error) => error,
        Err(error) => return Err(process_error(CLONE, &error)),
    };
    // Tried on this process first: a program that cannot be watched must not run.
    match PidFd::open(std::process::id()) {
        Ok(_) => {}
        Err(error) if is_refusal(&error) => return Err(process_error(CLONE_PIDFD, &refused)),
        Err(error) => return Err(process_error(PIDFD_OPEN, &error)),
    }
    let pid = match enter(&loan, flags, &mut pidfd) {
        Err(error) if is_refusal(&error) && flags & libc::CLONE_VM != 0 => {
            enter(&loan, flags | libc::CLONE_VFORK, &mut pidfd)
        }
        result => result,
    };
    let pid = pid.map_err(|error| process_error(CLONE, &error))?;
    match PidFd::open(pid) {
        Ok(pidfd) => Ok((Spawned { pid, pidfd }, loan)),
        Err(error) => {
            // Both fail if the child has ended and another part of the program has reaped it.
            let _ = kill(pid, Signal::KILL);
            let id = nix::unistd::Pid::from_raw(pid as i32);
            let until = Instant::now() + ENDS_WITHIN;
            let flag = Some(nix::sys::wait::WaitPidFlag::WNOHANG);
            while let Ok(nix::sys::wait::WaitStatus::StillAlive) = nix::sys::wait::waitpid(id, flag)
            {
                if Instant::now() > until {
                    // There is no descriptor by which its end could be seen.
                    std::mem::forget(loan);
                    break;
                }
                std::thread::sleep(Duration::from_millis(1));
            }
            Err(process_error(PIDFD_OPEN, &error))
        }
    }
}

/// Performs the call and returns the process id.
fn enter(loan: &Loan, flags: i32, pidfd: &mut i32) -> io::Result<u32> {
    let flags = flags | libc::SIGCHLD;
    let argument = loan.program().cast::<libc::c_void>();
    // SAFETY: the stack is ours and large enough for the child's program, which touches only what
    // the loan owns. The loan is not dropped while the child may use it. Signals are blocked, so no
    // handler of ours runs in the child.
    let pid = unsafe { libc::clone(child::main, loan.stack_top(), flags, argument, pidfd) };
    if pid < 0 { Err(io::Error::last_os_error()) } else { Ok(pid as u32) }
}
