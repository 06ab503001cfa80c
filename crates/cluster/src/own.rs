//! A worker's own listening socket, beside its hand-off queue: the policy `ReusePort`.
//!
//! The socket is the primary's as well, which accepts from it in our stead when we do not, and
//! sends what it accepted on the queue, as it does with what others have left. The end of the
//! queue is the end of both: from then on the primary accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sys::epoll::AnyOf;
use sys::errno;
use sys::poll::{self, Interest};

use crate::error::Error;
use crate::port::is_of_the_connection;
use crate::queue::{Connection, Intake};

#[derive(Debug)]
pub(crate) struct Own {
    /// Readable when there is a connection in one of the two.
    either: AnyOf,
    socket: OwnedFd,
    queue: Intake,
    /// It is the socket's turn: after one from the queue, and as long as the socket has one that we
    /// have no descriptor for. Meanwhile the queue stays unread, by which the primary sees it.
    socket_first: AtomicBool,
    /// The primary has ended the socket, for all who have it.
    ended: AtomicBool,
    primary: u32,
}

impl Own {
    pub(crate) fn new(socket: OwnedFd, queue: OwnedFd) -> io::Result<Self> {
        let queue = Intake::new(queue);
        let either = AnyOf::new(socket.as_fd(), queue.as_fd())?;
        let (socket_first, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Ok(Self { either, socket, queue, socket_first, ended, primary: parent_id() })
    }

    /// Takes the next connection, if there is one; [`Error::Closed`] when none will come.
    pub(crate) fn accept(&self) -> Result<Option<Connection>, Error> {
        let (socket, queue) = (self.socket.as_fd(), self.queue.as_fd());
        let wanted = [(queue, Interest::READABLE), (socket, Interest::READABLE)];
        // One look for both.
        let ready = poll::wait(&wanted, Some(Duration::ZERO));
        let ready = ready.map_err(|source| Error::Os("poll", source))?;
        let (queue, socket) =
            (ready[0].any(), ready[1].any() && !self.ended.load(Ordering::Relaxed));
        let socket_first = socket && self.socket_first.swap(false, Ordering::Relaxed);
        if socket_first {
            if let Some(connection) = self.accept_itself()? {
                return Ok(Some(connection));
            }
        }
        if queue {
            match self.queue.accept() {
                Ok(None) => {}
                Ok(connection) => {
                    self.socket_first.store(true, Ordering::Relaxed);
                    return Ok(connection);
                }
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return self.last(),
                Err(source) => return Err(Error::Os("recvmsg", source)),
            }
        }
        if socket && !socket_first { self.accept_itself() } else { Ok(None) }
    }

    /// The queue is at its end. When the primary is gone nobody else takes what the socket has.
    fn last(&self) -> Result<Option<Connection>, Error> {
        let hung_up = poll::wait(&[(self.queue.as_fd(), Interest::HANGUP)], Some(Duration::ZERO));
        if !hung_up.is_ok_and(|ready| ready[0].any()) {
            return Err(Error::Closed);
        }
        if parent_id() != self.primary {
            // Nobody who comes from now on would be served.
            let _ = sys::socket::stop_connects(self.socket.as_fd());
        }
        self.accept_itself()?.map_or(Err(Error::Closed), |connection| Ok(Some(connection)))
    }

    fn accept_itself(&self) -> Result<Option<Connection>, Error> {
        loop {
            let error = match sys::socket::accept(self.socket.as_fd()) {
                Ok((socket, peer)) => {
                    let connection = Connection { socket, peer };
                    self.queue.note(&connection);
                    return Ok(Some(connection));
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(errno::EAGAIN) => return Ok(None),
                Some(errno::EINVAL) => {
                    self.ended.store(true, Ordering::Relaxed);
                    // Fails the second time.
                    let _ = self.either.remove(self.socket.as_fd());
                    return Ok(None);
                }
                Some(errno) if is_of_the_connection(errno) => {}
                _ => {
                    self.socket_first.store(true, Ordering::Relaxed);
                    return Err(Error::Os("accept4", error));
                }
            }
        }
    }
}

impl AsFd for Own {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.either.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::queue::Queue;
    use std::net::TcpStream;

    #[test]
    fn queue_and_socket_take_turns_and_the_end_of_one_is_not_that_of_the_other() {
        let socket =
            sys::reuse_port::bind_first("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = sys::socket::local_address(socket.as_fd()).unwrap();
        let shared = socket.try_clone().unwrap();
        let (queue, end) = Queue::new().unwrap();
        let own = Own::new(socket, end).unwrap();
        let readable = || poll::readable(own.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(own.accept().unwrap().is_none() && !readable());

        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Of the four, two come by the queue.
        for _ in 0..2 {
            let (socket, peer) = sys::socket::accept(shared.as_fd()).unwrap();
            queue.send(&Connection { socket, peer }).unwrap();
        }
        assert!(readable());
        let port = |client: &TcpStream| client.local_addr().unwrap().port();
        let took: Vec<_> =
            (0..4).map(|_| own.accept().unwrap().unwrap().peer.unwrap().port()).collect();
        assert_eq!(took, [0, 2, 1, 3].map(|at: usize| port(&clients[at])));
        assert!(own.accept().unwrap().is_none() && !readable());

        sys::socket::shutdown_both(shared.as_fd()).unwrap();
        assert!(own.accept().unwrap().is_none() && !readable(), "it is not heard any more");
        let (one, _other) = sys::socket::pair_stream().unwrap();
        queue.send(&Connection { socket: one, peer: None }).unwrap();
        assert!(readable() && own.accept().unwrap().is_some());
        queue.end().unwrap();
        assert!(readable() && matches!(own.accept(), Err(Error::Closed)));
    }

    #[test]
    fn what_the_socket_has_is_taken_when_the_primary_is_gone() {
        let socket =
            sys::reuse_port::bind_first("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = sys::socket::local_address(socket.as_fd()).unwrap();
        let (queue, end) = Queue::new().unwrap();
        let own = Own::new(socket, end).unwrap();
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        drop(queue);
        assert!(own.accept().unwrap().is_some() && own.accept().unwrap().is_some());
        assert!(matches!(own.accept(), Err(Error::Closed)));
    }
}
