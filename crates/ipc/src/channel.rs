//! The blocking channel: `send` and `recv` straight on the descriptor.
//!
//! No other thread is involved: a hop through one would cost about as much as the whole round
//! trip. The socket is never made non-blocking, since that would also change it for whoever
//! shares it; a call that must not sleep says so itself.
//!
//! Limits: [`Options`]. What waits in an end that is dropped goes on being written by the loop.

use crate::codec;
use crate::ends::ChannelHandle;
use crate::error::{Error, SendError};
use crate::flusher;
use crate::frame::{Frame, Kind, Payload};
use crate::hello::Hello;
use crate::inbox::Inbox;
use crate::link::{Link, LinkEvent};
use crate::options::Options;
use crate::outbox::Outbox;
use crate::scratch;
use crate::spare;
use crate::wait::Wait;
use crate::wire::{self, Read};
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::io::{self, IoSlice};
use std::marker::PhantomData;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use sys::poll::{self, Interest};
use sys::scm;

/// `feed` writes by itself once so much waits, in bytes.
const FEED_BYTES: usize = 64 * 1024;

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
    end: Arc<End>,
    types: PhantomData<fn(S) -> R>,
}

/// The sending half of a [`Channel`].
pub struct Sender<S> {
    end: Arc<End>,
    types: PhantomData<fn(S)>,
}

/// The receiving half of a [`Channel`].
pub struct Receiver<R> {
    end: Arc<End>,
    types: PhantomData<fn() -> R>,
}

/// One end, whatever its types.
#[derive(Debug)]
pub(crate) struct End {
    /// `None` only once the end was taken apart.
    socket: Option<OwnedFd>,
    pub(crate) options: Options,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    /// No more is sent: `disconnect` was called, or the peer is gone.
    closed: AtomicBool,
}

#[derive(Debug)]
struct Sending {
    outbox: Outbox<OwnedFd>,
}

#[derive(Debug)]
struct Receiving {
    inbox: Inbox<OwnedFd>,
    wait: Wait,
    /// Nothing comes any more.
    ended: bool,
}

/// What an end is taken apart into.
pub(crate) struct Parts {
    pub(crate) socket: OwnedFd,
    pub(crate) options: Options,
    pub(crate) outbox: Outbox<OwnedFd>,
    pub(crate) inbox: Inbox<OwnedFd>,
    pub(crate) closed: bool,
}

