//! How things end: one worker, one address, everything; and what follows from the state as it is.
//!
//! An address is given up in this order: its socket is closed, with its backlog dealt out first;
//! what waits finds its worker; only then do the queues end, and the workers that were to finish
//! are told so. Half the time that workers have to finish is the most that this may take.
//!
//! Pure.

use std::time::Instant;

use crate::supervisor::lifecycle::{Event, State};

use super::{
    Affinity, CloseReason, Core, Key, Member, Mode, Notice, Output, Place, Slot, WorkerId,
};

/// An address that is being given up.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ending {
    /// Its socket is closed, and all that came from it has come.
    unbound: bool,
    /// From now on nothing is waited for.
    forced_at: Option<Instant>,
}

/// A wish to be told when these workers are gone.
#[derive(Debug)]
pub(super) struct Emptying {
    number: u32,
    workers: Vec<WorkerId>,
}

impl<H: Affinity> Core<H> {
    /// These slots are not to be filled any more; who sits there finishes.
    pub(super) fn retire(&mut self, slots: &[Slot], now: Instant, out: &mut Vec<Output<H>>) {
        let mut leaving = Vec::new();
        for slot in slots {
            let place = self.place(*slot);
            place.wanted = false;
            place.restart_at = None;
            leaving.extend(place.worker);
            leaving.extend(place.successor.take());
            self.ports.disinherit(*slot);
        }
        for worker in &leaving {
            self.live(*worker, Event::Finish, None, now, out);
        }
        // First those addresses that nobody else serves: their queues stay in use for now.
        self.give_up_unwanted(now, out);
        for worker in leaving {
            self.leave_schedules(worker, out);
        }
    }

    /// Nothing more is dealt to the worker, where others serve.
    pub(super) fn leave_schedules(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        for (key, schedule) in &mut self.schedules {
            if !self.ending.contains_key(key) {
                schedule.leave(worker, out);
            }
        }
    }

    pub(super) fn disconnect(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Output<H>>) {
        let Some(slot) = self.members.get(&worker).map(|member| member.slot) else { return };
        // A worker of the time before, dead already, has no say about its slot.
        let place = self.place(slot);
        if place.worker == Some(worker) {
            self.retire(&[slot], now, out);
        } else if place.successor.take_if(|it| *it == worker).is_some() {
            self.live(worker, Event::Finish, None, now, out);
            self.leave_schedules(worker, out);
        }
    }

    /// All workers are to end; the primary stays, and others may come.
    pub(super) fn empty(&mut self, number: u32, now: Instant, out: &mut Vec<Output<H>>) {
        if self.mode == Mode::Finished {
            return out.push(Output::Emptied { number });
        }
        self.started = false;
        self.retire_all(now, out);
        let workers = self.members.keys().copied().collect();
        self.emptying.push(Emptying { number, workers });
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
        for worker in self.members.keys().copied().collect::<Vec<_>>() {
            self.live(worker, Event::Kill, None, now, out);
        }
    }

    fn retire_all(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        let all: Vec<Slot> = (0..).take(self.slots.len()).collect();
        self.retire(&all, now, out);
    }

    /// Draws the conclusions.
    pub(super) fn settle(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        self.collect_gone();
        if !self.postponed.is_empty() {
            self.grant_postponed(out);
        }
        self.advance_reload(now, out);
        self.expire_heirs(now);
        self.give_up_unwanted(now, out);
        for key in self.ending.keys().copied().collect::<Vec<_>>() {
            self.end(key, now, out);
        }
        self.collect_gone();
        self.tell_disconnects(out);
        self.tell_ready(out);
        self.finish(out);
        self.calm_deadline = self.calm_deadline(now);
    }

    /// Notes which queues are gone.
    fn collect_gone(&mut self) {
        for schedule in self.schedules.values_mut() {
            for (worker, counters) in schedule.take_gone() {
                if let Some(member) = self.members.get_mut(&worker) {
                    member.counters.add(&counters);
                }
            }
        }
    }

    /// A worker that came up and did not ask for what its predecessor held never will.
    fn expire_heirs(&mut self, now: Instant) {
        for (slot, place) in (0..).zip(&mut self.slots) {
            let member = place.worker.and_then(|worker| self.members.get(&worker));
            let up = member.is_some_and(|member| member.life.is_ready());
            if !up || !self.ports.is_heir(slot) {
                place.heir_until = None;
                continue;
            }
            if place.heir_until.is_none() {
                place.heir_until = now.checked_add(self.options.settle);
            }
            if place.heir_until.is_some_and(|until| until <= now) {
                place.heir_until = None;
                self.ports.disinherit(slot);
            }
        }
    }

    pub(super) fn give_up_unwanted(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        // Somebody is still to come who may want any of them.
        let coming = |place: &Place| {
            let member = place.worker.and_then(|worker| self.members.get(&worker));
            place.wanted && !member.is_some_and(|member| member.life.is_ready())
        };
        if self.slots.iter().any(coming) {
            return;
        }
        let stays = |worker| self.members.get(&worker).is_some_and(|m| !m.life.is_wanted());
        for key in self.ports.unwanted(stays) {
            self.give_up(key, now, out);
        }
    }

