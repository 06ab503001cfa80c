//! The number of a worker.
//!
//! Pure.

use std::fmt;

/// The number of a worker: from 1, never used twice by one primary.
///
/// [`WorkerProcess::id`](crate::WorkerProcess::id) and [`Worker::id`](crate::Worker::id) return the
/// number on either side. A worker that replaces another has a number of its own. Numbers order
/// workers by age; `Display` writes the number alone.
///
/// Node: `worker.id`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub(crate) u32);

impl WorkerId {
    /// Returns the number.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
