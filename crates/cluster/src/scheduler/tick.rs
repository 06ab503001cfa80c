//! What a schedule does when time has passed.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::{Affinity, Output, WorkerId, WorkerKind};

use super::backend::{After, BackendState};
use super::{IN_FLIGHT_BATCH, IN_FLIGHT_PAUSE, STOOD_STILL, Scheduler, TICK};

impl<H: Affinity> Scheduler<H> {
    /// Looks at all that is due; gives the Node workers that left theirs unanswered too long.
    pub(crate) fn tick(&mut self, now: Instant, out: &mut Vec<Output<H>>) -> Vec<WorkerId> {
        if self.blocked_until.is_some_and(|until| until <= now) {
            self.blocked_until = None;
            // One that sent less waits for an answer or for room, and not for time to pass.
            let waited = self.waiting.len();
            self.pump(IN_FLIGHT_BATCH, now, out);
            if waited - self.waiting.len() == IN_FLIGHT_BATCH && !self.waiting.is_empty() {
                self.blocked_until = Some(now + IN_FLIGHT_PAUSE);
            }
        }
        if self.again_at.is_some_and(|due| due <= now) {
            self.again_at = None;
            for at in 0..self.backends.len() {
                if let BackendState::Again(tries) = self.backends[at].state {
                    self.reclaim(at, After::Drop(tries), out);
                }
            }
        }
        if let Some(due) = self.tick_at.filter(|due| *due <= now) {
            self.stood_still(now.duration_since(due));
            return self.poll(now, out);
        }
        Vec::new()
    }

    /// Asks about every lane that may have something unread.
    fn poll(&mut self, now: Instant, out: &mut Vec<Output<H>>) -> Vec<WorkerId> {
        let (mut silent, mut rested) = (Vec::new(), false);
        self.tick_at = None;
        for at in 0..self.backends.len() {
            if !self.backends[at].is_watched() {
                continue;
            }
            self.tick_at = Some(now + TICK);
            if self.backends[at].kind == WorkerKind::Node {
                rested |= self.backends[at].rested(now);
                silent.extend(self.silent(at, now));
                continue;
            }
            if self.backends[at].state == BackendState::Suspect
                && self.backends[at].records.is_empty()
            {
                self.probe(at, now, out);
            }
            self.ask(at, out);
        }
        if rested {
            self.pump(usize::MAX, now, out);
        }
        silent
    }

    /// Time in which this process stood still counts for nobody: the workers may have, too.
    fn stood_still(&mut self, slow: Duration) {
        if slow < STOOD_STILL {
            return;
        }
        for backend in &mut self.backends {
            backend.records.iter_mut().for_each(|sent| sent.at += slow);
            backend.stalled_since = backend.stalled_since.map(|since| since + slow);
        }
    }
}
