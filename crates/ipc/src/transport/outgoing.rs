//! Sending one message: the one place where a value becomes a frame in a queue.
//!
//! A sender first encodes the value without any lock ([`OutgoingFrame::encode`]), then checks the
//! room in its queue, and then queues the frame ([`OutgoingFrame::queue`]), which moves the handles
//! out of the value. After a failure at any of these steps, the value holds its handles again, and
//! the buffer for encoding is recycled.

use crate::codec::{self, Extracted};
use crate::error::Error;
use crate::frame::Kind;
use crate::handle::Slot;
use crate::options::Options;
use crate::transport::outbox::{Encoded, Outbox};
use serde::Serialize;
use std::os::fd::OwnedFd;
use std::sync::Arc;

/// An encoded frame, whose handles are in the value until the frame is queued.
#[derive(Debug)]
pub(crate) struct OutgoingFrame {
    pub(crate) encoded: Encoded,
    pub(crate) slots: HandleSlots,
}

/// The places of a message's handles in its value.
#[derive(Debug)]
pub(crate) struct HandleSlots(Vec<Arc<Slot>>);

impl OutgoingFrame {
    /// Encodes `value` into a frame within the limits of `options`.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`], [`Error::TooManyHandles`], [`Error::Encode`].
    #[inline]
    pub(crate) fn encode<T: Serialize + ?Sized>(
        value: &T,
        kind: Kind,
        options: &Options,
    ) -> Result<OutgoingFrame, Error> {
        let limits = options.limits();
        let max = limits.frame_bytes_max;
        let mut encoded = Encoded::begin(kind);
        let Extracted { slots, pieces, fingerprint } =
            codec::encode(value, options.serialization, &mut encoded.inline, max)?;
        encoded.pieces = pieces;
        // The codec has checked the inline bytes, but not the long pieces.
        if encoded.payload_length() > max {
            return Err(Error::TooLong { max });
        }
        if slots.len() > limits.handles_max {
            return Err(Error::TooManyHandles { count: slots.len(), max: limits.handles_max });
        }
        encoded.finish(slots.len(), fingerprint);
        Ok(OutgoingFrame { encoded, slots: HandleSlots(slots) })
    }

    /// Makes a frame of a payload that another peer has encoded, without handles.
    ///
    /// # Errors
    ///
    /// [`Error::TooLong`].
    pub(crate) fn copy(
        payload: &[u8],
        fingerprint: u32,
        options: &Options,
    ) -> Result<OutgoingFrame, Error> {
        let max = options.limits().frame_bytes_max;
        if payload.len() > max {
            return Err(Error::TooLong { max });
        }
        let mut encoded = Encoded::begin(Kind::Message);
        encoded.inline.extend_from_slice(payload);
        encoded.finish(0, fingerprint);
        Ok(OutgoingFrame { encoded, slots: HandleSlots(Vec::new()) })
    }

    /// Returns the length of the whole frame, in bytes.
    #[inline]
    pub(crate) fn length(&self) -> usize {
        self.encoded.length()
    }

    /// Moves the handles out of the value and queues the frame.
    ///
    /// # Errors
    ///
    /// [`Error::Encode`] when a handle of the value was sent before. The other handles stay in the
    /// value.
    #[inline]
    pub(crate) fn queue(&mut self, outbox: &mut Outbox<OwnedFd>) -> Result<(), Error> {
        let handles = self.slots.take()?;
        outbox.enqueue(&mut self.encoded, handles);
        Ok(())
    }

    /// Moves the handles out of the value, and queues the part of the frame that `write` does not
    /// write. Returns whether anything was queued.
    ///
    /// `write` is called only when no frame is queued before this one, and returns the number of
    /// bytes that it has written from the encoding buffer, which saves the copy into the queue. A
    /// frame with long pieces is not contiguous and is always queued.
    ///
    /// # Errors
    ///
    /// As [`queue`](OutgoingFrame::queue).
    #[inline]
    pub(crate) fn write_or_queue(
        &mut self,
        outbox: &mut Outbox<OwnedFd>,
        write: impl FnOnce(&[u8], &[OwnedFd]) -> usize,
    ) -> Result<bool, Error> {
        let handles = self.slots.take()?;
        let mut written = 0;
        if outbox.is_empty() && self.encoded.pieces.is_empty() {
            written = write(&self.encoded.inline, &handles);
            if written == self.encoded.inline.len() {
                return Ok(false);
            }
        }
        outbox.enqueue(&mut self.encoded, handles);
        outbox.written(written);
        Ok(true)
    }
}

impl HandleSlots {
    /// Takes the handles out of the value: all of them, or none.
    #[inline]
    pub(crate) fn take(&self) -> Result<Vec<OwnedFd>, Error> {
        if self.0.is_empty() { Ok(Vec::new()) } else { self.take_all() }
    }

    fn take_all(&self) -> Result<Vec<OwnedFd>, Error> {
        let mut taken = Vec::with_capacity(self.0.len());
        for slot in &self.0 {
            match slot.take() {
                Some(fd) => taken.push(fd),
                None => {
                    // A handle occurs twice in the value, or another message has taken it.
                    self.put_back(taken);
                    return Err(Error::Encode(
                        "a handle that was already sent; `try_clone` it before the first send"
                            .into(),
                    ));
                }
            }
        }
        Ok(taken)
    }

    /// Puts the handles back into the value, after the channel broke while its frame was sent.
    ///
    /// Clears `outbox`, in which the frame must be the last one.
    #[cold]
    pub(crate) fn reclaim(&self, outbox: &mut Outbox<OwnedFd>) {
        self.put_back(outbox.reclaim_last(self.0.len()));
    }

    fn put_back(&self, fds: Vec<OwnedFd>) {
        for (slot, fd) in self.0.iter().zip(fds) {
            slot.restore(fd);
        }
    }
}

#[cfg(test)]
mod tests;
