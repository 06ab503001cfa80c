//! The callers that wait for the supervisor: for a reload, a forked worker, or the end of all
//! workers.

use std::collections::HashMap;
use std::sync::Arc;

use crossbeam_channel::Sender;

use super::Driver;
use crate::contract::{ForkRefusal, Input, ReloadFailure, WorkerId};
use crate::error::Error;
use crate::error::not_ready::UnreadyWorker;
use crate::primary::event::Event;
use crate::primary::primary_state::Completion;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;

/// The channel to the caller of a reload.
pub(super) type Reply = Sender<Result<(), Error>>;
/// The channel to the caller of a fork.
type ForkReply = Sender<Result<WorkerProcess, Error>>;

/// The replies that are not sent yet, by the number of their request.
#[derive(Debug, Default)]
pub(super) struct PendingReplies {
    last: u32,
    reloads: HashMap<u32, Reply>,
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

    pub(super) fn reload(&mut self, reply: Reply) -> u32 {
        let number = self.number();
        self.reloads.insert(number, reply);
        number
    }

    pub(super) fn reloaded(&mut self, number: u32) -> Option<Reply> {
        self.reloads.remove(&number)
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
    /// Requests a reload of the supervisor; without a reply no caller waits.
    pub(super) fn reload(&mut self, reply: Option<Reply>) {
        let number = reply.map(|reply| self.replies.reload(reply));
        self.inputs.push_back(Input::Reload { number });
    }

    /// Replies to the callers of a reload, and emits its failure if a signal requested it.
    pub(super) fn reloaded(
        &mut self,
        numbers: &[u32],
        on_signal: bool,
        result: Result<(), ReloadFailure>,
    ) {
        let failed = match result {
            Ok(()) => None,
            Err(ReloadFailure::NotRunning) => {
                // A reload that was requested by a signal, and that the end of the cluster
                // overtakes, is no failure.
                return self.reply_all(numbers, || Err(Error::NotRunning));
            }
            Err(ReloadFailure::NotReady(worker, missing)) => {
                Some((worker, Arc::new(self.successor_not_ready(worker, missing))))
            }
            Err(ReloadFailure::Ended(worker)) => {
                Some((worker, Arc::new(self.startup_failure(worker))))
            }
        };
        let Some((worker, failure)) = failed else {
            self.shared.emit(Event::Reloaded);
            return self.reply_all(numbers, || Ok(()));
        };
        if on_signal {
            let error = failure.clone();
            self.shared.emit(Event::Error { worker: Some(worker), error });
        }
        self.reply_all(numbers, || Err(failure.copy()));
    }

    fn reply_all(&mut self, numbers: &[u32], result: impl Fn() -> Result<(), Error>) {
        for number in numbers {
            if let Some(reply) = self.replies.reloaded(*number) {
                drop(reply.send(result()));
            }
        }
    }

    /// Returns the error of a reload whose new worker took too long.
    fn successor_not_ready(&mut self, worker: WorkerId, missing: Vec<Address>) -> Error {
        let mut not_ready = self.shared.not_ready(|_| false);
        if let Some(worker_io) = self.workers.get_mut(worker) {
            let unready = worker_io.process.unready();
            not_ready.workers.push(UnreadyWorker { missing, ..unready });
        }
        Error::NotReady(Box::new(not_ready))
    }
}
