//! The shared count of a worker's connections that have ended.
//!
//! The primary knows what it sent; what has ended the worker counts up in a page that both have
//! mapped. The difference is what the worker has open or in its queue. No message and no system
//! call per connection.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::memory::Counters;

use crate::core::Ends;

/// How many have ended.
const ENDED: usize = 0;

/// One worker's count for one listener.
#[derive(Debug)]
pub(crate) struct Count(Counters);

impl Count {
    /// Makes a page; the descriptor is for the worker.
    pub(crate) fn new() -> io::Result<(Self, OwnedFd)> {
        let file = Counters::create("brood-count")?;
        Ok((Self::map(file.as_fd())?, file))
    }

    /// Maps the page that came from the primary.
    pub(crate) fn map(file: BorrowedFd<'_>) -> io::Result<Self> {
        Counters::map(file).map(Self)
    }

    /// A connection has ended.
    pub(crate) fn end(&self) {
        self.0.add(ENDED, 1);
    }
}

impl Ends for Count {
    fn ended(&self) -> u64 {
        self.0.load(ENDED)
    }
}
