//! The loop-driven end: messages come as events, sending never blocks.
//!
//! A [`Link`] lives on the process's loop. What it receives goes to a sink, which runs there and
//! must not block. What is sent is written at once where the channel is idle, and otherwise queued
//! and written by the loop, many messages per system call.
//!
//! Order of events: messages in the order sent, then one [`LinkEvent::Disconnect`], always, last.
//!
//! Limits: [`Options`]. An idle link keeps no buffer.

use crate::codec;
use crate::credit::Pool;
use crate::error::{Error, SendError};
use crate::flusher::{Pending, RETRY};
use crate::frame::{Frame, Kind, Payload};
use crate::hello::Hello;
use crate::inbox::Inbox;
use crate::message::Message;
use crate::options::Options;
use crate::outbox::Outbox;
use crate::scratch;
use crate::spare;
use crate::wire::{self, Read};
use bytes::Bytes;
use reactor::{BYTES_PER_TURN, Event, Handle as Wake, Interest, Key, Source, Turn};
use serde::Serialize;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

const SOCKET: Key = Key(0);

/// A send sooner than this after one that was written at once is queued: the sender is in a
/// hurry, and one system call for many messages serves it better.
const HURRY: Duration = Duration::from_micros(20);

/// What a [`Link`] tells its sink.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// A message of the user.
    Message(Message),
    /// A message of the crates above, never shown to users.
    Internal(Message),
    /// The channel is closed. The last event.
    Disconnect {
        /// Messages that `send` had accepted and the peer did not take.
        undelivered: usize,
        /// Why, unless one side disconnected or went away.
        error: Option<Error>,
    },
}

type Sink = Box<dyn FnMut(LinkEvent) + Send>;

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
struct Shared {
    options: Options,
    queue: Mutex<Queue>,
    /// Bytes that the loop has taken out of the queue and not written yet.
    writing: AtomicUsize,
    credit: Arc<Pool>,
    wake: OnceLock<Wake>,
}

#[derive(Debug)]
struct Queue {
    /// Gone once the channel is closed, so that clones of the link do not keep it open.
    socket: Option<Arc<OwnedFd>>,
    outbox: Outbox<OwnedFd>,
    phase: Phase,
    /// The loop writes, or will when it runs: whoever queues need not wake it.
    loop_writes: bool,
    /// When a sender last wrote by itself.
    direct: Option<Instant>,
    /// The loop may read; false for a link that was started paused.
    reads: bool,
    /// What is queued is waited for at exit.
    pending: Option<Pending>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
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

    fn begin(socket: OwnedFd, options: Options, sink: Sink, reads: bool) -> Result<Link, Error> {
        if !sys::socket::is_unix_stream(socket.as_fd()) {
            return Err(Error::NotAChannel("the descriptor is no Unix stream socket"));
        }
        let ours = Hello::new(options.serialization, &options.tag);
        let mut outbox = Outbox::new();
        outbox.push_greeting(&ours);
        let inbox = Inbox::new(options.limits(), ours, false);
        Link::resume_parts(socket, options, outbox, inbox, sink, reads)
    }

    pub(crate) fn resume_parts(
        socket: OwnedFd,
        options: Options,
        outbox: Outbox<OwnedFd>,
        inbox: Inbox<OwnedFd>,
        sink: Sink,
        reads: bool,
    ) -> Result<Link, Error> {
        let reactor = reactor::reactor().map_err(|error| Error::Os("starting the loop", error))?;
        let socket = Arc::new(socket);
        let credit = Pool::new(options.unread_bytes_max, options.unread_handles_max);
        let queue = Queue {
            socket: Some(Arc::clone(&socket)),
            outbox,
            phase: Phase::Open,
            loop_writes: true,
            direct: None,
            reads,
            pending: None,
        };
        let shared = Arc::new(Shared {
            options,
            queue: Mutex::new(queue),
            writing: AtomicUsize::new(0),
            credit,
            wake: OnceLock::new(),
        });
        let driver = Driver {
            shared: Arc::clone(&shared),
            socket,
            inbox,
            writing: Outbox::new(),
            sink,
            readable: true,
            writable: true,
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
    /// False when more than the high-water mark waits: the message is accepted, and a sender that
    /// can wait should. What was accepted is written before the channel closes.
    ///
    /// # Errors
    ///
    /// The value with its handles, and why: [`Error::Closed`], [`Error::Full`],
    /// [`Error::TooLong`], [`Error::TooManyHandles`], [`Error::Encode`].
    pub fn send<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.owner.shared.send(value, Kind::Message)
    }

    /// Sends a message for the crate above on the other side, which users there never see.
    ///
    /// # Errors
    ///
    /// As [`send`](Link::send).
    pub fn send_internal<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.owner.shared.send(value, Kind::Internal)
    }

