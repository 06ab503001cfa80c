//! The primary's driver: a source on the loop that passes events to the supervisor as inputs, and
//! performs its outputs.
//!
//! The driver decides nothing. A driver owns the sockets, queues and children of its primary, and
//! the loop calls [`Source::event`].

mod listen_sockets;
mod node_workers;
mod perform;
mod relay;
mod rights;
mod signals;
mod waiting_callers;
mod worker_events;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use child_process::{ExitStatus, Signal};
use crossbeam_channel::Receiver;
use reactor::{Source, Token, Turn};
use sys::signal::SignalWatch;

use crate::contract::{Input, Key, Notice, Output, SlotId, SupervisorOptions, WorkerId};
use crate::error::Error;
use crate::primary::accept_state::PollTimer;
use crate::primary::builder::{PermissionFunction, Signals};
use crate::primary::event::Event;
use crate::primary::inherited::InheritedSockets;
use crate::primary::listen_socket::ListenSocket;
use crate::primary::primary_state::{Job, Shared, Spawned};
use crate::primary::reuse_port_group::ReusePortGroup;
use crate::primary::settings::Settings;
use crate::primary::spawner::Spawner;
use crate::primary::stderr_writer::StderrWriter;
use crate::primary::subscribers::Subscribers;
use crate::primary::worker_io::{WorkerIo, Workers};
use crate::protocol::hand_off_queue::Connection;
use crate::supervisor::Supervisor;
use rights::ParkedGrant;
use waiting_callers::PendingReplies;

/// The most jobs handled before the other sources get their turn.
const JOBS_PER_TURN: usize = 256;

/// The most workers whose failure to listen or to start is recorded.
const FAILURES_MAX: usize = 64;

/// The number of a listening socket: its key, and its position among the sockets of that key.
type SocketId = (Key, u32);

/// A descriptor that the loop watches, by its token.
#[derive(Clone, Copy, Debug)]
enum WatchedFd {
    Signals,
    ListenSocket(SocketId),
    Queue(WorkerId, Key),
    Stderr(WorkerId),
}

/// The driver of one primary.
#[derive(Debug)]
pub(crate) struct Driver {
    supervisor: Supervisor<Connection>,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    spawner: Spawner,
    stderr_writer: StderrWriter,
    workers: Workers,
    /// The workers that have ended and may have nothing left to handle.
    maybe_done: Vec<WorkerId>,
    listen_sockets: BTreeMap<SocketId, ListenSocket>,
    /// The owners of the sockets, for each address that has one socket for each slot.
    groups: BTreeMap<Key, ReusePortGroup>,
    /// The owners whose sockets children are opening.
    opening: BTreeSet<(Key, Option<SlotId>)>,
    /// The grants that wait for these sockets.
    parked: Vec<ParkedGrant>,
    poll_timer: PollTimer,
    watched: BTreeMap<u64, WatchedFd>,
    next_token: u64,
    signals: Option<SignalWatch>,
    /// Whether this process had a controlling terminal when the primary was created.
    had_terminal: bool,
    /// The number of signals to end that have arrived.
    signals_seen: u32,
    /// The settings with which workers are started.
    settings: Arc<Settings>,
    replies: PendingReplies,
    /// The inputs for the next steps, answers to performed outputs among them.
    inputs: VecDeque<Input<Connection>>,
    outputs: Vec<Output<Connection>>,
    /// The reasons why workers could not listen or start: the cause of a failed start.
    failures: BTreeMap<WorkerId, Error>,
    /// The value that the Node workers of one address share.
    node_data: BTreeMap<Key, Option<serde_json::Value>>,
    /// The sockets that were bound before the primary started.
    inherited: InheritedSockets,
    /// Whether the message of a worker goes to all other workers.
    relays: bool,
    /// The function that decides about addresses that no rule allows.
    permission: Option<PermissionFunction>,
    finished: bool,
}

