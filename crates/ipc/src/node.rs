//! Node's wire: the channel of `child_process.fork`, as Node speaks it.
//!
//! There is no greeting. A message is one line of JSON, or with `advanced` a length and a value in
//! V8's format. Handles ride beside messages, one at a time, and are acknowledged; Node ends over
//! an acknowledgement too many, so what users send is kept apart from what the channel itself says.
//!
//! A [`Link`](crate::Link) from [`Link::start_node`](crate::Link::start_node) behaves as one
//! between our own processes, and beyond that:
//!
//! - A line that is no JSON is a message that cannot be decoded; the channel lives on. Text that a
//!   Rust string cannot hold (surrogates that stand alone) is decoded with U+FFFD in its place;
//!   [`advanced::Value`](crate::advanced::Value) keeps it as it is. A value nested deeper than
//!   [`NESTING_MAX`](crate::NESTING_MAX) is an error when it is decoded.
//! - A message with a handle is answered at once, also while nobody listens; what is sent behind a
//!   handle waits for its answer. A socket that the peer had no descriptor left for is sent again,
//!   three times within a second or so.
//! - A message of the peer's user has no handle inside, but perhaps one beside it:
//!   [`Message::take_handle`](crate::Message::take_handle).
//! - A connection that Node sends from one of its servers is still counted there. It counts as open
//!   for as long as the descriptor as which it arrived is.
//! - Who disconnects still hears what the peer says until it leaves too, for ten seconds at most: a
//!   Node process that sends into a closed channel ends over that.
//! - Before version 20, Node can hang in `advanced` mode when a read ends inside a length: use JSON
//!   there, or keep less than 64 KiB unread.

pub(crate) mod ack_window;
pub(crate) mod any_handle;
pub(crate) mod decoder;
pub(crate) mod encode;
pub(crate) mod envelope;
pub(crate) mod handle_type;
pub(crate) mod server_connections;

pub use self::any_handle::AnyHandle;
pub(crate) use self::envelope::repaired_utf16;
