//! Accepted connections, and the count of those that are open.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::ops::{Deref, DerefMut};
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use crate::protocol::closed_count::ClosedCount;
use crate::protocol::message::ToPrimary;
use crate::worker::limited_socket::LimitedSocket;
use crate::worker::node_queue::NodeQueue;
use crate::worker::runtime::Runtime;

/// What keeps count of an open connection; dropping it says that the connection has ended.
#[derive(Debug)]
pub(crate) enum Open {
    /// The primary does.
    Dispatched(Arc<Tally>),
    /// The listener does, alone.
    Shared(Arc<LimitedSocket>),
    NodeQueue(Arc<NodeQueue>),
}

/// A listener's count of what has ended, and the way to who may wait for the next.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) count: ClosedCount,
    pub(crate) key: u32,
    pub(crate) runtime: Arc<Runtime>,
}

impl Drop for Open {
    fn drop(&mut self) {
        match self {
            Self::Dispatched(tally) => {
                if tally.count.end() {
                    tally.runtime.tell(ToPrimary::HasRoom { key: tally.key });
                }
            }
            Self::Shared(limited_socket) => limited_socket.leave(),
            Self::NodeQueue(node_queue) => node_queue.leave(),
        }
    }
}

/// An accepted connection: the stream, and where connections are counted its part of the count.
///
/// It derefs to the stream and reads and writes as the stream does. Where open connections are
/// counted ([`Policy::LeastLoaded`](crate::Policy::LeastLoaded),
/// [`max_connections`](crate::ListenOptions::max_connections)) this one counts until it is dropped;
/// [`into_inner`](Self::into_inner) ends its count although the stream lives on.
#[derive(Debug)]
pub struct Accepted<S> {
    /// Dropped first: who sees the stream closed finds it counted.
    open: Option<Open>,
    stream: S,
}

impl<S> Accepted<S> {
    pub(crate) fn new(stream: S, open: Option<Open>) -> Self {
        Self { open, stream }
    }

    /// Gives the stream alone. From now on the connection is taken for ended: keep the guard for
    /// connections that live long.
    pub fn into_inner(self) -> S {
        self.stream
    }

    /// Makes another kind of stream of it that keeps the count.
    ///
    /// # Errors
    ///
    /// What `change` gives.
    pub fn try_map<T, E>(self, change: impl FnOnce(S) -> Result<T, E>) -> Result<Accepted<T>, E> {
        Ok(Accepted { stream: change(self.stream)?, open: self.open })
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
        self.stream.read(buffer)
    }

    fn read_vectored(&mut self, buffers: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
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
