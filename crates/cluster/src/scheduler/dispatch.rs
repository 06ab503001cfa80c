//! Dispatch: from the kernel's backlog, or from the line of waiting connections, into a queue.
//!
//! Pure.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crate::contract::{ClientAffinity, Output, Refusal, WorkerId, WorkerKind};
use crate::counters::CloseReason;

use super::backend::{ConnectionTag, SentRecord};
use super::pick::{HasPlace, Rule};
use super::{Scheduler, TICK};

/// The pause in all dispatch after the kernel refused a record because too many descriptors were
/// in flight.
pub(super) const IN_FLIGHT_PAUSE: Duration = Duration::from_millis(5);

/// An accepted connection that no backend has taken yet.
#[derive(Debug)]
pub(super) struct WaitingConnection<H> {
    pub(super) connection: H,
    pub(super) tag: ConnectionTag,
}

impl<H: ClientAffinity> Scheduler<H> {
    /// Takes a connection that the kernel gave, and dispatches it or lets it wait.
    pub(crate) fn accepted(&mut self, connection: H, now: Instant, out: &mut Vec<Output<H>>) {
        self.counters.accepted += 1;
        let tag = ConnectionTag { number: self.counters.accepted, was_reclaimed: false };
        let waiting = WaitingConnection { connection, tag };
        // A connection that waits already is older, and comes first, unless it waits for a backend
        // of its own.
        let may_pick = self.waiting.is_empty() || self.has_homes();
        let place =
            if self.waiting.len() < self.waiting_max { HasPlace::Yes } else { HasPlace::No };
        let rule = self.rule(&waiting.connection);
        let backend = if may_pick { self.pick(rule, place, now, out) } else { None };
        match backend {
            Some(backend) => self.send(backend, waiting, now, out),
            None if self.waiting.len() < self.waiting_max => self.waiting.push_back(waiting),
            None => self.close(waiting.connection, CloseReason::Overflow, out),
        }
        self.update_accepting(out);
    }

    /// Dispatches the waiting connections, oldest first, while backends can take them.
    pub(crate) fn dispatch_waiting(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        self.dispatch_at_most(usize::MAX, now, out);
    }

    /// Dispatches at most `max` of the waiting connections.
    pub(super) fn dispatch_at_most(&mut self, max: usize, now: Instant, out: &mut Vec<Output<H>>) {
        let (mut at, mut sent) = (0, 0);
        // The clients whose homes have no room.
        let mut blocked = BTreeSet::new();
        while sent < max && at < self.waiting.len() {
            let rule = self.rule(&self.waiting[at].connection);
            if matches!(rule, Rule::Sticky(client) if blocked.contains(&client)) {
                at += 1;
                continue;
            }
            match self.pick(rule, HasPlace::Yes, now, out) {
                Some(backend) => {
                    let Some(waiting) = self.waiting.remove(at) else { break };
                    self.send(backend, waiting, now, out);
                    sent += 1;
                }
                // The connections behind this one may have other homes.
                None if self.has_room_for_any() => {
                    let Rule::Sticky(client) = rule else { break };
                    blocked.insert(client);
                    at += 1;
                }
                None => break,
            }
        }
        self.update_accepting(out);
    }

    fn send(
        &mut self,
        at: usize,
        waiting: WaitingConnection<H>,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let backend = &mut self.backends[at];
        let WaitingConnection { connection, tag } = waiting;
        backend.push(SentRecord { sent_at: now, connection: Some(tag) });
        backend.counters.dispatched += 1;
        backend.counters.re_dispatched += u64::from(tag.was_reclaimed);
        self.counters.dispatched += 1;
        self.counters.re_dispatched += u64::from(tag.was_reclaimed);
        out.push(Output::Send { worker: backend.worker, key: self.key, connection });
        // A full view may be out of date: the answer shows what the worker has read since.
        if backend.records.len() >= self.window && backend.kind == WorkerKind::Native {
            self.poll_depth(at, out);
        }
        self.tick_at.get_or_insert(now + TICK);
    }

