//! Listeners: where a worker, or a program alone, gets its connections.

use std::io;
use std::marker::PhantomData;
use std::net::TcpStream;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use sys::poll::{self, Interest};

use crate::accepted::{Accepted, Open};
use crate::address::Address;
use crate::bind::{Bound, SocketFile};
use crate::count::Count;
use crate::draining::Hold;
use crate::error::Error;
use crate::inbox::Inbox;
use crate::message::ToPrimary;
use crate::port::is_of_the_connection;
use crate::queue::{Connection, Intake};
use crate::stream::Stream;
use crate::worker::{Offer, Runtime};

/// A source of connections; `Send + Sync`, so that several threads may accept. They are TCP
/// streams unless it says `Listener<UnixStream>`.
///
/// Under a primary with round robin it is the worker's hand-off queue: an accept is one
/// `recvmsg(2)` and no other process is asked. Otherwise it is the listening socket itself. It is
/// an ordinary descriptor that can be polled ([`AsFd`]), readable when
/// [`try_accept`](Self::try_accept) is worth a try.
///
/// `drop` closes it; connections that were dealt to it and not accepted go to other workers.
/// Deregister it from an epoll instance of your own before that: the primary keeps a copy of the
/// queue open, so closing alone does not remove it there.
#[derive(Debug)]
pub struct Listener<S: Stream = TcpStream> {
    source: From,
    address: Address,
    data: Option<Vec<u8>>,
    /// The worker whose drain concerns us.
    worker: Option<Arc<Runtime>>,
    /// By which the primary knows us, and has to be told of the end.
    key: Option<u32>,
    /// Where the primary wants to know how many have ended.
    count: Option<Arc<Count>>,
    /// The socket is nobody else's, and clients can connect.
    own: AtomicBool,
    ended: AtomicBool,
    /// The worker's drain waits for us.
    hold: Mutex<Option<Hold>>,
    _file: Option<SocketFile>,
    stream: PhantomData<fn() -> S>,
}

#[derive(Debug)]
enum From {
    Queue(Intake),
    /// `accept4(2)` on a socket that other processes may accept on too.
    Socket(OwnedFd),
    /// What a Node primary sends on the channel.
    Inbox(Arc<Inbox>),
}

impl<S: Stream> Listener<S> {
    pub(crate) fn granted(offer: Offer, runtime: Arc<Runtime>) -> Result<Self, Error> {
        let hold = Mutex::new(Some(runtime.drain().hold()));
        let (mut data, mut count) = (None, None);
        let (key, address, source) = match offer {
            Offer::Granted(granted) => {
                data = granted.data;
                let page = granted.count.map(|page| Count::map(page.into_inner().as_fd()));
                count = page.transpose().map_err(|source| Error::Os("mmap", source))?;
                let socket = granted.descriptor.into_inner();
                let source = if granted.shared {
                    From::Socket(socket)
                } else {
                    From::Queue(Intake::new(socket))
                };
                (granted.key, granted.address, source)
            }
            Offer::Inbox { key, address, inbox } => (key, address, From::Inbox(inbox)),
        };
        let mut listener = Self::new(source, address, Some(runtime), hold, None);
        (listener.data, listener.key, listener.count) = (data, Some(key), count.map(Arc::new));
        Ok(listener)
    }

    /// On a socket of its own; in a worker it takes part in the drain.
    pub(crate) fn alone(bound: Bound, data: Option<Vec<u8>>, worker: Option<Arc<Runtime>>) -> Self {
        let hold = Mutex::new(worker.as_ref().map(|worker| worker.drain().hold()));
        let source = From::Socket(bound.socket);
        let mut listener = Self::new(source, bound.address, worker, hold, bound.file);
        (listener.data, listener.own) = (data, AtomicBool::new(true));
        listener
    }

    fn new(
        source: From,
        address: Address,
        worker: Option<Arc<Runtime>>,
        hold: Mutex<Option<Hold>>,
        file: Option<SocketFile>,
    ) -> Self {
        Self {
            source,
            address,
            data: None,
            worker,
            key: None,
            count: None,
            own: AtomicBool::new(false),
            ended: AtomicBool::new(false),
            hold,
            _file: file,
            stream: PhantomData,
        }
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
        let Some(connection) = taken? else { return Ok(None) };
        sys::socket::set_nonblocking(connection.socket.as_fd(), false)
            .map_err(|source| Error::Os("fcntl", source))?;
        self.accepted(connection).map(Some)
    }

