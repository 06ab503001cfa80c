//! What a primary tells its user.

use std::fmt;

use child_process::ExitStatus;

use crate::address::Address;
use crate::error::Error;
use crate::process::WorkerProcess;

/// What happened to a worker; in the order it happened.
///
/// Its `Display` is one line for a log: `listening 1 127.0.0.1:8000`, `exit 1 SIGKILL`.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// The worker's process has been started.
    Fork(WorkerProcess),
    /// Its runtime is up: [`Worker::current`](crate::Worker::current) was called.
    Online(WorkerProcess),
    /// It listens on this address; 0 is replaced by the real port.
    Listening(WorkerProcess, Address),
    /// It sent this.
    Message(WorkerProcess, ipc::Message),
    /// Its channel is closed. Comes before or after `Exit`, exactly once.
    Disconnect(WorkerProcess),
    /// It left its queue unread for too long and is being killed, to be replaced.
    Unresponsive(WorkerProcess),
    /// Its process has ended.
    Exit(WorkerProcess, ExitStatus),
    /// Something failed that concerns this worker, or none that exists.
    Error(Option<u32>, Error),
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Fork(worker) => write!(f, "fork {}", worker.id()),
            Self::Online(worker) => write!(f, "online {}", worker.id()),
            Self::Listening(worker, address) => write!(f, "listening {} {address}", worker.id()),
            Self::Message(worker, _) => write!(f, "message {}", worker.id()),
            Self::Disconnect(worker) => write!(f, "disconnect {}", worker.id()),
            Self::Unresponsive(worker) => write!(f, "unresponsive {}", worker.id()),
            Self::Exit(worker, ExitStatus::Code(code)) => write!(f, "exit {} {code}", worker.id()),
            Self::Exit(worker, status) => write!(f, "exit {} {status}", worker.id()),
            Self::Error(Some(worker), error) => write!(f, "error {worker} {error}"),
            Self::Error(None, error) => write!(f, "error {error}"),
        }
    }
}
