//! Node's two framings: a stream of bytes becomes payloads.
//!
//! With `json`, a frame is one value and a line break. With `advanced`, a frame is a length of four
//! bytes, big endian, and as many bytes. Handles `H` (an `OwnedFd` in production, a number in
//! tests) arrive with the first byte of their frame, and the frame itself says whether it has one
//! ([`NodeDecoder::take_handle`]). Descriptors that arrived where no frame has begun are closed.
//!
//! A frame over the limit is skipped to its end, together with its handle, and reported as
//! [`Decoded::TooLong`]; later frames are read. Memory grows with bytes that arrived, never with an
//! announced length, and each byte is searched once, however a line is cut into reads.
//!
//! Pure. Limits: [`HANDLES_WAITING_MAX`].

use crate::frame::{FrameError, Payload, READ_BYTES, WaitingHandle};
use memchr::memchr;
use std::collections::VecDeque;

/// The number of handles that wait for their frame at most; one frame has one handle.
const HANDLES_WAITING_MAX: usize = 64;

/// The first length that has another meaning in Node itself.
const LENGTH_END: u64 = 1 << 31;

/// The first byte of every value in V8's format.
const V8_VALUE: u8 = 0xff;

/// The number of bytes that are kept of a skipped frame, to find out what it was.
const HEAD_BYTES: usize = 64;

/// The length from which an unfinished frame keeps its buffer between reads, in bytes.
const OWN_BUFFER_BYTES_MIN: usize = 16 * 1024;

/// The way in which the stream is divided into frames.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `json`: a line break after each payload.
    Lines,
    /// `advanced`: a length before each payload.
    Lengths,
}

/// The result of cutting one frame out of the stream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// The payload of one frame.
    Whole(Payload<'a>),
    /// The beginning of a frame over the limit.
    TooLong(Vec<u8>),
}

/// A handle that a read brought, or the loss of one.
#[derive(Debug)]
enum Arrival<H> {
    Handle(H),
    Lost,
}

/// Cuts payloads out of a stream.
#[derive(Debug)]
pub(crate) struct NodeDecoder<H> {
    framing: Framing,
    max: usize,
    buffer: Vec<u8>,
    /// The position of the first byte in `buffer` that no frame has taken.
    start: usize,
    /// The number of bytes from `start` on that hold no line break.
    seen: usize,
    skipping: Option<Skip>,
    /// Whether the first frame has ended.
    begun: bool,
    handles: VecDeque<Arrival<H>>,
}

#[derive(Debug)]
struct Skip {
    head: Vec<u8>,
    /// The number of bytes that are left, where it is known.
    left: Option<usize>,
}

impl<H: WaitingHandle> NodeDecoder<H> {
    pub(crate) fn new(framing: Framing, max: usize) -> NodeDecoder<H> {
        NodeDecoder {
            framing,
            max,
            buffer: Vec::new(),
            start: 0,
            seen: 0,
            skipping: None,
            begun: false,
            handles: VecDeque::new(),
        }
    }

    /// Returns the vector to which the next bytes are appended, and the maximal number of bytes.
    pub(crate) fn space(&mut self) -> (&mut Vec<u8>, usize) {
        self.buffer.drain(..self.start);
        self.start = 0;
        (&mut self.buffer, READ_BYTES)
    }

    /// Records the handles that one read brought, and whether others were lost with it.
    pub(crate) fn arrived(&mut self, handles: impl IntoIterator<Item = H>, lost: bool) {
        // A peer that attaches descriptors to no frame must not exhaust those of this process.
        let room = HANDLES_WAITING_MAX.saturating_sub(self.handles.len());
        self.handles.extend(handles.into_iter().take(room).map(Arrival::Handle));
        if lost && self.handles.len() < HANDLES_WAITING_MAX {
            self.handles.push_back(Arrival::Lost);
        }
    }

    /// Makes `buffer` the reading buffer, and returns the buffer that is not needed. An empty
    /// vector takes the reading buffer back. A long unfinished frame stays in its own buffer.
    pub(crate) fn swap_buffer(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        if self.buffer.len() - self.start > OWN_BUFFER_BYTES_MIN {
            return buffer;
        }
        buffer.clear();
        buffer.extend_from_slice(&self.buffer[self.start..]);
        self.start = 0;
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Returns whether the first frame is waited for and can be no value of V8.
    ///
    /// The first bytes of another format would be taken for a length, and waited for.
    pub(crate) fn is_foreign(&self) -> bool {
        let first = match &self.skipping {
            Some(skip) => skip.head.first(),
            None => self.buffer[self.start..].get(4),
        };
        self.framing == Framing::Lengths && !self.begun && first.is_some_and(|at| *at != V8_VALUE)
    }

    /// Cuts out the next frame, if it is complete.
    ///
    /// # Errors
    ///
    /// A length that Node itself would not understand, after which the stream cannot be read.
    pub(crate) fn next(&mut self) -> Result<Option<Decoded<'_>>, FrameError> {
        if let Some(skip) = self.skipping.take() {
            return Ok(self.skip(skip));
        }
        match self.framing {
            Framing::Lines => Ok(self.next_line()),
            Framing::Lengths => self.next_length(),
        }
    }

