//! The queue of frames that wait to be written, in order, with their handles.
//!
//! Frames without handles are joined into long chunks, so that one system call writes many. A frame
//! with handles begins a chunk, because handles travel with the first byte of their frame. Long
//! pieces are not copied into a chunk but written from their own memory.
//!
//! [`Outbox::slices`] and [`Outbox::handles`] return the bytes and handles for the next call, and
//! [`Outbox::written`] records the result.
//!
//! Pure.

mod pool;

use crate::buffer_pool::FrameBuffer;
use crate::frame::{HEADER_BYTES, HELLO_HEADER_BYTES, Header, Kind};
use crate::hello::Hello;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Chunks are joined up to this length, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// The memory that an idle queue keeps for the next message at most, in bytes.
const IDLE_BYTES_MAX: usize = 2048;

/// The number of slices that are offered to one call at most.
pub(crate) const SLICES_MAX: usize = 16;

/// One frame, encoded except for its header.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// Room for the header ([`Kind::header_bytes`]), then the payload without its long pieces.
    pub(crate) inline: FrameBuffer,
    /// Long pieces, each with the position in `inline` before which it belongs.
    pub(crate) pieces: Vec<(usize, Bytes)>,
    pub(crate) kind: Kind,
}

impl Encoded {
    /// Begins a frame in the thread's buffer.
    #[inline]
    pub(crate) fn begin(kind: Kind) -> Encoded {
        let mut inline = FrameBuffer::take();
        // Two constant lengths are faster than one that is computed.
        match kind {
            Kind::Hello => inline.extend_from_slice(&[0; HELLO_HEADER_BYTES]),
            _ => inline.extend_from_slice(&[0; HEADER_BYTES]),
        }
        Encoded { inline, pieces: Vec::new(), kind }
    }

    /// Returns the length of the payload, in bytes.
    pub(crate) fn payload_length(&self) -> usize {
        self.length() - self.kind.header_bytes()
    }

    /// Returns the length of the whole frame, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.inline.len() + self.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>()
    }

    /// Writes the header.
    pub(crate) fn finish(&mut self, handles: usize, fingerprint: u32) {
        let (kind, length) = (self.kind, self.payload_length());
        let header = Header { kind, handles, length, fingerprint }.to_array();
        match kind {
            Kind::Hello => {
                self.inline[..HELLO_HEADER_BYTES].copy_from_slice(&header[..HELLO_HEADER_BYTES])
            }
            _ => self.inline[..HEADER_BYTES].copy_from_slice(&header),
        }
    }
}

#[derive(Debug)]
enum Body {
    Joined(Vec<u8>),
    Piece(Bytes),
}

impl Body {
    fn bytes(&self) -> &[u8] {
        match self {
            Body::Joined(bytes) => bytes,
            Body::Piece(bytes) => bytes,
        }
    }
}

#[derive(Debug)]
struct Chunk<H> {
    body: Body,
    handles: Vec<H>,
}

/// The queue of one direction.
#[derive(Debug)]
pub(crate) struct Outbox<H> {
    chunks: VecDeque<Chunk<H>>,
    /// The number of bytes of the first chunk that are written. The handles of the chunk went with
    /// its first byte, and are kept until the chunk is written, so that a failed send can give them
    /// back.
    front_written: usize,
    bytes: usize,
    /// The lengths of the frames that are not written completely, less the bytes that are written.
    frames: VecDeque<usize>,
    /// Whether the first of these frames is the handshake, which counts as no message.
    handshake_queued: bool,
    recycled: Vec<u8>,
}

impl<H> Outbox<H> {
    pub(crate) fn new() -> Outbox<H> {
        Outbox {
            chunks: VecDeque::new(),
            front_written: 0,
            bytes: 0,
            frames: VecDeque::new(),
            handshake_queued: false,
            recycled: Vec::new(),
        }
    }

    /// Queues the handshake of this side, before everything else.
    pub(crate) fn push_handshake(&mut self, hello: &Hello) {
        let mut encoded = Encoded::begin(Kind::Hello);
        encoded.inline.extend_from_slice(&hello.to_bytes());
        encoded.finish(0, 0);
        self.handshake_queued = true;
        self.push(&mut encoded, Vec::new());
    }

    /// Queues one finished frame. Takes the memory of `inline` only where that saves a copy.
    pub(crate) fn push(&mut self, encoded: &mut Encoded, handles: Vec<H>) {
        let length = encoded.length();
        self.bytes += length;
        self.frames.push_back(length);
        if encoded.pieces.is_empty() {
            self.push_inline(encoded, handles);
            return;
        }
        let mut handles = Some(handles);
        let mut from = 0;
        for (at, piece) in encoded.pieces.drain(..) {
            if from < at {
                self.join(&encoded.inline[from..at], handles.take().unwrap_or_default());
            }
            let body = Body::Piece(piece);
            self.chunks.push_back(Chunk { body, handles: handles.take().unwrap_or_default() });
            from = at;
        }
        if from < encoded.inline.len() {
            self.join(&encoded.inline[from..], handles.take().unwrap_or_default());
        }
    }

