//! State that the handles of a primary, its driver on the loop and its spawner share.
//!
//! Handles send [`Job`]s to the driver; the driver writes its results into [`PrimaryState`] and
//! wakes the handles that wait for them. Events are emitted under the same lock, so each subscriber
//! sees all of them in one order.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use child_process::{Child, ExitStatus, Signal};
use crossbeam_channel::{Receiver, Sender};

use crate::bind::Bound;
use crate::contract::{Input, Key, Notice, WorkerId, WorkerKind};
use crate::counters::{Counters, WorkerCounters};
use crate::error::Error;
use crate::error::not_ready::NotReady;
use crate::listen_rules::Credentials;
use crate::primary::binder::SocketPlace;
use crate::primary::event::Event;
use crate::primary::settings::Settings;
use crate::primary::subscribers::Subscribers;
use crate::primary::worker_process::{Pipes, WorkerProcess};
use crate::protocol::hand_off_queue::Connection;
use crate::worker_options::WorkerOptions;
use crate::worker_state::WorkerState;

/// A callback for the end of `disconnect`, called once.
pub(crate) struct Completion(pub(crate) Box<dyn FnOnce() + Send>);

impl fmt::Debug for Completion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Completion").finish_non_exhaustive()
    }
}

/// A message to the driver: from a handle, from the spawner, or from the source of a child.
#[derive(Debug)]
pub(crate) enum Job {
    Input(Input<Connection>),
    Spawned {
        worker: WorkerId,
        result: Result<Spawned, child_process::Error>,
    },
    /// A child has opened a socket of this key, or not.
    SocketOpened {
        key: Key,
        place: SocketPlace,
        result: io::Result<Bound>,
    },
    Child(WorkerId, child_process::internal::Event),
    /// Start workers with these settings from now on.
    Setup(Arc<Settings>),
    /// Start one more worker with these options of its own.
    Fork(Arc<WorkerOptions>, Sender<Result<WorkerProcess, Error>>),
    /// End all workers, then call this.
    Disconnect(Completion),
    /// Replace every worker.
    Reload(Sender<Result<(), Error>>),
    /// Report the counters of the cluster.
    Count(Sender<Counters>),
    /// Report the counters of one worker.
    CountWorker(WorkerId, Sender<WorkerCounters>),
}

/// A worker that has just been started.
#[derive(Debug)]
pub(crate) struct Spawned {
    pub(crate) child: Arc<Child>,
    pub(crate) kind: WorkerKind,
    /// The read end of its standard error, captured until its runtime is up.
    pub(crate) stderr: Option<std::os::fd::OwnedFd>,
    /// The program or script that the worker runs instead of this program.
    pub(crate) exec: Option<PathBuf>,
    /// The parent's ends of the pipes that the user asked for.
    pub(crate) pipes: Pipes,
    /// The user and group that it runs as, if they are not those of the primary.
    pub(crate) credentials: Option<Credentials>,
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
    /// The settings as the user last set them. The driver has its own copy: it applies changes in
    /// the order of the jobs, so that a worker that was requested before a change is not affected.
    pub(crate) settings: Arc<Settings>,
    /// `setup_master` was called: the settings are fixed.
    pub(crate) frozen: bool,
    pub(crate) workers: BTreeMap<WorkerId, WorkerProcess>,
    /// The final counters, written when the driver ends.
    pub(crate) counters: Counters,
    /// All requested workers listen, or have listened once.
    pub(crate) ready: bool,
    /// The condition under which workers are ready, and the time that they have for that.
    pub(crate) readiness: Readiness,
    /// Workers were requested at least once.
    pub(crate) requested: bool,
    /// Workers are started, and neither ran before nor have been ready since.
    pub(crate) first_start: bool,
    /// Number of workers that have ended since the last request for workers.
    pub(crate) ended: u32,
    /// The last of them.
    pub(crate) last_ended: Option<(WorkerId, ExitStatus)>,
    /// Number of requests for workers that the driver has not taken yet.
    pub(crate) scales_pending: u64,
    pub(crate) finished: bool,
    /// All workers have ended, and none has been requested since.
    pub(crate) idle: bool,
    /// Number of times that `idle` was set.
    pub(crate) idle_version: u64,
    /// The error of a failed start, taken by the first caller that asks.
    pub(crate) failure: Option<Error>,
    pub(crate) interrupted: Option<Signal>,
    pub(crate) address: Option<crate::protocol::address::Address>,
}

/// The condition under which workers are ready, as the builder set it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Readiness {
    /// A worker is ready when it listens or is so for some time; otherwise when it is online.
    pub(crate) listens: bool,
    /// The time that workers have to be ready.
    pub(crate) within: Duration,
}

