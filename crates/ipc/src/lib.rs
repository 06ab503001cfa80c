//! Typed messages with handles inside, between processes: fast, bounded, safe against hostile peers.
//!
//! A channel connects two processes, or two threads, over a Unix stream socket. Each side sends
//! values of one serde type and receives values of another. A message may contain open sockets,
//! files and pipes, which move to the receiver.
//!
//! ```
//! let (parent, child) = brood_ipc::channel::<String, usize>()?;
//! parent.send(&"how long is this?".to_owned())?;
//! let text = child.recv()?;
//! child.send(&text.len())?;
//! assert_eq!(parent.recv()?, 17);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! For readers who know other channels:
//!
//! - A [`Channel`] resembles `std::sync::mpsc` in both directions at once, between processes.
//!   `AsyncChannel` (feature `tokio`) is the same for tokio.
//! - A [`Link`] is the channel of Node's `child_process.fork`: events for messages and for the
//!   disconnect, and a `send` that never blocks and says when the sender should wait ([`Queued`]).
//!   The crate `child-process` opens links that speak Node's own protocol; see [`node`].
//! - A [`Handle`] inside a message does what `process.send(message, socket)` does in Node, and
//!   what `SCM_RIGHTS` does in the kernel (`unix(7)`).
//!
//! # Two programs
//!
//! [`channel`] makes two endpoints in one process, one of which then moves to another process:
//!
//! - To a child, the endpoint moves as an inherited descriptor and an environment variable.
//!   [`ChannelHandle::into_env`] makes both in the parent. [`Channel::from_env`] checks both in the
//!   child:
//!
//! ```no_run
//! use brood_ipc::{Channel, Options};
//!
//! // The program of the child. The parent has passed the descriptor that the variable names.
//! let channel: Channel<String, u32> = Channel::from_env("MY_CHANNEL", Options::new())?;
//! while let Ok(number) = channel.recv() {
//!     channel.send(&format!("{number} it is"))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! - To any process that a channel exists to, the endpoint moves inside a message, as a
//!   [`ChannelHandle`].
//! - Any other connected Unix stream socket becomes an endpoint by [`Channel::from_fd`].
//!
//! The crate `child-process` does all of this when it starts a child.
//!
//! Before the first message, both programs exchange a handshake ([`Hello`]): the protocol, the
//! codec and the application's tag ([`Options::tag`]). A mismatch is an error that names both
//! sides.
//!
//! # Ways to send and receive
//!
//! | way | for |
//! |---|---|
//! | [`Channel`]: `send`, `recv`, `recv_timeout`, `try_recv`, `iter` | threads that may block; no other thread takes part |
//! | `feed`, then `flush` | many small messages in one system call; a `recv` that waits also flushes |
//! | [`Channel::split`] | one thread that sends, and one that receives |
//! | [`Channel::into_events`], [`Channel::on_message`] | programs that wait for several things; the loop reads and writes |
//! | [`Link`] | crates above: untyped events, on the loop itself |
//! | `mio::event::Source`, [`Channel::prepare_wait`] | programs with their own event loop |
//! | `AsyncChannel`, feature `tokio` | async programs |
//!
//! The *loop* is one thread of the process that serves all links and starts with the first of them.
//! A program that does not know the type of the next message receives a [`Message`], and decodes it
//! later.
//!
//! # Guarantees
//!
//! - Messages and their handles arrive in the order in which they were sent, whole or not at all.
//! - An accepted message is written before the channel closes: by `disconnect`, by the loop after a
//!   drop (which never blocks), and at a normal exit of the process, which waits up to
//!   [`Options::exit_flush`]. [`Error::Undelivered`] and the `Disconnect` events report the
//!   number of messages that cannot be delivered. An abort, `_exit` and signals are not covered.
//! - A send borrows the value. A failed send leaves the value's handles in it, usable; a successful
//!   send has taken them ([`Handle::is_sent`]).
//! - Everything has a limit ([`Options`]): 64 MiB and 253 handles in a frame, 4 MiB that wait to be
//!   written, 4 MiB that are received and not decoded. Above the last limit, the channel is not
//!   read, so that the peer's socket fills up.
//! - An idle endpoint holds at most one partial message: up to 4 KiB exactly, above that one
//!   128 KiB read buffer. All other buffers belong to the threads that send or receive (up to
//!   512 KiB each), and to the process for long messages (up to 40 MiB).
//! - The peer may be hostile. Its input, or its silence, costs only its own channel, and memory
//!   grows with the bytes that arrived, never with an announced length.
//!
//! # Types of messages
//!
//! A message is any type that serde can serialize, with [`Handle`]s to sockets, files and pipes,
//! [`Blob`]s (bytes that are not copied) and [`SharedMemory`] anywhere inside. The codec is
//! [`Bincode`] unless both sides choose [`Json`] or [`Advanced`] ([`Options::serialization`]). Some
//! features of serde depend on the codec:
//!
//! | | `Bincode` | `Json`, `Advanced` |
//! |---|---|---|
//! | a type that differs between the sides | [`Error::WrongType`], or [`Error::Decode`] | what serde accepts |
//! | `skip_serializing_if`, `flatten`, sequences of unknown length | refused by the sender | supported |
//! | `serde_json::Value`, enums that are untagged or have a tag | an error at the receiver | supported |
//! | a handle inside one of these enums or a flattened field | an error | an error |
//!
//! # Types that differ
//!
//! `Bincode` writes no types. Therefore each frame carries a fingerprint of the value's parts, of 32
//! bits, outside of the payload. The sender folds the fingerprint while it writes, and the receiver
//! while it reads; a difference is [`Error::WrongType`]:
//!
//! ```
//! let (a, b) = brood_ipc::channel::<(u32, String), ()>()?;
//! a.send(&(7, "x".to_owned()))?;
//! let error = b.recv_message()?.decode::<(u32, u64, u8)>().unwrap_err();
//! assert!(matches!(error, brood_ipc::Error::WrongType { expected: "(u32, u64, u8)", .. }));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! Numbers count by their width and by whether they are signed, unsigned or a float. `bool`, `char`,
//! text, the tags of options, the indices and kinds of variants, handles, and the starts of
//! sequences and maps count as well. Names, lifetimes, newtypes, `Cow` and `Box` do not count, so
//! `&str` may be read as `String`, a struct as a struct with other names, and bytes as `Vec<u8>`.
//!
//! Not noticed are a field or a variant that changed its name or its meaning and not its type, two
//! variants of the same parts in another order, and structs or tuples that are divided differently
//! with the same parts. An empty list and `None` match a list and an option of any type.

