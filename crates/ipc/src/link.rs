//! The loop-driven endpoint: messages arrive as events, and sending never blocks.
//!
//! A [`Link`] lives on the process's loop. Received messages go to a sink, which runs on the loop
//! and must not block. A sender writes its message itself when the channel is idle. Otherwise the
//! message is queued, and the loop writes many messages with one system call.
//!
//! Order of events: messages in the order in which they were sent, and then always one
//! [`LinkEvent::Disconnect`].
//!
//! A peer that has closed its end takes nothing more, though its last messages may be unread. From
//! then on, sends fail, and the queue is dropped with its handles, whether the link reads or not.
//!
//! Limits: [`Options`]. An idle link keeps no buffer.

pub(crate) mod driver;
mod event;
mod forward;
mod node_protocol;
mod node_send;

pub use self::event::{InternalEvent, LinkEvent, Queued};
pub(crate) use self::event::{Sink, user_sink};

use self::driver::{Driver, PeerExit, Protocol};
use crate::error::{Error, SendHandleError};
use crate::frame::Kind;
use crate::hello::Hello;
use crate::node::ack_window::AckWindow;
use crate::options::Options;
use crate::receive_budget::CreditAccount;
use crate::received_message::Message;
use crate::transport::inbox::Inbox;
use crate::transport::linger::PendingFlush;
use crate::transport::outbox::Outbox;
use crate::transport::outgoing::OutgoingFrame;
use crate::transport::socket_io;
use reactor::Handle as Wake;
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The time within which a second message is queued for the loop instead of written at once: one
/// system call then writes many messages of a busy sender.
const COALESCE_WITHIN: Duration = Duration::from_micros(20);

/// A loop-driven endpoint of a channel.
///
/// Clones share the endpoint. The drop of the last clone disconnects; accepted messages are still
/// written.
#[derive(Clone, Debug)]
pub struct Link {
    owner: Arc<Owner>,
}

/// The guard that disconnects when the last clone of a [`Link`] drops.
#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.disconnect();
    }
}

/// The state that the loop and the senders share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) options: Options,
    queue: Mutex<Queue>,
    /// The number of bytes that the loop has taken out of the queue and not written yet.
    pub(crate) writing: AtomicUsize,
    pub(crate) credit: Arc<CreditAccount>,
    /// Whether the peer is Node.
    pub(crate) is_node: bool,
    /// Whether the peer has shown by an internal message that it is Bun, whose format differs.
    pub(crate) peer_is_bun: AtomicBool,
    wake: OnceLock<Wake>,
}

#[derive(Debug)]
pub(crate) struct Queue {
    /// `None` once the channel is closed, so that clones of the link do not keep the socket open.
    pub(crate) socket: Option<Arc<OwnedFd>>,
    pub(crate) outbox: Outbox<OwnedFd>,
    /// The number of bytes in `outbox` that answer the peer.
    pub(crate) answer_bytes: usize,
    /// The frames that wait for acknowledgements. Unused on channels between programs of this
    /// crate.
    pub(crate) ack_window: AckWindow<OwnedFd>,
    pub(crate) phase: Phase,
    /// Whether the loop writes, or will when it runs: then a sender need not wake it.
    pub(crate) loop_writes: bool,
    /// The time of the last write by a sender.
    written_at: Option<Instant>,
    /// Whether the peer's process is known to have exited.
    pub(crate) peer_gone: bool,
    /// Whether the loop may read; `false` for a link that was started paused.
    pub(crate) reads: bool,
    /// Makes a normal exit wait while something is queued.
    pub(crate) pending: Option<PendingFlush>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    Open,
    /// The peer has closed its end: nothing can be sent, but messages may be left to read.
    HungUp,
    /// `disconnect` was called. The queue is written, and then the channel closes.
    Closing,
    Closed,
}

/// The result of a sender's attempt to write its message itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// Everything is written.
    Whole,
    /// The loop writes already.
    ByLoop,
    /// The loop must be woken for the rest.
    WakeLoop,
    /// The peer takes nothing more. The message is still in the queue.
    PeerGone,
}

