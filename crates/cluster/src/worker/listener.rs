//! Listeners: where a worker, or a program alone, gets its connections.

use std::io;
use std::marker::PhantomData;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sys::poll::{self, Interest};

use crate::bind::is_of_the_connection;
use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::closed_count::ClosedCount;
use crate::protocol::hand_off_queue::{Connection, QueueReader};
use crate::protocol::listen_options::ListenOptions;
use crate::worker::connection_guard::{Accepted, Open, Tally};
use crate::worker::draining::Hold;
use crate::worker::limited_socket::LimitedSocket;
use crate::worker::node_queue::NodeQueue;
use crate::worker::own_socket::OwnSocket;
use crate::worker::registration::Registration;
use crate::worker::runtime::Granted;
use crate::worker::stream::Stream;

/// A source of connections; `Send + Sync`, so that several threads may accept. They are TCP
/// streams unless it says `Listener<UnixStream>`.
///
/// Under a primary that deals it is the worker's hand-off queue: an accept is one `recvmsg(2)` and
/// no other process is asked. With [`Policy::ReusePort`](crate::Policy::ReusePort) it is an epoll
/// instance of that and of the worker's own socket, otherwise the listening socket itself. It is a
/// descriptor that can be polled ([`AsFd`]), readable when [`try_accept`](Self::try_accept) is
/// worth a try.
///
/// `drop` closes it; connections that were dealt to it and not accepted go to other workers.
/// Deregister it from an epoll instance of your own before that: the primary keeps a copy of the
/// queue open, so closing alone does not remove it there.
#[derive(Debug)]
pub struct Listener<S: Stream = TcpStream> {
    /// Dropped first: the primary is told before the source is closed.
    registration: Registration,
    source: From,
    /// Where the primary wants to know how many have ended.
    tally: Option<Arc<Tally>>,
    /// The socket is nobody else's, and clients can connect.
    unshared: AtomicBool,
    ended: AtomicBool,
    /// The worker's drain waits for us.
    hold: Mutex<Option<Hold>>,
    stream: PhantomData<fn() -> S>,
}

#[derive(Debug)]
enum From {
    Queue(QueueReader),
    /// A queue, and a socket that only the primary accepts on besides.
    OwnSocket(OwnSocket),
    /// `accept4(2)` on a socket that other processes may accept on too.
    Socket(OwnedFd),
    /// The same, of which only so many may be open.
    LimitedSocket(Arc<LimitedSocket>),
    /// What a Node primary sends on the channel.
    NodeQueue(Arc<NodeQueue>),
}

impl From {
    fn socket(socket: OwnedFd, options: &ListenOptions) -> Result<Self, Error> {
        Ok(match options.max_connections {
            None => Self::Socket(socket),
            Some(max) => {
                let limited_socket = LimitedSocket::new(socket, max);
                Self::LimitedSocket(
                    limited_socket.map_err(|source| Error::Os("epoll_create1", source))?,
                )
            }
        })
    }
}

/// A connection, and its part of the count where one is kept.
#[derive(Debug)]
pub(crate) struct Taken {
    pub(crate) connection: Connection,
    pub(crate) open: Option<Open>,
}

impl<S: Stream> Listener<S> {
    pub(crate) fn granted(
        registration: Registration,
        offer: Granted,
        options: &ListenOptions,
    ) -> Result<Self, Error> {
        let mut tally = None;
        let source = match offer {
            Granted::Granted(granted) => {
                if let (Some(page), Some(worker)) = (granted.count, registration.worker()) {
                    let count = ClosedCount::map(page.into_inner().as_fd());
                    let count = count.map_err(|source| Error::Os("mmap", source))?;
                    let (key, runtime) = (granted.key, worker.clone());
                    tally = Some(Arc::new(Tally { count, key, runtime }));
                }
                let socket = granted.descriptor.into_inner();
                match granted.own {
                    _ if granted.shared => From::socket(socket, options)?,
                    None => From::Queue(QueueReader::new(socket)),
                    Some(own) => {
                        let own = OwnSocket::new(own.into_inner(), socket);
                        From::OwnSocket(own.map_err(|source| Error::Os("epoll_create1", source))?)
                    }
                }
            }
            Granted::NodeQueue { node_queue, .. } => From::NodeQueue(node_queue),
        };
        let mut listener = Self::new(registration, source);
        listener.tally = tally;
        Ok(listener)
    }

