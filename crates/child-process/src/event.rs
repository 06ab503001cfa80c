//! The events of a child, and of the channel to the parent.

use sys::pidfd::ExitStatus;

use crate::error::Error;

/// An event of a child, or of the channel to the parent.
///
/// A child emits `Spawn` first. Each `Message` comes before `Disconnect`. `Exit` comes when the
/// process has ended, even while other processes hold its pipes: after the messages that the
/// process sent and after `Disconnect`, but messages that nobody reads do not delay it. `Close` is
/// last, when the process, its piped outputs and its channel have all ended.
///
/// The channel to the parent emits `Message`, `Disconnect` and `Error` only.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The child has executed its program.
    Spawn,
    /// A message from the other side.
    Message(ipc::Message),
    /// The channel has ended, whichever side closed it.
    Disconnect,
    /// The process has ended.
    Exit(ExitStatus),
    /// The process, its piped outputs and its channel have all ended.
    Close(ExitStatus),
    /// An error: a timeout, a cancellation, or a failure of the channel. The child keeps running
    /// unless the error says that it was sent its kill signal.
    Error(Error),
}

/// The kinds of events, one of which a subscriber can select.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Spawn,
    Message,
    Disconnect,
    Exit,
    Close,
    Error,
}

/// An event of a child or of the parent, as the crates above see it: `internal::Event`.
#[derive(Debug)]
pub enum InternalEvent {
    /// An event that is delivered to users.
    User(Event),
    /// An internal message, which is not delivered to users.
    Internal(ipc::Message),
    /// A Node peer's answer to the handle that was sent with this ticket.
    Acknowledged {
        /// The ticket of the call that sent the handle.
        ticket: u64,
        /// Whether the peer has taken the handle.
        taken: bool,
    },
}

impl InternalEvent {
    /// Copies the event, or returns `None` if the event goes to one subscriber only.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::User(event) => event.try_clone().map(Self::User),
            Self::Internal(_) | Self::Acknowledged { .. } => None,
        }
    }
}

impl Event {
    pub(crate) const fn kind(&self) -> EventKind {
        match self {
            Self::Spawn => EventKind::Spawn,
            Self::Message(_) => EventKind::Message,
            Self::Disconnect => EventKind::Disconnect,
            Self::Exit(_) => EventKind::Exit,
            Self::Close(_) => EventKind::Close,
            Self::Error(_) => EventKind::Error,
        }
    }

    pub(crate) fn into_message(self) -> Option<ipc::Message> {
        match self {
            Self::Message(message) => Some(message),
            _ => None,
        }
    }

    /// Returns the status in `Exit` and `Close`.
    pub(crate) fn into_status(self) -> Option<ExitStatus> {
        match self {
            Self::Exit(status) | Self::Close(status) => Some(status),
            _ => None,
        }
    }

    pub(crate) fn into_error(self) -> Option<Error> {
        match self {
            Self::Error(error) => Some(error),
            _ => None,
        }
    }

    /// Copies the event, or returns `None` for a message, which goes to one subscriber only.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Spawn => Some(Self::Spawn),
            Self::Disconnect => Some(Self::Disconnect),
            Self::Exit(status) => Some(Self::Exit(*status)),
            Self::Close(status) => Some(Self::Close(*status)),
            Self::Error(error) => Some(Self::Error(error.copy())),
            Self::Message(_) => None,
        }
    }
}
