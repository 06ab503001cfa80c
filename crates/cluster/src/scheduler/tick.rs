//! The scheduler's timers.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::{ClientAffinity, Output, WorkerId, WorkerKind};

use super::backend::{AfterReclaim, BackendState};
use super::dispatch::IN_FLIGHT_PAUSE;
use super::{Scheduler, TICK};

/// The number of connections that are dispatched at once after [`IN_FLIGHT_PAUSE`].
const IN_FLIGHT_BATCH: usize = 64;
/// The delay of a tick from which this process is taken to have been suspended.
const SUSPENDED_MIN: Duration = Duration::from_millis(100);

impl<H: ClientAffinity> Scheduler<H> {
    /// Does all that is due. Returns the Node workers that have left a connection unanswered for
    /// too long.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Output<H>>) -> Vec<WorkerId> {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.blocked_until = None;
            let waited = self.waiting.len();
            self.dispatch_at_most(IN_FLIGHT_BATCH, now, out);
            // A smaller batch waits for an answer or for room, and not for time to pass.
            if waited - self.waiting.len() == IN_FLIGHT_BATCH && !self.waiting.is_empty() {
                self.blocked_until = Some(now + IN_FLIGHT_PAUSE);
            }
        }
        if self.reclaim_retry_at.is_some_and(|due| due <= now) {
            self.reclaim_retry_at = None;
            for at in 0..self.backends.len() {
                if let BackendState::RetryingReclaim(tries) = self.backends[at].state {
                    self.reclaim(at, AfterReclaim::Drop(tries), out);
                }
            }
        }
        if let Some(due) = self.tick_at.filter(|due| *due <= now) {
            self.discount_suspension(now.duration_since(due));
            return self.poll_backends(now, out);
        }
        Vec::new()
    }

    /// Polls every backend that may have something unread.
    fn poll_backends(&mut self, now: Instant, out: &mut Vec<Output<H>>) -> Vec<WorkerId> {
        let (mut unresponsive, mut is_any_back) = (Vec::new(), false);
        self.tick_at = None;
        for at in 0..self.backends.len() {
            if !self.backends[at].needs_polling() {
                continue;
            }
            self.tick_at = Some(now + TICK);
            if self.backends[at].kind == WorkerKind::Node {
                is_any_back |= self.backends[at].end_backoff(now);
                unresponsive.extend(self.check_answers(at, now));
                continue;
            }
            if self.backends[at].state == BackendState::Suspect
                && self.backends[at].records.is_empty()
            {
                self.probe(at, now, out);
            }
            self.poll_depth(at, out);
        }
        // The worker that a connection waits for may have hung for long.
        if is_any_back || (self.has_homes() && !self.waiting.is_empty()) {
            self.dispatch_waiting(now, out);
        }
        unresponsive
    }

    /// Takes the time in which this process was suspended off the age of all records: the workers
    /// may have been suspended, too.
    fn discount_suspension(&mut self, delay: Duration) {
        if delay < SUSPENDED_MIN {
            return;
        }
        for backend in &mut self.backends {
            backend.records.iter_mut().for_each(|sent| sent.sent_at += delay);
            backend.stalled_since = backend.stalled_since.map(|since| since + delay);
        }
    }
}
