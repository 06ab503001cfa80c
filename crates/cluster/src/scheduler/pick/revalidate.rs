//! Refresh: the backends that a choice would skip are polled before they are skipped.
//!
//! The primary's view of a slow backend is up to a tick old, and the worker may have read
//! everything since. Therefore each backend that would have been picked, were it not slow, is
//! polled first, and the connection waits for the answers. On a busy machine only this makes the
//! rotation strict, picks the least loaded, and keeps a client with its worker. After a poll that
//! found a backend unusable, the backend is skipped without another for [`VALID_FOR`], however many
//! connections come.
//!
//! Pure. Limits: [`POLLS_MAX`], by load.

use std::time::{Duration, Instant};

use crate::contract::{ClientAffinity, Output, WorkerKind};
use crate::scheduler::Scheduler;
use crate::scheduler::backend::{Backend, BackendState};

use super::Rule;
use super::sticky::weight;

/// The time for which a poll is valid, unless a connection is dispatched to the backend.
const VALID_FOR: Duration = Duration::from_millis(1);
/// The number of slow backends with less load that are polled; the next tick polls the others.
const POLLS_MAX: usize = 8;

impl<H: ClientAffinity> Scheduler<H> {
    /// Polls the backends that would be skipped for the one at `at`. Returns whether any answer is
    /// due; the answers dispatch the waiting connections.
    pub(super) fn refresh_stale(
        &mut self,
        rule: Rule,
        turn: usize,
        at: usize,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        let mut is_answer_due = false;
        for skipped in self.skipped(rule, turn, at) {
            self.poll_if_stale(skipped, now, out);
            is_answer_due |= self.backends[skipped].polled_depth.is_some();
        }
        is_answer_due
    }

    /// Polls a backend, unless its last poll is valid.
    pub(super) fn poll_if_stale(&mut self, at: usize, now: Instant, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        if backend.refreshed_at.is_none_or(|at| at + VALID_FOR <= now) {
            backend.refreshed_at = Some(now);
            self.poll_depth(at, out);
        }
    }

    /// Returns the backends that come before the one at `at` but for a state that may have changed
    /// since the last poll.
    fn skipped(&self, rule: Rule, turn: usize, at: usize) -> Vec<usize> {
        let count = self.backends.len();
        let turn = turn.min(count);
        // A Node worker that gets a second connection comes after all backends that may be free.
        let last = !self.backends[at].is_free(self.window);
        match rule {
            Rule::RoundRobin => {
                let end = if last {
                    count + turn
                } else if at < turn {
                    count + at
                } else {
                    at
                };
                let skipped = (turn..end).map(|backend| backend % count);
                skipped.filter(|backend| self.backends[*backend].is_only_slow()).collect()
            }
            Rule::LeastLoaded => {
                let order = |backend: usize| (backend + count - turn) % count;
                let rank = |backend: usize| (self.backends[backend].load(), order(backend));
                let least = rank(at);
                let slow = (0..count).filter(|backend| self.backends[*backend].is_only_slow());
                // The ranks are computed once, because workers change their counters meanwhile.
                let ranked = slow.map(|backend| (rank(backend), backend));
                let mut less: Vec<_> = ranked.filter(|(rank, _)| last || *rank < least).collect();
                if less.len() > POLLS_MAX {
                    less.select_nth_unstable(POLLS_MAX);
                    less.truncate(POLLS_MAX);
                }
                less.into_iter().map(|(_, backend)| backend).collect()
            }
            Rule::Sticky(client) => {
                let rank = |backend: &Backend| (weight(client, backend.slot), backend.worker);
                let least = rank(&self.backends[at]);
                let blocked = (0..count)
                    .filter(|backend| self.backends[*backend].may_be_usable_again(self.window));
                blocked.filter(|backend| rank(&self.backends[*backend]) > least).collect()
            }
        }
    }
}

impl Backend {
    /// Whether the backend is skipped for being slow alone.
    fn is_only_slow(&self) -> bool {
        self.is_slow && self.state == BackendState::Open && self.can_be_polled()
    }

    /// Whether the backend is skipped for a reason that ends when its worker reads.
    fn may_be_usable_again(&self, window: usize) -> bool {
        let blocked = match self.state {
            BackendState::Open => self.is_slow || self.is_full || self.records.len() >= window,
            BackendState::Suspect => !self.records.is_empty(),
            BackendState::Granted
            | BackendState::Reclaiming(_)
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::Draining
            | BackendState::AwaitingAnswers => false,
        };
        blocked && self.can_be_polled()
    }

    fn can_be_polled(&self) -> bool {
        self.kind == WorkerKind::Native && !self.is_at_its_limit()
    }
}
