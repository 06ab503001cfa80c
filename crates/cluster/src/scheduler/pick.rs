//! The choice of a backend for one connection, by the policy.
//!
//! The rules are round robin, which is here, the least load, and the affinity of clients. All rules
//! skip backends at their connection limit, and poll a backend again before they skip it for being
//! slow.
//!
//! Pure.

mod least_loaded;
mod limit;
mod revalidate;
pub(super) mod sticky;
pub(super) mod turns;

use std::time::Instant;

use crate::contract::{ClientAffinity, Output};
use crate::policy::Policy;

use super::Scheduler;

/// The rule by which a connection gets its backend.
#[derive(Clone, Copy, Debug)]
pub(super) enum Rule {
    RoundRobin,
    LeastLoaded,
    /// Affinity: the hash of the connection's client.
    Sticky(u64),
}

/// Whether a connection has a place in the line of waiting connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum HasPlace {
    Yes,
    No,
}

impl<H: ClientAffinity> Scheduler<H> {
    /// Picks a free backend and moves the rotation on. Returns `None` when no backend is free, or
    /// when the answers to polls are due that may change the choice.
    pub(super) fn pick(
        &mut self,
        rule: Rule,
        place: HasPlace,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Option<usize> {
        if let Some(at) = self.repay(rule) {
            return Some(at);
        }
        let turn = self.cursor;
        let picked = match self.pick_by(rule, now) {
            None if self.await_closed() => self.pick_by(rule, now),
            picked => picked,
        };
        let Some(at) = picked else {
            self.refresh_home(rule, now, out);
            return None;
        };
        // Without a place to wait there is no time for the answers to polls.
        if place == HasPlace::Yes && self.refresh_stale(rule, turn, at, now, out) {
            self.cursor = turn;
            return None;
        }
        self.note_passed_over(rule, turn, at);
        Some(at)
    }

    pub(super) fn rule(&self, connection: &H) -> Rule {
        match self.policy {
            Policy::RoundRobin | Policy::Shared | Policy::ReusePort => Rule::RoundRobin,
            Policy::LeastLoaded => Rule::LeastLoaded,
            Policy::Sticky => connection.affinity().map_or(Rule::RoundRobin, Rule::Sticky),
        }
    }

    fn pick_by(&mut self, rule: Rule, now: Instant) -> Option<usize> {
        match rule {
            Rule::RoundRobin => {
                let at = self.next_in_rotation()?;
                self.cursor = at + 1;
                Some(at)
            }
            Rule::LeastLoaded => self.pick_least_loaded(),
            Rule::Sticky(client) => self.pick_sticky(client, now),
        }
    }

    /// Returns the free backend whose turn is next, without moving the rotation on.
    pub(super) fn next_in_rotation(&self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.backends.len());
        let free = |at: &usize| self.backends[*at].is_free(self.window);
        let found = (turn..self.backends.len()).find(free).or_else(|| (0..turn).find(free));
        found.or_else(|| self.next_with_node_window(turn))
    }
}
