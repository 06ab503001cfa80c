//! The I/O of the workers in the driver: process, hand-off queues and captured standard error.
//!
//! Until the runtime of a worker is up, the last [`STDERR_TAIL_BYTES`] of its standard error are
//! kept for the error of a failed start. Everything else is written to the primary's standard
//! error.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use child_process::internal::{self, InternalChannel};
use child_process::{Child, ExitStatus, Signal};
use reactor::{Interest, Token, Turn};

use crate::contract::{Key, WorkerId, WorkerKind};
use crate::listen_rules::Credentials;
use crate::node::session_with_worker::SessionWithWorker;
use crate::primary::primary_state::{Shared, Spawned};
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::hand_off_queue::{Connection, HandOffQueue, Reclaimed};
use crate::protocol::message::ToWorker;

/// Number of bytes kept of the standard error of a worker whose runtime is not up.
const STDERR_TAIL_BYTES: usize = 4096;
/// The most answers to requests that a worker has not read, as far as the primary can tell. Each
/// request of an honest worker blocks a thread until the answer arrives.
const ANSWERS_UNREAD_MAX: u32 = 1024;
/// The most grants among them, each of which holds up to three descriptors.
const GRANTS_UNREAD_MAX: u32 = 64;
/// Number of reads of that size before the other sources get their turn.
const READS_PER_TURN: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Workers(BTreeMap<WorkerId, WorkerIo>);

#[derive(Debug)]
pub(crate) struct WorkerIo {
    pub(crate) process: WorkerProcess,
    pub(crate) child: Arc<Child>,
    pub(crate) queues: BTreeMap<Key, HandOffQueue>,
    /// The session of a Node worker, which has no queues.
    pub(crate) session: Option<SessionWithWorker<Connection>>,
    /// The answers and grants since the last moment at which the channel had room.
    unread: Unread,
    /// The user and group of the worker, if they are not those of the primary.
    pub(crate) credentials: Option<Credentials>,
    /// The last message of another worker could not be sent to this one.
    pub(crate) misses_messages: bool,
    stderr: Option<std::fs::File>,
    stderr_tail: VecDeque<u8>,
    /// The tail has become part of an error, so it is not written out as well.
    stderr_reported: bool,
    /// Standard error is left to read: the turn ended before, or the writer has enough.
    has_more_stderr: bool,
}

/// Answers to requests that may be unread.
#[derive(Clone, Copy, Debug, Default)]
struct Unread {
    answers: u32,
    grants: u32,
}

/// The decision whether a request of a worker may be answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answering {
    Allowed,
    /// Too many grants wait: no further descriptors.
    Refused,
    /// The worker asks and does not read the answers.
    Violation,
}

impl Workers {
    pub(crate) fn add(&mut self, worker_io: WorkerIo) {
        self.0.insert(worker_io.process.id(), worker_io);
    }

    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.0.contains_key(&worker)
    }

    /// Removes a worker that is over, with no queue left and no connection unanswered.
    pub(crate) fn remove_if_done(&mut self, worker: WorkerId) -> Option<WorkerIo> {
        let worker_io = self.0.get(&worker)?;
        let holds_nothing = worker_io.queues.is_empty()
            && worker_io.session.as_ref().is_none_or(SessionWithWorker::is_empty);
        let done = worker_io.process.is_over() && holds_nothing;
        if done { self.0.remove(&worker) } else { None }
    }

    pub(crate) fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Some(worker_io) = self.0.get(&worker) {
            // Internal messages always have room. Fails on a closed channel, which an event
            // reports.
            let _ = worker_io.child.send_internal(&message);
        }
    }

    /// Counts an answer to a request of the worker, which asks for descriptors if it is a grant.
    pub(crate) fn count_answer(&mut self, worker: WorkerId, is_grant: bool) -> Answering {
        let Some(worker_io) = self.0.get_mut(&worker) else { return Answering::Allowed };
        let queued = worker_io.child.link().map_or(0, ipc::Link::queued_bytes);
        if queued == 0 {
            worker_io.unread = Unread::default();
        }
        // A Node program sends requests without waiting for the answers.
        let is_node = worker_io.session.is_some();
        let grants_max = if is_node { ANSWERS_UNREAD_MAX } else { GRANTS_UNREAD_MAX };
        let unread = &mut worker_io.unread;
        if unread.answers >= ANSWERS_UNREAD_MAX && !is_node {
            return Answering::Violation;
        }
        if is_grant && unread.grants >= grants_max {
            return Answering::Refused;
        }
        unread.answers = unread.answers.saturating_add(1);
        unread.grants += u32::from(is_grant);
        Answering::Allowed
    }

    pub(crate) fn disconnect(&mut self, worker: WorkerId) {
        if let Some(worker_io) = self.0.get(&worker) {
            // Fails only when the channel is closed already.
            let _ = worker_io.child.disconnect();
        }
    }

    /// Ends a worker whose time is up. A worker of this crate drains on any other `SIGTERM`, and
    /// knows this one by its origin.
    pub(crate) fn kill(&mut self, worker: WorkerId, signal: Signal) {
        if let Some(worker_io) = self.0.get(&worker) {
            // Fails only when the process has ended, which an event reports.
            let _ = internal::queue_signal(&worker_io.child, signal);
        }
    }

    /// Whether the standard error of any worker was left unread.
    pub(crate) fn has_unread_stderr(&self) -> bool {
        self.0.values().any(|worker_io| worker_io.has_more_stderr)
    }

    /// Reads the standard error that the last turn left; returns what is to be written out.
    pub(crate) fn resume_reading(&mut self, turn: &mut Turn<'_>) -> Vec<Vec<u8>> {
        let workers = self.0.values_mut().filter(|worker_io| worker_io.has_more_stderr);
        workers.filter_map(|worker_io| worker_io.read_stderr(turn)).collect()
    }

    /// Closes all workers; returns what is still to be written of their standard errors.
    pub(crate) fn close_all(&mut self, turn: &mut Turn<'_>) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0).into_values().map(|worker_io| worker_io.close(turn)).collect()
    }

    /// Returns the Node workers whose answers may wait in a paused channel.
    pub(crate) fn paused_with_unanswered(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let waits = |worker_io: &WorkerIo| {
            worker_io.session.as_ref().is_some_and(|session| !session.is_empty())
        };
        let workers = self.0.iter();
        workers.filter(move |(_, it)| waits(it) && it.child.is_paused()).map(|(id, _)| *id)
    }

    /// Whether the channel of any worker is paused.
    pub(crate) fn is_any_paused(&self) -> bool {
        self.0.values().any(|worker_io| worker_io.child.is_paused())
    }

    pub(crate) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut WorkerIo> {
        self.0.get_mut(&worker)
    }

    /// Reads the unread connections of a queue back, with the number of probes among them.
    pub(crate) fn reclaim(&self, worker: WorkerId, key: Key) -> Reclaimed {
        let worker_io = self.0.get(&worker);
        let queue = worker_io.and_then(|worker_io| Some((worker_io, worker_io.queues.get(&key)?)));
        queue.map_or_else(Reclaimed::default, |(it, queue)| queue.reclaim(it.process.has_ended()))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut WorkerIo> {
        self.0.values_mut()
    }

    pub(crate) fn queue(&self, worker: WorkerId, key: Key) -> Option<&HandOffQueue> {
        self.0.get(&worker)?.queues.get(&key)
    }
}

