//! The events of a primary.

use std::fmt;
use std::sync::Arc;

use child_process::ExitStatus;

use crate::contract::WorkerId;
use crate::error::Error;
use crate::primary::settings::Settings;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;
use crate::protocol::violation::Violation;

/// The kind of an event, by which callbacks subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Kind {
    Setup,
    Fork,
    Online,
    Listening,
    Message,
    Disconnect,
    Unresponsive,
    Violation,
    Exit,
    AddressClosed,
    Reloaded,
    Error,
}

/// A change in the cluster, in the order in which changes happen.
///
/// A worker can repeat [`Error`](Self::Error) and [`Listening`](Self::Listening) as often as it
/// likes. At most 64 events of one worker and kind, and for errors of one kind of error, wait to be
/// taken. Further ones are left out, and an error has their number:
/// [`Error::EventsLeftOut`](crate::Error::EventsLeftOut). No other event is left out.
///
/// [`Primary::take_events`](crate::Primary::take_events) returns the queue of events; callbacks such
/// as [`Primary::on_exit`](crate::Primary::on_exit) get events of one kind. `Display` is one line
/// for a log: `listening 1 127.0.0.1:8000`, `exit 1 SIGKILL`.
///
/// Node: the events of the `cluster` object, by the same names. `Unresponsive`,
/// `Violation`, `AddressClosed` and `Reloaded` are not in Node.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The settings were changed.
    Setup {
        /// The settings that new workers are started with.
        settings: Arc<Settings>,
    },
    /// The process of the worker was started.
    Fork {
        /// The worker.
        worker: WorkerProcess,
    },
    /// The runtime of the worker is up: it has called [`Worker::current`](crate::Worker::current).
    Online {
        /// The worker.
        worker: WorkerProcess,
    },
    /// The worker listens on an address.
    Listening {
        /// The worker.
        worker: WorkerProcess,
        /// The address, with the real port where port 0 was requested.
        address: Address,
    },
    /// The worker sent a message.
    Message {
        /// The worker.
        worker: WorkerProcess,
        /// The message, which only its receiver has.
        message: ipc::Message,
    },
    /// The channel of the worker is closed. This event comes exactly once, before or after `Exit`.
    Disconnect {
        /// The worker.
        worker: WorkerProcess,
    },
    /// The worker left its queue unread for too long. It is being killed and will be replaced.
    Unresponsive {
        /// The worker.
        worker: WorkerProcess,
    },
    /// The worker sent what no worker of this crate sends: its program speaks the protocol by itself,
    /// its memory is corrupt, or it has been captured. It is being killed, and will be replaced as
    /// one that crashed. This event comes at most once for each worker, before `Exit`.
    ///
    /// A worker of another version of this crate may speak another protocol, and ends in the same
    /// way. A Node worker is ended only for bytes that are no messages at all.
    Violation {
        /// The worker.
        worker: WorkerProcess,
        /// The rule that it broke.
        violation: Violation,
    },
    /// The process of the worker has ended.
    Exit {
        /// The worker.
        worker: WorkerProcess,
        /// The exit code, or the signal that ended the process.
        status: ExitStatus,
    },
    /// The primary has given up an address while it goes on: all workers that listened there have
    /// closed it, and for [`Builder::ready_within`](crate::Builder::ready_within) none has listened
    /// again; their slots are gone; or
    /// [`Primary::close_address`](crate::Primary::close_address) was called. Clients that waited
    /// there are refused. A worker that listens there opens the address anew.
    AddressClosed {
        /// The address, with its real port.
        address: Address,
    },
    /// A reload has replaced every worker.
    Reloaded,
    /// An operation failed.
    Error {
        /// The worker that the operation was for; `None` for the cluster as a whole.
        worker: Option<WorkerId>,
        /// The error.
        error: Arc<Error>,
    },
}

impl Event {
    pub(crate) fn error(worker: Option<WorkerId>, error: Error) -> Self {
        Self::Error { worker, error: Arc::new(error) }
    }

    pub(crate) fn kind(&self) -> Kind {
        match self {
            Self::Setup { .. } => Kind::Setup,
            Self::Fork { .. } => Kind::Fork,
            Self::Online { .. } => Kind::Online,
            Self::Listening { .. } => Kind::Listening,
            Self::Message { .. } => Kind::Message,
            Self::Disconnect { .. } => Kind::Disconnect,
            Self::Unresponsive { .. } => Kind::Unresponsive,
            Self::Violation { .. } => Kind::Violation,
            Self::Exit { .. } => Kind::Exit,
            Self::AddressClosed { .. } => Kind::AddressClosed,
            Self::Reloaded => Kind::Reloaded,
            Self::Error { .. } => Kind::Error,
        }
    }

