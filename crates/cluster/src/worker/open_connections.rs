//! The open connections of a worker: how many there are, and when the last one began to be read.
//!
//! A server that shuts down gracefully drops connections from which nothing has been read, because
//! it cannot tell a new one from an idle one. A connection that was accepted a moment ago is such a
//! connection. The end of a listener is therefore reported only when the worker's newest connections
//! have had their time: [`FIRST_READ_MAX`] after the last accept or first read, or
//! [`UNREAD_MAX`] after the last accept if some connection has not been read at all.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::protocol::queue_page::QueuePage;
use crate::worker::draining::Drain;

/// The time from the moment at which a program begins to read a new connection to the moment at
/// which the connection counts as idle.
const FIRST_READ_MAX: Duration = Duration::from_millis(50);
/// The longest time after the last accept in which the program may begin to read the connection.
const UNREAD_MAX: Duration = Duration::from_millis(250);

/// The connections that a worker has accepted and not closed.
#[derive(Debug)]
pub(super) struct OpenConnections {
    /// The time to which the other times refer.
    start: Instant,
    open: AtomicUsize,
    /// The number of open connections that the program has not begun to read.
    unread: AtomicUsize,
    /// Nanoseconds from `start` to the last accept; 0 before the first.
    accepted_at: AtomicU64,
    /// The same for the last moment at which the program began to read a connection.
    read_at: AtomicU64,
    /// The pages of the listeners, on which the worker gives signs of life.
    pages: Mutex<Vec<Weak<QueuePage>>>,
}

impl OpenConnections {
    pub(super) fn new() -> Self {
        Self {
            start: Instant::now(),
            open: AtomicUsize::new(0),
            unread: AtomicUsize::new(0),
            accepted_at: AtomicU64::new(0),
            read_at: AtomicU64::new(0),
            pages: Mutex::default(),
        }
    }

    /// Adds the page of a listener.
    pub(super) fn add_page(&self, page: &Arc<QueuePage>) {
        let mut pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.retain(|page| page.strong_count() > 0);
        pages.push(Arc::downgrade(page));
    }

    /// Shows the primary that this worker is not stuck, whichever queue it leaves unread.
    pub(super) fn give_sign_of_life(&self) {
        let pages = self.pages.lock().unwrap_or_else(PoisonError::into_inner);
        pages.iter().filter_map(Weak::upgrade).for_each(|page| page.give_sign_of_life());
    }

    pub(super) fn open(&self) -> usize {
        self.open.load(Ordering::SeqCst)
    }

    /// Returns the time from which the worker's newest connections have had their time; `None` if
    /// none was accepted.
    pub(super) fn quiet_at(&self) -> Option<Instant> {
        let accepted = self.accepted_at.load(Ordering::Acquire);
        if accepted == 0 {
            return None;
        }
        let latest = self.at(accepted) + UNREAD_MAX;
        if self.unread.load(Ordering::Acquire) > 0 {
            return Some(latest);
        }
        let read = self.read_at.load(Ordering::Acquire);
        Some(latest.min(self.at(accepted.max(read)) + FIRST_READ_MAX))
    }

    fn at(&self, nanos: u64) -> Instant {
        self.start + Duration::from_nanos(nanos)
    }

    fn now(&self) -> u64 {
        u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX).max(1)
    }

    fn accepted(&self) {
        self.unread.fetch_add(1, Ordering::AcqRel);
        self.open.fetch_add(1, Ordering::SeqCst);
        self.accepted_at.fetch_max(self.now(), Ordering::AcqRel);
    }

    /// Counts one unread connection less. Returns whether that was the last one.
    fn read(&self) -> bool {
        self.read_at.fetch_max(self.now(), Ordering::AcqRel);
        self.unread.fetch_sub(1, Ordering::AcqRel) == 1
    }

    /// Counts one open connection less. Returns whether that was the last one.
    fn closed(&self) -> bool {
        self.give_sign_of_life();
        self.open.fetch_sub(1, Ordering::SeqCst) == 1
    }
}

/// The part of one connection in these counts; `drop` counts the connection as closed.
#[derive(Debug)]
pub(crate) struct OpenConnection {
    drain: Arc<Drain>,
    is_unread: bool,
}

impl OpenConnection {
    /// Counts a connection that was accepted now.
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        drain.connections().accepted();
        Self { drain, is_unread: true }
    }

    /// Notes that the program begins to read the connection; later calls change nothing.
    pub(crate) fn begin_read(&mut self) {
        if std::mem::take(&mut self.is_unread) && self.drain.connections().read() {
            self.drain.all_read();
        }
    }
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.begin_read();
        if self.drain.connections().closed() {
            self.drain.all_closed();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn left(drain: &Drain) -> Duration {
        let quiet_at = drain.connections().quiet_at().expect("a connection was accepted");
        quiet_at.saturating_duration_since(Instant::now())
    }

    #[test]
    fn a_connection_that_is_not_read_has_more_time_than_one_that_is() {
        let drain = Arc::new(Drain::new().unwrap());
        assert!(drain.connections().quiet_at().is_none());
        let mut first = OpenConnection::new(drain.clone());
        let second = OpenConnection::new(drain.clone());
        assert_eq!(drain.connections().open(), 2);
        assert!(left(&drain) > FIRST_READ_MAX);
        first.begin_read();
        first.begin_read();
        assert!(left(&drain) > FIRST_READ_MAX, "the second one is unread");
        drop(second);
        assert!(left(&drain) <= FIRST_READ_MAX);
        assert_eq!(drain.connections().open(), 1);
        drop(first);
        assert_eq!(drain.connections().open(), 0);
    }
}
