//! Errors of channels.

use crate::frame::FrameError;
use crate::hello::Hello;
use std::error::Error as StdError;
use std::os::fd::OwnedFd;
use std::{fmt, io};
use sys::errno::write_with_causes;
use sys::text;

/// An error of a channel.
///
/// Mistakes of the peer and refusals of the kernel are always values of this type, and affect only
/// this channel.
///
/// `Display` is the sentence of this error alone, and [`source`](StdError::source) its cause.
/// `{:?}` is one line with all causes, as a `main` that returns the error prints it, and `{:#?}`
/// the structure.
///
/// ```
/// let (a, b) = brood_ipc::channel::<u32, ()>()?;
/// drop(b);
/// let error = a.send(&7).unwrap_err();
/// assert!(matches!(error, brood_ipc::Error::Closed));
/// assert_eq!(format!("{error:?}"), "the channel is closed");
/// assert_eq!(format!("{error:#?}"), "Closed");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
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
    /// The message is a value of another type: its parts are not those that were read.
    ///
    /// The payload had the right length for the expected type, so that only the fingerprints of the
    /// two types differ.
    WrongType {
        /// The type that the receiver has decoded.
        expected: &'static str,
        /// The fingerprint of the value that was sent.
        sent: u32,
        /// The fingerprint of the value that was read.
        read: u32,
    },
    /// The message arrived without its handles, because this process had no descriptor number left.
    /// The channel stays open.
    HandlesLost,
    /// The message came with handles that this channel does not take, and they are closed. The
    /// channel stays open.
    HandlesRefused {
        /// The number of handles that the peer attached.
        count: usize,
        /// The limit,
        /// [`Options::received_handles_max`](crate::Options::received_handles_max).
        max: usize,
    },
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
    /// An option has a value that no channel can have. No channel was made.
    InvalidOption(&'static str),
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
            Error::Decode(_) | Error::WrongType { .. } | Error::Protocol(_) => "EBADMSG",
            Error::HandlesLost => "EMFILE",
            Error::HandlesRefused { .. } => "EACCES",
            Error::Mismatch { .. } => "EPROTO",
            Error::NotAChannel(_) | Error::InvalidHandle(_) => "ERR_INVALID_HANDLE_TYPE",
            Error::InvalidOption(_) => "ERR_INVALID_ARG_VALUE",
            Error::HandleNotReceived => "SentHandleNotReceivedWarning",
            Error::Os(_, source) => sys::errno::name_of(source),
        }
    }

    pub(crate) fn copy(&self) -> Error {
        match self {
            Error::Closed => Error::Closed,
            Error::NoChannel => Error::NoChannel,
            Error::Full => Error::Full,
            Error::TooLong { max } => Error::TooLong { max: *max },
            Error::TooManyHandles { count, max } => {
                Error::TooManyHandles { count: *count, max: *max }
            }
            Error::Encode(why) => Error::Encode(why.clone()),
            Error::Decode(why) => Error::Decode(why.clone()),
            Error::WrongType { expected, sent, read } => {
                Error::WrongType { expected, sent: *sent, read: *read }
            }
            Error::HandlesLost => Error::HandlesLost,
            Error::HandlesRefused { count, max } => {
                Error::HandlesRefused { count: *count, max: *max }
            }
            Error::Protocol(error) => Error::Protocol(error.clone()),
            Error::Mismatch { ours, theirs } => {
                Error::Mismatch { ours: ours.clone(), theirs: theirs.clone() }
            }
            Error::Undelivered(count) => Error::Undelivered(*count),
            Error::InvalidHandle(why) => Error::InvalidHandle(why),
            Error::HandleNotReceived => Error::HandleNotReceived,
            Error::NotAChannel(why) => Error::NotAChannel(why),
            Error::InvalidOption(why) => Error::InvalidOption(why),
            Error::Os(call, source) => Error::Os(call, copy_io_error(source)),
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
            | Error::InvalidOption(_)
            | Error::Os(..) => true,
            Error::Full
            | Error::TooLong { .. }
            | Error::TooManyHandles { .. }
            | Error::Encode(_)
            | Error::Decode(_)
            | Error::WrongType { .. }
            | Error::InvalidHandle(_)
            | Error::HandleNotReceived
            | Error::HandlesLost
            | Error::HandlesRefused { .. } => false,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Closed => f.write_str("the channel is closed"),
            Error::NoChannel => f.write_str("the process was started without a channel"),
            Error::Full => f.write_str("the channel's queue is full"),
            Error::TooLong { max } => write!(
                f,
                "message longer than {max} bytes; send it in pieces or as `SharedMemory`, or raise \
                 `Options::frame_bytes_max` on both sides"
            ),
            Error::TooManyHandles { count, max } => {
                write!(f, "message with {count} handles, over the limit of {max}")
            }
            Error::Encode(why) => {
                write!(f, "message cannot be written: {}", text::line(why).cut())
            }
            // The reason may quote the message of the peer.
            Error::Decode(why) => write!(f, "message cannot be read: {}", text::line(why).cut()),
            Error::WrongType { expected, sent, read } => write!(
                f,
                "message is not a `{expected}`: the sender wrote a value of another type \
                 (fingerprint {sent:08x}, not {read:08x})"
            ),
            Error::HandlesLost => {
                f.write_str("message lost its handles: too many open descriptors")
            }
            Error::HandlesRefused { count, max } => write!(
                f,
                "message came with handles ({count}), of which this channel takes at most {max} \
                 (`Options::received_handles_max`)"
            ),
            Error::Protocol(_) => f.write_str("the peer broke the protocol"),
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
            Error::InvalidOption(why) => write!(f, "invalid option: {why}"),
            Error::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write_with_causes(self, f);
        }
        match self {
            Error::Closed => f.write_str("Closed"),
            Error::NoChannel => f.write_str("NoChannel"),
            Error::Full => f.write_str("Full"),
            Error::TooLong { max } => f.debug_struct("TooLong").field("max", max).finish(),
            Error::TooManyHandles { count, max } => {
                f.debug_struct("TooManyHandles").field("count", count).field("max", max).finish()
            }
            Error::Encode(why) => f.debug_tuple("Encode").field(why).finish(),
            Error::Decode(why) => f.debug_tuple("Decode").field(why).finish(),
            Error::WrongType { expected, sent, read } => f
                .debug_struct("WrongType")
                .field("expected", expected)
                .field("sent", sent)
                .field("read", read)
                .finish(),
            Error::HandlesLost => f.write_str("HandlesLost"),
            Error::HandlesRefused { count, max } => {
                f.debug_struct("HandlesRefused").field("count", count).field("max", max).finish()
            }
            Error::Protocol(error) => f.debug_tuple("Protocol").field(error).finish(),
            Error::Mismatch { ours, theirs } => {
                f.debug_struct("Mismatch").field("ours", ours).field("theirs", theirs).finish()
            }
            Error::Undelivered(count) => f.debug_tuple("Undelivered").field(count).finish(),
            Error::InvalidHandle(why) => f.debug_tuple("InvalidHandle").field(why).finish(),
            Error::HandleNotReceived => f.write_str("HandleNotReceived"),
            Error::NotAChannel(why) => f.debug_tuple("NotAChannel").field(why).finish(),
            Error::InvalidOption(why) => f.debug_tuple("InvalidOption").field(why).finish(),
            Error::Os(call, source) => f.debug_tuple("Os").field(call).field(source).finish(),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Error::Os(_, source) => Some(source),
            Error::Protocol(error) => Some(error),
            Error::Closed
            | Error::NoChannel
            | Error::Full
            | Error::TooLong { .. }
            | Error::TooManyHandles { .. }
            | Error::Encode(_)
            | Error::Decode(_)
            | Error::WrongType { .. }
            | Error::HandlesLost
            | Error::HandlesRefused { .. }
            | Error::Mismatch { .. }
            | Error::Undelivered(_)
            | Error::InvalidHandle(_)
            | Error::HandleNotReceived
            | Error::NotAChannel(_)
            | Error::InvalidOption(_) => None,
        }
    }
}

