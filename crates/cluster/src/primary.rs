//! The primary: the process that opens the listening sockets, starts the workers and dispatches
//! the connections.
//!
//! [`Primary`] is a handle. The driver does the work on the event loop; a handle sends it jobs,
//! and waits on the state that both share.

mod accept_state;
mod binder;
pub(crate) mod builder;
mod callbacks;
mod client_affinity;
mod driver;
pub(crate) mod event;
mod event_backlog;
mod inherited;
mod listen_socket;
mod primary_state;
mod release;
mod reuse_port_group;
mod rollout;
pub(crate) mod settings;
mod spawner;
mod stderr_writer;
mod subscribers;
mod worker_io;
pub(crate) mod worker_process;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::contract::{Input, SupervisorOptions};
use crate::counters::Counters;
use crate::error::Error;
use crate::is_worker;
use crate::policy::Policy;
use crate::primary::builder::{Builder, check_workers};
use crate::primary::driver::Driver;
use crate::primary::event::Event;
use crate::primary::inherited::InheritedSockets;
use crate::primary::primary_state::{Completion, Job, PrimaryState, Readiness, Shared};
use crate::primary::settings::Settings;
use crate::primary::spawner::Spawner;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;
use crate::protocol::message::DESCRIPTORS_MAX;
use crate::protocol::queue_page;
use crate::worker_options::WorkerOptions;

/// A set of worker processes that share ports, and that are replaced when they end.
///
/// ```no_run
/// # fn main() -> Result<(), brood_cluster::Error> {
/// if let Some(worker) = brood_cluster::Worker::current() {
///     let listener = brood_cluster::listen("127.0.0.1:8000")?;
///     for connection in listener.incoming() {
///         let (stream, _peer) = connection?;
///         // serve it
///         drop(stream);
///     }
///     return Ok(());
/// }
/// let primary = brood_cluster::Primary::builder().workers(4).shutdown_on_signals().build()?;
/// let events = primary.take_events().expect("the first call");
/// primary.start();
/// primary.ready()?;
/// for event in events {
///     eprintln!("{event}");
/// }
/// primary.wait()
/// # }
/// ```
///
/// One process can have several primaries. `drop` disconnects the workers as
/// [`shutdown`](Self::shutdown) does, and does not wait for them.
///
/// Node: the `cluster` object of a primary. [`start`](Self::start) replaces the loop in which a
/// Node program calls `cluster.fork()`.
pub struct Primary {
    shared: Arc<Shared>,
    workers: u32,
    policy: Policy,
}

impl Builder {
    /// Creates the primary. No worker is started before [`Primary::start`] or [`Primary::fork`].
    ///
    /// A thread that this call creates starts the workers. They have what the calling thread has at
    /// this moment: namespaces, capabilities, filters of system calls, nice value, processors.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when an option is out of range, [`Error::IsWorker`] in a worker process,
    /// and [`Error::Os`] when no thread or descriptor is left.
    ///
    /// [`Error::InvalidOption`] also when the workers would run this program and its file gives it
    /// more privileges than its user has, by capabilities (`setcap`) or a set-user-ID bit: such a
    /// program believes no environment, so it cannot be a worker. A service gets its capabilities by
    /// `AmbientCapabilities=` instead.
    pub fn build(self) -> Result<Primary, Error> {
        check_workers(self.workers)?;
        self.settings.check()?;
        if !(1..=64).contains(&self.supervisor.window) {
            let why = format!("use 1 to 64 records, not {}", self.supervisor.window);
            return Err(Error::InvalidOption { option: "window", why });
        }
        if self.supervisor.listens_max == 0 {
            let why = "use at least 1 listener".to_owned();
            return Err(Error::InvalidOption { option: "listens_max", why });
        }
        if self.supervisor.start.is_zero() {
            let why = "must be longer than zero".to_owned();
            return Err(Error::InvalidOption { option: "start_within", why });
        }
        Primary::set_up(self)
    }
}

