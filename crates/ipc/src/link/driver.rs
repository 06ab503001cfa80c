//! A link's end on the loop: it reads, writes and closes, and tells the sink.
//!
//! How bytes become messages is its [`Protocol`]'s business: our own frames here, Node's in
//! [`node`](crate::node).

use crate::buffers;
use crate::error::Error;
use crate::frame::Kind;
use crate::link::{LinkEvent, Phase, Shared, Sink};
use crate::message::Message;
use crate::transport::flusher::RETRY;
use crate::transport::inbox::Inbox;
use crate::transport::outbox::Outbox;
use crate::transport::socket_io::{self, Read};
use reactor::{BYTES_PER_TURN, Event, Interest, Key, Source, Turn};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

const SOCKET: Key = Key(0);

/// How long a Node peer is listened to after we have left: it may be starting, or busy.
const LINGER_MAX: Duration = Duration::from_secs(10);

/// The receiving half of a channel: what it keeps between two reads.
pub(crate) trait Protocol: Send + 'static {
    /// It replies the peer by itself and has deadlines.
    /// It is also read while nobody listens, and keeps the messages of that time.
    const REPLIES: bool;

    /// Lends `scratch` as the reading buffer, or takes it back for an empty one.
    fn swap_buffer(&mut self, scratch: Vec<u8>) -> Vec<u8>;

    /// One read.
    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error>;

    /// Hands every whole message to the sink.
    fn deliver(&mut self, shared: &Shared, sink: &mut Sink) -> Result<(), Error>;

    /// Does what is due.
    fn tick(&mut self, shared: &Shared, now: Instant);

    /// When something is due next.
    fn deadline(&self, shared: &Shared) -> Option<Instant>;
}

/// The end on the loop.
pub(crate) struct Driver<I> {
    pub(crate) shared: Arc<Shared>,
    pub(crate) socket: Arc<OwnedFd>,
    pub(crate) protocol: I,
    /// What was taken out of the queue, to be written without holding it.
    pub(crate) writing: Outbox<OwnedFd>,
    pub(crate) sink: Sink,
    /// Readiness is told once: this remembers it until a call says otherwise.
    pub(crate) readable: bool,
    pub(crate) writable: bool,
    /// Room in the socket is told, too: only while something waits for it. Otherwise the loop would
    /// wake for each message that the peer reads.
    pub(crate) watches_writable: bool,
    /// When to try again to write after a shortage.
    pub(crate) retry_at: Option<Instant>,
    /// We have left; until when the peer is listened to.
    pub(crate) linger_until: Option<Instant>,
    pub(crate) peer_exit: PeerExit,
}

/// Whether the peer's process is known to have ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PeerExit {
    Unknown,
    /// Known, but what it sent is not read yet.
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
            }
            Event::Deadline => self.writable |= self.is_retry(turn.now()),
            Event::Wake | Event::Again => {}
        }
        if self.peer_exit == PeerExit::Unknown && self.shared.queue().peer_gone {
            self.peer_exit = PeerExit::Known;
            // Whatever was sent is there by now, though the loop may not have said so.
            self.readable = true;
        }
        let open = self.pump(turn);
        if matches!(open, Ok(true)) {
            self.notify_peer_exit();
        }
        match open {
            Ok(true) if I::REPLIES => turn.set_deadline(self.next_deadline()),
            Ok(true) => {}
            Ok(false) => self.close(None, turn),
            Err(error) => self.close(Some(error), turn),
        }
    }
}

impl<I: Protocol> Driver<I> {
    /// Tells that the peer is gone, once all is read that may be.
    fn notify_peer_exit(&mut self) {
        let rests = !self.readable || !self.shared.credit.may_read() || !self.shared.queue().reads;
        if self.peer_exit == PeerExit::Known && rests {
            self.peer_exit = PeerExit::Notified;
            (self.sink)(LinkEvent::PeerGone);
        }
    }

    /// Whether it is time to try to write again.
    fn is_retry(&mut self, now: Instant) -> bool {
        self.retry_at.take_if(|at| *at <= now).is_some()
    }

    fn next_deadline(&self) -> Option<Instant> {
        let due = self.protocol.deadline(&self.shared);
        due.into_iter().chain(self.retry_at).chain(self.linger_until).min()
    }

    /// Writes and reads what can be; false when the channel is to be closed.
    fn pump(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        if I::REPLIES {
            self.protocol.tick(&self.shared, turn.now());
        }
        let written = self.write(turn);
        // What the peer sent before it left is read even when writing fails.
        let open = self.read(turn)?;
        if !I::REPLIES || !open {
            return Ok(open && written?);
        }
        // Reading may have led to replies.
        written?;
        Ok(self.write(turn)? && self.linger_until.is_none() || self.lingers(turn.now()))
    }

