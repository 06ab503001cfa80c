//! A blocking endpoint without message types: the work of `send` and `recv`.
//!
//! Buffers belong to the thread that sends or receives. An idle endpoint keeps only messages that
//! were fed and not flushed, and the beginning of a message that has not arrived completely.

use crate::arrived_handle::ArrivedHandle;
use crate::buffer_pool;
use crate::channel::adaptive_wait::AdaptiveWait;
use crate::codec;
use crate::error::Error;
use crate::frame::{Frame, Kind, Payload};
use crate::hello::Hello;
use crate::options::Options;
use crate::receive_budget::CreditAccount;
use crate::received_message::Message;
use crate::transport::inbox::Inbox;
use crate::transport::linger;
use crate::transport::outbox::Outbox;
use crate::transport::outgoing::OutgoingFrame;
use crate::transport::socket_io::{self, Read};
use serde::{Serialize, de::DeserializeOwned};
use std::io::{self, IoSlice};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};
use sys::poll::{self, Interest};
use sys::scm;

/// The queue length from which `feed` writes, in bytes.
const FEED_BYTES: usize = 64 * 1024;

/// The pause before a write is tried again after a shortage.
const SHORTAGE: Duration = Duration::from_millis(1);

/// One endpoint, independent of its message types.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// `None` only after the endpoint was taken apart.
    socket: Option<OwnedFd>,
    pub(crate) options: Options,
    sending: Mutex<Sending>,
    receiving: Mutex<Receiving>,
    /// Whether sending has ended: `disconnect` was called, or the peer is gone.
    closed: AtomicBool,
    /// The account for messages that are received without being decoded.
    unread: OnceLock<Arc<CreditAccount>>,
}

#[derive(Debug)]
pub(crate) struct Sending {
    pub(crate) outbox: Outbox<OwnedFd>,
}

#[derive(Debug)]
pub(crate) struct Receiving {
    pub(crate) inbox: Inbox<ArrivedHandle>,
    wait: AdaptiveWait,
    /// The stream has ended, or an error made it unreadable.
    ended: bool,
}

/// The parts of an endpoint that a link or an asynchronous channel takes over.
pub(crate) struct EndpointParts {
    pub(crate) socket: OwnedFd,
    pub(crate) options: Options,
    pub(crate) outbox: Outbox<OwnedFd>,
    pub(crate) inbox: Inbox<ArrivedHandle>,
    pub(crate) closed: bool,
}

impl Endpoint {
    pub(crate) fn new(
        socket: OwnedFd,
        options: Options,
        handshake_sent: bool,
        handshake_received: bool,
    ) -> Endpoint {
        let ours = Hello::new(options.serialization, &options.tag);
        let mut outbox = Outbox::new();
        if !handshake_sent {
            outbox.push_handshake(&ours);
        }
        let inbox = Inbox::new(options.limits(), ours, handshake_received);
        let wait = AdaptiveWait::new(options.adaptive_wait);
        Endpoint {
            socket: Some(socket),
            options,
            sending: Mutex::new(Sending { outbox }),
            receiving: Mutex::new(Receiving { inbox, wait, ended: false }),
            closed: AtomicBool::new(false),
            unread: OnceLock::new(),
        }
    }

