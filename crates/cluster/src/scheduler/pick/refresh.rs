//! A look at those that would be passed over.
//!
//! A lane that was seen to be late is passed over. That was up to a tick ago, though, and its
//! worker may have read everything since: so the lane that would have been chosen is looked at
//! first, and meanwhile the connection waits. On a busy machine the rotation is strict, the least
//! loaded is chosen and a client stays with its worker only with this. A lane that was found shut
//! is passed over without a look for [`FRESH`], however many connections come.
//!
//! Pure. Limits: [`POLLS_MAX`], by load.

use std::time::{Duration, Instant};

use crate::contract::{Affinity, Output, WorkerKind};

use super::Choice;
use super::sticky::weight;
use crate::scheduler::Scheduler;
use crate::scheduler::backend::{Backend, BackendState};

/// What was seen is true for so long, unless the lane was given something since.
const FRESH: Duration = Duration::from_millis(1);
/// Of those that are late and have less, so many are looked at; the next tick looks at the others.
const POLLS_MAX: usize = 8;

impl<H: Affinity> Scheduler<H> {
    /// Asks about the lanes that would be passed over for the one at `at`; `true` while an answer
    /// is under way. It comes, and deals out what waits.
    pub(super) fn refresh_stale(
        &mut self,
        choice: Choice,
        turn: usize,
        at: usize,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        // One more must be able to wait for the answers.
        if self.waiting.len() >= self.waiting_max {
            return false;
        }
        let mut polls_left = false;
        for passed in self.passed_over(choice, turn, at) {
            let backend = &mut self.backends[passed];
            if backend.polled_at.is_none_or(|at| at + FRESH <= now) {
                backend.polled_at = Some(now);
                self.ask(passed, out);
            }
            polls_left |= self.backends[passed].asked.is_some();
        }
        polls_left
    }

    /// Those that come before the one at `at`, but for what may not be true any more.
    fn passed_over(&self, choice: Choice, turn: usize, at: usize) -> Vec<usize> {
        let count = self.backends.len();
        let turn = turn.min(count);
        // A Node worker that is given more than its share comes after all that may be free.
        let last = !self.backends[at].is_free(self.window);
        match choice {
            Choice::Turn => {
                let end = if last {
                    count + turn
                } else if at < turn {
                    count + at
                } else {
                    at
                };
                let passed = (turn..end).map(|backend| backend % count);
                passed.filter(|backend| self.backends[*backend].may_have_read()).collect()
            }
            Choice::Load => {
                let order = |backend: usize| (backend + count - turn) % count;
                let rank = |backend: usize| (self.backends[backend].load(), order(backend));
                let least = rank(at);
                let slow = (0..count).filter(|backend| self.backends[*backend].may_have_read());
                // Ranked once: workers go on counting.
                let ranked = slow.map(|backend| (rank(backend), backend));
                let mut less: Vec<_> = ranked.filter(|(rank, _)| last || *rank < least).collect();
                if less.len() > POLLS_MAX {
                    less.select_nth_unstable(POLLS_MAX);
                    less.truncate(POLLS_MAX);
                }
                less.into_iter().map(|(_, backend)| backend).collect()
            }
            Choice::Client(client) => {
                let rank = |backend: &Backend| (weight(client, backend.slot), backend.worker);
                let least = rank(&self.backends[at]);
                let shut = (0..count)
                    .filter(|backend| self.backends[*backend].may_take_again(self.window));
                shut.filter(|backend| rank(&self.backends[*backend]) > least).collect()
            }
        }
    }
}

impl Backend {
    /// Is passed over for being late alone.
    fn may_have_read(&self) -> bool {
        self.slow && self.state == BackendState::Open && self.can_be_asked()
    }

    /// Is passed over for anything that its worker may have mended.
    fn may_take_again(&self, window: usize) -> bool {
        let shut = match self.state {
            BackendState::Open => self.slow || self.full || self.records.len() >= window,
            BackendState::Suspect => !self.records.is_empty(),
            BackendState::Granted
            | BackendState::Taking(_)
            | BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Ended
            | BackendState::Answering => false,
        };
        shut && self.can_be_asked()
    }

    fn can_be_asked(&self) -> bool {
        self.kind == WorkerKind::Native && !self.is_at_its_limit()
    }
}
