//! Sending a received message on, to another peer with the same codec.

use super::{Queued, Shared, node_send};
use crate::error::Error;
use crate::frame::Kind;
use crate::received_message::Message;
use crate::transport::outgoing::OutgoingFrame;

impl Shared {
    pub(crate) fn forward(&self, message: &Message) -> Result<Queued, Error> {
        let (ours, theirs) = (self.options.serialization, message.serialization());
        if ours != theirs || message.has_handles() {
            let why = "only a message without handles goes on, to a peer with the same codec";
            return Err(Error::Encode(why.into()));
        }
        if self.is_node {
            return node_send::forward(self, message.bytes());
        }
        let repaired = message.repaired_text();
        let payload = repaired.as_deref().unwrap_or(message.bytes());
        let frame = OutgoingFrame::copy(payload, message.fingerprint(), &self.options)?;
        self.send_frame(frame, Kind::Message)
    }
}