    /// On a socket of its own; in a worker it takes part in the drain.
    pub(crate) fn alone(
        registration: Registration,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> Result<Self, Error> {
        let mut listener = Self::new(registration, From::socket(socket, options)?);
        listener.unshared = AtomicBool::new(true);
        Ok(listener)
    }

    fn new(registration: Registration, source: From) -> Self {
        let hold = Mutex::new(registration.worker().map(|worker| worker.drain().hold()));
        let (unshared, ended) = (AtomicBool::new(false), AtomicBool::new(false));
        Self { registration, source, tally: None, unshared, ended, hold, stream: PhantomData }
    }

    pub(crate) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Blocks until a connection comes, and gives it with the peer's address.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when none will come: the worker drains, or the primary is gone and all
    /// it had dealt is accepted. [`Error::Os`] with `EMFILE` when this process has no descriptor
    /// left; the connection is not lost, another worker gets it.
    pub fn accept(&self) -> Result<(Accepted<S>, S::Peer), Error> {
        loop {
            if let Some(accepted) = self.try_accept()? {
                return Ok(accepted);
            }
            self.wait()?;
        }
    }

    /// Gives a connection if one is there.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    #[expect(clippy::type_complexity, reason = "as std's accept, where there may be none")]
    pub fn try_accept(&self) -> Result<Option<(Accepted<S>, S::Peer)>, Error> {
        let taken = self.take();
        if matches!(taken, Err(Error::Closed)) {
            drop(self.end());
        }
        let Some(taken) = taken? else { return Ok(None) };
        sys::socket::set_nonblocking(taken.connection.socket.as_fd(), false)
            .map_err(|source| Error::Os("fcntl", source))?;
        Self::accepted(taken).map(Some)
    }

    /// Makes a stream of what was taken, still as blocking as it is.
    pub(crate) fn accepted(taken: Taken) -> Result<(Accepted<S>, S::Peer), Error> {
        let Taken { connection, open } = taken;
        let stream = S::from(connection.socket);
        let peer =
            stream.peer(connection.peer).map_err(|source| Error::Os("getpeername", source))?;
        Ok((Accepted::new(stream, open), peer))
    }

    /// Iterates over [`accept`](Self::accept), and ends where that is [`Error::Closed`].
    pub fn incoming(&self) -> impl Iterator<Item = Result<(Accepted<S>, S::Peer), Error>> + '_ {
        std::iter::from_fn(|| match self.accept() {
            Err(Error::Closed) => None,
            accepted => Some(accepted),
        })
    }

