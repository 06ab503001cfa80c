//! The workers as the driver holds them: process, hand-off queues, and last words.

use std::collections::{BTreeMap, VecDeque};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use child_process::{Child, ExitStatus, Signal};
use reactor::{Interest, Key as Token, Turn};

use crate::core::{Key, Notice, WorkerId, WorkerKind};
use crate::event::Event;
use crate::message::ToWorker;
use crate::node::desk::Desk;
use crate::process::{State, WorkerProcess};
use crate::queue::{Connection, Queue};
use crate::shared::{Shared, Spawned};

/// So much of what a worker wrote before its runtime was up is kept for the error.
const LAST_WORDS_BYTES: usize = 4096;
/// So often that much is read before the other sources get their turn.
const READS_PER_TURN: usize = 16;

#[derive(Debug, Default)]
pub(crate) struct Members(BTreeMap<WorkerId, Member>);

#[derive(Debug)]
pub(crate) struct Member {
    pub(crate) process: WorkerProcess,
    pub(crate) child: Arc<Child>,
    pub(crate) queues: BTreeMap<Key, Queue>,
    /// A Node worker's, which has no queues.
    pub(crate) desk: Option<Desk<Connection>>,
    pub(crate) status: Option<ExitStatus>,
    shared: Arc<Shared>,
    stderr: Option<std::fs::File>,
    last_words: VecDeque<u8>,
    /// Told as the reason of a failed start, and so not written out again.
    blamed: bool,
    /// More of its standard error is there than a turn takes.
    reads_on: bool,
    told_online: bool,
    told_disconnect: bool,
    told_exit: bool,
}

impl Members {
    pub(crate) fn add(&mut self, member: Member) {
        self.0.insert(member.process.id(), member);
    }

    /// Takes out a worker of whom nothing more is to be heard or told, and who holds nothing.
    pub(crate) fn remove_if_done(&mut self, worker: WorkerId) -> Option<Member> {
        let member = self.0.get(&worker)?;
        let told = member.told_exit && member.told_disconnect;
        let holds_none =
            member.queues.is_empty() && member.desk.as_ref().is_none_or(Desk::is_empty);
        let done = told && holds_none;
        if done { self.0.remove(&worker) } else { None }
    }

    pub(crate) fn send(&mut self, worker: WorkerId, message: ToWorker) {
        if let Some(member) = self.0.get(&worker) {
            // There is room for it. Fails when the channel is closed, which comes as an event.
            let _ = member.child.send_internal(message);
        }
    }

    pub(crate) fn disconnect(&mut self, worker: WorkerId) {
        if let Some(member) = self.0.get(&worker) {
            // Fails only when it is closed.
            let _ = member.child.disconnect();
        }
    }

    pub(crate) fn kill(&mut self, worker: WorkerId, signal: Signal) {
        if let Some(member) = self.0.get(&worker) {
            // Fails only when it has ended, which comes as an event of its own.
            let _ = member.process.kill(signal);
        }
    }

    /// Goes on reading what the last turn left; gives what is to be written.
    pub(crate) fn read_on(&mut self, turn: &mut Turn<'_>) -> Vec<Vec<u8>> {
        let members = self.0.values_mut().filter(|member| member.reads_on);
        members.filter_map(|member| member.read_stderr(turn)).collect()
    }

    /// Lets all go; gives what is still to be written of their standard errors.
    pub(crate) fn close_all(&mut self, turn: &mut Turn<'_>) -> Vec<Vec<u8>> {
        std::mem::take(&mut self.0).into_values().map(|member| member.close(turn)).collect()
    }

    /// The Node workers that may have answered and cannot be heard.
    pub(crate) fn unheard(&self) -> impl Iterator<Item = WorkerId> + '_ {
        let waits = |member: &Member| member.desk.as_ref().is_some_and(|desk| !desk.is_empty());
        let members = self.0.iter();
        members.filter(move |(_, it)| waits(it) && it.child.is_paused()).map(|(id, _)| *id)
    }

    /// Somebody cannot be heard.
    pub(crate) fn is_any_held_back(&self) -> bool {
        self.0.values().any(|member| member.child.is_paused())
    }

    pub(crate) fn get_mut(&mut self, worker: WorkerId) -> Option<&mut Member> {
        self.0.get_mut(&worker)
    }

    pub(crate) fn queue(&self, worker: WorkerId, key: Key) -> Option<&Queue> {
        self.0.get(&worker)?.queues.get(&key)
    }
}

