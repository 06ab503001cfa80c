//! The blocking channel: `send` and `recv` straight on the descriptor.
//!
//! No other thread is involved: a hop through one would cost about as much as the whole round
//! trip. The socket is never made non-blocking, since that would also change it for whoever
//! shares it; a call that must not sleep says so itself.
//!
//! Limits: [`Options`]. What waits in an end that is dropped goes on being written by the loop.

mod adaptive_wait;
#[cfg(feature = "tokio")]
mod async_channel;
mod channel_handle;
mod endpoint;
mod events;

#[cfg(feature = "tokio")]
pub use self::async_channel::AsyncChannel;
pub use self::channel_handle::ChannelHandle;
pub use self::events::{Event, LinkSender, TypedMessage};

use self::endpoint::{Endpoint, EndpointParts, SendMode};
use crate::error::{Error, SendError};
use crate::link::{Link, LinkEvent};
use crate::message::Message;
use crate::options::Options;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Makes two connected ends, each of which sends what the other one receives.
///
/// ```
/// let (a, b) = ipc::channel::<u32, String>()?;
/// a.send(7)?;
/// b.send(format!("got {}", b.recv()?))?;
/// assert_eq!(a.recv()?, "got 7");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn channel<S, R>() -> io::Result<(Channel<S, R>, Channel<R, S>)> {
    channel_with(&Options::default())
}

/// [`channel`] with other limits and habits than the default ones.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn channel_with<S, R>(options: &Options) -> io::Result<(Channel<S, R>, Channel<R, S>)> {
    let (a, b) = sys::socket::pair_stream()?;
    Ok((Channel::over(a, options.clone()), Channel::over(b, options.clone())))
}

/// One end of a channel that sends `S` and receives `R`, blocking.
///
/// Both directions are independent and may be used from several threads; messages are delivered
/// whole, in order, with their handles. Dropping an end closes it once everything that `send` or
/// `feed` accepted is written; it never blocks.
pub struct Channel<S, R> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn(S) -> R>,
}

/// The sending half of a [`Channel`].
pub struct Sender<S> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn(S)>,
}

/// The receiving half of a [`Channel`].
pub struct Receiver<R> {
    endpoint: Arc<Endpoint>,
    types: PhantomData<fn() -> R>,
}

impl<S, R> Channel<S, R> {
    /// Makes an end of a connected Unix stream socket, for example one that a parent passed on.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] when `socket` is something else.
    pub fn from_fd(socket: OwnedFd, options: Options) -> Result<Channel<S, R>, Error> {
        if !sys::socket::is_unix_stream(socket.as_fd()) {
            return Err(Error::NotAChannel("the descriptor is no Unix stream socket"));
        }
        Ok(Channel::over(socket, options))
    }

    /// Takes this end apart, to be passed on. It must not have messages in either direction that
    /// were accepted and not written, or read and not received.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the end is closed, in use elsewhere, or not between two messages.
    pub fn into_handle(self) -> Result<ChannelHandle<S, R>, Error> {
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

    pub(crate) fn over(socket: OwnedFd, options: Options) -> Channel<S, R> {
        Channel::resumed(socket, options, false, false)
    }

    /// `handshake_sent`, `handshake_received`: whether the greetings were sent and read by an earlier owner.
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

    /// Gives each direction a value of its own. The channel closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        let sender = Sender { endpoint: Arc::clone(&self.endpoint), types: PhantomData };
        (sender, Receiver { endpoint: self.endpoint, types: PhantomData })
    }

    /// Hands this end to the loop: messages, also those that were read already, go to `sink`,
    /// which runs there and must not block.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the end is closed or a part of it is in use elsewhere;
    /// [`Error::Os`] when there is no loop.
    pub fn into_link(self, sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<Link, Error> {
        let parts = Endpoint::into_parts(self.endpoint)
            .filter(|parts| !parts.closed)
            .ok_or(Error::Closed)?;
        let EndpointParts { socket, options, outbox, inbox, .. } = parts;
        Link::resume_parts(socket, options, outbox, inbox, Box::new(sink), true)
    }
}

/// What both [`Channel`] and [`Sender`] offer.
macro_rules! sending {
    ($([$($generics:tt)*] $type:ty),*) => {
        $(impl<$($generics)*> $type {
            /// Sends `value`; blocks while the peer does not read.
            ///
            /// When it returns, the kernel has the whole message.
            ///
            /// # Errors
            ///
            /// The value with its handles, and why: [`Error::Closed`], [`Error::TooLong`],
            /// [`Error::TooManyHandles`], [`Error::Encode`].
            pub fn send(&self, value: S) -> Result<(), SendError<S>>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Send)
            }

            /// Sends `value` without blocking: what the socket does not take is queued, and
            /// written by the next call that sends, flushes, receives or disconnects.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send); [`Error::Full`] when the queue is at its bound.
            pub fn try_send(&self, value: S) -> Result<(), SendError<S>>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Try)
            }