impl Driver {
    /// Creates a driver, and with it the handlers of its signals.
    ///
    /// # Errors
    ///
    /// [`Error::Os`] when a signal cannot be handled.
    pub(crate) fn new(
        options: SupervisorOptions,
        signals: Signals,
        inherited: InheritedSockets,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
        spawner: Spawner,
    ) -> Result<Self, Error> {
        let signals = signals.list();
        let signals = (!signals.is_empty()).then(|| SignalWatch::new(&signals));
        let signals = signals.transpose().map_err(|source| Error::Os("sigaction", source))?;
        // Only the jitter of restarts depends on the seed, which should differ between primaries.
        let seed = u64::from(std::process::id()) ^ (Arc::as_ptr(&shared) as u64);
        let settings = shared.lock().settings.clone();
        Ok(Self {
            supervisor: Supervisor::new(options, seed),
            stderr_writer: StderrWriter::new(shared.clone()),
            shared,
            jobs,
            spawner,
            workers: Workers::default(),
            maybe_done: Vec::new(),
            listen_sockets: BTreeMap::new(),
            groups: BTreeMap::new(),
            opening: BTreeSet::new(),
            parked: Vec::new(),
            poll_timer: PollTimer::default(),
            watched: BTreeMap::new(),
            next_token: 0,
            signals,
            had_terminal: signals::has_controlling_terminal(),
            signals_seen: 0,
            settings,
            replies: PendingReplies::default(),
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            failures: BTreeMap::new(),
            node_data: BTreeMap::new(),
            inherited,
            relays: false,
            permission: None,
            finished: false,
        })
    }

    /// Sets whether the message of a worker goes to all other workers.
    pub(crate) fn relay_messages(mut self, relays: bool) -> Self {
        self.relays = relays;
        self
    }

