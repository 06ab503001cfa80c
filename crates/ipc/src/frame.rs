//! Frames: the format in which messages travel over a stream of bytes.
//!
//! A frame is a header of [`HEADER_BYTES`] bytes and a payload. The header holds the version, the
//! kind, flags (none yet), the number of handles that belong to the frame, the length of the
//! payload, and the fingerprint of the value, which the frame only carries:
//!
//! ```text
//! byte 0 version · 1 kind · 2 flags · 3 handles · 4..8 length · 8..12 fingerprint · payload
//! ```
//!
//! All numbers are little endian. The frame of a handshake has the layout of version 1, which ends
//! before the fingerprint, so that peers of different versions can read each other's handshakes and
//! name both versions.
//!
//! Handles `H` (an `OwnedFd` in production, a number in tests) arrive with the first byte of their
//! frame. A frame takes as many as it declares, in the order of arrival, so it does not matter
//! which read brought them, or which transport carries the bytes. A handle that no frame declares
//! is an error, so the handles of at most one frame are kept.
//!
//! Handles of a frame that is not whole wait for its rest, as long as the type of the handles allows
//! it ([`WaitingHandle`]). Otherwise they are closed, and the frame arrives without them.
//!
//! Bytes enter a [`Decoder`] through [`Decoder::space`], handles through [`Decoder::arrived`], and
//! [`Decoder::next_frame`] returns whole frames. Memory grows with bytes that arrived, never with
//! an announced length.
//!
//! Pure.

mod frame_error;

pub use self::frame_error::FrameError;

use crate::buffer_pool;
use std::collections::VecDeque;

/// The version of the frame layout. Frames of another version are refused.
pub const VERSION: u8 = 2;

/// The version of the layout of a handshake's frame, which never changes.
pub const HELLO_VERSION: u8 = 1;

/// The length of a frame's header, in bytes.
pub const HEADER_BYTES: usize = 12;

/// The length of the header of a handshake's frame, in bytes.
pub const HELLO_HEADER_BYTES: usize = 8;

/// The size of the reading buffer, and the longest frame, header included, that is decoded in it.
///
/// A longer frame is gathered in a buffer of its own, which costs one more copy and one more read.
/// The size is therefore well over 64 KiB, a length that many programs choose for their pieces.
pub const READ_BYTES: usize = 128 * 1024;

/// The purpose of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// The handshake, the first frame in each direction; see [`Hello`](crate::Hello).
    Hello = 1,
    /// A message of the user.
    Message = 2,
    /// An internal message for the crates above, never shown to users.
    Internal = 3,
    /// Reserved for a second transport: an offer.
    Offer = 16,
    /// Reserved for a second transport: the offer is accepted.
    Accept = 17,
    /// Reserved for a second transport: the offer is declined.
    Refuse = 18,
    /// Reserved for a second transport: the last frame before bytes travel there.
    Switch = 19,
    /// Reserved for a second transport: later bytes travel over the socket again.
    Back = 20,
}

impl Kind {
    /// Returns the length of the header of a frame of this kind, in bytes.
    #[inline]
    #[must_use]
    pub fn header_bytes(self) -> usize {
        if self == Kind::Hello { HELLO_HEADER_BYTES } else { HEADER_BYTES }
    }

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

/// The limits of a decoder.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// The length of one payload at most, in bytes.
    pub frame_bytes_max: usize,
    /// The number of handles in one frame at most.
    pub handles_max: usize,
    /// The number of handles in one frame that are taken at most. A frame with more arrives without
    /// handles.
    pub received_handles_max: usize,
}

/// A handle that may have to wait for the rest of its frame.
pub trait WaitingHandle {
    /// Notes that the handle waits. Called again as long as it waits.
    fn wait(&mut self);

    /// Returns whether the `count` handles of one unfinished frame may stay open.
    fn may_wait(count: usize) -> bool;
}

/// The handles of tests.
impl WaitingHandle for u32 {
    fn wait(&mut self) {}

    fn may_wait(_: usize) -> bool {
        true
    }
}

/// The header of one frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The purpose of the frame.
    pub kind: Kind,
    /// The number of handles that belong to the frame.
    pub handles: usize,
    /// The length of the payload, in bytes.
    pub length: usize,
    /// The fingerprint of the value in the payload; 0 for a handshake.
    pub fingerprint: u32,
}

impl Header {
    /// Returns the header's bytes, of which a handshake has only the first
    /// [`HELLO_HEADER_BYTES`].
    ///
    /// # Panics
    ///
    /// Panics when the counts do not fit their fields. Callers check them against their limits
    /// first.
    #[inline]
    #[must_use]
    pub fn to_array(self) -> [u8; HEADER_BYTES] {
        let handles = u8::try_from(self.handles).expect("the sender checked the handles");
        let length = u32::try_from(self.length).expect("the sender checked the length");
        let [a, b, c, d] = length.to_le_bytes();
        let [e, f, g, h] = self.fingerprint.to_le_bytes();
        let version = if self.kind == Kind::Hello { HELLO_VERSION } else { VERSION };
        [version, self.kind as u8, 0, handles, a, b, c, d, e, f, g, h]
    }

