//! Who gets the next connection: strict rotation over the workers of one address.
//!
//! Each worker that listens has a *lane*, the primary's picture of its hand-off queue: when each
//! record was sent. What the worker has read meanwhile is not known; it is asked from the kernel
//! when a lane reaches its window, and every [`TICK`] while anything is unread. A lane is skipped
//! while it is full, while its oldest record is *late*, and while it is *suspect*: what lay in a
//! stuck lane was taken back and given to others, and the worker gets nothing but a probe until
//! it reads that. Connections that nobody can take wait here, oldest first, and as long as one
//! does, or nobody has room, nothing more is taken from the kernel.
//!
//! Nothing unread, nothing waiting: no deadline. What is different for Node workers: `node`.
//!
//! Pure. Limits: window and waiting connections, both options.

mod backend;
mod drain;
mod node_backend;
mod pick;
mod reuse_port;
mod tick;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::contract::{
    Affinity, Key, Output, Refusal, SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::CloseReason;
use crate::counters::{Counters, WorkerCounters};
use crate::policy::Policy;

use backend::{After, Backend, BackendState, Origin, Sent};
use reuse_port::OwnSockets;

/// How often lanes with something unread are looked at.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// A record unread for longer makes its lane wait its turn.
pub(crate) const SLOW: Duration = Duration::from_millis(20);
/// A record unread for longer is taken back, if another worker is free.
pub(crate) const STALLED: Duration = Duration::from_millis(100);
/// The same two under [`Policy::Sticky`]: a client that has to move loses more than that time.
const PATIENCE: Duration = Duration::from_secs(1);
/// A tick that comes later than this after its time says that this process stood still.
const STOOD_STILL: Duration = Duration::from_millis(100);
/// Pause after too many descriptors were in flight.
const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(5);
/// Tried at once after that pause.
const IN_FLIGHT_BATCH: usize = 64;
/// Pause before a queue that could not be read to its end is read again.
const READ_PAUSE: Duration = Duration::from_millis(50);
/// So often; then what lies there is given up.
const READ_TRIES_MAX: u32 = 100;

/// The connections of one address, and the lanes they can take.
#[derive(Debug)]
pub(crate) struct Scheduler<H> {
    key: Key,
    policy: Policy,
    window: usize,
    waiting_max: usize,
    unresponsive: Duration,
    unresponsive_node: Duration,
    /// Sorted by worker; the rotation goes in this order.
    backends: Vec<Backend>,
    /// The lane whose turn it is.
    cursor: usize,
    /// The lane that was last found to be watched.
    watched: usize,
    own: OwnSockets,
    /// Oldest first.
    waiting: VecDeque<Waiting<H>>,
    accepting: bool,
    /// New connections are wanted: false once the address is given up.
    open: bool,
    tick_at: Option<Instant>,
    /// Nothing is sent before.
    blocked_until: Option<Instant>,
    /// When queues that could not be read to their end are read again.
    again_at: Option<Instant>,
    counters: Counters,
    /// Lanes that are gone, for the core to notice.
    gone: Vec<(WorkerId, WorkerCounters)>,
}

#[derive(Debug)]
struct Waiting<H> {
    connection: H,
    origin: Origin,
}

/// What the core has to do about a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Fine,
    /// Left its queue unread for too long.
    Unresponsive,
}

impl<H: Affinity> Scheduler<H> {
    pub(crate) fn new(key: Key, options: &SupervisorOptions) -> Self {
        Self {
            key,
            policy: options.policy,
            window: usize::try_from(options.window).unwrap_or(usize::MAX).max(1),
            waiting_max: options.waiting,
            unresponsive: options.unresponsive,
            unresponsive_node: options.unresponsive_node,
            backends: Vec::new(),
            cursor: 0,
            watched: 0,
            own: OwnSockets::default(),
            waiting: VecDeque::new(),
            accepting: false,
            open: true,
            tick_at: None,
            blocked_until: None,
            again_at: None,
            counters: Counters::default(),
            gone: Vec::new(),
        }
    }

