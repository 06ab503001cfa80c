//! Typed messages with handles inside, between processes: fast, bounded, safe against a hostile peer.
//!
//! ```
//! let (parent, child) = ipc::channel::<String, usize>()?;
//! parent.send("how long is this?".to_owned())?;
//! let text = child.recv()?;
//! child.send(text.len())?;
//! assert_eq!(parent.recv()?, 17);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Two programs
//!
//! [`channel`] makes two ends in one process; one of them moves. To a child, it goes as a
//! descriptor and a variable that tells of it ([`ChannelHandle::into_env`], and
//! [`Channel::from_env`] over there, which checks both):
//!
//! ```no_run
//! use ipc::{Channel, Options};
//!
//! // The child's program. The parent has put the end at the descriptor that the variable names.
//! let channel: Channel<String, u32> = Channel::from_env("MY_CHANNEL", Options::default())?;
//! while let Ok(number) = channel.recv() {
//!     channel.send(format!("{number} it is"))?;
//! }
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! To any process there is a channel to, it goes inside a message: an end is a handle
//! ([`ChannelHandle`]). Any other connected Unix stream socket will do as well
//! ([`Channel::from_fd`]). Where `child-process` starts the child, all of this is done already.
//!
//! Both programs say which protocol, codec and application tag ([`Options::tag`]) they speak
//! before the first message: other builds than expected are an error that names both sides.
//!
//! # Ways to send and receive
//!
//! | way | for |
//! |---|---|
//! | [`Channel`]: `send`, `recv`, `recv_timeout`, `try_recv`, `iter` | threads that may block: no other thread has a part in it |
//! | `feed`, then `flush` | many small messages by one system call; a `recv` that waits flushes by itself |
//! | [`Channel::split`] | one thread that sends, one that receives |
//! | [`Channel::events`], [`Channel::on_message`] | programs that wait for several things; the loop reads and writes |
//! | [`Link`] | crates above: events without a type, on the loop itself |
//! | `mio::event::Source`, [`Channel::prepare_wait`] | programs with a loop of their own |
//! | `AsyncChannel`, feature `tokio` | async programs |
//!
//! A program that does not know the type of the next message takes a [`Message`], and decodes it
//! when it does.
//!
//! # What holds
//!
//! - Messages and their handles arrive in the order sent, whole or not at all.
//! - What a send has accepted is written before the channel closes: by `disconnect`, by the loop
//!   after a drop (which never blocks), and at a normal exit, which waits for it up to
//!   [`Options::exit_flush_ms`]. What cannot be delivered is told as [`Error::Undelivered`]. Not
//!   covered: abort, `_exit`, and signals.
//! - A failed send gives the value back with its handles ([`SendError`]).
//! - Everything has a ceiling ([`Options`]): a frame 64 MiB and 253 handles, 4 MiB that wait to be
//!   written, 4 MiB that wait to be taken. Beyond the last one the channel is not read, and so the
//!   peer feels it.
//! - An end at rest, with nothing that waits to be taken, keeps no buffer but the beginning of a
//!   message, in memory of its size up to 4 KiB and in that of one read (128 KiB) beyond. Memory for
//!   what comes and goes is the thread's that sends or receives, up to 512 KiB for each that does,
//!   and 40 MiB for long messages in the whole process.
//! - The peer may be hostile. Whatever it sends, or does not, costs it its own channel and no other
//!   one anything; memory grows with the bytes that came, never with those announced.
//!
//! # What messages may be
//!
//! Whatever serde can carry, with [`Handle`]s to sockets, files and pipes, [`Blob`]s (bytes that
//! are not copied) and [`SharedMemory`] anywhere inside. The codec is [`Bincode`] unless both sides
//! choose [`Json`] or [`Advanced`] ([`Options::serialization`]). serde's corners:
//!
//! | | `Bincode` | `Json`, `Advanced` |
//! |---|---|---|
//! | `skip_serializing_if`, `flatten` | refused when sent | fine |
//! | untagged, internally tagged enums | an error when received | fine |
//! | a handle inside one of these enums or a flattened field | an error | an error |

mod blob;
mod buffers;
mod channel;
mod codec;
mod credit;
mod error;
pub mod frame;
mod handle;
mod hello;
mod link;
mod message;
pub mod node;
mod options;
mod serialization;
mod shared_memory;
mod side_table;
mod transport;

pub use blob::Blob;
#[cfg(feature = "tokio")]
pub use channel::AsyncChannel;
pub use channel::{Channel, Receiver, Sender, channel, channel_with};
pub use channel::{ChannelHandle, Event, LinkSender, TypedMessage};
pub use codec::advanced;
pub use codec::{Advanced, Bincode, Codec, Json, NESTING_MAX, ZERO_SIZE_ELEMENTS_MAX};
pub use codec::{PayloadReader, PayloadWriter};
pub use error::{Error, SendError};
pub use frame::FrameError;
pub use handle::{Handle, Transfer};
pub use hello::{Hello, PROTOCOL, TAG_BYTES_MAX};
pub use link::{Link, LinkEvent};
pub use message::Message;
pub use node::AnyHandle;
pub use options::{
    EXIT_FLUSH_MS, FRAME_BYTES_MAX, HANDLES_MAX, HIGH_WATER_BYTES, MAPPED_BYTES_MAX, Options,
    QUEUED_BYTES_MAX, UNREAD_BYTES_MAX, UNREAD_HANDLES_MAX,
};
pub use serialization::Serialization;
pub use shared_memory::SharedMemory;
