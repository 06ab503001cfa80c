//! What arrives from Node: messages go to the sink, everything about handles is answered here.

use crate::buffers::{self, FrameBuffer};
use crate::error::Error;
use crate::frame::Payload;
use crate::link::driver;
use crate::link::{LinkEvent, Queue, Shared, Sink};
use crate::message::Message;
use crate::node::ack_window::{Leaving, Outcome};
use crate::node::decoder::{Cut, Decoder, Framing};
use crate::node::encode::{self, Voice};
use crate::node::envelope::{Class, Inside, begins_with_handle, classify};
use crate::node::server_connections::Keyed;
use crate::options::Options;
use crate::serialization::Serialization;
use crate::transport::outbox::Encoded;
use crate::transport::socket_io::{self, Read};
use ::bytes::Bytes;
use serde::Serialize;
use std::collections::VecDeque;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Instant;

/// The receiving half of a channel to Node.
#[derive(Debug)]
pub(crate) struct Intake {
    framing: Framing,
    decoder: Decoder<OwnedFd>,
    keyed: Keyed<Watched>,
    /// What came while nobody listened.
    kept: VecDeque<LinkEvent>,
}

/// A connection that a server in the peer counts: a descriptor here, while it is that socket.
#[derive(Debug)]
struct Watched {
    number: i32,
    inode: u64,
}

impl Watched {
    fn is_open(&self) -> bool {
        sys::fd::leads_to(self.number, self.inode)
    }
}

/// What this crate itself says to Node.
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

/// The framing of a serialization, if Node knows it.
pub(crate) fn framing(serialization: Serialization) -> Result<Framing, Error> {
    match serialization {
        Serialization::Json => Ok(Framing::Lines),
        Serialization::Advanced => Ok(Framing::Lengths),
        Serialization::Bincode => Err(Error::NotAChannel("Node speaks json or advanced")),
    }
}

impl Intake {
    pub(crate) fn new(options: &Options) -> Result<Intake, Error> {
        let framing = framing(options.serialization)?;
        let max = options.frame_bytes_max.min(encode::PAYLOAD_BYTES_MAX);
        let decoder = Decoder::new(framing, max);
        Ok(Intake { framing, decoder, keyed: Keyed::new(), kept: VecDeque::new() })
    }

    /// Looks at one payload, answers what it asks, and gives what is to be told.
    fn take(&mut self, payload: Bytes, shared: &Shared) -> Option<LinkEvent> {
        match classify(self.framing, &payload) {
            Class::User => Some(LinkEvent::Message(message(payload, None, shared))),
            Class::Internal => Some(LinkEvent::Internal(message(payload, None, shared))),
            Class::Handle(inside) => Some(self.take_handle(inside, shared)),
            Class::Answer { taken } => answered(shared, taken),
            Class::SocketCount(key) => {
                let count = self.keyed.count(&key, Watched::is_open);
                let (key, count) = (Some(key.as_str()), Some(count));
                self.say(shared, &Command { cmd: "NODE_SOCKET_COUNT", key, count });
                None
            }
            Class::SocketsClosed(key) => {
                if self.keyed.closing(&key, Instant::now(), Watched::is_open) {
                    self.all_closed(shared, &key);
                }
                None
            }
        }
    }

    /// Exactly one answer for each frame that says it has a handle: the peer ends over one more,
    /// and waits for ever for one less.
    fn take_handle(&mut self, inside: Inside<'_>, shared: &Shared) -> LinkEvent {
        let handle = self.decoder.take_handle();
        self.acknowledge(shared, handle.is_some());
        let Some(handle) = handle else { return LinkEvent::Error(Error::HandlesLost) };
        if let (Some(key), Ok(inode)) = (inside.key, sys::fd::inode(handle.as_fd())) {
            let watched = Watched { number: sys::fd::number(handle.as_fd()), inode };
            self.keyed.add(key, watched, Watched::is_open);
        }
        let payload = Bytes::from(inside.payload.into_owned());
        let message = message(payload, Some(handle), shared);
        if inside.internal { LinkEvent::Internal(message) } else { LinkEvent::Message(message) }
    }

    /// An answer overtakes what waits for an answer itself, or two processes would wait for each
    /// other.
    fn acknowledge(&self, shared: &Shared, taken: bool) {
        let cmd = if taken { "NODE_HANDLE_ACK" } else { "NODE_HANDLE_NACK" };
        let frame = self.encode(&Command::plain(cmd));
        let mut queue = shared.queue();
        push(&mut queue, Leaving { frame, handle: None });
    }

    fn all_closed(&self, shared: &Shared, key: &str) {
        let key = Some(key);
        self.say(shared, &Command { cmd: "NODE_SOCKET_ALL_CLOSED", key, count: None });
    }

