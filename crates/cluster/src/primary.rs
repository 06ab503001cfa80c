//! The primary: the process that opens the ports, starts the workers and deals the connections.

mod accept_state;
mod affinity;
pub(crate) mod builder;
mod callbacks;
mod driver;
pub(crate) mod event;
mod inherited;
mod listen_socket;
mod reuse_port_group;
pub(crate) mod settings;
mod shared;
mod spawner;
mod subscribers;
pub(crate) mod worker_process;
mod workers;

use std::fmt;
use std::sync::Arc;

use crossbeam_channel::Receiver;

use crate::contract::Input;
use crate::counters::Counters;
use crate::error::Error;
use crate::is_worker;
use crate::policy::Policy;
use crate::primary::builder::{Builder, check_workers};
use crate::primary::driver::Driver;
use crate::primary::event::Event;
use crate::primary::inherited::InheritedSockets;
use crate::primary::settings::Settings;
use crate::primary::shared::{Completion, Job, PrimaryState, Shared};
use crate::primary::spawner::Spawner;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;
use crate::worker_options::WorkerOptions;

/// A set of worker processes that share ports, kept alive.
///
/// ```no_run
/// # fn main() -> Result<(), cluster::Error> {
/// if let Some(worker) = cluster::Worker::current() {
///     let listener = worker.listen("127.0.0.1:8000")?;
///     for connection in listener.incoming() {
///         let (stream, _peer) = connection?;
///         // serve it
///         drop(stream);
///     }
///     return Ok(());
/// }
/// let primary = cluster::Primary::builder().workers(4).shutdown_on_signals().build()?;
/// let events = primary.events();
/// primary.start()?;
/// primary.ready()?;
/// for event in events {
///     eprintln!("{event}");
/// }
/// primary.wait()
/// # }
/// ```
///
/// Several may live in one process. Dropping it disconnects its workers as
/// [`shutdown`](Self::shutdown) does and does not wait for them.
///
/// Node: the `cluster` object of a primary; `cluster.fork()` is `start` and the slots it fills.
pub struct Primary {
    shared: Arc<Shared>,
    workers: u32,
    policy: Policy,
}

impl Builder {
    /// Sets the primary up; nothing is started before [`Primary::start`].
    ///
    /// # Errors
    ///
    /// An option out of range; a call to a worker ([`Error::IsWorker`]); no thread or
    /// descriptor left.
    pub fn build(self) -> Result<Primary, Error> {
        check_workers(self.workers)?;
        self.settings.check()?;
        if !(1..=64).contains(&self.supervisor.window) {
            let why = format!("{} is not between 1 and 64", self.supervisor.window);
            return Err(Error::Option("window", why));
        }
        Primary::set_up(self)
    }
}

impl Primary {
    /// Begins to set up a primary.
    #[doc(alias = "setupPrimary")]
    pub fn builder() -> Builder {
        Builder::new()
    }

    pub(crate) fn set_up(builder: Builder) -> Result<Self, Error> {
        if is_worker() {
            return Err(Error::IsWorker);
        }
        let (shared, jobs) = Shared::new(builder.settings);
        let (workers, policy) = (builder.workers, builder.supervisor.policy);
        let spawner =
            Spawner::start(shared.clone()).map_err(|source| Error::Os("spawn a thread", source))?;
        let inherited = InheritedSockets::collect(&builder.sockets)?;
        let signals = builder.signals;
        let driver =
            Driver::new(builder.supervisor, signals, inherited, shared.clone(), jobs, spawner)?;
        let reactor = reactor::reactor().map_err(|source| Error::Os("start the loop", source))?;
        shared.connect(reactor.add(driver));
        Ok(Self { shared, workers, policy })
    }

    /// Not where only a later callback could end the waiting.
    fn may_wait(&self) -> Result<(), Error> {
        if reactor::callback::on_callback_thread() {
            return Err(Error::WouldDeadlock);
        }
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.shared
    }

