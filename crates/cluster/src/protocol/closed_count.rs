//! The shared count of a worker's closed connections.
//!
//! The worker counts its closed connections in a page of memory that the primary maps too. The
//! primary knows how many connections it sent, so the difference is the number of connections that
//! are open or in the queue. A connection costs no message and no system call. Only at a connection
//! limit does the primary ask for a message, at the next closed connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::memory::Counters;

/// The word of the page that counts the closed connections.
const CLOSED: usize = 0;
/// The word of the page that is not 0 while the primary waits for a closed connection.
const AWAITED: usize = 1;

/// The count of one worker for one listener.
#[derive(Debug)]
pub(crate) struct ClosedCount(Counters);

impl ClosedCount {
    /// Creates a page. The descriptor is for the worker.
    ///
    /// # Errors
    ///
    /// The errors of `memfd_create(2)` and `mmap(2)`.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let file = Counters::create("brood-count")?;
        Ok((Self::map(file.as_fd())?, file))
    }

    /// Maps a page that the primary created.
    ///
    /// # Errors
    ///
    /// The errors of `mmap(2)`.
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        Counters::map(file).map(Self)
    }

    /// Counts one closed connection. Returns whether the primary waits for it.
    ///
    /// The primary first sets that it waits and then reads the count. The worker first counts and
    /// then reads whether the primary waits. In every order one of the two sees the other's write,
    /// and no closed connection is missed.
    pub(crate) fn count_closed(&self) -> bool {
        self.0.add(CLOSED, 1);
        self.0.load(AWAITED) != 0 && self.0.swap(AWAITED, 0) != 0
    }

    /// Returns the number of closed connections.
    pub(crate) fn closed(&self) -> u64 {
        self.0.load(CLOSED)
    }

    /// Asks the worker to send `HasRoom` when the next connection is closed.
    pub(crate) fn notify_next(&self) {
        self.0.swap(AWAITED, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_closed_connection_after_each_request_is_reported() {
        let (primary, page) = ClosedCount::new().unwrap();
        let worker = ClosedCount::map(page.as_fd()).unwrap();
        assert!(!worker.count_closed() && primary.closed() == 1);
        primary.notify_next();
        primary.notify_next();
        assert!(worker.count_closed() && primary.closed() == 2);
        assert!(!worker.count_closed() && primary.closed() == 3);
    }
}
