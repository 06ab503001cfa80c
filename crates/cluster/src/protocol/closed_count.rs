//! The shared count of a worker's connections that have ended.
//!
//! The primary knows what it sent; what has ended the worker counts up in a page that both have
//! mapped. The difference is what the worker has open or in its queue. No message and no system
//! call per connection; only who has all it may have is asked to tell of the next that ends.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::memory::Counters;

/// How many have ended.
const ENDED: usize = 0;
/// The primary waits for the next: not 0.
const AWAITED: usize = 1;

/// One worker's count for one listener.
#[derive(Debug)]
pub(crate) struct ClosedCount(Counters);

impl ClosedCount {
    /// Makes a page; the descriptor is for the worker.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let file = Counters::create("brood-count")?;
        Ok((Self::map(file.as_fd())?, file))
    }

    /// Maps the page that came from the primary.
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        Counters::map(file).map(Self)
    }

    /// A connection has ended. Answers whether the primary waits for that.
    ///
    /// The primary says that it waits and then looks once more; here it is the other way round.
    /// So one of the two sees what the other did.
    pub(crate) fn end(&self) -> bool {
        self.0.add(ENDED, 1);
        self.0.load(AWAITED) != 0 && self.0.swap(AWAITED, 0) != 0
    }

    /// The number of connections that have ended.
    pub(crate) fn closed(&self) -> u64 {
        self.0.load(ENDED)
    }

    /// Asks the worker to say `HasRoom` when the next one ends.
    pub(crate) fn notify_next(&self) {
        self.0.swap(AWAITED, 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_next_end_is_told_once_to_who_waits_for_it() {
        let (primary, page) = ClosedCount::new().unwrap();
        let worker = ClosedCount::map(page.as_fd()).unwrap();
        assert!(!worker.end() && primary.closed() == 1);
        primary.notify_next();
        primary.notify_next();
        assert!(worker.end() && primary.closed() == 2);
        assert!(!worker.end() && primary.closed() == 3);
    }
}
