//! Depth polls: how many records lie unread in a backend's queue, and what follows from that.
//!
//! Pure.

use std::time::Instant;

use crate::contract::{ClientAffinity, Output, WorkerId, WorkerKind};

use super::backend::{AfterReclaim, BackendState, SentRecord};
use super::reclaim::{RECLAIM_RETRIES_MAX, RECLAIM_RETRY_PAUSE};
use super::{STALLED, Scheduler, TICK};

/// The verdict of a depth poll on the worker that reads the queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerHealth {
    Responsive,
    /// The worker has left its queue unread for so long that it is to be killed.
    Unresponsive,
}

impl<H: ClientAffinity> Scheduler<H> {
    /// Takes the answer to `PollDepth`: `unread` records lie in the worker's queue.
    pub(crate) fn depth(
        &mut self,
        worker: WorkerId,
        unread: u32,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> WorkerHealth {
        let Ok(at) = self.find(worker) else {
            // A connection may have waited for this answer.
            self.dispatch_waiting(now, out);
            return WorkerHealth::Responsive;
        };
        let unread = usize::try_from(unread).unwrap_or(usize::MAX);
        match self.backends[at].state {
            BackendState::Verifying(_) if unread == 0 => self.remove(at, out),
            BackendState::Verifying(tries) if tries < RECLAIM_RETRIES_MAX => {
                self.backends[at].state = BackendState::RetryingReclaim(tries + 1);
                self.reclaim_retry_at.get_or_insert(now + RECLAIM_RETRY_PAUSE);
            }
            BackendState::Verifying(_) => self.abandon(at, unread, out),
            BackendState::Open | BackendState::Suspect => {
                return self.update_from_depth(at, unread, now, out);
            }
            // The answer was overtaken by a change of state.
            BackendState::Granted
            | BackendState::Reclaiming(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::Draining
            | BackendState::AwaitingAnswers => self.backends[at].polled_depth = None,
        }
        self.dispatch_waiting(now, out);
        WorkerHealth::Responsive
    }

    /// Updates a backend that is in use, and reclaims its queue if it has stalled.
    fn update_from_depth(
        &mut self,
        at: usize,
        unread: usize,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> WorkerHealth {
        let stalled_after = self.patience(STALLED, WorkerKind::Native);
        let backend = &mut self.backends[at];
        let unknown = backend.polled_depth.is_some_and(|polled| polled < unread);
        backend.update_depth(unread, now);
        backend.take_signs_of_life(now);
        let stalled = backend.stalled_since.map(|since| now.saturating_duration_since(since));
        if stalled.is_some_and(|stalled| stalled >= self.unresponsive) {
            self.dispatch_waiting(now, out);
            return WorkerHealth::Unresponsive;
        }
        // A worker without a descriptor reads probes, but could not take a connection.
        let is_short = backend.is_short_of_descriptors();
        if backend.state == BackendState::Suspect && backend.records.is_empty() && !is_short {
            backend.state = BackendState::Open;
        }
        let stalled = match backend.state {
            // More than the probe lies there: the reclaim did not read the queue to its end.
            BackendState::Suspect => unknown,
            BackendState::Granted
            | BackendState::Open
            | BackendState::Reclaiming(_)
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::Draining
            | BackendState::AwaitingAnswers => {
                let takes_none = is_short || backend.has_paused_listener();
                let is_stuck = takes_none && !backend.records.is_empty();
                is_stuck || backend.is_unread_for(stalled_after, now)
            }
        };
        if stalled && self.is_another_free(at) {
            self.reclaim(at, AfterReclaim::Suspect, out);
        }
        if !self.any_needs_polling() {
            self.tick_at = None;
        }
        self.dispatch_waiting(now, out);
        WorkerHealth::Responsive
    }

    /// Asks for the depth of a queue, unless an answer is due already.
    pub(super) fn poll_depth(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        if backend.polled_depth.is_none() {
            backend.polled_depth = Some(backend.records.len());
            out.push(Output::PollDepth { worker: backend.worker, key: self.key });
        }
    }

    /// Sends a record without a connection: its worker proves that it reads.
    pub(super) fn probe(&mut self, at: usize, now: Instant, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        backend.records.push_back(SentRecord { sent_at: now, connection: None });
        out.push(Output::Probe { worker: backend.worker, key: self.key });
        self.tick_at.get_or_insert(now + TICK);
    }

    /// Whether any backend has to be polled every tick.
    ///
    /// The search continues at the backend that it found last. Polls are answered in the order of
    /// the backends, so with many of them each search from the first one would be a long one.
    fn any_needs_polling(&mut self) -> bool {
        let from = self.poll_cursor.min(self.backends.len());
        let needs = |at: &usize| self.backends[*at].needs_polling();
        let found = (from..self.backends.len()).find(needs).or_else(|| (0..from).find(needs));
        self.poll_cursor = found.unwrap_or(0);
        found.is_some()
    }

    fn is_another_free(&self, at: usize) -> bool {
        let mut backends = self.backends.iter().enumerate();
        backends.any(|(other, backend)| other != at && backend.is_free(self.window))
    }
}
