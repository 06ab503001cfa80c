//! Listeners: the source of connections for a worker, or for a program without a primary.

use std::io;
use std::marker::PhantomData;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use sys::poll::{self, Interest};

use crate::bind::is_of_the_connection;
use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::{Connection, QueueReader};
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::message::ListenGrant;
use crate::protocol::queue_page::QueuePage;
use crate::worker::accepted::{Accepted, ClosedReporter, ConnectionGuard};
#[cfg(feature = "tokio")]
use crate::worker::drain_waits::{DrainBegun, Quiet};
use crate::worker::draining::DrainHold;
use crate::worker::limited_socket::LimitedSocket;
use crate::worker::node_queue::NodeQueue;
use crate::worker::open_connections::OpenConnection;
use crate::worker::own_socket::OwnSocket;
use crate::worker::pending_grants::GrantedSource;
use crate::worker::registration::Registration;
use crate::worker::runtime::Runtime;
use crate::worker::stream_types::Stream;

/// A source of connections: TCP streams, or Unix streams for `Listener<UnixStream>`.
///
/// [`listen`](crate::listen) and its relatives return listeners. A listener is `Send` and `Sync`;
/// several threads can accept at once.
///
/// A listener is also a descriptor ([`AsFd`]) for poll and epoll, readable when
/// [`try_accept`](Self::try_accept) should be called. The descriptor depends on the policy: where
/// the primary dispatches, it is the worker's hand-off queue, and an accept is one `recvmsg(2)`
/// without another process; under [`Policy::ReusePort`](crate::Policy::ReusePort) it is an epoll
/// instance that watches this queue and the worker's own socket; otherwise it is the listening
/// socket itself, or an epoll instance that watches the socket while the
/// [connection limit](crate::ListenOptions::max_connections) is not reached.
///
/// `drop` closes the listener. Connections that were dispatched to it and not accepted go to other
/// workers. A program that has the descriptor in an epoll instance of its own must remove it
/// before: the primary keeps a copy of the queue open, so closing does not remove it there.
///
/// ```
/// let listener = brood_cluster::listen("127.0.0.1:0")?;
/// assert!(listener.try_accept()?.is_none());
/// # Ok::<(), brood_cluster::Error>(())
/// ```
#[derive(Debug)]
pub struct Listener<S: Stream = TcpStream> {
    /// Dropped first: the primary learns of the end before the source is closed.
    registration: Registration,
    source: ConnectionSource,
    /// Set if the primary needs the number of closed connections.
    reporter: Option<Arc<ClosedReporter>>,
    /// The page beside a hand-off queue.
    page: Option<Arc<QueuePage>>,
    /// Set until a drain begins, for a socket that no other process accepts on.
    stop_connects_on_drain: AtomicBool,
    stopped: AtomicBool,
    /// Delays the worker's drain while this listener may have connections.
    hold: Mutex<Option<DrainHold>>,
    stream: PhantomData<fn() -> S>,
}

#[derive(Debug)]
enum ConnectionSource {
    Queue(QueueReader),
    /// A queue, and a socket on which no process but the primary accepts besides.
    OwnSocket(OwnSocket),
    /// `accept4(2)` on a socket that other processes may accept on, too.
    Socket(OwnedFd),
    /// The same, with a limit on the open connections.
    LimitedSocket(Arc<LimitedSocket>),
    /// The connections that a Node primary sends on the channel.
    NodeQueue(Arc<NodeQueue>),
}

impl ConnectionSource {
    fn socket(socket: OwnedFd, options: &ListenOptions) -> Result<Self, Error> {
        let Some(max) = options.max_connections else { return Ok(Self::Socket(socket)) };
        let limited_socket = LimitedSocket::new(socket, max);
        let limited_socket = limited_socket.map_err(|source| Error::Os("epoll_create1", source))?;
        Ok(Self::LimitedSocket(limited_socket))
    }

    fn granted(
        grant: ListenGrant,
        page: Option<Arc<QueuePage>>,
        options: &ListenOptions,
    ) -> Result<Self, Error> {
        let descriptor = grant.descriptor.into_inner();
        // Only a shared socket comes without a page.
        let Some(page) = page else { return Self::socket(descriptor, options) };
        let queue = QueueReader::new(descriptor, page);
        let Some(own) = grant.own_socket else { return Ok(Self::Queue(queue)) };
        let own = OwnSocket::new(own.into_inner(), queue);
        Ok(Self::OwnSocket(own.map_err(|source| Error::Os("epoll_create1", source))?))
    }

