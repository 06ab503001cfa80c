//! The limits and settings of a channel.
//!
//! Pure.

use crate::codec::DecodeLimits;
use crate::error::Error;
use crate::frame::{Kind, Limits};
use crate::hello::TAG_BYTES_MAX;
use crate::serialization::Serialization;
use std::time::Duration;

/// The limits and settings of one channel. Each side chooses its own, except where noted.
///
/// ```
/// use brood_ipc::{Options, Serialization};
///
/// let options = Options::new().serialization(Serialization::Json).frame_bytes_max(1 << 20);
/// let (a, b) = brood_ipc::channel_with::<String, ()>(&options)?;
/// a.send(&"hello".to_owned())?;
/// assert_eq!(b.recv_message()?.bytes(), br#""hello""#);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Options {
    pub(crate) serialization: Serialization,
    pub(crate) tag: String,
    pub(crate) frame_bytes_max: usize,
    pub(crate) handles_max: usize,
    pub(crate) received_handles_max: usize,
    pub(crate) queued_bytes_max: usize,
    pub(crate) high_water_bytes: usize,
    pub(crate) unread_bytes_max: usize,
    pub(crate) unread_handles_max: usize,
    pub(crate) handles_in_flight_max: usize,
    pub(crate) mapped_bytes_max: usize,
    pub(crate) exit_flush: Duration,
    pub(crate) flush_within: Duration,
    pub(crate) adaptive_wait: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options::new()
    }
}

impl Options {
    /// The default length of the longest payload, in bytes.
    pub const FRAME_BYTES_MAX: usize = 64 * 1024 * 1024;

    /// The number of handles in one frame at most, which is the kernel's limit for one
    /// `sendmsg(2)`.
    pub const HANDLES_MAX: usize = 253;

    /// The default queue limit, in bytes.
    pub const QUEUED_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// The default high-water mark, in bytes.
    pub const HIGH_WATER_BYTES: usize = 1024 * 1024;

    /// The default number of received bytes, neither decoded nor dropped, above which the channel
    /// is not read.
    pub const UNREAD_BYTES_MAX: usize = 4 * 1024 * 1024;

    /// The default number of received handles per channel, neither decoded nor dropped, above which
    /// the channel is not read.
    pub const UNREAD_HANDLES_MAX: usize = 256;

    /// The default size of the shared memory that one message maps on arrival at most, in bytes.
    pub const MAPPED_BYTES_MAX: usize = 1024 * 1024 * 1024;

    /// The default time that a normal exit of the process waits for the queue.
    pub const EXIT_FLUSH: Duration = Duration::from_secs(2);

    /// The default time in which the peer must read a part of a queue that is left after a
    /// disconnect.
    pub const FLUSH_WITHIN: Duration = Duration::from_secs(60);

    /// The longest application tag, in bytes.
    pub const TAG_BYTES_MAX: usize = TAG_BYTES_MAX;

    /// Makes the default options.
    pub const fn new() -> Options {
        Options {
            serialization: Serialization::Bincode,
            tag: String::new(),
            frame_bytes_max: Options::FRAME_BYTES_MAX,
            handles_max: Options::HANDLES_MAX,
            received_handles_max: Options::HANDLES_MAX,
            queued_bytes_max: Options::QUEUED_BYTES_MAX,
            high_water_bytes: Options::HIGH_WATER_BYTES,
            unread_bytes_max: Options::UNREAD_BYTES_MAX,
            unread_handles_max: Options::UNREAD_HANDLES_MAX,
            handles_in_flight_max: 1,
            mapped_bytes_max: Options::MAPPED_BYTES_MAX,
            exit_flush: Options::EXIT_FLUSH,
            flush_within: Options::FLUSH_WITHIN,
            adaptive_wait: true,
        }
    }

    /// Sets the codec of messages. Both sides must use the same. The default is
    /// [`Serialization::Bincode`].
    pub fn serialization(self, serialization: Serialization) -> Options {
        Options { serialization, ..self }
    }

    /// Sets the application's name for its protocol, at most [`TAG_BYTES_MAX`](Self::TAG_BYTES_MAX)
    /// bytes. Both sides must use the same. The default is empty.
    ///
    /// A longer tag makes no channel: [`Error::InvalidOption`](crate::Error::InvalidOption).
    pub fn tag(self, tag: impl Into<String>) -> Options {
        Options { tag: tag.into(), ..self }
    }

