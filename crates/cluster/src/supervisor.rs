//! The primary's mind: everything that happens comes in, everything to be done goes out.
//!
//! [`Supervisor::step`] takes one [`Input`] and appends [`Output`]s, which the driver performs in
//! order; answers to them come back as further inputs. [`Supervisor::deadline`] says when to step with
//! [`Input::Tick`] although nothing happened. `H` is a connection: an owned descriptor with its
//! peer's address in production, a number in tests.
//!
//! What belongs together is decided elsewhere: who gets a connection in `scheduler`, what news of
//! a worker mean in `lifecycle`, when it is replaced in `restart`, which address is whose in
//! `listen`. Here they meet. News of connections take the short way; whatever else happens is
//! followed by [`Supervisor::reconcile`], which draws the conclusions from the state as it is.
//!
//! Pure.

mod addresses;
mod lifecycle;
mod listen_requests;
mod reload;
pub(crate) mod restart;
mod shutdown;
mod slots;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{
    Access, Affinity, Answer, ExitKind, Grant, Input, Key, Notice, Output, Refusal, ReloadFailure,
    SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::{CloseReason, Counters, WorkerCounters};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::scheduler::{Scheduler, TICK, WorkerHealth};
use crate::worker_options::WorkerOptions;
use addresses::AddressTable;
use lifecycle::{Event, Lifecycle, Times};
use restart::{Backoff, Rng};

use listen_requests::refuse;
use reload::Reload;
use shutdown::{ClosingKey, DisconnectingAll};
use slots::Cause;

/// Decides all that a primary does.
#[derive(Debug)]
pub(crate) struct Supervisor<H> {
    options: SupervisorOptions,
    times: Times,
    rng: Rng,
    mode: Mode,
    last_worker: WorkerId,
    /// All workers of whom something is still to be heard.
    workers: BTreeMap<WorkerId, WorkerEntry>,
    slots: Vec<Slot>,
    addresses: AddressTable,
    /// Of each key that connections are dealt from; lives until its last queue is dropped.
    schedulers: BTreeMap<Key, Scheduler<H>>,
    /// Keys whose socket is being closed, or whose queues are still being read.
    closing: BTreeMap<Key, ClosingKey>,
    /// Wishes granted again before the queue of the time before was dropped.
    postponed_grants: Vec<(WorkerId, Key, u32)>,
    /// To be bound once the same address is closed.
    deferred_binds: Vec<(Key, Address, ListenOptions)>,
    /// Of the schedules that are gone.
    counters: Counters,
    reload: Option<Reload>,
    /// Who waits for the end of which workers.
    disconnecting_all: Vec<DisconnectingAll>,
    /// Slots were filled, and their readiness has not been told.
    ready_due: bool,
    /// A number of workers was asked for: the primary ends with the last of them.
    started: bool,
    /// No worker is there, and none is wanted.
    idle: bool,
    /// When anything but a schedule wants a tick.
    control_deadline: Option<Instant>,
    /// When to poll for room again, while a paused channel delays `HasRoom`.
    room_poll_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Mode {
    Running,
    Stopping,
    Aborting,
    Finished,
}

#[derive(Debug)]
struct WorkerEntry {
    slot: SlotId,
    life: Lifecycle,
    kind: WorkerKind,
    /// Started with the first of all starts.
    first: bool,
    /// Somebody waits to hear that it runs.
    forked: bool,
    /// Of queues that are gone.
    counters: WorkerCounters,
}

#[derive(Debug)]
struct Slot {
    /// Is to be kept filled.
    wanted: bool,
    worker: Option<WorkerId>,
    /// Comes up to take the worker's place.
    successor: Option<WorkerId>,
    restart_at: Option<Instant>,
    /// Until then its worker may still ask for what the one before it held.
    reserved_until: Option<Instant>,
    backoff: Backoff,
    /// What its workers have for themselves.
    worker_options: Option<Arc<WorkerOptions>>,
}

impl Slot {
    fn new(backoff: Backoff) -> Self {
        Self {
            wanted: true,
            worker: None,
            successor: None,
            restart_at: None,
            reserved_until: None,
            backoff,
            worker_options: None,
        }
    }
}

impl<H: Affinity> Supervisor<H> {
    /// A primary without workers; `seed` makes the jitter of its restarts its own.
    pub(crate) fn new(options: SupervisorOptions, seed: u64) -> Self {
        let ready_after = if options.listens { None } else { Some(Duration::ZERO) };
        let times = Times { disconnect: options.disconnect, term: options.term, ready_after };
        Self {
            options,
            times,
            rng: Rng::new(seed),
            mode: Mode::Running,
            last_worker: 0,
            workers: BTreeMap::new(),
            slots: Vec::new(),
            addresses: AddressTable::default(),
            schedulers: BTreeMap::new(),
            closing: BTreeMap::new(),
            postponed_grants: Vec::new(),
            deferred_binds: Vec::new(),
            counters: Counters::default(),
            reload: None,
            disconnecting_all: Vec::new(),
            ready_due: false,
            started: false,
            idle: true,
            control_deadline: None,
            room_poll_at: None,
        }
    }

