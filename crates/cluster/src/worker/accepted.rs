//! Accepted connections, and the guards that count the open ones.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::protocol::message::ToPrimary;
use crate::protocol::queue_page::QueuePage;
use crate::worker::limited_socket::LimitedSocket;
use crate::worker::node_queue::NodeQueue;
use crate::worker::open_connections::OpenConnection;
use crate::worker::runtime::Runtime;

/// The part of an open connection in a count; `drop` counts the connection as closed.
#[derive(Debug)]
pub(crate) enum ConnectionGuard {
    /// The primary counts, for a listener with a hand-off queue.
    Primary(Arc<ClosedReporter>),
    /// The listener counts by itself.
    LimitedSocket(Arc<LimitedSocket>),
    /// The queue of a listener under a Node primary counts.
    NodeQueue(Arc<NodeQueue>),
}

impl Drop for ConnectionGuard {
    fn drop(&mut self) {
        match self {
            Self::Primary(reporter) => reporter.connection_closed(),
            Self::LimitedSocket(limited_socket) => limited_socket.connection_closed(),
            Self::NodeQueue(node_queue) => node_queue.connection_closed(),
        }
    }
}

/// Reports the closed connections of one listener to the primary.
#[derive(Debug)]
pub(crate) struct ClosedReporter {
    page: Arc<QueuePage>,
    key: u64,
    runtime: Arc<Runtime>,
}

impl ClosedReporter {
    pub(crate) fn new(page: Arc<QueuePage>, key: u64, runtime: Arc<Runtime>) -> Self {
        Self { page, key, runtime }
    }

    /// Counts one more closed connection, and sends a message if the primary waits for it.
    fn connection_closed(&self) {
        if self.page.count_closed() {
            self.runtime.send_to_primary(ToPrimary::HasRoom { key: self.key });
        }
    }
}

/// An accepted connection: a stream, and a guard that counts the connection as open.
///
/// An `Accepted` dereferences to the stream, and reads and writes as the stream does. A worker's
/// open connections are counted in [`Worker::open`](crate::Worker::open), and for the primary under
/// [`Policy::LeastLoaded`](crate::Policy::LeastLoaded) and with
/// [`max_connections`](crate::ListenOptions::max_connections). A connection counts until the
/// `Accepted` is dropped, which also closes the stream, or until [`into_inner`](Self::into_inner).
///
/// A worker's drain waits, for at most 250 ms after the last accept, until the program begins to
/// read its newest connections. It notices the reading through the `Accepted`, not through the
/// stream inside.
///
/// ```
/// use std::io::Write;
///
/// let listener = brood_cluster::listen("127.0.0.1:0")?;
/// # let client = std::net::TcpStream::connect(listener.address().to_string())?;
/// let (mut stream, _peer) = listener.accept()?;
/// stream.write_all(b"hello")?;
/// # drop(client);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Accepted<S> {
    /// Dropped before the stream: a client that sees the end of its connection must find the
    /// connection counted as closed.
    guard: Option<ConnectionGuard>,
    stream: S,
    /// Dropped after the stream: a worker without open connections may end its process. `None` in a
    /// process that is no worker.
    open: Option<OpenConnection>,
}

impl<S> Accepted<S> {
    pub(crate) fn new(
        stream: S,
        guard: Option<ConnectionGuard>,
        open: Option<OpenConnection>,
    ) -> Self {
        Self { guard, stream, open }
    }

    /// Notes that the program begins to read the connection.
    pub(crate) fn begin_read(&mut self) {
        if let Some(open) = &mut self.open {
            open.begin_read();
        }
    }

    /// Returns the stream, and counts the connection as closed from now on.
    ///
    /// A program whose connections live long should keep the `Accepted` instead.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Converts the stream to another type, and keeps the guard.
    ///
    /// # Errors
    ///
    /// The error of `change`. The connection counts as closed then.
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Accepted<T>, E> {
        Ok(Accepted { stream: change(self.stream)?, guard: self.guard, open: self.open })
    }
}

impl<S> Deref for Accepted<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.stream
    }
}

impl<S> DerefMut for Accepted<S> {
    fn deref_mut(&mut self) -> &mut S {
        &mut self.stream
    }
}

impl<S: AsFd> AsFd for Accepted<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl<S: Read> Read for Accepted<S> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.begin_read();
        self.stream.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        self.begin_read();
        self.stream.read_vectored(buffers)
    }
}

impl<S: Write> Write for Accepted<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.stream.write(bytes)
    }

    fn write_vectored(&mut self, buffers: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream.write_vectored(buffers)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}
