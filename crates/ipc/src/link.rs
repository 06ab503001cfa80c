//! The loop-driven end: messages come as events, sending never blocks.
//!
//! A [`Link`] lives on the process's loop. What it receives goes to a sink, which runs there and
//! must not block. What is sent is written at once where the channel is idle, and otherwise queued
//! and written by the loop, many messages per system call.
//!
//! Order of events: messages in the order sent, then one [`LinkEvent::Disconnect`], always, last.
//!
//! Limits: [`Options`]. An idle link keeps no buffer.

pub(crate) mod driver;
mod node_protocol;
mod node_send;

use self::driver::{Driver, PeerExit, Protocol};
use crate::credit::CreditAccount;
use crate::error::{Error, SendError};
use crate::frame::Kind;
use crate::hello::Hello;
use crate::message::Message;
use crate::node::ack_window::AckWindow;
use crate::options::Options;
use crate::transport::flusher::PendingFlush;
use crate::transport::inbox::Inbox;
use crate::transport::outbox::Outbox;
use crate::transport::outgoing::OutgoingFrame;
use crate::transport::socket_io;
use reactor::Handle as Wake;
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// A send sooner than this after one that was written at once is queued: the sender is in a
/// coalesce, and one system call for many messages serves it better.
const COALESCE_WITHIN: Duration = Duration::from_micros(20);

/// What a [`Link`] tells its sink.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// A message of the user.
    Message(Message),
    /// A message of the crates above, never shown to users.
    Internal(Message),
    /// Something went wrong, and the channel lives on. Node's channels only.
    Error(Error),
    /// The peer has answered for the handle that was sent under this number. Node's channels only.
    Acknowledged {
        /// The number given to [`Link::send_internal_with_handle`].
        ticket: u64,
        /// It has the handle; otherwise it had no descriptor number left, and never saw it.
        taken: bool,
    },
    /// The peer's process has ended, as [`Link::peer_is_gone`] said, and what it sent before was
    /// told, as far as it may be read. Told once, unless the channel is closed by then.
    PeerGone,
    /// The channel is closed. The last event.
    Disconnect {
        /// Messages that `send` had accepted and the peer did not take.
        undelivered: usize,
        /// Why, unless one side disconnected or went away.
        error: Option<Error>,
    },
}

pub(crate) type Sink = Box<dyn FnMut(LinkEvent) + Send>;

/// A loop-driven end of a channel.
///
/// Clones are the same end. When the last one drops, it disconnects: what was accepted is still
/// written.
#[derive(Clone, Debug)]
pub struct Link {
    owner: Arc<Owner>,
}

/// Disconnects when the last clone of a [`Link`] drops.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.disconnect();
    }
}

/// What the loop and the senders share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    queue: Mutex<Queue>,
    /// Bytes that the loop has taken out of the queue and not written yet.
    pub(crate) writing: AtomicUsize,
    pub(crate) credit: Arc<CreditAccount>,
    /// It speaks as Node does.
    pub(crate) is_node: bool,
    wake: OnceLock<Wake>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    /// PeerExit once the channel is closed, so that clones of the link do not keep it open.
    pub(crate) socket: Option<Arc<OwnedFd>>,
    pub(crate) outbox: Outbox<OwnedFd>,
    /// What may go into the outbox, where handles are acknowledged. Unused on our own channels.
    pub(crate) ack_window: AckWindow<OwnedFd>,
    pub(crate) phase: Phase,
    /// The loop writes, or will when it runs: whoever queues need not wake it.
    pub(crate) loop_writes: bool,
    /// When a sender last wrote by itself.
    written_at: Option<Instant>,
    /// The process at the other end is known to have ended.
    pub(crate) peer_gone: bool,
    /// The loop may read; false for a link that was started paused.
    pub(crate) reads: bool,
    /// What is queued is waited for at exit.
    pub(crate) pending: Option<PendingFlush>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// `disconnect` was called: the queue is written, then the channel closes.
    Closing,
    Closed,
}