impl Primary {
    /// Returns a builder with default options.
    #[doc(alias = "setupPrimary")]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn set_up(builder: Builder) -> Result<Self, Error> {
        if is_worker() {
            return Err(Error::IsWorker);
        }
        if builder.settings.raises_descriptors {
            // A primary that keeps a low limit works all the same.
            let _ = sys::rlimit::raise_descriptors(DESCRIPTORS_MAX);
        }
        let SupervisorOptions { listens_after, ready: within, .. } = builder.supervisor;
        let listens = listens_after != Some(Duration::ZERO);
        let readiness = Readiness { listens, within };
        let (shared, jobs) = Shared::new(builder.settings, readiness);
        let (workers, policy) = (builder.workers, builder.supervisor.policy);
        if policy != Policy::Shared {
            // Before anything runs: each listener of a worker needs a page.
            queue_page::check_allowed().map_err(|source| Error::Os("memfd_create", source))?;
        }
        let spawner = Spawner::start(shared.clone())
            .map_err(|source| Error::Os("starting a thread (clone or clone3)", source))?;
        let inherited = InheritedSockets::collect(&builder.sockets)?;
        let signals = builder.signals;
        let driver =
            Driver::new(builder.supervisor, signals, inherited, shared.clone(), jobs, spawner)?
                .relay_messages(builder.relays)
                .ask_permission(builder.permission);
        let reactor = reactor::reactor().map_err(|error| Error::Os(error.call, error.source))?;
        shared.connect(reactor.add(driver));
        Ok(Self { shared, workers, policy })
    }

    /// Refuses to wait on the callback thread, where only a later callback could end the wait.
    fn may_wait(&self) -> Result<(), Error> {
        if reactor::callback::on_callback_thread() {
            return Err(Error::WouldDeadlock);
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Takes the queue of events: everything that happens from now on, in order. `None` after the
    /// first call.
    ///
    /// Events that happen before the call are not kept, so call it before [`start`](Self::start).
    /// Messages that a callback receives do not enter the queue. The
    /// [`Receiver`](crate::Receiver) is an iterator.
    ///
    /// The receiver closes with the primary: when the last worker has ended for good after a
    /// [`start`](Self::start), or after a [`shutdown`](Self::shutdown). It stays open after a
    /// [`disconnect`](Self::disconnect), because other workers may be started.
    ///
    /// Keep receiving. The channel of a worker pauses when more than 4 MiB of its messages are
    /// unread. Requests of the worker to listen or to be disconnected then wait until the messages
    /// are received. Meanwhile the worker is served, disconnected, reloaded, killed and replaced
    /// like any other.
    #[must_use]
    pub fn take_events(&self) -> Option<Receiver<Event>> {
        let mut state = self.shared.lock();
        if std::mem::replace(&mut state.events_taken, true) {
            return None;
        }
        let (sender, receiver) = crossbeam_channel::unbounded();
        if !state.finished {
            state.subscribers.set_queue(sender);
        }
        Some(receiver)
    }

    /// Starts workers until there are as many as [`Builder::workers`](crate::Builder::workers) asks
    /// for. Returns at once.
    ///
    /// Workers that were started by [`fork`](Self::fork) count.
    ///
    /// [`ready`](Self::ready) and the events report workers that fail to start. After the end of the
    /// primary the call has no effect.
    #[doc(alias = "fork")]
    pub fn start(&self) {
        self.shared.request_workers(Job::Input(Input::Start(self.workers)));
    }

    /// Changes the number of workers. Returns at once.
    ///
    /// With a higher number workers are started, and [`ready`](Self::ready) waits until all of them
    /// listen. With a lower number the youngest slots are given up: their workers get no new
    /// connections, finish those they have, and are not replaced. Connections that lie unread in
    /// their queues go to the other workers.
    ///
    /// # Errors
    ///
    /// [`Error::InvalidOption`] when the number is not between 1 and [`Builder::WORKERS_MAX`].
    pub fn scale(&self, workers: u32) -> Result<(), Error> {
        check_workers(workers)?;
        self.shared.request_workers(Job::Input(Input::Scale(workers)));
        Ok(())
    }

    /// Starts one more worker with options of its own, and waits until its process runs.
    ///
    /// The options belong to the worker's slot: a worker that replaces this one gets them, too.
    /// The slot counts as the youngest one for [`scale`](Self::scale), and [`ready`](Self::ready)
    /// waits for it.
    ///
    /// A program that starts all workers with `fork` needs no [`start`](Self::start), and its
    /// primary does not end with the last worker. With
    /// [`Builder::restart`](crate::Builder::restart) set to `Never` the program alone decides how
    /// many workers there are, as in Node.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), brood_cluster::Error> {
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// let primary = Primary::builder().build()?;
    /// let front = primary.fork(WorkerOptions::new().env("PART", "front"))?;
    /// front.on_exit(|status| eprintln!("{status}"));
    /// // A Node application that listens on the same port.
    /// primary.fork(WorkerOptions::new().exec("app.js"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::Fork`] when the worker cannot be started; its slot is given up.
    /// - [`Error::InvalidOption`] when the options name an invalid descriptor number.
    /// - [`Error::TooManyWorkers`] when there are [`Builder::WORKERS_MAX`] workers.
    /// - [`Error::NotRunning`] when the primary has ended.
    ///
    /// Node: `cluster.fork(env)`, which does not wait.
    pub fn fork(&self, options: WorkerOptions) -> Result<WorkerProcess, Error> {
        self.shared.check(&options)?;
        let (reply, replied) = crossbeam_channel::bounded(1);
        self.shared.request_workers(Job::Fork(Arc::new(options), reply));
        replied.recv().unwrap_or(Err(Error::NotRunning))
    }

    /// Changes the settings that workers are started with, and emits [`Event::Setup`].
    ///
    /// Only what `options` names is changed. Workers that run keep their settings.
    ///
    /// # Errors
    ///
    /// [`Error::SettingsFixed`] for a change of what [`setup_master`](Self::setup_master) has set;
    /// [`Error::InvalidOption`] when the options name an invalid descriptor number.
    ///
    /// Node: `cluster.setupPrimary`.
    #[doc(alias = "setupPrimary")]
    #[doc(alias = "setupMaster")]
    pub fn setup_primary(&self, options: WorkerOptions) -> Result<(), Error> {
        self.shared.set_up(&options, false)
    }

    /// Changes the settings as [`setup_primary`](Self::setup_primary) does, and fixes them: a later
    /// change is an error, the same settings once more are not.
    ///
    /// # Errors
    ///
    /// [`Error::SettingsFixed`] when the settings are fixed and `options` differs from them;
    /// [`Error::InvalidOption`] when the options name an invalid descriptor number.
    ///
    /// ```
    /// # fn main() -> Result<(), brood_cluster::Error> {
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// let primary = Primary::builder().build()?;
    /// primary.setup_master(WorkerOptions::new().args(["--quiet"]))?;
    /// primary.setup_master(WorkerOptions::new().args(["--quiet"]))?;
    /// assert!(primary.setup_master(WorkerOptions::new().args(["--loud"])).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// Node: `cluster.setupMaster` of the first versions; in later versions it is an alias of
    /// `setupPrimary`.
    #[doc(hidden)]
    pub fn setup_master(&self, options: WorkerOptions) -> Result<(), Error> {
        self.shared.set_up(&options, true)
    }

    /// Returns the settings that all workers are started with; options of single slots are not in
    /// there.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.lock().settings.clone()
    }

    /// Returns how connections are dispatched, as [`Builder::policy`](crate::Builder::policy) set
    /// it.
    #[must_use]
    #[doc(alias = "schedulingPolicy")]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Disconnects all workers, and calls `then` when they are gone. Returns at once.
    ///
    /// `then` runs on the callback thread, as soon as all workers have ended and all their
    /// addresses are closed; without workers that is at once.
    ///
    /// ```
    /// # fn main() -> Result<(), brood_cluster::Error> {
    /// let primary = brood_cluster::Primary::builder().build()?;
    /// let (sender, receiver) = std::sync::mpsc::channel();
    /// primary.disconnect(move || sender.send("all gone").expect("the receiver waits"));
    /// assert_eq!(receiver.recv(), Ok("all gone"));
    /// # Ok(()) }
    /// ```
    ///
    /// Unlike after a [`shutdown`](Self::shutdown), the primary can start other workers, even
    /// before `then` is called. The limits of
    /// [`Builder::disconnect_within`](crate::Builder::disconnect_within) apply.
    ///
    /// Node: `cluster.disconnect(callback)`, which calls back after the first worker.
    pub fn disconnect(&self, then: impl FnOnce() + Send + 'static) {
        let state = self.shared.lock();
        if state.finished {
            drop(state);
            return reactor::callback::call(then);
        }
        // Sent under the lock: a driver that ends after this check still finds the job.
        self.shared.send_job(Job::Disconnect(Completion(Box::new(then))));
    }

    /// Sends a message to every worker whose channel is open, and returns their number.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] when the message cannot be encoded or is over a limit. A handle has one
    /// receiver: a message that contains one reaches the first worker, and is an error for the
    /// next.
    pub fn broadcast<T: serde::Serialize + ?Sized>(&self, message: &T) -> Result<usize, Error> {
        let mut reached = 0;
        for worker in self.workers() {
            match worker.send(message) {
                Ok(_) => reached += 1,
                // The worker is about to end.
                Err(_) if !worker.is_connected() => {}
                Err(failed) => return Err(Error::Channel(failed)),
            }
        }
        Ok(reached)
    }

    /// Ends the cluster. Returns at once; [`wait`](Self::wait) waits for the end.
    ///
    /// New connections are no longer accepted, except those in the backlog, which are dispatched
    /// before the queues of the workers end. Each worker finishes its connections. At the limits of
    /// the [`Builder`] it gets `SIGTERM`, then `SIGKILL`.
    pub fn shutdown(&self) {
        self.shared.input(Input::Shutdown);
    }

    /// Blocks until all workers have ended for good: after a [`shutdown`](Self::shutdown) or a
    /// [`disconnect`](Self::disconnect), or because none is left and none will be started.
    ///
    /// # Errors
    ///
    /// The error of a failed start as [`ready`](Self::ready) describes it, unless a call has
    /// returned it already. [`Error::Interrupted`] when a second signal killed the workers.
    /// [`Error::WouldDeadlock`] in a callback.
    pub fn wait(&self) -> Result<(), Error> {
        self.may_wait()?;
        let before = self.shared.lock().idle_version;
        let over =
            |state: &PrimaryState| state.finished || state.idle || state.idle_version > before;
        self.shared.wait_until(|state| over(state).then(|| failure(state).map_or(Ok(()), Err)))
    }

    /// Returns the workers that have not ended, ordered by number.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerProcess> {
        self.shared.lock().workers.values().cloned().collect()
    }

    /// Returns the address of the first listener that was opened, with its real port.
    ///
    /// The servers of Bun's `http` count, although the workers open them by themselves.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.shared.lock().address.clone()
    }

    /// Returns how many connections were accepted, dispatched and closed.
    ///
    /// The call waits for the event loop. After the end it returns the final counts.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.query(Job::Count).unwrap_or_else(|| self.shared.lock().counters)
    }
}

impl fmt::Debug for Primary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let workers = self.shared.lock().workers.len();
        f.debug_struct("Primary").field("workers", &workers).finish_non_exhaustive()
    }
}

impl Drop for Primary {
    fn drop(&mut self) {
        self.shared.input(Input::Shutdown);
    }
}

/// Takes the error that ended the primary. Every caller gets an interruption, only the first one a
/// failed start.
fn failure(state: &mut PrimaryState) -> Option<Error> {
    state.interrupted.map(Error::Interrupted).or_else(|| state.failure.take())
}