    /// Returns the header's bytes.
    ///
    /// # Panics
    ///
    /// As [`to_array`](Header::to_array).
    #[must_use]
    pub fn to_bytes(self) -> Vec<u8> {
        self.to_array()[..self.kind.header_bytes()].to_vec()
    }

    /// Reads the part of a header that every version has, and checks it against the limits.
    ///
    /// # Errors
    ///
    /// The rule that the header breaks.
    pub fn parse(bytes: [u8; HELLO_HEADER_BYTES], limits: Limits) -> Result<Header, FrameError> {
        let [version, kind, flags, handles, length @ ..] = bytes;
        let is_hello = kind == Kind::Hello as u8;
        if version != if is_hello { HELLO_VERSION } else { VERSION } {
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
            Ok(length) if length <= limits.frame_bytes_max => {
                Ok(Header { kind, handles, length, fingerprint: 0 })
            }
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
    /// The payload lies in the reading buffer.
    Borrowed(&'a [u8]),
    /// The payload was gathered in a buffer of its own, because it is long.
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
    /// The purpose of the frame.
    pub kind: Kind,
    /// The payload of the frame.
    pub payload: Payload<'a>,
    /// The handles of the frame, in order. Empty when they were lost.
    pub handles: Vec<H>,
    /// Whether handles are missing because this process had no descriptor number left for them, or
    /// because they could not wait for the rest of the frame.
    pub handles_lost: bool,
    /// The number of handles that the frame declares and that were closed because they are over
    /// [`Limits::received_handles_max`].
    pub handles_refused: usize,
    /// The fingerprint of the value in the payload, as the sender wrote it.
    pub fingerprint: u32,
}

/// Cuts frames out of a stream.
#[derive(Debug)]
pub struct Decoder<H> {
    limits: Limits,
    buffer: Vec<u8>,
    /// The position of the first byte in `buffer` that no frame has taken.
    start: usize,
    /// A frame that is too long for `buffer`, with its payload so far. `buffer` is empty then.
    long: Option<(Header, Vec<u8>)>,
    handles: VecDeque<Arrival<H>>,
}

#[derive(Debug)]
enum Arrival<H> {
    Handle(H),
    /// The read at this position brought fewer handles than were sent, or its handles were closed.
    Lost,
}

impl<H: WaitingHandle> Decoder<H> {
    /// Makes a decoder for the beginning of a stream. The call allocates no memory.
    #[must_use]
    pub fn new(limits: Limits) -> Decoder<H> {
        Decoder { limits, buffer: Vec::new(), start: 0, long: None, handles: VecDeque::new() }
    }

    /// Returns the vector to which the next bytes are appended, and the maximal number of bytes.
    ///
    /// Call it only after [`next_frame`](Decoder::next_frame) has returned `None`, because it may
    /// move bytes.
    pub fn space(&mut self) -> (&mut Vec<u8>, usize) {
        match &mut self.long {
            Some((header, payload)) => {
                // The memory at most doubles, so it stays within twice the bytes that arrived.
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

    /// Records the handles that one read brought, and whether others were lost with it.
    pub fn arrived(&mut self, handles: impl IntoIterator<Item = H>, lost: bool) {
        self.handles.extend(handles.into_iter().map(Arrival::Handle));
        if lost {
            self.handles.push_back(Arrival::Lost);
        }
    }

    /// Returns the limits of this decoder.
    pub(crate) fn limits(&self) -> Limits {
        self.limits
    }

    /// Makes `buffer` the reading buffer, moves the buffered bytes into it, and returns the former
    /// buffer.
    ///
    /// An empty vector takes the buffer back, and leaves only memory for a frame that is not
    /// complete.
    pub fn swap_buffer(&mut self, mut buffer: Vec<u8>) -> Vec<u8> {
        buffer.clear();
        buffer.extend_from_slice(&self.buffer[self.start..]);
        self.start = 0;
        std::mem::replace(&mut self.buffer, buffer)
    }

    /// Returns whether the next read needs a reading buffer and the decoder has none of full size.
    pub(crate) fn wants_buffer(&self) -> bool {
        self.long.is_none() && self.buffer.capacity() < READ_BYTES
    }

    /// Returns the number of bytes in the reading buffer that no frame has taken.
    pub(crate) fn rest_bytes(&self) -> usize {
        self.buffer.len() - self.start
    }

    /// Cuts out the next whole frame, if there is one.
    ///
    /// # Errors
    ///
    /// The rule that the peer broke. The stream cannot be read after an error.
    #[inline]
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_, H>>, FrameError> {
        if self.long.is_some() {
            return self.next_long();
        }
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HELLO_HEADER_BYTES>() else {
            let max = if rest.is_empty() { 0 } else { self.limits.handles_max };
            return self.leave_waiting(max, false).map(|()| None);
        };
        let mut header = Header::parse(*head, self.limits)?;
        let header_bytes = header.kind.header_bytes();
        let total = header_bytes + header.length;
        if let (false, Some([.., a, b, c, d])) =
            (header.kind == Kind::Hello, rest.first_chunk::<HEADER_BYTES>())
        {
            header.fingerprint = u32::from_le_bytes([*a, *b, *c, *d]);
        }
        if rest.len() >= total {
            let attached = self.take_handles(header.handles)?;
            let from = self.start + header_bytes;
            self.start += total;
            let payload = Payload::Borrowed(&self.buffer[from..self.start]);
            return Ok(Some(attached.into_frame(header, payload)));
        }
        // More handles than the header declares are refused before the rest of the frame arrives.
        // The borrow of the buffer ends here.
        let rest_length = rest.len();
        self.leave_waiting(header.handles, self.refuses(header.handles))?;
        // The frame can never be whole in the reading buffer.
        if total > READ_BYTES && rest_length >= header_bytes {
            let mut payload = buffer_pool::take_long(header.length);
            payload.extend_from_slice(&self.buffer[self.start + header_bytes..]);
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
            let refused = self.refuses(header.handles);
            return self.leave_waiting(header.handles, refused).map(|()| None);
        }
        let attached = self.take_handles(header.handles)?;
        Ok(Some(attached.into_frame(header, Payload::Owned(payload))))
    }

    /// Returns whether [`next_frame`](Decoder::next_frame) would return a frame or an error.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if let Some((header, payload)) = &self.long {
            return payload.len() >= header.length;
        }
        let rest = &self.buffer[self.start..];
        let Some(head) = rest.first_chunk::<HELLO_HEADER_BYTES>() else { return false };
        match Header::parse(*head, self.limits) {
            Ok(header) => rest.len() >= header.kind.header_bytes() + header.length,
            Err(_) => true,
        }
    }

    /// Checks that the stream may end at this point.
    ///
    /// # Errors
    ///
    /// [`FrameError::EndInFrame`] when a frame has begun.
    pub fn end(&self) -> Result<(), FrameError> {
        if self.is_empty() { Ok(()) } else { Err(FrameError::EndInFrame) }
    }

    /// Returns whether the decoder holds no byte and no handle.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.start == self.buffer.len() && self.long.is_none() && self.handles.is_empty()
    }

    /// Returns whether a frame with this number of handles arrives without them.
    fn refuses(&self, handles: usize) -> bool {
        handles > self.limits.received_handles_max
    }

    /// Checks the handles that wait, after every whole frame is cut out, and closes them if they
    /// must not wait.
    ///
    /// A handle arrives with the first byte of its frame, so the waiting handles can only belong to
    /// the frame that has begun.
    fn leave_waiting(&mut self, declared: usize, refused: bool) -> Result<(), FrameError> {
        if self.handles.is_empty() {
            return Ok(());
        }
        let mut waiting = 0;
        for arrival in &mut self.handles {
            if let Arrival::Handle(handle) = arrival {
                handle.wait();
                waiting += 1;
            }
        }
        if waiting > declared || declared == 0 {
            return Err(FrameError::HandlesUndeclared);
        }
        if waiting > 0 && (refused || !H::may_wait(waiting)) {
            self.handles.clear();
            self.handles.push_back(Arrival::Lost);
        }
        Ok(())
    }

    /// Takes `count` handles. Closes those of a frame that lost some, and those that are refused.
    #[inline]
    fn take_handles(&mut self, count: usize) -> Result<Attached<H>, FrameError> {
        if count == 0 {
            return Ok(Attached { handles: Vec::new(), lost: false, refused: 0 });
        }
        let refused = if self.refuses(count) { count } else { 0 };
        let mut handles = Vec::new();
        handles.reserve_exact(count);
        while handles.len() < count {
            match self.handles.pop_front() {
                Some(Arrival::Handle(handle)) => handles.push(handle),
                // Handles of this frame that were taken before are closed here.
                Some(Arrival::Lost) => {
                    return Ok(Attached { handles: Vec::new(), lost: refused == 0, refused });
                }
                None => return Err(FrameError::HandlesMissing),
            }
        }
        if refused > 0 {
            handles.clear();
        }
        Ok(Attached { handles, lost: false, refused })
    }
}

/// The handles of a whole frame.
struct Attached<H> {
    handles: Vec<H>,
    lost: bool,
    refused: usize,
}

impl<H> Attached<H> {
    #[inline]
    fn into_frame(self, header: Header, payload: Payload<'_>) -> Frame<'_, H> {
        let Header { kind, fingerprint, .. } = header;
        let Attached { handles, lost: handles_lost, refused: handles_refused } = self;
        Frame { kind, payload, handles, handles_lost, handles_refused, fingerprint }
    }
}

#[cfg(test)]
mod tests;
