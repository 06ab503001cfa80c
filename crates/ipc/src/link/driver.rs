//! The driver of a link on the loop: reads, writes, closes, and emits events to the sink.
//!
//! A [`Protocol`] turns bytes into messages: frames of this crate here, Node's messages in
//! [`node_protocol`](super::node_protocol).

use crate::arrived_handle::ArrivedHandle;
use crate::buffer_pool;
use crate::error::Error;
use crate::frame::Kind;
use crate::link::{InternalEvent, Phase, Shared, Sink};
use crate::received_message::Message;
use crate::transport::inbox::Inbox;
use crate::transport::linger::RETRY;
use crate::transport::outbox::Outbox;
use crate::transport::socket_io::{self, Read};
use reactor::{BYTES_PER_TURN, Event, Interest, Source, Token, Turn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SOCKET: Token = Token(0);

/// The number of bytes of answers above which the peer is not read: it must read them first.
///
/// One read of the peer's requests may lead beyond this limit. Only channels to Node answer.
pub(crate) const ANSWER_BYTES_MAX: usize = 64 * 1024;

/// The longest time in which a Node peer's messages are read after a disconnect: the peer may be
/// starting or busy.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// The receiving half of a channel: how bytes become messages, and the state between two reads.
pub(crate) trait Protocol: Send + 'static {
    /// Whether the protocol replies to the peer by itself and has deadlines. Such a protocol is
    /// also read before the owner reads, and holds the messages until then.
    const REPLIES: bool;

    /// Makes `buffer` the reading buffer and returns the former one. An empty vector takes the
    /// buffer back.
    fn swap_buffer(&mut self, buffer: Vec<u8>) -> Vec<u8>;

    /// Reads once.
    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error>;

    /// Passes every whole message to the sink. Before the owner reads, a protocol that replies holds
    /// them.
    fn deliver(&mut self, shared: &Shared, resumed: bool, sink: &mut Sink) -> Result<(), Error>;

    /// Performs the work that is due at `now`.
    fn tick(&mut self, shared: &Shared, now: Instant);

    /// Returns the time at which `tick` is needed next.
    fn deadline(&self, shared: &Shared) -> Option<Instant>;
}

/// The source on the loop.
pub(crate) struct Driver<I> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) protocol: I,
    /// The frames that were taken out of the queue, so that no lock is held during a write.
    pub(crate) writing: Outbox<OwnedFd>,
    /// The number of bytes in `writing` that were queued as answers to the peer.
    pub(crate) answers_writing: usize,
    /// Whether reading has stopped because the peer does not read its answers.
    pub(crate) waits_for_answers: bool,
    pub(crate) sink: Sink,
    /// Edge-triggered readiness is reported once, so these fields keep it until a call finds the
    /// opposite.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Whether room in the socket is watched. Room is watched only while bytes wait for it;
    /// otherwise the loop would wake for each message that the peer reads.
    pub(crate) watches_writable: bool,
    /// The time of the next attempt to write after a shortage.
    pub(crate) retry_at: Option<Instant>,
    /// The end of the time in which the peer's messages are read after a disconnect.
    pub(crate) linger_until: Option<Instant>,
    /// The time at which the queue is given up after a disconnect, unless the peer reads before.
    pub(crate) flush_until: Option<Instant>,
    pub(crate) peer_exit: PeerExit,
    /// Whether the owner reads. Updated once for each event, so that messages and the end of the
    /// channel are either all emitted or all held.
    pub(crate) resumed: bool,
    /// Whether the peer takes nothing more: it has closed its end, or has exited after a disconnect.
    pub(crate) hung_up: bool,
    /// The number of messages that were dropped because the peer takes nothing more.
    pub(crate) undelivered: usize,
    /// The error that ended the channel while its end was held back.
    pub(crate) failed: Option<Error>,
}

/// Whether the peer's process is known to have exited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerExit {
    Unknown,
    /// Known, but the messages before it are not read yet.
    Known,
    Notified,
}

