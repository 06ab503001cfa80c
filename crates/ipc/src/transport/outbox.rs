//! What waits to be written: frames in order, with their handles.
//!
//! Frames without handles are joined into long chunks, so that one system call carries many. A
//! frame with handles begins a chunk, because handles ride on its first byte. Long pieces are kept
//! as they are and written from where they lie.
//!
//! [`Outbox::slices`] and [`Outbox::handles`] say what the next call should write,
//! [`Outbox::written`] notes what it did.
//!
//! Pure.

use crate::frame::{HEADER_BYTES, Header, Kind};
use crate::hello::Hello;
use bytes::Bytes;
use std::collections::VecDeque;
use std::io::IoSlice;

/// Chunks are joined up to this length, in bytes.
const CHUNK_BYTES: usize = 64 * 1024;

/// A queue that rests keeps no more memory than this for the next message, in bytes.
const RESTING_BYTES: usize = 2048;

/// The most slices offered to one call.
pub(crate) const SLICES_MAX: usize = 16;

/// One frame, encoded but for its header.
#[derive(Debug)]
pub(crate) struct Encoded {
    /// [`HEADER_BYTES`] of room, then the payload without its long pieces.
    pub(crate) inline: Vec<u8>,
    /// Long pieces, each with the place in `inline` before which it belongs.
    pub(crate) pieces: Vec<(usize, Bytes)>,
}

impl Encoded {
    /// Begins a frame in `inline`, whose memory is used again.
    #[inline]
    pub(crate) fn begin(mut inline: Vec<u8>) -> Encoded {
        inline.clear();
        inline.extend_from_slice(&[0; HEADER_BYTES]);
        Encoded { inline, pieces: Vec::new() }
    }

    /// The length of the whole frame, in bytes.
    pub(crate) fn length(&self) -> usize {
        self.inline.len() + self.pieces.iter().map(|(_, piece)| piece.len()).sum::<usize>()
    }

    /// Writes the header.
    pub(crate) fn finish(&mut self, kind: Kind, handles: usize) {
        let header = Header { kind, handles, length: self.length() - HEADER_BYTES };
        self.inline[..HEADER_BYTES].copy_from_slice(&header.to_bytes());
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
    /// How many bytes of the first chunk are written. Its handles went with the first; they are
    /// kept until the chunk is written, to give them back if it never is.
    front_written: usize,
    bytes: usize,
    /// The lengths of the frames that are not written to their end, less what is written.
    frames: VecDeque<usize>,
    /// The first of these is our greeting, which is nobody's message.
    greeting: bool,
    spare: Vec<u8>,
}

impl<H> Outbox<H> {
    pub(crate) fn new() -> Outbox<H> {
        Outbox {
            chunks: VecDeque::new(),
            front_written: 0,
            bytes: 0,
            frames: VecDeque::new(),
            greeting: false,
            spare: Vec::new(),
        }
    }

    /// Queues our greeting, before everything else.
    pub(crate) fn push_greeting(&mut self, hello: &Hello) {
        let mut encoded = Encoded::begin(Vec::new());
        encoded.inline.extend_from_slice(&hello.to_bytes());
        encoded.finish(Kind::Hello, 0);
        self.greeting = true;
        self.push(&mut encoded, Vec::new());
    }

