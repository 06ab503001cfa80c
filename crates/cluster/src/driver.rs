//! The primary's driver: a source on the loop that brings what happened to the core and
//! performs what the core answers.
//!
//! It decides nothing. Sockets, queues and children live here; the loop calls [`Source::event`].

mod node;
mod perform;
mod ports;
mod wishes;

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::sync::Arc;
use std::time::Instant;

use crossbeam_channel::Receiver;
use reactor::{Interest, Source, Token, Turn};
use sys::signal::{Signal, SignalWatch};

use crate::core::{Core, CoreOptions, Ended, Input, Key, Notice, Output, WorkerId};
use crate::error::Error;
use crate::event::Event;
use crate::given::Given;
use crate::listeners::Listeners;
use crate::members::{Member, Members};
use crate::message::ToPrimary;
use crate::policy::Policy;
use crate::port::Port;
use crate::queue::Connection;
use crate::settings::Signals;
use crate::setup::Settings;
use crate::shared::{Job, Shared, Spawned};
use crate::spawner::Spawner;
use ports::Group;
use wishes::Wishes;

/// Jobs handled before the other sources get their turn.
const JOBS_PER_TURN: usize = 256;

/// Of so many workers it is known why they could not listen or start.
const FAILURES_MAX: usize = 64;

/// A listening socket: the first, second, … of an address.
type Socket = (Key, u32);

/// What a token on the loop stands for.
#[derive(Clone, Copy, Debug)]
enum Watched {
    Signals,
    Port(Socket),
    Queue(WorkerId, Key),
    Stderr(WorkerId),
}

#[derive(Debug)]
pub(crate) struct Driver {
    core: Core<Connection>,
    shared: Arc<Shared>,
    jobs: Receiver<Job>,
    spawner: Spawner,
    members: Members,
    /// Who may be gone for good by now.
    leaving: Vec<WorkerId>,
    ports: BTreeMap<Socket, Port>,
    /// Where an address has several, or may have: whose each is, and their backlogs.
    groups: BTreeMap<Key, Group>,
    /// When the sockets from which workers accept are looked at.
    look_at: Option<Instant>,
    watched: BTreeMap<u32, Watched>,
    next_token: u32,
    signals: Option<SignalWatch>,
    signals_seen: u32,
    /// What workers are started with.
    settings: Arc<Settings>,
    wishes: Wishes,
    /// Wishes for a number of workers that the core has been told.
    scales: u64,
    /// Answers to what was just performed, for the core's next steps.
    inputs: VecDeque<Input<Connection>>,
    outputs: Vec<Output<Connection>>,
    /// Why a worker could not listen, or not start: what a failed start is blamed on.
    failures: BTreeMap<WorkerId, Error>,
    /// What the Node workers of one address share beside it.
    node_data: BTreeMap<Key, Option<serde_json::Value>>,
    policy: Policy,
    /// Sockets that were bound before we came.
    given: Given,
    finished: bool,
}

impl Driver {
    pub(crate) fn new(
        options: CoreOptions,
        signals: Signals,
        given: Given,
        shared: Arc<Shared>,
        jobs: Receiver<Job>,
        spawner: Spawner,
    ) -> Result<Self, Error> {
        let signals = signals.list();
        let signals = (!signals.is_empty()).then(|| SignalWatch::new(&signals));
        let signals = signals.transpose().map_err(|source| Error::Os("sigaction", source))?;
        // Only the jitter of restarts hangs on it: any number that differs between primaries.
        let seed = u64::from(std::process::id()) ^ (Arc::as_ptr(&shared) as u64);
        let settings = shared.lock().settings.clone();
        Ok(Self {
            policy: options.policy,
            core: Core::new(options, seed),
            shared,
            jobs,
            spawner,
            members: Members::default(),
            leaving: Vec::new(),
            ports: BTreeMap::new(),
            groups: BTreeMap::new(),
            look_at: None,
            watched: BTreeMap::new(),
            next_token: 0,
            signals,
            signals_seen: 0,
            settings,
            wishes: Wishes::default(),
            scales: 0,
            inputs: VecDeque::new(),
            outputs: Vec::new(),
            failures: BTreeMap::new(),
            node_data: BTreeMap::new(),
            given,
            finished: false,
        })
    }

