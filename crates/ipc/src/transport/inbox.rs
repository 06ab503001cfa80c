//! Bytes that arrived: the handshake first, then messages.
//!
//! Pure.

use crate::buffer_pool;
use crate::error::Error;
use crate::frame::{Decoder, Frame, FrameError, Kind, Limits, WaitingHandle};
use crate::hello::Hello;

/// The longest beginning of a message that is copied out of a reading buffer, in bytes.
const REST_BYTES_MAX: usize = 4 * 1024;

/// The receiving direction: a decoder that requires the handshake first.
#[derive(Debug)]
pub(crate) struct Inbox<H> {
    decoder: Decoder<H>,
    ours: Hello,
    handshake_received: bool,
}

impl<H: WaitingHandle> Inbox<H> {
    /// `handshake_received` is true when an earlier owner of the socket has read the peer's
    /// handshake.
    pub(crate) fn new(limits: Limits, ours: Hello, handshake_received: bool) -> Inbox<H> {
        Inbox { decoder: Decoder::new(limits), ours, handshake_received }
    }

    pub(crate) fn decoder(&mut self) -> &mut Decoder<H> {
        &mut self.decoder
    }

    /// Returns whether the peer's handshake was read.
    pub(crate) fn handshake_received(&self) -> bool {
        self.handshake_received
    }

    /// Returns whether the inbox holds no byte and no handle.
    pub(crate) fn is_empty(&self) -> bool {
        self.decoder.is_empty()
    }

    /// Takes the thread's buffer for the next read, unless the inbox has one.
    #[inline]
    pub(crate) fn take_buffer(&mut self) {
        if self.decoder.wants_buffer() {
            drop(self.decoder.swap_buffer(buffer_pool::take_read()));
        }
    }

    /// Recycles the buffer, when no whole message waits in it.
    ///
    /// The beginning of a message stays: a short one is copied into memory of its size, and a
    /// longer one stays in the buffer. Otherwise a peer that sends single bytes would cause a copy
    /// of all earlier bytes for each of them.
    #[inline]
    pub(crate) fn recycle_buffer(&mut self) {
        if self.decoder.rest_bytes() <= REST_BYTES_MAX && !self.decoder.wants_buffer() {
            self.reclaim_buffer();
        }
    }

    /// Recycles the buffer and copies out what is left, when nothing more is read.
    pub(crate) fn reclaim_buffer(&mut self) {
        buffer_pool::recycle_read(self.decoder.swap_buffer(Vec::new()));
    }

