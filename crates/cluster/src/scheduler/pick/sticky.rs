//! Client affinity: a client goes to the worker of one slot, its home, as long as that worker lives.
//!
//! This is rendezvous hashing: each slot has a weight for each client, and the slot with the
//! greatest weight is the client's home. A slot that is added or removed moves only the clients that
//! it wins or loses, and a worker that replaces another gets its clients. The younger of two workers
//! in one slot is picked.
//!
//! A home that has no room at the moment is waited for: the state that a client has in its worker
//! is worth more than the time. The connection waits in the primary, which goes on to accept and
//! to dispatch connections of other homes. Only three kinds of backend are passed over:
//!
//! - a backend that is slow, which under this policy means that it was about to be killed;
//! - a backend that is suspect or at its connection limit, because its worker cannot take more;
//! - a backend whose worker has read nothing for [`FULL_LIST_PATIENCE`], while the list of waiting
//!   connections is full: otherwise one hung worker would keep all clients waiting.
//!
//! A Node worker has room here while it may have one more unanswered connection: a client that
//! comes back at once finds its worker again.
//!
//! Pure. Limits: the number of waiting connections, an option.

use std::time::{Duration, Instant};

use crate::contract::{ClientAffinity, Output, SlotId, WorkerKind};
use crate::policy::Policy;
use crate::protocol::client_hash::mix;
use crate::scheduler::backend::{Backend, BackendState};
use crate::scheduler::node_answers::NODE_WINDOW;
use crate::scheduler::{SLOW, Scheduler};

use super::Rule;

/// The time for which a worker may read nothing while the list of waiting connections is full.
pub(in crate::scheduler) const FULL_LIST_PATIENCE: Duration = Duration::from_secs(1);
/// The interval between polls of a home that reads, while connections wait for it.
const HOME_TICK: Duration = Duration::from_millis(2);

impl<H: ClientAffinity> Scheduler<H> {
    /// Picks the home of this client; `None` when the connection has to wait for it.
    pub(super) fn pick_sticky(&self, client: u64, now: Instant) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let home = self.home(client, now)?;
        self.has_room_for_sticky(&self.backends[home]).then_some(home)
    }

    fn home(&self, client: u64, now: Instant) -> Option<usize> {
        let is_list_full = !self.may_accept_sticky();
        let is_home = |backend: &Backend| {
            let serves = backend.state == BackendState::Open && !backend.is_slow;
            let hangs = is_list_full && backend.is_unread_for(FULL_LIST_PATIENCE, now);
            // A closing address waits for nobody.
            let waits = self.is_open || self.has_room_for_sticky(backend);
            serves && !hangs && waits && !backend.is_at_its_limit()
        };
        let homes = self.backends.iter().enumerate().filter(|(_, backend)| is_home(backend));
        let heaviest =
            homes.max_by_key(|(_, backend)| (weight(client, backend.slot), backend.worker));
        heaviest.map(|(at, _)| at)
    }

    fn has_room_for_sticky(&self, backend: &Backend) -> bool {
        match backend.kind {
            WorkerKind::Native => backend.has_room(self.window),
            WorkerKind::Node => backend.has_room(self.window.min(NODE_WINDOW)),
        }
    }

    /// Whether any backend could take a connection of a client whose home it is.
    pub(in crate::scheduler) fn has_room_for_any(&self) -> bool {
        let mut backends = self.backends.iter();
        self.has_homes()
            && self.blocked_until.is_none()
            && backends.any(|backend| self.has_room_for_sticky(backend))
    }

    /// Whether connections of different clients wait for different backends.
    pub(in crate::scheduler) fn has_homes(&self) -> bool {
        self.policy == Policy::Sticky
    }

    /// Whether one more connection may wait, also if all unread ones come back.
    pub(in crate::scheduler) fn may_accept_sticky(&self) -> bool {
        let unread = || self.backends.iter().map(|backend| backend.records.len()).sum::<usize>();
        self.waiting.is_empty() || self.waiting.len() + unread() < self.waiting_max
    }

    /// Polls the home of a connection that has to wait, in case its worker has read meanwhile; the
    /// answer dispatches the waiting connections.
    pub(super) fn refresh_home(&mut self, rule: Rule, now: Instant, out: &mut Vec<Output<H>>) {
        let Rule::Sticky(client) = rule else { return };
        let Some(home) = self.home(client, now) else { return };
        if self.backends[home].kind == WorkerKind::Node {
            return;
        }
        self.poll_if_stale(home, now, out);
        if !self.backends[home].is_unread_for(SLOW, now) {
            let due = now + HOME_TICK;
            self.tick_at = Some(self.tick_at.map_or(due, |tick_at| tick_at.min(due)));
        }
    }
}

pub(in crate::scheduler) fn weight(client: u64, slot: SlotId) -> u64 {
    mix(client ^ mix(u64::from(slot) + 1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(client: u64, slots: &[SlotId]) -> SlotId {
        *slots.iter().max_by_key(|slot| weight(client, **slot)).unwrap()
    }

    #[test]
    fn clients_are_spread_evenly_and_only_those_of_an_added_or_removed_slot_move() {
        let (four, three) = ([0, 1, 2, 3], [0, 1, 3]);
        let mut counts = [0; 4];
        for client in 0..10_000 {
            let slot = home(mix(client), &four);
            counts[slot as usize] += 1;
            if slot != 2 {
                assert_eq!(home(mix(client), &three), slot, "a client of another slot moves");
            }
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
    }
}
