//! The events of a primary.

use std::fmt;
use std::sync::Arc;

use child_process::ExitStatus;

use crate::error::Error;
use crate::primary::settings::Settings;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;

/// The kind of an event, by which callbacks subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Setup,
    Fork,
    Online,
    Listening,
    Message,
    Disconnect,
    Unresponsive,
    Exit,
    Reloaded,
    Error,
}

/// A change in the cluster, in the order in which changes happen.
///
/// [`Primary::events`](crate::Primary::events) returns the queue of events; callbacks such as
/// [`Primary::on_exit`](crate::Primary::on_exit) get events of one kind. `Display` is one line for
/// a log: `listening 1 127.0.0.1:8000`, `exit 1 SIGKILL`.
///
/// Node: the events of the `cluster` object, by the same names. `Unresponsive` and `Reloaded` are
/// not in Node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The settings were changed; new workers are started with these.
    Setup(Arc<Settings>),
    /// The process of the worker was started.
    Fork(WorkerProcess),
    /// The runtime of the worker is up: it has called [`Worker::current`](crate::Worker::current).
    Online(WorkerProcess),
    /// The worker listens on this address; port 0 is replaced by the real port.
    Listening(WorkerProcess, Address),
    /// The worker sent this message.
    Message(WorkerProcess, ipc::Message),
    /// The channel of the worker is closed. This event comes exactly once, before or after `Exit`.
    Disconnect(WorkerProcess),
    /// The worker left its queue unread for too long. It is being killed and will be replaced.
    Unresponsive(WorkerProcess),
    /// The process of the worker has ended with this status.
    Exit(WorkerProcess, ExitStatus),
    /// A reload has replaced every worker.
    Reloaded,
    /// An operation failed for the worker of this number, or for the cluster as a whole.
    Error(Option<u32>, Arc<Error>),
}

impl Event {
    pub(crate) fn error(worker: Option<u32>, error: Error) -> Self {
        Self::Error(worker, Arc::new(error))
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Setup(_) => Kind::Setup,
            Self::Fork(_) => Kind::Fork,
            Self::Online(_) => Kind::Online,
            Self::Listening(..) => Kind::Listening,
            Self::Message(..) => Kind::Message,
            Self::Disconnect(_) => Kind::Disconnect,
            Self::Unresponsive(_) => Kind::Unresponsive,
            Self::Exit(..) => Kind::Exit,
            Self::Reloaded => Kind::Reloaded,
            Self::Error(..) => Kind::Error,
        }
    }

    /// Returns the worker that changed.
    pub(crate) fn worker(&self) -> Option<&WorkerProcess> {
        match self {
            Self::Fork(worker)
            | Self::Online(worker)
            | Self::Listening(worker, _)
            | Self::Message(worker, _)
            | Self::Disconnect(worker)
            | Self::Unresponsive(worker)
            | Self::Exit(worker, _) => Some(worker),
            Self::Setup(_) | Self::Reloaded | Self::Error(..) => None,
        }
    }

    /// Returns the number of the worker that the event is about.
    pub(crate) fn worker_id(&self) -> Option<u32> {
        match self {
            Self::Error(worker, _) => *worker,
            other => other.worker().map(WorkerProcess::id),
        }
    }

    /// Clones the event; `None` for a message, which has one owner.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        Some(match self {
            Self::Setup(settings) => Self::Setup(settings.clone()),
            Self::Fork(worker) => Self::Fork(worker.clone()),
            Self::Online(worker) => Self::Online(worker.clone()),
            Self::Listening(worker, address) => Self::Listening(worker.clone(), address.clone()),
            Self::Message(..) => return None,
            Self::Disconnect(worker) => Self::Disconnect(worker.clone()),
            Self::Unresponsive(worker) => Self::Unresponsive(worker.clone()),
            Self::Exit(worker, status) => Self::Exit(worker.clone(), *status),
            Self::Reloaded => Self::Reloaded,
            Self::Error(worker, error) => Self::Error(*worker, error.clone()),
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup(_) => f.write_str("setup"),
            Self::Fork(worker) => write!(f, "fork {}", worker.id()),
            Self::Online(worker) => write!(f, "online {}", worker.id()),
            Self::Listening(worker, address) => write!(f, "listening {} {address}", worker.id()),
            Self::Message(worker, _) => write!(f, "message {}", worker.id()),
            Self::Disconnect(worker) => write!(f, "disconnect {}", worker.id()),
            Self::Unresponsive(worker) => write!(f, "unresponsive {}", worker.id()),
            Self::Exit(worker, ExitStatus::Code(code)) => write!(f, "exit {} {code}", worker.id()),
            Self::Exit(worker, status) => write!(f, "exit {} {status}", worker.id()),
            Self::Reloaded => f.write_str("reloaded"),
            // With all causes, because a line of a log has no `source()`.
            Self::Error(Some(worker), error) => write!(f, "error {worker} {}", error.with_causes()),
            Self::Error(None, error) => write!(f, "error {}", error.with_causes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_displayed_with_its_cause() {
        let cause = std::io::Error::from_raw_os_error(sys::errno::EMFILE);
        let line = Event::error(Some(3), Error::Os("start a worker", cause)).to_string();
        assert!(line.starts_with("error 3 start a worker failed: Too many open files"), "{line}");
    }
}