    /// The address, with the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.registration.address()
    }

    /// The [data](crate::ListenOptions::data) of the first that asked for the address.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.registration.data()
    }

    /// Takes a connection, still non-blocking, without waiting. After [`Error::Closed`] it is
    /// for the caller to [`end`](Self::end) the listener, which lets a drain reach its end.
    ///
    /// A socket shared with others is read until it is empty when the drain has begun.
    pub(crate) fn take(&self) -> Result<Option<Taken>, Error> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        match &self.source {
            From::Queue(reader) => match reader.accept() {
                Ok(connection) => Ok(connection.map(|connection| {
                    let open = self.tally.clone().map(Open::Dispatched);
                    Taken { connection, open }
                })),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
                Err(source) => Err(Error::Os("recvmsg", source)),
            },
            From::OwnSocket(own) => {
                Ok(own.accept()?.map(|connection| Taken { connection, open: None }))
            }
            From::NodeQueue(node_queue) => match node_queue.take() {
                Ok(Some((number, connection))) => {
                    if let Some(runtime) = self.registration.worker() {
                        runtime.took(number);
                    }
                    Ok(Some(Taken { connection, open: Some(Open::NodeQueue(node_queue.clone())) }))
                }
                Ok(None) => Ok(None),
                Err(_) => Err(Error::Closed),
            },
            From::Socket(socket) => self.take_by(socket.as_fd(), |_| {
                let (socket, peer) = sys::socket::accept_waiting(socket.as_fd())?;
                Ok(Taken { connection: Connection { socket, peer }, open: None })
            }),
            From::LimitedSocket(limited_socket) => {
                self.take_by(limited_socket.socket(), |draining| {
                    let (socket, peer) =
                        limited_socket.accept(draining, sys::socket::accept_waiting)?;
                    let open = Some(Open::Shared(limited_socket.clone()));
                    Ok(Taken { connection: Connection { socket, peer }, open })
                })
            }
        }
    }

    /// Takes a connection from a socket that never ends by itself; `accept` is told whether the
    /// worker drains.
    fn take_by(
        &self,
        socket: BorrowedFd<'_>,
        accept: impl Fn(bool) -> io::Result<Taken>,
    ) -> Result<Option<Taken>, Error> {
        loop {
            if self.is_drained() {
                return Err(Error::Closed);
            }
            let draining = self.is_draining();
            // Whoever connects from then on would be reset when it is closed.
            if draining && self.unshared.swap(false, Ordering::AcqRel) {
                let _ = sys::socket::stop_connects(socket);
            }
            match accept(draining) {
                Ok(taken) => return Ok(Some(taken)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if draining { Err(Error::Closed) } else { Ok(None) };
                }
                Err(error) if error.raw_os_error().is_some_and(is_of_the_connection) => {}
                Err(source) => return Err(Error::Os("accept4", source)),
            }
        }
    }

    /// The drain to watch beside a descriptor that never ends by itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn beginning(&self) -> Option<crate::worker::draining::Beginning> {
        match (&self.source, self.registration.worker()) {
            (From::Socket(_) | From::LimitedSocket(_), Some(runtime))
                if !runtime.drain().has_begun() =>
            {
                Some(crate::worker::draining::Beginning::of(runtime.drain().clone()))
            }
            (
                From::Socket(_)
                | From::LimitedSocket(_)
                | From::Queue(_)
                | From::OwnSocket(_)
                | From::NodeQueue(_),
                _,
            ) => None,
        }
    }

    /// A socket that others accept on too, in a worker that drains: to be read until it is empty.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_draining_socket(&self) -> bool {
        matches!(self.source, From::Socket(_) | From::LimitedSocket(_)) && self.is_draining()
    }

    /// Blocks until a try is worth it.
    fn wait(&self) -> Result<(), Error> {
        let waited = match (&self.source, self.registration.worker()) {
            (From::Queue(reader), _) => poll::readable(reader.as_fd(), None).map(drop),
            (From::OwnSocket(own), _) => poll::readable(own.as_fd(), None).map(drop),
            (From::NodeQueue(node_queue), _) => poll::readable(node_queue.as_fd(), None).map(drop),
            (From::Socket(_) | From::LimitedSocket(_), None) => {
                poll::readable(self.as_fd(), None).map(drop)
            }
            (From::Socket(_) | From::LimitedSocket(_), Some(runtime)) => {
                let begun = runtime.drain().begun();
                let wanted = &[(self.as_fd(), Interest::READABLE), (begun, Interest::READABLE)];
                poll::wait(wanted, None).map(drop)
            }
        };
        waited.map_err(|source| Error::Os("poll", source))
    }

    /// The drain was reached, with or without us.
    fn is_drained(&self) -> bool {
        self.registration.worker().is_some_and(|runtime| runtime.drain().is_reached())
    }

    fn is_draining(&self) -> bool {
        self.registration.worker().is_some_and(|runtime| runtime.drain().has_begun())
    }

    /// Gives nothing more; the drain need not wait for this listener once the answer is dropped.
    pub(crate) fn end(&self) -> Option<Hold> {
        self.ended.store(true, Ordering::Release);
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl<S: Stream> AsFd for Listener<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.source {
            From::Queue(reader) => reader.as_fd(),
            From::OwnSocket(own) => own.as_fd(),
            From::Socket(socket) => socket.as_fd(),
            From::LimitedSocket(limited_socket) => limited_socket.as_fd(),
            From::NodeQueue(node_queue) => node_queue.as_fd(),
        }
    }
}

impl<S: Stream> Drop for Listener<S> {
    fn drop(&mut self) {
        drop(self.end());
    }
}
