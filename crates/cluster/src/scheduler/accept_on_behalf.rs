//! Workers that accept by themselves, each from its slot's own socket (`Policy::ReusePort`).
//!
//! Under this policy the kernel balances the load, and connections do not pass through the primary.
//! The primary accepts on behalf of each slot whose worker does not accept: not yet, no longer, or
//! not at present. The scheduler dispatches these connections in rotation into the hand-off queues,
//! which workers with an own socket have as well.
//!
//! The primary cannot see whether a worker accepts by itself. When connections have waited in the
//! worker's socket for long, the scheduler therefore sends a probe into the worker's queue. A worker that leaves the probe unread becomes suspect like any other.
//!
//! Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::contract::{ClientAffinity, Output, SlotId, WorkerId};
use crate::policy::Policy;

use super::Scheduler;
use super::backend::{Backend, BackendState};

/// The slots whose workers accept from their own sockets, as last reported to the driver.
#[derive(Debug, Default)]
pub(super) struct AcceptingSlots {
    slots: BTreeSet<SlotId>,
    /// Whether a backend of such a worker was removed since the last report.
    pub(super) backend_removed: bool,
}

impl<H: ClientAffinity> Scheduler<H> {
    /// Records whether the worker has its slot's own socket.
    pub(crate) fn set_own_socket(
        &mut self,
        worker: WorkerId,
        has_own_socket: bool,
        out: &mut Vec<Output<H>>,
    ) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].has_own_socket = has_own_socket;
            self.update_accept_on_behalf(out);
        }
    }

    /// Probes the workers of a slot in whose socket connections have waited, although a worker
    /// accepts from it.
    pub(crate) fn unaccepted(&mut self, slot: SlotId, now: Instant, out: &mut Vec<Output<H>>) {
        for at in 0..self.backends.len() {
            let backend = &self.backends[at];
            // A record that lies in the queue already is as good as a probe.
            if backend.slot == slot && backend.accepts_itself() && backend.records.is_empty() {
                self.probe(at, now, out);
            }
        }
    }

    /// Begins or stops to accept on behalf of each slot whose worker has stopped or begun to accept.
    pub(super) fn update_accept_on_behalf(&mut self, out: &mut Vec<Output<H>>) {
        if self.policy != Policy::ReusePort {
            return;
        }
        // This runs for every dispatched connection: without a change it allocates nothing.
        let mut changed = std::mem::take(&mut self.accepting_slots.backend_removed);
        for backend in &mut self.backends {
            let accepts = backend.accepts_itself();
            changed |= std::mem::replace(&mut backend.was_accepting, accepts) != accepts;
        }
        if !changed {
            return;
        }
        let accepting = self.backends.iter().filter(|backend| backend.was_accepting);
        let now: BTreeSet<SlotId> = accepting.map(|backend| backend.slot).collect();
        let before = std::mem::replace(&mut self.accepting_slots.slots, now.clone());
        for slot in before.symmetric_difference(&now) {
            let on = before.contains(slot);
            out.push(Output::AcceptOnBehalf { key: self.key, slot: *slot, on });
        }
    }
}

impl Backend {
    fn accepts_itself(&self) -> bool {
        self.has_own_socket && self.state == BackendState::Open && !self.has_paused_listener()
    }
}
