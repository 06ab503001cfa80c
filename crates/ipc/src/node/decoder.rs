//! Node's two framings: a stream of bytes becomes payloads.
//!
//! `json` is one value and a line break; `advanced` is a length of four bytes, big endian, and that
//! many bytes. Handles `H` (an `OwnedFd` in production, a number in tests) ride on the first byte
//! of the frame they belong to, which says itself whether it has one: [`NodeDecoder::take_handle`].
//! Descriptors that came where no frame has begun belong to nobody and are closed.
//!
//! A frame over the ceiling is skipped to its end, with its handle, and told as [`Decoded::TooLong`]:
//! what follows is read on. Memory grows with bytes that arrived, never with bytes announced, and
//! no byte is looked at twice, however a line is cut into reads.
//!
//! Pure. Limits: [`HANDLES_WAITING_MAX`].

use crate::frame::{FrameError, Payload, READ_BYTES};
use memchr::memchr;
use std::collections::VecDeque;

/// The most handles that wait for the frame they came with: one frame has one.
const HANDLES_WAITING_MAX: usize = 64;

/// Lengths from here on mean something else to Node itself.
const LENGTH_END: u64 = 1 << 31;

/// How much of a frame that is skipped is kept, to know what it was.
const HEAD_BYTES: usize = 64;

/// An unfinished frame longer than this keeps its buffer between reads.
const OWN_BUFFER_BYTES_MIN: usize = 16 * 1024;

/// How the stream is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Framing {
    /// `json`.
    Lines,
    /// `advanced`.
    Lengths,
}

/// What was cut out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Decoded<'a> {
    /// The payload of one frame.
    Whole(Payload<'a>),
    /// A frame that was over the ceiling, and how it began.
    TooLong(Vec<u8>),
}

/// What one read brought, or failed to bring.
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
    /// Where in `buffer` the first byte lies that no frame has taken.
    start: usize,
    /// How many bytes from there hold no line break.
    seen: usize,
    skipping: Option<Skip>,
    handles: VecDeque<Arrival<H>>,
}

#[derive(Debug)]
struct Skip {
    head: Vec<u8>,
    /// How many bytes are left, where that is known.
    left: Option<usize>,
}

impl<H> NodeDecoder<H> {
    pub(crate) fn new(framing: Framing, max: usize) -> NodeDecoder<H> {
        NodeDecoder {
            framing,
            max,
            buffer: Vec::new(),
            start: 0,
            seen: 0,
            skipping: None,
            handles: VecDeque::new(),
        }
    }

    /// Where the next bytes belong, at the end of this vector, and how many at most.
    pub(crate) fn space(&mut self) -> (&mut Vec<u8>, usize) {
        self.buffer.drain(..self.start);
        self.start = 0;
        (&mut self.buffer, READ_BYTES)
    }

    /// Notes the handles that one read brought, and whether others were lost with it.
    pub(crate) fn arrived(&mut self, handles: impl IntoIterator<Item = H>, lost: bool) {
        let room = HANDLES_WAITING_MAX.saturating_sub(self.handles.len());
        self.handles.extend(handles.into_iter().take(room).map(Arrival::Handle));
        if lost && self.handles.len() < HANDLES_WAITING_MAX {
            self.handles.push_back(Arrival::Lost);
        }
    }

    /// Lends `scratch` as the reading buffer, or takes it back for an empty one. A long unfinished
    /// frame stays where it is: the buffer that is not needed comes back.
    pub(crate) fn swap_buffer(&mut self, mut scratch: Vec<u8>) -> Vec<u8> {
        if self.buffer.len() - self.start > OWN_BUFFER_BYTES_MIN {
            return scratch;
        }
        scratch.clear();
        scratch.extend_from_slice(&self.buffer[self.start..]);
        self.start = 0;
        std::mem::replace(&mut self.buffer, scratch)
    }

    /// Cuts out the next frame, if it is whole.
    ///
    /// # Errors
    ///
    /// A length that Node itself would not understand: the stream cannot be read on.
    pub(crate) fn next(&mut self) -> Result<Option<Decoded<'_>>, FrameError> {
        if let Some(skip) = self.skipping.take() {
            return Ok(self.skip(skip));
        }
        match self.framing {
            Framing::Lines => Ok(self.next_line()),
            Framing::Lengths => self.next_length(),
        }
    }

    /// The handle of the frame that was just cut out and says that it has one.
    pub(crate) fn take_handle(&mut self) -> Option<H> {
        match self.handles.pop_front()? {
            Arrival::Handle(handle) => Some(handle),
            Arrival::Lost => None,
        }
    }

    /// Nothing more can be cut out: what handles are left belong to the frame that has begun, or
    /// to none.
    pub(crate) fn discard_unclaimed_handles(&mut self) {
        if self.start == self.buffer.len() && self.skipping.is_none() {
            self.handles.clear();
        }
    }

    /// Tells whether the stream may end here.
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
                // Its beginning was here already.
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

    /// Takes `length` bytes behind `before`, and drops `after` behind them. A long payload takes
    /// the whole buffer with it where that holds nothing else.
    fn cut(&mut self, before: usize, length: usize, after: usize) -> Payload<'_> {
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

    /// Throws away what belongs to a frame over the ceiling.
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
