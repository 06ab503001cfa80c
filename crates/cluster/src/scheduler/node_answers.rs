//! Backends of Node workers: their connections ride on the channel and cannot be reclaimed.
//!
//! The worker answers each connection: taken, declined, or lost on the way. Until then the primary
//! keeps its copy. A connection moves to another worker only when this one did not take it, or when
//! this one has exited and its channel was read to the end: earlier, two workers could read from
//! the same connection. Therefore a worker gets one connection at a time while other backends are
//! free, and never more than [`NODE_WINDOW`]. A worker that is slow to answer gets nothing new, and
//! a worker that leaves a connection unanswered for too long is killed. The time does not count
//! while the primary does not read the worker's channel because the user leaves messages unread;
//! such a worker only gets nothing new.
//!
//! A worker that declined does not report when it would take connections again. The scheduler
//! therefore retries it with back-off: after a tick at first, then after ever longer pauses up to
//! [`BACKOFF_MAX`], each time with one connection. Workers that are all at their limit do not pass
//! a connection back and forth, and a worker that ran out of descriptors once is used again.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::{Answer, ClientAffinity, Output, WorkerId, WorkerKind};

use super::backend::{AfterReclaim, Backend, BackendState, ConnectionTag};
use super::dispatch::WaitingConnection;
use super::{Scheduler, TICK};

/// The number of connections that a worker may leave unanswered while no backend is free.
pub(super) const NODE_WINDOW: usize = 8;
/// The longest back-off.
const BACKOFF_MAX: Duration = Duration::from_millis(100);

impl<H: ClientAffinity> Scheduler<H> {
    /// Takes a worker's answer to the `nth` of its unanswered connections.
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
            if let Some(tag) = backend.records.remove(nth).and_then(|sent| sent.connection) {
                number = tag.number;
            }
            backend.is_slow = backend.is_unread_for(backend.slow_after, now);
            backend.is_paused = false;
            match answer {
                Answer::Taken => backend.backoff = None,
                Answer::Declined(_) | Answer::Lost(_) => {
                    backend.counters.reclaimed += 1;
                    backend.begin_backoff(now);
                    self.tick_at.get_or_insert(now + TICK);
                }
            }
        }
        if let Answer::Declined(connection) | Answer::Lost(connection) = answer {
            self.counters.reclaimed += 1;
            let tag = ConnectionTag { number, was_reclaimed: true };
            self.requeue(WaitingConnection { connection, tag });
        }
        if let Ok(at) = self.find(worker) {
            if self.backends[at].state == BackendState::AwaitingAnswers
                && self.backends[at].records.is_empty()
            {
                self.remove(at, out);
            }
        }
        self.dispatch_waiting(now, out);
        self.close_excess(out);
    }

    /// Takes the end of a worker's channel, after which no answer to a connection can arrive.
    pub(crate) fn channel_closed(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        if self.backends[at].kind == WorkerKind::Native {
            return;
        }
        match self.backends[at].state {
            BackendState::Open | BackendState::Draining | BackendState::AwaitingAnswers
                if !self.backends[at].records.is_empty() =>
            {
                self.reclaim(at, AfterReclaim::Drop(0), out);
            }
            BackendState::Granted
            | BackendState::Open
            | BackendState::Draining
            | BackendState::AwaitingAnswers => {
                self.remove(at, out);
            }
            // A reclaim is under way already; a Node worker's backend has none of the other states.
            BackendState::Reclaiming(_)
            | BackendState::Suspect
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_) => {}
        }
        self.update_accepting(out);
    }

    /// Records that the primary does not read the worker's channel at present: the worker may have
    /// answered. Until the next answer it counts as slow, and its time is not measured.
    pub(crate) fn paused(&mut self, worker: WorkerId) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].is_paused = true;
        }
    }

    /// Closes a backend as soon as its worker has answered all its connections.
    pub(super) fn await_answers(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        if self.backends[at].records.is_empty() {
            self.remove(at, out);
        } else {
            self.backends[at].state = BackendState::AwaitingAnswers;
        }
    }

    /// Returns the next Node worker that may have more than one unanswered connection, for a moment
    /// in which no backend is free.
    pub(super) fn next_with_node_window(&self, turn: usize) -> Option<usize> {
        let window = self.window.min(NODE_WINDOW);
        let has_room = |at: &usize| {
            let backend = &self.backends[*at];
            backend.kind == WorkerKind::Node && backend.has_room(window)
        };
        (turn..self.backends.len()).find(has_room).or_else(|| (0..turn).find(has_room))
    }

    /// Updates how slow a worker is to answer. Returns the worker if it has been silent for too
    /// long.
    pub(super) fn check_answers(&mut self, at: usize, now: Instant) -> Option<WorkerId> {
        let backend = &mut self.backends[at];
        if std::mem::take(&mut backend.is_paused) && !backend.records.is_empty() {
            backend.is_slow = true;
            backend.records.iter_mut().for_each(|sent| sent.sent_at = now);
            return None;
        }
        backend.is_slow = backend.is_unread_for(backend.slow_after, now);
        let since = backend.records.front()?.sent_at;
        let silent = now.saturating_duration_since(since) >= self.unresponsive_node;
        silent.then_some(backend.worker)
    }
}

impl Backend {
    fn begin_backoff(&mut self, now: Instant) {
        let backoff = match self.backoff {
            // The answer to another connection of the same batch has begun the back-off.
            Some((until, _)) if now < until => return,
            Some((_, backoff)) => (backoff * 2).min(BACKOFF_MAX),
            None => TICK,
        };
        self.backoff = Some((now + backoff, backoff));
        self.is_full = true;
    }

    /// Ends a back-off that is over, and the pause after the channel had no room. Returns whether
    /// either was in force.
    pub(super) fn end_backoff(&mut self, now: Instant) -> bool {
        let over = self.backoff.is_none_or(|(until, _)| until <= now);
        over && std::mem::take(&mut self.is_full)
    }
}
