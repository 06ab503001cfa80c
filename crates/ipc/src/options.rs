//! The limits and settings of a channel.
//!
//! Pure.

use crate::frame::{Kind, Limits};
use crate::serialization::Serialization;

/// The default length of the longest payload, in bytes.
pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

/// The number of handles in one frame at most, which is the kernel's limit for one `sendmsg(2)`.
pub const HANDLES_MAX: usize = 253;

/// The default queue limit, in bytes.
pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The default high-water mark, above which a loop-driven `send` returns
/// [`Queued::AboveHighWater`](crate::Queued), in bytes.
pub const HIGH_WATER_BYTES: usize = 1024 * 1024;

/// The default number of received bytes, neither decoded nor dropped, above which the channel is
/// not read.
pub const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The default number of received handles per channel, neither decoded nor dropped, above which the
/// channel is not read.
pub const UNREAD_HANDLES_MAX: usize = 256;

/// The default time that a normal exit of the process waits for the queue, in milliseconds.
pub const EXIT_FLUSH_MS: u64 = 2_000;

/// The default size of the largest shared memory that is mapped on arrival, in bytes.
pub const MAPPED_BYTES_MAX: usize = 1024 * 1024 * 1024;

/// The limits and settings of one channel. Each side chooses its own, except where noted.
///
/// ```
/// let options = brood_ipc::Options { frame_bytes_max: 1 << 20, ..brood_ipc::Options::default() };
/// assert_eq!(options.handles_max, 253);
/// ```
#[derive(Clone, Debug)]
#[allow(clippy::exhaustive_structs, reason = "made with `..Options::default()`")]
pub struct Options {
    /// The codec of messages. Both sides must use the same.
    pub serialization: Serialization,
    /// The application's name for its protocol. Both sides must use the same.
    pub tag: String,
    /// The longest payload that is sent or received, in bytes.
    pub frame_bytes_max: usize,
    /// The number of handles in one message at most, sent or received; at most [`HANDLES_MAX`].
    pub handles_max: usize,
    /// The queue limit, in bytes. A message beyond it is refused, or waited for by a blocking
    /// `send`, unless the queue is almost empty.
    pub queued_bytes_max: usize,
    /// The high-water mark, in bytes: a loop-driven `send` returns
    /// [`Queued::AboveHighWater`](crate::Queued) while more wait to be written.
    pub high_water_bytes: usize,
    /// The number of received bytes, neither decoded nor dropped, above which the channel is not
    /// read.
    pub unread_bytes_max: usize,
    /// The number of received handles, neither decoded nor dropped, above which the channel is not
    /// read.
    pub unread_handles_max: usize,
    /// The number of handles in flight to a Node peer that it has not acknowledged. Messages behind
    /// them wait. Node itself sends one handle at a time.
    pub handles_in_flight_max: usize,
    /// The largest shared memory that is mapped on arrival, in bytes.
    pub mapped_bytes_max: usize,
    /// The time that a normal exit of the process waits for the queue, in milliseconds.
    pub exit_flush_ms: u64,
    /// Whether a blocking `recv` may spin for a moment before it sleeps. The channel learns whether
    /// this pays; on a single core or a busy one it does not, and then costs nothing.
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

/// The queue length that counts as almost empty, in bytes.
const LITTLE_BYTES: usize = 1024;

impl Options {
    /// Returns the queue limit for a frame of this kind, in bytes.
    ///
    /// Internal frames get extra room, so that user messages cannot crowd them out: as much as the
    /// limit itself, beyond the limit or one frame, whichever is longer.
    fn queued_bytes_max_for(&self, kind: Kind) -> usize {
        if kind != Kind::Internal {
            return self.queued_bytes_max;
        }
        self.queued_bytes_max.max(self.frame_bytes_max).saturating_add(self.queued_bytes_max)
    }

    /// Returns whether a frame of `more` bytes exceeds the queue limit while `waiting` bytes wait.
    ///
    /// When almost nothing waits, such as the handshake, one message may be as long as a frame.
    pub(crate) fn is_too_much(&self, waiting: usize, more: usize, kind: Kind) -> bool {
        waiting > LITTLE_BYTES && waiting + more > self.queued_bytes_max_for(kind)
    }

    /// Returns the limits of the decoder.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            // The header has 32 bits for the length.
            frame_bytes_max: self.frame_bytes_max.min(u32::MAX as usize),
            handles_max: self.handles_max.min(HANDLES_MAX),
        }
    }
}
