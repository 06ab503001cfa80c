//! Whose turn it is.
//!
//! Pure.

use crate::core::{Affinity, Output};
use crate::policy::Policy;

use super::Schedule;

impl<H: Affinity> Schedule<H> {
    /// The free lane whose turn it is, and the turn goes on; or the one the client belongs to.
    pub(super) fn pick(&mut self, connection: &H, out: &mut Vec<Output<H>>) -> Option<usize> {
        let turn = self.cursor;
        let picked = match self.pick_by_policy(connection) {
            None if self.await_ends() => self.pick_by_policy(connection),
            picked => picked,
        };
        let at = picked?;
        if self.policy == Policy::RoundRobin && self.look_before(turn, at, out) {
            self.cursor = turn;
            return None;
        }
        Some(at)
    }

    fn pick_by_policy(&mut self, connection: &H) -> Option<usize> {
        let client = match self.policy {
            Policy::RoundRobin | Policy::None => None,
            Policy::LeastLoaded => return self.pick_least_loaded(),
            Policy::Sticky => connection.affinity(),
        };
        if let Some(client) = client {
            return self.pick_sticky(client);
        }
        let at = self.pick_from()?;
        self.cursor = at + 1;
        Some(at)
    }

    pub(super) fn pick_from(&self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.lanes.len());
        let free = |at: &usize| self.lanes[*at].is_free(self.window);
        let found = (turn..self.lanes.len()).find(free).or_else(|| (0..turn).find(free));
        found.or_else(|| self.pick_deeper(turn))
    }
}
