//! The errors of a cluster.
//!
//! `Display` is an error's own sentence; `source` gives the cause. `{:?}` is the sentence with all
//! causes on one line, and `{:#?}` the structure.

pub(crate) mod not_ready;

use std::error::Error as StdError;
use std::fmt;
use std::io;
use std::sync::Arc;

use child_process::ExitStatus;
use sys::errno::write_with_causes;
use sys::text;

use crate::error::not_ready::{NotReady, write_last_lines};
use crate::protocol::address::Address;
use crate::worker_id::WorkerId;

/// The error type of a cluster.
///
/// `Display` is one sentence without the cause, which is the [`source`](StdError::source). `{:?}` is
/// one line with all causes, as `main` prints an error that it returns; `{:#?}` is the structure.
///
/// ```
/// let other = std::net::TcpListener::bind("127.0.0.1:0")?;
/// let error = brood_cluster::listen(other.local_addr()?).unwrap_err();
/// assert_eq!(error.code(), "EADDRINUSE");
/// let line = format!("{error:?}");
/// assert!(line.starts_with("cannot listen on 127.0.0.1:"), "{line}");
/// assert!(line.ends_with(": Address already in use (os error 98)"), "{line}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[non_exhaustive]
pub enum Error {
    /// An option has a value that cannot be used.
    InvalidOption {
        /// The name of the option.
        option: &'static str,
        /// The reason, and the values that can be used.
        why: String,
    },
    /// The kernel refused to open a socket at this address.
    Listen {
        /// The address.
        address: Address,
        /// The error of `socket(2)`, `bind(2)` or `listen(2)`.
        source: io::Error,
    },
    /// A worker may not listen on this address, for which it got `EACCES`:
    /// [`Builder::may_listen`](crate::Builder::may_listen) does not allow it, or the kernel refuses
    /// it to the user of the worker.
    NotAllowed {
        /// The address.
        address: Address,
    },
    /// A worker has [`Builder::listens_max`](crate::Builder::listens_max) listeners already, and got
    /// `EMFILE` for this address.
    TooManyListeners {
        /// The address.
        address: Address,
        /// The limit.
        max: u32,
    },
    /// The name passed to `listen` has no address.
    Resolve(io::Error),
    /// A worker process could not be started.
    Fork(Arc<child_process::Error>),
    /// A worker ended before it was ready, and the start or reload was given up.
    EndedBeforeReady {
        /// The number of the worker.
        worker: WorkerId,
        /// The exit status.
        status: ExitStatus,
        /// Whether the worker had called [`Worker::current`](crate::Worker::current).
        online: bool,
        /// Whether the worker had listened, while other workers were not ready.
        listened: bool,
        /// The end of what the worker wrote to its standard error before it was online.
        stderr: String,
    },
    /// Workers were not ready within
    /// [`Builder::ready_within`](crate::Builder::ready_within). A first start is given up then, and a
    /// reload ends the new worker.
    NotReady(Box<NotReady>),
    /// The settings cannot be changed, because `setup_master` has fixed them.
    SettingsFixed,
    /// There are [`Builder::WORKERS_MAX`](crate::Builder::WORKERS_MAX) workers already.
    TooManyWorkers,
    /// The call would block the callback thread while it waits for another callback.
    WouldDeadlock,
    /// No further connection arrives, and no address can be opened: the worker drains, or its
    /// primary is gone.
    Closed,
    /// The primary has no worker yet, or has ended.
    NotRunning,
    /// The call is for a primary, and this process is a worker.
    IsWorker,
    /// A second signal of this kind cut the shutdown short, and all workers were killed.
    Interrupted(child_process::Signal),
    /// The channel between primary and worker failed.
    Channel(ipc::Error),
    /// The process of a worker or its channel reported an error.
    Worker(child_process::Error),
    /// This number of errors and reports of listeners of a worker were left out, because 64 of their
    /// kind had not been taken; see [`Event`](crate::Event).
    EventsLeftOut(u64),
    /// This system call, or this step, failed.
    Os(&'static str, io::Error),
}

impl Error {
    /// Returns Node's name for the error, such as `ENOENT` or `ERR_SERVER_NOT_RUNNING`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidOption { .. } => "ERR_INVALID_ARG_VALUE",
            Self::Listen { source, .. } | Self::Resolve(source) | Self::Os(_, source) => {
                sys::errno::name_of(source)
            }
            Self::NotAllowed { .. } => "EACCES",
            Self::TooManyListeners { .. } => "EMFILE",
            Self::Fork(source) => source.code(),
            Self::Worker(source) => source.code(),
            Self::EndedBeforeReady { .. } => "ERR_WORKER_INIT_FAILED",
            Self::Closed | Self::NotRunning => "ERR_SERVER_NOT_RUNNING",
            Self::NotReady(_) => "ETIMEDOUT",
            Self::IsWorker | Self::SettingsFixed | Self::TooManyWorkers | Self::WouldDeadlock => {
                "ERR_INVALID_STATE"
            }
            Self::Interrupted(_) => "ABORT_ERR",
            Self::EventsLeftOut(_) => "ENOBUFS",
            Self::Channel(source) => source.code(),
        }
    }
}

