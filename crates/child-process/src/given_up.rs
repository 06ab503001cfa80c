//! A cancelled process that cannot be ended, and the call that collects its output.
//!
//! The token may be cancelled on any thread, so the call must be woken to return the error.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::OnceLock;
use std::sync::atomic::{Ordering, fence};

use sys::eventfd::Semaphore;

use crate::error::Error;

/// The error with which the wait for a cancelled process ends before the process does.
#[derive(Debug, Default)]
pub(crate) struct GivenUp {
    error: OnceLock<Error>,
    waiter: OnceLock<Waiter>,
}

/// The waiting call.
#[derive(Debug)]
pub(crate) enum Waiter {
    Loop(reactor::Handle),
    Thread(Semaphore),
}

impl GivenUp {
    /// Sets the call, once, before it first asks for the [`error`](Self::error).
    pub(crate) fn set_waiter(&self, waiter: Waiter) {
        let first = self.waiter.set(waiter);
        debug_assert!(first.is_ok(), "one call collects the output of a child");
        // Either `set` finds the waiter, or the waiter finds the error.
        fence(Ordering::SeqCst);
    }

    /// Gives the process up. The first error stays.
    pub(crate) fn set(&self, error: Error) {
        let _ = self.error.set(error);
        fence(Ordering::SeqCst);
        match self.waiter.get() {
            Some(Waiter::Loop(handle)) => handle.wake(),
            Some(Waiter::Thread(semaphore)) => semaphore.add(),
            None => {}
        }
    }

    /// Returns the error, if the process was given up.
    pub(crate) fn error(&self) -> Option<&Error> {
        self.error.get()
    }

    /// Returns the descriptor that is readable once the process was given up, for a thread.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        match self.waiter.get()? {
            Waiter::Thread(semaphore) => Some(semaphore.as_fd()),
            Waiter::Loop(_) => None,
        }
    }
}