    /// Steps the supervisor until all inputs are handled and all outputs performed.
    fn run(&mut self, turn: &mut Turn<'_>) {
        while let Some(input) = self.inputs.pop_front() {
            self.supervisor.step(input, turn.now(), &mut self.outputs);
            let mut outputs = std::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                self.perform(output, turn);
            }
            self.outputs = outputs;
            // After the outputs: the outputs that follow a worker's end may need its data.
            for worker in std::mem::take(&mut self.maybe_done) {
                self.release(worker, turn);
            }
        }
    }

    /// Returns a token for a descriptor that the loop is to watch.
    fn token(&mut self, watched: WatchedFd) -> Token {
        self.next_token += 1;
        self.watched.insert(self.next_token, watched);
        Token(self.next_token)
    }

    fn job(&mut self, job: Job, turn: &mut Turn<'_>) {
        match job {
            Job::Input(input) => {
                if matches!(input, Input::Start(_) | Input::Scale(_)) {
                    self.shared.lock().scales_pending -= 1;
                }
                self.inputs.push_back(input);
            }
            Job::Setup(settings) => {
                self.settings = settings.clone();
                self.shared.emit(Event::Setup { settings });
            }
            Job::Fork(worker_options, reply) => {
                self.shared.lock().scales_pending -= 1;
                let number = self.replies.fork(reply);
                self.inputs.push_back(Input::Fork { number, worker_options });
            }
            Job::Disconnect(completion) => {
                let number = self.replies.disconnect(completion);
                self.inputs.push_back(Input::DisconnectAll { number });
            }
            Job::Reload(reply) => self.reload(Some(reply)),
            Job::Spawned { worker, result } if !self.spawner.answered(worker) => {
                // The start was given up meanwhile.
                if let Ok(spawned) = result {
                    // Fails only if the process has ended.
                    let _ = spawned.child.kill(Signal::KILL);
                }
            }
            Job::Spawned { worker, result: Ok(spawned) } => self.spawned(worker, spawned, turn),
            Job::Spawned { worker, result: Err(error) } => {
                self.report_not_spawned(worker, error);
                self.inputs.push_back(Input::SpawnFailed { worker });
            }
            Job::SocketOpened { key, place, result } => {
                self.socket_opened(key, place, result, turn);
            }
            Job::Child(worker, event) => self.child(worker, event, turn),
            // Fails if the caller has stopped waiting.
            Job::Count(reply) => drop(reply.send(self.supervisor.counters())),
            Job::CountWorker(worker, reply) => {
                if let Some(counters) = self.supervisor.worker_counters(worker) {
                    let _ = reply.send(counters);
                }
            }
        }
    }

    fn spawned(&mut self, worker: WorkerId, mut spawned: Spawned, turn: &mut Turn<'_>) {
        let kind = spawned.kind;
        let stderr = spawned.stderr.take();
        let mut worker_io = WorkerIo::new(worker, spawned, self.shared.clone());
        if let Some(stderr) = stderr {
            let token = self.token(WatchedFd::Stderr(worker));
            worker_io.watch_stderr(stderr, token, turn);
        }
        self.replies.forked(worker, Ok(worker_io.process.clone()));
        self.workers.add(worker_io);
        self.inputs.push_back(Input::Spawned { worker, kind });
    }

    /// Gives up a start that was not answered.
    fn cancel_spawn(&mut self, worker: WorkerId) {
        self.spawner.cancel(worker);
        let late = io::Error::from_raw_os_error(sys::errno::ETIMEDOUT);
        self.report_not_spawned(worker, child_process::Error::Os("spawn", late));
    }

    fn report_not_spawned(&mut self, worker: WorkerId, error: child_process::Error) {
        let error = Arc::new(error);
        self.shared.emit(Event::error(Some(worker), Error::Fork(error.clone())));
        if let Some(error) = self.replies.forked(worker, Err(Error::Fork(error))) {
            self.record_failure(worker, error);
        }
    }

    fn ready(&mut self, token: Token, turn: &mut Turn<'_>) {
        match self.watched.get(&token.0) {
            Some(WatchedFd::Signals) => self.take_signals(),
            Some(WatchedFd::ListenSocket(id)) => {
                if let Some(socket) = self.listen_sockets.get_mut(id) {
                    socket.readable(turn);
                    self.arm_poll_timer(turn);
                }
            }
            Some(&WatchedFd::Queue(worker, key)) => self.writable(token, worker, key, turn),
            Some(&WatchedFd::Stderr(worker)) if self.stderr_writer.is_full() => {
                if let Some(worker_io) = self.workers.get_mut(worker) {
                    worker_io.leave_stderr();
                }
            }
            Some(&WatchedFd::Stderr(worker)) => {
                let bytes = self.workers.get_mut(worker).and_then(|it| it.read_stderr(turn));
                self.write_stderr(bytes.unwrap_or_default());
            }
            None => {}
        }
    }

    fn drain_jobs(&mut self, turn: &mut Turn<'_>) {
        for _ in 0..JOBS_PER_TURN {
            let Ok(job) = self.jobs.try_recv() else { return };
            self.job(job, turn);
            self.run(turn);
        }
        turn.again();
    }

    /// Emits a notice to the user.
    fn notify(
        &mut self,
        worker: WorkerId,
        notice: Notice,
        exit_requested: bool,
        turn: &mut Turn<'_>,
    ) {
        // A failure of a worker that listens after all was not fatal.
        if matches!(notice, Notice::Listening(_)) {
            self.failures.remove(&worker);
        }
        if let Some(worker_io) = self.workers.get_mut(worker) {
            self.shared.notify(&worker_io.process, notice, exit_requested);
            let bytes = worker_io.read_stderr(turn).unwrap_or_default();
            self.write_stderr(bytes);
        }
        self.maybe_done.push(worker);
    }

    /// Records a failure that may become the reason of a failed start.
    pub(super) fn record_failure(&mut self, worker: WorkerId, error: Error) {
        self.failures.insert(worker, error);
        if self.failures.len() > FAILURES_MAX {
            self.failures.pop_first();
        }
    }

    /// Returns the reason why the start failed. A recorded failure, such as an address that could
    /// not be bound, explains more than the exit of the worker that followed.
    fn startup_failure(&mut self, worker: WorkerId) -> Error {
        if let Some(failure) = self.failures.remove(&worker) {
            return failure;
        }
        let worker_io = self.workers.get_mut(worker);
        let online = worker_io.as_ref().is_some_and(|it| it.process.was_online());
        let listened = worker_io.as_ref().is_some_and(|it| it.process.has_listened());
        let unknown = || (ExitStatus::Unknown, String::new());
        let (status, stderr) = worker_io.map_or_else(unknown, WorkerIo::stderr_tail);
        Error::EndedBeforeReady { worker, status, online, listened, stderr }
    }

    fn finish(&mut self, turn: &mut Turn<'_>) {
        debug_assert!(
            self.watched.values().all(|it| it.worker().is_none_or(|of| self.workers.has(of))),
            "nothing of a worker that was released is watched"
        );
        // The signal handlers are restored before any thread that waits for the end goes on.
        self.signals = None;
        for bytes in self.workers.close_all(turn) {
            self.write_stderr(bytes);
        }
        turn.remove();
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let sockets = self.listen_sockets.values().filter_map(|socket| socket.deadline(now));
        sockets.chain(self.poll_timer.deadline()).chain(self.supervisor.deadline()).min()
    }
}