    fn give_up(&mut self, key: Key, now: Instant, out: &mut Vec<Output<H>>) {
        let mut drain = false;
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.give_up_address(out);
            drain = schedule.serves() && self.mode != Mode::Aborting;
        }
        self.ports.unbind(key);
        let forced_at = now.checked_add(self.options.disconnect / 2);
        self.ending.insert(key, Ending { unbound: false, forced_at });
        out.push(Output::Unbind { key, drain });
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.lift_limits(now, out);
        }
    }

    pub(super) fn unbound(&mut self, key: Key, out: &mut Vec<Output<H>>) {
        self.ports.unbound(key);
        self.bind_deferred(out);
        if let Some(ending) = self.ending.get_mut(&key) {
            ending.unbound = true;
        }
    }

    /// Takes an address that is given up one step further, if its time has come.
    fn end(&mut self, key: Key, now: Instant, out: &mut Vec<Output<H>>) {
        let reason = self.close_reason();
        let Some(ending) = self.ending.get(&key) else { return };
        let forced = ending.forced_at.is_some_and(|at| at <= now) || self.mode == Mode::Aborting;
        if let Some(schedule) = self.schedules.get_mut(&key) {
            // What a worker leaves unread can be given to another as long as there is one.
            let busy = schedule.is_taking()
                || schedule.has_unread_beside_others()
                || (schedule.serves() && (schedule.has_waiting() || schedule.may_get_back()));
            if !forced && (busy || !ending.unbound) {
                return;
            }
            schedule.close_waiting(reason, out);
            schedule.end_all(out);
            if schedule.has_lanes() || !ending.unbound {
                return;
            }
        } else if !ending.unbound {
            return;
        }
        self.collect_gone();
        if let Some(schedule) = self.schedules.remove(&key) {
            self.counters.add(&schedule.counters());
        }
        self.ending.remove(&key);
    }

    /// Tells those who are to finish, once nothing more comes to them.
    fn tell_disconnects(&mut self, out: &mut Vec<Output<H>>) {
        for (worker, member) in &mut self.members {
            let due = member.life.state() == State::Draining && !member.told_disconnect;
            if due && self.schedules.values().all(|schedule| schedule.has_ended(*worker)) {
                member.told_disconnect = true;
                if member.life.is_connected() {
                    out.push(Output::SendDisconnect { worker: *worker });
                }
            }
        }
    }

    fn tell_ready(&mut self, out: &mut Vec<Output<H>>) {
        if !self.ready_due || self.mode != Mode::Running {
            return;
        }
        // Nobody wanted is nobody ready: that is told as idle, or as the end.
        if !self.slots.iter().any(|place| place.wanted) {
            return;
        }
        let ready = |place: &Place| {
            let member = place.worker.and_then(|worker| self.members.get(&worker));
            !place.wanted || member.is_some_and(|m| m.life.is_ready() && m.life.may_serve())
        };
        if self.slots.iter().all(ready) {
            self.ready_due = false;
            out.push(Output::Emit(Notice::Ready));
        }
    }

    fn finish(&mut self, out: &mut Vec<Output<H>>) {
        let alive = |member: &Member| member.life.state() != State::Dead;
        let deserted = self.slots.iter().all(|place| !place.wanted);
        let running = self.mode == Mode::Running;
        if (running && !deserted)
            || self.members.values().any(alive)
            || !self.ports.is_empty()
            || !self.ending.is_empty()
            || !self.schedules.is_empty()
        {
            return self.tell_emptied(out);
        }
        // The dead have nothing more to say.
        for (worker, member) in std::mem::take(&mut self.members) {
            let exited_after_disconnect = member.life.is_wanted();
            out.push(Output::Emit(Notice::Disconnect { worker, exited_after_disconnect }));
            out.push(Output::CloseChannel { worker });
        }
        // Whoever disconnected them, or forked them one by one, may start others.
        if running && !self.started {
            if !std::mem::replace(&mut self.idle, true) || !self.emptying.is_empty() {
                out.push(Output::Idle);
            }
            return self.tell_emptied(out);
        }
        self.tell_emptied(out);
        self.mode = Mode::Finished;
        out.push(Output::Finished);
    }

    /// Tells those whose workers are gone, with all that is being given up.
    fn tell_emptied(&mut self, out: &mut Vec<Output<H>>) {
        let alive = |id: &WorkerId| self.members.get(id).is_some_and(|m| !m.life.is_dead());
        // What is bound for one that is gone is yet to be closed.
        let closing = !self.ending.is_empty() || self.ports.is_binding();
        self.emptying.retain(|emptying| {
            let waits = closing || emptying.workers.iter().any(alive);
            if !waits {
                out.push(Output::Emptied { number: emptying.number });
            }
            waits
        });
    }

    fn calm_deadline(&self, now: Instant) -> Option<Instant> {
        let lives = self.members.values().filter_map(|member| member.life.deadline());
        let restarts = self.slots.iter().flat_map(|place| place.restart_at.or(place.heir_until));
        let ends =
            self.ending.values().filter_map(|ending| ending.forced_at.filter(|at| *at > now));
        lives.chain(restarts).chain(ends).chain(self.reload_deadline()).min()
    }

    pub(super) fn close_reason(&self) -> CloseReason {
        match self.mode {
            Mode::Running => CloseReason::NotListening,
            Mode::Stopping | Mode::Aborting | Mode::Finished => CloseReason::Shutdown,
        }
    }
}