    /// Everything that happens from now on, in order; the first call gives the receiver that
    /// gets it, later calls give receivers that are closed.
    ///
    /// Call it before [`start`](Self::start) to miss nothing. The receiver ends with the primary:
    /// when the last worker has ended for good, after a [`start`](Self::start), or after a
    /// [`shutdown`](Self::shutdown); not after a [`disconnect`](Self::disconnect), which lets others
    /// come. Messages that a callback takes do not come here. What arrives before anybody asked is
    /// not kept.
    ///
    /// Take from it: a worker whose messages lie unread in large numbers (4 MiB) is not heard any
    /// further. Its wish to listen or to be disconnected waits until they are read. It is served,
    /// disconnected, reloaded, killed and replaced like any other meanwhile.
    #[must_use]
    pub fn events(&self) -> Receiver<Event> {
        let (sender, receiver) = crossbeam_channel::unbounded();
        let mut state = self.shared.lock();
        if !state.events_taken && !state.finished {
            state.subscribers.queue = Some(sender);
            state.events_taken = true;
        }
        receiver
    }

    /// Starts as many workers as [`Builder::workers`](crate::Builder::workers) says, those that were
    /// forked before included, and returns at once.
    ///
    /// # Errors
    ///
    /// None today; failures to start are told by [`ready`](Self::ready) and as events.
    #[doc(alias = "fork")]
    pub fn start(&self) -> Result<(), Error> {
        self.shared.ask_for(Job::Input(Input::Start(self.workers)));
        Ok(())
    }

    /// Changes the number of workers, 1 to [`WORKERS_MAX`], and returns at once.
    ///
    /// More are started; [`ready`](Self::ready) then waits until all listen. Fewer: the youngest
    /// places are given up, their workers get nothing new, finish what they have, and are not
    /// replaced. What lies unread in their queues goes to the others.
    ///
    /// # Errors
    ///
    /// [`Error::Option`] when the number is out of range.
    pub fn scale(&self, workers: u32) -> Result<(), Error> {
        check_workers(workers)?;
        self.shared.ask_for(Job::Input(Input::Scale(workers)));
        Ok(())
    }

    /// Starts one worker more, with `setup` for itself, and waits until its process runs. The
    /// place it gets keeps this setup: who replaces the worker has it, too.
    ///
    /// It counts as the youngest place for [`scale`](Self::scale), and as one of those that
    /// [`ready`](Self::ready) waits for. A program that starts all its workers like this needs no
    /// [`start`](Self::start), and its primary does not end with the last of them;
    /// [`Builder::restart`](crate::Builder::restart) with `Never` leaves their number to it, as
    /// Node does.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), cluster::Error> {
    /// use cluster::{Primary, WorkerOptions};
    ///
    /// let primary = Primary::builder().build()?;
    /// primary.fork(WorkerOptions::new().env("PART", "front"))?.on_exit(|status| eprintln!("{status}"));
    /// // Beside it, at the same port, an application for Node.
    /// primary.fork(WorkerOptions::new().exec("app.js"))?;
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Fork`] when it cannot be started; then its place is given up, and nothing is left of
    /// it. [`Error::Option`] for a descriptor number that cannot be. [`Error::NoPlace`] with [`WORKERS_MAX`] workers and when the cluster has ended.
    ///
    /// Node: `cluster.fork(env)`, which does not wait.
    pub fn fork(&self, setup: WorkerOptions) -> Result<WorkerProcess, Error> {
        self.shared.check(&setup)?;
        let (reply, replied) = crossbeam_channel::bounded(1);
        self.shared.ask_for(Job::Fork(Arc::new(setup), reply));
        replied.recv().unwrap_or(Err(Error::NoPlace))
    }

    /// Changes what workers are started with from now on, as far as `setup` names it, and tells
    /// it as [`Event::Setup`]. Workers that run stay as they are.
    ///
    /// # Errors
    ///
    /// [`Error::SetUp`] when it would change what [`setup_master`](Self::setup_master) has set;
    /// [`Error::Option`] for a descriptor number that cannot be.
    ///
    /// Node: `cluster.setupPrimary`.
    #[doc(alias = "setupPrimary")]
    pub fn setup_primary(&self, setup: WorkerOptions) -> Result<(), Error> {
        self.shared.set_up(&setup, false)
    }

    /// As [`setup_primary`](Self::setup_primary), but for good: a later change is an error, the
    /// same once more is not.
    ///
    /// # Errors
    ///
    /// [`Error::SetUp`] when it was called before, with something else; [`Error::Option`] as there.
    ///
    /// ```
    /// # fn main() -> Result<(), cluster::Error> {
    /// use cluster::{Primary, WorkerOptions};
    ///
    /// let primary = Primary::builder().build()?;
    /// primary.setup_master(WorkerOptions::new().args(["--quiet"]))?;
    /// primary.setup_master(WorkerOptions::new().args(["--quiet"]))?;
    /// assert!(primary.setup_master(WorkerOptions::new().args(["--loud"])).is_err());
    /// # Ok(()) }
    /// ```
    ///
    /// Node: `cluster.setupMaster` of the first versions; later it became the other one's alias.
    #[doc(alias = "setupMaster")]
    pub fn setup_master(&self, setup: WorkerOptions) -> Result<(), Error> {
        self.shared.set_up(&setup, true)
    }

