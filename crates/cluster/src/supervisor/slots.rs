//! Slots, their workers, and the decision about a slot whose worker has ended.
//!
//! A slot is wanted or not. A wanted slot is kept filled: [`Supervisor::vacate`] decides whether a
//! worker that ended is replaced at once, after a delay, or not at all.
//!
//! Pure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{ForkRefusal, LISTENS_AFTER, Restart, WORKERS_MAX};
use crate::counters::WorkerCounters;
use crate::protocol::violation::Violation;
use crate::supervisor::conduct::Conduct;
use crate::supervisor::lifecycle::{Action, Event, Lifecycle, Times};
use crate::supervisor::restart::Backoff;
use crate::worker_options::WorkerOptions;

use super::{
    ClientAffinity, ExitKind, Mode, Notice, Output, Slot, SlotId, Supervisor, WorkerEntry,
    WorkerId, WorkerKind,
};

/// The time from online to ready of a worker whose predecessor in the slot never listened.
const SETTLES_AFTER: Duration = Duration::from_secs(1);

/// The signals by which a process is ended from outside: `SIGHUP`, `SIGINT`, `SIGKILL`, `SIGTERM`.
const ENDING_SIGNALS: [i32; 4] = [1, 2, 9, 15];

/// The reason why a worker has no process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cause {
    Exited(ExitKind),
    NotStarted,
}

impl<H: ClientAffinity> Supervisor<H> {
    pub(super) fn scale(&mut self, slots: u32, now: Instant, out: &mut Vec<Output<H>>) {
        if self.mode != Mode::Running {
            return;
        }
        self.started = true;
        // A worker that fails while others serve already does not fail the start.
        let first = std::mem::replace(&mut self.idle, false);
        self.starting |= first;
        self.ready_due = true;
        let wanted = usize::try_from(slots).unwrap_or(usize::MAX);
        while self.slots.len() < wanted {
            let backoff = Backoff::new(&self.options.restart);
            self.slots.push(Slot::new(backoff));
        }
        let surplus: Vec<SlotId> =
            (slots..).take(self.slots.len().saturating_sub(wanted)).collect();
        // First, because an address stays open for a slot that is wanted again.
        for slot_entry in self.slots.iter_mut().take(wanted).filter(|it| !it.wanted) {
            slot_entry.wanted = true;
            slot_entry.worker_options = None;
        }
        self.retire(&surplus, now, out);
        for slot in 0..slots {
            let slot_entry = self.slot_mut(slot);
            if slot_entry.worker.is_none() && slot_entry.restart_at.is_none() {
                self.spawn(slot, first, out);
            }
        }
    }

