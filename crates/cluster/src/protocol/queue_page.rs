//! The page of memory that a primary and a worker share beside a hand-off queue.
//!
//! Five facts stand in the page, so that a connection costs no message:
//!
//! - The count of the connections that the worker has closed, for listeners that count. The primary
//!   knows how many connections it sent, so the difference is the number of connections that are
//!   open or in the queue. Only at a connection limit does the primary ask for a message, at the
//!   next closed connection.
//! - The side that reads the queue at present. A record is read in two system calls, see
//!   [`hand_off_queue`](super::hand_off_queue), and a read of the other side between the two would
//!   lose a connection. Each side therefore locks the queue for its reads.
//! - Whether the worker has no descriptor left for the next connection.
//! - Whether the worker has paused the listener.
//! - The count of the worker's signs of life: closed connections, and messages of its program. A
//!   worker that leaves its queue unread and gives such signs is not stuck.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use sys::memory::Counters;

/// The word of the page that counts the closed connections.
const CLOSED: usize = 0;
/// The word of the page that is not 0 while the primary waits for a closed connection.
const AWAITED: usize = 1;
/// The word of the page that says who reads the queue.
const READER: usize = 2;
/// The word of the page that is not 0 while the worker has no descriptor left.
const SHORT: usize = 3;

/// The word of the page that is not 0 while the listener is paused.
const PAUSED: usize = 4;
/// The word of the page that counts signs of life.
const SIGNS: usize = 5;

/// The values of [`READER`].
const NOBODY: u64 = 0;
const WORKER: u64 = 1;
const PRIMARY: u64 = 2;

/// The number of times for which the primary tries to lock the queue. The worker holds the lock for
/// two system calls, unless it is interrupted between them.
const PRIMARY_TRIES: u32 = 2000;

/// The page of one hand-off queue.
#[derive(Debug)]
pub(crate) struct QueuePage {
    words: Counters,
    /// Whether the worker counts its closed connections.
    counts_closed: bool,
}

/// Checks that a sandbox allows pages.
///
/// # Errors
///
/// `EPERM` or `ENOSYS` of `memfd_create(2)`.
pub(crate) fn check_allowed() -> io::Result<()> {
    match Counters::create("brood-queue") {
        Err(error) if sys::errno::is_refusal(&error) => Err(error),
        // A shortage may be over when the first worker listens.
        Ok(_) | Err(_) => Ok(()),
    }
}

impl QueuePage {
    /// Creates a page. The descriptor is for the worker.
    ///
    /// # Errors
    ///
    /// The errors of `memfd_create(2)` and `mmap(2)`.
    pub(crate) fn new(counts_closed: bool) -> io::Result<(Self, OwnedFd)> {
        let file = Counters::create("brood-queue")?;
        Ok((Self::map(file.as_fd(), counts_closed)?, file))
    }

    /// Maps a page that the primary created.
    ///
    /// # Errors
    ///
    /// The errors of `mmap(2)`.
    pub(crate) fn map(file: BorrowedFd<'_>, counts_closed: bool) -> io::Result<Self> {
        Ok(Self { words: Counters::map(file)?, counts_closed })
    }

    /// Whether the worker counts its closed connections.
    pub(crate) fn counts_closed(&self) -> bool {
        self.counts_closed
    }

    /// Counts one closed connection. Returns whether the primary waits for it.
    ///
    /// The primary first sets that it waits and then reads the count. The worker first counts and
    /// then reads whether the primary waits. In every order one of the two sees the other's write,
    /// and no closed connection is missed.
    pub(crate) fn count_closed(&self) -> bool {
        self.words.add(CLOSED, 1);
        self.words.load(AWAITED) != 0 && self.words.swap(AWAITED, 0) != 0
    }

    /// Returns the number of closed connections.
    pub(crate) fn closed(&self) -> u64 {
        self.words.load(CLOSED)
    }

    /// Asks the worker to send `HasRoom` when the next connection is closed.
    pub(crate) fn notify_next(&self) {
        self.words.swap(AWAITED, 1);
    }

