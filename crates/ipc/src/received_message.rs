//! A message that has arrived and is not decoded yet.

use crate::arrived_handle::ArrivedHandle;
use crate::buffer_pool;
use crate::codec;
use crate::error::Error;
use crate::frame::{Frame, Payload};
use crate::node::{self, AnyHandle};
use crate::receive_budget::{Credit, CreditAccount};
use crate::serialization::Serialization;
use ::bytes::Bytes;
use serde::de::DeserializeOwned;
use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// A received message that is not decoded yet, for programs that route messages, and for events.
///
/// A message holds credit of its channel until it is decoded or dropped, so a program that keeps
/// messages makes the peer wait. The drop closes the handles that were not decoded.
///
/// ```
/// let (a, b) = brood_ipc::channel::<(u32, String), ()>()?;
/// a.send(&(7, "seven".to_owned()))?;
/// let message = b.recv_message()?;
/// assert_eq!(message.serialization(), brood_ipc::Serialization::Bincode);
/// assert_eq!(message.handle_count(), 0);
/// assert_eq!(message.decode::<(u32, String)>()?, (7, "seven".to_owned()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Message {
    payload: Bytes,
    /// `None` for a message without handles, so that such a message is small.
    attachments: Option<Box<Attachments>>,
    /// The fingerprint of the value, as the sender wrote it.
    fingerprint: u32,
    /// Dropped last, after the handles are closed.
    credit: Credit,
}

#[derive(Default)]
struct Attachments {
    handles: Vec<OwnedFd>,
    missing: Option<MissingHandles>,
    /// The handle that a Node peer attached to the message.
    from_node: Option<OwnedFd>,
}

/// The reason for which a message has none of its handles.
#[derive(Clone, Copy, Debug)]
enum MissingHandles {
    Lost,
    Refused { count: usize, max: usize },
}

impl From<MissingHandles> for Error {
    fn from(missing: MissingHandles) -> Error {
        match missing {
            MissingHandles::Lost => Error::HandlesLost,
            MissingHandles::Refused { count, max } => Error::HandlesRefused { count, max },
        }
    }
}

impl Message {
    /// Makes a message of a frame, which counts on `account`.
    pub(crate) fn from_frame(
        frame: Frame<'_, ArrivedHandle>,
        account: &Arc<CreditAccount>,
    ) -> Message {
        let Frame { payload, handles, handles_lost, handles_refused, fingerprint, .. } = frame;
        let max = account.received_handles_max;
        let missing = match (handles_refused, handles_lost) {
            (0, lost) => lost.then_some(MissingHandles::Lost),
            (count, _) => Some(MissingHandles::Refused { count, max }),
        };
        let payload = match payload {
            // The reading buffer is used for the next read, so a short message is copied out of it.
            Payload::Borrowed(bytes) => Bytes::copy_from_slice(bytes),
            Payload::Owned(bytes) => buffer_pool::share_long(bytes),
        };
        let credit = account.take(payload.len(), handles.len());
        let any = missing.is_some() || !handles.is_empty();
        let attachments = any.then(|| {
            let handles = handles.into_iter().map(OwnedFd::from).collect();
            Box::new(Attachments { handles, missing, from_node: None })
        });
        Message { payload, attachments, fingerprint, credit }
    }

    /// Makes a message of a payload from Node.
    pub(crate) fn from_node(
        payload: Bytes,
        handle: Option<OwnedFd>,
        account: &Arc<CreditAccount>,
    ) -> Message {
        let credit = account.take(payload.len(), usize::from(handle.is_some()));
        let attachments = handle.map(|handle| {
            Box::new(Attachments { from_node: Some(handle), ..Attachments::default() })
        });
        // Node's codecs write the types into the payload.
        Message { payload, attachments, fingerprint: 0, credit }
    }

    /// Makes a message of a payload from Node whose handle is lost: [`decode`](Self::decode) fails
    /// until [`take_handle_lost`](Self::take_handle_lost) is called.
    pub(crate) fn from_node_without_its_handle(
        payload: Bytes,
        account: &Arc<CreditAccount>,
    ) -> Message {
        Message::from_node_with_missing(payload, MissingHandles::Lost, account)
    }

