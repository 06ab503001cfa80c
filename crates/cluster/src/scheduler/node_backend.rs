//! Lanes of Node workers: connections that ride on the channel and cannot be read back.
//!
//! Each is answered: taken, declined, or lost on the way. Until then the primary keeps its copy.
//! One moves to another worker only when it was not taken, or when the worker is gone for good
//! and its channel was read to the end: earlier, two workers could read from it. So a worker gets
//! one at a time while others are free, and never more than [`NODE_WINDOW`]; one that is late
//! with an answer gets nothing new, and one that stays silent is killed. One that cannot be heard,
//! because the user leaves its messages unread, only gets nothing new.
//!
//! A worker that declines says nothing when it would not any more. It rests, first for a tick,
//! then ever longer up to [`REST_MAX`]; then one connection finds out. So those that are all at
//! their limit play no ping-pong, and one that ran out of descriptors is not punished for life.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::{Affinity, Answer, Output, WorkerId, WorkerKind};

use super::backend::{After, Backend, BackendState, Origin};
use super::{Scheduler, TICK, Waiting};

/// So many may be unanswered where nobody is free.
pub(super) const NODE_WINDOW: usize = 8;
/// The longest rest.
const REST_MAX: Duration = Duration::from_millis(100);

impl<H: Affinity> Scheduler<H> {
    /// A worker answered the `nth` of those it had not answered.
    pub(crate) fn answered(
        &mut self,
        worker: WorkerId,
        nth: usize,
        answer: Answer<H>,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let mut number = 0;
        let backend = self.find(worker).map(|at| &mut self.backends[at]);
        if let Ok(backend) = backend {
            if let Some(origin) = backend.records.remove(nth).and_then(|sent| sent.connection) {
                number = origin.number;
            }
            backend.slow = backend.is_unread_for(backend.slow_after, now);
            backend.paused = false;
            match answer {
                Answer::Taken => backend.rest = None,
                Answer::Declined(_) | Answer::Lost(_) => {
                    backend.counters.reclaimed += 1;
                    backend.begin_rest(now);
                    self.tick_at.get_or_insert(now + TICK);
                }
            }
        }
        if let Answer::Declined(connection) | Answer::Lost(connection) = answer {
            self.counters.reclaimed += 1;
            self.put_back(Waiting { connection, origin: Origin { number, again: true } });
        }
        if let Ok(at) = self.find(worker) {
            if self.backends[at].state == BackendState::Answering
                && self.backends[at].records.is_empty()
            {
                self.remove(at, out);
            }
        }
        self.pump(usize::MAX, now, out);
        self.trim(out);
    }

    /// Nothing more comes from the worker: what it has not answered it never will.
    pub(crate) fn hung_up(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        if self.backends[at].kind == WorkerKind::Native {
            return;
        }
        match self.backends[at].state {
            BackendState::Open | BackendState::Ended | BackendState::Answering
                if !self.backends[at].records.is_empty() =>
            {
                self.reclaim(at, After::Drop(0), out);
            }
            BackendState::Granted
            | BackendState::Open
            | BackendState::Ended
            | BackendState::Answering => {
                self.remove(at, out);
            }
            // The last is under way, the others are no states of such a lane.
            BackendState::Taking(_)
            | BackendState::Suspect
            | BackendState::Checking(_)
            | BackendState::Again(_) => {}
        }
        self.accept_or_not(out);
    }

    /// The worker may have answered, and cannot be heard: it is late, and its time does not run.
    pub(crate) fn paused(&mut self, worker: WorkerId) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].paused = true;
        }
    }

    /// The worker gets nothing more.
    pub(super) fn await_answers(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        if self.backends[at].records.is_empty() {
            self.remove(at, out);
        } else {
            self.backends[at].state = BackendState::Answering;
        }
    }

    /// Nobody is free: the next Node worker that may have more than one.
    pub(super) fn pick_deeper(&self, turn: usize) -> Option<usize> {
        let window = self.window.min(NODE_WINDOW);
        let has_room = |at: &usize| {
            let backend = &self.backends[*at];
            backend.kind == WorkerKind::Node && backend.has_room(window)
        };
        (turn..self.backends.len()).find(has_room).or_else(|| (0..turn).find(has_room))
    }

    /// Looks at a lane; names its worker if that was silent for too long.
    pub(super) fn silent(&mut self, at: usize, now: Instant) -> Option<WorkerId> {
        let backend = &mut self.backends[at];
        if std::mem::take(&mut backend.paused) && !backend.records.is_empty() {
            backend.slow = true;
            backend.records.iter_mut().for_each(|sent| sent.at = now);
            return None;
        }
        backend.slow = backend.is_unread_for(backend.slow_after, now);
        let since = backend.records.front()?.at;
        let silent = now.saturating_duration_since(since) >= self.unresponsive_node;
        silent.then_some(backend.worker)
    }
}

impl Backend {
    fn begin_rest(&mut self, now: Instant) {
        let rest = match self.rest {
            // Of several that it was given at once.
            Some((until, _)) if now < until => return,
            Some((_, rest)) => (rest * 2).min(REST_MAX),
            None => TICK,
        };
        self.rest = Some((now + rest, rest));
        self.full = true;
    }

    /// Ends a rest that is over; also the pause after the channel had no room.
    pub(super) fn rested(&mut self, now: Instant) -> bool {
        let over = self.rest.is_none_or(|(until, _)| until <= now);
        over && std::mem::take(&mut self.full)
    }
}
