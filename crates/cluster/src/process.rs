//! A worker as its primary sees it.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use child_process::{Child, Signal};
use ipc::SendError;
use serde::Serialize;

use crate::core::Input;
use crate::counters::WorkerCounters;
use crate::error::Error;
use crate::shared::{Job, Shared};

/// How far a worker has come. Node's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Started, and not heard of.
    None,
    /// Its runtime is up.
    Online,
    /// It listens.
    Listening,
    /// Its channel is closed.
    Disconnected,
    /// Its process has ended.
    Dead,
}

const STATES: [State; 5] =
    [State::None, State::Online, State::Listening, State::Disconnected, State::Dead];

/// A worker process, as its primary sees it. Cheap to clone; every clone is the same worker.
///
/// Dropping it changes nothing: workers belong to their [`Primary`](crate::Primary).
///
/// Node: the class `Worker` of a primary. The worker's own side is [`Worker`](crate::Worker).
#[derive(Clone, Debug)]
#[doc(alias = "Worker")]
pub struct WorkerProcess(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    id: u32,
    child: Arc<Child>,
    shared: Arc<Shared>,
    state: AtomicU8,
    /// 0 until it ends, then 1 for a crash and 2 for a wanted exit.
    wanted: AtomicU8,
}

impl WorkerProcess {
    pub(crate) fn new(id: u32, child: Arc<Child>, shared: Arc<Shared>) -> Self {
        let state = AtomicU8::new(State::None as u8);
        Self(Arc::new(Inner { id, child, shared, state, wanted: AtomicU8::new(0) }))
    }

    /// Sends a message to the worker, which receives it from
    /// [`Worker::messages`](crate::Worker::messages).
    ///
    /// `false` says that more is queued than the channel likes; it will arrive all the same.
    ///
    /// # Errors
    ///
    /// The value comes back, with its handles, when the channel is closed, the message is over a
    /// limit, or it cannot be encoded.
    pub fn send<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.0.child.send(value)
    }

    /// Sends a message with a socket beside it to a Node worker, which gets it as `net.Socket`,
    /// `net.Server` or `dgram.Socket`. To a Rust worker a [`Handle`](ipc::Handle) goes as a part
    /// of the message.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), with the descriptor; `ERR_INVALID_HANDLE_TYPE` for one that would
    /// end a Node process, and for a worker that is no Node.
    pub fn send_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        self.0.child.send_with_handle(value, handle)
    }

    /// Sends a signal.
    ///
    /// An exit caused by it counts as a crash and is followed by a restart; to end a worker for
    /// good use [`disconnect`](Self::disconnect).
    ///
    /// # Errors
    ///
    /// Any that `pidfd_send_signal(2)` gives.
    pub fn kill(&self, signal: Signal) -> Result<(), Error> {
        self.0.child.kill(signal).map(drop).map_err(Error::Fork)
    }

    /// Ends the worker for good: it gets nothing new, finishes what it has, and is not replaced.
    ///
    /// Escalates to `SIGTERM` and `SIGKILL` at the deadlines of the primary. Returns at once.
    pub fn disconnect(&self) {
        self.0.shared.input(Input::Disconnect { worker: self.0.id });
    }

    /// Its number: from 1, never used twice.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Its process id.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.0.child.pid()
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> State {
        STATES[usize::from(self.0.state.load(Ordering::Acquire))]
    }

    /// Whether its channel is open.
    #[must_use]
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.0.child.connected()
    }

    /// Whether its process has ended.
    #[must_use]
    #[doc(alias = "isDead")]
    pub fn is_dead(&self) -> bool {
        self.state() == State::Dead
    }

    /// Whether it ended because it was asked to; `None` while it runs.
    #[must_use]
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        match self.0.wanted.load(Ordering::Acquire) {
            0 => None,
            wanted => Some(wanted == 2),
        }
    }

    /// How many connections were put into its queues, and read back from them. `None` when it,
    /// or its primary, has ended.
    #[must_use]
    pub fn counters(&self) -> Option<WorkerCounters> {
        self.0.shared.ask(|reply| Job::CountWorker(self.0.id, reply))
    }

    pub(crate) fn child(&self) -> &Child {
        &self.0.child
    }

    /// Moves forward only: news may come late.
    pub(crate) fn reach(&self, state: State) {
        self.0.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    pub(crate) fn ended(&self, exited_after_disconnect: bool) {
        self.0.wanted.store(1 + u8::from(exited_after_disconnect), Ordering::Release);
        self.reach(State::Dead);
    }
}
