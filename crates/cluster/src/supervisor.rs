//! The supervisor makes all decisions of a primary: inputs come in, outputs go out.
//!
//! [`Supervisor::step`] takes one [`Input`] and appends [`Output`]s, which the driver performs in
//! order; the answers arrive as further inputs. [`Supervisor::deadline`] returns the time for the
//! next [`Input::Tick`]. `H` is a connection: an owned descriptor with its peer's address in
//! production, a number in tests.
//!
//! The parts decide on their own: `scheduler` chooses the worker for a connection, `lifecycle`
//! holds the stages of a worker, `restart` the delay of a replacement, `addresses` the holders of
//! an address. This file connects them. Inputs about single connections take the fast path. After
//! every other input [`Supervisor::reconcile`] derives the pending outputs from the state as a
//! whole, so that each rule stands in one place.
//!
//! Pure.

mod addresses;
mod conduct;
mod lifecycle;
mod listen_permissions;
mod listen_requests;
mod reload;
pub(crate) mod restart;
pub(crate) mod shutdown;
mod slots;
mod starts;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{
    Access, Answer, ClientAffinity, ExitKind, Grant, Input, Key, ListenRefusal, Notice, Output,
    Refusal, ReloadFailure, SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::{CloseReason, Counters, WorkerCounters};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::scheduler::{Scheduler, TICK, WorkerHealth};
use crate::worker_options::WorkerOptions;
use addresses::AddressTable;
use conduct::{Conduct, Verdict};
use lifecycle::{Event, Lifecycle};
use restart::{Backoff, Rng};

use listen_permissions::PendingListen;
use reload::{Reload, Waiting};
use shutdown::{ClosingKey, DisconnectingAll};
use slots::Cause;
use starts::AwaitedStart;

/// The state of a primary, and its decisions.
#[derive(Debug)]
pub(crate) struct Supervisor<H> {
    options: SupervisorOptions,
    rng: Rng,
    mode: Mode,
    last_worker: WorkerId,
    /// Workers about which inputs may still arrive.
    workers: BTreeMap<WorkerId, WorkerEntry>,
    slots: Vec<Slot>,
    addresses: AddressTable,
    /// The scheduler of each key that the primary accepts from, until its last queue is dropped.
    schedulers: BTreeMap<Key, Scheduler<H>>,
    /// Keys whose socket is being closed, or whose queues are being read to the end.
    closing: BTreeMap<Key, ClosingKey>,
    /// Requests to be granted when the earlier queue of the same worker and key has been dropped.
    postponed_grants: Vec<(WorkerId, Key, u32)>,
    /// Listen requests about which the function of the user was asked.
    asking: BTreeMap<(WorkerId, u32), PendingListen>,
    /// Addresses to be bound when the same address has been closed.
    deferred_binds: Vec<(Key, Address, ListenOptions)>,
    /// The counts of schedulers that are gone.
    counters: Counters,
    reload: Option<Reload>,
    /// The requests for a reload after the one that runs.
    next_reload: Option<Waiting>,
    /// Pending `DisconnectAll` requests with their workers.
    disconnecting_all: Vec<DisconnectingAll>,
    /// Whether `Ready` is to be reported when all slots are filled and ready.
    ready_due: bool,
    /// Whether the first start is not over: a worker of it that ends early fails the start.
    starting: bool,
    /// Whether a number of workers was requested: the primary then ends with the last worker.
    started: bool,
    /// Whether no worker exists and no slot is wanted.
    idle: bool,
    /// The wait for the answer of a start.
    awaited_start: AwaitedStart,
    /// The next deadline of control events, without those of the schedulers.
    control_deadline: Option<Instant>,
    /// The next poll for room, while a paused channel delays `HasRoom`.
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
    /// Whether the first start started the worker, whose early end then fails the start.
    first: bool,
    /// Whether `fork` started the worker: its caller gets the error of a failed spawn.
    forked: bool,
    /// Whether the primary asked the worker to leave, which is then not replaced.
    asked: bool,
    /// The time at which the process was started.
    spawned_at: Option<Instant>,
    /// The time from online to ready without a listener; `None` if it never comes.
    ready_after: Option<Duration>,
    /// The counts of queues that are gone.
    counters: WorkerCounters,
    conduct: Conduct,
}

#[derive(Debug)]
struct Slot {
    /// Whether the slot is to be kept filled.
    wanted: bool,
    worker: Option<WorkerId>,
    /// The new worker of a reload, which takes over when it is ready.
    successor: Option<WorkerId>,
    restart_at: Option<Instant>,
    /// Whether the last worker of the slot that was ready has never listened.
    never_listens: bool,
    backoff: Backoff,
    /// The options that only workers of this slot have.
    worker_options: Option<Arc<WorkerOptions>>,
}

impl Slot {
    fn new(backoff: Backoff) -> Self {
        Self {
            wanted: true,
            worker: None,
            successor: None,
            restart_at: None,
            never_listens: false,
            backoff,
            worker_options: None,
        }
    }
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Creates the supervisor of a primary without workers; `seed` is for the jitter of restarts.
    pub(crate) fn new(options: SupervisorOptions, seed: u64) -> Self {
        Self {
            options,
            rng: Rng::new(seed),
            mode: Mode::Running,
            last_worker: WorkerId(0),
            workers: BTreeMap::new(),
            slots: Vec::new(),
            addresses: AddressTable::default(),
            schedulers: BTreeMap::new(),
            closing: BTreeMap::new(),
            postponed_grants: Vec::new(),
            asking: BTreeMap::new(),
            deferred_binds: Vec::new(),
            counters: Counters::default(),
            reload: None,
            next_reload: None,
            disconnecting_all: Vec::new(),
            ready_due: false,
            starting: false,
            started: false,
            idle: true,
            awaited_start: AwaitedStart::default(),
            control_deadline: None,
            room_poll_at: None,
        }
    }