impl Link {
    /// Starts a link over a connected Unix stream socket.
    ///
    /// `sink` runs on the loop and must not block.
    ///
    /// # Errors
    ///
    /// [`Error::NotAChannel`] when `socket` is no Unix stream socket; [`Error::InvalidOption`];
    /// [`Error::Os`] when the loop cannot be started.
    pub fn start(
        socket: impl Into<OwnedFd>,
        options: Options,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Link, Error> {
        Link::begin(socket.into(), options, user_sink(sink), true)
    }

    /// Starts a link that sends but does not read before [`resume`](Link::resume).
    ///
    /// Until then, the messages of the peer and its end are held back. A send notices that the peer
    /// has closed, and [`is_connected`](Link::is_connected) does.
    ///
    /// # Errors
    ///
    /// As [`start`](Link::start).
    pub fn start_paused(
        socket: impl Into<OwnedFd>,
        options: Options,
        sink: impl FnMut(LinkEvent) + Send + 'static,
    ) -> Result<Link, Error> {
        Link::begin(socket.into(), options, user_sink(sink), false)
    }

    pub(crate) fn begin_node(socket: OwnedFd, options: Options, sink: Sink) -> Result<Link, Error> {
        socket_io::prepare(socket.as_fd())?;
        let protocol = node_protocol::NodeProtocol::new(&options)?;
        Link::resume_parts(socket, options, Outbox::new(), protocol, sink, false)
    }

    pub(crate) fn begin(
        socket: OwnedFd,
        options: Options,
        sink: Sink,
        reads: bool,
    ) -> Result<Link, Error> {
        socket_io::prepare(socket.as_fd())?;
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
        options.check()?;
        let is_node = replies(&protocol);
        let reactor = reactor::reactor().map_err(|error| Error::Os(error.call, error.source))?;
        let socket = Arc::new(socket);
        let credit = CreditAccount::new(&options, is_node);
        let queue = Queue {
            socket: Some(Arc::clone(&socket)),
            outbox,
            answer_bytes: 0,
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
            peer_is_bun: AtomicBool::new(false),
            wake: OnceLock::new(),
        });
        reactor.add_with(|wake| {
            // Before the driver runs: messages that are taken at once already wake the source.
            shared.credit.set_wake(wake.clone());
            let _ = shared.wake.set(wake.clone());
            Driver {
                shared: Arc::clone(&shared),
                socket,
                protocol,
                writing: Outbox::new(),
                answers_writing: 0,
                waits_for_answers: false,
                sink,
                readable: true,
                writable: true,
                watches_writable: false,
                retry_at: None,
                linger_until: None,
                flush_until: None,
                peer_exit: PeerExit::Unknown,
                resumed: reads,
                hung_up: false,
                undelivered: 0,
                failed: None,
            }
        });
        Ok(Link { owner: Arc::new(Owner { shared }) })
    }

    /// Starts reading on a link that was started paused.
    pub fn resume(&self) {
        self.owner.shared.queue().reads = true;
        self.owner.shared.wake();
    }

    /// Sends a message. Does not block.
    ///
    /// Accepted messages are written before the channel closes. The message has then taken the
    /// handles of `value`.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Full`], [`Error::TooLong`], [`Error::TooManyHandles`],
    /// [`Error::Encode`]. The handles of `value` stay in it, usable.
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Queued, Error> {
        self.send_kind(value, Kind::Message)
    }

    /// Sends a message with one attached handle to a Node peer. Does not block.
    ///
    /// The handle arrives as a `net.Socket`, a `net.Server` or a `dgram.Socket`. The socket is made
    /// non-blocking, which affects its clones in this process, too. Messages that are sent later
    /// wait until the peer has acknowledged the handle, as in Node.
    ///
    /// # Errors
    ///
    /// As [`send`](Link::send), with the descriptor. [`Error::InvalidHandle`] for a descriptor that
    /// would end a Node process (a file, a pipe, …), and on a channel between two programs of this
    /// crate, where a [`Handle`](crate::Handle) is a part of the message.
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: impl Into<OwnedFd>,
    ) -> Result<Queued, SendHandleError> {
        self.send_attached(value, handle.into(), None)
    }

    /// Closes the channel after everything that was accepted is written. Does not wait.
    pub fn disconnect(&self) {
        self.owner.shared.disconnect();
    }

    pub(crate) fn send_kind<T: Serialize + ?Sized>(
        &self,
        value: &T,
        kind: Kind,
    ) -> Result<Queued, Error> {
        self.owner.shared.send(value, kind)
    }

    pub(crate) fn forward(&self, message: &Message) -> Result<Queued, Error> {
        self.owner.shared.forward(message)
    }

    pub(crate) fn send_attached<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: OwnedFd,
        ticket: Option<u64>,
    ) -> Result<Queued, SendHandleError> {
        node_send::send_with_handle(&self.owner.shared, value, handle, ticket)
    }

    pub(crate) fn report_peer_gone(&self) {
        self.owner.shared.queue().peer_gone = true;
        self.owner.shared.wake();
    }

    /// Notes at once whether the peer has closed its end, which the loop otherwise notices soon.
    pub(crate) fn notice_hang_up(&self) {
        self.owner.shared.notice_hang_up();
    }

    /// Returns whether messages are accepted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        let queue = self.owner.shared.queue();
        // A link that reads has events, which tell the end of the channel in order.
        queue.phase == Phase::Open && (queue.reads || !queue.is_hung_up())
    }

    /// Returns whether reading is paused because too many of the peer's messages are unread
    /// (back-pressure).
    #[must_use]
    pub fn is_backpressured(&self) -> bool {
        self.owner.shared.credit.is_paused()
    }

    /// Returns the number of bytes that wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let queue = self.owner.shared.queue();
        queue.waiting(&self.owner.shared)
    }
}