    /// Records whether the worker has no descriptor left for the next connection.
    pub(crate) fn set_short_of_descriptors(&self, is_short: bool) {
        // The word rarely changes, and a load costs less than a swap.
        if self.is_short_of_descriptors() != is_short {
            self.words.swap(SHORT, u64::from(is_short));
        }
    }

    /// Whether the worker had no descriptor left when it last read.
    pub(crate) fn is_short_of_descriptors(&self) -> bool {
        self.words.load(SHORT) != 0
    }

    /// Records whether the worker has paused the listener.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.words.swap(PAUSED, u64::from(is_paused));
    }

    /// Whether the worker has paused the listener.
    pub(crate) fn is_paused(&self) -> bool {
        self.words.load(PAUSED) != 0
    }

    /// Counts a sign of life of the worker.
    pub(crate) fn give_sign_of_life(&self) {
        self.words.add(SIGNS, 1);
    }

    /// Returns the number of signs of life.
    pub(crate) fn signs_of_life(&self) -> u64 {
        self.words.load(SIGNS)
    }

    /// Locks the queue for the worker, unless the primary reads from it.
    pub(crate) fn try_lock_for_worker(&self) -> Option<ReadLock<'_>> {
        self.try_lock(WORKER)
    }

    /// Locks the queue for the primary, unless the worker reads from it. A worker that has ended
    /// may have left its lock behind, which `worker_ended` breaks.
    pub(crate) fn try_lock_for_primary(&self, worker_ended: bool) -> Option<ReadLock<'_>> {
        if worker_ended {
            self.words.swap(READER, NOBODY);
        }
        for _ in 0..PRIMARY_TRIES {
            if let Some(lock) = self.try_lock(PRIMARY) {
                return Some(lock);
            }
            std::hint::spin_loop();
        }
        None
    }

    fn try_lock(&self, reader: u64) -> Option<ReadLock<'_>> {
        self.words.compare_exchange(READER, NOBODY, reader).then(|| ReadLock(self))
    }
}

/// The right to read the queue, until it is dropped.
#[derive(Debug)]
pub(crate) struct ReadLock<'page>(&'page QueuePage);

impl Drop for ReadLock<'_> {
    fn drop(&mut self) {
        self.0.words.swap(READER, NOBODY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_closed_connection_after_each_request_is_reported() {
        let (primary, page) = QueuePage::new(true).unwrap();
        let worker = QueuePage::map(page.as_fd(), true).unwrap();
        assert!(!worker.count_closed() && primary.closed() == 1);
        primary.notify_next();
        primary.notify_next();
        assert!(worker.count_closed() && primary.closed() == 2);
        assert!(!worker.count_closed() && primary.closed() == 3);
    }

    #[test]
    fn one_side_reads_at_a_time_and_the_lock_of_an_ended_worker_is_broken() {
        let (primary, page) = QueuePage::new(false).unwrap();
        let worker = QueuePage::map(page.as_fd(), false).unwrap();
        let reading = primary.try_lock_for_primary(false).unwrap();
        assert!(worker.try_lock_for_worker().is_none());
        drop(reading);
        std::mem::forget(worker.try_lock_for_worker().unwrap());
        assert!(primary.try_lock_for_primary(false).is_none());
        assert!(primary.try_lock_for_primary(true).is_some());
        assert!(worker.try_lock_for_worker().is_some());
    }

    #[test]
    fn a_worker_says_that_it_has_paused_and_that_it_lives() {
        let (primary, page) = QueuePage::new(false).unwrap();
        let worker = QueuePage::map(page.as_fd(), false).unwrap();
        for is_paused in [true, true, false] {
            worker.set_paused(is_paused);
            assert_eq!(primary.is_paused(), is_paused);
        }
        worker.give_sign_of_life();
        assert_eq!(primary.signs_of_life(), 1);
    }

    #[test]
    fn a_worker_says_that_it_is_short_of_descriptors() {
        let (primary, page) = QueuePage::new(false).unwrap();
        let worker = QueuePage::map(page.as_fd(), false).unwrap();
        for is_short in [true, true, false] {
            worker.set_short_of_descriptors(is_short);
            assert_eq!(primary.is_short_of_descriptors(), is_short);
        }
    }
}
