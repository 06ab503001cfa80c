//! Frames: how messages become one stream of bytes, and come back.
//!
//! A frame is a header of [`HEADER_BYTES`] bytes and a payload. The header says version, kind,
//! flags (none yet), how many handles belong to the frame, and the length of the payload:
//!
//! ```text
//! byte 0 version · 1 kind · 2 flags · 3 handles · 4..8 length, little endian · payload
//! ```
//!
//! Handles `H` (an `OwnedFd` in production, a number in tests) ride on the first byte of their
//! frame. They are counted by the frame and taken in the order they came, so it does not matter
//! which read brought them, or which transport carries the bytes. A handle that no frame declares
//! is a violation, so at most one frame's handles are ever kept.
//!
//! Bytes enter [`Decoder`] through [`Decoder::space`], handles through [`Decoder::arrived`]; whole
//! frames leave by [`Decoder::next_frame`]. Memory grows with bytes that arrived, never with bytes
//! that were announced.
//!
//! Pure.

use crate::buffers;
use std::collections::VecDeque;
use std::fmt;

/// The version of this layout; another one is refused.
pub const VERSION: u8 = 1;

/// The length of a frame's header.
pub const HEADER_BYTES: usize = 8;

/// How much is read at a time, and the largest frame (header included) that is cut out of the
/// reading buffer. A longer one is gathered in a buffer of its own, which costs a copy and a read
/// more: so this is well over 64 KiB, a length that many programs choose for their pieces.
pub const READ_BYTES: usize = 128 * 1024;

/// What a frame is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The first frame each way: who speaks, and how.
    Hello = 1,
    /// A message of the user.
    Message = 2,
    /// A message of the crates above, never seen by users.
    Internal = 3,
    /// Reserved for a second transport: offered.
    Offer = 16,
    /// Reserved for a second transport: the offer is taken.
    Accept = 17,
    /// Reserved for a second transport: the offer is declined.
    Refuse = 18,
    /// Reserved for a second transport: the last frame before the bytes go on there.
    Switch = 19,
    /// Reserved for a second transport: the bytes go on over the socket again.
    Back = 20,
}

impl Kind {
    fn from_byte(byte: u8) -> Option<Kind> {
        Some(match byte {
            1 => Kind::Hello,
            2 => Kind::Message,
            3 => Kind::Internal,
            16 => Kind::Offer,
            17 => Kind::Accept,
            18 => Kind::Refuse,
            19 => Kind::Switch,
            20 => Kind::Back,
            _ => return None,
        })
    }
}

/// How the peer broke the rules of the channel.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum FrameError {
    /// A frame of a version that is not ours.
    Version(u8),
    /// A frame of a kind that does not exist, or that nobody agreed to use.
    Kind(u8),
    /// Flags are set that mean nothing.
    Flags(u8),
    /// A payload longer than the ceiling.
    Length {
        /// What the header announced, in bytes.
        announced: u64,
        /// The ceiling, in bytes.
        max: usize,
    },
    /// More handles than the ceiling.
    Handles {
        /// What the header announced.
        announced: usize,
        /// The ceiling.
        max: usize,
    },
    /// A frame is complete but handles it declared never came.
    HandlesMissing,
    /// Handles came that no frame declares.
    HandlesUndeclared,
    /// The stream ended inside a frame.
    EndInFrame,
    /// The first frame was not a hello, a second hello came, or it makes no sense.
    Hello,
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            FrameError::Version(version) => {
                write!(f, "frame of version {version}, this side speaks {VERSION}")
            }
            FrameError::Kind(kind) => write!(f, "frame of unknown kind {kind}"),
            FrameError::Flags(flags) => write!(f, "frame with unknown flags {flags:#04x}"),
            FrameError::Length { announced, max } => {
                write!(f, "frame of {announced} bytes, at most {max} are taken")
            }
            FrameError::Handles { announced, max } => {
                write!(f, "frame with {announced} handles, at most {max} are taken")
            }
            FrameError::HandlesMissing => f.write_str("handles were declared and did not come"),
            FrameError::HandlesUndeclared => f.write_str("handles came that no frame declares"),
            FrameError::EndInFrame => f.write_str("the stream ended inside a frame"),
            FrameError::Hello => f.write_str("the greeting is missing, repeated or malformed"),
        }
    }
}