impl PrimaryState {
    fn new(settings: Settings, readiness: Readiness) -> Self {
        Self {
            subscribers: Subscribers::default(),
            events_taken: false,
            settings: Arc::new(settings),
            frozen: false,
            workers: BTreeMap::new(),
            counters: Counters::default(),
            ready: false,
            readiness,
            requested: false,
            first_start: false,
            ended: 0,
            last_ended: None,
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
    pub(crate) fn new(settings: Settings, readiness: Readiness) -> (Arc<Self>, Receiver<Job>) {
        let (jobs, received) = crossbeam_channel::unbounded();
        let state = Mutex::new(PrimaryState::new(settings, readiness));
        let changed = Condvar::new();
        (Arc::new(Self { jobs, driver: OnceLock::new(), state, changed }), received)
    }

    /// Connects the driver; jobs that were sent before wait for this.
    pub(crate) fn connect(&self, driver: reactor::Handle) {
        // Stored before the wake-up: a sender that saw no driver has queued its job by then.
        self.driver.get_or_init(|| driver).wake();
    }

    pub(crate) fn input(&self, input: Input<Connection>) {
        self.send_job(Job::Input(input));
    }

    /// Sends a request for workers. The primary is not ready until the driver reports it.
    pub(crate) fn request_workers(&self, job: Job) {
        // Sent under the lock, so that the driver takes requests in the order of these changes.
        let mut state = self.lock();
        if !state.requested || state.idle {
            state.first_start = matches!(job, Job::Input(_));
        }
        state.ready = false;
        state.idle = false;
        state.requested = true;
        (state.ended, state.last_ended) = (0, None);
        state.scales_pending += 1;
        self.send_job(job);
    }

    /// Changes the settings that workers are started with; `freeze` fixes them.
    pub(crate) fn set_up(&self, options: &WorkerOptions, freeze: bool) -> Result<(), Error> {
        let mut state = self.lock();
        let mut settings = Settings::clone(&state.settings);
        settings.overlay(options);
        settings.check()?;
        if state.frozen {
            return if settings.equal_in_effect(&state.settings) {
                Ok(())
            } else {
                Err(Error::SettingsFixed)
            };
        }
        state.frozen = freeze;
        state.settings = Arc::new(settings);
        self.send_job(Job::Setup(state.settings.clone()));
        Ok(())
    }

    /// Checks that a worker can be started with these options.
    pub(crate) fn check(&self, options: &WorkerOptions) -> Result<(), Error> {
        let mut settings = Settings::clone(&self.lock().settings);
        settings.overlay(options);
        settings.check()
    }

    pub(crate) fn send_job(&self, job: Job) {
        // Fails only when the driver is gone; the job has no effect then.
        let _ = self.jobs.send(job);
        self.wake();
    }

    /// Wakes the driver.
    pub(crate) fn wake(&self) {
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
                state.ended = state.ended.saturating_add(1);
                state.last_ended = Some((worker.id(), worker.status()));
            }
            state.subscribers.notify(worker, notice, exit_requested);
        });
    }

    /// Changes the state and wakes all threads that wait for a change.
    pub(crate) fn change(&self, change: impl FnOnce(&mut PrimaryState)) {
        change(&mut self.lock());
        self.changed.notify_all();
    }

    /// Sends a job and waits for its reply; `None` when the driver is gone or drops the reply.
    pub(crate) fn query<T>(&self, job: impl FnOnce(Sender<T>) -> Job) -> Option<T> {
        let (reply, replied) = crossbeam_channel::bounded(1);
        self.send_job(job(reply));
        replied.recv().ok()
    }

    /// Blocks until `done` returns a value.
    pub(crate) fn wait_until<T>(&self, done: impl FnMut(&mut PrimaryState) -> Option<T>) -> T {
        self.wait_deadline(None, done).expect("without a deadline the wait ends with a value")
    }

    /// Blocks until `done` returns a value, or until the deadline; `None` is no deadline.
    pub(crate) fn wait_deadline<T>(
        &self,
        deadline: Option<Instant>,
        mut done: impl FnMut(&mut PrimaryState) -> Option<T>,
    ) -> Option<T> {
        let mut state = self.lock();
        loop {
            if let Some(value) = done(&mut state) {
                return Some(value);
            }
            let Some(deadline) = deadline else {
                state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            let left =
                deadline.checked_duration_since(Instant::now()).filter(|it| !it.is_zero())?;
            let waited = self.changed.wait_timeout(state, left);
            (state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Returns the workers among `wanted` that are not ready.
    pub(crate) fn not_ready(&self, wanted: impl Fn(&WorkerProcess) -> bool) -> NotReady {
        let state = self.lock();
        let Readiness { listens, within } = state.readiness;
        let is_ready = |worker: &WorkerProcess| match worker.state() {
            WorkerState::Online => !listens,
            WorkerState::Listening => true,
            WorkerState::Started
            | WorkerState::Disconnecting
            | WorkerState::Disconnected
            | WorkerState::Dead => false,
        };
        let workers = state.workers.values().filter(|worker| wanted(worker) && !is_ready(worker));
        NotReady {
            within,
            workers: workers.map(WorkerProcess::unready).collect(),
            ended: state.ended,
            last_ended: state.last_ended,
            requested: state.requested,
        }
    }

    pub(crate) fn lock(&self) -> MutexGuard<'_, PrimaryState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
