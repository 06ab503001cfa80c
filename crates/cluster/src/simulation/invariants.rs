//! The invariants of addresses: an address outlives its listeners while a worker may come, and a
//! successor has all addresses of its predecessor.

use super::*;

impl World {
    /// Checks that an address is closed only when no worker can come, the user wants it, or no
    /// worker has listened for as long as a start may take.
    pub(super) fn check_may_unbind(&mut self, key: Key) {
        self.closures_due += u32::from(!self.stopping && !self.wanted.is_empty());
        let Some(claims) = self.claims.remove(&key) else { return };
        if self.stopping || self.closed_by_user.contains(&key) {
            return;
        }
        let claims = claims.iter().filter(|(slot, _)| self.wanted.contains(slot));
        let last = claims.map(|(_, last)| *last).max();
        if let Some(since) = last.map(|last| self.now - last) {
            assert!(since >= self.options.ready, "{key} was closed after {since:?}");
        }
    }

    pub(super) fn check_address_closed(&mut self) {
        self.mark("address closed");
        self.closures_due = self.closures_due.checked_sub(1).expect("an address was closed");
    }

    /// Records which workers have the slots, and checks that each worker that a reload has put into
    /// a slot listens wherever its predecessor did.
    pub(super) fn check_succession(&mut self) {
        assert_eq!(self.closures_due, 0, "the end of an address is reported");
        let wanted = &self.wanted;
        self.claims.values_mut().for_each(|claims| claims.retain(|it, _| wanted.contains(it)));
        for (id, worker) in &self.workers {
            if worker.history.exited || !self.supervisor.holds_slot(*id) {
                continue;
            }
            for key in &worker.history.listening {
                // A worker that leaves listens no more, though its slot may be wanted again.
                if worker.history.finishing || !self.wanted.contains(&worker.slot) {
                    continue;
                }
                self.claims.entry(*key).or_default().insert(worker.slot, self.now);
            }
            let before = self.holders.insert(worker.slot, *id).filter(|before| before != id);
            let Some(predecessor) = before.map(|before| &self.workers[&before]) else { continue };
            if predecessor.history.exited || !predecessor.history.asked {
                continue;
            }
            for key in &predecessor.history.listening {
                let open = self.bound.get(key).is_some_and(|bound| !bound.closing);
                let listens = worker.history.listening.contains(key);
                assert!(listens || !open, "{id} took over without {key}");
            }
        }
    }

    /// Checks that a worker listens on each address that is bound.
    pub(super) fn check_all_bound_are_served(&self) {
        for key in self.bound.keys() {
            let listens = |worker: &SimulatedWorker| {
                !worker.history.exited && worker.history.listening.contains(key)
            };
            assert!(self.workers.values().any(listens), "clients wait at {key} for ever");
        }
    }
}
