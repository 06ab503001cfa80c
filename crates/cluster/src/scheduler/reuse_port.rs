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

use crate::contract::{Affinity, Output, Slot, WorkerId};
use crate::policy::Policy;

use super::Schedule;
use super::backend::{Lane, LaneState};

/// From whose sockets their workers accept, as it was last said.
#[derive(Debug, Default)]
pub(super) struct OwnSlots {
    slots: BTreeSet<Slot>,
    /// One of the workers is no longer there.
    pub(super) lane_gone: bool,
}

impl<H: Affinity> Schedule<H> {
    /// The worker was granted the socket of its slot, or, after all, not.
    pub(crate) fn set_own(&mut self, worker: WorkerId, own: bool, out: &mut Vec<Output<H>>) {
        if let Ok(at) = self.find(worker) {
            self.lanes[at].own = own;
            self.stand_in_or_not(out);
        }
    }

    /// Connections have waited in the slot's socket, though somebody accepts from it.
    pub(crate) fn unaccepted(&mut self, slot: Slot, now: Instant, out: &mut Vec<Output<H>>) {
        for at in 0..self.lanes.len() {
            let lane = &self.lanes[at];
            // What lies in the queue is a probe as well.
            if lane.slot == slot && lane.accepts_itself() && lane.records.is_empty() {
                self.probe(at, now, out);
            }
        }
    }

    /// Says for which slots the primary has to accept, where that has changed.
    pub(super) fn stand_in_or_not(&mut self, out: &mut Vec<Output<H>>) {
        if self.policy != Policy::ReusePort {
            return;
        }
        // For each connection that is dealt this is a look, and no more.
        let mut changed = std::mem::take(&mut self.own.lane_gone);
        for lane in &mut self.lanes {
            let own = lane.accepts_itself();
            changed |= std::mem::replace(&mut lane.seen_own, own) != own;
        }
        if !changed {
            return;
        }
        let accepting = self.lanes.iter().filter(|lane| lane.seen_own);
        let now: BTreeSet<Slot> = accepting.map(|lane| lane.slot).collect();
        let before = std::mem::replace(&mut self.own.slots, now.clone());
        for slot in before.symmetric_difference(&now) {
            let on = before.contains(slot);
            out.push(Output::StandIn { key: self.key, slot: *slot, on });
        }
    }
}

impl Lane {
    fn accepts_itself(&self) -> bool {
        self.own && self.state == LaneState::Open
    }
}
