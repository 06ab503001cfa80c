//! Errors of channels.

use crate::frame::FrameError;
use crate::hello::Hello;
use std::error::Error as StdError;
use std::os::fd::OwnedFd;
use std::{fmt, io};

/// An error of a channel.
///
/// Mistakes of the peer and refusals of the kernel are always values of this type, and affect only
/// this channel.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The channel is closed: `disconnect` was called, or the peer is gone.
    Closed,
    /// The process was started without a channel. Nothing was sent.
    NoChannel,
    /// The queue is at its limit and accepts nothing before the peer reads. Nothing was sent.
    Full,
    /// The message is longer than the limit of a frame. Nothing was sent.
    TooLong {
        /// The limit, in bytes.
        max: usize,
    },
    /// The message has more handles than the limit. Nothing was sent.
    TooManyHandles {
        /// The number of handles in the message.
        count: usize,
        /// The limit.
        max: usize,
    },
    /// The value cannot be written by this codec. Nothing was sent.
    Encode(String),
    /// The payload is not a value of the expected type.
    Decode(String),
    /// The message arrived without its handles, because this process had no descriptor number left.
    /// The channel stays open.
    HandlesLost,
    /// The peer broke a rule of the protocol. The channel cannot be used any more.
    Protocol(FrameError),
    /// The peer speaks another protocol or codec, or belongs to another application.
    Mismatch {
        /// The handshake of this side.
        ours: Box<Hello>,
        /// The handshake of the peer.
        theirs: Box<Hello>,
    },
    /// The channel closed before this number of accepted messages was written.
    Undelivered(usize),
    /// A descriptor that cannot be sent on this channel. Nothing was sent.
    InvalidHandle(&'static str),
    /// A Node peer had no descriptor number left for a socket, even after it was sent again. The
    /// socket is closed, and its message was not delivered. The channel stays open.
    HandleNotReceived,
    /// A descriptor, an environment variable or a serialization cannot make a channel.
    NotAChannel(&'static str),
    /// The kernel refused a system call.
    Os(&'static str, io::Error),
}

impl Error {
    /// Returns Node's code for this error, or the name of the errno.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Error::Closed | Error::Undelivered(_) => "ERR_IPC_CHANNEL_CLOSED",
            Error::NoChannel => "ERR_IPC_DISCONNECTED",
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

    /// Returns whether the channel cannot be used after this error.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        match self {
            Error::Closed
            | Error::NoChannel
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
            Error::NoChannel => f.write_str("the process was started without a channel"),
            Error::Full => f.write_str("the channel's queue is full"),
            Error::TooLong { max } => write!(f, "message longer than {max} bytes"),
            Error::TooManyHandles { count, max } => {
                write!(f, "message with {count} handles, over the limit of {max}")
            }
            Error::Encode(why) => write!(f, "message cannot be written: {why}"),
            Error::Decode(why) => write!(f, "message cannot be read: {why}"),
            Error::HandlesLost => {
                f.write_str("message lost its handles: too many open descriptors")
            }
            Error::Protocol(error) => write!(f, "peer broke the protocol: {error}"),
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
    fn from(error: FrameError) -> Error {
        Error::Protocol(error)
    }
}

/// A send with an attached handle that failed: the handle, still open, and the reason.
///
/// Converts into [`Error`], which closes the handle.
#[derive(Debug)]
#[non_exhaustive]
pub struct SendHandleError {
    /// The handle.
    pub handle: OwnedFd,
    /// The reason.
    pub error: Error,
}

impl fmt::Display for SendHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl StdError for SendHandleError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.error.source()
    }
}

impl From<SendHandleError> for Error {
    fn from(failed: SendHandleError) -> Error {
        failed.error
    }
}
