//! The end of backends: their queues are reclaimed at once, or left to their workers to drain.
//!
//! Pure.

use crate::contract::{ClientAffinity, Output, WorkerId, WorkerKind};

use super::backend::{AfterReclaim, BackendState};
use super::{SLOW, Scheduler};

impl<H: ClientAffinity> Scheduler<H> {
    /// Closes the backend of a worker that takes nothing more: its queue is reclaimed and dropped.
    pub(crate) fn close_backend(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.backends[at].state {
            BackendState::Granted => self.remove(at, out),
            BackendState::Open | BackendState::Suspect | BackendState::Draining
                if self.backends[at].kind == WorkerKind::Node =>
            {
                self.await_answers(at, out);
            }
            BackendState::Open | BackendState::Suspect | BackendState::Draining => {
                self.reclaim(at, AfterReclaim::Drop(0), out);
            }
            BackendState::Reclaiming(after) => {
                let after = after.max(AfterReclaim::Drop(0));
                self.backends[at].state = BackendState::Reclaiming(after);
            }
            BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::AwaitingAnswers => {}
        }
        self.update_accepting(out);
    }

    /// Drains the backend of a worker that is to finish. Its unread connections go to other
    /// backends, or stay in the queue when no other is in use.
    pub(crate) fn drain_backend(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.backends[at].state {
            BackendState::Granted => self.remove(at, out),
            // Connections on a Node worker's channel cannot be read back.
            BackendState::Open if self.backends[at].kind == WorkerKind::Node => {
                self.drain(at, out);
            }
            BackendState::Open | BackendState::Suspect if self.is_another_open(worker) => {
                self.reclaim(at, AfterReclaim::Drain, out);
            }
            BackendState::Open | BackendState::Suspect => self.drain(at, out),
            BackendState::Reclaiming(after) => {
                let after = after.max(AfterReclaim::Drain);
                self.backends[at].state = BackendState::Reclaiming(after);
            }
            BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::Draining
            | BackendState::AwaitingAnswers => {}
        }
        self.update_accepting(out);
    }

    /// Closes the address: it takes no new connections but its backlog, and no new backends.
    pub(crate) fn close_address(&mut self, out: &mut Vec<Output<H>>) {
        self.is_open = false;
        self.accepting = false;
        self.backends.iter_mut().for_each(|backend| backend.slow_after = SLOW);
        // Backwards, because a removal moves the backends behind it.
        for at in (0..self.backends.len()).rev() {
            if self.backends[at].state == BackendState::Granted {
                self.remove(at, out);
            }
        }
    }

    /// Drains all backends: the workers read what lies in their queues.
    pub(crate) fn drain_all(&mut self, out: &mut Vec<Output<H>>) {
        // Backwards, because a removal moves the backends behind it.
        for at in (0..self.backends.len()).rev() {
            match self.backends[at].state {
                BackendState::Granted => self.remove(at, out),
                BackendState::Open | BackendState::Suspect => self.drain(at, out),
                BackendState::Reclaiming(after) => {
                    let after = after.max(AfterReclaim::Drain);
                    self.backends[at].state = BackendState::Reclaiming(after);
                }
                BackendState::Verifying(_)
                | BackendState::RetryingReclaim(_)
                | BackendState::Draining
                | BackendState::AwaitingAnswers => {}
            }
        }
    }

    /// Ends a queue: its worker reads the rest.
    pub(super) fn drain(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        self.backends[at].state = BackendState::Draining;
        // A Node worker closes its listeners on the disconnect message, which follows all its
        // connections on the same channel.
        if self.backends[at].kind == WorkerKind::Node {
            return;
        }
        out.push(Output::EndQueue { worker: self.backends[at].worker, key: self.key });
    }

    /// Whether a backend other than the worker's is in use.
    fn is_another_open(&self, worker: WorkerId) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| backend.worker != worker && backend.state == BackendState::Open)
    }

    /// Whether any worker takes connections, or will when it is suspect no longer.
    pub(crate) fn has_serving_backend(&self) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| matches!(backend.state, BackendState::Open | BackendState::Suspect))
    }

    /// Whether the worker may be sent the disconnect message: nothing more comes in its queue.
    pub(crate) fn may_disconnect(&self, worker: WorkerId) -> bool {
        self.find(worker).map_or(true, |at| match self.backends[at].state {
            BackendState::Draining
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::AwaitingAnswers => true,
            BackendState::Reclaiming(after) => after >= AfterReclaim::Drop(0),
            BackendState::Granted | BackendState::Open | BackendState::Suspect => false,
        })
    }
}