    /// Handles a record that the kernel refused. Without a connection the record was a probe.
    pub(crate) fn send_failed(
        &mut self,
        worker: WorkerId,
        connection: Option<H>,
        refusal: Refusal,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        let mut tag = ConnectionTag { number: 0, was_reclaimed: false };
        let backend = self.find(worker);
        if let Ok(at) = backend {
            let backend = &mut self.backends[at];
            tag = backend.remove_refused().unwrap_or(tag);
            // A refused record does not count as dispatched: `send` has counted it too early.
            if connection.is_some() {
                backend.counters.dispatched -= 1;
                backend.counters.re_dispatched -= u64::from(tag.was_reclaimed);
            }
        }
        if let Some(connection) = connection {
            self.counters.dispatched -= 1;
            self.counters.re_dispatched -= u64::from(tag.was_reclaimed);
            self.requeue(WaitingConnection { connection, tag });
        }
        match (refusal, backend) {
            (Refusal::Full, Ok(at)) => {
                self.backends[at].is_full = true;
                self.tick_at.get_or_insert(now + TICK);
            }
            // The limit on descriptors in flight holds for all queues together (`ETOOMANYREFS`),
            // and the kernel does not report its end: only time helps.
            (Refusal::InFlight, _) => self.blocked_until = Some(now + IN_FLIGHT_PAUSE),
            (Refusal::Gone, Ok(_)) => self.close_backend(worker, out),
            (Refusal::Full | Refusal::Gone, Err(_)) => {}
        }
        self.dispatch_waiting(now, out);
        self.close_excess(out);
    }

    /// Uses a queue again that had no room and now has.
    pub(crate) fn writable(&mut self, worker: WorkerId, now: Instant, out: &mut Vec<Output<H>>) {
        if let Ok(at) = self.find(worker) {
            if std::mem::take(&mut self.backends[at].is_full) {
                self.dispatch_waiting(now, out);
            }
        }
    }

    /// Begins or stops accepting: the primary accepts while a backend is free, and nothing waits or
    /// there is room to wait for a home.
    pub(super) fn update_accepting(&mut self, out: &mut Vec<Output<H>>) {
        self.update_accept_on_behalf(out);
        // `await_closed` comes last: it asks workers for reports, which are wanted only when no
        // backend is free.
        let may_wait = self.has_homes() && self.may_accept_sticky();
        let wanted = self.is_open && (self.waiting.is_empty() || may_wait);
        let on = wanted && (self.next_in_rotation().is_some() || self.await_closed());
        if on != self.accepting {
            self.accepting = on;
            out.push(Output::Accept { key: self.key, on });
        }
    }
}

/// The line of waiting connections.
impl<H: ClientAffinity> Scheduler<H> {
    /// Puts a connection back into the line, at the place that its age gives it.
    pub(super) fn requeue(&mut self, waiting: WaitingConnection<H>) {
        let number = waiting.tag.number;
        let at = self.waiting.iter().position(|other| other.tag.number > number);
        self.waiting.insert(at.unwrap_or(self.waiting.len()), waiting);
    }

    /// Closes the newest of the waiting connections while there are more than may wait.
    pub(super) fn close_excess(&mut self, out: &mut Vec<Output<H>>) {
        while self.waiting.len() > self.waiting_max {
            let Some(newest) = self.waiting.pop_back() else { return };
            self.close(newest.connection, CloseReason::Overflow, out);
        }
    }

    /// Closes all waiting connections: no worker will come to take them.
    pub(crate) fn close_waiting(&mut self, reason: CloseReason, out: &mut Vec<Output<H>>) {
        while let Some(waiting) = self.waiting.pop_front() {
            self.close(waiting.connection, reason, out);
        }
    }

    fn close(&mut self, connection: H, reason: CloseReason, out: &mut Vec<Output<H>>) {
        self.counters.close(reason, 1);
        out.push(Output::Close { connection, reason });
    }
}