    /// Steps the core until it has no more to say.
    fn run(&mut self, turn: &mut Turn<'_>) {
        while let Some(input) = self.inputs.pop_front() {
            self.core.step(input, turn.now(), &mut self.outputs);
            let mut outputs = std::mem::take(&mut self.outputs);
            for output in outputs.drain(..) {
                self.perform(output, turn);
            }
            self.outputs = outputs;
            // Not before: what is told after a worker's end may need what is known of it.
            for worker in std::mem::take(&mut self.leaving) {
                self.let_go(worker, turn);
            }
        }
    }

    fn token(&mut self, watched: Watched) -> Token {
        self.next_token += 1;
        self.watched.insert(self.next_token, watched);
        Token(self.next_token)
    }

    fn job(&mut self, job: Job, turn: &mut Turn<'_>) {
        match job {
            Job::Input(input) => {
                self.scales += u64::from(matches!(input, Input::Start(_) | Input::Scale(_)));
                self.inputs.push_back(input);
            }
            Job::Setup(settings) => {
                self.settings = settings.clone();
                self.shared.emit(Event::Setup(settings));
            }
            Job::Fork(setup, reply) => {
                self.scales += 1;
                let number = self.wishes.fork(reply);
                self.inputs.push_back(Input::Fork { number, setup });
            }
            Job::Disconnect(then) => {
                let number = self.wishes.disconnect(then);
                self.inputs.push_back(Input::Empty { number });
            }
            Job::Reload(reply) => self.reload(Some(reply)),
            Job::Spawned { worker, result: Ok(spawned) } => self.spawned(worker, spawned, turn),
            Job::Spawned { worker, result: Err(error) } => self.not_spawned(worker, error),
            Job::Child(worker, event) => self.child(worker, event, turn),
            // Whoever asked may have stopped waiting.
            Job::Count(reply) => drop(reply.send(self.core.counters())),
            Job::CountWorker(worker, reply) => {
                if let Some(counters) = self.core.worker_counters(worker) {
                    let _ = reply.send(counters);
                }
            }
        }
    }

    fn spawned(&mut self, worker: WorkerId, mut spawned: Spawned, turn: &mut Turn<'_>) {
        let (pid, kind) = (spawned.child.pid(), spawned.kind);
        let stderr = spawned.stderr.take();
        let mut member = Member::new(worker, spawned, self.shared.clone());
        if let Some(stderr) = stderr {
            let token = self.token(Watched::Stderr(worker));
            member.keep_stderr(stderr, token, turn);
        }
        self.wishes.forked(worker, Ok(member.process.clone()));
        self.members.add(member);
        self.inputs.push_back(Input::Spawned { worker, pid, kind });
    }

    fn not_spawned(&mut self, worker: WorkerId, error: child_process::Error) {
        let errno = error.errno().unwrap_or(sys::errno::EIO);
        let told = Error::Os("start a worker", io::Error::from_raw_os_error(errno));
        self.shared.emit(Event::error(Some(worker), told));
        // Whoever forked it gets the error; a failed start is then told by the number alone.
        if let Some(error) = self.wishes.forked(worker, Err(Error::Fork(error))) {
            self.blame_later(worker, error);
        }
        self.inputs.push_back(Input::SpawnFailed { worker, errno });
    }