    /// Adds one slot with options of its own, and starts its worker.
    pub(super) fn fork(
        &mut self,
        number: u32,
        worker_options: Arc<WorkerOptions>,
        out: &mut Vec<Output<H>>,
    ) {
        let vacant = |slot_entry: &Slot| {
            !slot_entry.wanted && slot_entry.worker.is_none() && slot_entry.successor.is_none()
        };
        // Behind the last slot, so that the new slot is the youngest; without room there, in a gap.
        let last =
            self.slots.iter().rposition(|slot_entry| !vacant(slot_entry)).map_or(0, |at| at + 1);
        let between = || self.slots.iter().position(vacant);
        let at = if last < WORKERS_MAX as usize { Some(last) } else { between() };
        let running = self.mode == Mode::Running;
        let Some(at) = at.filter(|_| running) else {
            // The request has reset `ready` in the handles, so `Ready` is to be reported again.
            self.ready_due = true;
            let full = ForkRefusal::TooManyWorkers;
            let refusal = if running { full } else { ForkRefusal::NotRunning };
            return out.push(Output::Forked { number, worker: Err(refusal) });
        };
        let slot = SlotId::try_from(at).expect("there are at most WORKERS_MAX slots");
        let slot_entry = Slot::new(Backoff::new(&self.options.restart));
        let slot_entry = Slot { worker_options: Some(worker_options), ..slot_entry };
        match self.slots.get_mut(at) {
            Some(vacant) => *vacant = slot_entry,
            None => self.slots.push(slot_entry),
        }
        self.idle = false;
        self.ready_due = true;
        let worker = self.spawn(slot, false, out);
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.forked = true;
        }
        out.push(Output::Forked { number, worker: Ok(worker) });
    }

    /// Starts a worker for an empty slot.
    pub(super) fn spawn(
        &mut self,
        slot: SlotId,
        first: bool,
        out: &mut Vec<Output<H>>,
    ) -> WorkerId {
        let capture_stderr = self.ready_due || self.reload.is_some();
        let worker = self.create_worker(slot, first, capture_stderr, out);
        let slot_entry = self.slot_mut(slot);
        slot_entry.worker = Some(worker);
        slot_entry.restart_at = None;
        worker
    }

    pub(super) fn create_worker(
        &mut self,
        slot: SlotId,
        first: bool,
        capture_stderr: bool,
        out: &mut Vec<Output<H>>,
    ) -> WorkerId {
        self.last_worker.0 += 1;
        let worker = self.last_worker;
        let (life, counters) = (Lifecycle::new(), WorkerCounters::default());
        let entry = WorkerEntry {
            slot,
            life,
            kind: WorkerKind::Native,
            first,
            forked: false,
            asked: false,
            spawned_at: None,
            ready_after: self.ready_after(slot),
            counters,
            conduct: Conduct::default(),
        };
        self.workers.insert(worker, entry);
        let worker_options = self.slot_mut(slot).worker_options.clone();
        let is_successor = self.slot_mut(slot).worker.is_some();
        out.push(Output::Spawn { worker, slot, worker_options, capture_stderr, is_successor });
        worker
    }

    /// Returns the time from online to ready for the next worker of the slot.
    fn ready_after(&mut self, slot: SlotId) -> Option<Duration> {
        let listens_after = self.options.listens_after?;
        let settles_after = SETTLES_AFTER.min(self.options.ready / 2);
        let known = self.slot_mut(slot).never_listens;
        Some(if known { settles_after.min(listens_after) } else { listens_after })
    }

    pub(super) fn spawned(
        &mut self,
        worker: WorkerId,
        kind: WorkerKind,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        self.awaited_start.answered();
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.kind = kind;
            entry.spawned_at = Some(now);
        }
        self.apply(worker, Event::Spawned, None, now, out);
    }

    /// Steps the lifecycle of a worker and carries out its actions.
    pub(super) fn apply(
        &mut self,
        worker: WorkerId,
        event: Event,
        cause: Option<Cause>,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        let times = Times::new(&self.options, entry.kind, entry.ready_after);
        let actions = entry.life.step(event, now, &times);
        if entry.life.is_ready() {
            let (slot, never_listens) = (entry.slot, entry.life.is_ready_without_listener());
            self.slot_mut(slot).never_listens = never_listens;
        }
        for action in actions {
            match action {
                Action::Emit(notice) => self.emit(worker, notice.clone(), out),
                Action::Vacate => {
                    let cause = cause.expect("an end has a cause");
                    self.vacate(worker, cause, now, out);
                }
                Action::Release => {
                    self.schedulers.values_mut().for_each(|s| s.close_backend(worker, out));
                }
                Action::SendDisconnect => out.push(Output::SendDisconnect { worker }),
                Action::Terminate => out.push(Output::Signal { worker, hard: false }),
                Action::Kill => out.push(Output::Signal { worker, hard: true }),
                Action::Forget => {
                    // The channel may still be open, if the time limit for its end has passed.
                    self.channel_closed(worker, out);
                    self.workers.remove(&worker);
                }
            }
        }
    }

    /// Notifies the user of a step in the worker's life.
    pub(super) fn emit(&self, worker: WorkerId, notice: Notice, out: &mut Vec<Output<H>>) {
        let entry = self.workers.get(&worker);
        let exit_requested = entry.is_some_and(|entry| entry.life.exit_requested());
        out.push(Output::Emit { worker, notice, exit_requested });
    }

    /// Asks a worker to finish; it is not replaced.
    pub(super) fn ask_to_finish(
        &mut self,
        worker: WorkerId,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.asked = true;
        }
        self.apply(worker, Event::Finish, None, now, out);
    }

    /// Lets a worker finish that requested it, and replaces it as one that ends.
    pub(super) fn leaves(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Output<H>>) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let (slot, left) = (entry.slot, entry.life.exit_requested());
        let listened = entry.life.listened(now);
        let slot_entry = self.slot_mut(slot);
        let serves = slot_entry.worker == Some(worker) && slot_entry.wanted;
        if left {
            return;
        }
        if !serves || self.options.restart.restart == Restart::Never {
            return self.disconnect(worker, now, out);
        }
        self.apply(worker, Event::Finish, None, now, out);
        for key in self.addresses.held_by(worker) {
            self.addresses.reserve(key, slot);
        }
        // Otherwise the exit decides: whether it was a crash, or the start has failed.
        if self.options.restart.restart == Restart::Always && !self.starting {
            let slot_entry = self.slot_mut(slot);
            slot_entry.worker = slot_entry.successor.take();
            match slot_entry.worker {
                Some(successor) => self.addresses.drop_held_reservations(slot, successor),
                None => self.replace(slot, listened, now, out),
            }
        }
        self.leave_schedulers(worker, out);
    }

    /// Decides about the slot of a worker that has no process any more.
    pub(super) fn vacate(
        &mut self,
        worker: WorkerId,
        cause: Cause,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let (slot, asked) = (entry.slot, entry.asked);
        let failed_start = self.starting && fails_start(entry, cause, now);
        let listened = entry.life.listened(now);
        let forked = entry.forked;
        self.postponed_grants.retain(|(waiter, ..)| *waiter != worker);
        self.asking.retain(|(waiter, _), _| *waiter != worker);
        let slot_entry = self.slot_mut(slot);
        if slot_entry.worker != Some(worker) {
            // Another worker has the slot: the worker that ended was its successor or predecessor.
            slot_entry.successor.take_if(|successor| *successor == worker);
            return self.addresses.worker_ended(worker, None);
        }
        slot_entry.worker = slot_entry.successor.take();
        if let Some(successor) = slot_entry.worker {
            self.addresses.worker_ended(worker, Some(slot));
            return self.addresses.drop_held_reservations(slot, successor);
        }
        if failed_start && self.mode == Mode::Running {
            out.push(Output::StartFailed { worker });
            self.addresses.worker_ended(worker, None);
            return self.shutdown(now, out);
        }
        // The caller of `fork` gets the error of a failed spawn, and may try again.
        let refused = forked && cause == Cause::NotStarted;
        let allowed = match self.options.restart.restart {
            _ if refused => false,
            Restart::Always => true,
            Restart::OnCrash => cause != Cause::Exited(ExitKind::Code(0)),
            Restart::Never => false,
        };
        // The request to leave frees the slot: a slot that is wanted now was requested again since.
        let replaced =
            self.mode == Mode::Running && self.slot_mut(slot).wanted && (asked || allowed);
        self.addresses.worker_ended(worker, replaced.then_some(slot));
        if !replaced {
            self.slot_mut(slot).wanted = false;
            self.addresses.drop_reservation(slot);
        } else if asked {
            self.spawn(slot, false, out);
        } else {
            self.replace(slot, listened, now, out);
        }
    }

    pub(super) fn replace(
        &mut self,
        slot: SlotId,
        listened: std::time::Duration,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let slot_entry =
            &mut self.slots[usize::try_from(slot).expect("slots are counted in memory")];
        let at = slot_entry.backoff.next(&self.options.restart, listened, now, &mut self.rng);
        if at <= now {
            self.spawn(slot, false, out);
        } else {
            slot_entry.restart_at = Some(at);
        }
    }

    /// Notifies the schedulers that the channel to the worker is closed in both directions.
    pub(super) fn channel_closed(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        self.schedulers.values_mut().for_each(|scheduler| scheduler.channel_closed(worker, out));
    }

    /// Kills a worker that left its queue unread for too long.
    pub(super) fn unresponsive(
        &mut self,
        worker: WorkerId,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        self.emit(worker, Notice::Unresponsive, out);
        self.apply(worker, Event::Kill, None, now, out);
    }

    /// Kills a worker that broke the protocol.
    pub(super) fn violated(
        &mut self,
        worker: WorkerId,
        violation: Violation,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(entry) = self.workers.get_mut(&worker) else { return };
        if entry.life.is_dead() || !entry.conduct.set_broken() {
            return;
        }
        self.counters.violations += 1;
        self.emit(worker, Notice::Violation(violation), out);
        self.apply(worker, Event::Kill, None, now, out);
    }

    pub(super) fn slot_mut(&mut self, slot: SlotId) -> &mut Slot {
        &mut self.slots[usize::try_from(slot).expect("slots are counted in memory")]
    }

    pub(super) fn may_serve(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.life.may_serve())
    }
}

/// Whether the end of a worker fails the first start, which is not over.
fn fails_start(entry: &WorkerEntry, cause: Cause, now: Instant) -> bool {
    let lived = entry.spawned_at.map_or(Duration::ZERO, |at| now.saturating_duration_since(at));
    let killed = match cause {
        Cause::Exited(ExitKind::Signal(signal)) => ENDING_SIGNALS.contains(&signal),
        Cause::Exited(ExitKind::Code(_) | ExitKind::Unknown) | Cause::NotStarted => false,
    };
    entry.first && !entry.asked && lived < LISTENS_AFTER && !(killed && entry.life.was_online())
}
