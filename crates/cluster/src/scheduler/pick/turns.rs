//! Turns: a backend that the rotation passed over gets its turns back.
//!
//! On a busy machine a worker may be without a processor for some time, and others get the
//! connections of its turns meanwhile. Connections that live long would keep that imbalance for
//! ever. Each such turn is therefore owed to the backend, and every second connection goes to the
//! backend with the most turns owed, if it is free: it catches up without a burst in its queue.
//!
//! Nothing is owed for the time in which a backend is suspect or at its connection limit, because
//! its worker then takes no connections for a longer time.
//!
//! Pure. Limits: [`OWED_MAX`].

use crate::contract::ClientAffinity;
use crate::scheduler::Scheduler;
use crate::scheduler::backend::{Backend, BackendState};

use super::Rule;

/// The most turns that are owed to a backend.
pub(in crate::scheduler) const OWED_MAX: u32 = 1024;

/// The state of the repayment, beside the turns that each backend is owed.
#[derive(Debug, Default)]
pub(in crate::scheduler) struct Repayment {
    /// Whether any backend may be owed a turn.
    is_any_owed: bool,
    /// Whether the last connection was dispatched in rotation.
    is_next: bool,
}

impl<H: ClientAffinity> Scheduler<H> {
    /// Picks the backend that is owed the most turns, for every second connection.
    pub(super) fn repay(&mut self, rule: Rule) -> Option<usize> {
        let in_rotation = matches!(rule, Rule::RoundRobin) && self.blocked_until.is_none();
        if !in_rotation || !std::mem::take(&mut self.repayment.is_next) {
            return None;
        }
        let backends = self.backends.iter().enumerate();
        let owed = backends.filter(|(_, it)| it.owed > 0 && it.is_free(self.window));
        let (at, _) = owed.max_by_key(|(_, it)| it.owed)?;
        self.backends[at].owed -= 1;
        Some(at)
    }

    /// Notes the turns of the backends that were passed over, from `turn` on, for the one at `at`.
    pub(super) fn note_passed_over(&mut self, rule: Rule, turn: usize, at: usize) {
        let count = self.backends.len();
        if !matches!(rule, Rule::RoundRobin) || !self.backends[at].is_free(self.window) {
            return;
        }
        let turn = if turn < count { turn } else { 0 };
        let passed_over = (at + count - turn) % count;
        for passed in (turn..turn + passed_over).map(|backend| backend % count) {
            let backend = &mut self.backends[passed];
            if backend.state == BackendState::Open && !backend.is_at_its_limit() {
                backend.owed = (backend.owed + 1).min(OWED_MAX);
                self.repayment.is_any_owed = true;
            }
        }
        if self.repayment.is_any_owed {
            if passed_over > 0 {
                self.settle();
            }
            self.repayment.is_any_owed = self.backends.iter().any(|backend| backend.owed > 0);
        }
        self.repayment.is_next = self.repayment.is_any_owed;
    }

    /// Takes off the turns that are owed to all open backends alike.
    fn settle(&mut self) {
        let open = |backend: &&mut Backend| backend.state == BackendState::Open;
        let owed = self.backends.iter_mut().filter(open).map(|backend| backend.owed).min();
        let Some(all) = owed.filter(|owed| *owed > 0) else { return };
        for backend in &mut self.backends {
            backend.owed = backend.owed.saturating_sub(all);
        }
    }
}