    /// Returns whether the source is a socket, which does not end with the worker's drain.
    fn is_endless(&self) -> bool {
        match self {
            Self::Socket(_) | Self::LimitedSocket(_) => true,
            Self::Queue(_) | Self::OwnSocket(_) | Self::NodeQueue(_) => false,
        }
    }
}

impl AsFd for ConnectionSource {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Queue(reader) => reader.as_fd(),
            Self::OwnSocket(own) => own.as_fd(),
            Self::Socket(socket) => socket.as_fd(),
            Self::LimitedSocket(limited_socket) => limited_socket.as_fd(),
            Self::NodeQueue(node_queue) => node_queue.as_fd(),
        }
    }
}

/// An accepted connection before it becomes a stream, with its guard if it is counted.
#[derive(Debug)]
pub(crate) struct CountedConnection {
    connection: Connection,
    guard: Option<ConnectionGuard>,
    open: Option<OpenConnection>,
}

impl CountedConnection {
    fn new(connection: Connection, guard: Option<ConnectionGuard>) -> Self {
        Self { connection, guard, open: None }
    }
}

impl<S: Stream> Listener<S> {
    /// Makes a listener from the source that a primary granted.
    pub(super) fn granted(
        registration: Registration,
        source: GrantedSource,
        options: &ListenOptions,
    ) -> Result<Self, Error> {
        let (mut reporter, mut shared_page) = (None, None);
        let source = match source {
            GrantedSource::Descriptor(mut grant) => {
                let page = grant.page.take().map(|page| {
                    QueuePage::map(page.into_inner().as_fd(), grant.counts_closed).map(Arc::new)
                });
                let page = page.transpose().map_err(|source| Error::Os("mmap", source))?;
                if let (Some(page), Some(worker)) = (&page, registration.worker()) {
                    worker.drain().connections().add_page(page);
                }
                shared_page.clone_from(&page);
                if let (Some(page), Some(worker)) =
                    (page.clone().filter(|page| page.counts_closed()), registration.worker())
                {
                    reporter = Some(Arc::new(ClosedReporter::new(page, grant.key, worker.clone())));
                }
                ConnectionSource::granted(grant, page, options)?
            }
            GrantedSource::NodeQueue { node_queue, .. } => ConnectionSource::NodeQueue(node_queue),
        };
        let mut listener = Self::new(registration, source);
        (listener.reporter, listener.page) = (reporter, shared_page);
        Ok(listener)
    }

    /// Makes a listener from a socket that this process opened. In a worker the listener takes
    /// part in the drain.
    pub(super) fn local(
        registration: Registration,
        socket: OwnedFd,
        options: &ListenOptions,
    ) -> Result<Self, Error> {
        let source = ConnectionSource::socket(socket, options)?;
        let mut listener = Self::new(registration, source);
        listener.stop_connects_on_drain = AtomicBool::new(true);
        Ok(listener)
    }

    fn new(registration: Registration, source: ConnectionSource) -> Self {
        let hold = registration.worker().map(|worker| worker.drain().hold());
        Self {
            registration,
            source,
            reporter: None,
            page: None,
            stop_connects_on_drain: AtomicBool::new(false),
            stopped: AtomicBool::new(false),
            hold: Mutex::new(hold),
            stream: PhantomData,
        }
    }