    fn child(&mut self, worker: WorkerId, event: child_process::Event, turn: &mut Turn<'_>) {
        use child_process::Event as E;
        match event {
            E::Internal(message) if self.is_node(worker) => self.hear_node(worker, message),
            E::Acknowledged { ticket, taken } => self.node_took(worker, ticket, taken),
            E::Internal(message) => match message.decode() {
                Ok(message) => {
                    let mut input = asked(worker, message);
                    if let Some(Input::ListenAsked { address, .. }) = &mut input {
                        self.given.resolve(address);
                    }
                    self.inputs.extend(input);
                }
                Err(error) => {
                    self.shared.emit(Event::error(Some(worker), Error::Channel(error)));
                }
            },
            E::Message(message) => {
                if let Some(member) = self.members.get_mut(worker) {
                    self.shared.emit(Event::Message(member.process.clone(), message));
                }
            }
            E::Disconnect => self.inputs.push_back(Input::ChannelClosed { worker }),
            E::Exit(status) => {
                if let Some(member) = self.members.get_mut(worker) {
                    member.status = Some(status);
                    member.read_stderr(turn);
                }
                self.inputs.push_back(Input::Exited { worker, ended: ended(status) });
            }
            E::Error(error) => {
                self.shared.emit(Event::error(Some(worker), Error::Worker(error)));
            }
            _ => {}
        }
    }

    fn ready(&mut self, token: Token, turn: &mut Turn<'_>) {
        match self.watched.get(&token.0) {
            Some(Watched::Signals) => self.take_signals(),
            Some(Watched::Port(socket)) => {
                if let Some(port) = self.ports.get_mut(socket) {
                    port.may_be_ready(turn);
                    self.look_later(turn);
                }
            }
            Some(&Watched::Queue(worker, key)) => self.writable(token, worker, key, turn),
            Some(&Watched::Stderr(worker)) => {
                let said = self.members.get_mut(worker).and_then(|it| it.read_stderr(turn));
                self.write_stderr(said.unwrap_or_default());
            }
            None => {}
        }
    }