    /// The worker was granted a queue.
    pub(crate) fn grant(
        &mut self,
        worker: WorkerId,
        slot: SlotId,
        kind: WorkerKind,
        open_max: Option<u32>,
    ) {
        if let Err(at) = self.find(worker) {
            let slow_after = self.patience(SLOW);
            self.backends.insert(at, Backend::new(worker, slot, kind, slow_after, open_max));
            // Whose turn it is does not change.
            if at < self.cursor {
                self.cursor += 1;
            }
        }
    }

    /// The worker listens. `false` when it has no queue, or had said so before.
    pub(crate) fn open_backend(&mut self, worker: WorkerId) -> bool {
        let Ok(at) = self.find(worker) else { return false };
        let opened = self.backends[at].state == BackendState::Granted;
        if opened {
            self.backends[at].state = BackendState::Open;
        }
        opened
    }

    /// The worker has said that it listens, and connections may be dealt to it.
    pub(crate) fn is_open(&self, worker: WorkerId) -> bool {
        self.find(worker).is_ok_and(|at| self.backends[at].state == BackendState::Open)
    }

    /// Deals out what waits.
    pub(crate) fn dispatch(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        self.pump(usize::MAX, now, out);
    }

    /// The kernel gave a connection.
    pub(crate) fn accepted(&mut self, connection: H, now: Instant, out: &mut Vec<Output<H>>) {
        self.counters.accepted += 1;
        let origin = Origin { number: self.counters.accepted, again: false };
        let waiting = Waiting { connection, origin };
        let backend = if self.waiting.is_empty() { self.pick(&waiting, now, out) } else { None };
        match backend {
            Some(backend) => self.send(backend, waiting, now, out),
            None if self.waiting.len() < self.waiting_max => self.waiting.push_back(waiting),
            None => self.close(waiting.connection, CloseReason::Overflow, out),
        }
        self.accept_or_not(out);
    }

