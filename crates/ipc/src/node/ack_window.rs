//! What may leave now: Node's rule that a handle is acknowledged before anything follows it.
//!
//! A held is one frame, perhaps with a handle. While `window` handles are unanswered, parcels are
//! held, in order; the peer's answer lets them go. A socket that the peer had no descriptor left
//! for is sent retry, in the form it had, up to [`RETRIES_MAX`] times, later each time: nothing
//! overtakes it meanwhile. Answers that nobody waits for change nothing.
//!
//! Pure.

use crate::buffers::FrameBuffer;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a socket is sent retry that the peer did not take.
pub(crate) const RETRIES_MAX: u32 = 3;

/// How long the first of these waits; each further one ten times as long.
const RETRY_FIRST: Duration = Duration::from_millis(10);

/// One frame on its way out.
#[derive(Debug)]
pub(crate) struct HeldFrame<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) attached: Option<AttachedHandle<H>>,
}

/// The handle of a held.
#[derive(Debug)]
pub(crate) struct AttachedHandle<H> {
    pub(crate) handle: H,
    /// A second one, to send retry what the peer did not take.
    pub(crate) retry_copy: Option<H>,
    /// The number under which the crate above asks for it.
    pub(crate) ticket: Option<u64>,
}

/// A held that may be written.
#[derive(Debug)]
pub(crate) struct ReadyFrame<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) handle: Option<H>,
}

/// What the peer's answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AckOutcome {
    /// Nobody waited for it.
    Unexpected,
    /// The handle has arrived, or has not and is lost.
    Finished { ticket: Option<u64>, taken: bool },
    /// It is sent retry when [`AckWindow::due`] says so.
    Retry,
}

#[derive(Debug)]
struct InFlight<H> {
    ticket: Option<u64>,
    /// What is needed to send it retry.
    retry_copy: Option<(FrameBuffer, H)>,
    tries: u32,
}

/// What may leave, what waits.
#[derive(Debug)]
pub(crate) struct AckWindow<H> {
    window: usize,
    in_flight: VecDeque<InFlight<H>>,
    retry: Option<(Instant, InFlight<H>)>,
    held: VecDeque<HeldFrame<H>>,
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

    /// Gives the held back if it may leave now, and keeps it otherwise.
    pub(crate) fn submit(&mut self, held: HeldFrame<H>) -> Option<ReadyFrame<H>> {
        if self.is_full() || !self.held.is_empty() {
            self.held_bytes += held.frame.len();
            self.held.push_back(held);
            return None;
        }
        Some(self.start(held))
    }

    /// The next one that was held and may leave now.
    pub(crate) fn release(&mut self) -> Option<ReadyFrame<H>> {
        if self.is_full() {
            return None;
        }
        let held = self.held.pop_front()?;
        self.held_bytes -= held.frame.len();
        Some(self.start(held))
    }

    /// The peer has acknowledged for the handle that was sent first.
    pub(crate) fn acknowledged(&mut self, taken: bool, now: Instant) -> AckOutcome {
        let Some(mut first) = self.in_flight.pop_front() else { return AckOutcome::Unexpected };
        let ticket = first.ticket;
        if taken || first.retry_copy.is_none() || first.tries >= RETRIES_MAX || self.retry.is_some()
        {
            return AckOutcome::Finished { ticket, taken };
        }
        let at = now + RETRY_FIRST * 10_u32.pow(first.tries);
        first.tries += 1;
        self.retry = Some((at, first));
        AckOutcome::Retry
    }

    /// When something is to be sent retry.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.retry.as_ref().map(|(at, _)| *at)
    }

    /// What is to be sent retry now. `try_clone` makes a handle for it; without one, this is the last
    /// time.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        try_clone: impl FnOnce(&H) -> Option<H>,
    ) -> Option<ReadyFrame<H>> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        let (_, mut held) = self.retry.take()?;
        let (frame, retry_copy) = held.retry_copy.take()?;
        // The last time, the one that was kept goes itself.
        let handle = match (held.tries < RETRIES_MAX, try_clone(&retry_copy)) {
            (true, Some(handle)) => {
                held.retry_copy = Some((frame.clone(), retry_copy));
                handle
            }
            _ => retry_copy,
        };
        self.in_flight.push_back(held);
        Some(ReadyFrame { frame, handle: Some(handle) })
    }

    /// Whether nothing is unanswered and nothing held.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.retry.is_none() && self.held.is_empty()
    }

    /// Parcels held.
    pub(crate) fn held(&self) -> usize {
        self.held.len()
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.held_bytes
    }

    /// Throws everything away; says how many parcels were never written.
    pub(crate) fn clear(&mut self) -> usize {
        let count = self.held.len() + usize::from(self.retry.is_some());
        *self = AckWindow::new(self.window);
        count
    }

    fn is_full(&self) -> bool {
        self.retry.is_some() || self.in_flight.len() >= self.window
    }

    fn start(&mut self, held: HeldFrame<H>) -> ReadyFrame<H> {
        let frame = held.frame;
        let Some(AttachedHandle { handle, retry_copy, ticket }) = held.attached else {
            return ReadyFrame { frame, handle: None };
        };
        let retry_copy = retry_copy.map(|retry_copy| (frame.clone(), retry_copy));
        self.in_flight.push_back(InFlight { ticket, retry_copy, tries: 0 });
        ReadyFrame { frame, handle: Some(handle) }
    }
}

#[cfg(test)]
mod tests;