    /// Takes one input and appends what is to be done.
    pub(crate) fn step(&mut self, input: Input<H>, now: Instant, out: &mut Vec<Output<H>>) {
        let reconciles = match input {
            Input::Accepted { key, connection } => self.accepted(key, connection, now, out),
            Input::Depth { worker, key, records } => self.depth(worker, key, records, now, out),
            Input::Answered { worker, key, nth, answer } => {
                self.answered((worker, key, nth), answer, now, out)
            }
            Input::Writable { worker, key } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.writable(worker, now, out);
                }
                !self.closing.is_empty()
            }
            Input::HasRoom { key } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.dispatch_waiting(now, out);
                }
                !self.closing.is_empty()
            }
            Input::HasRoomDelayed => {
                let waiting = self.schedulers.values_mut().filter(|it| it.awaits_room());
                waiting.for_each(|scheduler| scheduler.dispatch_waiting(now, out));
                self.room_poll_at = Some(now + TICK);
                !self.closing.is_empty()
            }
            Input::NoOwnSocket { worker, key } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.set_own_socket(worker, false, out);
                }
                false
            }
            Input::Unaccepted { key, slot } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.unaccepted(slot, now, out);
                }
                false
            }
            Input::Paused { worker } => {
                self.schedulers.values_mut().for_each(|scheduler| scheduler.paused(worker));
                false
            }
            Input::Tick => self.tick(now, out),
            other => {
                self.control(other, now, out);
                true
            }
        };
        if reconciles && self.mode != Mode::Finished {
            self.reconcile(now, out);
        }
    }

    /// What does not happen with every connection.
    fn control(&mut self, input: Input<H>, now: Instant, out: &mut Vec<Output<H>>) {
        match input {
            Input::Start(slots) => {
                // What was forked before counts.
                let wanted = self.slots.iter().rposition(|slot_entry| slot_entry.wanted);
                let least = wanted.map_or(0, |at| SlotId::try_from(at + 1).unwrap_or(SlotId::MAX));
                self.scale(slots.max(least), now, out);
            }
            Input::Scale(slots) => self.scale(slots, now, out),
            Input::Fork { number, worker_options } => self.fork(number, worker_options, out),
            Input::DisconnectAll { number } => self.disconnect_all(number, now, out),
            Input::Reload { number } => self.reload(number, out),
            Input::Spawned { worker, kind } => self.spawned(worker, kind, now, out),
            Input::SpawnFailed { worker } => {
                self.apply(worker, Event::SpawnFailed, Some(Cause::NotStarted), now, out);
            }
            Input::Online { worker } => self.apply(worker, Event::Online, None, now, out),
            Input::ListenRequested { worker, request, address, options } => {
                self.listen_asked(worker, request, address, options, out);
            }
            Input::ListensAlone { worker, address } => {
                self.listens_alone(worker, address, now, out);
            }
            Input::Bound { key, result } => self.bound(key, result, out),
            Input::NoSuchSocket { worker, request, address, errno } => {
                refuse(worker, request, address, errno, out);
            }
            Input::GrantFailed { worker, request, key, errno } => {
                self.grant_failed((worker, request, key), errno, out);
            }
            Input::Unbound { key } => self.unbound(key, out),
            Input::Counts { worker, key, closed_counter } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.set_closed_counter(worker, closed_counter);
                }
            }
            Input::Listening { worker, key } => self.listening(worker, key, now, out),
            Input::ListenerClosed { worker, key } => self.listener_closed(worker, key, out),
            Input::Reclaimed { worker, key, connections, probes } => {
                self.reclaimed(worker, key, (connections, probes), now, out);
            }
            Input::SendFailed { worker, key, connection, refusal } => {
                self.send_failed(worker, key, connection, refusal, now, out);
            }
            Input::Disconnect { worker } | Input::DisconnectRequested { worker } => {
                self.disconnect(worker, now, out);
            }
            Input::ChannelClosed { worker } => {
                self.apply(worker, Event::ChannelClosed, None, now, out);
                self.channel_closed(worker, out);
            }
            Input::Exited { worker, exit } => {
                self.apply(worker, Event::Exited, Some(Cause::Exited(exit)), now, out);
            }
            Input::Shutdown => self.shutdown(now, out),
            Input::Abort => self.abort(now, out),
            Input::Accepted { .. }
            | Input::Depth { .. }
            | Input::Answered { .. }
            | Input::HasRoom { .. }
            | Input::HasRoomDelayed
            | Input::NoOwnSocket { .. }
            | Input::Unaccepted { .. }
            | Input::Paused { .. }
            | Input::Writable { .. }
            | Input::Tick => unreachable!("taken by the short way"),
        }
    }

    /// When to step with [`Input::Tick`]; never while nothing is unread, waiting or under way.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        if self.mode == Mode::Finished {
            return None;
        }
        let schedulers = self.schedulers.values().filter_map(Scheduler::deadline);
        let room_poll_at = self.room_poll_at.filter(|_| self.awaits_room());
        schedulers.chain(self.control_deadline).chain(room_poll_at).min()
    }

    /// Whether connections wait until a worker sends `HasRoom`.
    pub(crate) fn awaits_room(&self) -> bool {
        self.schedulers.values().any(Scheduler::awaits_room)
    }

    /// What became of the connections so far.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = self.counters;
        self.schedulers.values().for_each(|scheduler| sum.add(&scheduler.counters()));
        sum
    }

    /// The worker sits in its slot, and does not just leave or come.
    #[cfg(test)]
    pub(crate) fn holds_slot(&self, worker: WorkerId) -> bool {
        self.slots.iter().any(|slot_entry| slot_entry.worker == Some(worker))
    }

    /// The worker was asked to end, by the user or for a successor's sake.
    #[cfg(test)]
    pub(crate) fn is_leaving(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.life.exit_requested())
    }

    /// What one worker had to do with it; `None` once nothing more is heard of it.
    pub(crate) fn worker_counters(&self, worker: WorkerId) -> Option<WorkerCounters> {
        let mut sum = self.workers.get(&worker)?.counters;
        self.schedulers.values().for_each(|scheduler| sum.add(&scheduler.worker_counters(worker)));
        Some(sum)
    }
}

