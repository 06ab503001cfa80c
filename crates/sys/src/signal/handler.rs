//! The parts that the signal handlers of this crate have in common.
//!
//! Everything that a handler calls here is async-signal-safe. A handler runs inside of
//! [`in_handler`], so that [`handlers_are_gone`] can wait for its end.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::{io, mem, ptr, thread};

use super::Signal;

/// A handler with `SA_SIGINFO`.
pub(super) type Handler = extern "C" fn(libc::c_int, *const libc::siginfo_t, *const libc::c_void);

/// Returns the disposition with this handler.
pub(super) fn with_handler(handler: Handler) -> libc::sigaction {
    // SAFETY: plain C data, for which all zeros is a value: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = handler as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK | libc::SA_SIGINFO;
    action
}

/// Sets a disposition if `new` is given; returns the one from before.
pub(super) fn action(signal: Signal, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: plain C data, for which all zeros is a value.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `new` is null or valid, `old` is writable, and the handler that may be set is
    // async-signal-safe and lives for ever.
    match unsafe { libc::sigaction(signal.0, new, &mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

/// The sender of a signal, as far as it matters.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    Kernel,
    /// A process that used `sigqueue(3)`.
    Queue(u32),
    Other,
}

impl Origin {
    /// The value of `si_code` for a signal of the kernel that has no code of its own.
    const SI_KERNEL: libc::c_int = 0x80;

    /// Reads the argument of a handler.
    pub(super) fn of_pointer(info: *const libc::siginfo_t) -> Self {
        // SAFETY: with `SA_SIGINFO` the kernel passes a valid pointer, and code that calls an
        // earlier handler passes its own on. Code that passes none is taken care of.
        unsafe { info.as_ref() }.map_or(Self::Other, Self::of)
    }

    fn of(info: &libc::siginfo_t) -> Self {
        match info.si_code {
            Self::SI_KERNEL => Self::Kernel,
            libc::SI_QUEUE => {
                // SAFETY: the kernel fills in the sender of a queued signal.
                let pid = unsafe { info.si_pid() };
                Self::Queue(u32::try_from(pid).unwrap_or(0))
            }
            _ => Self::Other,
        }
    }
}

/// The number of handlers that are running, in all threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

/// Runs a handler's work: counts the handler as running, and keeps the errno of this thread.
pub(super) fn in_handler(work: impl FnOnce()) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: gives the address of this thread's errno; async-signal-safe.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid for as long as this thread runs.
    let kept = unsafe { *errno };
    work();
    // SAFETY: as above; the interrupted code must find its errno again.
    unsafe { *errno = kept };
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

/// Waits for the handlers that are running; a handler takes microseconds. Returns `false` if one is
/// still running: its thread was stopped in the middle, or this is the child of a fork that happened
/// there.
pub(super) fn handlers_are_gone() -> bool {
    (0..1000).any(|_| {
        let gone = RUNNING.load(Ordering::SeqCst) == 0;
        if !gone {
            thread::yield_now();
        }
        gone
    })
}
