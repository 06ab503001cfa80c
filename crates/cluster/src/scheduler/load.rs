//! Dealing by load: who has the fewest connections, open or in the queue, is next.
//!
//! The primary knows what it sent and was given back, the worker counts what has ended; where it
//! counts nothing, as Node's do not, its load is what it has not answered.
//!
//! Pure.

use std::sync::Arc;

use crate::contract::{Affinity, Ends, WorkerId};

use super::Schedule;
use super::backend::Lane;

impl<H: Affinity> Schedule<H> {
    /// The worker counts what has ended here.
    pub(crate) fn count_ends(&mut self, worker: WorkerId, ends: Arc<dyn Ends>) {
        if let Ok(at) = self.find(worker) {
            self.lanes[at].ends = Some(ends);
        }
    }

    /// The free lane with the least load; among equals the first whose turn it is.
    pub(super) fn pick_least_loaded(&mut self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.lanes.len());
        let order = (turn..self.lanes.len()).chain(0..turn);
        let free = order.filter(|at| self.lanes[*at].is_free(self.window));
        let least = free.min_by_key(|at| self.lanes[*at].load());
        let at = least.or_else(|| self.pick_deeper(turn))?;
        self.cursor = at + 1;
        Some(at)
    }
}

impl Lane {
    pub(super) fn load(&self) -> u64 {
        let unread = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.ends.as_ref().map_or(unread, |ends| {
            let given = self.counters.dispatched.saturating_sub(self.counters.taken_back);
            given.saturating_sub(ends.ended())
        })
    }
}
