//! Workers that accept by themselves, each from a socket of its slot's own.
//!
//! The kernel deals then, and the primary is not on the way. It stands in for a slot whose worker
//! does not accept: not yet, no longer, or not now. What it accepts in its stead is dealt out in
//! rotation, over the queues that these workers have as well.
//!
//! Whether a worker accepts is not known as long as it does. Where connections wait in its socket
//! for long its queue is given a probe, and the worker becomes suspect as any other if it leaves
//! that unread.
//!
//! Pure.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::contract::{Affinity, Output, SlotId, WorkerId};
use crate::policy::Policy;

use super::Scheduler;
use super::backend::{Backend, BackendState};

/// From whose sockets their workers accept, as it was last said.
#[derive(Debug, Default)]
pub(super) struct OwnSockets {
    slots: BTreeSet<SlotId>,
    /// One of the workers is no longer there.
    pub(super) lane_gone: bool,
}

impl<H: Affinity> Scheduler<H> {
    /// The worker was granted the socket of its slot, or, after all, not.
    pub(crate) fn set_own_socket(&mut self, worker: WorkerId, own: bool, out: &mut Vec<Output<H>>) {
        if let Ok(at) = self.find(worker) {
            self.backends[at].own = own;
            self.update_accept_on_behalf(out);
        }
    }

    /// Connections have waited in the slot's socket, though somebody accepts from it.
    pub(crate) fn unaccepted(&mut self, slot: SlotId, now: Instant, out: &mut Vec<Output<H>>) {
        for at in 0..self.backends.len() {
            let backend = &self.backends[at];
            // What lies in the queue is a probe as well.
            if backend.slot == slot && backend.accepts_itself() && backend.records.is_empty() {
                self.probe(at, now, out);
            }
        }
    }

    /// Says for which slots the primary has to accept, where that has changed.
    pub(super) fn update_accept_on_behalf(&mut self, out: &mut Vec<Output<H>>) {
        if self.policy != Policy::ReusePort {
            return;
        }
        // For each connection that is dealt this is a look, and no more.
        let mut changed = std::mem::take(&mut self.own.lane_gone);
        for backend in &mut self.backends {
            let own = backend.accepts_itself();
            changed |= std::mem::replace(&mut backend.was_accepting, own) != own;
        }
        if !changed {
            return;
        }
        let accepting = self.backends.iter().filter(|backend| backend.was_accepting);
        let now: BTreeSet<SlotId> = accepting.map(|backend| backend.slot).collect();
        let before = std::mem::replace(&mut self.own.slots, now.clone());
        for slot in before.symmetric_difference(&now) {
            let on = before.contains(slot);
            out.push(Output::AcceptOnBehalf { key: self.key, slot: *slot, on });
        }
    }
}

impl Backend {
    fn accepts_itself(&self) -> bool {
        self.own && self.state == BackendState::Open
    }
}
