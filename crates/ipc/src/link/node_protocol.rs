//! Node's protocol on a link: messages go to the sink, and messages about handles are answered
//! here.

use crate::arrived_handle::ArrivedHandle;
use crate::buffer_pool::{self, FrameBuffer};
use crate::codec::advanced::Features;
use crate::error::Error;
use crate::frame::{FrameError, Kind, Payload};
use crate::link::driver;
use crate::link::{InternalEvent, Queue, Shared, Sink};
use crate::node::ack_window::{AckOutcome, NodeFrame, ReadyFrame};
use crate::node::decoder::{Decoded, Framing, NodeDecoder};
use crate::node::encode::{self, Origin};
use crate::node::envelope::{
    InnerMessage, PayloadKind, begins_with_handle, bun_internal, classify,
};
use crate::node::server_connections::ServerConnections;
use crate::options::Options;
use crate::received_message::Message;
use crate::serialization::Serialization;
use crate::transport::outbox::Encoded;
use crate::transport::socket_io::{self, Read};
use ::bytes::Bytes;
use serde::Serialize;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::time::Instant;

/// The number of errors that are emitted between two messages of the user.
pub(super) const ERRORS_MAX: usize = 16;

/// The receiving half of a channel to Node.
#[derive(Debug)]
pub(crate) struct NodeProtocol {
    framing: Framing,
    decoder: NodeDecoder<ArrivedHandle>,
    servers: ServerConnections<CountedConnection>,
    received_handles_max: usize,
    /// The number of errors since the last message of the user.
    errors: usize,
    /// The events of the time before the link was resumed.
    held_events: VecDeque<InternalEvent>,
}

/// A connection that a server of the peer counts: a descriptor of this process, and the inode that
/// tells whether the descriptor is still that socket.
#[derive(Debug)]
struct CountedConnection {
    number: i32,
    inode: u64,
}

impl CountedConnection {
    fn is_open(&self) -> bool {
        sys::fd::leads_to(self.number, self.inode)
    }
}

/// A message of this crate itself to Node.
#[derive(Debug, Serialize)]
struct Command<'a> {
    cmd: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    count: Option<usize>,
}

impl Command<'static> {
    const fn plain(cmd: &'static str) -> Command<'static> {
        Command { cmd, key: None, count: None }
    }
}

/// Returns the framing of a serialization, if Node knows it.
pub(crate) fn framing(serialization: Serialization) -> Result<Framing, Error> {
    match serialization {
        Serialization::Json => Ok(Framing::Lines),
        Serialization::Advanced => Ok(Framing::Lengths),
        Serialization::Bincode => Err(Error::NotAChannel("Node speaks json or advanced")),
    }
}

impl NodeProtocol {
    pub(crate) fn new(options: &Options) -> Result<NodeProtocol, Error> {
        let framing = framing(options.serialization)?;
        let max = options.frame_bytes_max.min(encode::PAYLOAD_BYTES_MAX);
        let decoder = NodeDecoder::new(framing, max);
        Ok(NodeProtocol {
            framing,
            decoder,
            servers: ServerConnections::new(),
            received_handles_max: options.received_handles_max,
            errors: 0,
            held_events: VecDeque::new(),
        })
    }

    /// Handles one payload: replies to it, and returns the event to emit.
    fn handle_payload(&mut self, payload: Bytes, shared: &Shared) -> Option<InternalEvent> {
        if let Some(json) = bun_internal(self.framing, &payload) {
            shared.peer_is_bun.store(true, Ordering::Relaxed);
            let json = payload.slice_ref(json);
            return Some(InternalEvent::Internal(message(json, None, shared)));
        }
        match classify(self.framing, &payload) {
            PayloadKind::User => {
                self.errors = 0;
                Some(InternalEvent::Message(message(payload, None, shared)))
            }
            PayloadKind::Internal => Some(InternalEvent::Internal(message(payload, None, shared))),
            PayloadKind::Handle(inner) => self.take_handle(inner, shared),
            PayloadKind::Acknowledgement { taken } => handle_acknowledgement(shared, taken),
            PayloadKind::SocketCount(key) => {
                let count = self.servers.count(&key, CountedConnection::is_open);
                let (key, count) = (Some(key.as_str()), Some(count));
                self.answer(shared, &Command { cmd: "NODE_SOCKET_COUNT", key, count });
                None
            }
            PayloadKind::SocketsClosed(key) => {
                if self.servers.closing(&key, Instant::now(), CountedConnection::is_open) {
                    self.notify_all_closed(shared, &key);
                }
                None
            }
        }
    }

