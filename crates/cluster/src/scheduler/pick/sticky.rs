//! Sticky dealing: the same client goes to the same slot, as long as its worker takes it.
//!
//! Rendezvous hashing: each slot has a weight for each client, and the heaviest slot that is free
//! gets it. One that comes or goes moves only the clients that it wins or leaves, and a replaced
//! worker gets its predecessor's. What a client left with its worker is worth some waiting, so a
//! lane is late and stuck only after [`PATIENCE`](crate::scheduler::PATIENCE). Of two workers in one slot the
//! younger is chosen. A Node worker is free here as long as it may have one more unanswered:
//! whoever comes back at once finds it again.
//!
//! Pure.

use crate::contract::{Affinity, SlotId, WorkerKind};
use crate::hash::mix;

use crate::scheduler::Scheduler;
use crate::scheduler::node_backend::NODE_WINDOW;

impl<H: Affinity> Scheduler<H> {
    /// The free lane that this client belongs to.
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
    fn clients_are_spread_evenly_and_move_only_to_or_from_who_comes_or_goes() {
        let (four, three) = ([0, 1, 2, 3], [0, 1, 3]);
        let mut counts = [0; 4];
        for client in 0..10_000 {
            let slot = home(mix(client), &four);
            counts[slot as usize] += 1;
            if slot != 2 {
                assert_eq!(home(mix(client), &three), slot, "nobody else moves");
            }
        }
        assert!(counts.iter().all(|count| (2300..2700).contains(count)), "{counts:?}");
    }
}