    /// Blocks until a connection arrives, and returns it with the peer's address.
    ///
    /// The stream blocks, as one from std does.
    ///
    /// The end is reported when the last accepted connections have had time for their first bytes
    /// to be read: 50 ms after the program began to read them, and 250 ms after the last accept at
    /// the latest. A server that is shut down gracefully then drops no connection whose request
    /// is on its way.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when no further connection will arrive: the worker drains, or the primary
    /// is gone and all connections that it dispatched are accepted. [`Error::Os`] with `EMFILE`
    /// when this process has no descriptor left; the connection is not lost, and goes to another
    /// worker.
    pub fn accept(&self) -> Result<(Accepted<S>, S::Peer), Error> {
        loop {
            match self.try_accept() {
                Ok(Some(accepted)) => return Ok(accepted),
                Ok(None) => self.wait()?,
                Err(error) => {
                    if let (Error::Closed, Some(worker)) = (&error, self.registration.worker()) {
                        worker.drain().wait_quiet();
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Returns a connection if one waits, and `None` otherwise. Never blocks.
    ///
    /// The end is reported at once: a server that drops connections of which it has read nothing
    /// should wait for [`Worker::draining`](crate::Worker::draining) before it shuts down.
    ///
    /// # Errors
    ///
    /// As [`accept`](Self::accept).
    #[expect(clippy::type_complexity, reason = "as std's accept, where there may be none")]
    pub fn try_accept(&self) -> Result<Option<(Accepted<S>, S::Peer)>, Error> {
        let counted = self.accept_connection();
        if matches!(counted, Err(Error::Closed)) {
            drop(self.stop());
        }
        let Some(counted) = counted? else { return Ok(None) };
        sys::socket::set_nonblocking(counted.connection.socket.as_fd(), false)
            .map_err(|source| Error::Os("fcntl", source))?;
        Self::into_stream(counted).map(Some)
    }

    /// Returns an iterator over [`accept`](Self::accept) that ends at [`Error::Closed`].
    pub fn incoming(&self) -> impl Iterator<Item = Result<(Accepted<S>, S::Peer), Error>> + '_ {
        std::iter::from_fn(|| match self.accept() {
            Err(Error::Closed) => None,
            accepted => Some(accepted),
        })
    }

    /// Announces that this listener accepts nothing for a while: a program has all the work that it
    /// can do.
    ///
    /// The primary dispatches no connection to it until [`resume`](Self::resume), gives the unread
    /// ones to other workers, and does not take the worker for stuck: without a pause, a worker that
    /// leaves its queue unread for [`unresponsive_after`](crate::Builder::unresponsive_after) is
    /// killed. While all workers pause, clients wait. A connection that was dispatched before can
    /// still be accepted. On a socket that the workers share, and in a program without a primary,
    /// not to accept is all that is needed, and this call does nothing.
    ///
    /// [`ListenOptions::max_connections`](crate::ListenOptions::max_connections) limits the open
    /// connections without any call.
    ///
    /// ```
    /// let listener = brood_cluster::listen("127.0.0.1:0")?;
    /// listener.pause();
    /// // Until there is room again, for example for a permit of a semaphore.
    /// listener.resume();
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn pause(&self) {
        self.set_paused(true);
    }

    /// Ends a [`pause`](Self::pause). Does nothing otherwise.
    pub fn resume(&self) {
        self.set_paused(false);
    }

    fn set_paused(&self, is_paused: bool) {
        if let Some(page) = &self.page {
            page.set_paused(is_paused);
            self.registration.notify();
        }
        if let (ConnectionSource::NodeQueue(node_queue), Some(worker)) =
            (&self.source, self.registration.worker())
        {
            node_queue.set_paused(is_paused, Instant::now());
            // The connections that waited are declined.
            worker.wake_timer();
        }
    }

    /// Returns the address of the listener. If the request was for port 0, this is the actual
    /// port.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.registration.address()
    }

    /// Returns the [data](crate::ListenOptions::data) of the first worker that requested the
    /// address.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.registration.data()
    }

    pub(super) fn registration(&self) -> &Registration {
        &self.registration
    }

    /// Converts a connection to a stream. Its `O_NONBLOCK` stays as it is.
    pub(crate) fn into_stream(counted: CountedConnection) -> Result<(Accepted<S>, S::Peer), Error> {
        let CountedConnection { connection, guard, open } = counted;
        let stream = S::from(connection.socket);
        let peer =
            stream.peer(connection.peer).map_err(|source| Error::Os("getpeername", source))?;
        Ok((Accepted::new(stream, guard, open), peer))
    }

    /// Accepts a connection without waiting; the connection is non-blocking.
    ///
    /// After [`Error::Closed`] the caller has to [`stop`](Self::stop) the listener, for the drain
    /// to be reached. Once the drain has begun, a shared socket is read until it is empty.
    pub(crate) fn accept_connection(&self) -> Result<Option<CountedConnection>, Error> {
        if self.stopped.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        let mut counted = self.accept_from_source()?;
        if let (Some(counted), Some(worker)) = (&mut counted, self.registration.worker()) {
            counted.open = Some(OpenConnection::new(worker.drain().clone()));
        }
        Ok(counted)
    }

    fn accept_from_source(&self) -> Result<Option<CountedConnection>, Error> {
        use ConnectionSource as C;
        match &self.source {
            C::Queue(reader) => match reader.accept() {
                Ok(connection) => Ok(connection.map(|connection| {
                    let guard = self.reporter.clone().map(ConnectionGuard::Primary);
                    CountedConnection::new(connection, guard)
                })),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
                Err(source) => Err(Error::Os("recvmsg", source)),
            },
            C::OwnSocket(own) => {
                let connection = own.accept()?;
                Ok(connection.map(|connection| CountedConnection::new(connection, None)))
            }
            C::NodeQueue(node_queue) => match node_queue.accept() {
                Ok(Some((number, connection))) => {
                    if let Some(runtime) = self.registration.worker() {
                        runtime.report_accepted(number);
                    }
                    let guard = Some(ConnectionGuard::NodeQueue(node_queue.clone()));
                    Ok(Some(CountedConnection::new(connection, guard)))
                }
                Ok(None) => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
                Err(source) => Err(Error::Os("recvmsg", source)),
            },
            C::Socket(socket) => self.accept_from_socket(socket.as_fd(), |_| {
                let (socket, peer) = sys::socket::accept_waiting(socket.as_fd())?;
                Ok(CountedConnection::new(Connection { socket, peer }, None))
            }),
            C::LimitedSocket(limited_socket) => {
                self.accept_from_socket(limited_socket.socket(), |draining| {
                    let (socket, peer) =
                        limited_socket.accept(draining, sys::socket::accept_waiting)?;
                    let guard = Some(ConnectionGuard::LimitedSocket(limited_socket.clone()));
                    Ok(CountedConnection::new(Connection { socket, peer }, guard))
                })
            }
        }
    }

    /// Accepts from a socket that never ends by itself. The argument of `accept` is whether the
    /// worker drains: a client may then exceed the connection limit, and is not reset.
    fn accept_from_socket(
        &self,
        socket: BorrowedFd<'_>,
        accept: impl Fn(bool) -> io::Result<CountedConnection>,
    ) -> Result<Option<CountedConnection>, Error> {
        loop {
            if self.drain_is_reached() {
                return Err(Error::Closed);
            }
            let draining = self.is_draining();
            // Closing the socket would reset the clients that connect from now on.
            if draining && self.stop_connects_on_drain.swap(false, Ordering::AcqRel) {
                let _ = sys::socket::stop_connects(socket);
            }
            match accept(draining) {
                Ok(counted) => return Ok(Some(counted)),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    return if draining { Err(Error::Closed) } else { Ok(None) };
                }
                Err(error) if error.raw_os_error().is_some_and(is_of_the_connection) => {}
                Err(source) => return Err(Error::Os("accept4", source)),
            }
        }
    }

    /// Blocks until [`try_accept`](Self::try_accept) should be called again.
    fn wait(&self) -> Result<(), Error> {
        // A socket never ends by itself: the drain must wake the thread, too.
        let drain = self.endless_in().map(|runtime| runtime.drain().begun());
        let waited = match drain {
            None => poll::readable(self.as_fd(), None).map(drop),
            Some(begun) => {
                let wanted = &[(self.as_fd(), Interest::READABLE), (begun, Interest::READABLE)];
                poll::wait(wanted, None).map(drop)
            }
        };
        waited.map_err(|source| Error::Os("poll", source))
    }

    /// Stops accepting. The drain waits for this listener until the returned hold is dropped.
    pub(crate) fn stop(&self) -> Option<DrainHold> {
        self.stopped.store(true, Ordering::Release);
        self.hold.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Returns a future for the beginning of the drain if a task has to wait for it beside the
    /// descriptor: the source never ends by itself, and the drain has not begun.
    #[cfg(feature = "tokio")]
    pub(crate) fn drain_begun(&self) -> Option<DrainBegun> {
        let drain = self.endless_in()?.drain();
        (!drain.has_begun()).then(|| DrainBegun::new(drain.clone()))
    }

    /// Returns a future for the moment at which the end of this listener may be reported.
    #[cfg(feature = "tokio")]
    pub(crate) fn quiet(&self) -> Option<Quiet> {
        self.registration.worker().map(|worker| Quiet::new(worker.drain().clone()))
    }

    /// Returns whether the source is a socket in a worker that drains: the listener has to be read
    /// until the socket is empty.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_draining_socket(&self) -> bool {
        self.source.is_endless() && self.is_draining()
    }

    /// The worker whose drain ends this listener, if the source never ends by itself.
    fn endless_in(&self) -> Option<&Arc<Runtime>> {
        self.registration.worker().filter(|_| self.source.is_endless())
    }

    /// The drain may be reached before this listener has stopped: its time was up.
    fn drain_is_reached(&self) -> bool {
        self.registration.worker().is_some_and(|runtime| runtime.drain().is_reached())
    }

    fn is_draining(&self) -> bool {
        self.registration.worker().is_some_and(|runtime| runtime.drain().has_begun())
    }
}

impl<S: Stream> AsFd for Listener<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.source.as_fd()
    }
}

impl<S: Stream> Drop for Listener<S> {
    fn drop(&mut self) {
        drop(self.stop());
    }
}