    fn say(&self, shared: &Shared, command: &Command<'_>) {
        let frame = self.encode(command);
        let mut queue = shared.queue();
        submit(&mut queue, crate::node::ack_window::Parcel { frame, cargo: None });
    }

    fn encode(&self, command: &Command<'_>) -> FrameBuffer {
        let mut frame = FrameBuffer::take();
        let max = encode::PAYLOAD_BYTES_MAX;
        encode::encode(&mut frame, command, self.framing, None, Voice::Internal, max)
            .expect("a struct of texts and numbers can be written");
        frame
    }

    /// A frame over the ceiling: its handle, if it has one, is not taken.
    fn too_long(&mut self, head: &[u8], shared: &Shared) -> LinkEvent {
        if begins_with_handle(self.framing, head) {
            drop(self.decoder.take_handle());
            self.acknowledge(shared, false);
        }
        LinkEvent::Error(Error::TooLong { max: shared.options.frame_bytes_max })
    }
}

impl driver::Intake for Intake {
    const ANSWERS: bool = true;

    fn swap_buffer(&mut self, scratch: Vec<u8>) -> Vec<u8> {
        self.decoder.swap_buffer(scratch)
    }

    fn read(&mut self, socket: BorrowedFd<'_>) -> Result<Read, Error> {
        let (buffer, room) = self.decoder.space();
        let read = socket_io::read_into(socket, buffer, room)?;
        match read {
            Some(received) if received.bytes > 0 => {
                self.decoder.arrived(received.fds, received.truncated);
                Ok(Read::Bytes(received.bytes))
            }
            Some(_) => {
                self.decoder.end().map_err(Error::Protocol)?;
                Ok(Read::End)
            }
            None => Ok(Read::Nothing),
        }
    }

    fn deliver(&mut self, shared: &Shared, sink: &mut Sink) -> Result<(), Error> {
        let listened = shared.queue().reads;
        if listened {
            self.kept.drain(..).for_each(&mut *sink);
        }
        loop {
            let event = match self.decoder.next()? {
                None => break,
                Some(Cut::TooLong(head)) => Some(self.too_long(&head, shared)),
                Some(Cut::Whole(payload)) => {
                    let payload = match payload {
                        Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
                        Payload::Owned(bytes) => buffers::share_long(bytes),
                    };
                    self.take(payload, shared)
                }
            };
            match event {
                Some(event) if listened => sink(event),
                Some(event) => self.kept.push_back(event),
                None => {}
            }
        }
        self.decoder.settle();
        Ok(())
    }

    fn tick(&mut self, shared: &Shared, now: Instant) {
        for key in self.keyed.closed(now, Watched::is_open) {
            self.all_closed(shared, &key);
        }
        let mut queue = shared.queue();
        let twin = |handle: &OwnedFd| handle.try_clone().ok();
        if let Some(leaving) = queue.gate.due(now, twin) {
            push(&mut queue, leaving);
        }
    }

    fn deadline(&self, shared: &Shared) -> Option<Instant> {
        let again = shared.queue().gate.deadline();
        again.into_iter().chain(self.keyed.deadline()).min()
    }
}

fn message(payload: Bytes, handle: Option<OwnedFd>, shared: &Shared) -> Message {
    Message::from_node(payload, handle, &shared.credit)
}

/// The peer has answered for a handle: what waited for that leaves.
fn answered(shared: &Shared, taken: bool) -> Option<LinkEvent> {
    let mut queue = shared.queue();
    let outcome = queue.gate.answered(taken, Instant::now());
    while let Some(leaving) = queue.gate.release() {
        push(&mut queue, leaving);
    }
    match outcome {
        Outcome::Over { ticket: Some(ticket), taken } => {
            Some(LinkEvent::Acknowledged { ticket, taken })
        }
        Outcome::Over { ticket: None, taken: false } => {
            Some(LinkEvent::Error(Error::HandleNotReceived))
        }
        Outcome::Over { ticket: None, taken: true } | Outcome::Stray | Outcome::Again => None,
    }
}

/// Queues a frame, or holds it.
pub(super) fn submit(queue: &mut Queue, parcel: crate::node::ack_window::Parcel<OwnedFd>) {
    if let Some(leaving) = queue.gate.submit(parcel) {
        push(queue, leaving);
    }
}

/// Queues a frame for writing.
pub(super) fn push(queue: &mut Queue, leaving: Leaving<OwnedFd>) {
    let mut encoded = Encoded { inline: leaving.frame, pieces: Vec::new() };
    queue.outbox.enqueue(&mut encoded, leaving.handle.into_iter().collect());
}
