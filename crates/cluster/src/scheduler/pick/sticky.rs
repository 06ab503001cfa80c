//! Client affinity: the same client goes to the same slot, as long as the slot's worker takes it.
//!
//! This is rendezvous hashing: each slot has a weight for each client, and the free slot with the
//! greatest weight gets the client. A slot that is added or removed moves only the clients that it
//! wins or loses, and a worker that replaces another gets its clients. The state that a client has
//! in its worker is worth some waiting, so a backend is slow and stalled only after
//! [`STICKY_PATIENCE`](crate::scheduler::STICKY_PATIENCE). The younger of two workers in one slot
//! is picked. A Node worker is free here while it may have one more unanswered connection: a client
//! that comes back at once finds its worker again.
//!
//! Pure.

use crate::contract::{ClientAffinity, SlotId, WorkerKind};
use crate::protocol::client_hash::mix;
use crate::scheduler::Scheduler;
use crate::scheduler::node_answers::NODE_WINDOW;

impl<H: ClientAffinity> Scheduler<H> {
    /// Picks the free backend with the greatest weight for this client.
    pub(super) fn pick_sticky(&self, client: u64) -> Option<usize> {
        if self.blocked_until.is_some() {
            return None;
        }
        let backends = self.backends.iter().enumerate();
        let free = backends.filter(|(_, backend)| match backend.kind {
            WorkerKind::Native => backend.is_free(self.window),
            WorkerKind::Node => backend.has_room(self.window.min(NODE_WINDOW)),
        });
        let heaviest =
            free.max_by_key(|(_, backend)| (weight(client, backend.slot), backend.worker));
        heaviest.map(|(at, _)| at)
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
