//! A rolling reload: one slot after the other gets a new worker, and only when the new worker
//! listens is the old one asked to finish.
//!
//! During its step a slot has two workers: the predecessor, which serves, and the successor, which
//! is being started. The successor takes over when it listens on every address of the predecessor,
//! or has been ready for the time that a worker has to request addresses. A successor that ends
//! before, or is not ready in time, fails the reload, and the remaining predecessors stay. When a
//! predecessor dies, its slot goes to the successor.
//!
//! Pure.

use std::time::Instant;

use crate::supervisor::lifecycle::Event;

use super::{ClientAffinity, Mode, Output, ReloadFailure, SlotId, Supervisor, WorkerId};

/// A reload that is running.
#[derive(Debug)]
pub(super) struct Reload {
    number: u32,
    /// Slots without a new worker, the next one last.
    remaining: Vec<SlotId>,
    current: Option<Step>,
    /// Predecessors that were asked to finish and have not ended.
    leaving: Vec<WorkerId>,
}

#[derive(Clone, Copy, Debug)]
struct Step {
    slot: SlotId,
    successor: WorkerId,
    /// The limit for the successor to be ready.
    ready_until: Option<Instant>,
    /// The successor is ready but does not listen on all addresses yet: the step waits until then.
    grace_until: Option<Instant>,
}

/// The decision about the slot of the current step.
enum StepOutcome {
    Wait(Step),
    TakeOver,
    /// The slot is no longer wanted.
    Skip,
    Fail(ReloadFailure),
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Begins to replace every worker.
    pub(super) fn reload(&mut self, number: u32, out: &mut Vec<Output<H>>) {
        let refused = match self.mode {
            Mode::Running if self.idle || !self.disconnecting_all.is_empty() => {
                Some(ReloadFailure::NotRunning)
            }
            Mode::Running => self.reload.as_ref().map(|_| ReloadFailure::UnderWay),
            Mode::Stopping | Mode::Aborting | Mode::Finished => Some(ReloadFailure::NotRunning),
        };
        if let Some(failure) = refused {
            return out.push(Output::Reloaded { number, result: Err(failure) });
        }
        let remaining = (0..).take(self.slots.len()).collect::<Vec<SlotId>>();
        let remaining = remaining.into_iter().rev().collect();
        self.reload = Some(Reload { number, remaining, current: None, leaving: Vec::new() });
    }

    /// Takes the reload as far as possible.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        while let Some(mut reload) = self.reload.take() {
            if self.mode != Mode::Running || !self.disconnecting_all.is_empty() {
                let result = Err(ReloadFailure::NotRunning);
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
                    // A successor that becomes ready later would be one worker too many.
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
            // An empty slot, or one whose worker is ending, gets a new worker anyway.
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
        let overdue = step.ready_until.is_some_and(|ready_until| ready_until <= now);
        // A successor whose channel closed is about to end, and its exit names the reason.
        if !entry.life.is_ready() || !entry.life.may_serve() {
            let failure = StepOutcome::Fail(ReloadFailure::NotReady(worker));
            return if overdue {
                failure
            } else {
                StepOutcome::Wait(Step { grace_until: None, ..step })
            };
        }
        let grace_until = step.grace_until.or_else(|| now.checked_add(self.options.listen_grace));
        let grace_over = grace_until.is_some_and(|at| at <= now);
        let predecessor = slot_entry.worker.filter(|predecessor| *predecessor != worker);
        if overdue
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

    /// Gives the slot to the successor; returns the predecessor, which finishes.
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
        // First, because workers of an address that closes keep their queues until it is closed.
        self.close_unused_addresses(now, out);
        self.leave_schedulers(predecessor, out);
        Some(predecessor)
    }

    /// Returns the deadline of the current step.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        let step = self.reload.as_ref()?.current?;
        step.grace_until.into_iter().chain(step.ready_until).min()
    }
}
