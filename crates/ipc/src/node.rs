//! Node's wire: the channel of `child_process.fork`, as Node speaks it.
//!
//! There is no handshake. A message is one line of JSON, or with `advanced` a length and a value in
//! V8's format. A handle is attached to a message, one at a time, and must be acknowledged. Node
//! ends on an acknowledgement too many, so messages of users are kept apart from messages of the
//! channel itself.
//!
//! A channel to a Node process, which the crate `child-process` opens, behaves as a
//! [`Link`](crate::Link) between two programs of this crate, with these additions:
//!
//! - A line that is not JSON is a message that cannot be decoded; the channel stays open. Text that
//!   no Rust string can hold (lone surrogates) is decoded with U+FFFD in place of each lone
//!   surrogate, while [`advanced::Value`](crate::advanced::Value) keeps the text unchanged. A value
//!   that is nested deeper than [`NESTING_MAX`](crate::Serialization::NESTING_MAX) is an error when it is decoded.
//! - A handle from the peer is acknowledged at once, even before the link is resumed. Messages that
//!   are sent after a handle wait for the peer's acknowledgement. A socket that the peer rejects
//!   for lack of a descriptor number is sent again, three times within about a second.
//! - A handle is not inside a message of the peer's user but attached to it:
//!   [`Message::take_handle`](crate::Message::take_handle).
//! - A connection that a Node server has sent still counts in that server. The connection counts as
//!   open while the descriptor under which it arrived is open.
//! - After a disconnect, the peer's messages are still read until the peer closes, for at most ten
//!   seconds, because a Node process ends when it sends into a closed channel.
//! - Node before version 20 can hang in `advanced` mode when a read ends inside a length. Use JSON
//!   with such a version, or keep less than 64 KiB unread.

pub(crate) mod ack_window;
pub(crate) mod decoder;
pub(crate) mod encode;
pub(crate) mod envelope;
pub(crate) mod handle_type;
pub(crate) mod received_handle;
pub(crate) mod server_connections;

pub(crate) use self::envelope::repaired_utf16;
pub use self::received_handle::AnyHandle;
