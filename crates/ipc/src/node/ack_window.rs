//! The acknowledgement window: Node acknowledges a handle before anything may follow it.
//!
//! A frame may carry one handle. While `window` handles are not acknowledged, further frames are
//! held in order, and an acknowledgement releases them. A socket that the peer rejected for lack of
//! a descriptor number is sent again unchanged, up to [`RETRIES_MAX`] times and each time after a
//! longer pause; no frame overtakes it meanwhile. Acknowledgements that nothing waits for change
//! nothing.
//!
//! Pure.

use crate::buffer_pool::FrameBuffer;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// The number of attempts to send a rejected socket again.
pub(crate) const RETRIES_MAX: u32 = 3;

/// The pause before the first attempt; each further pause is ten times as long.
const RETRY_FIRST: Duration = Duration::from_millis(10);

/// An encoded frame for Node, perhaps with a handle.
#[derive(Debug)]
pub(crate) struct NodeFrame<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) attached: Option<AttachedHandle<H>>,
}

/// The handle of a frame.
#[derive(Debug)]
pub(crate) struct AttachedHandle<H> {
    pub(crate) handle: H,
    /// A second descriptor of the same socket, for a retry.
    pub(crate) retry_copy: Option<H>,
    /// The number under which the crate above asks for the acknowledgement.
    pub(crate) ticket: Option<u64>,
}

/// A frame that may be written.
#[derive(Debug)]
pub(crate) struct ReadyFrame<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) handle: Option<H>,
}

/// The effect of an acknowledgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckOutcome {
    /// No handle was waiting for it.
    Unexpected,
    /// The handle has arrived, or is lost.
    Finished { ticket: Option<u64>, taken: bool },
    /// The handle is sent again at the time that [`AckWindow::deadline`] returns.
    Retry,
}

#[derive(Debug)]
struct InFlight<H> {
    ticket: Option<u64>,
    /// The frame and the descriptor for a retry.
    retry_copy: Option<(FrameBuffer, H)>,
    retries: u32,
}

/// The handles in flight, and the frames that wait for their acknowledgement.
#[derive(Debug)]
pub(crate) struct AckWindow<H> {
    window: usize,
    in_flight: VecDeque<InFlight<H>>,
    retry: Option<(Instant, InFlight<H>)>,
    held: VecDeque<NodeFrame<H>>,
    held_bytes: usize,
}

impl<H> AckWindow<H> {
    pub(crate) fn new(window: usize) -> AckWindow<H> {
        AckWindow {
            window: window.max(1),
            in_flight: VecDeque::new(),
            retry: None,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Returns the frame if it may be written now, and holds it otherwise.
    pub(crate) fn submit(&mut self, frame: NodeFrame<H>) -> Option<ReadyFrame<H>> {
        if self.is_full() || !self.held.is_empty() {
            self.held_bytes += frame.frame.len();
            self.held.push_back(frame);
            return None;
        }
        Some(self.start(frame))
    }

    /// Returns the next held frame that may be written now.
    pub(crate) fn release(&mut self) -> Option<ReadyFrame<H>> {
        if self.is_full() {
            return None;
        }
        let frame = self.held.pop_front()?;
        self.held_bytes -= frame.frame.len();
        Some(self.start(frame))
    }

    /// Handles the peer's acknowledgement of the handle that was sent first.
    pub(crate) fn acknowledged(&mut self, taken: bool, now: Instant) -> AckOutcome {
        // Node acknowledges handles in the order in which they arrive.
        let Some(mut first) = self.in_flight.pop_front() else { return AckOutcome::Unexpected };
        let ticket = first.ticket;
        let may_retry = first.retry_copy.is_some() && first.retries < RETRIES_MAX;
        if taken || !may_retry || self.retry.is_some() {
            return AckOutcome::Finished { ticket, taken };
        }
        let at = now + RETRY_FIRST * 10_u32.pow(first.retries);
        first.retries += 1;
        self.retry = Some((at, first));
        AckOutcome::Retry
    }

    /// Returns the time of the next retry.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry.as_ref().map(|(at, _)| *at)
    }

    /// Returns the frame that is to be sent again at `now`.
    ///
    /// `try_clone` makes a descriptor for the frame. If that fails, this retry is the last one.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        try_clone: impl FnOnce(&H) -> Option<H>,
    ) -> Option<ReadyFrame<H>> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        let (_, mut in_flight) = self.retry.take()?;
        let (frame, retry_copy) = in_flight.retry_copy.take()?;
        // The last retry sends the copy itself.
        let handle = match (in_flight.retries < RETRIES_MAX, try_clone(&retry_copy)) {
            (true, Some(handle)) => {
                in_flight.retry_copy = Some((frame.clone(), retry_copy));
                handle
            }
            _ => retry_copy,
        };
        self.in_flight.push_back(in_flight);
        Some(ReadyFrame { frame, handle: Some(handle) })
    }

    /// Returns whether no handle is in flight and no frame is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.retry.is_none() && self.held.is_empty()
    }

    /// Returns the number of held frames.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Returns the number of held bytes.
    pub(crate) fn bytes(&self) -> usize {
        self.held_bytes
    }

    /// Takes everything out, once nothing more can be sent.
    pub(crate) fn take(&mut self) -> AckWindow<H> {
        let window = self.window;
        std::mem::replace(self, AckWindow::new(window))
    }

    /// Returns the number of frames that were not written, or are to be written again.
    pub(crate) fn unwritten(&self) -> usize {
        self.held.len() + usize::from(self.retry.is_some())
    }

    fn is_full(&self) -> bool {
        self.retry.is_some() || self.in_flight.len() >= self.window
    }

    fn start(&mut self, frame: NodeFrame<H>) -> ReadyFrame<H> {
        let NodeFrame { frame, attached } = frame;
        let Some(AttachedHandle { handle, retry_copy, ticket }) = attached else {
            return ReadyFrame { frame, handle: None };
        };
        let retry_copy = retry_copy.map(|copy| (frame.clone(), copy));
        self.in_flight.push_back(InFlight { ticket, retry_copy, retries: 0 });
        ReadyFrame { frame, handle: Some(handle) }
    }
}

#[cfg(test)]
mod tests;
