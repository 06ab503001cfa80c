//! Least connections: the backend with the fewest connections, open or in its queue, is next.
//!
//! The primary knows how many connections it has dispatched and reclaimed, and the worker counts
//! those that it has closed. Node workers count nothing: their load is the number of connections
//! that they have not answered.
//!
//! Pure.

use std::sync::Arc;

use crate::contract::{ClientAffinity, SharedPage, WorkerId};
use crate::scheduler::Scheduler;

impl<H: ClientAffinity> Scheduler<H> {
    /// Sets the page that the worker shares with the primary.
    pub(crate) fn set_page(&mut self, worker: WorkerId, page: Arc<dyn SharedPage>) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].page = Some(page);
        }
    }

    /// Picks the free backend with the least load; among equals the one whose turn is next.
    pub(super) fn pick_least_loaded(&mut self) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let turn = self.cursor.min(self.backends.len());
        let order = (turn..self.backends.len()).chain(0..turn);
        let free = order.filter(|at| self.backends[*at].is_free(self.window));
        let least = free.min_by_key(|at| self.backends[*at].load());
        let at = least.or_else(|| self.next_with_node_window(turn))?;
        self.cursor = at + 1;
        Some(at)
    }
}