            /// Queues `value`; many are then written by one system call.
            ///
            /// They are written by [`flush`](Self::flush), by any call that sleeps on this end, or
            /// once 64 KiB wait.
            ///
            /// # Errors
            ///
            /// As [`send`](Self::send).
            pub fn feed(&self, value: S) -> Result<(), SendError<S>>
            where
                S: Serialize,
            {
                self.endpoint.send(value, SendMode::Feed)
            }

            /// Writes what was queued; blocks while the peer does not read.
            ///
            /// # Errors
            ///
            /// [`Error::Closed`], [`Error::Os`].
            pub fn flush(&self) -> Result<(), Error> {
                self.endpoint.flush_all(&mut self.endpoint.sending())
            }

            /// Ends sending, once everything that was accepted is written. The peer reads it all
            /// and then finds the channel closed; what it sends can still be received.
            ///
            /// # Errors
            ///
            /// [`Error::Undelivered`] when the peer went away before it had read everything.
            pub fn disconnect(&self) -> Result<(), Error> {
                self.endpoint.disconnect()
            }

            /// Tells whether sending may succeed: neither [`disconnect`](Self::disconnect) was
            /// called nor was the peer found gone.
            #[must_use]
            pub fn is_connected(&self) -> bool {
                self.endpoint.is_connected()
            }
        })*
    };
}

sending! { [S, R] Channel<S, R>, [S] Sender<S> }

/// For programs with a loop of their own. Readiness of the descriptor says that bytes came, and a
/// read takes many messages at once: call `try_recv` until it answers `None` before waiting, or
/// ask [`prepare_wait`](Channel::prepare_wait).
///
/// ```
/// let (a, mut b) = ipc::channel::<u8, ()>()?;
/// let mut poll = mio::Poll::new()?;
/// let interest = b.interest();
/// poll.registry().register(&mut b, mio::Token(0), interest)?;
/// a.send(7)?;
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

/// What both [`Channel`] and [`Receiver`] offer.
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
            /// [`Error::Closed`] after the last message of a peer that closed.
            /// [`Error::Decode`] and [`Error::HandlesLost`] concern one message only; the next
            /// call gives the next one. [`Error::Protocol`], [`Error::Mismatch`] and [`Error::Os`]
            /// end the channel.
            pub fn recv(&self) -> Result<R, Error> {
                self.endpoint.recv()
            }

            /// Receives the next message as it came, to be decoded as whatever it proves to be, or
            /// dropped. Blocks until there is one.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv), but for [`Error::Decode`].
            pub fn recv_message(&self) -> Result<Message, Error> {
                self.endpoint.recv_message()
            }

            /// Receives a message that is there already, without blocking.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn try_recv(&self) -> Result<Option<R>, Error> {
                self.endpoint.recv_until(None)
            }

            /// Receives the next message; `None` when none came in time.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<R>, Error> {
                self.endpoint.recv_until(Instant::now().checked_add(timeout))
            }

            /// Every message until the channel is closed; an error that ends the channel is the
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

/// For programs with a loop of their own, whatever it is made of.
impl<S, R> Channel<S, R> {
    /// What readiness of the descriptor to wait for: readable, and writable while something that
    /// was accepted waits to be written.
    #[must_use]
    pub fn interest(&self) -> mio::Interest {
        match self.endpoint.wants_to_write() {
            true => mio::Interest::READABLE | mio::Interest::WRITABLE,
            false => mio::Interest::READABLE,
        }
    }

    /// To be asked before a sleep until the descriptor is ready. False means: do not sleep, call
    /// [`try_recv`](Channel::try_recv), since one read takes many messages and the descriptor
    /// says nothing about those that were read already.
    ///
    /// Also writes what the socket takes of what was fed, so that no answer is waited for whose
    /// question was never sent.
    ///
    /// ```
    /// let (a, b) = ipc::channel::<u8, ()>()?;
    /// a.feed(1)?;
    /// a.feed(2)?;
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