    pub(crate) fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_ref().expect("an endpoint in use has its socket").as_fd()
    }

    pub(crate) fn sending(&self) -> MutexGuard<'_, Sending> {
        self.sending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn receiving(&self) -> MutexGuard<'_, Receiving> {
        self.receiving.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_connected(&self) -> bool {
        !self.closed.load(Ordering::Acquire)
    }

    /// Sends `value` and writes as `mode` says.
    pub(crate) fn send<T: Serialize>(&self, value: &T, mode: SendMode) -> Result<(), Error> {
        if !self.is_connected() {
            return Err(Error::Closed);
        }
        // Encoding comes before the lock, so that a long value does not delay other senders.
        let mut frame = OutgoingFrame::encode(value, Kind::Message, &self.options)?;
        let mut sending = self.sending();
        let waiting = sending.outbox.bytes();
        if mode == SendMode::Try && self.options.is_too_much(waiting, frame.length(), Kind::Message)
        {
            // The socket may have room again since the last call, in which case the queue empties
            // here.
            match self.flush_some(&mut sending)? {
                Flush::Done => {}
                Flush::Full | Flush::Shortage => return Err(Error::Full),
            }
        }
        // An error here needs no handling: the queued frame runs into the same error below.
        let write = |bytes: &[u8], handles: &[OwnedFd]| match mode {
            SendMode::Feed => 0,
            SendMode::Send | SendMode::Try => {
                let (bytes, wait) = ([IoSlice::new(bytes)], mode == SendMode::Send);
                scm::send_owned(self.fd(), &bytes, handles, wait).unwrap_or(0)
            }
        };
        if !frame.write_or_queue(&mut sending.outbox, write)? {
            return Ok(());
        }
        let result = match mode {
            SendMode::Send => self.flush_all(&mut sending),
            SendMode::Try => self.flush_some(&mut sending).map(drop),
            SendMode::Feed if sending.outbox.bytes() < FEED_BYTES => return Ok(()),
            SendMode::Feed => self.flush_all(&mut sending),
        };
        result.inspect_err(|_| frame.slots.reclaim(&mut sending.outbox))
    }

    /// Writes the whole queue. Sleeps while the peer does not read.
    pub(crate) fn flush_all(&self, sending: &mut Sending) -> Result<(), Error> {
        while !sending.outbox.is_empty() {
            match socket_io::write(self.fd(), &mut sending.outbox, true) {
                Ok(_) => {}
                // Another process that shares the socket has made it non-blocking.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    poll::writable(self.fd(), None).map_err(|error| Error::Os("poll", error))?;
                }
                Err(error) if socket_io::is_transient(&error) => wait_a_little(),
                Err(error) => return Err(self.broken(error)),
            }
        }
        sending.outbox.recycle_memory();
        Ok(())
    }

    /// Writes what the socket takes without sleeping.
    fn flush_some(&self, sending: &mut Sending) -> Result<Flush, Error> {
        while !sending.outbox.is_empty() {
            match socket_io::write(self.fd(), &mut sending.outbox, false) {
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(Flush::Full),
                Err(error) if socket_io::is_transient(&error) => return Ok(Flush::Shortage),
                Err(error) => return Err(self.broken(error)),
            }
        }
        sending.outbox.recycle_memory();
        Ok(Flush::Done)
    }

    #[cold]
    fn broken(&self, error: io::Error) -> Error {
        self.closed.store(true, Ordering::Release);
        if socket_io::is_gone(&error) { Error::Closed } else { Error::Os("sendmsg", error) }
    }

    pub(crate) fn disconnect(&self) -> Result<(), Error> {
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
        // The call fails only when the peer is gone, which needs no shutdown.
        let _ = sys::socket::shutdown_write(self.fd());
        result
    }

    pub(crate) fn recv<R: DeserializeOwned>(&self) -> Result<R, Error> {
        self.recv_with(|frame| decode(&self.options, frame))
    }

    /// Receives a message without decoding it. Unread messages count on an account of this
    /// endpoint.
    pub(crate) fn recv_message(&self) -> Result<Message, Error> {
        let account = self.unread.get_or_init(|| CreditAccount::new(&self.options, false));
        self.recv_with(|frame| {
            check_handles(&self.options, &frame)?;
            Ok(Message::from_frame(frame, account))
        })
    }

    #[inline]
    fn recv_with<R>(&self, take: impl Fn(Owned<'_>) -> Result<R, Error>) -> Result<R, Error> {
        let mut receiving = self.receiving();
        loop {
            if let Some(value) = self.next(&mut receiving, &take)? {
                return Ok(value);
            }
            if receiving.ended {
                return Err(Error::Closed);
            }
            self.read_waiting(&mut receiving)?;
        }
    }

    /// Receives a message until `deadline`; with `None`, only one that has arrived already.
    pub(crate) fn recv_until<R: DeserializeOwned>(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<R>, Error> {
        let mut receiving = self.receiving();
        loop {
            if let Some(value) = self.next(&mut receiving, |it| decode(&self.options, it))? {
                return Ok(Some(value));
            }
            if receiving.ended {
                return Err(Error::Closed);
            }
            if self.read(&mut receiving, false)? {
                continue;
            }
            receiving.inbox.recycle_buffer();
            let Some(deadline) = deadline else {
                self.flush_if_free();
                return Ok(None);
            };
            self.flush_before_sleep(Some(deadline))?;
            let left = deadline.saturating_duration_since(Instant::now());
            if !poll::readable(self.fd(), Some(left)).map_err(|e| Error::Os("poll", e))? {
                return Ok(None);
            }
        }
    }

    /// Writes as much of the queue as the socket takes, and returns whether a caller may sleep
    /// until the descriptor is ready: `false` when a message was read already.
    pub(crate) fn prepare_wait(&self) -> bool {
        self.flush_if_free();
        let mut receiving = self.receiving();
        !receiving.ended && !receiving.inbox.decoder().is_ready()
    }

    /// Returns whether accepted messages wait to be written.
    pub(crate) fn wants_to_write(&self) -> bool {
        self.is_connected() && !self.sending().outbox.is_empty()
    }

    /// Returns the next message that was read already.
    #[inline]
    fn next<R>(
        &self,
        receiving: &mut Receiving,
        take: impl Fn(Owned<'_>) -> Result<R, Error>,
    ) -> Result<Option<R>, Error> {
        loop {
            let frame = match receiving.inbox.next_message() {
                Ok(frame) => frame,
                Err(error) => {
                    receiving.end();
                    self.closed.store(true, Ordering::Release);
                    return Err(error);
                }
            };
            match frame {
                None => return Ok(None),
                // Internal messages are not for users; channels that carry them belong to the
                // crates above.
                Some(Frame { kind: Kind::Internal, .. }) => {}
                Some(frame) => {
                    let taken = take(frame);
                    // Another whole message would lie in the buffer, which therefore stays.
                    if !receiving.inbox.decoder().is_ready() {
                        receiving.inbox.recycle_buffer();
                    }
                    return taken.map(Some);
                }
            }
        }
    }

    /// Reads once and waits for bytes: spins first where spinning has paid off, then sleeps.
    fn read_waiting(&self, receiving: &mut Receiving) -> Result<(), Error> {
        self.flush_before_sleep(None)?;
        let Some(spin_time) = receiving.wait.spin_time() else {
            self.read(receiving, true)?;
            return Ok(());
        };
        // A message that has arrived meanwhile says nothing about spinning.
        if self.read(receiving, false)? {
            return Ok(());
        }
        let start = Instant::now();
        while start.elapsed() < spin_time {
            if self.read(receiving, false)? {
                receiving.wait.succeeded();
                return Ok(());
            }
        }
        let asleep = Instant::now();
        self.read(receiving, true)?;
        receiving.wait.failed(asleep.elapsed());
        Ok(())
    }

    /// Reads once. Returns `false` when nothing had arrived.
    #[inline]
    fn read(&self, receiving: &mut Receiving, wait: bool) -> Result<bool, Error> {
        receiving.inbox.take_buffer();
        match socket_io::read(self.fd(), &mut receiving.inbox, wait) {
            Ok(Read::Bytes(_)) => Ok(true),
            Ok(Read::WouldBlock) if wait => {
                // Another process that shares the socket has made it non-blocking.
                poll::readable(self.fd(), None).map_err(|error| Error::Os("poll", error))?;
                Ok(false)
            }
            Ok(Read::WouldBlock) => Ok(false),
            Ok(Read::EndOfStream) => {
                receiving.end();
                Ok(true)
            }
            Err(error) => {
                receiving.end();
                self.closed.store(true, Ordering::Release);
                Err(error)
            }
        }
    }

    /// Writes the queue before a sleep, so that the peer can answer what was fed.
    ///
    /// The peer may not read because it waits until this side reads. Therefore the call returns
    /// when everything is written, when something can be read, or at `until`.
    #[inline]
    fn flush_before_sleep(&self, until: Option<Instant>) -> Result<(), Error> {
        loop {
            // The lock is not held during the sleep, so that other threads can send.
            let interest = match self.flush_if_free() {
                Flush::Done => return Ok(()),
                Flush::Full => Interest::BOTH,
                Flush::Shortage => Interest::READABLE,
            };
            let mut left = until.map(|at| at.saturating_duration_since(Instant::now()));
            if left == Some(Duration::ZERO) {
                return Ok(());
            }
            if interest == Interest::READABLE {
                left = Some(left.map_or(SHORTAGE, |left| left.min(SHORTAGE)));
            }
            let ready = poll::wait(&[(self.fd(), interest)], left);
            if ready.map_err(|error| Error::Os("poll", error))?[0].readable {
                return Ok(());
            }
        }
    }

    /// Writes as much of the queue as the socket takes, unless another thread is sending and so
    /// writes it.
    ///
    /// A write error is not reported, because a receiver must still get what the peer sent before
    /// it closed.
    #[inline]
    fn flush_if_free(&self) -> Flush {
        // A receiver must not wait for a sender that sleeps in a write.
        let Ok(mut sending) = self.sending.try_lock() else { return Flush::Done };
        if sending.outbox.is_empty() || !self.is_connected() {
            return Flush::Done;
        }
        self.flush_some(&mut sending).unwrap_or(Flush::Done)
    }

    /// Takes the endpoint apart, or returns `None` when another half of it is in use.
    pub(crate) fn into_parts(this: Arc<Endpoint>) -> Option<EndpointParts> {
        // Each half holds a clone, so this succeeds only for the last owner.
        let mut end = Arc::into_inner(this)?;
        let socket = end.socket.take()?;
        let outbox = std::mem::replace(&mut end.sending().outbox, Outbox::new());
        let options = end.options.clone();
        let ours = Hello::new(options.serialization, &options.tag);
        let fresh = Inbox::new(options.limits(), ours, true);
        let inbox = std::mem::replace(&mut end.receiving().inbox, fresh);
        let closed = !end.is_connected();
        Some(EndpointParts { socket, options, outbox, inbox, closed })
    }
}

impl Receiving {
    #[cold]
    fn end(&mut self) {
        self.ended = true;
        self.inbox.reclaim_buffer();
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        let Some(socket) = self.socket.take() else { return };
        let outbox = std::mem::replace(&mut self.sending().outbox, Outbox::new());
        // A lone handshake is no message, and the peer needs none from an endpoint that is gone.
        if self.is_connected() && outbox.frames() > 0 {
            linger::flush_and_close(socket, outbox, &self.options);
        }
    }
}

/// The result of a write that did not sleep.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Flush {
    Done,
    /// The socket is full: the peer must read first.
    Full,
    /// The kernel lacks a resource, and no readiness reports when it is available again.
    Shortage,
}

/// A frame with the descriptors that came with it.
type Owned<'a> = Frame<'a, ArrivedHandle>;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum SendMode {
    Send,
    Try,
    Feed,
}

/// Checks that a frame has the handles that it declares.
fn check_handles(options: &Options, frame: &Owned<'_>) -> Result<(), Error> {
    match (frame.handles_refused, frame.handles_lost) {
        (0, false) => Ok(()),
        (0, true) => Err(Error::HandlesLost),
        (count, _) => Err(Error::HandlesRefused { count, max: options.received_handles_max }),
    }
}

#[inline]
pub(crate) fn decode<R: DeserializeOwned>(options: &Options, frame: Owned<'_>) -> Result<R, Error> {
    check_handles(options, &frame)?;
    let (codec, limits) = (options.serialization, options.decode_limits());
    let Frame { payload, handles, fingerprint, .. } = frame;
    let handles = handles.into_iter().map(OwnedFd::from).collect();
    match payload {
        Payload::Borrowed(bytes) => codec::decode(codec, bytes, None, handles, limits, fingerprint),
        Payload::Owned(bytes) => {
            let owner = buffer_pool::share_long(bytes);
            codec::decode(codec, &owner, Some(&owner), handles, limits, fingerprint)
        }
    }
}

/// Sleeps for a moment, because no readiness reports the end of a shortage.
fn wait_a_little() {
    std::thread::sleep(SHORTAGE);
}

#[cfg(test)]
mod tests;
