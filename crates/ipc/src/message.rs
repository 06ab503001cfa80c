//! A message that has arrived and was not decoded yet.

use crate::codec::{self, Serialization};
use crate::credit::Credit;
use crate::error::Error;
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
        Message { payload, handles, handles_lost, serialization, credit, mapped_bytes_max }
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
        let Message { payload, handles, handles_lost, serialization, credit, mapped_bytes_max } =
            self;
        if handles_lost {
            return Err(Error::HandlesLost);
        }
        let value =
            codec::decode(serialization, &payload, Some(&payload), handles, mapped_bytes_max);
        drop(credit);
        value
    }

    /// How many handles came with it.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.handles.len()
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
            .field("handles", &self.handles.len())
            .field("handles_lost", &self.handles_lost)
            .field("serialization", &self.serialization)
            .field("credit", &self.credit.is_some())
            .finish_non_exhaustive()
    }
}
