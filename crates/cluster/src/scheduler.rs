//! The load balancer of one address: decides which worker gets the next connection.
//!
//! The workers that listen on the address are the *backends*. The default policy is round robin,
//! strictly in the order of the workers. No bytes are proxied: the primary accepts a connection and
//! *dispatches* its descriptor into the hand-off queue of one backend.
//!
//! A backend is the primary's view of one such queue: the time at which each record was sent.
//! Workers read their queues without a word to the primary, so the primary *polls* the depth of a
//! queue from the kernel: when the view has reached the window, and every [`TICK`] while anything
//! may be unread. Dispatch skips a backend in three cases:
//!
//! - The backend is *full*: its view has reached the window, or the kernel refused a record.
//! - The backend is *slow*: its oldest record has been unread for [`SLOW`].
//! - The backend is *suspect*: its oldest record was unread for [`STALLED`] while another backend
//!   was free. The primary then *reclaims* the unread connections and dispatches them to others. A
//!   suspect gets nothing but a *probe*, a record without a connection, and is in use again as soon
//!   as its worker has read the probe.
//!
//! Connections that no backend can take wait in the primary, oldest first. While a connection
//! waits, or no backend is free, the primary does not accept: further clients stay in the kernel's
//! backlog.
//!
//! With nothing unread and nothing waiting there is no deadline. Backends of Node workers follow
//! other rules, see `node_backend`.
//!
//! Pure. Limits: the window and the number of waiting connections, both options.

mod accept_on_behalf;
mod backend;
mod dispatch;
mod drain;
mod node_answers;
mod pick;
mod queue_depth;
mod reclaim;
mod tick;

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crate::contract::{
    ClientAffinity, Key, Output, SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::{Counters, WorkerCounters};
use crate::policy::Policy;

use accept_on_behalf::AcceptingSlots;
use backend::{Backend, BackendState};
use dispatch::WaitingConnection;
use pick::turns::Repayment;

pub(crate) use queue_depth::WorkerHealth;

/// The interval between polls of the backends that may have something unread.
pub(crate) const TICK: Duration = Duration::from_millis(20);
/// The age of an unread record from which its backend is skipped.
pub(crate) const SLOW: Duration = Duration::from_millis(20);
/// The age of an unread record from which it is reclaimed, if another backend is free.
pub(crate) const STALLED: Duration = Duration::from_millis(100);

/// The connections of one address, and the backends that can take them.
#[derive(Debug)]
pub(crate) struct Scheduler<H> {
    key: Key,
    policy: Policy,
    window: usize,
    waiting_max: usize,
    unresponsive: Duration,
    unresponsive_node: Duration,
    /// Sorted by worker, which is also the order of the rotation.
    backends: Vec<Backend>,
    /// The index of the backend whose turn is next.
    cursor: usize,
    /// The index at which the last search for a backend that needs polling ended.
    poll_cursor: usize,
    repayment: Repayment,
    accepting_slots: AcceptingSlots,
    /// The accepted connections that no backend has taken yet, oldest first.
    waiting: VecDeque<WaitingConnection<H>>,
    /// Whether the primary accepts from the listening socket.
    accepting: bool,
    /// Whether new connections are wanted: false once the address is closed.
    is_open: bool,
    /// The time of the next poll of the backends.
    tick_at: Option<Instant>,
    /// The end of a pause in all dispatch.
    blocked_until: Option<Instant>,
    /// The time at which queues that could not be reclaimed to their end are reclaimed again.
    reclaim_retry_at: Option<Instant>,
    counters: Counters,
    /// The backends that were removed since the supervisor last asked.
    removed: Vec<(WorkerId, WorkerCounters)>,
}

impl<H: ClientAffinity> Scheduler<H> {
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
            poll_cursor: 0,
            repayment: Repayment::default(),
            accepting_slots: AcceptingSlots::default(),
            waiting: VecDeque::new(),
            accepting: false,
            is_open: true,
            tick_at: None,
            blocked_until: None,
            reclaim_retry_at: None,
            counters: Counters::default(),
            removed: Vec::new(),
        }
    }

    /// Adds a backend for a worker that was granted a queue. The backend gets nothing before
    /// [`open_backend`](Self::open_backend).
    pub(crate) fn add_backend(
        &mut self,
        worker: WorkerId,
        slot: SlotId,
        kind: WorkerKind,
        open_max: Option<u32>,
    ) {
        if let Err(at) = self.find(worker) {
            let slow_after = self.patience(SLOW, kind);
            self.backends.insert(at, Backend::new(worker, slot, kind, slow_after, open_max));
            // An insertion before the cursor would otherwise move the turn to another backend.
            if at < self.cursor {
                self.cursor += 1;
            }
        }
    }

    /// Puts a backend in use: its worker listens. Returns `false` when the worker has no backend,
    /// or has reported this before.
    pub(crate) fn open_backend(&mut self, worker: WorkerId) -> bool {
        let Ok(at) = self.find(worker) else { return false };
        let opened = self.backends[at].state == BackendState::Granted;
        if opened {
            self.backends[at].state = BackendState::Open;
        }
        opened
    }

    /// Removes a backend and drops its queue.
    fn remove(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        let backend = self.backends.remove(at);
        self.accepting_slots.backend_removed |= backend.was_accepting;
        if at < self.cursor {
            self.cursor -= 1;
        }
        self.removed.push((backend.worker, backend.counters));
        out.push(Output::DropQueue { worker: backend.worker, key: self.key });
    }

    /// Returns the time after which a record makes a backend of this kind slow or stalled, given that
    /// time without affinity.
    fn patience(&self, time: Duration, kind: WorkerKind) -> Duration {
        match (self.policy, kind) {
            // A client that is moved to another worker loses its state there. It waits as long as
            // its worker may live. A closing address has no time for more patience.
            (Policy::Sticky, WorkerKind::Native) if self.is_open => self.unresponsive,
            (Policy::Sticky, WorkerKind::Node) if self.is_open => self.unresponsive_node,
            (
                Policy::RoundRobin
                | Policy::Shared
                | Policy::LeastLoaded
                | Policy::Sticky
                | Policy::ReusePort,
                _,
            ) => time,
        }
    }

    fn find(&self, worker: WorkerId) -> Result<usize, usize> {
        self.backends.binary_search_by_key(&worker, |backend| backend.worker)
    }
}