impl Member {
    pub(crate) fn new(worker: WorkerId, spawned: Spawned, shared: Arc<Shared>) -> Self {
        let Spawned { child, kind, pipes, stderr: _ } = spawned;
        let process = WorkerProcess::new(worker, child.clone(), pipes, shared.clone());
        shared.change(|state| {
            state.workers.insert(worker, process.clone());
        });
        Self {
            process,
            child,
            queues: BTreeMap::new(),
            desk: (kind == WorkerKind::Node).then(Desk::new),
            status: None,
            shared,
            stderr: None,
            last_words: VecDeque::new(),
            blamed: false,
            reads_on: false,
            told_online: false,
            told_disconnect: false,
            told_exit: false,
        }
    }

    /// Watches the worker's standard error until its runtime puts the real one back.
    pub(crate) fn keep_stderr(&mut self, stderr: OwnedFd, token: Token, turn: &mut Turn<'_>) {
        let watched = sys::socket::set_nonblocking(stderr.as_fd(), true)
            .and_then(|()| turn.register(stderr.as_fd(), token, Interest::READABLE));
        if watched.is_ok() {
            self.stderr = Some(stderr.into());
        }
    }

    /// Reads what is there; gives what no longer fits into the last words, to be written on.
    pub(crate) fn read_stderr(&mut self, turn: &mut Turn<'_>) -> Option<Vec<u8>> {
        let mut buffer = [0; LAST_WORDS_BYTES];
        self.reads_on = false;
        for count in 0.. {
            let Some(stderr) = &mut self.stderr else { break };
            if count == READS_PER_TURN {
                self.reads_on = true;
                turn.again();
                break;
            }
            match stderr.read(&mut buffer) {
                Ok(0) => {
                    let _ = turn.deregister(stderr.as_fd());
                    self.stderr = None;
                }
                Ok(count) => self.last_words.extend(&buffer[..count]),
                Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        // Until its runtime is up these may be its last words; from then on it speaks for itself.
        let keep = if self.told_online { 0 } else { LAST_WORDS_BYTES };
        let over = self.last_words.len().saturating_sub(keep);
        (over > 0).then(|| self.last_words.drain(..over).collect())
    }

    /// How it ended and what it said last, for the error of a failed start.
    pub(crate) fn last_words(&mut self) -> (Option<ExitStatus>, String) {
        self.blamed = true;
        let bytes: Vec<u8> = self.last_words.drain(..).collect();
        (self.status, String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Lets go of it; gives what is still to be written of its standard error.
    pub(crate) fn close(mut self, turn: &mut Turn<'_>) -> Vec<u8> {
        let _ = self.read_stderr(turn);
        if let Some(stderr) = &self.stderr {
            let _ = turn.deregister(stderr.as_fd());
        }
        for queue in self.queues.values() {
            let _ = turn.deregister(queue.write_end());
        }
        self.process.let_go();
        if self.blamed { Vec::new() } else { self.last_words.into() }
    }

    /// Tells the user, with the worker's own state moved on before.
    pub(crate) fn tell(&mut self, notice: Notice) {
        let process = self.process.clone();
        let event = match notice {
            Notice::Fork { .. } => Event::Fork(process),
            Notice::Online { .. } => {
                self.told_online = true;
                process.reach(State::Online);
                Event::Online(process)
            }
            Notice::Listening { address, .. } => {
                process.reach(State::Listening);
                Event::Listening(process, address)
            }
            Notice::Disconnect { exited_after_disconnect, .. } => {
                self.told_disconnect = true;
                process.ends(exited_after_disconnect);
                process.reach(State::Disconnected);
                Event::Disconnect(process)
            }
            Notice::Exit { worker, exited_after_disconnect, .. } => {
                self.told_exit = true;
                process.ends(exited_after_disconnect);
                process.reach(State::Dead);
                self.shared.change(|state| {
                    state.workers.remove(&worker);
                });
                Event::Exit(process, self.status.unwrap_or(ExitStatus::Unknown))
            }
            Notice::Unresponsive { .. } => Event::Unresponsive(process),
            Notice::ListenFailed { .. }
            | Notice::StartFailed { .. }
            | Notice::ForkFailed { .. }
            | Notice::Ready => return,
        };
        self.shared.emit(event);
    }
}