    /// Takes the handle of a frame and acknowledges it.
    ///
    /// Every frame that announces a handle gets exactly one acknowledgement: Node ends on one too
    /// many, and waits forever for a missing one.
    fn take_handle(&mut self, inner: InnerMessage<'_>, shared: &Shared) -> Option<InternalEvent> {
        let handle = self.decoder.take_handle().map(OwnedFd::from);
        let refused = self.received_handles_max == 0;
        // Node sends a rejected handle again, three times and at once, and then forgets it. But Node
        // keeps the handle of an internal message until that message is answered, and the answer
        // says that the handle is lost. A handle that this side never takes would be sent in vain.
        self.acknowledge(shared, handle.is_some() || inner.internal || refused);
        let Some(handle) = handle else {
            if refused && !inner.internal {
                let payload = Bytes::from(inner.payload.into_owned());
                let message = Message::from_node_with_refused_handle(payload, &shared.credit);
                return Some(InternalEvent::Message(message));
            }
            if !inner.internal {
                return self.error(Error::HandlesLost);
            }
            let payload = Bytes::from(inner.payload.into_owned());
            let message = Message::from_node_without_its_handle(payload, &shared.credit);
            return Some(InternalEvent::Internal(message));
        };
        if let (Some(key), Ok(inode)) = (inner.key, sys::fd::inode(handle.as_fd())) {
            let connection = CountedConnection { number: sys::fd::number(handle.as_fd()), inode };
            self.servers.add(key, connection, CountedConnection::is_open);
        }
        let payload = Bytes::from(inner.payload.into_owned());
        let message = message(payload, Some(handle), shared);
        if inner.internal {
            return Some(InternalEvent::Internal(message));
        }
        self.errors = 0;
        Some(InternalEvent::Message(message))
    }

    /// Emits an error, unless the peer has caused many of them and sent no message in between.
    ///
    /// Errors hold no credit, so the owner's queue would otherwise grow while nobody takes them.
    fn error(&mut self, error: Error) -> Option<InternalEvent> {
        self.errors += 1;
        (self.errors <= ERRORS_MAX).then_some(InternalEvent::Error(error))
    }

    /// Acknowledges or rejects a handle.
    ///
    fn acknowledge(&self, shared: &Shared, taken: bool) {
        let cmd = if taken { "NODE_HANDLE_ACK" } else { "NODE_HANDLE_NACK" };
        self.answer(shared, &Command::plain(cmd));
    }

    fn notify_all_closed(&self, shared: &Shared, key: &str) {
        let key = Some(key);
        self.answer(shared, &Command { cmd: "NODE_SOCKET_ALL_CLOSED", key, count: None });
    }

    /// Queues an answer to the peer.
    ///
    /// The frame is not held like others: if it waited for an acknowledgement itself, two processes
    /// could wait for each other forever.
    fn answer(&self, shared: &Shared, command: &Command<'_>) {
        let frame = self.encode(command);
        let mut queue = shared.queue();
        queue.answer_bytes += frame.len();
        enqueue(&mut queue, ReadyFrame { frame, handle: None });
    }

    fn encode(&self, command: &Command<'_>) -> FrameBuffer {
        let mut frame = FrameBuffer::take();
        let max = encode::PAYLOAD_BYTES_MAX;
        let (origin, features) = (Origin::Internal, Features::default());
        encode::encode(&mut frame, command, self.framing, None, origin, max, &features)
            .expect("a struct of texts and numbers can be written");
        frame
    }

    /// Skips a frame over the limit. A handle that came with the frame is rejected.
    fn too_long(&mut self, head: &[u8], shared: &Shared) -> Option<InternalEvent> {
        if begins_with_handle(self.framing, head) {
            drop(self.decoder.take_handle());
            self.acknowledge(shared, false);
        }
        self.error(Error::TooLong { max: shared.options.frame_bytes_max })
    }
}