impl Link {
    /// Starts a link over a connected Unix stream socket.
    ///
    /// `sink` runs on the loop: it must not block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] when `socket` is something else; [`Error::Os`] when there is no loop.
    pub fn start(
        socket: OwnedFd,
        options: Options,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Link, Error> {
        Link::begin(socket, options, Box::new(sink), true)
    }

    /// Starts a link that sends but does not read before [`resume`](Link::resume).
    ///
    /// It does not notice that the peer left, either.
    ///
    /// # Errors
    ///
    /// As [`start`](Link::start).
    pub fn start_paused(
        socket: OwnedFd,
        options: Options,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Link, Error> {
        Link::begin(socket, options, Box::new(sink), false)
    }

    /// Starts a link that speaks as Node does, and does not read before [`resume`](Link::resume).
    ///
    /// Messages are JSON lines, or V8 values with [`Serialization::Advanced`]. See
    /// [`node`](crate::node).
    ///
    /// [`Serialization::Advanced`]: crate::Serialization::Advanced
    ///
    /// # Errors
    ///
    /// As [`start`](Link::start); [`Error::NotAChannel`] for a serialization that Node does not
    /// know.
    pub fn start_node(
        socket: OwnedFd,
        options: Options,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Link, Error> {
        if !sys::socket::is_unix_stream(socket.as_fd()) {
            return Err(Error::NotAChannel("the descriptor is no Unix stream socket"));
        }
        let protocol = node_protocol::NodeProtocol::new(&options)?;
        Link::resume_parts(socket, options, Outbox::new(), protocol, Box::new(sink), false)
    }

    fn begin(socket: OwnedFd, options: Options, sink: Sink, reads: bool) -> Result<Link, Error> {
        if !sys::socket::is_unix_stream(socket.as_fd()) {
            return Err(Error::NotAChannel("the descriptor is no Unix stream socket"));
        }
        let ours = Hello::new(options.serialization, &options.tag);
        let mut outbox = Outbox::new();
        outbox.push_handshake(&ours);
        let inbox = Inbox::new(options.limits(), ours, false);
        Link::resume_parts(socket, options, outbox, inbox, sink, reads)
    }

    pub(crate) fn resume_parts(
        socket: OwnedFd,
        options: Options,
        outbox: Outbox<OwnedFd>,
        protocol: impl Protocol,
        sink: Sink,
        reads: bool,
    ) -> Result<Link, Error> {
        let is_node = replies(&protocol);
        let reactor = reactor::reactor().map_err(|error| Error::Os("starting the loop", error))?;
        let socket = Arc::new(socket);
        let credit = CreditAccount::new(&options, is_node);
        let queue = Queue {
            socket: Some(Arc::clone(&socket)),
            outbox,
            ack_window: AckWindow::new(options.handles_in_flight_max),
            phase: Phase::Open,
            loop_writes: true,
            written_at: None,
            peer_gone: false,
            reads,
            pending: None,
        };
        let shared = Arc::new(Shared {
            options,
            queue: Mutex::new(queue),
            writing: AtomicUsize::new(0),
            credit,
            is_node,
            wake: OnceLock::new(),
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            socket,
            protocol,
            writing: Outbox::new(),
            sink,
            readable: true,
            writable: true,
            watches_writable: false,
            retry_at: None,
            linger_until: None,
            peer_exit: PeerExit::Unknown,
        };
        let wake = reactor.add(driver);
        shared.credit.set_wake(wake.clone());
        let _ = shared.wake.set(wake);
        Ok(Link { owner: Arc::new(Owner { shared }) })
    }

    /// Lets a link that was started paused read.
    pub fn resume(&self) {
        self.owner.shared.queue().reads = true;
        self.owner.shared.wake();
    }

    /// Sends a message. Does not block.
    ///
    /// False when more than the high-water mark waits, or (to a Node peer) when other messages wait
    /// for the acknowledgement of a handle: the message is accepted, and a sender that can wait
    /// should. What was accepted is written before the channel closes.
    ///
    /// # Errors
    ///
    /// The value with its handles, and why: [`Error::Closed`], [`Error::Full`],
    /// [`Error::TooLong`], [`Error::TooManyHandles`], [`Error::Encode`].
    pub fn send<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.owner.shared.send(value, Kind::Message)
    }

    /// Sends a message for the crate above on the other side, which users there never see. It has
    /// room of its own beside what [`send`](Link::send) may queue, as much as that is by default.
    ///
    /// # Errors
    ///
    /// As [`send`](Link::send).
    pub fn send_internal<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.owner.shared.send(value, Kind::Internal)
    }

    /// Sends a message with one handle beside it, to a Node peer. Does not block.
    ///
    /// The socket arrives there as what it is: a `net.Socket`, a `net.Server` or a
    /// `dgram.Socket`. It is made non-blocking, which also concerns clones of it here. What is sent
    /// after it waits until the peer has acknowledged it, as in Node.
    ///
    /// # Errors
    ///
    /// As [`send`](Link::send), with the descriptor; [`Error::InvalidHandle`] for what would end a
    /// Node process (a file, a pipe, …) and on channels between our own, where a
    /// [`Handle`](crate::Handle) is a part of the message.
    pub fn send_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        node_send::send_with_handle(&self.owner.shared, value, handle.into(), None)
    }

    /// Sends a message for the crate above on the other side, with one handle beside it, as a raw
    /// handle of Node's. The answer comes as [`LinkEvent::Acknowledged`] with `ticket`.
    ///
    /// # Errors
    ///
    /// As [`send_with_handle`](Link::send_with_handle).
    pub fn send_internal_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
        ticket: u64,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        node_send::send_with_handle(&self.owner.shared, value, handle.into(), Some(ticket))
    }

