//! The turn: the access to the loop that a source has while it handles an event.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::Interest;
use crate::event::{SourceId, Token};
use crate::poller::Readiness;

/// The size of the loop's buffer for reading, [`Turn::read_buffer`].
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// The access to the loop that a source has while it handles an event.
///
/// Every request concerns this source alone.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(crate) source: SourceId,
    pub(crate) now: Instant,
    pub(crate) readiness: &'a mut Readiness,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) requests: Requests,
}

/// The requests of a source that the loop performs once the event is handled.
#[derive(Debug, Default)]
pub(crate) struct Requests {
    /// The new deadline. `None` leaves the deadline as it is; `Some(None)` clears it.
    pub(crate) deadline: Option<Option<Instant>>,
    pub(crate) again: bool,
    pub(crate) remove: bool,
}

impl Turn<'_> {
    /// Returns the time at which this event was delivered.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Watches `fd` and delivers its readiness as [`Event::Ready`](crate::Event::Ready) with
    /// `token`.
    ///
    /// Registrations are edge-triggered. A descriptor that is ready already is reported in the
    /// next turn. The source keeps the descriptor open until it has called
    /// [`deregister`](Self::deregister) or is dropped.
    ///
    /// # Errors
    ///
    /// `EEXIST` when the descriptor is registered already, `EPERM` for a file that cannot be
    /// watched (a regular file), `ENOSPC` when the user has no watches left. See `epoll_ctl(2)`.
    pub fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.readiness.register(self.source, fd, token, interest)
    }

    /// Changes token and interest of a registered descriptor, and polls the descriptor anew.
    ///
    /// A descriptor that is ready now is reported in the next turn, even if it was reported
    /// before.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) when this source did not register `fd`.
    pub fn reregister(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.readiness.reregister(self.source, fd, token, interest)
    }

    /// Stops watching `fd`. Events that are already collected for the descriptor are dropped.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) when this source did not register `fd`.
    pub fn deregister(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.readiness.deregister(self.source, fd)
    }

    /// Sets the one deadline of this source, or clears it.
    ///
    /// [`Event::Deadline`](crate::Event::Deadline) follows once, at `at` or later by up to a
    /// millisecond and the length of a turn. For a deadline in the past the event follows in the
    /// next turn.
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.requests.deadline = Some(at);
    }

    /// Requests [`Event::Again`](crate::Event::Again) in the next turn, after the other sources.
    ///
    /// A source calls this when its budget is used up or when a descriptor may still be ready.
    pub fn again(&mut self) {
        self.requests.again = true;
    }

    /// Removes this source: the loop drops it after this event and delivers no other one to it.
    pub fn remove(&mut self) {
        self.requests.remove = true;
    }

    /// Returns a buffer to read into, for this event only.
    ///
    /// The buffer belongs to the loop, so that ten thousand idle channels need none of their own.
    /// Its bytes are left over from other sources.
    pub fn read_buffer(&mut self) -> &mut [u8] {
        self.buffer
    }
}
