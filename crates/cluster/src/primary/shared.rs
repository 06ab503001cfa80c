//! What a primary's handles, its driver on the loop and its spawner share.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};

use child_process::{Child, Signal};
use crossbeam_channel::{Receiver, Sender};

use crate::contract::{Input, Notice, WorkerId, WorkerKind};
use crate::counters::{Counters, WorkerCounters};
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::settings::Settings;
use crate::primary::subscribers::Subscribers;
use crate::primary::worker_process::{Pipes, WorkerProcess};
use crate::protocol::hand_off_queue::Connection;
use crate::worker_options::WorkerOptions;

/// To be called once.
pub(crate) struct Completion(pub(crate) Box<dyn FnOnce() + Send>);

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

/// What is brought to the driver from other threads, and from the children's sources.
#[derive(Debug)]
pub(crate) enum Job {
    Input(Input<Connection>),
    Spawned {
        worker: WorkerId,
        result: Result<Spawned, child_process::Error>,
    },
    Child(WorkerId, child_process::Event),
    /// Workers are started with this from now on.
    Setup(Arc<Settings>),
    /// One worker more, with this for itself.
    Fork(Arc<WorkerOptions>, Sender<Result<WorkerProcess, Error>>),
    /// All workers are to end; this is called then.
    Disconnect(Completion),
    /// The user wants every worker replaced.
    Reload(Sender<Result<(), Error>>),
    /// The user asks for the counters, of all or of one.
    Count(Sender<Counters>),
    CountWorker(WorkerId, Sender<WorkerCounters>),
}

/// A worker that has just been started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Arc<Child>,
    pub(crate) kind: WorkerKind,
    /// Its standard error until its runtime is up.
    pub(crate) stderr: Option<std::os::fd::OwnedFd>,
    /// The user's ends of its pipes.
    pub(crate) pipes: Pipes,
}

#[derive(Debug)]
pub(crate) struct Shared {
    jobs: Sender<Job>,
    driver: OnceLock<reactor::Handle>,
    state: Mutex<PrimaryState>,
    changed: Condvar,
}

#[derive(Debug)]
pub(crate) struct PrimaryState {
    pub(crate) subscribers: Subscribers,
    pub(crate) events_taken: bool,
    /// As they were last changed; the driver may not have heard of it.
    pub(crate) settings: Arc<Settings>,
    /// `setup_master` was called.
    pub(crate) frozen: bool,
    pub(crate) workers: BTreeMap<WorkerId, WorkerProcess>,
    /// As they stood at the end.
    pub(crate) counters: Counters,
    /// All workers that were last asked for listen, or once did.
    pub(crate) ready: bool,
    /// Requests for a number of workers that the driver has not taken yet.
    pub(crate) scales_pending: u64,
    pub(crate) finished: bool,
    /// All workers have ended, and none has been asked for since.
    pub(crate) idle: bool,
    /// How often that happened.
    pub(crate) idle_version: u64,
    /// Why the start was given up; taken by the first who asks.
    pub(crate) failure: Option<Error>,
    pub(crate) interrupted: Option<Signal>,
    pub(crate) address: Option<crate::protocol::address::Address>,
}

impl PrimaryState {
    fn new(settings: Settings) -> Self {
        Self {
            subscribers: Subscribers::default(),
            events_taken: false,
            settings: Arc::new(settings),
            frozen: false,
            workers: BTreeMap::new(),
            counters: Counters::default(),
            ready: false,
            scales_pending: 0,
            finished: false,
            idle: false,
            idle_version: 0,
            failure: None,
            interrupted: None,
            address: None,
        }
    }
}

impl Shared {
    pub(crate) fn new(settings: Settings) -> (Arc<Self>, Receiver<Job>) {
        let (jobs, received) = crossbeam_channel::unbounded();
        let (state, changed) = (Mutex::new(PrimaryState::new(settings)), Condvar::new());
        (Arc::new(Self { jobs, driver: OnceLock::new(), state, changed }), received)
    }

    /// Names the driver's source; before this its jobs wait.
    pub(crate) fn connect(&self, driver: reactor::Handle) {
        // Set before the wake-up: a job that saw no driver is then found by this one.
        self.driver.get_or_init(|| driver).wake();
    }

    pub(crate) fn input(&self, input: Input<Connection>) {
        self.job(Job::Input(input));
    }

    /// Asks for workers; they are not ready until the driver says so.
    pub(crate) fn ask_for(&self, workers: Job) {
        // Under one lock, so that whoever comes second is also done second.
        let mut state = self.lock();
        state.ready = false;
        state.idle = false;
        state.scales_pending += 1;
        self.job(workers);
    }

    /// Changes what workers are started with from now on; `freeze` lets nobody change it again.
    pub(crate) fn set_up(&self, setup: &WorkerOptions, freeze: bool) -> Result<(), Error> {
        let mut state = self.lock();
        let mut settings = Settings::clone(&state.settings);
        settings.overlay(setup);
        settings.check()?;
        if state.frozen {
            return if settings.is(&state.settings) { Ok(()) } else { Err(Error::SetUp) };
        }
        state.frozen = freeze;
        state.settings = Arc::new(settings);
        self.job(Job::Setup(state.settings.clone()));
        Ok(())
    }

    /// Whether workers can be started with that.
    pub(crate) fn check(&self, setup: &WorkerOptions) -> Result<(), Error> {
        let mut settings = Settings::clone(&self.lock().settings);
        settings.overlay(setup);
        settings.check()
    }

    pub(crate) fn job(&self, job: Job) {
        // Refused only when the driver is gone, and then nobody needs it.
        let _ = self.jobs.send(job);
        if let Some(driver) = self.driver.get() {
            driver.wake();
        }
    }

    pub(crate) fn emit(&self, event: Event) {
        self.lock().subscribers.emit(event);
    }

    /// Notifies the user of a step in the worker's life.
    pub(crate) fn notify(&self, worker: &WorkerProcess, notice: Notice, exit_requested: bool) {
        self.change(|state| {
            if notice == Notice::Exit {
                state.workers.remove(&worker.id());
            }
            state.subscribers.notify(worker, notice, exit_requested);
        });
    }

    pub(crate) fn change(&self, change: impl FnOnce(&mut PrimaryState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Asks the driver; `None` when it is gone, or has nothing to say.
    pub(crate) fn ask<T>(&self, question: impl FnOnce(Sender<T>) -> Job) -> Option<T> {
        let (reply, replied) = crossbeam_channel::bounded(1);
        self.job(question(reply));
        replied.recv().ok()
    }

    /// Blocks until `done` gives a value.
    pub(crate) fn wait_until<T>(&self, mut done: impl FnMut(&mut PrimaryState) -> Option<T>) -> T {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return value;
            }
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PrimaryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