impl driver::Protocol for NodeProtocol {
    const REPLIES: bool = true;

    fn swap_buffer(&mut self, buffer: Vec<u8>) -> Vec<u8> {
        self.decoder.swap_buffer(buffer)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error> {
        let (buffer, room) = self.decoder.space();
        let read = socket_io::read_into(socket, buffer, room, self.received_handles_max)?;
        match read {
            Some(received) if received.bytes > 0 => {
                let fds = received.fds.into_iter().map(ArrivedHandle::from);
                self.decoder.arrived(fds, received.truncated);
                Ok(Read::Bytes(received.bytes))
            }
            Some(_) => {
                self.decoder.end().map_err(Error::Protocol)?;
                Ok(Read::EndOfStream)
            }
            None => Ok(Read::WouldBlock),
        }
    }

    fn deliver(&mut self, shared: &Shared, resumed: bool, sink: &mut Sink) -> Result<(), Error> {
        if resumed {
            self.held_events.drain(..).for_each(&mut *sink);
        }
        loop {
            let event = match self.decoder.next()? {
                None => break,
                Some(Decoded::TooLong(head)) => self.too_long(&head, shared),
                Some(Decoded::Whole(payload)) => {
                    let payload = match payload {
                        Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
                        Payload::Owned(bytes) => buffer_pool::share_long(bytes),
                    };
                    self.handle_payload(payload, shared)
                }
            };
            match event {
                Some(event) if resumed => sink(event),
                Some(event) => self.held_events.push_back(event),
                None => {}
            }
        }
        if self.decoder.is_foreign() {
            return Err(FrameError::NotV8.into());
        }
        self.decoder.discard_unclaimed_handles();
        Ok(())
    }

    fn tick(&mut self, shared: &Shared, now: Instant) {
        for key in self.servers.closed(now, CountedConnection::is_open) {
            self.notify_all_closed(shared, &key);
        }
        let mut queue = shared.queue();
        let try_clone = |handle: &OwnedFd| handle.try_clone().ok();
        if let Some(ready) = queue.ack_window.due(now, try_clone) {
            enqueue(&mut queue, ready);
        }
    }

    fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let retry = shared.queue().ack_window.deadline();
        retry.into_iter().chain(self.servers.deadline()).min()
    }
}

fn message(payload: Bytes, handle: Option<OwnedFd>, shared: &Shared) -> Message {
    Message::from_node(payload, handle, &shared.credit)
}

/// Handles the peer's acknowledgement of a handle: releases the frames that waited for it.
fn handle_acknowledgement(shared: &Shared, taken: bool) -> Option<InternalEvent> {
    let mut queue = shared.queue();
    let outcome = queue.ack_window.acknowledged(taken, Instant::now());
    while let Some(ready) = queue.ack_window.release() {
        enqueue(&mut queue, ready);
    }
    match outcome {
        AckOutcome::Finished { ticket: Some(ticket), taken } => {
            Some(InternalEvent::Acknowledged { ticket, taken })
        }
        AckOutcome::Finished { ticket: None, taken: false } => {
            Some(InternalEvent::Error(Error::HandleNotReceived))
        }
        AckOutcome::Finished { ticket: None, taken: true }
        | AckOutcome::Unexpected
        | AckOutcome::Retry => None,
    }
}

/// Queues a frame, or holds it until a handle is acknowledged. Returns whether it is queued.
pub(super) fn submit(queue: &mut Queue, frame: NodeFrame<OwnedFd>) -> bool {
    let ready = queue.ack_window.submit(frame);
    let queued = ready.is_some();
    ready.into_iter().for_each(|ready| enqueue(queue, ready));
    queued
}

/// Queues a frame for writing.
pub(super) fn enqueue(queue: &mut Queue, ready: ReadyFrame<OwnedFd>) {
    let mut encoded = Encoded { inline: ready.frame, pieces: Vec::new(), kind: Kind::Message };
    queue.outbox.enqueue(&mut encoded, ready.handle.into_iter().collect());
}