impl Error {
    /// Copies the error of a start or a reload, for which several callers may wait.
    pub(crate) fn copy(&self) -> Self {
        match self {
            Self::Listen { address, source } => {
                let number = source.raw_os_error().map(io::Error::from_raw_os_error);
                let source = number.unwrap_or_else(|| source.kind().into());
                Self::Listen { address: address.clone(), source }
            }
            Self::NotAllowed { address } => Self::NotAllowed { address: address.clone() },
            Self::TooManyListeners { address, max } => {
                Self::TooManyListeners { address: address.clone(), max: *max }
            }
            Self::Fork(source) => Self::Fork(source.clone()),
            Self::EndedBeforeReady { worker, status, online, listened, stderr } => {
                Self::EndedBeforeReady {
                    worker: *worker,
                    status: *status,
                    online: *online,
                    listened: *listened,
                    stderr: stderr.clone(),
                }
            }
            Self::NotReady(not_ready) => Self::NotReady(not_ready.clone()),
            _ => Self::NotRunning,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::InvalidOption { option, why } => write!(f, "{option}: {why}"),
            Self::Listen { address, source } => {
                write!(f, "cannot listen on {address}")?;
                advice(address, source).map_or(Ok(()), |advice| write!(f, " ({advice})"))
            }
            Self::NotAllowed { address } => write!(
                f,
                "a worker may not listen on {address} (allow it by `Builder::may_listen`, or give \
                 the user of the worker the right to)"
            ),
            Self::TooManyListeners { address, max } => write!(
                f,
                "a worker cannot listen on {address}: it has {max} listeners, the limit of \
                 `Builder::listens_max`"
            ),
            Self::Resolve(_) => f.write_str("cannot resolve the address to listen on"),
            Self::Fork(_) => f.write_str("cannot start a worker"),
            Self::EndedBeforeReady { stderr, .. } => {
                write_end(self, f)?;
                match stderr.trim_end() {
                    "" => Ok(()),
                    lines => {
                        write!(f, "; end of its standard error:\n{}", text::lines(lines))
                    }
                }
            }
            Self::NotReady(workers) => workers.fmt(f),
            Self::SettingsFixed => {
                f.write_str("settings cannot be changed: `setup_master` has fixed them")
            }
            Self::TooManyWorkers => f.write_str(
                "cannot add a worker: there are `Builder::WORKERS_MAX` already",
            ),
            Self::WouldDeadlock => f.write_str(
                "call this from another thread: a callback cannot wait for a later callback",
            ),
            Self::Closed => f.write_str(
                "the listener is closed: this worker was disconnected, or its primary has ended or \
                 was dropped",
            ),
            Self::NotRunning => f.write_str(
                "the primary has no worker: it was not started, or its workers have ended for good",
            ),
            Self::IsWorker => f.write_str(
                "this process is a worker, and cannot have a primary; call `Worker::current` first, \
                 and build a primary only where that returns `None`",
            ),
            Self::Interrupted(signal) => write!(f, "interrupted by a second {signal}"),
            Self::Channel(_) => f.write_str("the channel between primary and worker failed"),
            Self::Worker(_) => f.write_str("the worker's process or channel failed"),
            Self::EventsLeftOut(count) => {
                write!(f, "{count} events were left out: 64 of their kind were not taken")
            }
            Self::Os(call, _) => write!(f, "{call} failed"),
        }
    }
}

