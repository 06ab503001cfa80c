//! The two deadlines of a worker that ends: for its drain, and for its exit as an orphan.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::worker::Worker;
use crate::worker::draining::Draining;

/// The times at which a drain began and the primary was lost.
#[derive(Debug)]
pub(super) struct Deadlines {
    drain_begun: OnceLock<Instant>,
    orphaned: OnceLock<Instant>,
    orphan_drain: Mutex<Duration>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            drain_begun: OnceLock::new(),
            orphaned: OnceLock::new(),
            orphan_drain: Mutex::new(Worker::ORPHAN_DRAIN),
        }
    }

    pub(super) fn set_orphan_drain(&self, limit: Duration) {
        *self.orphan_drain.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Notes that the drain has begun; later calls change nothing.
    pub(super) fn set_drain_begun(&self) {
        self.drain_begun.get_or_init(Instant::now);
    }

    /// Notes that the primary is gone; later calls change nothing.
    pub(super) fn set_orphaned(&self) {
        self.orphaned.get_or_init(Instant::now);
    }

    /// Returns the time from which a drain no longer waits for queues that the program does not
    /// read.
    pub(super) fn drain_read(&self) -> Option<Instant> {
        self.drain_begun.get()?.checked_add(Draining::READ_MAX)
    }

    /// Returns the time at which an orphan exits.
    pub(super) fn orphan_exit(&self) -> Option<Instant> {
        let limit = *self.orphan_drain.lock().unwrap_or_else(PoisonError::into_inner);
        self.orphaned.get()?.checked_add(limit)
    }
}
