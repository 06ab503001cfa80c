//! How lanes end: read back at once, or left to their worker to read to the end.
//!
//! A queue that is read back is dropped only when it is seen to be empty, for a primary without a
//! descriptor to spare cannot read it to the end.
//!
//! Pure.

use crate::contract::{Affinity, Output, WorkerId, WorkerKind};
use crate::counters::CloseReason;

use super::backend::{After, Lane, LaneState};
use super::{LATE, Schedule};

impl<H: Affinity> Schedule<H> {
    /// The worker takes nothing more: its queue is read back and dropped.
    pub(crate) fn close_lane(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.lanes[at].state {
            LaneState::Granted => self.remove(at, out),
            LaneState::Open | LaneState::Suspect | LaneState::Ended
                if self.lanes[at].kind == WorkerKind::Node =>
            {
                self.await_answers(at, out);
            }
            LaneState::Open | LaneState::Suspect | LaneState::Ended => {
                self.take_back(at, After::Drop(0), out);
            }
            LaneState::Taking(after) => {
                self.lanes[at].state = LaneState::Taking(after.max(After::Drop(0)));
            }
            LaneState::Checking(_) | LaneState::Again(_) | LaneState::Answering => {}
        }
        self.accept_or_not(out);
    }

    /// The worker is to finish: its queue goes to the others, or stays when there are none.
    pub(crate) fn leave(&mut self, worker: WorkerId, out: &mut Vec<Output<H>>) {
        let Ok(at) = self.find(worker) else { return };
        match self.lanes[at].state {
            LaneState::Granted => self.remove(at, out),
            LaneState::Open if self.lanes[at].kind == WorkerKind::Node => self.end(at, out),
            LaneState::Open | LaneState::Suspect if self.serves_beside(worker) => {
                self.take_back(at, After::End, out);
            }
            LaneState::Open | LaneState::Suspect => self.end(at, out),
            LaneState::Taking(after) => {
                self.lanes[at].state = LaneState::Taking(after.max(After::End));
            }
            LaneState::Checking(_)
            | LaneState::Again(_)
            | LaneState::Ended
            | LaneState::Answering => {}
        }
        self.accept_or_not(out);
    }

    /// The socket goes: nothing new is wanted but its backlog, and nobody new joins.
    pub(crate) fn give_up_address(&mut self, out: &mut Vec<Output<H>>) {
        self.open = false;
        self.accepting = false;
        self.lanes.iter_mut().for_each(|lane| lane.late_after = LATE);
        for at in (0..self.lanes.len()).rev() {
            if self.lanes[at].state == LaneState::Granted {
                self.remove(at, out);
            }
        }
    }

    /// All lanes end: their workers read what they have.
    pub(crate) fn end_all(&mut self, out: &mut Vec<Output<H>>) {
        for at in (0..self.lanes.len()).rev() {
            match self.lanes[at].state {
                LaneState::Granted => self.remove(at, out),
                LaneState::Open | LaneState::Suspect => self.end(at, out),
                LaneState::Taking(after) => {
                    self.lanes[at].state = LaneState::Taking(after.max(After::End));
                }
                LaneState::Checking(_)
                | LaneState::Again(_)
                | LaneState::Ended
                | LaneState::Answering => {}
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
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| lane.worker != worker && lane.state == LaneState::Open)
    }

    /// Somebody takes connections, or will when it can be trusted again.
    pub(crate) fn serves(&self) -> bool {
        let mut lanes = self.lanes.iter();
        lanes.any(|lane| matches!(lane.state, LaneState::Open | LaneState::Suspect))
    }

    /// The worker may be told to finish: nothing more is coming on its queue.
    pub(crate) fn has_ended(&self, worker: WorkerId) -> bool {
        self.find(worker).map_or(true, |at| match self.lanes[at].state {
            LaneState::Ended
            | LaneState::Checking(_)
            | LaneState::Again(_)
            | LaneState::Answering => true,
            LaneState::Taking(after) => after >= After::Drop(0),
            LaneState::Granted | LaneState::Open | LaneState::Suspect => false,
        })
    }

    /// Something lies unread in a queue, and its worker is not the only one.
    pub(crate) fn has_unread_beside_others(&self) -> bool {
        let unread = |lane: &Lane| lane.state == LaneState::Open && !lane.records.is_empty();
        self.lanes.len() > 1 && self.lanes.iter().any(unread)
    }

    /// Connections may come back of a lane that takes no more.
    pub(crate) fn may_get_back(&self) -> bool {
        self.lanes.iter().any(|lane| match lane.state {
            LaneState::Taking(_)
            | LaneState::Checking(_)
            | LaneState::Again(_)
            | LaneState::Answering => true,
            LaneState::Granted | LaneState::Open | LaneState::Suspect | LaneState::Ended => false,
        })
    }

    /// A `TakeBack` is under way.
    pub(crate) fn is_taking(&self) -> bool {
        self.lanes.iter().any(|lane| matches!(lane.state, LaneState::Taking(_)))
    }
}

impl<H: Affinity> Schedule<H> {
    pub(super) fn take_back(&mut self, at: usize, after: After, out: &mut Vec<Output<H>>) {
        self.lanes[at].state = LaneState::Taking(after);
        out.push(Output::TakeBack { worker: self.lanes[at].worker, key: self.key });
    }

    pub(super) fn end(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        self.lanes[at].state = LaneState::Ended;
        // What a Node worker is told ends its listeners, and comes after all it was given.
        if self.lanes[at].kind == WorkerKind::Node {
            return;
        }
        out.push(Output::EndQueue { worker: self.lanes[at].worker, key: self.key });
    }

    pub(super) fn remove(&mut self, at: usize, out: &mut Vec<Output<H>>) {
        let lane = self.lanes.remove(at);
        self.own.lane_gone |= lane.seen_own;
        if at < self.cursor {
            self.cursor -= 1;
        }
        self.gone.push((lane.worker, lane.counters));
        out.push(Output::DropQueue { worker: lane.worker, key: self.key });
    }

    /// What lies in the queue cannot be had: it is closed with the queue.
    pub(super) fn give_up(&mut self, at: usize, unread: usize, out: &mut Vec<Output<H>>) {
        let lost = u64::try_from(unread).unwrap_or(u64::MAX);
        self.lanes[at].counters.taken_back += lost;
        self.counters.taken_back += lost;
        self.counters.close(CloseReason::Overflow, lost);
        self.remove(at, out);
    }
}
