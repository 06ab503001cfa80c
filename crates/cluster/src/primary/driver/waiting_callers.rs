//! The callers that wait for the supervisor: for a reload, a forked worker, or the end of all
//! workers.

use std::collections::HashMap;

use crossbeam_channel::Sender;

use super::Driver;
use crate::contract::{ForkRefusal, Input, ReloadFailure, WorkerId};
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::primary_state::Completion;
use crate::primary::worker_process::WorkerProcess;

/// The channel to the caller of a reload.
pub(super) type Reply = Sender<Result<(), Error>>;
/// The channel to the caller of a fork.
type ForkReply = Sender<Result<WorkerProcess, Error>>;

/// The replies that are not sent yet, by the number of their request.
#[derive(Debug, Default)]
pub(super) struct PendingReplies {
    last: u32,
    /// `None` for a reload that a signal requested: no caller waits.
    reloads: HashMap<u32, Option<Reply>>,
    forks: HashMap<u32, ForkReply>,
    /// The forks whose workers have their numbers and are being started.
    starting: HashMap<WorkerId, ForkReply>,
    disconnects: HashMap<u32, Completion>,
}

impl PendingReplies {
    fn number(&mut self) -> u32 {
        self.last += 1;
        self.last
    }

    pub(super) fn reload(&mut self, reply: Option<Reply>) -> u32 {
        let number = self.number();
        self.reloads.insert(number, reply);
        number
    }

    pub(super) fn reloaded(&mut self, number: u32) -> Option<Reply> {
        self.reloads.remove(&number).flatten()
    }

    pub(super) fn fork(&mut self, reply: ForkReply) -> u32 {
        let number = self.number();
        self.forks.insert(number, reply);
        number
    }

    /// Assigns a worker to a fork, or replies that there is no slot for one.
    pub(super) fn assign(&mut self, number: u32, worker: Result<WorkerId, ForkRefusal>) {
        let Some(reply) = self.forks.remove(&number) else { return };
        // A reply fails if the caller has stopped waiting; so do the replies below.
        match worker {
            Ok(worker) => drop(self.starting.insert(worker, reply)),
            Err(ForkRefusal::TooManyWorkers) => drop(reply.send(Err(Error::TooManyWorkers))),
            Err(ForkRefusal::NotRunning) => drop(reply.send(Err(Error::NotRunning))),
        }
    }

    /// Replies to the fork of this worker. Returns an error for which no caller waits.
    pub(super) fn forked(
        &mut self,
        worker: WorkerId,
        result: Result<WorkerProcess, Error>,
    ) -> Option<Error> {
        match self.starting.remove(&worker) {
            Some(reply) => {
                drop(reply.send(result));
                None
            }
            None => result.err(),
        }
    }

    pub(super) fn disconnect(&mut self, completion: Completion) -> u32 {
        let number = self.number();
        self.disconnects.insert(number, completion);
        number
    }

    /// Calls the completion callback of a disconnect whose workers are gone.
    pub(super) fn all_gone(&mut self, number: u32) {
        if let Some(Completion(call)) = self.disconnects.remove(&number) {
            reactor::callback::call(call);
        }
    }

    /// Calls every completion callback, because no worker is left.
    pub(super) fn complete_all(&mut self) {
        for (_, Completion(call)) in self.disconnects.drain() {
            reactor::callback::call(call);
        }
    }
}

impl Driver {
    /// Requests a reload of the supervisor.
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        let number = self.replies.reload(reply);
        self.inputs.push_back(Input::Reload { number });
    }

    /// Replies to the caller of a reload, or emits its failure if no caller waits.
    pub(super) fn reloaded(&mut self, number: u32, result: Result<(), ReloadFailure>) {
        let (worker, failure) = match result {
            Ok(()) => (None, None),
            Err(ReloadFailure::UnderWay) => (None, Some(Error::ReloadUnderWay)),
            Err(ReloadFailure::NotRunning) => (None, Some(Error::NotRunning)),
            Err(ReloadFailure::NotReady(worker)) => {
                let not_ready = self.shared.not_ready(|it| it.id() == worker);
                (Some(worker), Some(Error::NotReady(Box::new(not_ready))))
            }
            Err(ReloadFailure::Ended(worker)) => (Some(worker), Some(self.startup_failure(worker))),
        };
        if failure.is_none() {
            self.shared.emit(Event::Reloaded);
        }
        match (self.replies.reloaded(number), failure) {
            (Some(reply), failure) => drop(reply.send(failure.map_or(Ok(()), Err))),
            (None, Some(failure)) => self.shared.emit(Event::error(worker, failure)),
            (None, None) => {}
        }
    }
}
