//! Dealing by load: who has the fewest connections, open or in the queue, is next.
//!
//! The primary knows what it sent and was given back, the worker counts what has ended; where it
//! counts nothing, as Node's do not, its load is what it has not answered.
//!
//! Pure.

use std::sync::Arc;

use crate::contract::{Affinity, ClosedCounter, WorkerId};

use crate::scheduler::Scheduler;

impl<H: Affinity> Scheduler<H> {
    /// The worker counts what has ended here.
    pub(crate) fn set_closed_counter(
        &mut self,
        worker: WorkerId,
        closed_counter: Arc<dyn ClosedCounter>,
    ) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].closed_counter = Some(closed_counter);
        }
    }

    /// The free lane with the least load; among equals the first whose turn it is.
    pub(super) fn pick_least_loaded(&mut self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.backends.len());
        let order = (turn..self.backends.len()).chain(0..turn);
        let free = order.filter(|at| self.backends[*at].is_free(self.window));
        let least = free.min_by_key(|at| self.backends[*at].load());
        let at = least.or_else(|| self.pick_deeper(turn))?;
        self.cursor = at + 1;
        Some(at)
    }
}