/// The short way, and time.
impl<H: Affinity> Supervisor<H> {
    /// These answer whether conclusions are to be drawn.
    fn accepted(
        &mut self,
        key: Key,
        connection: H,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.accepted(connection, now, out);
            return !self.closing.is_empty();
        }
        let reason = self.close_reason();
        self.counters.accepted += 1;
        self.counters.close(reason, 1);
        out.push(Output::Close { connection, reason });
        false
    }

    fn depth(
        &mut self,
        worker: WorkerId,
        key: Key,
        records: u32,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        let Some(scheduler) = self.schedulers.get_mut(&key) else { return false };
        let health = scheduler.depth(worker, records, now, out);
        let gone = scheduler.has_removed();
        match health {
            WorkerHealth::Responsive => gone || !self.closing.is_empty(),
            WorkerHealth::Unresponsive => {
                self.unresponsive(worker, now, out);
                true
            }
        }
    }

    fn answered(
        &mut self,
        (worker, key, nth): (WorkerId, Key, usize),
        answer: Answer<H>,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> bool {
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.answered(worker, nth, answer, now, out);
            return scheduler.has_removed() || !self.closing.is_empty();
        }
        if let Answer::Declined(connection) | Answer::Lost(connection) = answer {
            self.close_all([connection], out);
        }
        false
    }

    fn tick(&mut self, now: Instant, out: &mut Vec<Output<H>>) -> bool {
        self.room_poll_at.take_if(|at| *at <= now);
        let schedulers = self.schedulers.values_mut();
        let silent: Vec<_> = schedulers.flat_map(|scheduler| scheduler.tick(now, out)).collect();
        for worker in &silent {
            self.unresponsive(*worker, now, out);
        }
        if self.control_deadline.is_none_or(|deadline| deadline > now) && silent.is_empty() {
            return !self.closing.is_empty();
        }
        let due = |entry: &WorkerEntry| entry.life.deadline().is_some_and(|at| at <= now);
        // Again where a time is 0 and the next state is over at once.
        loop {
            self.advance_reload(now, out);
            let next = self.workers.iter().find(|(_, entry)| due(entry)).map(|(id, _)| *id);
            let Some(worker) = next else { break };
            self.apply(worker, Event::Due, None, now, out);
        }
        for slot in (0..).take(self.slots.len()) {
            let slot_entry = self.slot_mut(slot);
            if slot_entry.restart_at.is_some_and(|at| at <= now) && slot_entry.worker.is_none() {
                self.spawn(slot, false, out);
            }
        }
        true
    }
}

#[cfg(test)]
mod tests;
