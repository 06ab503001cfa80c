//! The end of a worker, of an address and of the primary; and reconciliation.
//!
//! An address is closed in this order. The socket is closed, after the connections in its backlog
//! were accepted. The connections that wait are dispatched. Then the queues end, and workers that
//! are to finish get their request. All of this may take half of the time that workers have to
//! finish.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::supervisor::lifecycle::Event;

use super::{
    Address, ClientAffinity, CloseReason, Key, Mode, Notice, Output, Slot, SlotId, Supervisor,
    WorkerEntry, WorkerId,
};

/// The time to finish for the workers of a start that was given up.
pub(crate) const GIVEN_UP_DISCONNECT: Duration = Duration::from_millis(500);

/// An address that is being closed.
#[derive(Clone, Copy, Debug)]
pub(super) struct ClosingKey {
    /// The socket is closed, and all of its connections have arrived.
    unbound: bool,
    /// From this time on the queues end without waiting.
    forced_at: Option<Instant>,
}

/// A `DisconnectAll` request that waits for the end of these workers.
#[derive(Debug)]
pub(super) struct DisconnectingAll {
    number: u32,
    workers: Vec<WorkerId>,
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Gives up slots: their workers finish and are not replaced.
    pub(super) fn retire(&mut self, slots: &[SlotId], now: Instant, out: &mut Vec<Output<H>>) {
        let mut leaving = Vec::new();
        for slot in slots {
            let slot_entry = self.slot_mut(*slot);
            slot_entry.wanted = false;
            slot_entry.restart_at = None;
            leaving.extend(slot_entry.worker);
            leaving.extend(slot_entry.successor.take());
            self.addresses.drop_reservation(*slot);
        }
        for worker in &leaving {
            self.ask_to_finish(*worker, now, out);
        }
        // First, because workers of an address that closes keep their queues until it is closed.
        self.close_unused_addresses(now, out);
        for worker in leaving {
            self.leave_schedulers(worker, out);
        }
    }

    /// Stops dispatching to the worker, except on addresses that are being closed.
    pub(super) fn leave_schedulers(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        for (key, scheduler) in &mut self.schedulers {
            if !self.closing.contains_key(key) {
                scheduler.drain_backend(worker, out);
            }
        }
    }

    pub(super) fn disconnect(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Output<H>>) {
        let Some(slot) = self.workers.get(&worker).map(|entry| entry.slot) else { return };
        // The slot may have another worker by now, which stays.
        let slot_entry = self.slot_mut(slot);
        if slot_entry.worker == Some(worker) {
            self.retire(&[slot], now, out);
        } else if slot_entry.successor.take_if(|it| *it == worker).is_some() {
            self.ask_to_finish(worker, now, out);
            self.leave_schedulers(worker, out);
        }
    }

    /// Ends all workers; the primary stays, and others may be started.
    pub(super) fn disconnect_all(&mut self, number: u32, now: Instant, out: &mut Vec<Output<H>>) {
        if self.mode == Mode::Finished {
            return out.push(Output::AllGone { number });
        }
        self.started = false;
        self.retire_all(now, out);
        let workers = self.workers.keys().copied().collect();
        self.disconnecting_all.push(DisconnectingAll { number, workers });
    }

    /// Ends a first start for which nobody waits any more. A worker that can receive the request to
    /// finish has little time for it, and any other none.
    pub(super) fn give_up_start(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        if !self.starting {
            return;
        }
        let deaf = |entry: &WorkerEntry| entry.life.exit_requested() || !entry.life.was_online();
        let deaf = self.workers.iter().filter(|(_, entry)| deaf(entry)).map(|(id, _)| *id);
        let deaf: Vec<_> = deaf.collect();
        self.options.disconnect = self.options.disconnect.min(GIVEN_UP_DISCONNECT);
        self.options.disconnect_node = self.options.disconnect;
        self.options.term_node = self.options.term_node.min(self.options.term);
        self.shutdown(now, out);
        for worker in deaf {
            self.apply(worker, Event::Expire, None, now, out);
        }
    }

    pub(super) fn shutdown(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        if self.mode == Mode::Running {
            self.mode = Mode::Stopping;
            self.retire_all(now, out);
        }
    }

