//! What a channel is allowed, and how it behaves.
//!
//! Pure.

use crate::frame::{Kind, Limits};
use crate::serialization::Serialization;

/// The default ceiling of one frame's payload, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The most handles in one frame: what the kernel carries in one message.
pub const HANDLES_MAX: usize = 253;

/// The default bound of what waits to be written, in bytes.
pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The default mark above which a loop-driven `send` answers `false`, in bytes.
pub const HIGH_WATER_BYTES: usize = 1024 * 1024;

/// The default bound of received messages that nobody has decoded or dropped yet, in bytes. Above
/// it, the channel is not read.
pub const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The most received handles per channel that nobody has decoded or dropped yet. Above it, the
/// channel is not read.
pub const UNREAD_HANDLES_MAX: usize = 256;

/// How long a normal exit of the process waits for what is queued, in milliseconds.
pub const EXIT_FLUSH_MS: u64 = 2_000;

/// The default ceiling of one shared memory that is mapped on arrival, in bytes.
pub const MAPPED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The limits and habits of one channel. Both ends choose their own, except where noted.
///
/// ```
/// let options = ipc::Options { frame_bytes_max: 1 << 20, ..ipc::Options::default() };
/// assert_eq!(options.handles_max, 253);
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "made with `..Options::default()`")]
pub struct Options {
    /// How messages are written. Both ends must say the same.
    pub serialization: Serialization,
    /// What the application calls its protocol. Both ends must say the same.
    pub tag: String,
    /// The longest payload that is sent or taken, in bytes.
    pub frame_bytes_max: usize,
    /// The most handles per message that are sent or taken, at most [`HANDLES_MAX`].
    pub handles_max: usize,
    /// The bound of what waits to be written, in bytes. A message that would go beyond it is
    /// refused (or waited for, by a blocking `send`) unless next to nothing waits.
    pub queued_bytes_max: usize,
    /// A loop-driven `send` answers `false` while more than this waits, in bytes.
    pub high_water_bytes: usize,
    /// Received bytes that nobody has decoded or dropped, above which the channel is not read.
    pub unread_bytes_max: usize,
    /// Received handles that nobody has decoded or dropped, above which the channel is not read.
    pub unread_handles_max: usize,
    /// How many handles may be on their way to a Node peer that it has not acknowledged; what is
    /// sent behind more of them waits. Node itself sends one at a time.
    pub handles_in_flight_max: usize,
    /// The largest shared memory that is mapped on arrival, in bytes.
    pub mapped_bytes_max: usize,
    /// How long a normal exit waits for what is queued, in milliseconds.
    pub exit_flush_ms: u64,
    /// Whether a blocking `recv` may stay awake for what is about to come. It learns when that
    /// pays; on one core, or beside a busy one, it does not and costs nothing.
    pub adaptive_wait: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            serialization: Serialization::Bincode,
            tag: String::new(),
            frame_bytes_max: FRAME_BYTES_MAX,
            handles_max: HANDLES_MAX,
            queued_bytes_max: QUEUED_BYTES_MAX,
            high_water_bytes: HIGH_WATER_BYTES,
            unread_bytes_max: UNREAD_BYTES_MAX,
            unread_handles_max: UNREAD_HANDLES_MAX,
            handles_in_flight_max: 1,
            mapped_bytes_max: MAPPED_BYTES_MAX,
            exit_flush_ms: EXIT_FLUSH_MS,
            adaptive_wait: true,
        }
    }
}

/// As good as nothing.
const LITTLE_BYTES: usize = 1024;

impl Options {
    /// How much may wait to be written when one of this kind is to wait, too. The crates above say
    /// little, and what they say must not be lost for what users have said: as much beside that,
    /// which may be one message as long as a frame.
    fn queued_bytes_max_for(&self, kind: Kind) -> usize {
        if kind != Kind::Internal {
            return self.queued_bytes_max;
        }
        self.queued_bytes_max.max(self.frame_bytes_max).saturating_add(self.queued_bytes_max)
    }

    /// Whether so many bytes more are too many where these wait. Where next to nothing does, as our
    /// greeting, one message may be as long as a frame.
    pub(crate) fn is_too_much(&self, waiting: usize, more: usize, kind: Kind) -> bool {
        waiting > LITTLE_BYTES && waiting + more > self.queued_bytes_max_for(kind)
    }

    /// What the decoder takes.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            frame_bytes_max: self.frame_bytes_max.min(u32::MAX as usize),
            handles_max: self.handles_max.min(HANDLES_MAX),
        }
    }
}