    /// What workers are started with, without what some have for themselves.
    #[must_use]
    pub fn settings(&self) -> Arc<Settings> {
        self.shared.lock().settings.clone()
    }

    /// How connections are dealt. Set by [`Builder::policy`](crate::Builder::policy), for good.
    #[must_use]
    #[doc(alias = "schedulingPolicy")]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Disconnects all workers, and calls `then` on the callback thread when they have ended and
    /// all that they listened on is closed; at once where there is none. Returns at once.
    ///
    /// ```
    /// # fn main() -> Result<(), cluster::Error> {
    /// let primary = cluster::Primary::builder().build()?;
    /// let (tell, told) = std::sync::mpsc::channel();
    /// primary.disconnect(move || tell.send("all are gone").expect("heard"));
    /// assert_eq!(told.recv(), Ok("all are gone"));
    /// # Ok(()) }
    /// ```
    ///
    /// Unlike after a [`shutdown`](Self::shutdown) the primary can start others, also before that.
    /// The deadlines of [`Builder::disconnect_within`](crate::Builder::disconnect_within) hold.
    ///
    /// Node: `cluster.disconnect(callback)`, which calls it after the first of them.
    pub fn disconnect(&self, then: impl FnOnce() + Send + 'static) {
        let state = self.shared.lock();
        if state.finished {
            drop(state);
            return reactor::callback::call(then);
        }
        // Under the lock: when the driver ends after this it finds the job.
        self.shared.job(Job::Disconnect(Completion(Box::new(then))));
    }

    /// Replaces every worker, one after the other, without refusing anybody; blocks until the
    /// last of the old ones has ended.
    ///
    /// Each new worker listens on all that its predecessor listened on before that one is told to
    /// finish what it has. The new workers run what lies by now at the path of this program (or
    /// [`Builder::exec`]), which may be a new build. [`Builder::reload_on_hangup`] reloads on
    /// `SIGHUP`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), cluster::Error> {
    /// # let primary = cluster::Primary::builder().build()?;
    /// match primary.reload() {
    ///     Ok(()) => eprintln!("all workers are new"),
    ///     Err(error) => eprintln!("{error}; the other workers go on as they were"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// The reload is given up, and the workers not yet replaced are kept, when a new one ends
    /// ([`Error::StartFailed`], [`Error::Listen`]) or is not ready within
    /// [`Builder::ready_within`] ([`Error::NotReady`]). [`Error::ReloadUnderWay`] while another
    /// is not over; [`Error::Closed`] before the start and when the cluster ends;
    /// [`Error::WouldDeadlock`] in a callback.
    ///
    /// Node: has no such thing.
    pub fn reload(&self) -> Result<(), Error> {
        self.may_wait()?;
        self.shared.ask(Job::Reload).unwrap_or(Err(Error::Closed))
    }

