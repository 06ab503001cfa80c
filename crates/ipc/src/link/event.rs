//! The values that a link hands out: events for its sink, and the state of its queue for senders.

use crate::error::Error;
use crate::received_message::Message;

/// An event of a [`Link`](crate::Link), for its sink.
#[derive(Debug)]
#[non_exhaustive]
pub enum LinkEvent {
    /// A message has arrived.
    Message(Message),
    /// The channel is closed. This is the last event.
    Disconnect {
        /// The number of messages that `send` had accepted and the peer did not read.
        undelivered: usize,
        /// The reason, unless one side disconnected or exited.
        error: Option<Error>,
    },
}

/// An event of a [`Link`](crate::Link), those for the crates above included.
#[derive(Debug)]
#[non_exhaustive]
pub enum InternalEvent {
    /// A message of the user.
    Message(Message),
    /// An internal message for the crate above, never shown to users.
    Internal(Message),
    /// An error that does not close the channel. Node's channels only.
    Error(Error),
    /// The peer has acknowledged or rejected a handle that was sent with a ticket. Node's channels
    /// only.
    Acknowledged {
        /// The number that was passed to [`send_internal_with_handle`](crate::internal::send_internal_with_handle).
        ticket: u64,
        /// Whether the peer has the handle. Otherwise it had no descriptor number left and never
        /// saw the handle.
        taken: bool,
    },
    /// The peer's process has exited, as [`peer_is_gone`](crate::internal::peer_is_gone) reported.
    ///
    /// The messages that it sent before come first, as far as the link may read them. Emitted once,
    /// unless the channel closes before.
    PeerGone,
    /// The channel is closed. This is the last event.
    Disconnect {
        /// The number of messages that `send` had accepted and the peer did not read.
        undelivered: usize,
        /// The reason, unless one side disconnected or exited.
        error: Option<Error>,
    },
}

pub(crate) type Sink = Box<dyn FnMut(InternalEvent) + Send>;

/// Makes a sink of a user's closure, which gets no events for the crates above.
pub(crate) fn user_sink(mut sink: impl FnMut(LinkEvent) + Send + 'static) -> Sink {
    Box::new(move |event| match event {
        InternalEvent::Message(message) => sink(LinkEvent::Message(message)),
        InternalEvent::Disconnect { undelivered, error } => {
            sink(LinkEvent::Disconnect { undelivered, error });
        }
        InternalEvent::Internal(_)
        | InternalEvent::Error(_)
        | InternalEvent::Acknowledged { .. }
        | InternalEvent::PeerGone => {}
    })
}

/// The state of a queue after it has accepted a message, for senders that can slow down.
///
/// The message is accepted either way, so a sender that never sends much may ignore the value.
/// Node's `send` returns the same information as a boolean.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(clippy::exhaustive_enums, reason = "the two sides of one mark")]
pub enum Queued {
    /// The queue has room for more messages.
    HasRoom,
    /// A sender should wait if it can: more bytes than the high-water mark
    /// ([`Options::high_water_bytes`](crate::Options::high_water_bytes)) wait to be written, or, to a Node peer, other messages wait
    /// for the acknowledgement of a handle.
    AboveHighWater,
}

impl Queued {
    pub(crate) fn new(has_room: bool) -> Queued {
        if has_room { Queued::HasRoom } else { Queued::AboveHighWater }
    }

    /// Returns whether the queue has room for more messages.
    #[must_use]
    pub fn has_room(self) -> bool {
        self == Queued::HasRoom
    }
}