    /// Queues one finished frame. Its `inline` memory is taken only when that saves a copy.
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
            let body = Body::Joined(std::mem::take(&mut encoded.inline));
            self.chunks.push_back(Chunk { body, handles });
        } else {
            self.join(&encoded.inline, handles);
        }
    }

    /// Appends bytes to the last chunk, or begins one for them.
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
        let mut body = std::mem::take(&mut self.spare);
        body.extend_from_slice(bytes);
        self.chunks.push_back(Chunk { body: Body::Joined(body), handles });
    }

    /// The bytes that one call may write: up to the next chunk that has handles of its own.
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

    /// The handles that belong to the first byte of [`slices`](Outbox::slices).
    pub(crate) fn handles(&self) -> &[H] {
        match self.chunks.front() {
            Some(chunk) if self.front_written == 0 => &chunk.handles,
            _ => &[],
        }
    }

    /// Notes that `count` bytes were written, and the front's handles with them.
    ///
    /// Returns how many frames were written to their end.
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
                if used.capacity() > self.spare.capacity() && used.capacity() <= 2 * CHUNK_BYTES {
                    self.spare = used;
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
            self.greeting = false;
        }
        before - self.frames()
    }

    /// Throws the queue away and gives the handles of the last frame pushed, which has `count`:
    /// for a channel that broke while that frame was sent.
    pub(crate) fn take_back_last(&mut self, count: usize) -> Vec<H> {
        let mut handles: Vec<H> = self.chunks.drain(..).flat_map(|chunk| chunk.handles).collect();
        self.clear();
        handles.split_off(handles.len().saturating_sub(count))
    }

    /// Throws everything away; says how many frames that were.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.frames();
        *self = Outbox::new();
        count
    }

    /// How much memory is kept for what is queued next, in bytes.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.spare.capacity()
            + self.frames.capacity() * size_of::<usize>()
            + self.chunks.capacity() * size_of::<Chunk<H>>()
    }

    /// Tells whether that is more than a queue at rest should keep.
    #[inline]
    pub(crate) fn rests_on_much(&self) -> bool {
        self.memory_bytes() > RESTING_BYTES
    }

    /// Tells whether it has neither anything to write nor memory for it.
    #[inline]
    pub(crate) fn is_bare(&self) -> bool {
        self.is_empty() && self.memory_bytes() == 0
    }

    /// Gives back memory that is only kept for speed.
    pub(crate) fn shrink(&mut self) {
        if self.is_empty() {
            self.spare = Vec::new();
            self.frames = VecDeque::new();
            self.chunks = VecDeque::new();
        }
    }

    /// Bytes that wait.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Frames that are not written to their end.
    pub(crate) fn frames(&self) -> usize {
        self.frames.len() - usize::from(self.greeting)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::{Decoder, Limits};
    use proptest::prelude::*;

    fn encoded(payload: &[u8], handles: usize, pieces: &[(usize, &[u8])]) -> Encoded {
        let mut encoded = Encoded::begin(Vec::new());
        encoded.inline.extend_from_slice(payload);
        encoded.pieces = pieces
            .iter()
            .map(|(at, piece)| (HEADER_BYTES + at, Bytes::copy_from_slice(piece)))
            .collect();
        encoded.finish(Kind::Message, handles);
        encoded
    }

    /// Writes at most `max` bytes, as a socket would, into `wire`.
    fn write(outbox: &mut Outbox<u32>, max: usize, wire: &mut Vec<u8>, handles: &mut Vec<u32>) {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let count = outbox.slices(&mut slices);
        let bytes: Vec<u8> =
            slices[..count].iter().flat_map(|slice| slice.iter().copied()).take(max).collect();
        wire.extend_from_slice(&bytes);
        handles.extend_from_slice(outbox.handles());
        outbox.written(bytes.len());
    }

    #[test]
    fn frames_without_handles_leave_in_one_call_and_handles_begin_another() {
        let mut outbox = Outbox::new();
        for number in 0..3 {
            outbox.push(&mut encoded(b"abc", 0, &[]), vec![]);
            outbox.push(&mut encoded(b"def", 1, &[]), vec![number]);
        }
        let (mut wire, mut handles, mut calls) = (Vec::new(), Vec::new(), 0);
        while !outbox.is_empty() {
            write(&mut outbox, usize::MAX, &mut wire, &mut handles);
            calls += 1;
        }
        assert_eq!((wire.len(), handles, calls), (6 * 11, vec![0, 1, 2], 4));
    }

    #[test]
    fn a_long_piece_is_written_in_its_place() {
        let mut outbox = Outbox::<u32>::new();
        let piece = vec![b'-'; 5];
        outbox.push(&mut encoded(b"abcd", 0, &[(2, &piece), (4, b"!")]), vec![]);
        let (mut wire, mut handles) = (Vec::new(), Vec::new());
        while !outbox.is_empty() {
            write(&mut outbox, 3, &mut wire, &mut handles);
        }
        assert_eq!(&wire[HEADER_BYTES..], b"ab-----cd!");
    }

    #[test]
    fn only_whole_frames_count_as_delivered() {
        let mut outbox = Outbox::<u32>::new();
        for _ in 0..3 {
            outbox.push(&mut encoded(b"ab", 0, &[]), vec![]);
        }
        assert_eq!(outbox.written(9), 0);
        assert_eq!(outbox.written(1), 1);
        assert_eq!(outbox.written(15), 1);
        assert_eq!(outbox.clear(), 1);
        assert!(outbox.is_empty() && outbox.frames() == 0);
    }

    #[test]
    fn a_frame_that_broke_off_gives_its_handles_back() {
        let mut outbox = Outbox::new();
        outbox.push(&mut encoded(b"ab", 1, &[]), vec![4]);
        outbox.push(&mut encoded(b"ab", 2, &[]), vec![5, 6]);
        outbox.written(12);
        assert_eq!(outbox.take_back_last(2), [5, 6]);
        assert!(outbox.is_empty());
    }

    #[test]
    fn the_greeting_is_written_first_and_counted_never() {
        let mut outbox = Outbox::<u32>::new();
        outbox.push_greeting(&Hello::new(crate::Serialization::Bincode, ""));
        outbox.push(&mut encoded(b"ab", 0, &[]), vec![]);
        assert_eq!(outbox.frames(), 1);
        assert_eq!(outbox.written(16), 0);
        assert_eq!(outbox.written(10), 1);
    }

    #[test]
    fn writes_that_stop_anywhere_deliver_every_frame_with_its_handles() {
        let limits = Limits { frame_bytes_max: 1 << 20, handles_max: 253 };
        proptest!(ProptestConfig::with_cases(if cfg!(miri) { 10 } else { 500 }), |(
            frames in prop::collection::vec((0_usize..200, 0_u32..3, any::<bool>()), 1..12),
            cuts in prop::collection::vec(1_usize..300, 1..30),
        )| {
            let mut outbox = Outbox::new();
            let mut next = 0;
            let mut expected = Vec::new();
            for (length, handles, piece) in frames {
                let own: Vec<u32> = (next..next + handles).collect();
                next += handles;
                let payload = vec![next as u8; length];
                let pieces: &[(usize, &[u8])] = if piece { &[(length / 2, b"piece")] } else { &[] };
                outbox.push(&mut encoded(&payload, own.len(), pieces), own.clone());
                expected.push((length + if piece { 5 } else { 0 }, own));
            }
            let mut decoder = Decoder::new(limits);
            let mut seen = Vec::new();
            let mut cuts = cuts.into_iter().cycle();
            while !outbox.is_empty() {
                let (mut wire, mut handles) = (Vec::new(), Vec::new());
                write(&mut outbox, cuts.next().unwrap(), &mut wire, &mut handles);
                decoder.arrived(handles, false);
                decoder.space().0.extend_from_slice(&wire);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push((frame.payload.as_ref().len(), frame.handles));
                }
            }
            prop_assert_eq!(seen, expected);
            prop_assert_eq!(outbox.frames(), 0);
        });
    }

    /// Three frames, with handles and a piece, written in two or three calls that stop at every
    /// position there is.
    #[test]
    fn a_write_may_stop_at_every_position() {
        let fill = || {
            let mut outbox = Outbox::new();
            outbox.push(&mut encoded(b"first", 2, &[(3, b"piece")]), vec![1, 2]);
            outbox.push(&mut encoded(b"", 0, &[]), vec![]);
            outbox.push(&mut encoded(b"last", 1, &[]), vec![3]);
            outbox
        };
        let expected = vec![(10, vec![1, 2]), (0, vec![]), (4, vec![3])];
        let bytes = 3 * HEADER_BYTES + 14;
        for (first, second) in (1..=bytes).flat_map(|a| (1..=bytes).map(move |b| (a, b))) {
            if cfg!(miri) && (first + second) % 13 != 0 {
                continue;
            }
            let mut outbox = fill();
            let mut decoder = Decoder::new(Limits { frame_bytes_max: 1 << 20, handles_max: 253 });
            let mut seen = Vec::new();
            let mut cuts = [first, second].into_iter();
            while !outbox.is_empty() {
                let (mut wire, mut handles) = (Vec::new(), Vec::new());
                write(&mut outbox, cuts.next().unwrap_or(bytes), &mut wire, &mut handles);
                decoder.arrived(handles, false);
                decoder.space().0.extend_from_slice(&wire);
                while let Some(frame) = decoder.next_frame().unwrap() {
                    seen.push((frame.payload.as_ref().len(), frame.handles));
                }
            }
            assert_eq!(seen, expected, "stopped after {first} and {second}");
        }
    }
}
