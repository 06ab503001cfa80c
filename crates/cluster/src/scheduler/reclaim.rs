//! Reclaims: unread connections are read back from a queue and wait for another backend.
//!
//! A queue is dropped only after a poll has found it empty, because a primary without a spare
//! descriptor cannot read a queue to its end. Until then the reclaim is tried again.
//!
//! Pure. Limits: [`RECLAIM_RETRIES_MAX`].

use std::time::{Duration, Instant};

use crate::contract::{ClientAffinity, Output, WorkerId, WorkerKind};
use crate::counters::CloseReason;

use super::Scheduler;
use super::backend::{AfterReclaim, Backend, BackendState, ConnectionTag};
use super::dispatch::WaitingConnection;

/// The pause before a queue that could not be read to its end is reclaimed again.
pub(super) const RECLAIM_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// The largest number of reclaims of one queue. After the last one the rest is closed with the
/// queue.
pub(super) const RECLAIM_RETRIES_MAX: u32 = 100;

impl<H: ClientAffinity> Scheduler<H> {
    /// Asks for all that is unread in a queue, or unanswered by a Node worker.
    pub(super) fn reclaim(&mut self, at: usize, after: AfterReclaim, out: &mut Vec<Output<H>>) {
        self.backends[at].state = BackendState::Reclaiming(after);
        out.push(Output::Reclaim { worker: self.backends[at].worker, key: self.key });
    }

    /// Takes the answer to `Reclaim`: the connections, oldest first, and the number of probes.
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
        let mut tags = Vec::new();
        if let Ok(at) = self.find(worker) {
            let backend = &mut self.backends[at];
            backend.counters.reclaimed += count;
            // The worker reads from the front: the unread records are the last ones.
            let unread = connections.len() + usize::try_from(probes).unwrap_or_default();
            let read = backend.records.len().saturating_sub(unread);
            tags.extend(backend.records.drain(..).skip(read).filter_map(|sent| sent.connection));
            backend.polled_depth = None;
            backend.is_full = false;
            if let BackendState::Reclaiming(then) = backend.state {
                after = Some((at, then));
            }
        }
        let mut tags = tags.into_iter();
        for connection in connections {
            // A connection without a tag is older than every connection with a tag.
            let number = tags.next().map_or(0, |tag| tag.number);
            let tag = ConnectionTag { number, was_reclaimed: true };
            self.requeue(WaitingConnection { connection, tag });
        }
        if let Some((at, after)) = after {
            self.finish_reclaim(at, after, now, out);
        }
        self.dispatch_waiting(now, out);
        self.close_excess(out);
    }

    fn finish_reclaim(
        &mut self,
        at: usize,
        after: AfterReclaim,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        match after {
            AfterReclaim::Suspect => {
                self.backends[at].state = BackendState::Suspect;
                self.backends[at].owed = 0;
                self.probe(at, now, out);
            }
            AfterReclaim::Drain => self.drain(at, out),
            // The driver holds all unanswered connections: none can be left behind.
            AfterReclaim::Drop(_) if self.backends[at].kind == WorkerKind::Node => {
                self.remove(at, out);
            }
            AfterReclaim::Drop(tries) => {
                self.backends[at].state = BackendState::Verifying(tries);
                out.push(Output::PollDepth { worker: self.backends[at].worker, key: self.key });
            }
        }
    }

    /// Removes a backend whose queue cannot be reclaimed: its `unread` connections are closed with
    /// the queue.
    pub(super) fn abandon(&mut self, at: usize, unread: usize, out: &mut Vec<Output<H>>) {
        let lost = u64::try_from(unread).unwrap_or(u64::MAX);
        self.backends[at].counters.reclaimed += lost;
        self.counters.reclaimed += lost;
        self.counters.close(CloseReason::Overflow, lost);
        self.remove(at, out);
    }

    /// Whether the answer to a `Reclaim` is due.
    pub(crate) fn is_reclaiming(&self) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| matches!(backend.state, BackendState::Reclaiming(_)))
    }

    /// Whether connections may still come back from a backend that takes no more.
    pub(crate) fn may_reclaim_more(&self) -> bool {
        self.backends.iter().any(|backend| match backend.state {
            BackendState::Reclaiming(_)
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::AwaitingAnswers => true,
            BackendState::Granted
            | BackendState::Open
            | BackendState::Suspect
            | BackendState::Draining => false,
        })
    }

    /// Whether a queue in use has unread connections that another backend could get later.
    pub(crate) fn has_unread_and_another_backend(&self) -> bool {
        let unread =
            |backend: &Backend| backend.state == BackendState::Open && !backend.records.is_empty();
        self.backends.len() > 1 && self.backends.iter().any(unread)
    }
}