    /// Closes the channel once everything that was accepted is written. Does not wait.
    pub fn disconnect(&self) {
        self.owner.shared.disconnect();
    }

    /// Tells whether messages are accepted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.owner.shared.queue().phase == Phase::Open
    }

    /// How many bytes wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        let queue = self.owner.shared.queue();
        queue.outbox.bytes() + self.owner.shared.writing.load(Ordering::Relaxed)
    }
}

impl Shared {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wake(&self) {
        // Not set yet means that the driver has not started: its first event looks at everything.
        if let Some(wake) = self.wake.get() {
            wake.wake();
        }
    }

    fn send<T: Serialize>(&self, value: T, kind: Kind) -> Result<bool, SendError<T>> {
        let scratch = scratch::take_frame();
        let (mut encoded, slots) = match codec::encode(&value, kind, &self.options, scratch) {
            Ok(frame) => frame,
            Err((error, scratch)) => {
                scratch::keep_frame(scratch);
                return Err(SendError { value, error });
            }
        };
        let mut queue = self.queue();
        let waiting = queue.outbox.bytes() + self.writing.load(Ordering::Relaxed);
        let full = waiting > 0 && waiting + encoded.length() > self.options.queued_bytes_max;
        let handles = match queue.phase {
            Phase::Open if full => Err(Error::Full),
            Phase::Open => codec::take_handles(&slots),
            Phase::Closing | Phase::Closed => Err(Error::Closed),
        };
        let handles = match handles {
            Ok(handles) => handles,
            Err(error) => {
                scratch::keep_frame(encoded.inline);
                return Err(SendError { value, error });
            }
        };
        let waiting = waiting + encoded.length();
        queue.outbox.push(&mut encoded, handles);
        let wake = self.write_or_leave(&mut queue);
        drop(queue);
        scratch::keep_frame(encoded.inline);
        if wake {
            self.wake();
        }
        Ok(waiting <= self.options.high_water_bytes)
    }

    /// Writes at once what was just queued, or leaves it to the loop; true when that must be woken.
    fn write_or_leave(&self, queue: &mut Queue) -> bool {
        if queue.loop_writes {
            self.wait_at_exit(queue);
            return false;
        }
        let now = Instant::now();
        let hurry = queue.direct.is_some_and(|last| now.duration_since(last) < HURRY);
        if let (false, Some(socket)) = (hurry, queue.socket.as_deref()) {
            queue.direct = Some(now);
            // Whatever goes wrong goes wrong again on the loop, which tells it in order.
            let _ = wire::write(socket.as_fd(), &mut queue.outbox, false);
            if queue.outbox.is_empty() {
                return false;
            }
        }
        queue.loop_writes = true;
        self.wait_at_exit(queue);
        true
    }

    /// Something is queued: a normal exit waits until it is written.
    fn wait_at_exit(&self, queue: &mut Queue) {
        if queue.pending.is_none() {
            let longest = Duration::from_millis(self.options.exit_flush_ms);
            queue.pending = Some(Pending::new(longest));
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

/// The end on the loop.
struct Driver {
    shared: Arc<Shared>,
    socket: Arc<OwnedFd>,
    inbox: Inbox<OwnedFd>,
    /// What was taken out of the queue, to be written without holding it.
    writing: Outbox<OwnedFd>,
    sink: Sink,
    /// Readiness is told once: this remembers it until a call says otherwise.
    readable: bool,
    writable: bool,
}

impl Source for Driver {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Start => {
                if let Err(error) = turn.register(self.socket.as_fd(), SOCKET, Interest::BOTH) {
                    self.close(Some(Error::Os("epoll_ctl", error)), turn);
                    return;
                }
            }
            Event::Ready { readable, writable, .. } => {
                self.readable |= readable;
                self.writable |= writable;
            }
            Event::Deadline => self.writable = true,
            Event::Wake | Event::Again => {}
        }
        match self.pump(turn) {
            Ok(true) => {}
            Ok(false) => self.close(None, turn),
            Err(error) => self.close(Some(error), turn),
        }
    }
}

impl Driver {
    /// Writes and reads what can be; false when the channel is to be closed.
    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let written = self.write(turn);
        // What the peer sent before it left is read even when writing fails.
        let open = self.read(turn)?;
        Ok(open && written?)
    }

