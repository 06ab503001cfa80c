//! What may leave now: Node's rule that a handle is acknowledged before anything follows it.
//!
//! A parcel is one frame, perhaps with a handle. While `window` handles are unanswered, parcels are
//! held, in order; the peer's answer lets them go. A socket that the peer had no descriptor left
//! for is sent again, in the form it had, up to [`AGAIN_MAX`] times, later each time: nothing
//! overtakes it meanwhile. Answers that nobody waits for change nothing.
//!
//! Pure.

use crate::buffers::FrameBuffer;
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// How often a socket is sent again that the peer did not take.
pub(crate) const AGAIN_MAX: u32 = 3;

/// How long the first of these waits; each further one ten times as long.
const AGAIN_FIRST: Duration = Duration::from_millis(10);

/// One frame on its way out.
#[derive(Debug)]
pub(crate) struct Parcel<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) cargo: Option<Cargo<H>>,
}

/// The handle of a parcel.
#[derive(Debug)]
pub(crate) struct Cargo<H> {
    pub(crate) handle: H,
    /// A second one, to send again what the peer did not take.
    pub(crate) spare: Option<H>,
    /// The number under which the crate above asks for it.
    pub(crate) ticket: Option<u64>,
}

/// A parcel that may be written.
#[derive(Debug)]
pub(crate) struct Leaving<H> {
    pub(crate) frame: FrameBuffer,
    pub(crate) handle: Option<H>,
}

/// What the peer's answer meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// Nobody waited for it.
    Stray,
    /// The handle has arrived, or has not and is lost.
    Over { ticket: Option<u64>, taken: bool },
    /// It is sent again when [`Gate::due`] says so.
    Again,
}

#[derive(Debug)]
struct InFlight<H> {
    ticket: Option<u64>,
    /// What is needed to send it again.
    spare: Option<(FrameBuffer, H)>,
    tries: u32,
}

/// What may leave, what waits.
#[derive(Debug)]
pub(crate) struct Gate<H> {
    window: usize,
    in_flight: VecDeque<InFlight<H>>,
    again: Option<(Instant, InFlight<H>)>,
    held: VecDeque<Parcel<H>>,
    held_bytes: usize,
}

impl<H> Gate<H> {
    pub(crate) fn new(window: usize) -> Gate<H> {
        Gate {
            window: window.max(1),
            in_flight: VecDeque::new(),
            again: None,
            held: VecDeque::new(),
            held_bytes: 0,
        }
    }

    /// Gives the parcel back if it may leave now, and keeps it otherwise.
    pub(crate) fn submit(&mut self, parcel: Parcel<H>) -> Option<Leaving<H>> {
        if self.is_shut() || !self.held.is_empty() {
            self.held_bytes += parcel.frame.len();
            self.held.push_back(parcel);
            return None;
        }
        Some(self.depart(parcel))
    }

    /// The next one that was held and may leave now.
    pub(crate) fn release(&mut self) -> Option<Leaving<H>> {
        if self.is_shut() {
            return None;
        }
        let parcel = self.held.pop_front()?;
        self.held_bytes -= parcel.frame.len();
        Some(self.depart(parcel))
    }

    /// The peer has answered for the handle that was sent first.
    pub(crate) fn answered(&mut self, taken: bool, now: Instant) -> Outcome {
        let Some(mut first) = self.in_flight.pop_front() else { return Outcome::Stray };
        let ticket = first.ticket;
        if taken || first.spare.is_none() || first.tries >= AGAIN_MAX || self.again.is_some() {
            return Outcome::Over { ticket, taken };
        }
        let at = now + AGAIN_FIRST * 10_u32.pow(first.tries);
        first.tries += 1;
        self.again = Some((at, first));
        Outcome::Again
    }

    /// When something is to be sent again.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.again.as_ref().map(|(at, _)| *at)
    }

    /// What is to be sent again now. `twin` makes a handle for it; without one, this is the last
    /// time.
    pub(crate) fn due(
        &mut self,
        now: Instant,
        twin: impl FnOnce(&H) -> Option<H>,
    ) -> Option<Leaving<H>> {
        if self.deadline().is_none_or(|at| at > now) {
            return None;
        }
        let (_, mut parcel) = self.again.take()?;
        let (frame, spare) = parcel.spare.take()?;
        // The last time, the one that was kept goes itself.
        let handle = match (parcel.tries < AGAIN_MAX, twin(&spare)) {
            (true, Some(handle)) => {
                parcel.spare = Some((frame.clone(), spare));
                handle
            }
            _ => spare,
        };
        self.in_flight.push_back(parcel);
        Some(Leaving { frame, handle: Some(handle) })
    }

    /// Whether nothing is unanswered and nothing held.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight.is_empty() && self.again.is_none() && self.held.is_empty()
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
        let count = self.held.len() + usize::from(self.again.is_some());
        *self = Gate::new(self.window);
        count
    }

    fn is_shut(&self) -> bool {
        self.again.is_some() || self.in_flight.len() >= self.window
    }

    fn depart(&mut self, parcel: Parcel<H>) -> Leaving<H> {
        let frame = parcel.frame;
        let Some(Cargo { handle, spare, ticket }) = parcel.cargo else {
            return Leaving { frame, handle: None };
        };
        let spare = spare.map(|spare| (frame.clone(), spare));
        self.in_flight.push_back(InFlight { ticket, spare, tries: 0 });
        Leaving { frame, handle: Some(handle) }
    }
}

#[cfg(test)]
mod tests;