    /// Returns the next whole message, if there is one.
    ///
    /// # Errors
    ///
    /// [`Error::Protocol`] or [`Error::Mismatch`], after which the channel cannot be read.
    #[inline]
    pub(crate) fn next_message(&mut self) -> Result<Option<Frame<'_, H>>, Error> {
        if !self.handshake_received && !self.receive_handshake()? {
            return Ok(None);
        }
        match self.decoder.next_frame()? {
            None => Ok(None),
            Some(frame) if matches!(frame.kind, Kind::Message | Kind::Internal) => Ok(Some(frame)),
            Some(frame) if frame.kind == Kind::Hello => Err(FrameError::Hello.into()),
            // No build offers a second transport yet, so a peer cannot have agreed to use one.
            Some(frame) => Err(FrameError::Kind(frame.kind as u8).into()),
        }
    }

    #[cold]
    fn receive_handshake(&mut self) -> Result<bool, Error> {
        let Some(frame) = self.decoder.next_frame()? else { return Ok(false) };
        if frame.kind != Kind::Hello || !frame.handles.is_empty() || frame.handles_lost {
            return Err(FrameError::Hello.into());
        }
        let theirs = Hello::parse(frame.payload.as_ref()).ok_or(FrameError::Hello)?;
        if !self.ours.agrees_with(&theirs) {
            let (ours, theirs) = (Box::new(self.ours.clone()), Box::new(theirs));
            return Err(Error::Mismatch { ours, theirs });
        }
        self.handshake_received = true;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Header, READ_BYTES};
    use crate::serialization::Serialization;

    fn check(frames: &[(Kind, &[u8])], expected: &str) {
        let ours = Hello::new(Serialization::Bincode, "app");
        let limits = Limits { frame_bytes_max: 1000, handles_max: 4, received_handles_max: 4 };
        let mut inbox = Inbox::<u32>::new(limits, ours, false);
        for (kind, payload) in frames {
            let header = Header { kind: *kind, handles: 0, length: payload.len(), fingerprint: 0 };
            let buffer = inbox.decoder().space().0;
            buffer.extend_from_slice(&header.to_bytes());
            buffer.extend_from_slice(payload);
        }
        let mut seen = String::new();
        let answer = loop {
            match inbox.next_message() {
                Ok(Some(frame)) => {
                    seen.push_str(&format!("{:?} ", frame.kind));
                }
                Ok(None) => break seen,
                Err(error) => break format!("{seen}{error:?}"),
            }
        };
        assert_eq!(answer, expected);
    }

    #[test]
    fn the_handshake_comes_first_and_once() {
        let good = Hello::new(Serialization::Bincode, "app").to_bytes();
        let nonsense =
            "the peer broke the protocol: the handshake is missing, repeated or malformed";
        check(&[(Kind::Hello, &good), (Kind::Message, b"x")], "Message ");
        check(&[(Kind::Message, b"x")], nonsense);
        check(&[(Kind::Hello, b"short")], nonsense);
        check(&[(Kind::Hello, &good), (Kind::Hello, &good)], nonsense);
    }

    #[test]
    fn another_version_of_the_peer_is_an_error_that_names_both() {
        let mut other = Hello::new(Serialization::Json, "app");
        other.protocol = 9;
        check(
            &[(Kind::Hello, &other.to_bytes())],
            "peer speaks protocol 9, codec json, tag \"app\"; \
             this side speaks protocol 2, codec bincode, tag \"app\"",
        );
    }

    #[test]
    fn reserved_kinds_are_refused_until_both_sides_agree_on_them() {
        let good = Hello::new(Serialization::Bincode, "app").to_bytes();
        check(
            &[(Kind::Hello, &good), (Kind::Offer, b"")],
            "the peer broke the protocol: frame of unknown kind 16",
        );
    }

    #[test]
    fn only_a_short_beginning_of_a_message_is_copied_out_of_the_buffer() {
        let limits =
            Limits { frame_bytes_max: READ_BYTES, handles_max: 0, received_handles_max: 0 };
        let header =
            Header { kind: Kind::Message, handles: 0, length: READ_BYTES / 2, fingerprint: 0 };
        for (length, moves) in [(1, true), (REST_BYTES_MAX, true), (REST_BYTES_MAX + 1, false)] {
            let ours = Hello::new(Serialization::Bincode, "");
            let mut inbox = Inbox::<u32>::new(limits, ours, true);
            buffer_pool::recycle_read(Vec::with_capacity(READ_BYTES));
            inbox.take_buffer();
            let memory = inbox.decoder().space().0.as_ptr();
            let mut frame = header.to_bytes().to_vec();
            frame.resize(length, 7);
            inbox.decoder().space().0.extend_from_slice(&frame);
            assert!(inbox.next_message().unwrap().is_none());
            inbox.recycle_buffer();
            assert_eq!(inbox.decoder().wants_buffer(), moves);
            let kept = buffer_pool::take_read();
            assert_eq!(kept.as_ptr() == memory, moves);
            let buffer = inbox.decoder().space().0;
            assert_eq!((buffer.as_ptr() == memory, &*buffer), (!moves, &frame));
            // A second call moves nothing.
            let memory = buffer.as_ptr();
            inbox.recycle_buffer();
            assert_eq!(inbox.decoder().space().0.as_ptr(), memory);
            inbox.reclaim_buffer();
            assert!(inbox.decoder().wants_buffer());
            assert_eq!(*inbox.decoder().space().0, frame);
        }
    }
}