impl<I: Protocol> Source for Driver<I> {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Start => {
                if let Err(error) = turn.register(self.socket.as_fd(), SOCKET, Interest::READABLE) {
                    self.close(Some(Error::Os("epoll_ctl", error)), turn);
                    return;
                }
            }
            Event::Ready { readable, writable, .. } => {
                self.readable |= readable;
                self.writable |= writable;
                // Only a hang-up or an error is reported where room is not watched.
                if writable && !self.watches_writable {
                    self.hung_up |= socket_io::is_hung_up(self.socket.as_fd());
                }
            }
            Event::Deadline => self.writable |= self.is_retry(turn.now()),
            Event::Wake | Event::Again => {}
        }
        let peer_gone = {
            let queue = self.shared.queue();
            self.resumed = queue.reads;
            queue.peer_gone
        };
        if self.peer_exit == PeerExit::Unknown && peer_gone {
            self.peer_exit = PeerExit::Known;
            // Everything that the peer sent has arrived, though the loop may not have reported it
            // yet.
            self.readable = true;
        }
        let open = self.pump(turn);
        if matches!(open, Ok(true)) {
            self.notify_peer_exit();
        }
        match open {
            Ok(true) if I::REPLIES => turn.set_deadline(self.next_deadline()),
            Ok(true) => {}
            ended if self.is_before_resume() => self.hold_end(ended.err()),
            ended => self.close(ended.err(), turn),
        }
    }
}

impl<I: Protocol> Driver<I> {
    /// Emits that the peer has exited, after everything is read that may be read.
    fn notify_peer_exit(&mut self) {
        let rests = !self.readable || !self.shared.credit.may_read() || !self.resumed;
        let rests = rests || self.waits_for_answers;
        if self.peer_exit == PeerExit::Known && rests {
            self.peer_exit = PeerExit::Notified;
            (self.sink)(InternalEvent::PeerGone);
        }
    }