/// Returns whether the protocol of a link replies by itself.
fn replies<I: Protocol>(_: &I) -> bool {
    I::REPLIES
}

impl Queue {
    /// Returns the number of bytes that were accepted and not written.
    pub(crate) fn waiting(&self, shared: &Shared) -> usize {
        self.outbox.bytes() + self.ack_window.bytes() + shared.writing.load(Ordering::Relaxed)
    }

    /// Returns whether the peer has closed its end.
    fn is_hung_up(&self) -> bool {
        self.socket.as_deref().is_some_and(|socket| socket_io::is_hung_up(socket.as_fd()))
    }
}

impl Shared {
    pub(crate) fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn wake(&self) {
        // An unset handle means that the driver has not started. Its first event checks everything.
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }

    fn send<T: Serialize + ?Sized>(&self, value: &T, kind: Kind) -> Result<Queued, Error> {
        if self.is_node {
            return node_send::send(self, value, kind);
        }
        // Encoding comes before the lock, so that a long value delays neither other senders nor the
        // loop.
        self.send_frame(OutgoingFrame::encode(value, kind, &self.options)?, kind)
    }

    fn send_frame(&self, mut frame: OutgoingFrame, kind: Kind) -> Result<Queued, Error> {
        let mut queue = self.open_queue(frame.length(), kind)?;
        let waiting = queue.waiting(self) + frame.length();
        frame.queue(&mut queue.outbox)?;
        let written = self.write_or_wake(&mut queue);
        if written == Written::PeerGone {
            frame.slots.reclaim(&mut queue.outbox);
        }
        drop(queue);
        self.after(written)?;
        Ok(Queued::new(waiting <= self.options.high_water_bytes))
    }

    /// Locks the queue if it accepts `length` bytes more.
    ///
    /// # Errors
    ///
    /// [`Error::Full`], [`Error::Closed`]; [`Error::Os`] in a process that was forked without exec,
    /// where nothing writes the queue.
    pub(crate) fn open_queue(
        &self,
        length: usize,
        kind: Kind,
    ) -> Result<MutexGuard<'_, Queue>, Error> {
        reactor::reactor().map_err(|error| Error::Os(error.call, error.source))?;
        let queue = self.queue();
        let full = self.options.is_too_much(queue.waiting(self), length, kind);
        match queue.phase {
            Phase::Open if full => Err(Error::Full),
            Phase::Open => Ok(queue),
            Phase::HungUp | Phase::Closing | Phase::Closed => Err(Error::Closed),
        }
    }

    /// Writes the queue at once, or leaves it to the loop.
    pub(crate) fn write_or_wake(&self, queue: &mut Queue) -> Written {
        if queue.loop_writes {
            self.flush_at_exit(queue);
            return Written::ByLoop;
        }
        // The write happens under the lock: another sender could otherwise overtake this frame.
        let now = Instant::now();
        let coalesce =
            queue.written_at.is_some_and(|last| now.duration_since(last) < COALESCE_WITHIN);
        if let (false, Some(socket)) = (coalesce, queue.socket.as_deref()) {
            queue.written_at = Some(now);
            match socket_io::write(socket.as_fd(), &mut queue.outbox, false) {
                Err(error) if socket_io::is_gone(&error) => {
                    queue.phase = Phase::HungUp;
                    return Written::PeerGone;
                }
                // The loop runs into any other error, too, and reports it in order.
                Ok(_) | Err(_) => {}
            }
            if queue.outbox.is_empty() {
                // The loop does not poll this queue now, so this thread must recycle the memory.
                queue.outbox.recycle_memory();
                return Written::Whole;
            }
        }
        queue.loop_writes = true;
        self.flush_at_exit(queue);
        Written::WakeLoop
    }

    /// Finishes a send after the lock is free: wakes the loop where it has work now.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the peer was gone.
    pub(crate) fn after(&self, written: Written) -> Result<(), Error> {
        if matches!(written, Written::WakeLoop | Written::PeerGone) {
            self.wake();
        }
        if written == Written::PeerGone { Err(Error::Closed) } else { Ok(()) }
    }

    fn notice_hang_up(&self) {
        let mut queue = self.queue();
        if queue.phase == Phase::Open && queue.is_hung_up() {
            queue.phase = Phase::HungUp;
            drop(queue);
            // The loop drops what is queued.
            self.wake();
        }
    }

    /// Makes a normal exit of the process wait until the queue is written.
    pub(crate) fn flush_at_exit(&self, queue: &mut Queue) {
        if queue.pending.is_none() {
            let longest = self.options.exit_flush;
            queue.pending = Some(PendingFlush::new(longest));
        }
    }

    fn disconnect(&self) {
        let mut queue = self.queue();
        match queue.phase {
            Phase::Open | Phase::HungUp => {
                queue.phase = Phase::Closing;
                drop(queue);
                self.wake();
            }
            Phase::Closing | Phase::Closed => {}
        }
    }
}

#[cfg(test)]
mod tests;