impl End {
    fn new(socket: OwnedFd, options: Options, greeted: bool, heard: bool) -> End {
        let ours = Hello::new(options.serialization, &options.tag);
        let mut outbox = Outbox::new();
        if !greeted {
            outbox.push_greeting(&ours);
        }
        let inbox = Inbox::new(options.limits(), ours, heard);
        let wait = Wait::new(options.adaptive_wait);
        End {
            socket: Some(socket),
            options,
            sending: Mutex::new(Sending { outbox }),
            receiving: Mutex::new(Receiving { inbox, wait, ended: false }),
            closed: AtomicBool::new(false),
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("an end in use has its socket").as_fd()
    }

    fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn is_connected(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Queues `value`, and writes as `mode` says.
    fn send<T: Serialize>(&self, value: T, mode: Mode) -> Result<(), SendError<T>> {
        if !self.is_connected() {
            return Err(SendError { value, error: Error::Closed });
        }
        let scratch = scratch::take_frame();
        let (mut encoded, slots) =
            match codec::encode(&value, Kind::Message, &self.options, scratch) {
                Ok(frame) => frame,
                Err((error, scratch)) => {
                    scratch::keep_frame(scratch);
                    return Err(SendError { value, error });
                }
            };
        let mut sending = self.sending();
        let waiting = sending.outbox.bytes();
        if mode == Mode::Try && waiting > 0 {
            let full = waiting + encoded.length() > self.options.queued_bytes_max;
            if full && !matches!(self.flush_some(&mut sending), Ok(true)) {
                scratch::keep_frame(encoded.inline);
                return Err(SendError { value, error: Error::Full });
            }
        }
        let plain = slots.is_empty() && encoded.pieces.is_empty() && mode != Mode::Feed;
        let sent = if plain && waiting == 0 { self.send_now(&encoded.inline, mode) } else { 0 };
        if sent == encoded.inline.len() {
            scratch::keep_frame(encoded.inline);
            return Ok(());
        }
        let handles = match codec::take_handles(&slots) {
            Ok(handles) => handles,
            Err(error) => return Err(SendError { value, error }),
        };
        let count = handles.len();
        sending.outbox.push(&mut encoded, handles);
        sending.outbox.written(sent);
        scratch::keep_frame(encoded.inline);
        let result = match mode {
            Mode::Send => self.flush_all(&mut sending),
            Mode::Try => self.flush_some(&mut sending).map(drop),
            Mode::Feed if sending.outbox.bytes() < FEED_BYTES => return Ok(()),
            Mode::Feed => self.flush_all(&mut sending),
        };
        result.map_err(|error| {
            codec::put_back(&slots, sending.outbox.take_back_last(count));
            SendError { value, error }
        })
    }

    /// Writes a frame from where it was encoded: with nothing queued before it, nothing is gained
    /// by queueing it. What goes wrong goes wrong again on the way through the queue.
    #[inline]
    fn send_now(&self, frame: &[u8], mode: Mode) -> usize {
        let send = if mode == Mode::Send { scm::send_blocking } else { scm::send };
        send(self.fd(), &[IoSlice::new(frame)], &[]).unwrap_or(0)
    }

    /// Writes everything; sleeps while the peer does not read.
    fn flush_all(&self, sending: &mut Sending) -> Result<(), Error> {
        while !sending.outbox.is_empty() {
            match wire::write(self.fd(), &mut sending.outbox, true) {
                Ok(_) => {}
                // Somebody who shares the socket made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll::writable(self.fd(), None).map_err(|error| Error::Os("poll", error))?;
                }
                Err(error) if wire::is_passing(&error) => wait_a_little(),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(())
    }

    /// Writes what the socket takes without sleeping. True when nothing is left.
    fn flush_some(&self, sending: &mut Sending) -> Result<bool, Error> {
        while !sending.outbox.is_empty() {
            match wire::write(self.fd(), &mut sending.outbox, false) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if wire::is_passing(&error) => return Ok(false),
                Err(error) => return Err(self.broken(error)),
            }
        }
        Ok(true)
    }

    #[cold]
    fn broken(&self, error: io::Error) -> Error {
        self.closed.store(true, Ordering::Release);
        if wire::is_gone(&error) { Error::Closed } else { Error::Os("sendmsg", error) }
    }

    fn disconnect(&self) -> Result<(), Error> {
        let mut sending = self.sending();
        if self.closed.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let result = match self.flush_all(&mut sending) {
            Ok(()) => Ok(()),
            Err(error) => match (sending.outbox.clear(), error) {
                (0, Error::Closed) => Ok(()),
                (0, error) => Err(error),
                (count, _) => Err(Error::Undelivered(count)),
            },
        };
        // Fails only when the peer is gone, which is what was wanted.
        let _ = sys::socket::shutdown_write(self.fd());
        result
    }

    fn recv<R: DeserializeOwned>(&self) -> Result<R, Error> {
        let mut receiving = self.receiving();
        loop {
            if let Some(value) = self.next(&mut receiving)? {
                return Ok(value);
            }
            if receiving.ended {
                return Err(Error::Closed);
            }
            self.read_waiting(&mut receiving)?;
        }
    }

    fn recv_until<R: DeserializeOwned>(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<R>, Error> {
        let mut receiving = self.receiving();
        loop {
            if let Some(value) = self.next(&mut receiving)? {
                return Ok(Some(value));
            }
            if receiving.ended {
                return Err(Error::Closed);
            }
            if self.read(&mut receiving, false)? {
                continue;
            }
            self.flush_before_sleep()?;
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            match left {
                Some(left) if left > Duration::ZERO => {
                    if !poll::readable(self.fd(), Some(left)).map_err(|e| Error::Os("poll", e))? {
                        return Ok(None);
                    }
                }
                _ => return Ok(None),
            }
        }
    }

    /// The next message that was read already.
    #[inline]
    fn next<R: DeserializeOwned>(&self, receiving: &mut Receiving) -> Result<Option<R>, Error> {
        loop {
            let frame = match receiving.inbox.next_message() {
                Ok(frame) => frame,
                Err(error) => {
                    receiving.ended = true;
                    self.closed.store(true, Ordering::Release);
                    return Err(error);
                }
            };
            match frame {
                None => return Ok(None),
                // Not for users: a channel that carries these belongs to the crates above.
                Some(Frame { kind: Kind::Internal, .. }) => {}
                Some(frame) => return decode(&self.options, frame).map(Some),
            }
        }
    }

    /// One read that may sleep, or stay awake where that has proved to be better.
    fn read_waiting(&self, receiving: &mut Receiving) -> Result<(), Error> {
        self.flush_before_sleep()?;
        let Some(awake) = receiving.wait.awake() else {
            self.read(receiving, true)?;
            return Ok(());
        };
        if self.read(receiving, false)? {
            return Ok(());
        }
        let start = Instant::now();
        while start.elapsed() < awake {
            if self.read(receiving, false)? {
                receiving.wait.caught();
                return Ok(());
            }
        }
        let asleep = Instant::now();
        self.read(receiving, true)?;
        receiving.wait.missed(asleep.elapsed());
        Ok(())
    }

    /// One read; false when nothing was there.
    #[inline]
    fn read(&self, receiving: &mut Receiving, wait: bool) -> Result<bool, Error> {
        match wire::read(self.fd(), &mut receiving.inbox, wait) {
            Ok(Read::Bytes(_)) => Ok(true),
            Ok(Read::Nothing) if wait => {
                // Somebody who shares the socket made it non-blocking.
                poll::readable(self.fd(), None).map_err(|error| Error::Os("poll", error))?;
                Ok(false)
            }
            Ok(Read::Nothing) => Ok(false),
            Ok(Read::End) => {
                receiving.ended = true;
                Ok(true)
            }
            Err(error) => {
                receiving.ended = true;
                self.closed.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Who waits for an answer wants the question to be sent: writes what was fed, also while the
    /// peer does not read because it is waiting itself for us to read.
    #[inline]
    fn flush_before_sleep(&self) -> Result<(), Error> {
        let Ok(mut sending) = self.sending.try_lock() else { return Ok(()) };
        if sending.outbox.is_empty() || !self.is_connected() {
            return Ok(());
        }
        loop {
            match self.flush_some(&mut sending) {
                Ok(true) => return Ok(()),
                // Not an error of receiving: what the peer sent before it left can still be read.
                Err(_) => return Ok(()),
                Ok(false) => {
                    let both = [(self.fd(), Interest::BOTH)];
                    let ready =
                        poll::wait(&both, None).map_err(|error| Error::Os("poll", error))?;
                    if ready[0].readable {
                        return Ok(());
                    }
                }
            }
        }
    }

    /// Takes the end apart, if nobody else has a part of it.
    pub(crate) fn into_parts(this: Arc<End>) -> Option<Parts> {
        let mut end = Arc::into_inner(this)?;
        let socket = end.socket.take()?;
        let outbox = std::mem::replace(&mut end.sending().outbox, Outbox::new());
        let options = end.options.clone();
        let ours = Hello::new(options.serialization, &options.tag);
        let fresh = Inbox::new(options.limits(), ours, true);
        let inbox = std::mem::replace(&mut end.receiving().inbox, fresh);
        let closed = !end.is_connected();
        Some(Parts { socket, options, outbox, inbox, closed })
    }
}

impl Drop for End {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let outbox = std::mem::replace(&mut self.sending().outbox, Outbox::new());
        if self.is_connected() && outbox.frames() > 0 {
            flusher::finish(socket, outbox, Duration::from_millis(self.options.exit_flush_ms));
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Send,
    Try,
    Feed,
}

#[inline]
pub(crate) fn decode<R: DeserializeOwned>(
    options: &Options,
    frame: Frame<'_, OwnedFd>,
) -> Result<R, Error> {
    if frame.handles_lost {
        return Err(Error::HandlesLost);
    }
    let (codec, mapped) = (options.serialization, options.mapped_bytes_max);
    match frame.payload {
        Payload::Borrowed(bytes) => codec::decode(codec, bytes, None, frame.handles, mapped),
        Payload::Owned(bytes) => {
            let owner = spare::share(bytes);
            codec::decode(codec, &owner, Some(&owner), frame.handles, mapped)
        }
    }
}

/// For a shortage that no readiness tells the end of.
fn wait_a_little() {
    std::thread::sleep(Duration::from_millis(1));
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
        let (greeted, heard, idle) = {
            let (sending, receiving) = (self.end.sending(), self.end.receiving());
            let idle = sending.outbox.frames() == 0 && receiving.inbox.is_empty();
            (sending.outbox.is_empty(), receiving.inbox.greeted(), idle)
        };
        if !idle || !self.is_connected() {
            return Err(Error::Closed);
        }
        let parts = End::into_parts(self.end).ok_or(Error::Closed)?;
        Ok(ChannelHandle::new(parts.socket, &parts.options, greeted, heard))
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn into_end(self) -> Arc<End> {
        self.end
    }

    pub(crate) fn over(socket: OwnedFd, options: Options) -> Channel<S, R> {
        Channel::resumed(socket, options, false, false)
    }

    /// `greeted`, `heard`: whether the greetings were sent and read by an earlier owner.
    pub(crate) fn resumed(
        socket: OwnedFd,
        options: Options,
        greeted: bool,
        heard: bool,
    ) -> Channel<S, R> {
        Channel { end: Arc::new(End::new(socket, options, greeted, heard)), types: PhantomData }
    }

    /// Gives each direction a value of its own. The channel closes when both are dropped.
    #[must_use]
    pub fn split(self) -> (Sender<S>, Receiver<R>) {
        let sender = Sender { end: Arc::clone(&self.end), types: PhantomData };
        (sender, Receiver { end: self.end, types: PhantomData })
    }

    /// Hands this end to the loop: messages, also those that were read already, go to `sink`,
    /// which runs there and must not block.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the end is closed or a part of it is in use elsewhere;
    /// [`Error::Os`] when there is no loop.
    pub fn into_link(self, sink: impl FnMut(LinkEvent) + Send + 'static) -> Result<Link, Error> {
        let parts = End::into_parts(self.end).filter(|parts| !parts.closed).ok_or(Error::Closed)?;
        let Parts { socket, options, outbox, inbox, .. } = parts;
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
                self.end.send(value, Mode::Send)
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
                self.end.send(value, Mode::Try)
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
                self.end.send(value, Mode::Feed)
            }

            /// Writes what was queued; blocks while the peer does not read.
            ///
            /// # Errors
            ///
            /// [`Error::Closed`], [`Error::Os`].
            pub fn flush(&self) -> Result<(), Error> {
                self.end.flush_all(&mut self.end.sending())
            }

            /// Ends sending, once everything that was accepted is written. The peer reads it all
            /// and then finds the channel closed; what it sends can still be received.
            ///
            /// # Errors
            ///
            /// [`Error::Undelivered`] when the peer went away before it had read everything.
            pub fn disconnect(&self) -> Result<(), Error> {
                self.end.disconnect()
            }

            /// Tells whether sending may succeed: neither [`disconnect`](Self::disconnect) was
            /// called nor was the peer found gone.
            #[must_use]
            pub fn is_connected(&self) -> bool {
                self.end.is_connected()
            }
        })*
    };
}

sending! { [S, R] Channel<S, R>, [S] Sender<S> }

/// For programs with a loop of their own. Readiness of the descriptor says that bytes came, and a
/// read takes many messages at once: call `try_recv` until it answers `None` before waiting.
impl<S, R> mio::event::Source for Channel<S, R> {
    fn register(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        let number = sys::fd::number(self.end.fd());
        mio::unix::SourceFd(&number).register(registry, token, interests)
    }

    fn reregister(
        &mut self,
        registry: &mio::Registry,
        token: mio::Token,
        interests: mio::Interest,
    ) -> io::Result<()> {
        let number = sys::fd::number(self.end.fd());
        mio::unix::SourceFd(&number).reregister(registry, token, interests)
    }

    fn deregister(&mut self, registry: &mio::Registry) -> io::Result<()> {
        let number = sys::fd::number(self.end.fd());
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
                self.end.recv()
            }

            /// Receives a message that is there already, without blocking.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn try_recv(&self) -> Result<Option<R>, Error> {
                self.end.recv_until(None)
            }

            /// Receives the next message; `None` when none came in time.
            ///
            /// # Errors
            ///
            /// As [`recv`](Self::recv).
            pub fn recv_timeout(&self, timeout: Duration) -> Result<Option<R>, Error> {
                self.end.recv_until(Instant::now().checked_add(timeout))
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

macro_rules! common {
    ($($name:literal [$($generics:tt)*] $type:ty),*) => {
        $(impl<$($generics)*> AsFd for $type {
            fn as_fd(&self) -> BorrowedFd<'_> {
                self.end.fd()
            }
        }

        impl<$($generics)*> fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct($name)
                    .field("socket", &self.end.fd())
                    .field("serialization", &self.end.options.serialization)
                    .field("connected", &self.is_connected())
                    .finish()
            }
        })*
    };
}

common! { "Channel" [S, R] Channel<S, R>, "Sender" [S] Sender<S> }

impl<R> AsFd for Receiver<R> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.end.fd()
    }
}

impl<R> fmt::Debug for Receiver<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Receiver").field("socket", &self.end.fd()).finish_non_exhaustive()
    }
}
