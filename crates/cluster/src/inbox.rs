//! The inbox: connections that a Node primary sent and this worker has not accepted.
//!
//! They come on the channel, and the loop puts them here. Each is answered for when it is
//! accepted: a worker that does not accept gets no second one, and what it leaves unaccepted can
//! still go to another. The descriptor is readable when a take is worth a try.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sys::semaphore::Semaphore;

use crate::queue::Connection;

#[derive(Debug)]
pub(crate) struct Inbox {
    waiting: Mutex<Waiting>,
    /// As many as wait, and one more when nothing will come.
    ready: Semaphore,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With the numbers they are to be answered by.
    connections: VecDeque<(i64, Connection)>,
    ended: bool,
}

impl Inbox {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { waiting: Mutex::default(), ready: Semaphore::new()? })
    }

    /// Puts a connection here; it comes back when the inbox has ended.
    pub(crate) fn put(&self, number: i64, connection: Connection) -> Result<(), Connection> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Err(connection);
        }
        waiting.connections.push_back((number, connection));
        self.ready.add();
        Ok(())
    }

    /// Takes the next connection; `None` when none waits, an error kind of `UnexpectedEof` when
    /// none will come.
    pub(crate) fn take(&self) -> io::Result<Option<(i64, Connection)>> {
        let mut waiting = self.lock();
        match waiting.connections.pop_front() {
            Some(first) => {
                self.ready.take();
                Ok(Some(first))
            }
            None if waiting.ended => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Ok(None),
        }
    }

    /// Nothing more will come; what is here can still be taken.
    pub(crate) fn end(&self) {
        if !std::mem::replace(&mut self.lock().ended, true) {
            self.ready.add();
        }
    }

    /// Nobody takes any more; gives the numbers of those that nobody took.
    pub(crate) fn close(&self) -> Vec<i64> {
        self.end();
        std::mem::take(&mut self.lock().connections).into_iter().map(|(number, _)| number).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn connection() -> Connection {
        Connection { socket: sys::socket::pair_stream().unwrap().0, peer: None }
    }

    fn readable(inbox: &Inbox) -> bool {
        sys::poll::readable(inbox.as_fd(), Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn it_is_readable_while_a_take_is_worth_a_try() {
        let inbox = Inbox::new().unwrap();
        assert!(!readable(&inbox) && inbox.take().unwrap().is_none());
        inbox.put(7, connection()).unwrap();
        assert!(readable(&inbox));
        assert_eq!(inbox.take().unwrap().unwrap().0, 7);
        assert!(!readable(&inbox));
        inbox.put(8, connection()).unwrap();
        inbox.end();
        inbox.end();
        assert_eq!(inbox.take().unwrap().unwrap().0, 8, "what was there can be taken");
        for _ in 0..2 {
            assert!(readable(&inbox));
            assert_eq!(inbox.take().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(inbox.put(9, connection()).is_err());
    }

    #[test]
    fn what_nobody_took_is_named_when_it_closes() {
        let inbox = Inbox::new().unwrap();
        inbox.put(1, connection()).unwrap();
        inbox.put(2, connection()).unwrap();
        assert_eq!(inbox.close(), [1, 2]);
        assert!(inbox.close().is_empty() && inbox.put(3, connection()).is_err());
    }
}
