//! The two deadlines of a worker that ends: for its drain, and for its exit as an orphan.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::worker::draining::DRAIN_READ_MS_MAX;

/// The default time that a worker whose primary has died may finish its connections, in
/// milliseconds.
pub const ORPHAN_DRAIN_MS: u64 = 1500;

/// The times at which a drain began and the primary was lost.
#[derive(Debug)]
pub(super) struct Deadlines {
    drain_begun: OnceLock<Instant>,
    orphaned: OnceLock<Instant>,
    orphan_drain_ms: AtomicU64,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            drain_begun: OnceLock::new(),
            orphaned: OnceLock::new(),
            orphan_drain_ms: AtomicU64::new(ORPHAN_DRAIN_MS),
        }
    }

    pub(super) fn set_orphan_drain(&self, limit: Duration) {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.orphan_drain_ms.store(ms, Ordering::Relaxed);
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
        self.drain_begun.get()?.checked_add(Duration::from_millis(DRAIN_READ_MS_MAX))
    }

    /// Returns the time at which an orphan exits.
    pub(super) fn orphan_exit(&self) -> Option<Instant> {
        let ms = self.orphan_drain_ms.load(Ordering::Relaxed);
        self.orphaned.get()?.checked_add(Duration::from_millis(ms))
    }
}
