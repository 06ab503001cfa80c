//! A message that has arrived and was not decoded yet.

use crate::buffers;
use crate::codec;
use crate::credit::{Credit, Pool};
use crate::error::Error;
use crate::frame::{Frame, Payload};
use crate::node::{self, AnyHandle};
use crate::serialization::Serialization;
use ::bytes::Bytes;
use serde::de::DeserializeOwned;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A received message, not decoded yet: for programs that route, and for events.
///
/// It holds credit of its channel until it is decoded or dropped: a program that keeps messages
/// makes the peer wait. Handles that are not decoded are closed with it.
///
/// ```
/// let (a, b) = ipc::channel::<(u32, String), ()>()?;
/// a.send((7, "seven".to_owned()))?;
/// let message = b.recv_message()?;
/// assert_eq!(message.serialization(), ipc::Serialization::Bincode);
/// assert_eq!(message.handle_count(), 0);
/// assert_eq!(message.decode::<(u32, String)>()?, (7, "seven".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Message {
    payload: Bytes,
    /// `None` for a message without handles, which is small that way.
    beside: Option<Box<Beside>>,
    /// Given back last, when the handles are closed.
    credit: Credit,
}

#[derive(Default)]
struct Beside {
    handles: Vec<OwnedFd>,
    lost: bool,
    /// The one that a Node peer sent beside the message.
    from_node: Option<OwnedFd>,
}

impl Message {
    /// Takes over a frame, on account of `pool`.
    pub(crate) fn from_frame(frame: Frame<'_, OwnedFd>, pool: &Arc<Pool>) -> Message {
        let Frame { payload, handles, handles_lost: lost, .. } = frame;
        let payload = match payload {
            Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Owned(bytes) => buffers::share_long(bytes),
        };
        let credit = pool.take(payload.len(), handles.len());
        let any = lost || !handles.is_empty();
        let beside = any.then(|| Box::new(Beside { handles, lost, from_node: None }));
        Message { payload, beside, credit }
    }

    /// What a Node peer sent.
    pub(crate) fn from_node(payload: Bytes, handle: Option<OwnedFd>, pool: &Arc<Pool>) -> Message {
        let credit = pool.take(payload.len(), usize::from(handle.is_some()));
        let beside =
            handle.map(|handle| Box::new(Beside { from_node: Some(handle), ..Beside::default() }));
        Message { payload, beside, credit }
    }

    /// Decodes the message as a `T`.
    ///
    /// Handles that `T` does not take are closed.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] when it is not a `T`; [`Error::HandlesLost`] when it came without its
    /// handles.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        let Message { payload, beside, credit } = self;
        let handles = match beside {
            None => Vec::new(),
            Some(beside) if beside.lost => return Err(Error::HandlesLost),
            Some(beside) => beside.handles,
        };
        let Pool { serialization, mapped_bytes_max, is_node, .. } = *credit.pool();
        let decode = |bytes, owner, handles| {
            codec::decode(serialization, bytes, owner, handles, mapped_bytes_max)
        };
        match decode(&payload, Some(&payload), handles) {
            // It may hold text that no Rust string can.
            Err(error) if is_node && serialization == Serialization::Json => {
                match node::mended(&payload) {
                    Some(mended) => decode(&mended, None, Vec::new()),
                    None => Err(error),
                }
            }
            decoded => decoded,
        }
    }

    /// Takes the handle that a Node peer sent beside the message.
    ///
    /// A handle inside a message of our own channels comes with [`decode`](Message::decode).
    ///
    /// Sockets of Node are non-blocking, and Node may still use the same socket (a server always,
    /// a connection that was sent with `keepOpen`): making it blocking here would block Node there.
    pub fn take_handle(&mut self) -> Option<AnyHandle> {
        self.beside.as_mut()?.from_node.take().map(AnyHandle::from)
    }

    /// How many handles came with it.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.beside
            .as_ref()
            .map_or(0, |beside| beside.handles.len() + usize::from(beside.from_node.is_some()))
    }

    /// Its payload, as the codec wrote it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The codec that wrote it.
    #[must_use]
    pub fn serialization(&self) -> Serialization {
        self.credit.pool().serialization
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("bytes", &self.payload.len())
            .field("handles", &self.handle_count())
            .field("handles_lost", &self.beside.as_ref().is_some_and(|beside| beside.lost))
            .field("serialization", &self.serialization())
            .finish_non_exhaustive()
    }
}
