//! A worker's own listening socket beside its hand-off queue, for the policy `ReusePort`.
//!
//! The primary holds the socket, too. When this worker does not accept, the primary accepts on its
//! behalf and sends the connections through a queue, as it does with the connections of sockets
//! whose worker is gone. The end of the queue ends both sources: from then on the primary accepts.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use sys::errno;
use sys::nested_epoll::AnyOf;
use sys::poll::{self, Interest};

use crate::bind::is_of_the_connection;
use crate::error::Error;
use crate::protocol::hand_off_queue::{Connection, QueueReader};

/// A listening socket and a hand-off queue, read in turns.
#[derive(Debug)]
pub(crate) struct OwnSocket {
    /// Readable while a connection waits in the socket or in the queue.
    readiness: AnyOf,
    socket: OwnedFd,
    queue: QueueReader,
    /// Set when the next turn is the socket's: after a connection from the queue, and while the
    /// socket has a connection for which no descriptor is left. The queue stays unread in that
    /// time, from which the primary learns that this worker does not accept.
    socket_first: AtomicBool,
    /// Set when the primary has shut the socket down, for all processes that hold it.
    socket_ended: AtomicBool,
    primary_pid: u32,
}

impl OwnSocket {
    pub(crate) fn new(socket: OwnedFd, queue: QueueReader) -> io::Result<Self> {
        let readiness = AnyOf::new(socket.as_fd(), queue.as_fd())?;
        let (socket_first, socket_ended) = (AtomicBool::new(false), AtomicBool::new(false));
        let primary_pid = parent_id();
        Ok(Self { readiness, socket, queue, socket_first, socket_ended, primary_pid })
    }

    /// Accepts the next connection without waiting; `None` when no connection waits.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when no further connection will arrive; [`Error::Os`] with `EMFILE` when
    /// no descriptor is left.
    pub(crate) fn accept(&self) -> Result<Option<Connection>, Error> {
        let (socket, queue) = (self.socket.as_fd(), self.queue.as_fd());
        let wanted = [(queue, Interest::READABLE), (socket, Interest::READABLE)];
        // A single poll asks for both: a failed accept on an empty socket costs far more than a poll.
        let ready = poll::wait(&wanted, Some(Duration::ZERO));
        let ready = ready.map_err(|source| Error::Os("poll", source))?;
        // A socket that was shut down polls as ready for ever.
        let (queue, socket) =
            (ready[0].any(), ready[1].any() && !self.socket_ended.load(Ordering::Relaxed));
        let socket_first = socket && self.socket_first.swap(false, Ordering::Relaxed);
        if socket_first {
            if let Some(connection) = self.accept_from_socket()? {
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
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                    return self.accept_after_queue();
                }
                Err(source) => return Err(Error::Os("recvmsg", source)),
            }
        }
        if socket && !socket_first { self.accept_from_socket() } else { Ok(None) }
    }

    /// Accepts from the socket after the queue has ended.
    ///
    /// While the primary lives it accepts the socket's connections, and the listener is closed. If
    /// the primary is gone, no other process accepts them.
    fn accept_after_queue(&self) -> Result<Option<Connection>, Error> {
        // A primary that ends the queue shuts its end down, which is no hang-up. Only the close of
        // that end is one: the primary has dropped the queue, or is gone.
        let hung_up = poll::wait(&[(self.queue.as_fd(), Interest::HANGUP)], Some(Duration::ZERO));
        if !hung_up.is_ok_and(|ready| ready[0].any()) {
            return Err(Error::Closed);
        }
        if parent_id() != self.primary_pid {
            // No process will serve a client that connects from now on.
            let _ = sys::socket::stop_connects(self.socket.as_fd());
        }
        self.accept_from_socket()?.map_or(Err(Error::Closed), |connection| Ok(Some(connection)))
    }

    fn accept_from_socket(&self) -> Result<Option<Connection>, Error> {
        loop {
            let error = match sys::socket::accept(self.socket.as_fd()) {
                Ok((socket, peer)) => {
                    self.queue.set_short_of_descriptors(false);
                    return Ok(Some(Connection { socket, peer }));
                }
                Err(error) => error,
            };
            match error.raw_os_error() {
                Some(errno::EAGAIN) => return Ok(None),
                // `accept4(2)` returns this error on a socket that was shut down.
                Some(errno::EINVAL) => {
                    self.socket_ended.store(true, Ordering::Relaxed);
                    // Fails if another thread has removed the socket before.
                    let _ = self.readiness.remove(self.socket.as_fd());
                    return Ok(None);
                }
                Some(errno) if is_of_the_connection(errno) => {}
                _ => {
                    self.socket_first.store(true, Ordering::Relaxed);
                    self.queue.set_short_of_descriptors(true);
                    return Err(Error::Os("accept4", error));
                }
            }
        }
    }
}

