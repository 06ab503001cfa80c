//! A rolling reload: one slot after the other gets a worker of the new build, and only when that
//! one listens is its predecessor asked to finish.
//!
//! While a slot is at work two workers may sit in it: the *holder*, who serves, and the
//! *successor*, who is coming up. A successor takes over when it listens on all that the holder
//! listens on, or has been ready for the time that workers have to ask for what is theirs. One
//! that ends before, or is not ready in time, fails the reload: the holders that are left stay. A
//! holder that dies meanwhile leaves its slot to the successor.
//!
//! Pure.

use std::time::Instant;

use crate::supervisor::lifecycle::Event;

use super::{Affinity, Mode, Output, ReloadFailure, SlotId, Supervisor, WorkerId};

/// A reload under way.
#[derive(Debug)]
pub(super) struct Reload {
    number: u32,
    /// Slots that are still to be done, the next one last.
    left: Vec<SlotId>,
    at_work: Option<Step>,
    /// Predecessors that have not ended.
    leaving: Vec<WorkerId>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    slot: SlotId,
    successor: WorkerId,
    /// By then it has to be ready.
    until: Option<Instant>,
    /// Ready, but without some listener of its predecessor: waited for until then.
    settles: Option<Instant>,
}

/// What becomes of the slot at work.
enum Turn {
    Wait(Step),
    TakeOver,
    /// The slot is not wanted any more.
    Skip,
    Fail(ReloadFailure),
}

impl<H: Affinity> Supervisor<H> {
    /// The user wants every worker replaced.
    pub(super) fn reload(&mut self, number: u32, out: &mut Vec<Output<H>>) {
        let refused = match self.mode {
            Mode::Running if self.idle || !self.disconnecting_all.is_empty() => {
                Some(ReloadFailure::Closed)
            }
            Mode::Running => self.reload.as_ref().map(|_| ReloadFailure::UnderWay),
            Mode::Stopping | Mode::Aborting | Mode::Finished => Some(ReloadFailure::Closed),
        };
        if let Some(failure) = refused {
            return out.push(Output::Reloaded { number, result: Err(failure) });
        }
        let left = (0..).take(self.slots.len()).collect::<Vec<SlotId>>();
        let left = left.into_iter().rev().collect();
        self.reload = Some(Reload { number, left, at_work: None, leaving: Vec::new() });
    }

    /// Takes the reload as far as it can go now.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        while let Some(mut reload) = self.reload.take() {
            if self.mode != Mode::Running || !self.disconnecting_all.is_empty() {
                let result = Err(ReloadFailure::Closed);
                return out.push(Output::Reloaded { number: reload.number, result });
            }
            let Some(step) = reload.at_work.take() else {
                if self.begin_step(&mut reload, now, out) {
                    self.reload = Some(reload);
                    continue;
                }
                let alive = |id: &WorkerId| self.workers.get(id).is_some_and(|m| !m.life.is_dead());
                reload.leaving.retain(alive);
                if reload.leaving.is_empty() {
                    out.push(Output::Reloaded { number: reload.number, result: Ok(()) });
                } else {
                    self.reload = Some(reload);
                }
                return;
            };
            match self.judge(step, now) {
                Turn::Wait(step) => {
                    reload.at_work = Some(step);
                    self.reload = Some(reload);
                    return;
                }
                Turn::TakeOver => {
                    reload.leaving.extend(self.take_over(step, now, out));
                    self.reload = Some(reload);
                }
                Turn::Skip => self.reload = Some(reload),
                Turn::Fail(failure) => {
                    // It may come up yet, and would be one too many.
                    let place = self.place(step.slot);
                    if place.successor.take_if(|it| *it == step.successor).is_some() {
                        self.apply(step.successor, Event::Finish, None, now, out);
                        self.leave_schedulers(step.successor, out);
                    }
                    let result = Err(failure);
                    return out.push(Output::Reloaded { number: reload.number, result });
                }
            }
        }
    }

    /// Starts the next successor; `false` when no slot is left.
    fn begin_step(&mut self, reload: &mut Reload, now: Instant, out: &mut Vec<Output<H>>) -> bool {
        while let Some(slot) = reload.left.pop() {
            let place = self.place(slot);
            let (wanted, holder) = (place.wanted, place.worker);
            let serves = holder.and_then(|holder| self.workers.get(&holder));
            // An empty slot, or one whose worker is ending, is about to get a new one anyway.
            if !wanted || !serves.is_some_and(|entry| entry.life.may_serve()) {
                continue;
            }
            let successor = self.order(slot, false, true, out);
            self.place(slot).successor = Some(successor);
            let until = now.checked_add(self.options.ready);
            reload.at_work = Some(Step { slot, successor, until, settles: None });
            return true;
        }
        false
    }

    fn judge(&self, step: Step, now: Instant) -> Turn {
        let place = &self.slots[usize::try_from(step.slot).expect("slots are counted in memory")];
        if !place.wanted {
            return Turn::Skip;
        }
        let worker = step.successor;
        let entry = self.workers.get(&worker).filter(|entry| !entry.life.is_dead());
        let Some(entry) = entry else { return Turn::Fail(ReloadFailure::Ended(worker)) };
        let slow = step.until.is_some_and(|until| until <= now);
        // One that hung up is on its way out: how it ends is worth waiting for.
        if !entry.life.is_ready() || !entry.life.may_serve() {
            let failure = Turn::Fail(ReloadFailure::NotReady(worker));
            return if slow { failure } else { Turn::Wait(Step { settles: None, ..step }) };
        }
        let settles = step.settles.or_else(|| now.checked_add(self.options.settle));
        let settled = settles.is_some_and(|at| at <= now);
        let holder = place.worker.filter(|holder| *holder != worker);
        if slow || settled || holder.is_none_or(|holder| self.listens_on_all_of(worker, holder)) {
            return Turn::TakeOver;
        }
        Turn::Wait(Step { settles, ..step })
    }

    fn listens_on_all_of(&self, worker: WorkerId, holder: WorkerId) -> bool {
        let listens = |key| match self.schedulers.get(&key) {
            Some(scheduler) => scheduler.is_backend_open(worker),
            None => self.addresses.holds(worker, key),
        };
        self.addresses.held_by(holder).into_iter().all(listens)
    }

    /// The successor holds the slot; gives its predecessor, who finishes.
    fn take_over(
        &mut self,
        step: Step,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Option<WorkerId> {
        let place = self.place(step.slot);
        place.successor = None;
        let holder = place.worker.replace(step.successor)?;
        if holder == step.successor {
            return None;
        }
        self.apply(holder, Event::Finish, None, now, out);
        // First those addresses that nobody else serves: their queues stay in use for now.
        self.give_up_unwanted(now, out);
        self.leave_schedulers(holder, out);
        Some(holder)
    }

    /// When a step of the reload is due.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        let step = self.reload.as_ref()?.at_work?;
        step.settles.into_iter().chain(step.until).min()
    }
}
