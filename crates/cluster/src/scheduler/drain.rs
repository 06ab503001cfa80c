//! How lanes end: read back at once, or left to their worker to read to the end.
//!
//! A queue that is read back is dropped only when it is seen to be empty, for a primary without a
//! descriptor to spare cannot read it to the end.
//!
//! Pure.

use crate::contract::{Affinity, Output, WorkerId, WorkerKind};
use crate::counters::CloseReason;

use super::backend::{After, Backend, BackendState};
use super::{SLOW, Scheduler};

impl<H: Affinity> Scheduler<H> {
    /// The worker takes nothing more: its queue is read back and dropped.
    pub(crate) fn close_backend(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.backends[at].state {
            BackendState::Granted => self.remove(at, out),
            BackendState::Open | BackendState::Suspect | BackendState::Ended
                if self.backends[at].kind == WorkerKind::Node =>
            {
                self.await_answers(at, out);
            }
            BackendState::Open | BackendState::Suspect | BackendState::Ended => {
                self.reclaim(at, After::Drop(0), out);
            }
            BackendState::Taking(after) => {
                self.backends[at].state = BackendState::Taking(after.max(After::Drop(0)));
            }
            BackendState::Checking(_) | BackendState::Again(_) | BackendState::Answering => {}
        }
        self.accept_or_not(out);
    }

    /// The worker is to finish: its queue goes to the others, or stays when there are none.
    pub(crate) fn leave(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.backends[at].state {
            BackendState::Granted => self.remove(at, out),
            BackendState::Open if self.backends[at].kind == WorkerKind::Node => self.end(at, out),
            BackendState::Open | BackendState::Suspect if self.serves_beside(worker) => {
                self.reclaim(at, After::End, out);
            }
            BackendState::Open | BackendState::Suspect => self.end(at, out),
            BackendState::Taking(after) => {
                self.backends[at].state = BackendState::Taking(after.max(After::End));
            }
            BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Ended
            | BackendState::Answering => {}
        }
        self.accept_or_not(out);
    }

    /// The socket goes: nothing new is wanted but its backlog, and nobody new joins.
    pub(crate) fn give_up_address(&mut self, out: &mut Vec<Output<H>>) {
        self.open = false;
        self.accepting = false;
        self.backends.iter_mut().for_each(|backend| backend.slow_after = SLOW);
        for at in (0..self.backends.len()).rev() {
            if self.backends[at].state == BackendState::Granted {
                self.remove(at, out);
            }
        }
    }

    /// All lanes end: their workers read what they have.
    pub(crate) fn end_all(&mut self, out: &mut Vec<Output<H>>) {
        for at in (0..self.backends.len()).rev() {
            match self.backends[at].state {
                BackendState::Granted => self.remove(at, out),
                BackendState::Open | BackendState::Suspect => self.end(at, out),
                BackendState::Taking(after) => {
                    self.backends[at].state = BackendState::Taking(after.max(After::End));
                }
                BackendState::Checking(_)
                | BackendState::Again(_)
                | BackendState::Ended
                | BackendState::Answering => {}
            }
        }
    }

    /// Nobody will come to take what waits.
    pub(crate) fn close_waiting(&mut self, reason: CloseReason, out: &mut Vec<Output<H>>) {
        while let Some(waiting) = self.waiting.pop_front() {
            self.close(waiting.connection, reason, out);
        }
    }

    /// A trustworthy lane other than the worker's is in use.
    pub(crate) fn serves_beside(&self, worker: WorkerId) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| backend.worker != worker && backend.state == BackendState::Open)
    }

    /// Somebody takes connections, or will when it can be trusted again.
    pub(crate) fn serves(&self) -> bool {
        let mut backends = self.backends.iter();
        backends.any(|backend| matches!(backend.state, BackendState::Open | BackendState::Suspect))
    }

    /// The worker may be told to finish: nothing more is coming on its queue.
    pub(crate) fn has_ended(&self, worker: WorkerId) -> bool {
        self.find(worker).map_or(true, |at| match self.backends[at].state {
            BackendState::Ended
            | BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Answering => true,
            BackendState::Taking(after) => after >= After::Drop(0),
            BackendState::Granted | BackendState::Open | BackendState::Suspect => false,
        })
    }

    /// Something lies unread in a queue, and its worker is not the only one.
    pub(crate) fn has_unread_beside_others(&self) -> bool {
        let unread =
            |backend: &Backend| backend.state == BackendState::Open && !backend.records.is_empty();
        self.backends.len() > 1 && self.backends.iter().any(unread)
    }

    /// Connections may come back of a lane that takes no more.
    pub(crate) fn may_get_back(&self) -> bool {
        self.backends.iter().any(|backend| match backend.state {
            BackendState::Taking(_)
            | BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Answering => true,
            BackendState::Granted
            | BackendState::Open
            | BackendState::Suspect
            | BackendState::Ended => false,
        })
    }

    /// A `Reclaim` is under way.
    pub(crate) fn is_taking(&self) -> bool {
        self.backends.iter().any(|backend| matches!(backend.state, BackendState::Taking(_)))
    }
}

impl<H: Affinity> Scheduler<H> {
    pub(super) fn reclaim(&mut self, at: usize, after: After, out: &mut Vec<Output<H>>) {
        self.backends[at].state = BackendState::Taking(after);
        out.push(Output::Reclaim { worker: self.backends[at].worker, key: self.key });
    }

    pub(super) fn end(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        self.backends[at].state = BackendState::Ended;
        // What a Node worker is told ends its listeners, and comes after all it was given.
        if self.backends[at].kind == WorkerKind::Node {
            return;
        }
        out.push(Output::EndQueue { worker: self.backends[at].worker, key: self.key });
    }

    pub(super) fn remove(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        let backend = self.backends.remove(at);
        self.own.lane_gone |= backend.was_accepting;
        if at < self.cursor {
            self.cursor -= 1;
        }
        self.gone.push((backend.worker, backend.counters));
        out.push(Output::DropQueue { worker: backend.worker, key: self.key });
    }

    /// What lies in the queue cannot be had: it is closed with the queue.
    pub(super) fn give_up(&mut self, at: usize, unread: usize, out: &mut Vec<Output<H>>) {
        let lost = u64::try_from(unread).unwrap_or(u64::MAX);
        self.backends[at].counters.reclaimed += lost;
        self.counters.reclaimed += lost;
        self.counters.close(CloseReason::Overflow, lost);
        self.remove(at, out);
    }
}