    /// Takes one input and appends the outputs that follow from it.
    pub(crate) fn step(&mut self, input: Input<H>, now: Instant, out: &mut Vec<Output<H>>) {
        let input = match self.judge(input) {
            Verdict::Honest(input) => input,
            Verdict::Ignored => return,
            Verdict::Violation(worker, violation) => Input::Violated { worker, violation },
        };
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
            Input::HasRoom { worker: _, key } => {
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

    /// Takes control events: inputs that do not come with every connection.
    fn control(&mut self, input: Input<H>, now: Instant, out: &mut Vec<Output<H>>) {
        match input {
            Input::Start(slots) => {
                // Slots of workers that were forked before count.
                let wanted = self.slots.iter().rposition(|slot_entry| slot_entry.wanted);
                let least = wanted.map_or(0, |at| SlotId::try_from(at + 1).unwrap_or(SlotId::MAX));
                self.scale(slots.max(least), now, out);
            }
            Input::Scale(slots) => self.scale(slots, now, out),
            Input::Fork { number, worker_options } => self.fork(number, worker_options, out),
            Input::DisconnectAll { number } => self.disconnect_all(number, now, out),
            Input::Reload { number } => self.reload(number, out),
            Input::GiveUpStart => self.give_up_start(now, out),
            Input::CloseAddress { address } => self.close_at(&address, now, out),
            Input::Spawned { worker, kind } => self.spawned(worker, kind, now, out),
            Input::SpawnFailed { worker } => {
                self.awaited_start.answered();
                self.apply(worker, Event::SpawnFailed, Some(Cause::NotStarted), now, out);
            }
            Input::Violated { worker, violation } => self.violated(worker, violation, now, out),
            Input::Online { worker } => self.apply(worker, Event::Online, None, now, out),
            request @ (Input::ListenRequested { .. }
            | Input::Permission { .. }
            | Input::ForbiddenDescriptor { .. }
            | Input::NoSuchSocket { .. }) => self.request(request, out),
            Input::ListensAlone { worker, address } => {
                self.listens_alone(worker, address, now, out);
            }
            Input::Bound { key, result } => self.bound(key, result, out),
            Input::GrantFailed { worker, request, key, errno } => {
                self.grant_failed((worker, request, key), errno, out);
            }
            Input::Unbound { key } => self.unbound(key, out),
            Input::Counts { worker, key, page } => {
                if let Some(scheduler) = self.schedulers.get_mut(&key) {
                    scheduler.set_page(worker, page);
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
            Input::Disconnect { worker } => self.disconnect(worker, now, out),
            Input::DisconnectRequested { worker } => self.leaves(worker, now, out),
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
            | Input::Tick => unreachable!("taken by the fast path"),
        }
    }

    /// Returns the time for the next [`Input::Tick`]; `None` while nothing is unread, waiting or
    /// under way.
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

    /// Returns the counts of connections so far.
    pub(crate) fn counters(&self) -> Counters {
        let mut sum = self.counters;
        self.schedulers.values().for_each(|scheduler| sum.add(&scheduler.counters()));
        sum
    }

    /// Whether the worker is the one that serves for its slot: no successor, and not relieved.
    #[cfg(test)]
    pub(crate) fn holds_slot(&self, worker: WorkerId) -> bool {
        self.slots.iter().any(|slot_entry| slot_entry.worker == Some(worker))
    }

    /// Whether the exit of the worker was requested, by the user or for a successor.
    #[cfg(test)]
    pub(crate) fn is_leaving(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.life.exit_requested())
    }

    /// Whether a reload runs.
    #[cfg(test)]
    pub(crate) fn is_reloading(&self) -> bool {
        self.reload.is_some()
    }

    /// Whether the first start is not over.
    #[cfg(test)]
    pub(crate) fn is_starting(&self) -> bool {
        self.starting
    }

    /// Whether the primary asked the worker to leave.
    #[cfg(test)]
    pub(crate) fn was_asked(&self, worker: WorkerId) -> bool {
        self.workers.get(&worker).is_some_and(|entry| entry.asked)
    }

    /// Returns the counts of one worker; `None` after its last event.
    pub(crate) fn worker_counters(&self, worker: WorkerId) -> Option<WorkerCounters> {
        let mut sum = self.workers.get(&worker)?.counters;
        self.schedulers.values().for_each(|scheduler| sum.add(&scheduler.worker_counters(worker)));
        Some(sum)
    }
}

/// The fast path, and time. Methods return whether to reconcile.
impl<H: ClientAffinity> Supervisor<H> {
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
        let was_open = scheduler.is_backend_open(worker);
        let health = scheduler.depth(worker, records, now, out);
        let gone = scheduler.has_removed();
        // A reload may wait until its successor, a suspect so far, is in use again.
        let back = !was_open && scheduler.is_backend_open(worker);
        match health {
            WorkerHealth::Responsive => gone || back || !self.closing.is_empty(),
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
        self.cancel_starts(now, out);
        // Repeated, because a limit of 0 makes the next stage due at once.
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