    /// Returns whether the time for another attempt to write has come.
    fn is_retry(&mut self, now: Instant) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let due = self.protocol.deadline(&self.shared);
        due.into_iter().chain(self.retry_at).chain(self.linger_until).chain(self.flush_until).min()
    }

    /// Writes and reads as much as possible. Returns `false` when the channel is to be closed.
    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        if I::REPLIES {
            self.protocol.tick(&self.shared, turn.now());
        }
        let written = self.write(turn);
        // Messages that the peer sent before it closed are read even when writing fails.
        let open = self.read(turn)?;
        if !I::REPLIES || !open {
            return Ok(open && written?);
        }
        // The peer's messages may have led to replies.
        written?;
        let open = self.write(turn)?;
        if self.waits_for_answers && !self.has_many_answers() {
            turn.again();
        }
        Ok(open && self.linger_until.is_none() || self.lingers(turn.now()))
    }

    /// Shuts down the sending direction, and returns whether the link still reads.
    ///
    /// Everything is written at this point. A Node peer ends when it finds the socket closed while
    /// it sends. Therefore only this direction is shut down, and the peer's messages are read until
    /// it closes, too, for at most [`LINGER_MAX`].
    fn lingers(&mut self, now: Instant) -> bool {
        match self.linger_until {
            // Nothing is read while too much is unread, and the peer waits for nothing.
            _ if self.hung_up && !self.shared.credit.may_read() => false,
            // A process that has exited has sent everything before, so nothing more will arrive.
            Some(_) if !self.readable && self.shared.queue().peer_gone => false,
            Some(until) => now < until,
            None => {
                self.linger_until = Some(now + LINGER_MAX);
                sys::socket::shutdown_write(self.socket.as_fd()).is_ok()
            }
        }
    }

    /// Writes until the queue is empty or the socket is full. Returns `false` when everything is
    /// written and nothing more will come.
    fn write(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
        self.limit_flush(turn);
        self.drop_what_nobody_takes();
        loop {
            if self.writing.is_empty() {
                if let Some(open) = self.take_queue() {
                    self.watch_writable(false, turn);
                    return Ok(open);
                }
            }
            if !self.writable {
                return Ok(true);
            }
            // Other channels on the loop get their turn.
            if budget == 0 {
                turn.again();
                return Ok(true);
            }
            match socket_io::write(self.socket.as_fd(), &mut self.writing, false) {
                Ok(count) => {
                    budget = budget.saturating_sub(count);
                    if self.flush_until.is_some() {
                        self.flush_until = self.flush_end(turn.now());
                    }
                    self.shared.writing.store(self.writing.bytes(), Ordering::Relaxed);
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.writable = false;
                    self.watch_writable(true, turn);
                }
                Err(error) if socket_io::is_transient(&error) => {
                    self.writable = false;
                    self.retry_soon(turn);
                }
                // The end of the stream reports it, behind the last message.
                Err(error) if socket_io::is_gone(&error) => {
                    self.hung_up = true;
                    self.readable = true;
                    self.drop_what_nobody_takes();
                }
                Err(error) => return Err(Error::Os("sendmsg", error)),
            }
        }
    }

    /// Gives up the queue when the peer reads nothing of it after a disconnect.
    fn limit_flush(&mut self, turn: &mut Turn<'_>) {
        let is_flushing = {
            let queue = self.shared.queue();
            let idle = queue.outbox.is_empty() && queue.ack_window.is_idle();
            queue.phase == Phase::Closing && !(idle && self.writing.is_empty())
        };
        if !is_flushing {
            self.flush_until = None;
            return;
        }
        if self.flush_until.is_none() {
            self.flush_until = self.flush_end(turn.now());
        }
        self.hung_up |= self.flush_until.is_some_and(|until| until <= turn.now());
        turn.set_deadline(self.flush_until.into_iter().chain(self.retry_at).min());
    }

    fn flush_end(&self, now: Instant) -> Option<Instant> {
        now.checked_add(self.shared.options.flush_within)
    }

    /// Drops the queue and its handles once the peer takes nothing more.
    fn drop_what_nobody_takes(&mut self) {
        let mut queue = self.shared.queue();
        match queue.phase {
            Phase::HungUp => self.hung_up = true,
            // Other processes may hold the peer's socket, but none of them is the peer.
            Phase::Closing => self.hung_up |= queue.peer_gone,
            Phase::Open if self.hung_up => queue.phase = Phase::HungUp,
            Phase::Open | Phase::Closed => {}
        }
        let idle = self.writing.is_empty() && queue.outbox.is_empty() && queue.ack_window.is_idle();
        if !self.hung_up || idle {
            return;
        }
        let handles = queue.ack_window.take();
        let queued = std::mem::replace(&mut queue.outbox, Outbox::new());
        queue.answer_bytes = 0;
        queue.pending = None;
        drop(queue);
        let writing = std::mem::replace(&mut self.writing, Outbox::new());
        self.undelivered += handles.unwritten() + queued.frames() + writing.frames();
        self.shared.writing.store(0, Ordering::Relaxed);
    }

    fn retry_soon(&mut self, turn: &mut Turn<'_>) {
        self.retry_at = Some(turn.now() + RETRY);
        turn.set_deadline(self.retry_at);
    }

    /// Starts or stops watching for room in the socket. Room that came before is reported as well.
    fn watch_writable(&mut self, on: bool, turn: &mut Turn<'_>) {
        if self.watches_writable == on {
            return;
        }
        let interest = if on { Interest::BOTH } else { Interest::READABLE };
        match turn.reregister(self.socket.as_fd(), SOCKET, interest) {
            Ok(()) => self.watches_writable = on,
            Err(_) if on => self.retry_soon(turn),
            // The socket stays watched until the next attempt, at the cost of useless wake-ups.
            Err(_) => {}
        }
    }

    /// Takes over the frames that senders have queued, or returns whether more may come.
    ///
    /// Without frames, senders may write by themselves again. The return value is the state under
    /// the same lock, because another thread may send and disconnect in the next moment.
    fn take_queue(&mut self) -> Option<bool> {
        let mut queue = self.shared.queue();
        if queue.outbox.is_empty() {
            queue.loop_writes = false;
            queue.answer_bytes = 0;
            if queue.ack_window.is_idle() {
                queue.pending = None;
            }
            queue.outbox.shrink();
            self.writing.shrink();
            let may_send = matches!(queue.phase, Phase::Open | Phase::HungUp);
            return Some(may_send || !queue.ack_window.is_idle());
        }
        queue.loop_writes = true;
        // The empty queue moves the other way, so its memory is used again.
        std::mem::swap(&mut queue.outbox, &mut self.writing);
        self.answers_writing = std::mem::take(&mut queue.answer_bytes);
        self.shared.writing.store(self.writing.bytes(), Ordering::Relaxed);
        None
    }

    /// Reads until nothing is left, reading is paused, or the share of this turn is used. Returns
    /// `false` at the end of the stream.
    fn read(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        // A protocol that replies may hold events that the owner wants now.
        let wanted = I::REPLIES || (self.readable && self.resumed);
        if !wanted {
            return Ok(true);
        }
        drop(self.protocol.swap_buffer(buffer_pool::take_read()));
        let result = self.read_into_buffer(turn);
        buffer_pool::recycle_read(self.protocol.swap_buffer(Vec::new()));
        result
    }

    fn read_into_buffer(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
        loop {
            // Before the first read: a pause may have left whole messages in the buffer.
            self.protocol.deliver(&self.shared, self.resumed, &mut self.sink)?;
            self.waits_for_answers = I::REPLIES && self.has_many_answers();
            // The credit wakes the loop when messages have been taken.
            if !self.shared.credit.may_read() {
                return Ok(true);
            }
            if !self.readable || self.waits_for_answers {
                return Ok(true);
            }
            if budget == 0 {
                turn.again();
                return Ok(true);
            }
            match self.protocol.read(self.socket.as_fd())? {
                Read::Bytes(count) => budget = budget.saturating_sub(count),
                Read::WouldBlock => self.readable = false,
                Read::EndOfStream => return Ok(false),
            }
        }
    }

    /// Returns whether the peer must read its answers before it is read again.
    fn has_many_answers(&self) -> bool {
        let queue = self.shared.queue();
        // A sender may have written the queue with the answers in it.
        let queued = if queue.outbox.is_empty() { 0 } else { queue.answer_bytes };
        let writing = if self.writing.is_empty() { 0 } else { self.answers_writing };
        queued + writing > ANSWER_BYTES_MAX
    }

    /// Returns whether the owner of the link may still start to read.
    fn is_before_resume(&self) -> bool {
        !self.resumed && matches!(self.shared.queue().phase, Phase::Open | Phase::HungUp)
    }

    /// Holds the end of the channel back until the owner reads: the messages before it come first.
    ///
    /// A read then finds the same end once more.
    fn hold_end(&mut self, error: Option<Error>) {
        self.hung_up = true;
        self.drop_what_nobody_takes();
        if let Some(error) = error {
            // The peer sees the end of the stream at once.
            let _ = sys::socket::shutdown_both(self.socket.as_fd());
            self.failed.get_or_insert(error);
        }
    }

    fn close(&mut self, error: Option<Error>, turn: &mut Turn<'_>) {
        self.hung_up = true;
        self.drop_what_nobody_takes();
        let undelivered = self.undelivered;
        let error = self.failed.take().or(error);
        let mut queue = self.shared.queue();
        queue.phase = Phase::Closed;
        // Clones of the link outlive the channel, and must not keep its descriptor open.
        queue.socket = None;
        queue.pending = None;
        drop(queue);
        let _ = turn.deregister(self.socket.as_fd());
        // The peer sees the end of the stream even when another process has inherited the socket.
        let _ = sys::socket::shutdown_both(self.socket.as_fd());
        // The descriptor is deregistered and the lock is free, so the sink may call the link.
        (self.sink)(InternalEvent::Disconnect { undelivered, error });
        turn.remove();
    }
}

impl Protocol for Inbox<ArrivedHandle> {
    const REPLIES: bool = false;

    fn swap_buffer(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        self.decoder().swap_buffer(buffer)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error> {
        socket_io::read(socket, self, false)
    }

    fn deliver(&mut self, shared: &Shared, _: bool, sink: &mut Sink) -> Result<(), Error> {
        while let Some(frame) = self.next_message()? {
            let kind = frame.kind;
            let message = Message::from_frame(frame, &shared.credit);
            sink(match kind {
                Kind::Internal => InternalEvent::Internal(message),
                _ => InternalEvent::Message(message),
            });
        }
        Ok(())
    }

    fn tick(&mut self, _: &Shared, _: Instant) {}

    fn deadline(&self, _: &Shared) -> Option<Instant> {
        None
    }
}