/// What is decoded at most.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of payload per frame.
    pub frame_bytes_max: usize,
    /// Handles per frame.
    pub handles_max: usize,
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// What the frame is for.
    pub kind: Kind,
    /// How many handles belong to it.
    pub handles: usize,
    /// The length of its payload in bytes.
    pub length: usize,
}

impl Header {
    /// Writes the header.
    ///
    /// # Panics
    ///
    /// When the counts do not fit their fields; callers check them against their limits first.
    #[must_use]
    pub fn to_bytes(self) -> [u8; HEADER_BYTES] {
        let handles = u8::try_from(self.handles).expect("the sender checked the handles");
        let length = u32::try_from(self.length).expect("the sender checked the length");
        let [a, b, c, d] = length.to_le_bytes();
        [VERSION, self.kind as u8, 0, handles, a, b, c, d]
    }

    /// Reads a header and holds it against the limits.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(bytes: [u8; HEADER_BYTES], limits: Limits) -> Result<Header, FrameError> {
        let [version, kind, flags, handles, length @ ..] = bytes;
        if version != VERSION {
            return Err(FrameError::Version(version));
        }
        let kind = Kind::from_byte(kind).ok_or(FrameError::Kind(kind))?;
        if flags != 0 {
            return Err(FrameError::Flags(flags));
        }
        let handles = usize::from(handles);
        if handles > limits.handles_max {
            return Err(FrameError::Handles { announced: handles, max: limits.handles_max });
        }
        let announced = u32::from_le_bytes(length);
        match usize::try_from(announced) {
            Ok(length) if length <= limits.frame_bytes_max => Ok(Header { kind, handles, length }),
            _ => Err(FrameError::Length {
                announced: u64::from(announced),
                max: limits.frame_bytes_max,
            }),
        }
    }
}

/// The payload of a frame.
#[derive(Debug, PartialEq, Eq)]
pub enum Payload<'a> {
    /// Cut out of the reading buffer.
    Borrowed(&'a [u8]),
    /// Gathered in a buffer of its own, because it is long.
    Owned(Vec<u8>),
}

impl AsRef<[u8]> for Payload<'_> {
    fn as_ref(&self) -> &[u8] {
        match self {
            Payload::Borrowed(bytes) => bytes,
            Payload::Owned(bytes) => bytes,
        }
    }
}

/// One whole frame.
#[derive(Debug, PartialEq, Eq)]
pub struct Frame<'a, H> {
    /// What it is for.
    pub kind: Kind,
    /// Its bytes.
    pub payload: Payload<'a>,
    /// Its handles, in order. Empty when they were lost.
    pub handles: Vec<H>,
    /// This process had no descriptor number left for at least one of its handles.
    pub handles_lost: bool,
}

/// Cuts frames out of a stream.
#[derive(Debug)]
pub struct Decoder<H> {
    limits: Limits,
    buffer: Vec<u8>,
    /// Where in `buffer` the first byte lies that no frame has taken.
    start: usize,
    /// A frame too long for `buffer`, with its payload so far. `buffer` is empty then.
    long: Option<(Header, Vec<u8>)>,
    handles: VecDeque<Arrival<H>>,
}

#[derive(Debug)]
enum Arrival<H> {
    Handle(H),
    /// The read that ended here brought fewer handles than were sent.
    Lost,
}