impl AsFd for OwnSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.readiness.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::hand_off_queue::HandOffQueue;
    use crate::protocol::queue_page::QueuePage;
    use std::net::TcpStream;
    use std::sync::Arc;

    fn queue() -> (HandOffQueue, QueueReader) {
        let (page, page_of_worker) = QueuePage::new(false).unwrap();
        let (queue, worker_end) = HandOffQueue::new(Arc::new(page)).unwrap();
        let page = QueuePage::map(page_of_worker.as_fd(), false).unwrap();
        (queue, QueueReader::new(worker_end, Arc::new(page)))
    }

    #[test]
    fn queue_and_socket_take_turns_and_the_queue_goes_on_after_the_socket_has_ended() {
        let socket =
            sys::reuse_port::bind_first("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = sys::socket::local_address(socket.as_fd()).unwrap();
        let shared = socket.try_clone().unwrap();
        let (queue, reader) = queue();
        let own = OwnSocket::new(socket, reader).unwrap();
        let readable = || poll::readable(own.as_fd(), Some(Duration::ZERO)).unwrap();
        assert!(own.accept().unwrap().is_none() && !readable());

        let clients: Vec<_> = (0..4).map(|_| TcpStream::connect(address).unwrap()).collect();
        // Two of the four connections arrive through the queue.
        for _ in 0..2 {
            let (socket, peer) = sys::socket::accept(shared.as_fd()).unwrap();
            queue.send(&Connection { socket, peer }).unwrap();
        }
        assert!(readable());
        let port = |client: &TcpStream| client.local_addr().unwrap().port();
        let order: Vec<_> =
            (0..4).map(|_| own.accept().unwrap().unwrap().peer.unwrap().port()).collect();
        assert_eq!(order, [0, 2, 1, 3].map(|at: usize| port(&clients[at])));
        assert!(own.accept().unwrap().is_none() && !readable());

        sys::socket::shutdown_both(shared.as_fd()).unwrap();
        assert!(
            own.accept().unwrap().is_none() && !readable(),
            "the socket is not watched any more"
        );
        let (one, _other) = sys::socket::pair_stream().unwrap();
        queue.send(&Connection { socket: one, peer: None }).unwrap();
        assert!(readable() && own.accept().unwrap().is_some());
        queue.end().unwrap();
        assert!(readable() && matches!(own.accept(), Err(Error::Closed)));
    }

    #[test]
    fn connections_of_the_socket_are_accepted_when_the_primary_is_gone() {
        let socket =
            sys::reuse_port::bind_first("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = sys::socket::local_address(socket.as_fd()).unwrap();
        let (queue, reader) = queue();
        let own = OwnSocket::new(socket, reader).unwrap();
        let _clients = [TcpStream::connect(address).unwrap(), TcpStream::connect(address).unwrap()];
        drop(queue);
        assert!(own.accept().unwrap().is_some() && own.accept().unwrap().is_some());
        assert!(matches!(own.accept(), Err(Error::Closed)));
    }
}
