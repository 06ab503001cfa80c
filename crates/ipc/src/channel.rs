//! The blocking channel: `send` and `recv` directly on the descriptor.
//!
//! No other thread takes part, because a hop through another thread costs about as much as the
//! whole round trip. The socket is never made non-blocking: `O_NONBLOCK` belongs to the open file
//! description, which other processes may share. A call that must not sleep passes `MSG_DONTWAIT`.
//!
//! Limits: [`Options`]. The loop writes the queue of an endpoint that is dropped.

mod adaptive_wait;
#[cfg(feature = "tokio")]
mod async_channel;
mod blocking_endpoint;
mod channel_handle;
mod events;

#[cfg(feature = "tokio")]
pub use self::async_channel::AsyncChannel;
pub use self::channel_handle::ChannelHandle;
pub use self::events::{Event, LinkSender, TypedMessage};

use self::blocking_endpoint::{Endpoint, EndpointParts, SendMode};
use crate::error::Error;
use crate::link::{self, Link, LinkEvent};
use crate::options::Options;
use crate::received_message::Message;
use crate::transport::socket_io;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes two connected endpoints; each sends what the other receives.
///
/// ```
/// let (a, b) = brood_ipc::channel::<u32, String>()?;
/// a.send(&7)?;
/// b.send(&format!("got {}", b.recv()?))?;
/// assert_eq!(a.recv()?, "got 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn channel<S, R>() -> io::Result<(Channel<S, R>, Channel<R, S>)> {
    channel_with(&Options::new())
}

/// Makes two connected endpoints as [`channel`] does, with the given options for both.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left; `InvalidInput` around [`Error::InvalidOption`].
pub fn channel_with<S, R>(options: &Options) -> io::Result<(Channel<S, R>, Channel<R, S>)> {
    options.check().map_err(|error| io::Error::new(io::ErrorKind::InvalidInput, error))?;
    let (a, b) = sys::socket::pair_stream()?;
    Ok((Channel::from_socket(a, options.clone()), Channel::from_socket(b, options.clone())))
}

/// A blocking endpoint of a channel that sends `S` and receives `R`.
///
/// The two directions are independent, and several threads may use both at once. Messages arrive
/// whole, in order, with their handles.
///
/// The drop of an endpoint never blocks. The loop writes what `send` and `feed` accepted, and then
/// closes the socket.
pub struct Channel<S, R> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn(S) -> R>,
}

/// The sending half of a [`Channel`], from [`Channel::split`].
pub struct Sender<S> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn(S)>,
}

/// The receiving half of a [`Channel`], from [`Channel::split`].
pub struct Receiver<R> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn() -> R>,
}

impl<S, R> Channel<S, R> {
    /// Makes an endpoint of a connected Unix stream socket, for example an inherited one.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] when `socket` is no Unix stream socket; [`Error::InvalidOption`].
    pub fn from_fd(socket: impl Into<OwnedFd>, options: Options) -> Result<Channel<S, R>, Error> {
        options.check()?;
        let socket = socket.into();
        socket_io::prepare(socket.as_fd())?;
        Ok(Channel::from_socket(socket, options))
    }

    /// Turns this endpoint into a handle that moves to another process.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the endpoint is closed, when a half of it is in use, when accepted
    /// messages are not written yet, or when bytes were read that no `recv` has returned.
    pub fn into_handle(self) -> Result<ChannelHandle<S, R>, Error> {
        // The locks are released before the endpoint is taken apart.
        let (handshake_sent, handshake_received, idle) = {
            let (sending, receiving) = (self.endpoint.sending(), self.endpoint.receiving());
            let idle = sending.outbox.frames() == 0 && receiving.inbox.is_empty();
            (sending.outbox.is_empty(), receiving.inbox.handshake_received(), idle)
        };
        if !idle || !self.is_connected() {
            return Err(Error::Closed);
        }
        let parts = Endpoint::into_parts(self.endpoint).ok_or(Error::Closed)?;
        Ok(ChannelHandle::new(parts.socket, &parts.options, handshake_sent, handshake_received))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_endpoint(self) -> Arc<Endpoint> {
        self.endpoint
    }

    pub(crate) fn from_socket(socket: OwnedFd, options: Options) -> Channel<S, R> {
        Channel::resumed(socket, options, false, false)
    }

    /// `handshake_sent` and `handshake_received` say what an earlier owner of the socket has done.
    pub(crate) fn resumed(
        socket: OwnedFd,
        options: Options,
        handshake_sent: bool,
        handshake_received: bool,
    ) -> Channel<S, R> {
        Channel {
            endpoint: Arc::new(Endpoint::new(socket, options, handshake_sent, handshake_received)),
            types: PhantomData,
        }
    }

    /// Splits the endpoint into its two directions. The drop of the second one closes the channel.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        let sender = Sender { endpoint: Arc::clone(&self.endpoint), types: PhantomData };
        (sender, Receiver { endpoint: self.endpoint, types: PhantomData })
    }