    /// So many records lie unread in the worker's queue.
    pub(crate) fn depth(
        &mut self,
        worker: WorkerId,
        unread: u32,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Verdict {
        let Ok(at) = self.find(worker) else {
            // One may have waited for the answer.
            self.pump(usize::MAX, now, out);
            return Verdict::Fine;
        };
        let unread = usize::try_from(unread).unwrap_or(usize::MAX);
        match self.backends[at].state {
            BackendState::Checking(_) if unread == 0 => self.remove(at, out),
            BackendState::Checking(tries) if tries < READ_TRIES_MAX => {
                self.backends[at].state = BackendState::Again(tries + 1);
                self.again_at.get_or_insert(now + READ_PAUSE);
            }
            BackendState::Checking(_) => self.give_up(at, unread, out),
            BackendState::Open | BackendState::Suspect => return self.polled(at, unread, now, out),
            BackendState::Granted
            | BackendState::Taking(_)
            | BackendState::Again(_)
            | BackendState::Ended
            | BackendState::Answering => self.backends[at].asked = None,
        }
        self.pump(usize::MAX, now, out);
        Verdict::Fine
    }

    /// A lane that may be used was looked at.
    fn polled(
        &mut self,
        at: usize,
        unread: usize,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) -> Verdict {
        let stuck_after = self.patience(STALLED);
        let backend = &mut self.backends[at];
        let unknown = backend.asked.is_some_and(|asked| asked < unread);
        backend.saw(unread, now);
        let stalled = backend.stalled_since.map(|since| now.saturating_duration_since(since));
        if stalled.is_some_and(|stalled| stalled >= self.unresponsive) {
            self.pump(usize::MAX, now, out);
            return Verdict::Unresponsive;
        }
        if backend.state == BackendState::Suspect && backend.records.is_empty() {
            backend.state = BackendState::Open;
        }
        let stalled = match backend.state {
            // More than the probe: it was not read to the end when it was taken back.
            BackendState::Suspect => unknown,
            BackendState::Granted
            | BackendState::Open
            | BackendState::Taking(_)
            | BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Ended
            | BackendState::Answering => backend.is_unread_for(stuck_after, now),
        };
        if stalled && self.is_free_beside(at) {
            self.reclaim(at, After::Suspect, out);
        }
        if !self.is_any_watched() {
            self.tick_at = None;
        }
        self.pump(usize::MAX, now, out);
        Verdict::Fine
    }

    /// This lay unread in the worker's queue, oldest first, and so many probes.
    pub(crate) fn reclaimed(
        &mut self,
        worker: WorkerId,
        connections: Vec<H>,
        probes: u32,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let count = u64::try_from(connections.len()).unwrap_or(u64::MAX);
        self.counters.reclaimed += count;
        let mut after = None;
        let mut origins = Vec::new();
        if let Ok(at) = self.find(worker) {
            let backend = &mut self.backends[at];
            backend.counters.reclaimed += count;
            // What was read was read from the front.
            let unread = connections.len() + usize::try_from(probes).unwrap_or_default();
            let read = backend.records.len().saturating_sub(unread);
            origins.extend(backend.records.drain(..).skip(read).filter_map(|sent| sent.connection));
            backend.asked = None;
            backend.full = false;
            if let BackendState::Taking(then) = backend.state {
                after = Some((at, then));
            }
        }
        let mut origins = origins.into_iter();
        for connection in connections {
            // One that is not known is older than all that are.
            let number = origins.next().map_or(0, |origin| origin.number);
            self.put_back(Waiting { connection, origin: Origin { number, again: true } });
        }
        match after {
            Some((at, After::Suspect)) => {
                self.backends[at].state = BackendState::Suspect;
                self.probe(at, now, out);
            }
            Some((at, After::End)) => self.end(at, out),
            // None of them can come any more.
            Some((at, After::Drop(_))) if self.backends[at].kind == WorkerKind::Node => {
                self.remove(at, out);
            }
            Some((at, After::Drop(tries))) => {
                self.backends[at].state = BackendState::Checking(tries);
                out.push(Output::PollDepth { worker, key: self.key });
            }
            None => {}
        }
        self.pump(usize::MAX, now, out);
        self.trim(out);
    }

    /// The kernel did not take a record; without a connection it was a probe.
    pub(crate) fn refused(
        &mut self,
        worker: WorkerId,
        connection: Option<H>,
        refusal: Refusal,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let mut origin = Origin { number: 0, again: false };
        let backend = self.find(worker);
        if let Ok(at) = backend {
            let backend = &mut self.backends[at];
            origin = backend.refused().unwrap_or(origin);
            if connection.is_some() {
                backend.counters.dispatched -= 1;
                backend.counters.re_dispatched -= u64::from(origin.again);
            }
        }
        if let Some(connection) = connection {
            self.counters.dispatched -= 1;
            self.counters.re_dispatched -= u64::from(origin.again);
            self.put_back(Waiting { connection, origin });
        }
        match (refusal, backend) {
            (Refusal::Full, Ok(at)) => {
                self.backends[at].full = true;
                self.tick_at.get_or_insert(now + TICK);
            }
            (Refusal::InFlight, _) => self.blocked_until = Some(now + IN_FLIGHT_PAUSE),
            (Refusal::Gone, Ok(_)) => self.close_backend(worker, out),
            (Refusal::Full | Refusal::Gone, Err(_)) => {}
        }
        self.pump(usize::MAX, now, out);
        self.trim(out);
    }

    /// The queue has room again.
    pub(crate) fn writable(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Output<H>>) {
        if let Ok(at) = self.find(worker) {
            if std::mem::take(&mut self.backends[at].full) {
                self.pump(usize::MAX, now, out);
            }
        }
    }
}

/// The parts.
impl<H: Affinity> Scheduler<H> {
    fn send(&mut self, at: usize, waiting: Waiting<H>, now: Instant, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        let Waiting { connection, origin } = waiting;
        backend.give(Sent { at: now, connection: Some(origin) });
        backend.counters.dispatched += 1;
        backend.counters.re_dispatched += u64::from(origin.again);
        self.counters.dispatched += 1;
        self.counters.re_dispatched += u64::from(origin.again);
        out.push(Output::Send { worker: backend.worker, key: self.key, connection });
        if backend.records.len() >= self.window && backend.kind == WorkerKind::Native {
            self.ask(at, out);
        }
        self.tick_at.get_or_insert(now + TICK);
    }

    fn ask(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        if backend.asked.is_none() {
            backend.asked = Some(backend.records.len());
            out.push(Output::PollDepth { worker: backend.worker, key: self.key });
        }
    }