    /// Makes a message of a payload from Node whose handle this channel does not take.
    pub(crate) fn from_node_with_refused_handle(
        payload: Bytes,
        account: &Arc<CreditAccount>,
    ) -> Message {
        let refused = MissingHandles::Refused { count: 1, max: account.received_handles_max };
        Message::from_node_with_missing(payload, refused, account)
    }

    fn from_node_with_missing(
        payload: Bytes,
        missing: MissingHandles,
        account: &Arc<CreditAccount>,
    ) -> Message {
        let mut message = Message::from_node(payload, None, account);
        let attachments = Attachments { missing: Some(missing), ..Attachments::default() };
        message.attachments = Some(Box::new(attachments));
        message
    }

    /// Returns whether the message arrived without its handles, and makes it one without handles.
    pub(crate) fn take_handle_lost(&mut self) -> bool {
        let attachments = self.attachments.as_mut();
        attachments.is_some_and(|attachments| attachments.missing.take().is_some())
    }

    /// Decodes the message as a `T`. Closes handles that `T` does not take.
    ///
    /// # Errors
    ///
    /// [`Error::Decode`] and [`Error::WrongType`] when the message is not a `T`;
    /// [`Error::HandlesLost`] and [`Error::HandlesRefused`] when it arrived without its handles.
    pub fn decode<T: DeserializeOwned>(self) -> Result<T, Error> {
        let Message { payload, attachments, fingerprint, credit } = self;
        let handles = match attachments.map(|attachments| *attachments) {
            None => Vec::new(),
            Some(Attachments { missing: Some(missing), .. }) => return Err(missing.into()),
            Some(attachments) => attachments.handles,
        };
        let CreditAccount { serialization, decode_limits, is_node, .. } = *credit.account();
        let decode = |bytes, owner, handles| {
            let features = is_node.then(|| credit.account().features());
            codec::decode_and_learn(
                serialization,
                bytes,
                owner,
                handles,
                decode_limits,
                fingerprint,
                features,
            )
        };
        match decode(&payload, Some(&payload), handles) {
            // A Node message may hold text that no Rust string can hold.
            Err(error) if is_node && serialization == Serialization::Json => {
                match node::repaired_utf16(&payload) {
                    Some(repaired_utf16) => decode(&repaired_utf16, None, Vec::new()),
                    None => Err(error),
                }
            }
            decoded => decoded,
        }
    }

    /// Takes the handle that a Node peer attached to the message.
    ///
    /// On a channel between programs of this crate, handles are inside the message, and
    /// [`decode`](Message::decode) returns them.
    ///
    /// Node's sockets are non-blocking, and Node may still use the same socket: always a server,
    /// and a connection that was sent with `keepOpen`. Making the socket blocking here would block
    /// Node.
    pub fn take_handle(&mut self) -> Option<AnyHandle> {
        self.attachments.as_mut()?.from_node.take().map(AnyHandle::from)
    }

    /// Returns the number of handles that came with the message.
    #[must_use]
    pub fn handle_count(&self) -> usize {
        self.attachments.as_ref().map_or(0, |attachments| {
            attachments.handles.len() + usize::from(attachments.from_node.is_some())
        })
    }

    /// Returns the payload, as the codec wrote it.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.payload
    }

    /// Returns the payload with text that a Rust string can hold, if it is from Node and has other
    /// text.
    pub(crate) fn repaired_text(&self) -> Option<Vec<u8>> {
        let CreditAccount { serialization, is_node, .. } = *self.credit.account();
        let may_differ = is_node && serialization == Serialization::Json;
        if may_differ { node::repaired_utf16(&self.payload) } else { None }
    }

    /// Whether handles came with the message, or were lost on their way.
    pub(crate) fn has_handles(&self) -> bool {
        self.attachments.is_some()
    }

    pub(crate) fn fingerprint(&self) -> u32 {
        self.fingerprint
    }

    /// Returns the codec that wrote the message.
    #[must_use]
    pub fn serialization(&self) -> Serialization {
        self.credit.account().serialization
    }
}

impl fmt::Debug for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Message")
            .field("bytes", &self.payload.len())
            .field("handles", &self.handle_count())
            .field(
                "handles_missing",
                &self.attachments.as_ref().and_then(|attachments| attachments.missing),
            )
            .field("serialization", &self.serialization())
            .finish_non_exhaustive()
    }
}
