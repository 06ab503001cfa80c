//! A worker's own listening socket, beside its hand-off queue: the policy `ReusePort`.
//!
//! The socket is the primary's as well, which accepts from it in our stead when we do not, and
//! sends what it accepted on the queue, as it does with what others have left. The end of the
//! queue is the end of both: from then on the primary accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use sys::poll::{self, Interest};
use sys::switch::Either;

use crate::queue::{Connection, Intake};

#[derive(Debug)]
pub(crate) struct Own {
    /// Readable when there is a connection in one of the two.
    either: Either,
    socket: OwnedFd,
    queue: Intake,
}

impl Own {
    pub(crate) fn new(socket: OwnedFd, queue: OwnedFd) -> io::Result<Self> {
        let queue = Intake::new(queue);
        Ok(Self { either: Either::new(socket.as_fd(), queue.as_fd())?, socket, queue })
    }

    /// Takes the next connection, from the queue first: those have waited longest. `WouldBlock`
    /// when there is none, `UnexpectedEof` when none will come.
    pub(crate) fn accept(&self) -> io::Result<Connection> {
        let (socket, queue) = (self.socket.as_fd(), self.queue.as_fd());
        let wanted = [(queue, Interest::READABLE), (socket, Interest::READABLE)];
        // One look for both.
        let ready = poll::wait(&wanted, Some(Duration::ZERO))?;
        if ready[0].any() {
            match self.queue.accept() {
                Ok(Some(connection)) => return Ok(connection),
                Ok(None) => {}
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.last(error);
                }
                Err(error) => return Err(error),
            }
        }
        if ready[1].any() {
            return self.accept_itself();
        }
        Err(io::ErrorKind::WouldBlock.into())
    }

    /// The queue is at its end. When the primary is gone nobody else takes what the socket has.
    fn last(&self, end: io::Error) -> io::Result<Connection> {
        let hung_up = poll::wait(&[(self.queue.as_fd(), Interest::HANGUP)], Some(Duration::ZERO))?;
        if !hung_up[0].any() {
            return Err(end);
        }
        match self.accept_itself() {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Err(end),
            accepted => accepted,
        }
    }

    fn accept_itself(&self) -> io::Result<Connection> {
        let (socket, peer) = sys::socket::accept(self.socket.as_fd())?;
        Ok(Connection { socket, peer })
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}