    /// Moves this endpoint to the loop: every message goes to `sink`.
    ///
    /// Messages that were read and not received go to `sink` first. `sink` runs on the loop and
    /// must not block.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the endpoint is closed, or when a half of it is still in use;
    /// [`Error::Os`] when the loop cannot be started.
    pub fn into_link(self, sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<Link, Error> {
        let parts = Endpoint::into_parts(self.endpoint)
            .filter(|parts| !parts.closed)
            .ok_or(Error::Closed)?;
        let EndpointParts { socket, options, outbox, inbox, .. } = parts;
        Link::resume_parts(socket, options, outbox, inbox, link::user_sink(sink), true)
    }
}

/// The methods of both [`Channel`] and [`Sender`].
macro_rules! sending {
    ($([$($generics:tt)*] $type:ty),*) => {
        $(impl<$($generics)*> $type {
            /// Sends `value`. Blocks while the peer does not read.
            ///
            /// A successful return means that the kernel holds the whole message, and that the
            /// message has taken the handles of `value`.
            ///
            /// # Errors
            ///
            /// [`Error::Closed`], [`Error::TooLong`], [`Error::TooManyHandles`],
            /// [`Error::Encode`], [`Error::Os`]. The handles of `value` stay in it, usable.
            pub fn send(&self, value: &S) -> Result<(), Error>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Send)
            }

            /// Sends `value` without blocking.
            ///
            /// A message that the socket does not take at once is queued. The next call that sends,
            /// flushes, receives or disconnects writes it.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send), and [`Error::Full`] when the queue is at its limit
            /// ([`Options::queued_bytes_max`]).
            pub fn try_send(&self, value: &S) -> Result<(), Error>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Try)
            }

            /// Queues `value`, so that one system call writes many messages.
            ///
            /// The queue is written by [`flush`](Self::flush), by any call that sleeps on this
            /// endpoint, and by the `feed` that brings it to 64 KiB.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send).
            pub fn feed(&self, value: &S) -> Result<(), Error>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Feed)
            }

            /// Writes the queue. Blocks while the peer does not read.
            ///
            /// # Errors
            ///
            /// [`Error::Closed`], [`Error::Os`].
            pub fn flush(&self) -> Result<(), Error> {
                self.endpoint.flush_all(&mut self.endpoint.sending())
            }

            /// Writes everything that was accepted, and ends the sending direction. Blocks until it
            /// is written.
            ///
            /// The peer reads all messages and then finds the channel closed. Messages of the peer
            /// can still be received.
            ///
            /// # Errors
            ///
            /// [`Error::Undelivered`] when the peer closed before it had read everything.
            pub fn disconnect(&self) -> Result<(), Error> {
                self.endpoint.disconnect()
            }

            /// Returns whether a send may succeed: [`disconnect`](Self::disconnect) was not called,
            /// and no call has found the peer gone.
            #[must_use]
            pub fn is_connected(&self) -> bool {
                self.endpoint.is_connected()
            }
        })*
    };
}

sending! { [S, R] Channel<S, R>, [S] Sender<S> }

/// Registers the channel with a mio loop.
///
/// Readiness of the descriptor means that bytes arrived, and one read takes many messages. Before
/// the loop waits again, call `try_recv` until it returns `None`, or call
/// [`prepare_wait`](Channel::prepare_wait).
///
/// ```
/// let (a, mut b) = brood_ipc::channel::<u8, ()>()?;
/// let mut poll = mio::Poll::new()?;
/// let interest = b.interest();
/// poll.registry().register(&mut b, mio::Token(0), interest)?;
/// a.send(&7)?;
/// let mut events = mio::Events::with_capacity(8);
/// poll.poll(&mut events, None)?;
/// while let Some(message) = b.try_recv()? {
///     assert_eq!(message, 7);
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
impl<S, R> mio::event::Source for Channel<S, R> {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        let number = sys::fd::number(self.endpoint.fd());
        mio::unix::SourceFd(&number).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        let number = sys::fd::number(self.endpoint.fd());
        mio::unix::SourceFd(&number).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        let number = sys::fd::number(self.endpoint.fd());
        mio::unix::SourceFd(&number).deregister(registry)
    }
}

