//! The rules of the frame format that a peer can break.
//!
//! Pure.

use super::VERSION;
use std::fmt;

/// A rule of the frame format that the peer broke.
///
/// `{:?}` is the sentence of `Display`, and `{:#?}` the structure.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// The frame is of another version.
    Version(u8),
    /// The frame is of a kind that does not exist, or that the two sides have not agreed to use.
    Kind(u8),
    /// Flags without a meaning are set.
    Flags(u8),
    /// The payload is longer than the limit.
    Length {
        /// The length in the header, in bytes.
        announced: u64,
        /// The limit, in bytes.
        max: usize,
    },
    /// The number of handles is over the limit.
    Handles {
        /// The number in the header.
        announced: usize,
        /// The limit.
        max: usize,
    },
    /// A frame is complete, but handles that it declares did not arrive.
    HandlesMissing,
    /// Handles arrived that no frame declares.
    HandlesUndeclared,
    /// The stream ended inside a frame.
    EndInFrame,
    /// The first frame of a peer with `advanced` serialization has another format than V8's, as the
    /// frames of Bun have.
    NotV8,
    /// The first frame was not a handshake, a second handshake came, or the handshake is malformed.
    Hello,
}

impl fmt::Debug for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return fmt::Display::fmt(self, f);
        }
        match self {
            FrameError::Version(version) => f.debug_tuple("Version").field(version).finish(),
            FrameError::Kind(kind) => f.debug_tuple("Kind").field(kind).finish(),
            FrameError::Flags(flags) => f.debug_tuple("Flags").field(flags).finish(),
            FrameError::Length { announced, max } => {
                f.debug_struct("Length").field("announced", announced).field("max", max).finish()
            }
            FrameError::Handles { announced, max } => {
                f.debug_struct("Handles").field("announced", announced).field("max", max).finish()
            }
            FrameError::HandlesMissing => f.write_str("HandlesMissing"),
            FrameError::HandlesUndeclared => f.write_str("HandlesUndeclared"),
            FrameError::EndInFrame => f.write_str("EndInFrame"),
            FrameError::NotV8 => f.write_str("NotV8"),
            FrameError::Hello => f.write_str("Hello"),
        }
    }
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Version(version) => {
                write!(f, "frame of version {version}, this side speaks {VERSION}")
            }
            FrameError::Kind(kind) => write!(f, "frame of unknown kind {kind}"),
            FrameError::Flags(flags) => write!(f, "frame with unknown flags {flags:#04x}"),
            FrameError::Length { announced, max } => {
                write!(f, "frame of {announced} bytes, over the limit of {max}")
            }
            FrameError::Handles { announced, max } => {
                write!(f, "frame with {announced} handles, over the limit of {max}")
            }
            FrameError::HandlesMissing => f.write_str("handles were declared and did not arrive"),
            FrameError::HandlesUndeclared => f.write_str("handles arrived that no frame declares"),
            FrameError::EndInFrame => f.write_str("the stream ended inside a frame"),
            FrameError::NotV8 => f.write_str("frame of another format than V8's; use JSON"),
            FrameError::Hello => f.write_str("the handshake is missing, repeated or malformed"),
        }
    }
}

impl std::error::Error for FrameError {}
