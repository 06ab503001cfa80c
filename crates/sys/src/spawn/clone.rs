//! The system call that starts a child, and its substitutes in sandboxes and emulators.
//!
//! The kernel makes the child and its pidfd with one `clone(CLONE_PIDFD)`. Where that flag is
//! refused, the child is started without it and opened with `pidfd_open`, which names the right
//! process because the child is not reaped yet.
//!
//! Emulators (qemu-user, Valgrind) copy the memory of this process for the child, although
//! `CLONE_VM` asks to share it, and do not wait for the child. Its failures then come through a
//! pipe. The first child of a process shows which of the two ways works: the pipe is made for that
//! child only, or for every child in an emulator.

use std::io;
use std::os::fd::{FromRawFd, OwnedFd};
use std::ptr;
use std::sync::atomic::{AtomicU8, Ordering};

use super::child::{self, Failure, Program};
use super::engine::{SpawnError, Spawned, Stack, Watch, block_signals, errno_of, restore_signals};
use super::plan::Step;
use crate::errno::is_refusal;
use crate::fd::above_standard;
use crate::pidfd::PidFd;
use crate::signal::{Signal, kill};

/// The names of the calls in errors.
const CLONE: &str = "clone";
const CLONE_PIDFD: &str = "clone(CLONE_PIDFD)";
const PIDFD_OPEN: &str = "pidfd_open";

pub(super) const UNKNOWN: u8 = 0;
const SHARED: u8 = 1;
const COPIED: u8 = 2;

/// Whether a child shares the memory of this process.
static MEMORY: AtomicU8 = AtomicU8::new(UNKNOWN);

/// Starts the child and returns when it has executed its program, or failed and been reaped.
pub(super) fn clone(program: &mut Program<'_>) -> Result<Spawned, SpawnError> {
    clone_with(program, libc::CLONE_VM | libc::CLONE_VFORK, &MEMORY)
}

/// Starts the child. Without `flags` it gets a copy of the memory, as in an emulator. `known` says
/// whether earlier children shared the memory.
pub(super) fn clone_with(
    program: &mut Program<'_>,
    flags: i32,
    known: &AtomicU8,
) -> Result<Spawned, SpawnError> {
    let stack = Stack::new().map_err(|error| failed("mmap", &error))?;
    let memory = known.load(Ordering::Relaxed);
    let report = if memory == SHARED { Ok(None) } else { Watch::new(program.above).map(Some) };
    let report = match report {
        Ok(report) => report,
        // Without a spare descriptor, the pipe is left out where it is most likely not needed.
        Err(_) if memory == UNKNOWN => None,
        Err(error) => return Err(failed("pipe2", &error)),
    };
    program.report = report.as_ref().map_or(-1, Watch::writer);
    let Spawned { pid, pidfd } = start(program, &stack, flags)?;
    // SAFETY: a field of ours; volatile, because the child wrote it behind the compiler's back.
    let failure = if unsafe { (&raw const program.entered).read_volatile() } {
        known.store(SHARED, Ordering::Relaxed);
        // SAFETY: as above.
        unsafe { (&raw const program.failure).read_volatile() }
    } else {
        known.store(COPIED, Ordering::Relaxed);
        report.and_then(Watch::read)
    };
    match failure {
        None => Ok(Spawned { pid, pidfd }),
        Some(Failure { step, errno }) => {
            // Reaped before the call returns. An error here means that it is reaped already.
            let _ = pidfd.wait_child(pid);
            Err(SpawnError { step, call: None, errno })
        }
    }
}

fn start(program: &mut Program<'_>, stack: &Stack, flags: i32) -> Result<Spawned, SpawnError> {
    let mut pidfd: i32 = -1;
    let refused = match enter(program, stack, flags | libc::CLONE_PIDFD, &mut pidfd) {
        Ok(pid) => {
            // SAFETY: the kernel has put a new descriptor there, close-on-exec.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            return Ok(Spawned { pid, pidfd: PidFd::from_owned(above_standard(pidfd)) });
        }
        Err(error) if is_refusal(&error) => error,
        Err(error) => return Err(failed(CLONE, &error)),
    };
    // Tried on this process first: a program that cannot be watched must not run.
    match PidFd::open(std::process::id()) {
        Ok(_) => {}
        Err(error) if is_refusal(&error) => return Err(failed(CLONE_PIDFD, &refused)),
        Err(error) => return Err(failed(PIDFD_OPEN, &error)),
    }
    let pid = enter(program, stack, flags, &mut pidfd).map_err(|error| failed(CLONE, &error))?;
    PidFd::open(pid).map(|pidfd| Spawned { pid, pidfd }).map_err(|error| {
        // Both fail if the child has ended and another part of the program has reaped it.
        let _ = kill(pid, Signal::KILL);
        let _ = nix::sys::wait::waitpid(nix::unistd::Pid::from_raw(pid as i32), None);
        failed(PIDFD_OPEN, &error)
    })
}

/// Performs the call and returns the process id.
fn enter(program: &mut Program<'_>, stack: &Stack, flags: i32, pidfd: &mut i32) -> io::Result<u32> {
    let blocked = block_signals();
    let flags = flags | libc::SIGCHLD;
    let argument = ptr::from_mut(program).cast::<libc::c_void>();
    // SAFETY: the stack is ours and large enough for the child's program, which touches only what
    // `program` leads to. This thread stands still until the child has left our memory (or the
    // child has its own), so all of it stays alive; signals are blocked, so no handler of ours runs
    // in the child.
    let pid = unsafe { libc::clone(child::main, stack.top(), flags, argument, pidfd) };
    let error = io::Error::last_os_error();
    restore_signals(blocked);
    if pid < 0 { Err(error) } else { Ok(pid as u32) }
}

fn failed(call: &'static str, error: &io::Error) -> SpawnError {
    SpawnError { step: Step::Process, call: Some(call), errno: errno_of(error) }
}