/// The state that the supervisor asks for.
impl<H: ClientAffinity> Scheduler<H> {
    /// Returns the time at which [`tick`](Self::tick) is due next.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.tick_at.into_iter().chain(self.blocked_until).chain(self.reclaim_retry_at).min()
    }

    /// Whether the worker has a queue, in use or not.
    pub(crate) fn has_backend(&self, worker: WorkerId) -> bool {
        self.find(worker).is_ok()
    }

    pub(crate) fn has_backends(&self) -> bool {
        !self.backends.is_empty()
    }

    /// Returns the workers that have a queue.
    pub(crate) fn workers(&self) -> impl Iterator<Item = WorkerId> {
        self.backends.iter().map(|backend| backend.worker)
    }

    /// Whether connections may be dispatched to the worker: it listens, and is not suspect.
    pub(crate) fn is_backend_open(&self, worker: WorkerId) -> bool {
        self.find(worker).is_ok_and(|at| self.backends[at].state == BackendState::Open)
    }

    /// Whether accepted connections wait for a backend.
    pub(crate) fn has_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether backends were removed since the last [`take_removed`](Self::take_removed).
    pub(crate) fn has_removed(&self) -> bool {
        !self.removed.is_empty()
    }

    /// Returns the workers whose backends were removed since the last call, with their counters.
    pub(crate) fn take_removed(&mut self) -> Vec<(WorkerId, WorkerCounters)> {
        std::mem::take(&mut self.removed)
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
