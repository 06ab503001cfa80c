//! A turn: what a source may do while it answers an event.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::Instant;

use crate::Interest;
use crate::readiness::Readiness;
use crate::source::Token;
use crate::wake::SourceId;

/// The size of the loop's buffer for reading, [`Turn::read_buffer`].
pub const READ_BUFFER_BYTES: usize = 64 * 1024;

/// What a source may do while it answers an event. What it asks for here concerns itself alone.
#[derive(Debug)]
pub struct Turn<'a> {
    pub(crate) source: SourceId,
    pub(crate) now: Instant,
    pub(crate) readiness: &'a mut Readiness,
    pub(crate) buffer: &'a mut [u8],
    pub(crate) asked: Asked,
}

/// What the loop does when the event was answered.
#[derive(Debug, Default)]
pub(crate) struct Asked {
    /// The outer level: whether to change the deadline at all.
    pub(crate) deadline: Option<Option<Instant>>,
    pub(crate) again: bool,
    pub(crate) remove: bool,
}

impl Turn<'_> {
    /// The time when this event was delivered.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now
    }

    /// Watches `fd`; its news come as [`Event::Ready`](crate::Event::Ready) with `token`.
    ///
    /// Edge-triggered. What is ready already is told in the next turn. The source keeps the
    /// descriptor open until it has called [`deregister`](Self::deregister) or is dropped.
    ///
    /// # Errors
    ///
    /// `EEXIST` when it is registered already, `EPERM` for a file that cannot be watched (a
    /// regular file), `ENOSPC` over the user's limit of watches.
    pub fn register(
        &mut self,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        self.readiness.register(self.source, fd, token, interest)
    }

    /// Changes token and interest of a registered descriptor, and asks anew: what is ready now is
    /// told in the next turn, even if it was told before.
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

    /// Watches `fd` no longer; news already collected for it are dropped.
    ///
    /// # Errors
    ///
    /// [`NotFound`](io::ErrorKind::NotFound) when this source did not register `fd`.
    pub fn deregister(&mut self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.readiness.deregister(self.source, fd)
    }

    /// Sets this source's one deadline, or forgets it. It is told once, at `at` or up to a
    /// millisecond and the length of a turn later; one in the past is told in the next turn.
    pub fn set_deadline(&mut self, at: Option<Instant>) {
        self.asked.deadline = Some(at);
    }

    /// Asks for [`Event::Again`](crate::Event::Again) in the next turn, after the other sources:
    /// for a source that has used up its budget or has something "maybe ready".
    pub fn again(&mut self) {
        self.asked.again = true;
    }

    /// Removes this source: it is dropped when this event is answered, and gets no other one.
    pub fn remove(&mut self) {
        self.asked.remove = true;
    }

    /// A buffer to read into, for this event only: it belongs to the loop, so that ten thousand
    /// idle channels need none. What it holds at first is left over from somebody else.
    pub fn read_buffer(&mut self) -> &mut [u8] {
        self.buffer
    }
}
