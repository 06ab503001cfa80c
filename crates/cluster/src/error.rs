//! The errors of a cluster.

use std::fmt;
use std::io;

use child_process::ExitStatus;

use crate::protocol::address::Address;
use crate::worker_id::WorkerId;

/// The error type of a cluster.
///
/// `Display` is one sentence without the cause; [`with_causes`](Error::with_causes) adds the
/// causes.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// The option of this name has a value that cannot be used, for this reason.
    Option(&'static str, String),
    /// The kernel refused to open a listener on this address.
    Listen(Address, io::Error),
    /// The name passed to `listen` has no address.
    Resolve(io::Error),
    /// A worker process could not be started.
    Fork(child_process::Error),
    /// A worker ended before it was ready, and the start or reload was given up.
    StartFailed {
        /// The number of the worker.
        worker: WorkerId,
        /// The exit status; `None` when the process never ran.
        status: Option<ExitStatus>,
        /// The end of what the worker wrote to its standard error before its runtime was up.
        stderr: String,
    },
    /// The new worker of this number was not ready in time. The reload was given up, and workers
    /// that had not been replaced were kept.
    NotReady(WorkerId),
    /// Another reload is still running.
    ReloadUnderWay,
    /// The settings cannot be changed, because
    /// [`Primary::setup_master`](crate::Primary::setup_master) has fixed them.
    SetUp,
    /// There are [`Builder::WORKERS_MAX`](crate::Builder::WORKERS_MAX) workers already, or the primary has ended.
    NoPlace,
    /// The call would block the callback thread while it waits for another callback.
    WouldDeadlock,
    /// In a worker: the listener is closed, because the worker is draining or the primary is gone.
    /// In a primary: the cluster has ended, or has no worker.
    Closed,
    /// The call is for a primary, and this process is a worker.
    IsWorker,
    /// A second signal of this kind cut the shutdown short, and all workers were killed.
    Interrupted(child_process::Signal),
    /// The channel between primary and worker failed.
    Channel(ipc::Error),
    /// The process of a worker or its channel reported an error.
    Worker(child_process::Error),
    /// This system call, or this step, failed.
    Os(&'static str, io::Error),
}

impl Error {
    /// Returns Node's name for the error, such as `ENOENT` or `ERR_SERVER_NOT_RUNNING`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Option(..) => "ERR_INVALID_ARG_VALUE",
            Self::Listen(_, source) | Self::Resolve(source) | Self::Os(_, source) => {
                sys::errno::name_of(source)
            }
            Self::Fork(source) | Self::Worker(source) => source.code(),
            Self::StartFailed { .. } => "ERR_WORKER_INIT_FAILED",
            Self::Closed => "ERR_SERVER_NOT_RUNNING",
            Self::NotReady(_) => "ETIMEDOUT",
            Self::IsWorker
            | Self::ReloadUnderWay
            | Self::SetUp
            | Self::NoPlace
            | Self::WouldDeadlock => "ERR_INVALID_STATE",
            Self::Interrupted(_) => "ABORT_ERR",
            Self::Channel(source) => source.code(),
        }
    }
}

impl Error {
    /// Returns the error with all its causes, as one line for a log.
    ///
    /// ```
    /// let cause = std::io::Error::from_raw_os_error(24);
    /// let line = brood_cluster::Error::Os("accept", cause).with_causes();
    /// assert_eq!(line, "accept failed: Too many open files (os error 24)");
    /// ```
    #[must_use]
    pub fn with_causes(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Option(name, why) => write!(f, "{name}: {why}"),
            Self::Listen(address, source) => {
                let (name, text) = sys::errno::describe(source);
                write!(f, "cannot listen on {address}: {text} ({name})")
            }
            Self::Resolve(_) => f.write_str("cannot resolve the address to listen on"),
            Self::Fork(_) => f.write_str("cannot start a worker"),
            Self::StartFailed { worker, status, stderr } => {
                write!(f, "worker {worker} could not start")?;
                if let Some(status) = status {
                    write!(f, ": it ended with {status} before it was ready")?;
                }
                match stderr.trim_end() {
                    "" => Ok(()),
                    lines => write!(f, "; end of its standard error:\n{lines}"),
                }
            }
            Self::NotReady(worker) => {
                write!(
                    f,
                    "reload stopped: worker {worker} was not ready in time, its predecessor stays"
                )
            }
            Self::ReloadUnderWay => f.write_str("wait for the end of the reload that is running"),
            Self::SetUp => f.write_str("settings cannot be changed: setup_master has fixed them"),
            Self::NoPlace => f.write_str(
                "cannot add a worker: the primary has ended, or has the most workers it can have",
            ),
            Self::WouldDeadlock => f.write_str(
                "call this from another thread: a callback cannot wait for a later callback",
            ),
            Self::Closed => f.write_str("the listener is closed, or the cluster has ended"),
            Self::IsWorker => f.write_str("this process is a worker, not a primary"),
            Self::Interrupted(signal) => write!(f, "interrupted by a second {signal}"),
            Self::Channel(_) => f.write_str("the channel failed"),
            Self::Worker(_) => f.write_str("the worker's process or channel failed"),
            Self::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Resolve(source) | Self::Os(_, source) => Some(source),
            Self::Fork(source) | Self::Worker(source) => Some(source),
            Self::Channel(source) => Some(source),
            Self::Listen(..)
            | Self::Option(..)
            | Self::StartFailed { .. }
            | Self::NotReady(_)
            | Self::ReloadUnderWay
            | Self::SetUp
            | Self::NoPlace
            | Self::WouldDeadlock
            | Self::Closed
            | Self::IsWorker
            | Self::Interrupted(_) => None,
        }
    }
}