    /// Returns the worker that changed.
    pub(crate) fn worker(&self) -> Option<&WorkerProcess> {
        match self {
            Self::Fork { worker }
            | Self::Online { worker }
            | Self::Listening { worker, .. }
            | Self::Message { worker, .. }
            | Self::Disconnect { worker }
            | Self::Unresponsive { worker }
            | Self::Violation { worker, .. }
            | Self::Exit { worker, .. } => Some(worker),
            Self::Setup { .. }
            | Self::AddressClosed { .. }
            | Self::Reloaded
            | Self::Error { .. } => None,
        }
    }

    /// Returns the number of the worker that the event is about.
    pub(crate) fn worker_id(&self) -> Option<WorkerId> {
        match self {
            Self::Error { worker, .. } => *worker,
            other => other.worker().map(WorkerProcess::id),
        }
    }

    /// Clones the event; `None` for a message, which has one owner.
    pub(crate) fn try_clone(&self) -> Option<Self> {
        Some(match self {
            Self::Setup { settings } => Self::Setup { settings: settings.clone() },
            Self::Fork { worker } => Self::Fork { worker: worker.clone() },
            Self::Online { worker } => Self::Online { worker: worker.clone() },
            Self::Listening { worker, address } => {
                Self::Listening { worker: worker.clone(), address: address.clone() }
            }
            Self::Message { .. } => return None,
            Self::Disconnect { worker } => Self::Disconnect { worker: worker.clone() },
            Self::Unresponsive { worker } => Self::Unresponsive { worker: worker.clone() },
            Self::Violation { worker, violation } => {
                Self::Violation { worker: worker.clone(), violation: violation.clone() }
            }
            Self::Exit { worker, status } => Self::Exit { worker: worker.clone(), status: *status },
            Self::AddressClosed { address } => Self::AddressClosed { address: address.clone() },
            Self::Reloaded => Self::Reloaded,
            Self::Error { worker, error } => Self::Error { worker: *worker, error: error.clone() },
        })
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Setup { .. } => f.write_str("setup"),
            Self::Fork { worker } => write!(f, "fork {}", worker.id()),
            Self::Online { worker } => write!(f, "online {}", worker.id()),
            Self::Listening { worker, address } => {
                write!(f, "listening {} {address}", worker.id())
            }
            Self::Message { worker, .. } => write!(f, "message {}", worker.id()),
            Self::Disconnect { worker } => write!(f, "disconnect {}", worker.id()),
            Self::Unresponsive { worker } => write!(f, "unresponsive {}", worker.id()),
            Self::Violation { worker, violation } => {
                write!(f, "violation {} {violation}", worker.id())
            }
            Self::Exit { worker, status: ExitStatus::Code(code) } => {
                write!(f, "exit {} {code}", worker.id())
            }
            Self::Exit { worker, status } => write!(f, "exit {} {status}", worker.id()),
            Self::AddressClosed { address } => write!(f, "address closed {address}"),
            Self::Reloaded => f.write_str("reloaded"),
            // With all causes, because a line of a log has no `source()`.
            Self::Error { worker: Some(worker), error } => write!(f, "error {worker} {error:?}"),
            Self::Error { worker: None, error } => write!(f, "error {error:?}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_displayed_with_its_cause() {
        let cause = std::io::Error::from_raw_os_error(sys::errno::EMFILE);
        let line = Event::error(Some(WorkerId(3)), Error::Os("start a worker", cause)).to_string();
        assert!(line.starts_with("error 3 start a worker failed: Too many open files"), "{line}");
    }

    #[test]
    fn the_text_of_a_worker_starts_no_line_of_its_own() {
        let text = "x\nerror 1 root login\x1b[31m\u{202e}";
        let address = Address::UnixPath(text.into());
        let source = std::io::Error::from_raw_os_error(sys::errno::ENOENT);
        let ended = Error::EndedBeforeReady {
            worker: WorkerId(1),
            status: ExitStatus::Code(1),
            online: true,
            listened: false,
            stderr: text.replace('\n', "\r"),
        };
        for event in [
            Event::AddressClosed { address: address.clone() },
            Event::error(None, Error::Listen { address, source }),
            Event::error(None, ended),
        ] {
            let line = event.to_string();
            assert!(!line.contains(['\n', '\r', '\x1b', '\u{202e}']), "{line:?}");
            assert!(line.contains(r"login\u{1b}[31m\u{202e}"), "{line}");
        }
    }
}