impl Drop for Driver {
    /// Wakes all waiting threads and drops all subscribers, also after a panic of the driver.
    fn drop(&mut self) {
        let counters = self.supervisor.counters();
        let finished = self.finished;
        let mut subscribers = Subscribers::default();
        self.shared.change(|state| {
            if !finished {
                let panicked = io::Error::other("the primary's driver panicked");
                state.failure.get_or_insert(Error::Os("run the cluster", panicked));
            }
            state.finished = true;
            state.counters = counters;
            std::mem::swap(&mut state.subscribers, &mut subscribers);
            state.subscribers.ended = true;
            state.workers.clear();
        });
        // Outside of the lock: the drop of a callback may run code of the user that takes the lock.
        drop(subscribers);
        for job in self.jobs.try_iter() {
            if let Job::Disconnect(completion) = job {
                self.replies.disconnect(completion);
            }
        }
        self.replies.complete_all();
    }
}

impl Source for Driver {
    fn event(&mut self, event: reactor::Event, turn: &mut Turn<'_>) {
        match event {
            reactor::Event::Start => self.watch_signals(turn),
            reactor::Event::Ready { token, .. } => self.ready(token, turn),
            reactor::Event::Deadline => {
                // Messages of a dead worker count before the supervisor gives the worker up.
                self.drain_jobs(turn);
                self.report_paused();
                self.poll_own_sockets(turn);
                self.inputs.push_back(Input::Tick);
            }
            reactor::Event::Wake | reactor::Event::Again => {
                self.drain_jobs(turn);
                self.resume_stderr(turn);
            }
        }
        self.run(turn);
        self.accept(turn);
        if self.finished {
            return self.finish(turn);
        }
        // A worker's `HasRoom` arrives behind its other messages, so a paused channel delays it.
        if self.supervisor.awaits_room() && self.workers.is_any_paused() {
            self.inputs.push_back(Input::HasRoomDelayed);
            self.run(turn);
        }
        turn.set_deadline(self.deadline(turn.now()));
    }
}

impl Driver {
    /// Reads the standard error that was left unread.
    fn resume_stderr(&mut self, turn: &mut Turn<'_>) {
        if self.workers.has_unread_stderr() && !self.stderr_writer.is_full() {
            for bytes in self.workers.resume_reading(turn) {
                self.write_stderr(bytes);
            }
        }
    }
}

impl WatchedFd {
    /// Returns the worker that the descriptor belongs to.
    fn worker(self) -> Option<WorkerId> {
        match self {
            WatchedFd::Signals | WatchedFd::ListenSocket(_) => None,
            WatchedFd::Queue(owner, _) | WatchedFd::Stderr(owner) => Some(owner),
        }
    }
}

#[cfg(test)]
mod tests;