/// The methods of both [`Channel`] and [`Receiver`].
macro_rules! receiving {
    ($([$($generics:tt)*] $type:ty),*) => {
        $(impl<$($generics)*> $type
        where
            R: DeserializeOwned,
        {
            /// Receives the next message; blocks until there is one.
            ///
            /// # Errors
            ///
            /// - [`Error::Closed`] follows the last message of a peer that closed.
            /// - [`Error::Decode`] and [`Error::HandlesLost`] concern one message; the next call
            ///   receives the next message.
            /// - [`Error::Protocol`], [`Error::Mismatch`] and [`Error::Os`] end the channel.
            pub fn recv(&self) -> Result<R, Error> {
                self.endpoint.recv()
            }

            /// Receives the next message without decoding it. Blocks until there is one.
            ///
            /// The caller decodes the message as any type, or drops it.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv), but for [`Error::Decode`].
            pub fn recv_message(&self) -> Result<Message, Error> {
                self.endpoint.recv_message()
            }

            /// Receives a message that has arrived already, or `None`. Never blocks.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn try_recv(&self) -> Result<Option<R>, Error> {
                self.endpoint.recv_until(None)
            }

            /// Receives the next message, or `None` after `timeout`. Blocks until then.
            ///
            /// A time beyond the range of the clock, such as [`Duration::MAX`], never passes.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<R>, Error> {
                match Instant::now().checked_add(timeout) {
                    Some(until) => self.endpoint.recv_until(Some(until)),
                    None => self.endpoint.recv().map(Some),
                }
            }

            /// Returns an iterator over all messages until the channel is closed.
            ///
            /// Each item blocks as [`recv`](Self::recv) does. An error that ends the channel is the
            /// last item.
            pub fn iter(&self) -> impl Iterator<Item = Result<R, Error>> + '_ {
                let mut ended = false;
                std::iter::from_fn(move || {
                    if ended {
                        return None;
                    }
                    match self.recv() {
                        Err(Error::Closed) => None,
                        Err(error) => {
                            ended = error.is_fatal();
                            Some(Err(error))
                        }
                        message => Some(message),
                    }
                })
            }
        })*
    };
}

receiving! { [S, R] Channel<S, R>, [R] Receiver<R> }

/// The parts of a channel that an event loop of any kind needs.
impl<S, R> Channel<S, R> {
    /// Returns the readiness to wait for: readable, and writable while accepted messages wait to be
    /// written.
    #[must_use]
    pub fn interest(&self) -> mio::Interest {
        match self.endpoint.wants_to_write() {
            true => mio::Interest::READABLE | mio::Interest::WRITABLE,
            false => mio::Interest::READABLE,
        }
    }

    /// Prepares a sleep until the descriptor is ready; `false` means that the caller must not
    /// sleep.
    ///
    /// One read takes many messages, and the descriptor says nothing about messages that were read
    /// already: after `false`, call [`try_recv`](Channel::try_recv). The call also writes as much
    /// of the queue as the socket takes, so that no caller waits for the answer to a question that
    /// was never sent.
    ///
    /// ```
    /// let (a, b) = brood_ipc::channel::<u8, ()>()?;
    /// a.feed(&1)?;
    /// a.feed(&2)?;
    /// assert!(a.prepare_wait(), "a may sleep: what it fed is on its way");
    /// assert_eq!(b.recv()?, 1);
    /// assert!(!b.prepare_wait(), "the second message is here already");
    /// assert_eq!(b.try_recv()?, Some(2));
    /// assert!(b.prepare_wait());
    /// assert!(b.interest().is_readable() && !b.interest().is_writable());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn prepare_wait(&self) -> bool {
        self.endpoint.prepare_wait()
    }
}

macro_rules! common {
    ($($name:literal [$($generics:tt)*] $type:ty),*) => {
        $(impl<$($generics)*> AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.endpoint.fd()
            }
        }

        impl<$($generics)*> fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name)
                    .field("socket", &self.endpoint.fd())
                    .field("serialization", &self.endpoint.options.serialization)
                    .field("connected", &self.is_connected())
                    .finish()
            }
        })*
    };
}

common! { "Channel" [S, R] Channel<S, R>, "Sender" [S] Sender<S> }

impl<R> AsFd for Receiver<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.endpoint.fd()
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("socket", &self.endpoint.fd()).finish_non_exhaustive()
    }
}
