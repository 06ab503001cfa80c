//! A message that has arrived and was not decoded yet.

use crate::codec::{self, Serialization};
use crate::credit::Credit;
use crate::error::Error;
use crate::node::{self, AnyHandle};
use crate::options::Options;
use ::bytes::Bytes;
use serde::de::DeserializeOwned;
use std::fmt;
use std::os::fd::OwnedFd;

/// A received message, not decoded yet: for programs that route, and for events.
///
/// It holds credit of its channel until it is decoded or dropped: a program that keeps messages
/// makes the peer wait. Handles that are not decoded are closed with it.
pub struct Message {
    payload: Bytes,
    handles: Vec<OwnedFd>,
    handles_lost: bool,
    /// A Node peer sent it, and perhaps a handle beside it.
    from_node: bool,
    beside: Option<OwnedFd>,
    serialization: Serialization,
    credit: Option<Credit>,
    mapped_bytes_max: usize,
}

impl Message {
    pub(crate) fn new(
        payload: Bytes,
        handles: Vec<OwnedFd>,
        handles_lost: bool,
        options: &Options,
        credit: Option<Credit>,
    ) -> Message {
        let &Options { serialization, mapped_bytes_max, .. } = options;
        Message {
            payload,
            handles,
            handles_lost,
            from_node: false,
            beside: None,
            serialization,
            credit,
            mapped_bytes_max,
        }
    }

    /// What a Node peer sent.
    pub(crate) fn from_node(
        payload: Bytes,
        beside: Option<OwnedFd>,
        options: &Options,
        credit: Credit,
    ) -> Message {
        let plain = Message::new(payload, Vec::new(), false, options, Some(credit));
        Message { from_node: true, beside, ..plain }
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
        if self.handles_lost {
            return Err(Error::HandlesLost);
        }
        let Message { payload, handles, serialization, mapped_bytes_max, .. } = self;
        let decode = |bytes, owner, handles| {
            codec::decode(serialization, bytes, owner, handles, mapped_bytes_max)
        };
        match decode(&payload, Some(&payload), handles) {
            // It may hold text that no Rust string can.
            Err(error) if self.from_node && serialization == Serialization::Json => {
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
        self.beside.take().map(AnyHandle::from)
    }

    /// How many handles came with it.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len() + usize::from(self.beside.is_some())
    }

    /// Its payload, as the codec wrote it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// The codec that wrote it.
    #[must_use]
    pub fn serialization(&self) -> Serialization {
        self.serialization
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("bytes", &self.payload.len())
            .field("handles", &self.handle_count())
            .field("handles_lost", &self.handles_lost)
            .field("serialization", &self.serialization)
            .field("credit", &self.credit.is_some())
            .finish_non_exhaustive()
    }
}