    /// Sends a message to every worker whose channel is open; gives how many those were.
    ///
    /// # Errors
    ///
    /// [`Error::Channel`] when it cannot be encoded or is over a limit. A handle inside has one
    /// receiver: a message with one reaches the first worker and is an error for the next.
    pub fn broadcast<T: serde::Serialize>(&self, message: &T) -> Result<usize, Error> {
        let mut reached = 0;
        for worker in self.workers() {
            match worker.send(message) {
                Ok(_) => reached += 1,
                // It is on its way out.
                Err(_) if !worker.is_connected() => {}
                Err(failed) => return Err(Error::Channel(failed.error)),
            }
        }
        Ok(reached)
    }

    /// Blocks until all workers listen (or, with [`Builder::listens`] off, are online). Before
    /// [`start`](Self::start) it waits for that, too.
    ///
    /// # Errors
    ///
    /// A worker of the first start that ends before that ends the whole start, without a worker
    /// left behind: [`Error::Listen`] when it could not have its address, otherwise
    /// [`Error::StartFailed`] with its last words. [`Error::Closed`] after a shutdown and when no
    /// worker is left that could listen, and [`Error::Interrupted`] when a second signal cut a
    /// shutdown short. [`Error::WouldDeadlock`] in a callback.
    pub fn ready(&self) -> Result<(), Error> {
        self.may_wait()?;
        self.shared.wait_until(|state| match state {
            PrimaryState { ready: true, .. } => Some(Ok(())),
            // Only when nobody is left: a caller that exits leaves no worker behind.
            PrimaryState { finished: true, .. } | PrimaryState { idle: true, .. } => {
                Some(Err(failure(state).unwrap_or(Error::Closed)))
            }
            _ => None,
        })
    }

    /// Ends the cluster: no new connections, each worker finishes what it has, then signals at
    /// the deadlines. Returns at once; [`wait`](Self::wait) waits for the end.
    ///
    /// What waits in the backlog is still dealt to the workers before their queues end.
    pub fn shutdown(&self) {
        self.shared.input(Input::Shutdown);
    }

    /// Blocks until all workers have ended for good: after a shutdown or a
    /// [`disconnect`](Self::disconnect), or because none is left and none will be started.
    ///
    /// # Errors
    ///
    /// What [`ready`](Self::ready) gives for a failed start, unless that was told already;
    /// [`Error::Interrupted`] when a second signal killed the workers; [`Error::WouldDeadlock`] in a
    /// callback.
    pub fn wait(&self) -> Result<(), Error> {
        self.may_wait()?;
        let before = self.shared.lock().idle_version;
        let over =
            |state: &PrimaryState| state.finished || state.idle || state.idle_version > before;
        self.shared.wait_until(|state| over(state).then(|| failure(state).map_or(Ok(()), Err)))
    }

    /// The workers that have not ended, by number.
    #[must_use]
    pub fn workers(&self) -> Vec<WorkerProcess> {
        self.shared.lock().workers.values().cloned().collect()
    }

    /// The address of the first listener that was opened, with its real port.
    #[must_use]
    pub fn address(&self) -> Option<Address> {
        self.shared.lock().address.clone()
    }

    /// What became of the connections. Asks the loop; after the end it is the final count.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.shared.ask(Job::Count).unwrap_or_else(|| self.shared.lock().counters)
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

/// Why the end was no good end. An interruption is told to everybody, a failed start once.
fn failure(state: &mut PrimaryState) -> Option<Error> {
    state.interrupted.map(Error::Interrupted).or_else(|| state.failure.take())
}