impl<H> Decoder<H> {
    /// Makes a decoder that has seen nothing. It owns no memory yet.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder<H> {
        Decoder { limits, buffer: Vec::new(), start: 0, long: None, handles: VecDeque::new() }
    }

    /// Where the next bytes belong, at the end of this vector, and how many at most.
    ///
    /// Call it only when [`next_frame`](Decoder::next_frame) had nothing more: it may move bytes.
    pub fn space(&mut self) -> (&mut Vec<u8>, usize) {
        match &mut self.long {
            Some((header, payload)) => {
                // Doubling keeps the memory within twice of what arrived.
                let room = payload.len().max(READ_BYTES).min(header.length - payload.len());
                (payload, room)
            }
            None => {
                self.buffer.drain(..self.start);
                self.start = 0;
                let room = READ_BYTES - self.buffer.len();
                (&mut self.buffer, room)
            }
        }
    }

    /// Notes the handles that one read brought, and whether others were lost with it.
    pub fn arrived(&mut self, handles: impl IntoIterator<Item = H>, lost: bool) {
        self.handles.extend(handles.into_iter().map(Arrival::Handle));
        if lost {
            self.handles.push_back(Arrival::Lost);
        }
    }

    /// Lends `scratch` as the reading buffer; what is already buffered moves over.
    ///
    /// Returns the buffer used until now. Lending an empty vector takes the scratch back and leaves
    /// memory for nothing but a frame that is not whole yet.
    pub fn swap_buffer(&mut self, mut scratch: Vec<u8>) -> Vec<u8> {
        scratch.clear();
        scratch.extend_from_slice(&self.buffer[self.start..]);
        self.start = 0;
        std::mem::replace(&mut self.buffer, scratch)
    }

    /// Tells whether the next read needs a reading buffer, and there is none of full size.
    pub(crate) fn wants_buffer(&self) -> bool {
        self.long.is_none() && self.buffer.capacity() < READ_BYTES
    }

    /// How many bytes of the reading buffer no frame has taken.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Cuts out the next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// How the peer broke the rules. The stream cannot be read on after that.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_, H>>, FrameError> {
        if self.long.is_some() {
            return self.next_long();
        }
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HEADER_BYTES>() else {
            let max = if rest.is_empty() { 0 } else { self.limits.handles_max };
            return self.check_waiting(max).map(|()| None);
        };
        let header = Header::parse(*head, self.limits)?;
        let total = HEADER_BYTES + header.length;
        if rest.len() >= total {
            let (handles, handles_lost) = self.take_handles(header.handles)?;
            let from = self.start + HEADER_BYTES;
            self.start += total;
            let payload = Payload::Borrowed(&self.buffer[from..self.start]);
            return Ok(Some(Frame { kind: header.kind, payload, handles, handles_lost }));
        }
        self.check_waiting(header.handles)?;
        if total > READ_BYTES {
            let mut payload = buffers::take_long(header.length);
            payload.extend_from_slice(&rest[HEADER_BYTES..]);
            self.buffer.clear();
            self.start = 0;
            self.long = Some((header, payload));
        }
        Ok(None)
    }

    #[cold]
    fn next_long(&mut self) -> Result<Option<Frame<'_, H>>, FrameError> {
        let Some((header, payload)) = self.long.take() else { return Ok(None) };
        if payload.len() < header.length {
            self.long = Some((header, payload));
            return self.check_waiting(header.handles).map(|()| None);
        }
        let (handles, handles_lost) = self.take_handles(header.handles)?;
        let payload = Payload::Owned(payload);
        Ok(Some(Frame { kind: header.kind, payload, handles, handles_lost }))
    }

    /// Tells whether [`next_frame`](Decoder::next_frame) has something to say already: a frame, or
    /// how the peer broke the rules.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if let Some((header, payload)) = &self.long {
            return payload.len() >= header.length;
        }
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HEADER_BYTES>() else { return false };
        match Header::parse(*head, self.limits) {
            Ok(header) => rest.len() >= HEADER_BYTES + header.length,
            Err(_) => true,
        }
    }

    /// Tells whether the stream may end here.
    ///
    /// # Errors
    ///
    /// [`FrameError::EndInFrame`] when a frame has begun.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.is_empty() { Ok(()) } else { Err(FrameError::EndInFrame) }
    }

    /// Tells whether nothing at all is kept: no byte, no handle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len() && self.long.is_none() && self.handles.is_empty()
    }

    /// Handles ride on the first byte of their frame: with every whole frame cut out, those that
    /// wait can only belong to the frame that has begun.
    fn check_waiting(&self, declared: usize) -> Result<(), FrameError> {
        let waiting =
            self.handles.iter().filter(|arrival| matches!(arrival, Arrival::Handle(_))).count();
        if waiting > declared || (declared == 0 && !self.handles.is_empty()) {
            return Err(FrameError::HandlesUndeclared);
        }
        Ok(())
    }

    /// Takes `count` handles; those of a frame that lost some are closed.
    #[inline]
    fn take_handles(&mut self, count: usize) -> Result<(Vec<H>, bool), FrameError> {
        let mut taken = Vec::new();
        if count == 0 {
            return Ok((taken, false));
        }
        taken.reserve_exact(count);
        while taken.len() < count {
            match self.handles.pop_front() {
                Some(Arrival::Handle(handle)) => taken.push(handle),
                Some(Arrival::Lost) => return Ok((Vec::new(), true)),
                None => return Err(FrameError::HandlesMissing),
            }
        }
        Ok((taken, false))
    }
}

#[cfg(test)]
mod tests;
