//! Whose turn it is.
//!
//! Pure.

mod least_loaded;
mod limit;
mod refresh;
pub(super) mod sticky;

use std::time::Instant;

use crate::contract::{Affinity, Output};
use crate::policy::Policy;

use super::{Scheduler, Waiting};

/// What a connection is dealt by.
#[derive(Clone, Copy, Debug)]
pub(super) enum Choice {
    /// Whose turn it is.
    Turn,
    /// Who has the least.
    Load,
    /// Whom this client belongs to.
    Client(u64),
}

impl<H: Affinity> Scheduler<H> {
    /// The free lane whose turn it is, and the turn goes on; or the one the client belongs to.
    pub(super) fn pick(
        &mut self,
        waiting: &Waiting<H>,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Option<usize> {
        let (turn, choice) = (self.cursor, self.choice(&waiting.connection));
        let picked = match self.pick_by(choice) {
            None if self.await_closed() => self.pick_by(choice),
            picked => picked,
        };
        let at = picked?;
        if self.refresh_stale(choice, turn, at, now, out) {
            self.cursor = turn;
            return None;
        }
        Some(at)
    }

    fn choice(&self, connection: &H) -> Choice {
        match self.policy {
            Policy::RoundRobin | Policy::Shared | Policy::ReusePort => Choice::Turn,
            Policy::LeastLoaded => Choice::Load,
            Policy::Sticky => connection.affinity().map_or(Choice::Turn, Choice::Client),
        }
    }

    fn pick_by(&mut self, choice: Choice) -> Option<usize> {
        match choice {
            Choice::Turn => {
                let at = self.pick_from()?;
                self.cursor = at + 1;
                Some(at)
            }
            Choice::Load => self.pick_least_loaded(),
            Choice::Client(client) => self.pick_sticky(client),
        }
    }

    pub(super) fn pick_from(&self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.backends.len());
        let free = |at: &usize| self.backends[*at].is_free(self.window);
        let found = (turn..self.backends.len()).find(free).or_else(|| (0..turn).find(free));
        found.or_else(|| self.pick_deeper(turn))
    }
}
