//! A counter with a descriptor to wait for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fd;

/// A counter whose descriptor is readable while the counter is above zero. See `eventfd(2)`.
///
/// Close-on-exec; no call on it blocks.
#[derive(Debug)]
pub struct Semaphore(EventFd);

impl Semaphore {
    /// Creates a counter at zero.
    ///
    /// # Errors
    ///
    /// `EMFILE` or `ENFILE` when no descriptor is left.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK | EfdFlags::EFD_SEMAPHORE;
        Ok(Self(fd::with_standard_occupied(|| EventFd::from_flags(flags))?))
    }

    /// Adds 1.
    pub fn add(&self) {
        // Fails only above 2^64 - 2.
        let _ = self.0.write(1);
    }

    /// Subtracts 1; returns false at zero.
    pub fn take(&self) -> bool {
        self.0.read().is_ok()
    }
}

impl AsFd for Semaphore {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_semaphore_is_readable_while_it_is_above_zero() {
        let count = Semaphore::new().unwrap();
        let readable = || crate::poll::readable(count.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(!readable() && !count.take());
        count.add();
        count.add();
        assert!(readable() && count.take());
        assert!(readable() && count.take());
        assert!(!readable() && !count.take());
    }
}