    pub(super) fn abort(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        if matches!(self.mode, Mode::Aborting | Mode::Finished) {
            return;
        }
        self.mode = Mode::Aborting;
        self.retire_all(now, out);
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.apply(worker, Event::Kill, None, now, out);
        }
    }

    fn retire_all(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        let all: Vec<SlotId> = (0..).take(self.slots.len()).collect();
        self.retire(&all, now, out);
    }

    /// Derives all pending outputs from the state.
    pub(super) fn reconcile(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        self.collect_gone();
        if !self.postponed_grants.is_empty() {
            self.grant_postponed(out);
        }
        self.advance_reload(now, out);
        self.expire_reservations(now);
        self.close_unused_addresses(now, out);
        for key in self.closing.keys().copied().collect::<Vec<_>>() {
            self.advance_closing(key, now, out);
        }
        self.collect_gone();
        self.apply_ended_queues(now, out);
        self.emit_ready(out);
        self.finish(out);
        self.await_starts(now);
        self.control_deadline = self.control_deadline(now);
    }

    /// Collects the counts of queues that are gone.
    fn collect_gone(&mut self) {
        for scheduler in self.schedulers.values_mut() {
            for (worker, counters) in scheduler.take_removed() {
                if let Some(entry) = self.workers.get_mut(&worker) {
                    entry.counters.add(&counters);
                }
            }
        }
    }

    /// Drops reservations of slots whose worker did not request the address in time.
    fn expire_reservations(&mut self, now: Instant) {
        let (slots, workers) = (&self.slots, &self.workers);
        let is_up = |slot: SlotId| {
            let slot_entry = &slots[usize::try_from(slot).expect("slots are counted in memory")];
            let entry = slot_entry.worker.and_then(|worker| workers.get(&worker));
            entry.is_some_and(|entry| entry.life.is_ready() && entry.life.may_serve())
        };
        let stays = |worker| workers.get(&worker).is_some_and(|m| !m.life.exit_requested());
        let until = now.checked_add(self.options.ready);
        self.addresses.expire_reservations(now, until, is_up, stays);
    }

    pub(super) fn close_unused_addresses(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        // A worker that is not ready yet, or that replaces one that ends, may request any address.
        let coming = |slot_entry: &Slot| {
            let entry = slot_entry.worker.and_then(|worker| self.workers.get(&worker));
            let up = entry.is_some_and(|entry| entry.life.is_ready() && entry.life.may_serve());
            slot_entry.wanted && !up
        };
        let coming = self.slots.iter().any(coming);
        let stays = |worker| self.workers.get(&worker).is_some_and(|m| !m.life.exit_requested());
        for key in self.addresses.unused(stays) {
            // Each slot that had a lapsed address has had its time.
            let lapsed = self.addresses.has_lapsed(key) && self.mode == Mode::Running;
            if coming && !lapsed {
                continue;
            }
            self.close_address(key, now, out);
        }
    }

    /// Closes an address because the user wants it, though workers listen there.
    pub(super) fn close_at(&mut self, address: &Address, now: Instant, out: &mut Vec<Output<H>>) {
        for key in self.addresses.bound_at(address) {
            self.close_address(key, now, out);
        }
    }

    fn close_address(&mut self, key: Key, now: Instant, out: &mut Vec<Output<H>>) {
        let mut drain = false;
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.close_address(out);
            drain = scheduler.has_serving_backend() && self.mode != Mode::Aborting;
        }
        let goes_on = self.mode == Mode::Running && self.slots.iter().any(|slot| slot.wanted);
        let address = self.addresses.address(key).filter(|_| goes_on).cloned();
        self.addresses.unbind(key);
        let forced_at = now.checked_add(self.options.disconnect / 2);
        self.closing.insert(key, ClosingKey { unbound: false, forced_at });
        out.push(Output::Unbind { key, drain });
        out.extend(address.map(|address| Output::AddressClosed { address }));
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.lift_limits(now, out);
        }
    }

    pub(super) fn unbound(&mut self, key: Key, out: &mut Vec<Output<H>>) {
        self.addresses.unbound(key);
        self.bind_deferred(out);
        if let Some(closing) = self.closing.get_mut(&key) {
            closing.unbound = true;
        }
    }

    /// Takes the closing of an address one step further, if possible.
    fn advance_closing(&mut self, key: Key, now: Instant, out: &mut Vec<Output<H>>) {
        let reason = self.close_reason();
        let Some(closing) = self.closing.get(&key) else { return };
        let forced = closing.forced_at.is_some_and(|at| at <= now) || self.mode == Mode::Aborting;
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            // Connections that one worker leaves unread can go to another until the queues end.
            let busy = scheduler.is_reclaiming()
                || scheduler.has_unread_and_another_backend()
                || (scheduler.has_serving_backend()
                    && (scheduler.has_waiting() || scheduler.may_reclaim_more()));
            if !forced && (busy || !closing.unbound) {
                return;
            }
            scheduler.close_waiting(reason, out);
            scheduler.drain_all(out);
            if scheduler.has_backends() || !closing.unbound {
                return;
            }
        } else if !closing.unbound {
            return;
        }
        self.collect_gone();
        if let Some(scheduler) = self.schedulers.remove(&key) {
            self.counters.add(&scheduler.counters());
        }
        self.closing.remove(&key);
    }

    /// Asks draining workers to finish, as soon as all their queues have ended.
    fn apply_ended_queues(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        let ended =
            |worker: &WorkerId| self.schedulers.values().all(|it| it.may_disconnect(*worker));
        let waiting = self.workers.iter().filter(|(_, entry)| entry.life.awaits_queues());
        let due: Vec<_> = waiting.map(|(id, _)| *id).filter(ended).collect();
        for worker in due {
            self.apply(worker, Event::QueuesEnded, None, now, out);
        }
    }

    fn emit_ready(&mut self, out: &mut Vec<Output<H>>) {
        if !self.ready_due || self.mode != Mode::Running {
            return;
        }
        // With no wanted slot there is nothing to report as ready; `Idle` or `Finished` follows.
        if !self.slots.iter().any(|slot_entry| slot_entry.wanted) {
            return;
        }
        let ready = |slot_entry: &Slot| {
            let entry = slot_entry.worker.and_then(|worker| self.workers.get(&worker));
            !slot_entry.wanted || entry.is_some_and(|m| m.life.is_ready() && m.life.may_serve())
        };
        if self.slots.iter().all(ready) {
            self.ready_due = false;
            self.starting = false;
            out.push(Output::Ready);
        }
    }

    fn finish(&mut self, out: &mut Vec<Output<H>>) {
        let alive = |entry: &WorkerEntry| !entry.life.is_dead();
        let deserted = self.slots.iter().all(|slot_entry| !slot_entry.wanted);
        let running = self.mode == Mode::Running;
        if (running && !deserted)
            || self.workers.values().any(alive)
            || !self.addresses.is_empty()
            || !self.closing.is_empty()
            || !self.schedulers.is_empty()
        {
            return self.complete_disconnect_all(out);
        }
        // All workers are dead, and the rest of their messages does not matter any more.
        for worker in self.workers.keys().copied().collect::<Vec<_>>() {
            self.emit(worker, Notice::Disconnect, out);
            out.push(Output::CloseChannel { worker });
        }
        self.workers.clear();
        // After `disconnect`, and with workers from `fork` alone, the user may start others.
        if running && !self.started {
            self.starting = false;
            if !std::mem::replace(&mut self.idle, true) || !self.disconnecting_all.is_empty() {
                out.push(Output::Idle);
            }
            return self.complete_disconnect_all(out);
        }
        self.complete_disconnect_all(out);
        self.mode = Mode::Finished;
        out.push(Output::Finished);
    }

    /// Answers `DisconnectAll` requests whose workers are gone and whose addresses are closed.
    fn complete_disconnect_all(&mut self, out: &mut Vec<Output<H>>) {
        let alive = |id: WorkerId| self.workers.get(&id).is_some_and(|m| !m.life.is_dead());
        // A worker that stays may keep its listener of a closed address for as long as it lives.
        let is_kept = |key: &Key| {
            self.schedulers.get(key).is_some_and(|it| it.has_backends() && it.workers().all(alive))
        };
        let mut closing = self.closing.iter();
        let closing = closing.any(|(key, closing)| !closing.unbound || !is_kept(key));
        // An address that is being bound for a dead worker is still to be closed.
        let closing = closing || self.addresses.is_binding();
        self.disconnecting_all.retain(|disconnecting_all| {
            let waits = closing || disconnecting_all.workers.iter().copied().any(alive);
            if !waits {
                out.push(Output::AllGone { number: disconnecting_all.number });
            }
            waits
        });
    }

    fn control_deadline(&self, now: Instant) -> Option<Instant> {
        let lives = self.workers.values().filter_map(|entry| entry.life.deadline());
        let restarts = self.slots.iter().filter_map(|slot_entry| slot_entry.restart_at);
        let reservations = self.addresses.deadline().filter(|at| *at > now);
        // A time that has passed has had its effect: as a deadline it would be due in every turn.
        let ends =
            self.closing.values().filter_map(|closing| closing.forced_at.filter(|at| *at > now));
        let others = restarts.chain(reservations).chain(ends).chain(self.start_deadline());
        lives.chain(others).chain(self.reload_deadline()).min()
    }

    pub(super) fn close_reason(&self) -> CloseReason {
        match self.mode {
            Mode::Running => CloseReason::NotListening,
            Mode::Stopping | Mode::Aborting | Mode::Finished => CloseReason::Shutdown,
        }
    }
}