    fn take_signals(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        for signal in signals.take() {
            if signal == Signal::HUP {
                self.reload(None);
                continue;
            }
            self.signals_seen += 1;
            if self.signals_seen == 1 {
                self.inputs.push_back(Input::Shutdown);
            } else {
                self.shared.change(|state| state.interrupted = Some(signal));
                self.inputs.push_back(Input::Abort);
            }
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

    fn tell(&mut self, notice: Notice, turn: &mut Turn<'_>) {
        match notice {
            Notice::ListenFailed { worker, address, errno } => {
                self.listen_failed(worker, address, errno);
            }
            Notice::StartFailed { worker, .. } => {
                let failure = self.blame(worker);
                self.shared.change(|state| state.failure = Some(failure));
            }
            // Of a number of workers that is no longer the wanted one?
            Notice::Ready => {
                let scales = self.scales;
                self.shared.change(|state| state.ready = state.scales == scales);
            }
            // The spawner's error was told when it came.
            Notice::ForkFailed { .. } => {}
            Notice::Unresponsive { worker }
            | Notice::Fork { worker, .. }
            | Notice::Online { worker }
            | Notice::Listening { worker, .. }
            | Notice::Disconnect { worker, .. }
            | Notice::Exit { worker, .. } => {
                // What failed before it listened was not fatal.
                if matches!(notice, Notice::Listening { .. }) {
                    self.failures.remove(&worker);
                }
                if let Some(member) = self.members.get_mut(worker) {
                    member.tell(notice);
                    let said = member.read_stderr(turn).unwrap_or_default();
                    self.write_stderr(said);
                }
                self.leaving.push(worker);
            }
        }
    }

    /// What may be blamed soon, if at all.
    pub(super) fn blame_later(&mut self, worker: WorkerId, error: Error) {
        self.failures.insert(worker, error);
        if self.failures.len() > FAILURES_MAX {
            self.failures.pop_first();
        }
    }

    /// What made the start fail: an address that could not be had says more than the exit of
    /// the worker that wanted it.
    fn blame(&mut self, worker: WorkerId) -> Error {
        if let Some(failure) = self.failures.remove(&worker) {
            return failure;
        }
        let member = self.members.get_mut(worker);
        let (status, stderr) = member.map(Member::last_words).unwrap_or_default();
        Error::StartFailed { worker, status, stderr }
    }

    fn finish(&mut self, turn: &mut Turn<'_>) {
        // Handlers go back before anybody who waits for the end can go on.
        self.signals = None;
        for bytes in self.members.close_all(turn) {
            self.write_stderr(bytes);
        }
        turn.remove();
    }

    fn deadline(&self, now: Instant) -> Option<Instant> {
        let ports = self.ports.values().filter_map(|port| port.deadline(now));
        ports.chain(self.look_at).chain(self.core.deadline()).min()
    }
}

impl Drop for Driver {
    /// Lets everybody go who waits, also when a panic ended the driver before its time.
    fn drop(&mut self) {
        let counters = self.core.counters();
        let finished = self.finished;
        let mut listeners = Listeners::default();
        self.shared.change(|state| {
            if !finished {
                let lost = io::Error::other("the primary's driver panicked");
                state.failure.get_or_insert(Error::Os("run the cluster", lost));
            }
            state.finished = true;
            state.counters = counters;
            std::mem::swap(&mut state.listeners, &mut listeners);
            state.listeners.ended = true;
            state.workers.clear();
        });
        // Not under the lock: what callbacks hold may have something to say when it goes.
        drop(listeners);
        for job in self.jobs.try_iter() {
            if let Job::Disconnect(then) = job {
                self.wishes.disconnect(then);
            }
        }
        self.wishes.end();
    }
}

impl Source for Driver {
    fn event(&mut self, event: reactor::Event, turn: &mut Turn<'_>) {
        match event {
            reactor::Event::Start => self.watch_signals(turn),
            reactor::Event::Ready { token, .. } => self.ready(token, turn),
            reactor::Event::Deadline => {
                // What a dead worker had said counts before it is given up.
                self.drain_jobs(turn);
                self.excuse_unheard();
                self.look_at_own(turn);
                self.inputs.push_back(Input::Tick);
            }
            reactor::Event::Wake => self.drain_jobs(turn),
            reactor::Event::Again => {
                self.drain_jobs(turn);
                for said in self.members.read_on(turn) {
                    self.write_stderr(said);
                }
            }
        }
        self.run(turn);
        self.accept(turn);
        if self.finished {
            return self.finish(turn);
        }
        let look = self.look_for_room(turn);
        turn.set_deadline(self.deadline(turn.now()).into_iter().chain(look).min());
    }
}

impl Driver {
    fn watch_signals(&mut self, turn: &mut Turn<'_>) {
        let token = self.token(Watched::Signals);
        let Some(signals) = &self.signals else { return };
        use std::os::fd::AsFd;
        if let Err(source) = turn.register(signals.as_fd(), token, Interest::READABLE) {
            self.shared.emit(Event::error(None, Error::Os("epoll_ctl", source)));
        }
    }
}

fn belongs(watched: Watched, worker: WorkerId) -> bool {
    match watched {
        Watched::Signals | Watched::Port(_) => false,
        Watched::Queue(owner, _) | Watched::Stderr(owner) => owner == worker,
    }
}

fn asked(worker: WorkerId, message: ToPrimary) -> Option<Input<Connection>> {
    Some(match message {
        ToPrimary::Online => Input::Online { worker },
        ToPrimary::Listen { request, address, options } => {
            Input::ListenAsked { worker, request, address, options }
        }
        ToPrimary::ListensAlone { address } => Input::ListensAlone { worker, address },
        ToPrimary::Listening { key } => Input::Listening { worker, key },
        ToPrimary::HasRoom { key } => Input::HasRoom { key },
        ToPrimary::Close { key } => Input::ListenerClosed { worker, key },
        ToPrimary::Disconnect => Input::DisconnectAsked { worker },
    })
}

fn ended(status: child_process::ExitStatus) -> Ended {
    use child_process::ExitStatus as S;
    match status {
        S::Code(code) => Ended::Code(code),
        S::Signal(signal) => Ended::Signal(signal.number()),
        _ => Ended::Unknown,
    }
}
