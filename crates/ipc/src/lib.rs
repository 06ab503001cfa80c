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

mod blob;
mod channel;
mod codec;
mod credit;
mod deposit;
mod driver;
mod end;
mod ends;
mod error;
mod events;
mod flusher;
pub mod frame;
mod handle;
mod hello;
mod inbox;
mod link;
mod memory;
mod message;
pub mod node;
mod options;
mod outbox;
mod scratch;
mod spare;
#[cfg(feature = "tokio")]
mod tokio;
mod wait;
mod wire;

pub use blob::Blob;
pub use channel::{Channel, Receiver, Sender, channel, channel_with};
pub use codec::advanced;
pub use codec::{
    Advanced, Bincode, Codec, Json, NESTING_MAX, Serialization, ZERO_SIZE_ELEMENTS_MAX,
};
pub use codec::{PayloadReader, PayloadWriter};
pub use ends::ChannelHandle;
pub use error::{Error, SendError};
pub use events::{Event, Incoming, Outlet};
pub use frame::Violation;
pub use handle::{Handle, Transfer};
pub use hello::{Hello, PROTOCOL, TAG_BYTES_MAX};
pub use link::{Link, LinkEvent};
pub use memory::SharedMemory;
pub use message::Message;
pub use node::AnyHandle;
pub use options::{
    EXIT_FLUSH_MS, FRAME_BYTES_MAX, HANDLES_MAX, HIGH_WATER_BYTES, MAPPED_BYTES_MAX, Options,
    QUEUED_BYTES_MAX, UNREAD_BYTES_MAX, UNREAD_HANDLES_MAX,
};
#[cfg(feature = "tokio")]
pub use tokio::AsyncChannel;
