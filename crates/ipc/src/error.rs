//! What can go wrong on a channel.

use crate::frame::FrameError;
use crate::hello::Hello;
use std::error::Error as StdError;
use std::{fmt, io};

/// Why a channel could not do what it was asked to.
///
/// The peer's mistakes and the kernel's answers are always values of this type and concern this
/// channel only.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The channel is closed: `disconnect` was called, or the peer is gone.
    Closed,
    /// The queue is at its bound and takes no more before the peer reads; nothing was sent.
    Full,
    /// The message is longer than the ceiling of a frame; none of it was sent.
    TooLong {
        /// The ceiling, in bytes.
        max: usize,
    },
    /// The message has more handles than the ceiling; none of it was sent.
    TooManyHandles {
        /// How many it has.
        count: usize,
        /// The ceiling.
        max: usize,
    },
    /// The value cannot be written by this codec; nothing was sent.
    Encode(String),
    /// The payload is not a value of the type that was asked for.
    Decode(String),
    /// The message came without its handles: this process had no descriptor number left. The
    /// channel lives on.
    HandlesLost,
    /// The peer broke the rules of the channel, which is of no use after that.
    Protocol(FrameError),
    /// The peer speaks another protocol, codec, or for another application.
    Mismatch {
        /// What this side said.
        ours: Box<Hello>,
        /// What the peer said.
        theirs: Box<Hello>,
    },
    /// The channel closed before this many messages, which `send` had accepted, were written.
    Undelivered(usize),
    /// A descriptor that cannot be sent on this channel; nothing was sent.
    InvalidHandle(&'static str),
    /// A Node peer had no descriptor number left for a socket, also after it was sent again: it is
    /// closed, and the message was not delivered. The channel lives on.
    HandleNotReceived,
    /// What should be a channel is not one.
    NotAChannel(&'static str),
    /// The kernel refused this call.
    Os(&'static str, io::Error),
}

impl Error {
    /// Node's name for this error, for people who know it from there.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Closed | Error::Undelivered(_) => "ERR_IPC_CHANNEL_CLOSED",
            Error::Full => "ENOBUFS",
            Error::TooLong { .. } | Error::TooManyHandles { .. } => "EMSGSIZE",
            Error::Encode(_) => "ERR_INVALID_ARG_TYPE",
            Error::Decode(_) | Error::Protocol(_) => "EBADMSG",
            Error::HandlesLost => "EMFILE",
            Error::Mismatch { .. } => "EPROTO",
            Error::NotAChannel(_) | Error::InvalidHandle(_) => "ERR_INVALID_HANDLE_TYPE",
            Error::HandleNotReceived => "SentHandleNotReceivedWarning",
            Error::Os(_, source) => sys::errno::name_of(source),
        }
    }

    /// Tells whether the channel is of no use after this error.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Error::Closed
            | Error::Protocol(_)
            | Error::Mismatch { .. }
            | Error::Undelivered(_)
            | Error::NotAChannel(_)
            | Error::Os(..) => true,
            Error::Full
            | Error::TooLong { .. }
            | Error::TooManyHandles { .. }
            | Error::Encode(_)
            | Error::Decode(_)
            | Error::InvalidHandle(_)
            | Error::HandleNotReceived
            | Error::HandlesLost => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Closed => f.write_str("the channel is closed"),
            Error::Full => f.write_str("the channel's queue is full"),
            Error::TooLong { max } => write!(f, "message longer than {max} bytes"),
            Error::TooManyHandles { count, max } => {
                write!(f, "message with {count} handles, at most {max} can be sent")
            }
            Error::Encode(why) => write!(f, "message cannot be written: {why}"),
            Error::Decode(why) => write!(f, "message cannot be read: {why}"),
            Error::HandlesLost => {
                f.write_str("message lost its handles: too many open descriptors")
            }
            Error::Protocol(violation) => write!(f, "peer broke the protocol: {violation}"),
            Error::Mismatch { ours, theirs } => {
                write!(f, "peer speaks {theirs}; this side speaks {ours}")
            }
            Error::Undelivered(count) => {
                write!(f, "the channel closed before {count} messages were delivered")
            }
            Error::InvalidHandle(why) => write!(f, "this handle cannot be sent: {why}"),
            Error::HandleNotReceived => {
                f.write_str("the peer had no descriptor left for the handle")
            }
            Error::NotAChannel(why) => write!(f, "not a channel: {why}"),
            Error::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Os(_, source) => Some(source),
            _ => None,
        }
    }
}

impl From<FrameError> for Error {
    fn from(violation: FrameError) -> Error {
        Error::Protocol(violation)
    }
}

/// A message that was not sent, given back with its handles, and why.
pub struct SendError<T> {
    /// The message.
    pub value: T,
    /// Why it was not sent.
    pub error: Error,
}

impl<T> fmt::Debug for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SendError").field("error", &self.error).finish_non_exhaustive()
    }
}

impl<T> fmt::Display for SendError<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl<T> StdError for SendError<T> {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl<T> From<SendError<T>> for Error {
    fn from(failed: SendError<T>) -> Error {
        failed.error
    }
}