    fn push_inline(&mut self, encoded: &mut Encoded, handles: Vec<H>) {
        if encoded.inline.len() > CHUNK_BYTES {
            let body = Body::Joined(encoded.inline.take_memory());
            self.chunks.push_back(Chunk { body, handles });
        } else {
            self.join(&encoded.inline, handles);
        }
    }

    /// Appends bytes to the last chunk, or begins a chunk with them.
    #[inline]
    fn join(&mut self, bytes: &[u8], handles: Vec<H>) {
        if let (true, Some(Chunk { body: Body::Joined(last), .. })) =
            (handles.is_empty(), self.chunks.back_mut())
        {
            if last.len() + bytes.len() <= CHUNK_BYTES {
                last.extend_from_slice(bytes);
                return;
            }
        }
        let mut body = std::mem::take(&mut self.recycled);
        body.extend_from_slice(bytes);
        self.chunks.push_back(Chunk { body: Body::Joined(body), handles });
    }

    /// Fills `out` with the bytes that one call may write: up to the next chunk that has handles.
    pub(crate) fn slices<'a>(&'a self, out: &mut [IoSlice<'a>; SLICES_MAX]) -> usize {
        let mut count = 0;
        for (index, chunk) in self.chunks.iter().enumerate().take(SLICES_MAX) {
            if index > 0 && !chunk.handles.is_empty() {
                break;
            }
            let skip = if index == 0 { self.front_written } else { 0 };
            out[count] = IoSlice::new(&chunk.body.bytes()[skip..]);
            count += 1;
        }
        count
    }

    /// Returns the handles that belong to the first byte of [`slices`](Outbox::slices).
    pub(crate) fn handles(&self) -> &[H] {
        match self.chunks.front() {
            Some(chunk) if self.front_written == 0 => &chunk.handles,
            _ => &[],
        }
    }

    /// Records that `count` bytes were written, and the handles of the front with them.
    ///
    /// Returns the number of frames that are now written completely.
    pub(crate) fn written(&mut self, mut count: usize) -> usize {
        if count == 0 {
            return 0;
        }
        self.bytes -= count;
        let frames = self.count_frames(count);
        while let Some(front) = self.chunks.front_mut() {
            let left = front.body.bytes().len() - self.front_written;
            if count < left {
                self.front_written += count;
                break;
            }
            count -= left;
            self.front_written = 0;
            if let Some(Chunk { body: Body::Joined(mut used), .. }) = self.chunks.pop_front() {
                used.clear();
                // The next chunk uses the memory of the longest one, within a limit.
                if used.capacity() > self.recycled.capacity() && used.capacity() <= 2 * CHUNK_BYTES
                {
                    self.recycled = used;
                }
            }
            if count == 0 {
                break;
            }
        }
        frames
    }

    fn count_frames(&mut self, mut count: usize) -> usize {
        let before = self.frames();
        while let Some(front) = self.frames.front_mut() {
            if count < *front {
                *front -= count;
                break;
            }
            count -= *front;
            self.frames.pop_front();
            self.handshake_queued = false;
        }
        before - self.frames()
    }

    /// Drops the queue and returns the `count` handles of the frame that was pushed last, for a
    /// channel that broke while this frame was sent.
    pub(crate) fn reclaim_last(&mut self, count: usize) -> Vec<H> {
        let mut handles: Vec<H> = self.chunks.drain(..).flat_map(|chunk| chunk.handles).collect();
        self.clear();
        // Handles lie in the order of their frames, so the last ones belong to the last frame.
        handles.split_off(handles.len().saturating_sub(count))
    }

    /// Drops everything, and returns the number of messages that were not written completely.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.frames();
        *self = Outbox::new();
        count
    }

    /// Returns how much memory is kept for the next frames, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.recycled.capacity()
            + self.frames.capacity() * size_of::<usize>()
            + self.chunks.capacity() * size_of::<Chunk<H>>()
    }

    /// Returns whether the queue holds more memory than an idle queue should keep.
    #[inline]
    pub(crate) fn holds_much_memory(&self) -> bool {
        self.memory_bytes() > IDLE_BYTES_MAX
    }

    /// Returns whether the queue is empty and holds no memory.
    #[inline]
    pub(crate) fn has_no_memory(&self) -> bool {
        self.is_empty() && self.memory_bytes() == 0
    }

    /// Frees memory that is kept only for speed.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.recycled = Vec::new();
            self.frames = VecDeque::new();
            self.chunks = VecDeque::new();
        }
    }

    /// Returns the number of bytes that wait to be written.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Returns the number of messages that are not written completely.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len() - usize::from(self.handshake_queued)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

#[cfg(test)]
mod tests;
