//! What happens to a child, as values.

use sys::pidfd::ExitStatus;

use crate::error::Error;

/// What happened to a child, or to the channel to our parent.
///
/// For a child: `Spawn` is first; `Message`s come before `Disconnect`; `Exit` comes when the
/// process has ended, whoever still holds its pipes, and after what it sent and the end of its
/// channel (messages that nobody takes do not delay it); `Close` is last, when the process, its
/// piped outputs and its channel have all ended. From our parent come `Message`, `Disconnect` and
/// `Error` only.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The child runs its program.
    Spawn,
    /// The other side sent this.
    Message(ipc::Message),
    /// For the crates above: a message that users never see.
    #[doc(hidden)]
    Internal(ipc::Message),
    /// For the crates above: a Node peer has, or has not, taken the handle sent with this number.
    #[doc(hidden)]
    Acknowledged { ticket: u64, taken: bool },
    /// The channel has ended, whichever side closed it.
    Disconnect,
    /// The process has ended.
    Exit(ExitStatus),
    /// Everything of the child has ended.
    Close(ExitStatus),
    /// Something went wrong: a timeout, a cancellation, the channel. The child goes on living its
    /// life, unless the error says otherwise.
    Error(Error),
}

/// The kinds of events a subscriber wants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum EventKind {
    Spawn,
    Message,
    Internal,
    Disconnect,
    Exit,
    Close,
    Error,
}

impl Event {
    pub(crate) const fn kind(&self) -> EventKind {
        match self {
            Self::Spawn => EventKind::Spawn,
            Self::Message(_) => EventKind::Message,
            Self::Internal(_) | Self::Acknowledged { .. } => EventKind::Internal,
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

    /// How the process ended, of `Exit` and `Close`.
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

    /// A second one, where there can be one: what owns something goes to one subscriber only.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        match self {
            Self::Spawn => Some(Self::Spawn),
            Self::Disconnect => Some(Self::Disconnect),
            Self::Exit(status) => Some(Self::Exit(*status)),
            Self::Close(status) => Some(Self::Close(*status)),
            Self::Error(error) => error.try_clone().map(Self::Error),
            Self::Message(_) | Self::Internal(_) | Self::Acknowledged { .. } => None,
        }
    }
}