    /// Everything is written and no more will be. A Node peer that found the socket closed while it
    /// sends would end over that, so it first hears that we leave, and we hear what it says until
    /// it leaves too: within [`LINGER_MAX`].
    fn lingers(&mut self, now: Instant) -> bool {
        match self.linger_until {
            // What a process has said before it ended is here when it has.
            Some(_) if !self.readable && self.shared.queue().peer_gone => false,
            Some(until) => now < until,
            None => {
                self.linger_until = Some(now + LINGER_MAX);
                sys::socket::shutdown_write(self.socket.as_fd()).is_ok()
            }
        }
    }

    /// Writes until the queue is empty or the socket full; false when everything is written and
    /// no more will come.
    fn write(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
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
            if budget == 0 {
                turn.again();
                return Ok(true);
            }
            match socket_io::write(self.socket.as_fd(), &mut self.writing, false) {
                Ok(count) => {
                    budget = budget.saturating_sub(count);
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
                // The end of reading tells it, behind the last message.
                Err(error) if socket_io::is_gone(&error) => {
                    self.writable = false;
                    self.readable = true;
                    return Ok(true);
                }
                Err(error) => return Err(Error::Os("sendmsg", error)),
            }
        }
    }

    fn retry_soon(&mut self, turn: &mut Turn<'_>) {
        self.retry_at = Some(turn.now() + RETRY);
        turn.set_deadline(self.retry_at);
    }

    /// Room that came before this is told as well.
    fn watch_writable(&mut self, on: bool, turn: &mut Turn<'_>) {
        if self.watches_writable == on {
            return;
        }
        let interest = if on { Interest::BOTH } else { Interest::READABLE };
        match turn.reregister(self.socket.as_fd(), SOCKET, interest) {
            Ok(()) => self.watches_writable = on,
            Err(_) if on => self.retry_soon(turn),
            // Watched in vain, and tried again the next time.
            Err(_) => {}
        }
    }

    /// Takes over what senders queued. When that is nothing, senders may write again, and the answer
    /// is whether more may come: as it was in this moment, for somebody may send and leave in the
    /// next.
    fn take_queue(&mut self) -> Option<bool> {
        let mut queue = self.shared.queue();
        if queue.outbox.is_empty() {
            queue.loop_writes = false;
            if queue.ack_window.is_idle() {
                queue.pending = None;
            }
            queue.outbox.shrink();
            self.writing.shrink();
            return Some(queue.phase == Phase::Open || !queue.ack_window.is_idle());
        }
        queue.loop_writes = true;
        std::mem::swap(&mut queue.outbox, &mut self.writing);
        self.shared.writing.store(self.writing.bytes(), Ordering::Relaxed);
        None
    }

    /// Reads until nothing is there, the credit is used up, or the turn's share is; false at the
    /// end of the stream.
    fn read(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        // Where messages were kept, they may be wanted now.
        let wanted = I::REPLIES || (self.readable && self.shared.queue().reads);
        if !wanted {
            return Ok(true);
        }
        self.lend_buffer();
        let result = self.read_lent(turn);
        let scratch = self.protocol.swap_buffer(Vec::new());
        buffers::recycle_read(scratch);
        result
    }

    fn lend_buffer(&mut self) {
        let rest = self.protocol.swap_buffer(buffers::take_read());
        drop(rest);
    }

    fn read_lent(&mut self, turn: &mut Turn<'_>) -> Result<bool, Error> {
        let mut budget = BYTES_PER_TURN;
        loop {
            self.protocol.deliver(&self.shared, &mut self.sink)?;
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
            match self.protocol.read(self.socket.as_fd())? {
                Read::Bytes(count) => budget = budget.saturating_sub(count),
                Read::WouldBlock => self.readable = false,
                Read::EndOfStream if I::REPLIES && self.is_paused() => return Ok(true),
                Read::EndOfStream => return Ok(false),
            }
        }
    }

    /// Nobody listens yet, so nobody is told of the end either; it will be read once more. There
    /// is no more reason to wait for what the peer will not take.
    fn is_paused(&self) -> bool {
        let mut queue = self.shared.queue();
        if !queue.reads {
            queue.pending = None;
        }
        !queue.reads && queue.phase == Phase::Open
    }

    fn close(&mut self, error: Option<Error>, turn: &mut Turn<'_>) {
        let mut queue = self.shared.queue();
        let undelivered = self.writing.clear() + queue.outbox.clear() + queue.ack_window.clear();
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

impl Protocol for Inbox<OwnedFd> {
    const REPLIES: bool = false;

    fn swap_buffer(&mut self, scratch: Vec<u8>) -> Vec<u8> {
        self.decoder().swap_buffer(scratch)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error> {
        socket_io::read(socket, self, false)
    }

    fn deliver(&mut self, shared: &Shared, sink: &mut Sink) -> Result<(), Error> {
        while let Some(frame) = self.next_message()? {
            let kind = frame.kind;
            let message = Message::from_frame(frame, &shared.credit);
            sink(match kind {
                Kind::Internal => LinkEvent::Internal(message),
                _ => LinkEvent::Message(message),
            });
        }
        Ok(())
    }

    fn tick(&mut self, _: &Shared, _: Instant) {}

    fn deadline(&self, _: &Shared) -> Option<Instant> {
        None
    }
}