mod arrived_handle;
mod blob;
mod buffer_pool;
mod channel;
mod codec;
mod error;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod frame;
#[cfg(not(feature = "fuzzing"))]
#[allow(unreachable_pub, dead_code, reason = "public for the fuzzer")]
mod frame;
mod handle;
mod hello;
#[doc(hidden)]
pub mod internal;
mod link;
pub mod node;
mod options;
mod receive_budget;
mod received_message;
mod serialization;
mod shared_memory;
mod side_table;
mod transport;

/// The receiver of [`Channel::into_events`], of the crate `crossbeam-channel`.
///
/// A new major version of that crate is a new major version of this one.
pub use crossbeam_channel::Receiver as EventReceiver;
/// The crate `mio`, whose traits and types [`Channel`] implements and returns.
///
/// A new major version of that crate is a new major version of this one.
pub use mio;

pub use blob::Blob;
#[cfg(feature = "tokio")]
pub use channel::AsyncChannel;
pub use channel::{Channel, Receiver, Sender, channel, channel_with};
pub use channel::{ChannelHandle, Event, LinkSender, TypedMessage};
pub use codec::advanced;
pub use codec::{Advanced, Bincode, Codec, Json};
pub use codec::{PayloadReader, PayloadWriter};
pub use error::{Error, SendHandleError};
pub use frame::FrameError;
pub use handle::{Handle, Transfer};
pub use hello::Hello;
pub use link::{Link, LinkEvent, Queued};
pub use node::AnyHandle;
pub use options::Options;
pub use received_message::Message;
pub use serialization::Serialization;
pub use shared_memory::SharedMemory;

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