    fn probe(&mut self, at: usize, now: Instant, out: &mut Vec<Output<H>>) {
        let backend = &mut self.backends[at];
        backend.records.push_back(Sent { at: now, connection: None });
        out.push(Output::Probe { worker: backend.worker, key: self.key });
        self.tick_at.get_or_insert(now + TICK);
    }

    /// Deals out what waits, at most `max`.
    fn pump(&mut self, max: usize, now: Instant, out: &mut Vec<Output<H>>) {
        for _ in 0..max.min(self.waiting.len()) {
            let Some(waiting) = self.waiting.pop_front() else { break };
            let Some(at) = self.pick(&waiting, now, out) else {
                self.waiting.push_front(waiting);
                break;
            };
            self.send(at, waiting, now, out);
        }
        self.accept_or_not(out);
    }

    /// Puts a connection back into the line where its age belongs.
    fn put_back(&mut self, waiting: Waiting<H>) {
        let number = waiting.origin.number;
        let at = self.waiting.iter().position(|other| other.origin.number > number);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), waiting);
    }

    /// The newest have to go.
    fn trim(&mut self, out: &mut Vec<Output<H>>) {
        while self.waiting.len() > self.waiting_max {
            let Some(newest) = self.waiting.pop_back() else { return };
            self.close(newest.connection, CloseReason::Overflow, out);
        }
    }

    fn close(&mut self, connection: H, reason: CloseReason, out: &mut Vec<Output<H>>) {
        self.counters.close(reason, 1);
        out.push(Output::Close { connection, reason });
    }

    fn accept_or_not(&mut self, out: &mut Vec<Output<H>>) {
        self.update_accept_on_behalf(out);
        let wanted = self.open && self.waiting.is_empty();
        let on = wanted && (self.pick_from().is_some() || self.await_closed());
        if on != self.accepting {
            self.accepting = on;
            out.push(Output::Accept { key: self.key, on });
        }
    }

    fn patience(&self, time: Duration) -> Duration {
        match self.policy {
            // There is no time for that in the end.
            Policy::Sticky if self.open => PATIENCE,
            Policy::RoundRobin
            | Policy::Shared
            | Policy::LeastLoaded
            | Policy::Sticky
            | Policy::ReusePort => time,
        }
    }

    fn find(&self, worker: WorkerId) -> Result<usize, usize> {
        self.backends.binary_search_by_key(&worker, |backend| backend.worker)
    }

    /// Whether a lane has to be looked at. The search goes on from the last one that had: lanes are
    /// looked at in order, and with many of them each search from the first would be a long one.
    fn is_any_watched(&mut self) -> bool {
        let from = self.watched.min(self.backends.len());
        let watched = |at: &usize| self.backends[*at].is_watched();
        let found = (from..self.backends.len()).find(watched).or_else(|| (0..from).find(watched));
        self.watched = found.unwrap_or(0);
        found.is_some()
    }

    fn is_free_beside(&self, at: usize) -> bool {
        let mut backends = self.backends.iter().enumerate();
        backends.any(|(other, backend)| other != at && backend.is_free(self.window))
    }
}

/// What the core asks.
impl<H: Affinity> Scheduler<H> {
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.tick_at.into_iter().chain(self.blocked_until).chain(self.again_at).min()
    }

    /// The worker has a queue, in use or not.
    pub(crate) fn has_backend(&self, worker: WorkerId) -> bool {
        self.find(worker).is_ok()
    }

    pub(crate) fn has_backends(&self) -> bool {
        !self.backends.is_empty()
    }

    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    pub(crate) fn has_gone(&self) -> bool {
        !self.gone.is_empty()
    }

    /// The lanes that are gone since the last call.
    pub(crate) fn take_gone(&mut self) -> Vec<(WorkerId, WorkerCounters)> {
        std::mem::take(&mut self.gone)
    }

    pub(crate) fn counters(&self) -> Counters {
        let waiting = u64::try_from(self.waiting.len()).unwrap_or(u64::MAX);
        Counters { waiting, ..self.counters }
    }

    pub(crate) fn worker_counters(&self, worker: WorkerId) -> WorkerCounters {
        self.find(worker)
            .map_or_else(|_| WorkerCounters::default(), |at| self.backends[at].counters)
    }
}

#[cfg(test)]
mod tests;