    /// Sets the length of the longest payload that is sent or received, in bytes. The default is
    /// [`FRAME_BYTES_MAX`](Self::FRAME_BYTES_MAX).
    ///
    /// A payload in V8's format may name a string, a buffer or an object many times, and a Rust
    /// value holds as many copies. The copies after the first have at most the length of the payload
    /// and this limit together; a payload that names more is
    /// [`Error::Decode`](crate::Error::Decode).
    pub fn frame_bytes_max(self, frame_bytes_max: usize) -> Options {
        Options { frame_bytes_max, ..self }
    }

    /// Sets the number of handles in one message at most, sent or received. The default, and the
    /// most, is [`HANDLES_MAX`](Self::HANDLES_MAX).
    pub fn handles_max(self, handles_max: usize) -> Options {
        Options { handles_max, ..self }
    }

    /// Sets the number of handles that this side takes with one received message at most. The
    /// default, and the most, is [`HANDLES_MAX`](Self::HANDLES_MAX); 0 takes no handle at all.
    ///
    /// A message with more arrives without its handles, which are closed, and
    /// [`Message::decode`](crate::Message::decode) and a blocking `recv` return
    /// [`Error::HandlesRefused`](crate::Error::HandlesRefused). With 0 the kernel opens no
    /// descriptor for this process. A Node peer learns that its handle has arrived, so that it does
    /// not send the handle again.
    ///
    /// ```
    /// use brood_ipc::{Error, Handle, Options};
    /// use std::net::UdpSocket;
    ///
    /// let options = Options::new().received_handles_max(0);
    /// let (a, b) = brood_ipc::channel_with::<Handle<UdpSocket>, ()>(&options)?;
    /// a.send(&Handle::new(UdpSocket::bind("127.0.0.1:0")?))?;
    /// assert!(matches!(b.recv(), Err(Error::HandlesRefused { count: 1, max: 0 })));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn received_handles_max(self, received_handles_max: usize) -> Options {
        Options { received_handles_max, ..self }
    }

    /// Sets the queue limit, in bytes. The default is
    /// [`QUEUED_BYTES_MAX`](Self::QUEUED_BYTES_MAX).
    ///
    /// A message beyond the limit is refused, or waited for by a blocking `send`, unless the queue
    /// is almost empty.
    pub fn queued_bytes_max(self, queued_bytes_max: usize) -> Options {
        Options { queued_bytes_max, ..self }
    }

    /// Sets the high-water mark, in bytes: a loop-driven `send` returns
    /// [`Queued::AboveHighWater`](crate::Queued) while more wait to be written. The default is
    /// [`HIGH_WATER_BYTES`](Self::HIGH_WATER_BYTES).
    pub fn high_water_bytes(self, high_water_bytes: usize) -> Options {
        Options { high_water_bytes, ..self }
    }

    /// Sets the number of received bytes, neither decoded nor dropped, above which the channel is
    /// not read. The default is [`UNREAD_BYTES_MAX`](Self::UNREAD_BYTES_MAX).
    pub fn unread_bytes_max(self, unread_bytes_max: usize) -> Options {
        Options { unread_bytes_max, ..self }
    }

    /// Sets the number of received handles, neither decoded nor dropped, above which the channel is
    /// not read. The default is [`UNREAD_HANDLES_MAX`](Self::UNREAD_HANDLES_MAX).
    pub fn unread_handles_max(self, unread_handles_max: usize) -> Options {
        Options { unread_handles_max, ..self }
    }

    /// Sets the number of handles in flight to a Node peer that it has not acknowledged; messages
    /// behind them wait. The default is 1, as in Node.
    pub fn handles_in_flight_max(self, handles_in_flight_max: usize) -> Options {
        Options { handles_in_flight_max, ..self }
    }

    /// Sets the size of the shared memory that one message maps on arrival at most, in bytes. The
    /// default is [`MAPPED_BYTES_MAX`](Self::MAPPED_BYTES_MAX).
    pub fn mapped_bytes_max(self, mapped_bytes_max: usize) -> Options {
        Options { mapped_bytes_max, ..self }
    }

    /// Sets the time that a normal exit of the process waits for the queue. The default is
    /// [`EXIT_FLUSH`](Self::EXIT_FLUSH).
    pub fn exit_flush(self, exit_flush: Duration) -> Options {
        Options { exit_flush, ..self }
    }

    /// Sets the time in which the peer must read a part of what is queued, after the endpoint was
    /// dropped or disconnected. The default is [`FLUSH_WITHIN`](Self::FLUSH_WITHIN), and
    /// [`Duration::MAX`] waits for ever.
    ///
    /// A peer that reads nothing for so long does not get the rest, and the socket is closed. A loop-driven
    /// endpoint reports the number of messages in its last event. The option does not concern a
    /// blocking `disconnect` or `flush`.
    pub fn flush_within(self, flush_within: Duration) -> Options {
        Options { flush_within, ..self }
    }

    /// Sets whether a blocking `recv` may spin for a moment before it sleeps. The default is
    /// `true`.
    ///
    /// The channel learns whether this pays; on a single core or a busy one it does not, and then
    /// costs nothing.
    pub fn adaptive_wait(self, adaptive_wait: bool) -> Options {
        Options { adaptive_wait, ..self }
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

    /// Checks what the setters take and no channel can have.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`].
    pub(crate) fn check(&self) -> Result<(), Error> {
        if self.tag.len() > TAG_BYTES_MAX {
            return Err(Error::InvalidOption("the tag is longer than 256 bytes"));
        }
        Ok(())
    }

    /// Returns the limits for the values of one payload.
    pub(crate) fn decode_limits(&self) -> DecodeLimits {
        let Options { mapped_bytes_max, frame_bytes_max, .. } = *self;
        DecodeLimits { mapped_bytes_max, frame_bytes_max }
    }

    /// Returns the limits of the decoder.
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            // The header has 32 bits for the length.
            frame_bytes_max: self.frame_bytes_max.min(u32::MAX as usize),
            handles_max: self.handles_max.min(Options::HANDLES_MAX),
            received_handles_max: self.received_handles_max,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers that differ from each other and from the defaults.
    #[test]
    fn every_setter_sets_its_own_option() {
        let options = Options::new()
            .serialization(Serialization::Json)
            .tag("tag")
            .frame_bytes_max(1)
            .handles_max(2)
            .queued_bytes_max(3)
            .high_water_bytes(4)
            .unread_bytes_max(5)
            .unread_handles_max(6)
            .handles_in_flight_max(7)
            .mapped_bytes_max(8)
            .exit_flush(Duration::from_secs(9))
            .adaptive_wait(false);
        assert_eq!((options.serialization, &*options.tag), (Serialization::Json, "tag"));
        let frame = [options.frame_bytes_max, options.handles_max];
        let queue = [options.queued_bytes_max, options.high_water_bytes];
        let unread = [options.unread_bytes_max, options.unread_handles_max];
        let others = [options.handles_in_flight_max, options.mapped_bytes_max];
        assert_eq!([frame, queue, unread, others], [[1, 2], [3, 4], [5, 6], [7, 8]]);
        assert_eq!((options.exit_flush.as_secs(), options.adaptive_wait), (9, false));
    }

    #[test]
    fn the_defaults_are_as_documented() {
        const MIB: usize = 1 << 20;
        let options = Options::default();
        let frame = [options.frame_bytes_max, options.handles_max];
        let queue = [options.queued_bytes_max, options.high_water_bytes];
        let unread = [options.unread_bytes_max, options.unread_handles_max];
        assert_eq!([frame, queue, unread], [[64 * MIB, 253], [4 * MIB, MIB], [4 * MIB, 256]]);
        assert_eq!((options.mapped_bytes_max, options.exit_flush.as_secs()), (1024 * MIB, 2));
    }

    #[test]
    fn one_long_message_fits_a_queue_in_which_little_waits_and_internal_ones_have_more_room() {
        let options = Options::new().queued_bytes_max(10_000).frame_bytes_max(50_000);
        for (waiting, more, message, internal) in [
            (LITTLE_BYTES, 50_000, false, false),
            (LITTLE_BYTES + 1, 10_000 - LITTLE_BYTES - 1, false, false),
            (LITTLE_BYTES + 1, 10_000 - LITTLE_BYTES, true, false),
            (10_000, 50_000, true, false),
            (10_000, 50_001, true, true),
        ] {
            let case = (waiting, more);
            assert_eq!(options.is_too_much(waiting, more, Kind::Message), message, "{case:?}");
            assert_eq!(options.is_too_much(waiting, more, Kind::Internal), internal, "{case:?}");
        }
    }

    #[test]
    fn the_limits_of_a_decoder_are_within_those_of_the_format() {
        let limits = |bytes, handles| {
            let limits = Options::new().frame_bytes_max(bytes).handles_max(handles).limits();
            (limits.frame_bytes_max, limits.handles_max)
        };
        assert_eq!(limits(7, 9), (7, 9));
        assert_eq!(limits(usize::MAX, usize::MAX), (u32::MAX as usize, Options::HANDLES_MAX));
    }
}
