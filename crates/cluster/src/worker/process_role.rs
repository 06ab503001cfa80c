//! The role of this process: a primary's worker, or a program that nobody started as a worker.

use std::sync::OnceLock;

use crate::protocol::message::{
    DESCRIPTORS_MAX, KEEP_DESCRIPTORS, SANDBOX, STDERR, UNIQUE_ID, UNIQUE_NO,
};
use crate::protocol::own_restrictions;
use crate::worker::Worker;
use crate::worker::runtime::Runtime;
use crate::worker::signals::WorkerSignals;
use crate::worker_id::WorkerId;

impl Worker {
    /// Returns this process's worker if a primary started the process, and `None` otherwise.
    ///
    /// The first call starts the worker's runtime and reports the worker to its primary as
    /// `online`; a worker should call it early in `main`. The environment variable
    /// `NODE_UNIQUE_ID` decides. The library removes the variable before `main` runs, so processes
    /// that this process starts are no workers.
    ///
    /// The first call also raises the soft limit of open descriptors to the hard limit, at most to
    /// 1,048,576, unless the primary was built with
    /// [`raise_descriptors(false)`](crate::Builder::raise_descriptors). Processes that this process
    /// starts get the previous limit.
    ///
    /// The runtime handles `SIGTERM`, `SIGINT` and `SIGHUP` as [`WorkerSignals::Drain`] describes;
    /// [`current_with`](Self::current_with) turns that off.
    ///
    /// ```
    /// match brood_cluster::Worker::current() {
    ///     Some(worker) => println!("worker {}", worker.id()),
    ///     None => println!("no worker"),
    /// }
    /// ```
    ///
    /// # Panics
    ///
    /// The process was started as a worker, and has no descriptor or thread left for the runtime,
    /// or the channel that the environment names cannot be used, or a restriction of the worker's
    /// [`Sandbox`](crate::Sandbox) cannot be set.
    #[must_use]
    #[doc(alias = "isWorker")]
    pub fn current() -> Option<Self> {
        Self::current_with(WorkerSignals::default())
    }

    /// Returns this process's worker, as [`current`](Self::current) does, with a choice about
    /// signals. The first call decides, of this function or of any that starts the runtime.
    ///
    /// ```
    /// use brood_cluster::{Worker, WorkerSignals};
    ///
    /// // The program handles SIGTERM itself.
    /// let worker = Worker::current_with(WorkerSignals::Untouched);
    /// assert!(worker.is_none(), "no primary started this example");
    /// ```
    ///
    /// # Panics
    ///
    /// See [`current`](Self::current).
    #[must_use]
    pub fn current_with(worker_signals: WorkerSignals) -> Option<Self> {
        static CURRENT: OnceLock<Option<Worker>> = OnceLock::new();
        CURRENT.get_or_init(|| from_environment(worker_signals)).clone()
    }
}

fn from_environment(worker_signals: WorkerSignals) -> Option<Worker> {
    let number = |name| sys::startup::variable(name)?.to_str()?.parse().ok();
    let id = WorkerId(number(UNIQUE_ID).or_else(|| number(UNIQUE_NO))?);
    let Some(parent) = child_process::parent() else {
        // A worker that ran on as a primary would start workers of its own, and those in turn.
        assert!(
            sys::startup::variable("BROOD_CHANNEL").is_none(),
            "started as worker {id}, but the channel to the primary cannot be used"
        );
        return None;
    };
    restrict();
    if let Some(stderr) = sys::startup::take_descriptor(STDERR) {
        // Until here descriptor 2 was a pipe to the primary. A worker that kept the pipe would die
        // of a message to its standard error once the primary is gone.
        let _ = sys::fd::replace_stderr(stderr);
    }
    if sys::startup::variable(KEEP_DESCRIPTORS).is_none() {
        // A worker that keeps a low limit works all the same.
        let _ = sys::rlimit::raise_descriptors(DESCRIPTORS_MAX);
    }
    Some(Worker(Runtime::start(id, parent, worker_signals)))
}

/// Sets the restrictions that the primary has ordered. A worker that cannot set them ends.
fn restrict() {
    let Some(value) = sys::startup::variable(SANDBOX) else { return };
    let own = value.to_str().and_then(own_restrictions::from_variable);
    let own = own.expect("the primary orders restrictions that this worker knows");
    if own.undumpable {
        sys::dumpable::forbid().expect("a worker can forbid dumps of itself");
    }
    if own.forbids_execve {
        let filter = sys::seccomp::Filter::without_execve();
        filter.install().expect("a worker can forbid itself to execute programs");
    }
}

/// Returns whether this process is a primary or can become one: no primary started it as a
/// worker.
///
/// ```
/// assert!(brood_cluster::is_primary() && !brood_cluster::is_worker());
/// ```
///
/// Node: `cluster.isPrimary`. Like [`Worker::current`], the call starts a worker's runtime.
///
/// # Panics
///
/// See [`Worker::current`].
#[must_use]
#[doc(alias = "isPrimary")]
#[doc(alias = "isMaster")]
pub fn is_primary() -> bool {
    !is_worker()
}

/// Returns the same as [`is_primary`]. Node: `cluster.isMaster`.
///
/// # Panics
///
/// See [`Worker::current`].
#[must_use]
#[doc(hidden)]
pub fn is_master() -> bool {
    is_primary()
}

/// Returns whether a primary started this process as a worker. Node: `cluster.isWorker`.
///
/// Like [`Worker::current`], the call starts a worker's runtime.
///
/// # Panics
///
/// See [`Worker::current`].
#[must_use]
#[doc(alias = "isWorker")]
pub fn is_worker() -> bool {
    Worker::current().is_some()
}