    /// Writes until the queue is empty or the socket full; false when everything is written and
    /// no more will come.
    fn write(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
        loop {
            if self.writing.is_empty() && !self.take_queue() {
                return Ok(self.shared.queue().phase == Phase::Open);
            }
            if !self.writable {
                return Ok(true);
            }
            if budget == 0 {
                turn.again();
                return Ok(true);
            }
            match wire::write(self.socket.as_fd(), &mut self.writing, false) {
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    self.shared.writing.store(self.writing.bytes(), Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => self.writable = false,
                Err(error) if wire::is_passing(&error) => {
                    self.writable = false;
                    turn.set_deadline(Some(turn.now() + RETRY));
                }
                // The end of reading tells it, behind the last message.
                Err(error) if wire::is_gone(&error) => {
                    self.writable = false;
                    self.readable = true;
                    return Ok(true);
                }
                Err(error) => return Err(Error::Os("sendmsg", error)),
            }
        }
    }

    /// Takes over what senders queued. False when that is nothing: senders may write again.
    fn take_queue(&mut self) -> bool {
        let mut queue = self.shared.queue();
        if queue.outbox.is_empty() {
            queue.loop_writes = false;
            queue.pending = None;
            queue.outbox.shrink();
            self.writing.shrink();
            return false;
        }
        queue.loop_writes = true;
        std::mem::swap(&mut queue.outbox, &mut self.writing);
        self.shared.writing.store(self.writing.bytes(), Ordering::Relaxed);
        true
    }

    /// Reads until nothing is there, the credit is used up, or the turn's share is; false at the
    /// end of the stream.
    fn read(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        if !self.readable || !self.shared.queue().reads {
            return Ok(true);
        }
        self.lend_buffer();
        let result = self.read_lent(turn);
        let scratch = self.inbox.decoder().swap_buffer(Vec::new());
        scratch::keep_read(scratch);
        result
    }

    fn lend_buffer(&mut self) {
        let rest = self.inbox.decoder().swap_buffer(scratch::take_read());
        drop(rest);
    }

    fn read_lent(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
        loop {
            self.deliver()?;
            if !self.shared.credit.may_read() {
                return Ok(true);
            }
            if !self.readable {
                return Ok(true);
            }
            if budget == 0 {
                turn.again();
                return Ok(true);
            }
            match wire::read(self.socket.as_fd(), &mut self.inbox, false)? {
                Read::Bytes(count) => budget = budget.saturating_sub(count),
                Read::Nothing => self.readable = false,
                Read::End => return Ok(false),
            }
        }
    }

    /// Hands every whole message to the sink.
    fn deliver(&mut self) -> Result<(), Error> {
        while let Some(frame) = self.inbox.next_message()? {
            let kind = frame.kind;
            let message = to_message(frame, &self.shared);
            (self.sink)(match kind {
                Kind::Internal => LinkEvent::Internal(message),
                _ => LinkEvent::Message(message),
            });
        }
        Ok(())
    }

    fn close(&mut self, error: Option<Error>, turn: &mut Turn<'_>) {
        let mut queue = self.shared.queue();
        let undelivered = self.writing.clear() + queue.outbox.clear();
        queue.phase = Phase::Closed;
        queue.socket = None;
        queue.pending = None;
        drop(queue);
        self.shared.writing.store(0, Ordering::Relaxed);
        let _ = turn.deregister(self.socket.as_fd());
        // The peer sees the end even if a stranger inherited the socket.
        let _ = sys::socket::shutdown_both(self.socket.as_fd());
        (self.sink)(LinkEvent::Disconnect { undelivered, error });
        turn.remove();
    }
}

fn to_message(frame: Frame<'_, OwnedFd>, shared: &Shared) -> Message {
    let credit = shared.credit.take(frame.payload.as_ref().len(), frame.handles.len());
    let payload = match frame.payload {
        Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
        Payload::Owned(bytes) => spare::share(bytes),
    };
    Message::new(payload, frame.handles, frame.handles_lost, &shared.options, Some(credit))
}

#[cfg(test)]
#[path = "link_tests.rs"]
mod tests;
