//! Who waits for an answer of the core: for a reload, a forked worker, the end of all workers.

use std::collections::HashMap;

use crossbeam_channel::Sender;

use super::Driver;
use crate::contract::{Input, ReloadFailure, WorkerId};
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::shared::Completion;
use crate::primary::worker_process::WorkerProcess;

/// The way back to who asked for a reload.
pub(super) type Reply = Sender<Result<(), Error>>;
/// The way back to who asked for a worker.
type ForkReply = Sender<Result<WorkerProcess, Error>>;

#[derive(Debug, Default)]
pub(super) struct PendingReplies {
    last: u32,
    /// Nobody waits for a reload that a signal asked for.
    reloads: HashMap<u32, Option<Reply>>,
    forks: HashMap<u32, ForkReply>,
    /// The worker has its number, and is being started.
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

    /// The core made this worker of the wish, or none.
    pub(super) fn ordered(&mut self, number: u32, worker: Option<WorkerId>) {
        let Some(reply) = self.forks.remove(&number) else { return };
        match worker {
            Some(worker) => drop(self.starting.insert(worker, reply)),
            // Whoever asked may have stopped waiting; below as well.
            None => drop(reply.send(Err(Error::NoPlace))),
        }
    }

    /// Answers who forked this worker; gives an error back that nobody waits for.
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

    pub(super) fn disconnect(&mut self, then: Completion) -> u32 {
        let number = self.number();
        self.disconnects.insert(number, then);
        number
    }

    pub(super) fn all_gone(&mut self, number: u32) {
        if let Some(Completion(call)) = self.disconnects.remove(&number) {
            reactor::callback::call(call);
        }
    }

    /// Nobody is left: all who wait for that are told.
    pub(super) fn end(&mut self) {
        for (_, Completion(call)) in self.disconnects.drain() {
            reactor::callback::call(call);
        }
    }
}

impl Driver {
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        let number = self.replies.reload(reply);
        self.inputs.push_back(Input::Reload { number });
    }

    pub(super) fn reloaded(&mut self, number: u32, result: Result<(), ReloadFailure>) {
        let (worker, failure) = match result {
            Ok(()) => (None, None),
            Err(ReloadFailure::UnderWay) => (None, Some(Error::ReloadUnderWay)),
            Err(ReloadFailure::Closed) => (None, Some(Error::Closed)),
            Err(ReloadFailure::NotReady(worker)) => (Some(worker), Some(Error::NotReady(worker))),
            Err(ReloadFailure::Ended(worker)) => (Some(worker), Some(self.startup_failure(worker))),
        };
        if failure.is_none() {
            self.shared.emit(Event::Reloaded);
        }
        match (self.replies.reloaded(number), failure) {
            // Whoever asked may have stopped waiting.
            (Some(reply), failure) => drop(reply.send(failure.map_or(Ok(()), Err))),
            (None, Some(failure)) => self.shared.emit(Event::error(worker, failure)),
            (None, None) => {}
        }
    }
}
