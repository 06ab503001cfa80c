//! What can go wrong in a cluster.

use std::fmt;
use std::io;

use child_process::ExitStatus;

use crate::protocol::address::Address;

/// What can go wrong in a cluster.
#[derive(Debug)]
#[non_exhaustive]
pub enum Error {
    /// An option has a value that cannot be used; says which and why.
    Option(&'static str, String),
    /// The address cannot be listened on.
    Listen(Address, io::Error),
    /// The name given to `listen` means no address.
    Resolve(io::Error),
    /// A worker could not be started.
    Fork(child_process::Error),
    /// A worker of the first start ended before it was ready, and so the start was given up.
    StartFailed {
        /// Its number.
        worker: u32,
        /// How it ended; `None` when it never ran.
        status: Option<ExitStatus>,
        /// The last lines it wrote to its standard error before its runtime was up.
        stderr: String,
    },
    /// A new worker was not ready in time; the reload was given up, and the workers that had not
    /// been replaced were kept.
    NotReady(u32),
    /// A reload is asked for while another is not over.
    ReloadUnderWay,
    /// The settings are changed after [`Primary::setup_master`](crate::Primary::setup_master) has
    /// set them for good.
    SetUp,
    /// No place is left for one worker more, see [`WORKERS_MAX`](crate::WORKERS_MAX), or the
    /// primary has ended.
    NoPlace,
    /// Waiting here, in a callback, would keep the one away that could end it.
    WouldDeadlock,
    /// The listener is closed: the worker is draining, or the primary is gone. In a primary: the
    /// cluster has ended, or has no worker.
    Closed,
    /// This process is a worker; only a primary can do this.
    IsWorker,
    /// A second signal cut the shutdown short; all workers were killed.
    Interrupted(child_process::Signal),
    /// The channel between primary and worker failed.
    Channel(ipc::Error),
    /// A worker's process or its channel reports an error.
    Worker(child_process::Error),
    /// The kernel refused this call.
    Os(&'static str, io::Error),
}

impl Error {
    /// Node's name for the error, `ENOENT` or `ERR_…`.
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
    /// The error and its causes, in one line for a log.
    ///
    /// ```
    /// let cause = std::io::Error::from_raw_os_error(24);
    /// let line = cluster::Error::Os("accept", cause).with_causes();
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
                    lines => write!(f, "; its last words:\n{lines}"),
                }
            }
            Self::NotReady(worker) => {
                write!(f, "worker {worker} was not ready in time, so its predecessor was kept")
            }
            Self::ReloadUnderWay => f.write_str("a reload is under way"),
            Self::SetUp => f.write_str("the settings were set for good before"),
            Self::NoPlace => f.write_str("the primary takes no further worker"),
            Self::WouldDeadlock => {
                f.write_str("a callback cannot wait for what only callbacks tell")
            }
            Self::Closed => f.write_str("the listener is closed, or the cluster has ended"),
            Self::IsWorker => f.write_str("this process is a worker, not a primary"),
            Self::Interrupted(signal) => write!(f, "interrupted by a second {signal}"),
            Self::Channel(_) => f.write_str("the channel failed"),
            Self::Worker(_) => f.write_str("the worker's process or channel reports an error"),
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