    /// Makes a stream of what was taken, still as blocking as it is.
    pub(crate) fn accepted(&self, connection: Connection) -> Result<(Accepted<S>, S::Peer), Error> {
        let open = self.count.clone().map(Open);
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
        &self.address
    }

    /// The [data](crate::ListenOptions::data) of the first that asked for the address.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    /// Takes a connection, still non-blocking, without waiting. After [`Error::Closed`] it is
    /// for the caller to [`end`](Self::end) the listener, which lets a drain reach its end.
    ///
    /// A socket shared with others is read until it is empty when the drain has begun.
    pub(crate) fn take(&self) -> Result<Option<Connection>, Error> {
        if self.ended.load(Ordering::Acquire) {
            return Err(Error::Closed);
        }
        match &self.source {
            From::Queue(intake) => match intake.accept() {
                Ok(connection) => Ok(connection),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Err(Error::Closed),
                Err(source) => Err(Error::Os("recvmsg", source)),
            },
            From::Inbox(inbox) => match inbox.take() {
                Ok(Some((number, connection))) => {
                    if let Some(runtime) = &self.worker {
                        runtime.took(number);
                    }
                    Ok(Some(connection))
                }
                Ok(None) => Ok(None),
                Err(_) => Err(Error::Closed),
            },
            From::Socket(socket) => loop {
                if self.is_drained() {
                    return Err(Error::Closed);
                }
                // Whoever connects from then on would be reset when it is closed.
                if self.is_draining() && self.own.swap(false, Ordering::AcqRel) {
                    let _ = sys::socket::stop_connects(socket.as_fd());
                }
                match sys::socket::accept_waiting(socket.as_fd()) {
                    Ok((socket, peer)) => {
                        return Ok(Some(Connection { socket, peer }));
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        return if self.is_draining() { Err(Error::Closed) } else { Ok(None) };
                    }
                    Err(error) if error.raw_os_error().is_some_and(is_of_the_connection) => {}
                    Err(source) => return Err(Error::Os("accept4", source)),
                }
            },
        }
    }

    /// The drain to watch beside a descriptor that never ends by itself.
    #[cfg(feature = "tokio")]
    pub(crate) fn beginning(&self) -> Option<crate::draining::Beginning> {
        match (&self.source, &self.worker) {
            (From::Socket(_), Some(runtime)) if !runtime.drain().has_begun() => {
                Some(crate::draining::Beginning::of(runtime.drain().clone()))
            }
            (From::Socket(_) | From::Queue(_) | From::Inbox(_), _) => None,
        }
    }

    /// A socket that others accept on too, in a worker that drains: to be read until it is empty.
    #[cfg(feature = "tokio")]
    pub(crate) fn is_draining_socket(&self) -> bool {
        matches!(self.source, From::Socket(_)) && self.is_draining()
    }

    /// Blocks until a try is worth it.
    fn wait(&self) -> Result<(), Error> {
        let waited = match (&self.source, &self.worker) {
            (From::Queue(intake), _) => poll::readable(intake.as_fd(), None).map(drop),
            (From::Inbox(inbox), _) => poll::readable(inbox.as_fd(), None).map(drop),
            (From::Socket(socket), None) => poll::readable(socket.as_fd(), None).map(drop),
            (From::Socket(socket), Some(runtime)) => {
                let begun = runtime.drain().begun();
                let wanted = &[(socket.as_fd(), Interest::READABLE), (begun, Interest::READABLE)];
                poll::wait(wanted, None).map(drop)
            }
        };
        waited.map_err(|source| Error::Os("poll", source))
    }

    /// The drain was reached, with or without us.
    fn is_drained(&self) -> bool {
        self.worker.as_ref().is_some_and(|runtime| runtime.drain().is_reached())
    }

    fn is_draining(&self) -> bool {
        self.worker.as_ref().is_some_and(|runtime| runtime.drain().has_begun())
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
            From::Queue(intake) => intake.as_fd(),
            From::Socket(socket) => socket.as_fd(),
            From::Inbox(inbox) => inbox.as_fd(),
        }
    }
}

impl<S: Stream> Drop for Listener<S> {
    fn drop(&mut self) {
        drop(self.end());
        if let (Some(runtime), Some(key)) = (&self.worker, &self.key) {
            runtime.tell(ToPrimary::Close { key: *key });
        }
    }
}