/// Writes the sentence of [`Error::EndedBeforeReady`], without the standard error.
fn write_end(error: &Error, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let Error::EndedBeforeReady { worker, status, online, listened, stderr } = error else {
        return Ok(());
    };
    let missing = match (online, listened) {
        (_, true) => "all workers were ready",
        (true, false) => "it was ready",
        (false, false) => "it was online",
    };
    write!(f, "worker {worker} ended with {status} before {missing}")?;
    if *listened {
        return f.write_str(if status.success() {
            "; a worker runs until `Listener::incoming` or `Worker::draining` ends"
        } else {
            ""
        });
    }
    if !online && stderr.trim_end().is_empty() {
        return f.write_str("; a worker has to call `Worker::current` first");
    }
    if *online && status.success() {
        return f.write_str(
            "; let every worker call `listen`, or set `Builder::listens(false)` if workers do not \
             listen",
        );
    }
    Ok(())
}

/// Returns what to do about an address that cannot be opened.
fn advice(address: &Address, error: &io::Error) -> Option<&'static str> {
    Some(match (address, error.raw_os_error()?) {
        (Address::Inherited(_), sys::errno::EBADF) => {
            "name one that `Builder::socket` or systemd has given to the primary"
        }
        (_, sys::errno::EADDRINUSE) => {
            "another socket has the address: end its program, use another address, or, if the \
             primary or another listener of this worker has it, close that one"
        }
        (Address::Tcp { address, .. } | Address::Udp { address, .. }, sys::errno::EACCES)
            if (1..1024).contains(&address.port()) =>
        {
            "ports below 1024 need the capability CAP_NET_BIND_SERVICE"
        }
        (_, sys::errno::ELOOP) => {
            "a symbolic link of another user is followed only to a folder of that user: name the \
             folder itself"
        }
        (_, sys::errno::EADDRNOTAVAIL) => "use an address of this machine, or 0.0.0.0",
        _ => return None,
    })
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            // The standard error has several lines.
            if let Self::EndedBeforeReady { stderr, .. } = self {
                write_end(self, f)?;
                return write_last_lines(stderr, f);
            }
            return write_with_causes(self, f);
        }
        match self {
            Self::InvalidOption { option, why } => {
                f.debug_struct("InvalidOption").field("option", option).field("why", why).finish()
            }
            Self::Listen { address, source } => {
                f.debug_struct("Listen").field("address", address).field("source", source).finish()
            }
            Self::NotAllowed { address } => {
                f.debug_struct("NotAllowed").field("address", address).finish()
            }
            Self::TooManyListeners { address, max } => f
                .debug_struct("TooManyListeners")
                .field("address", address)
                .field("max", max)
                .finish(),
            Self::Resolve(source) => f.debug_tuple("Resolve").field(source).finish(),
            Self::Fork(source) => f.debug_tuple("Fork").field(source).finish(),
            Self::EndedBeforeReady { worker, status, online, listened, stderr } => f
                .debug_struct("EndedBeforeReady")
                .field("worker", worker)
                .field("status", status)
                .field("online", online)
                .field("listened", listened)
                .field("stderr", stderr)
                .finish(),
            Self::NotReady(workers) => f.debug_tuple("NotReady").field(workers).finish(),
            Self::SettingsFixed => f.write_str("SettingsFixed"),
            Self::TooManyWorkers => f.write_str("TooManyWorkers"),
            Self::WouldDeadlock => f.write_str("WouldDeadlock"),
            Self::Closed => f.write_str("Closed"),
            Self::NotRunning => f.write_str("NotRunning"),
            Self::IsWorker => f.write_str("IsWorker"),
            Self::Interrupted(signal) => f.debug_tuple("Interrupted").field(signal).finish(),
            Self::Channel(source) => f.debug_tuple("Channel").field(source).finish(),
            Self::Worker(source) => f.debug_tuple("Worker").field(source).finish(),
            Self::EventsLeftOut(count) => f.debug_tuple("EventsLeftOut").field(count).finish(),
            Self::Os(call, source) => f.debug_tuple("Os").field(call).field(source).finish(),
        }
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            Self::Listen { source, .. } | Self::Resolve(source) | Self::Os(_, source) => {
                Some(source)
            }
            Self::Fork(source) => Some(&**source),
            Self::Worker(source) => Some(source),
            Self::Channel(source) => Some(source),
            Self::InvalidOption { .. }
            | Self::NotAllowed { .. }
            | Self::TooManyListeners { .. }
            | Self::EndedBeforeReady { .. }
            | Self::NotReady(_)
            | Self::SettingsFixed
            | Self::TooManyWorkers
            | Self::WouldDeadlock
            | Self::Closed
            | Self::NotRunning
            | Self::IsWorker
            | Self::Interrupted(_)
            | Self::EventsLeftOut(_) => None,
        }
    }
}

impl From<ipc::Error> for Error {
    fn from(error: ipc::Error) -> Self {
        Self::Channel(error)
    }
}
