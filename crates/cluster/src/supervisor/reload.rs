//! A rolling reload: one slot after the other gets a new worker, and only when the new worker
//! listens is the old one asked to finish.
//!
//! During its step a slot has two workers: the predecessor, which serves, and the successor, which
//! is being started. The successor takes over when it is ready and listens on every address of the
//! predecessor. A successor that ends before, or has not come so far in time, fails the reload, and
//! the remaining predecessors stay. When a predecessor dies, its slot goes to the successor.
//!
//! Requests that arrive during a reload share one reload after it.
//!
//! Pure.

use std::time::Instant;

use super::{ClientAffinity, Key, Mode, Output, ReloadFailure, SlotId, Supervisor, WorkerId};

/// The requests that one reload answers.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    numbers: Vec<u32>,
    /// Whether a signal requested it.
    on_signal: bool,
}

impl Waiting {
    fn add(&mut self, number: Option<u32>) {
        self.numbers.extend(number);
        self.on_signal |= number.is_none();
    }

    fn answer<H>(self, result: Result<(), ReloadFailure>) -> Output<H> {
        Output::Reloaded { numbers: self.numbers, on_signal: self.on_signal, result }
    }
}

/// A reload that is running.
#[derive(Debug)]
pub(super) struct Reload {
    waiting: Waiting,
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
    /// The limit for the successor to be ready and to listen on all addresses.
    ready_until: Option<Instant>,
}

/// The decision about the slot of the current step.
enum StepOutcome {
    Wait,
    TakeOver,
    /// The slot is no longer wanted.
    Skip,
    Fail(ReloadFailure),
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Begins to replace every worker, or does so after the reload that runs.
    pub(super) fn reload(&mut self, number: Option<u32>, out: &mut Vec<Output<H>>) {
        let mut waiting = Waiting::default();
        waiting.add(number);
        if !self.may_reload() {
            out.push(waiting.answer(Err(ReloadFailure::NotRunning)));
        } else if self.reload.is_some() {
            self.next_reload.get_or_insert_default().add(number);
        } else {
            self.begin_reload(waiting);
        }
    }

    fn may_reload(&self) -> bool {
        self.mode == Mode::Running && !self.idle && self.disconnecting_all.is_empty()
    }

    fn begin_reload(&mut self, waiting: Waiting) {
        let remaining = (0..).take(self.slots.len()).collect::<Vec<SlotId>>();
        let remaining = remaining.into_iter().rev().collect();
        self.reload = Some(Reload { waiting, remaining, current: None, leaving: Vec::new() });
    }

    /// Answers a reload, and begins the next one if it was requested.
    fn end_reload(
        &mut self,
        waiting: Waiting,
        result: Result<(), ReloadFailure>,
        out: &mut Vec<Output<H>>,
    ) {
        out.push(waiting.answer(result));
        let Some(next) = self.next_reload.take() else { return };
        if self.may_reload() {
            self.begin_reload(next);
        } else {
            out.push(next.answer(Err(ReloadFailure::NotRunning)));
        }
    }

    /// Takes the reload as far as possible.
    pub(super) fn advance_reload(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        while let Some(mut reload) = self.reload.take() {
            if !self.may_reload() {
                self.end_reload(reload.waiting, Err(ReloadFailure::NotRunning), out);
                continue;
            }
            let Some(step) = reload.current.take() else {
                if self.begin_step(&mut reload, now, out) {
                    self.reload = Some(reload);
                    continue;
                }
                let alive = |id: &WorkerId| self.workers.get(id).is_some_and(|m| !m.life.is_dead());
                reload.leaving.retain(alive);
                if !reload.leaving.is_empty() {
                    self.reload = Some(reload);
                    return;
                }
                self.end_reload(reload.waiting, Ok(()), out);
                continue;
            };
            match self.step_outcome(step, now) {
                StepOutcome::Wait => {
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
                        self.ask_to_finish(step.successor, now, out);
                        self.leave_schedulers(step.successor, out);
                    }
                    self.end_reload(reload.waiting, Err(failure), out);
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
            reload.current = Some(Step { slot, successor, ready_until });
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
        let ready = entry.life.is_ready() && entry.life.may_serve();
        if !ready && !overdue {
            return StepOutcome::Wait;
        }
        let missing = self.missing(step.slot, worker);
        if ready && missing.is_empty() {
            return StepOutcome::TakeOver;
        }
        if !overdue {
            return StepOutcome::Wait;
        }
        let missing = missing.into_iter().filter_map(|key| self.addresses.address(key).cloned());
        StepOutcome::Fail(ReloadFailure::NotReady(worker, missing.collect()))
    }

    /// Returns the bound addresses of the slot on which its successor does not listen: those of the
    /// predecessor, or after its death those that the slot has reserved.
    fn missing(&self, slot: SlotId, successor: WorkerId) -> Vec<Key> {
        let slot_entry = &self.slots[usize::try_from(slot).expect("slots are counted in memory")];
        let predecessor = slot_entry.worker.filter(|predecessor| *predecessor != successor);
        let mut keys = match predecessor {
            Some(predecessor) => self.addresses.held_by(predecessor),
            None => self.addresses.reserved_by(slot),
        };
        keys.retain(|key| {
            let listens = match self.schedulers.get(key) {
                Some(scheduler) => scheduler.is_backend_open(successor),
                None => self.addresses.listens(successor, *key),
            };
            self.addresses.address(*key).is_some() && !listens
        });
        keys
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
        self.addresses.drop_held_reservations(step.slot, step.successor);
        self.ask_to_finish(predecessor, now, out);
        // First, because workers of an address that closes keep their queues until it is closed.
        self.close_unused_addresses(now, out);
        self.leave_schedulers(predecessor, out);
        Some(predecessor)
    }

    /// Returns the deadline of the current step.
    pub(super) fn reload_deadline(&self) -> Option<Instant> {
        self.reload.as_ref()?.current?.ready_until
    }
}