    /// Closes the channel once everything that was accepted is written. Does not wait.
    pub fn disconnect(&self) {
        self.owner.shared.disconnect();
    }

    /// For whoever knows that the process at the other end has ended: a channel that we have left
    /// does not wait for others who hold its end. Answered by [`LinkEvent::PeerGone`] or
    /// [`LinkEvent::Disconnect`].
    pub fn peer_is_gone(&self) {
        self.owner.shared.queue().peer_gone = true;
        self.owner.shared.wake();
    }

    /// Tells whether messages are accepted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.owner.shared.queue().phase == Phase::Open
    }

    /// Tells whether the peer is not heard because too many of its messages lie unread.
    #[must_use]
    pub fn is_backpressured(&self) -> bool {
        self.owner.shared.credit.is_paused()
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let queue = self.owner.shared.queue();
        queue.waiting(&self.owner.shared)
    }
}

/// Only Node's channels answer by themselves.
fn replies<I: Protocol>(_: &I) -> bool {
    I::REPLIES
}

impl Queue {
    /// Bytes that were accepted and not written.
    pub(crate) fn waiting(&self, shared: &Shared) -> usize {
        self.outbox.bytes() + self.ack_window.bytes() + shared.writing.load(Ordering::Relaxed)
    }
}

impl Shared {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        // Not set yet means that the driver has not started: its first event looks at everything.
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }

    fn send<T: Serialize>(&self, value: T, kind: Kind) -> Result<bool, SendError<T>> {
        if self.is_node {
            return node_send::send(self, value, kind);
        }
        self.try_send(&value, kind).map_err(|error| SendError { value, error })
    }

    fn try_send<T: Serialize>(&self, value: &T, kind: Kind) -> Result<bool, Error> {
        let frame = OutgoingFrame::encode(value, kind, &self.options)?;
        let mut queue = self.open_queue(frame.length(), kind)?;
        let waiting = queue.waiting(self) + frame.length();
        // Written or not, the frame is accepted: a broken channel is told by the loop.
        let _ = frame.queue(&mut queue.outbox)?;
        let wake = self.write_or_wake(&mut queue);
        drop(queue);
        if wake {
            self.wake();
        }
        Ok(waiting <= self.options.high_water_bytes)
    }

    /// The queue, if it takes so many bytes more.
    pub(crate) fn open_queue(
        &self,
        length: usize,
        kind: Kind,
    ) -> Result<MutexGuard<'_, Queue>, Error> {
        let queue = self.queue();
        let full = self.options.is_too_much(queue.waiting(self), length, kind);
        match queue.phase {
            Phase::Open if full => Err(Error::Full),
            Phase::Open => Ok(queue),
            Phase::Closing | Phase::Closed => Err(Error::Closed),
        }
    }

    /// Writes at once what was just queued, or leaves it to the loop; true when that must be woken.
    pub(crate) fn write_or_wake(&self, queue: &mut Queue) -> bool {
        if queue.loop_writes {
            self.flush_at_exit(queue);
            return false;
        }
        let now = Instant::now();
        let coalesce =
            queue.written_at.is_some_and(|last| now.duration_since(last) < COALESCE_WITHIN);
        if let (false, Some(socket)) = (coalesce, queue.socket.as_deref()) {
            queue.written_at = Some(now);
            // Whatever goes wrong goes wrong again on the loop, which tells it in order.
            let _ = socket_io::write(socket.as_fd(), &mut queue.outbox, false);
            if queue.outbox.is_empty() {
                // The loop does not look at this queue now, so nobody else would.
                queue.outbox.recycle_memory();
                return false;
            }
        }
        queue.loop_writes = true;
        self.flush_at_exit(queue);
        true
    }

    /// Something is queued: a normal exit waits until it is written.
    pub(crate) fn flush_at_exit(&self, queue: &mut Queue) {
        if queue.pending.is_none() {
            let longest = Duration::from_millis(self.options.exit_flush_ms);
            queue.pending = Some(PendingFlush::new(longest));
        }
    }

    fn disconnect(&self) {
        let mut queue = self.queue();
        if queue.phase == Phase::Open {
            queue.phase = Phase::Closing;
            drop(queue);
            self.wake();
        }
    }
}

#[cfg(test)]
mod tests;
