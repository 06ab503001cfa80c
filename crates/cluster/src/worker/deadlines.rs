//! The deadlines of a worker that ends: for the primary's answer, for its drain, for the end of its
//! channel, and for its exit as an orphan.

use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use crate::worker::Worker;
use crate::worker::drain_waits::Draining;

/// The longest time that a worker waits for a Node primary to answer its request to disconnect.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// The time from the end of all work to the end of the channel, for the program's last messages.
const LAST_MESSAGES_MAX: Duration = Duration::from_millis(100);

/// The times at which the stages of a worker's end were reached.
#[derive(Debug)]
pub(super) struct Deadlines {
    disconnect_requested: OnceLock<Instant>,
    drain_begun: OnceLock<Instant>,
    orphaned: OnceLock<Instant>,
    orphan_drain: Mutex<Duration>,
    /// The time at which the worker had no work left.
    complete: OnceLock<Instant>,
}

impl Deadlines {
    pub(super) fn new() -> Self {
        Self {
            disconnect_requested: OnceLock::new(),
            drain_begun: OnceLock::new(),
            orphaned: OnceLock::new(),
            orphan_drain: Mutex::new(Worker::ORPHAN_DRAIN),
            complete: OnceLock::new(),
        }
    }

    pub(super) fn set_orphan_drain(&self, limit: Duration) {
        *self.orphan_drain.lock().unwrap_or_else(PoisonError::into_inner) = limit;
    }

    /// Notes that the worker asked a Node primary to disconnect it; later calls change nothing.
    pub(super) fn set_disconnect_requested(&self) {
        self.disconnect_requested.get_or_init(Instant::now);
    }

    /// Returns the time at which the drain begins without the primary's answer.
    pub(super) fn answer(&self) -> Option<Instant> {
        self.disconnect_requested.get()?.checked_add(ANSWER_MAX)
    }

    /// Notes that the worker has no work left, and returns the time at which its channel closes.
    pub(super) fn channel_close(&self, now: Instant) -> Option<Instant> {
        self.complete.get_or_init(|| now).checked_add(LAST_MESSAGES_MAX)
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
