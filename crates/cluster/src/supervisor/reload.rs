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
    remaining: Vec<SlotId>,
    current: Option<Step>,
    /// Predecessors that have not ended.
    leaving: Vec<WorkerId>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    slot: SlotId,
    successor: WorkerId,
    /// By then it has to be ready.
    ready_until: Option<Instant>,
    /// Ready, but without some listener of its predecessor: waited for until then.
    grace_until: Option<Instant>,
}

/// What becomes of the slot at work.
enum StepOutcome {
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
        let remaining = (0..).take(self.slots.len()).collect::<Vec<SlotId>>();
        let remaining = remaining.into_iter().rev().collect();
        self.reload = Some(Reload { number, remaining, current: None, leaving: Vec::new() });
    }

    /// Takes the reload as far as it can go now.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        while let Some(mut reload) = self.reload.take() {
            if self.mode != Mode::Running || !self.disconnecting_all.is_empty() {
                let result = Err(ReloadFailure::Closed);
                return out.push(Output::Reloaded { number: reload.number, result });
            }
            let Some(step) = reload.current.take() else {
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
            match self.step_outcome(step, now) {
                StepOutcome::Wait(step) => {
                    reload.current = Some(step);
                    self.reload = Some(reload);
                    return;
                }
                StepOutcome::TakeOver => {
                    reload.leaving.extend(self.take_over(step, now, out));
                    self.reload = Some(reload);
                }
                StepOutcome::Skip => self.reload = Some(reload),
                StepOutcome::Fail(failure) => {
                    // It may come up yet, and would be one too many.
                    let slot_entry = self.slot_mut(step.slot);
                    if slot_entry.successor.take_if(|it| *it == step.successor).is_some() {
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
        while let Some(slot) = reload.remaining.pop() {
            let slot_entry = self.slot_mut(slot);
            let (wanted, predecessor) = (slot_entry.wanted, slot_entry.worker);
            let serves = predecessor.and_then(|predecessor| self.workers.get(&predecessor));
            // An empty slot, or one whose worker is ending, is about to get a new one anyway.
            if !wanted || !serves.is_some_and(|entry| entry.life.may_serve()) {
                continue;
            }
            let successor = self.create_worker(slot, false, true, out);
            self.slot_mut(slot).successor = Some(successor);
            let ready_until = now.checked_add(self.options.ready);
            reload.current = Some(Step { slot, successor, ready_until, grace_until: None });
            return true;
        }
        false
    }

    fn step_outcome(&self, step: Step, now: Instant) -> StepOutcome {
        let slot_entry =
            &self.slots[usize::try_from(step.slot).expect("slots are counted in memory")];
        if !slot_entry.wanted {
            return StepOutcome::Skip;
        }
        let worker = step.successor;
        let entry = self.workers.get(&worker).filter(|entry| !entry.life.is_dead());
        let Some(entry) = entry else { return StepOutcome::Fail(ReloadFailure::Ended(worker)) };
        let slow = step.ready_until.is_some_and(|ready_until| ready_until <= now);
        // One that hung up is on its way out: how it ends is worth waiting for.
        if !entry.life.is_ready() || !entry.life.may_serve() {
            let failure = StepOutcome::Fail(ReloadFailure::NotReady(worker));
            return if slow {
                failure
            } else {
                StepOutcome::Wait(Step { grace_until: None, ..step })
            };
        }
        let grace_until = step.grace_until.or_else(|| now.checked_add(self.options.listen_grace));
        let grace_over = grace_until.is_some_and(|at| at <= now);
        let predecessor = slot_entry.worker.filter(|predecessor| *predecessor != worker);
        if slow
            || grace_over
            || predecessor.is_none_or(|predecessor| self.listens_on_all_of(worker, predecessor))
        {
            return StepOutcome::TakeOver;
        }
        StepOutcome::Wait(Step { grace_until, ..step })
    }

    fn listens_on_all_of(&self, worker: WorkerId, predecessor: WorkerId) -> bool {
        let listens = |key| match self.schedulers.get(&key) {
            Some(scheduler) => scheduler.is_backend_open(worker),
            None => self.addresses.holds(worker, key),
        };
        self.addresses.held_by(predecessor).into_iter().all(listens)
    }

    /// The successor holds the slot; gives its predecessor, who finishes.
    fn take_over(
        &mut self,
        step: Step,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Option<WorkerId> {
        let slot_entry = self.slot_mut(step.slot);
        slot_entry.successor = None;
        let predecessor = slot_entry.worker.replace(step.successor)?;
        if predecessor == step.successor {
            return None;
        }
        self.apply(predecessor, Event::Finish, None, now, out);
        // First those addresses that nobody else serves: their queues stay in use for now.
        self.close_unused_addresses(now, out);
        self.leave_schedulers(predecessor, out);
        Some(predecessor)
    }

    /// When a step of the reload is due.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        let step = self.reload.as_ref()?.current?;
        step.grace_until.into_iter().chain(step.ready_until).min()
    }
}