impl WorkerIo {
    pub(crate) fn new(worker: WorkerId, spawned: Spawned, shared: Arc<Shared>) -> Self {
        let (child, kind) = (spawned.child.clone(), spawned.kind);
        let credentials = spawned.credentials.clone();
        let process = WorkerProcess::new(worker, spawned, shared.clone());
        shared.change(|state| {
            state.workers.insert(worker, process.clone());
        });
        Self {
            process,
            child,
            queues: BTreeMap::new(),
            session: (kind == WorkerKind::Node).then(SessionWithWorker::new),
            unread: Unread::default(),
            credentials,
            misses_messages: false,
            stderr: None,
            stderr_tail: VecDeque::new(),
            stderr_reported: false,
            has_more_stderr: false,
        }
    }

    /// Watches the captured standard error, until the worker's runtime puts the real one back.
    pub(crate) fn watch_stderr(&mut self, stderr: OwnedFd, token: Token, turn: &mut Turn<'_>) {
        let watched = sys::socket::set_nonblocking(stderr.as_fd(), true)
            .and_then(|()| turn.register(stderr.as_fd(), token, Interest::READABLE));
        if watched.is_ok() {
            self.stderr = Some(stderr.into());
        }
    }

    /// Leaves the standard error unread for now.
    pub(crate) fn leave_stderr(&mut self) {
        self.has_more_stderr = true;
    }

    /// Reads what the worker has written; returns the part that no longer fits into the tail, to be
    /// written out.
    pub(crate) fn read_stderr(&mut self, turn: &mut Turn<'_>) -> Option<Vec<u8>> {
        let mut buffer = [0; STDERR_TAIL_BYTES];
        self.has_more_stderr = false;
        for count in 0.. {
            let Some(stderr) = &mut self.stderr else { break };
            if count == READS_PER_TURN {
                self.has_more_stderr = true;
                turn.again();
                break;
            }
            match stderr.read(&mut buffer) {
                Ok(0) => {
                    let _ = turn.deregister(stderr.as_fd());
                    self.stderr = None;
                }
                Ok(count) => self.stderr_tail.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Only a worker whose runtime is not up can fail its start.
        let keep = if self.process.was_online() { 0 } else { STDERR_TAIL_BYTES };
        let over = self.stderr_tail.len().saturating_sub(keep);
        (over > 0).then(|| self.stderr_tail.drain(..over).collect())
    }

    /// Takes the exit status and the tail of the standard error, for the error of a failed start.
    pub(crate) fn stderr_tail(&mut self) -> (ExitStatus, String) {
        self.stderr_reported = true;
        let bytes: Vec<u8> = self.stderr_tail.drain(..).collect();
        (self.process.status(), String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Closes the worker; returns what is still to be written of its standard error.
    pub(crate) fn close(mut self, turn: &mut Turn<'_>) -> Vec<u8> {
        let _ = self.read_stderr(turn);
        if let Some(stderr) = &self.stderr {
            let _ = turn.deregister(stderr.as_fd());
        }
        for queue in self.queues.values() {
            let _ = turn.deregister(queue.write_end());
        }
        self.process.release();
        if self.stderr_reported { Vec::new() } else { self.stderr_tail.into() }
    }
}