/// Copies an error of the kernel, for one more listener.
#[must_use]
pub fn copy_io_error(error: &io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(number) => io::Error::from_raw_os_error(number),
        None => io::Error::new(error.kind(), error.to_string()),
    }
}

impl From<FrameError> for Error {
    fn from(error: FrameError) -> Error {
        Error::Protocol(error)
    }
}

/// A send with an attached handle that failed: the handle, still open, and the reason.
///
/// Converts into [`Error`], which closes the handle. `Display`, `{:?}` and
/// [`source`](StdError::source) are those of the reason.
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

impl fmt::Debug for SendHandleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Debug::fmt(&self.error, f);
        }
        f.debug_struct("SendHandleError")
            .field("handle", &self.handle)
            .field("error", &self.error)
            .finish()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_its_sentence_and_its_debug_line_has_the_causes() {
        let errno = io::Error::from_raw_os_error(sys::errno::ENOBUFS);
        let text = errno.to_string();
        let error = Error::Os("sendmsg", errno);
        assert_eq!(error.to_string(), "sendmsg failed");
        assert_eq!(format!("{error:?}"), format!("sendmsg failed: {text}"));
        assert!(format!("{error:#?}").starts_with("Os(\n"));
        let error = Error::from(FrameError::Kind(9));
        assert_eq!(error.to_string(), "the peer broke the protocol");
        assert_eq!(format!("{error:?}"), "the peer broke the protocol: frame of unknown kind 9");
        assert_eq!(error.source().unwrap().to_string(), "frame of unknown kind 9");
    }

    #[test]
    fn an_error_with_a_handle_speaks_as_its_reason() {
        let handle = sys::socket::pair_stream().unwrap().0;
        let failed = SendHandleError { handle, error: Error::Full };
        assert_eq!(failed.to_string(), "the channel's queue is full");
        assert_eq!(format!("{failed:?}"), "the channel's queue is full");
        assert!(failed.source().is_none());
        assert!(format!("{failed:#?}").contains("error: Full"));
    }
}