    /// Takes the handle of the frame that was just cut out and that announces a handle.
    pub(crate) fn take_handle(&mut self) -> Option<H> {
        match self.handles.pop_front()? {
            Arrival::Handle(handle) => Some(handle),
            Arrival::Lost => None,
        }
    }

    /// Drops handles that no frame can claim any more, once nothing more can be cut out.
    ///
    /// Handles that are left belong to the frame that has begun. When no frame has begun, or they
    /// must not wait for its rest, they are closed.
    pub(crate) fn discard_unclaimed_handles(&mut self) {
        if self.start == self.buffer.len() && self.skipping.is_none() {
            self.handles.clear();
        }
        for arrival in &mut self.handles {
            if let Arrival::Handle(handle) = arrival {
                handle.wait();
            }
        }
        if !self.handles.is_empty() && !H::may_wait(self.handles.len()) {
            self.handles.clear();
            self.handles.push_back(Arrival::Lost);
        }
    }

    /// Checks that the stream may end at this point.
    ///
    /// # Errors
    ///
    /// [`FrameError::EndInFrame`] when a frame has begun.
    pub(crate) fn end(&self) -> Result<(), FrameError> {
        let between = self.start == self.buffer.len() && self.skipping.is_none();
        if between { Ok(()) } else { Err(FrameError::EndInFrame) }
    }

    fn next_line(&mut self) -> Option<Decoded<'_>> {
        let rest = &self.buffer[self.start..];
        let Some(at) = memchr(b'\n', &rest[self.seen..]) else {
            self.seen = rest.len();
            if self.seen > self.max {
                let head = rest[..HEAD_BYTES.min(rest.len())].to_vec();
                self.skipping = Some(Skip { head, left: None });
                self.clear();
            }
            return None;
        };
        let length = self.seen + at;
        self.seen = 0;
        if length > self.max {
            let head = rest[..HEAD_BYTES.min(length)].to_vec();
            self.start += length + 1;
            return Some(Decoded::TooLong(head));
        }
        Some(Decoded::Whole(self.cut(0, length, 1)))
    }

    fn next_length(&mut self) -> Result<Option<Decoded<'_>>, FrameError> {
        let rest = &self.buffer[self.start..];
        let Some(prefix) = rest.first_chunk::<4>() else { return Ok(None) };
        let announced = u32::from_be_bytes(*prefix);
        if u64::from(announced) >= LENGTH_END {
            return Err(FrameError::Length { announced: announced.into(), max: self.max });
        }
        let length = announced as usize;
        if length > self.max {
            let head = rest[4..rest.len().min(4 + HEAD_BYTES)].to_vec();
            self.start += 4;
            return Ok(self.skip(Skip { head: Vec::new(), left: Some(length) }).map(|cut| {
                // The beginning of the frame had arrived already.
                if let Decoded::TooLong(kept) = cut {
                    Decoded::TooLong(kept)
                } else {
                    Decoded::TooLong(head)
                }
            }));
        }
        if rest.len() < 4 + length {
            return Ok(None);
        }
        Ok(Some(Decoded::Whole(self.cut(4, length, 0))))
    }

    /// Takes `length` bytes behind `before` bytes, and drops the `after` bytes behind them. A long
    /// payload takes the whole buffer with it when the buffer holds nothing else.
    fn cut(&mut self, before: usize, length: usize, after: usize) -> Payload<'_> {
        self.begun = true;
        let from = self.start + before;
        let end = from + length;
        self.start = end + after;
        if length >= READ_BYTES && self.start == self.buffer.len() {
            let mut payload = std::mem::take(&mut self.buffer);
            payload.truncate(end);
            payload.drain(..from);
            self.start = 0;
            return Payload::Owned(payload);
        }
        Payload::Borrowed(&self.buffer[from..end])
    }

    /// Discards the bytes of a frame over the limit.
    fn skip(&mut self, mut skip: Skip) -> Option<Decoded<'static>> {
        let rest = &self.buffer[self.start..];
        let room = HEAD_BYTES - skip.head.len();
        let (take, ended) = match skip.left {
            Some(left) => (left.min(rest.len()), left <= rest.len()),
            None => match memchr(b'\n', rest) {
                Some(at) => (at, true),
                None => (rest.len(), false),
            },
        };
        skip.head.extend_from_slice(&rest[..take.min(room)]);
        self.start += take;
        if ended {
            self.begun = true;
            self.start += usize::from(skip.left.is_none());
            return Some(Decoded::TooLong(skip.head));
        }
        skip.left = skip.left.map(|left| left - take);
        self.clear();
        self.skipping = Some(skip);
        None
    }

    fn clear(&mut self) {
        self.buffer.clear();
        self.start = 0;
        self.seen = 0;
    }
}

#[cfg(test)]
mod tests;
