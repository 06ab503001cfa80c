//! A worker as its primary sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use child_process::{Child, ChildOutput, ChildStdin, ExitStatus, Signal};
use ipc::SendError;
use serde::Serialize;

use crate::contract::{Input, Notice};
use crate::counters::WorkerCounters;
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::settings::Settings;
use crate::primary::shared::{Job, Shared};
use crate::worker_state::WorkerState;

/// Our ends of a worker's pipes, until somebody takes them.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildOutput>,
    stderr: Option<ChildOutput>,
    extra: BTreeMap<i32, UnixStream>,
}

impl Pipes {
    pub(crate) fn of(child: &mut Child, settings: &Settings) -> Self {
        let extra = settings.extra_pipes();
        let extra = extra.filter_map(|number| Some((number, child.take_descriptor(number)?)));
        let extra = extra.collect();
        let (stdin, stdout) = (child.take_stdin(), child.take_stdout());
        Self { stdin, stdout, stderr: child.take_stderr(), extra }
    }
}

/// The life of a worker so far. Its state and all answers about the past are derived from this.
#[derive(Debug, Default)]
struct History {
    notices: Vec<Notice>,
    /// As [`Notice::Disconnect`] or [`Notice::Exit`] reported it, the later of them.
    exited_after_disconnect: Option<bool>,
    /// Known from the exit of the process on, which is before [`Notice::Exit`].
    status: Option<ExitStatus>,
}

impl History {
    fn contains(&self, notice: &Notice) -> bool {
        self.notices.contains(notice)
    }

    /// The furthest that the worker has come; late notices do not lead back.
    fn state(&self) -> WorkerState {
        let reached = |notice: &Notice| match notice {
            Notice::Fork | Notice::Unresponsive => WorkerState::Started,
            Notice::Online => WorkerState::Online,
            Notice::Listening(_) => WorkerState::Listening,
            Notice::Disconnect => WorkerState::Disconnected,
            Notice::Exit => WorkerState::Dead,
        };
        let states = self.notices.iter().map(reached);
        states.max_by_key(|state| *state as u8).unwrap_or(WorkerState::Started)
    }
}

/// A worker process, as its primary sees it. Cheap to clone; every clone is the same worker.
///
/// Dropping it changes nothing: workers belong to their [`Primary`](crate::Primary). Who keeps one that
/// is gone keeps no descriptor of it but the pipes that nobody has taken. Apart from that, one that
/// had said more than its channel takes unread (4 MiB) holds two, its channel and its pidfd, until
/// its messages are read.
///
/// Node: the class `Worker` of a primary. The worker's own side is [`Worker`](crate::Worker).
#[derive(Clone)]
#[doc(alias = "Worker")]
pub struct WorkerProcess(Arc<Inner>);

impl fmt::Debug for WorkerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WorkerProcess");
        debug.field("id", &self.id()).field("pid", &self.pid()).field("state", &self.state());
        debug.finish_non_exhaustive()
    }
}

struct Inner {
    id: u32,
    pid: u32,
    /// `None` once nothing more is heard of it: who keeps a dead worker keeps no descriptor.
    child: Mutex<Option<Arc<Child>>>,
    shared: Arc<Shared>,
    pipes: Mutex<Pipes>,
    history: Mutex<History>,
}

impl WorkerProcess {
    pub(crate) fn new(id: u32, child: Arc<Child>, pipes: Pipes, shared: Arc<Shared>) -> Self {
        let (pipes, history) = (Mutex::new(pipes), Mutex::default());
        let (pid, child) = (child.pid(), Mutex::new(Some(child)));
        Self(Arc::new(Inner { id, pid, child, shared, pipes, history }))
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
        self.forward(value, |child, value| child.send(value))
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
        let value = (value, handle.into());
        self.forward(value, |child, (value, handle)| child.send_with_handle(value, handle))
    }

    fn forward<T>(
        &self,
        value: T,
        send: impl FnOnce(&Child, T) -> Result<bool, SendError<T>>,
    ) -> Result<bool, SendError<T>> {
        match self.child() {
            Some(child) => send(&child, value),
            None => Err(SendError { value, error: ipc::Error::Closed }),
        }
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
        let Some(child) = self.child() else { return Ok(()) };
        child.kill(signal).map(drop).map_err(Error::Fork)
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
        self.0.pid
    }

    /// How far it has come.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.history().state()
    }

    /// Whether its channel is open.
    #[must_use]
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.child().is_some_and(|child| child.connected())
    }

    /// Whether its process has ended.
    #[must_use]
    #[doc(alias = "isDead")]
    pub fn is_dead(&self) -> bool {
        self.state() == WorkerState::Dead
    }

    /// Whether it ends because it was asked to; `None` until it ends or its channel is closed.
    #[must_use]
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.history().exited_after_disconnect
    }

    /// How many connections were put into its queues, and read back from them. `None` when it,
    /// or its primary, has ended.
    #[must_use]
    pub fn counters(&self) -> Option<WorkerCounters> {
        self.0.shared.ask(|reply| Job::CountWorker(self.0.id, reply))
    }

    /// Takes our end of its standard input, where that is a pipe
    /// ([`WorkerOptions::silent`](crate::WorkerOptions::silent), [`WorkerStdio::Pipe`](crate::WorkerStdio)): once.
    #[must_use]
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.pipes().stdin.take()
    }

    /// Takes our end of its standard output, where that is a pipe: once. A worker whose output
    /// nobody reads blocks when the pipe is full.
    #[must_use]
    pub fn take_stdout(&self) -> Option<ChildOutput> {
        self.pipes().stdout.take()
    }

    /// Takes our end of its standard error, where that is a pipe: once.
    #[must_use]
    pub fn take_stderr(&self) -> Option<ChildOutput> {
        self.pipes().stderr.take()
    }

    /// Takes our end of its descriptor `number`, 3 or higher, where that is a pipe: once.
    #[must_use]
    pub fn take_descriptor(&self, number: i32) -> Option<UnixStream> {
        self.pipes().extra.remove(&number)
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.0.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.0.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notice to the history.
    pub(crate) fn record(&self, notice: Notice, exit_requested: bool) {
        let mut history = self.history();
        if matches!(notice, Notice::Disconnect | Notice::Exit) {
            history.exited_after_disconnect = Some(exit_requested);
        }
        // A worker may listen on one address again and again.
        if !history.contains(&notice) {
            history.notices.push(notice);
        }
    }

    /// Keeps the status of the process that has ended for [`Notice::Exit`].
    pub(crate) fn set_status(&self, status: ExitStatus) {
        self.history().status = Some(status);
    }

    pub(crate) fn status(&self) -> Option<ExitStatus> {
        self.history().status
    }

    /// Whether the user has been notified that the runtime is up.
    pub(crate) fn was_online(&self) -> bool {
        self.history().contains(&Notice::Online)
    }

    /// Whether no further notice follows.
    pub(crate) fn is_over(&self) -> bool {
        let history = self.history();
        history.contains(&Notice::Exit) && history.contains(&Notice::Disconnect)
    }

    /// The event that stands for a notice.
    pub(crate) fn event(&self, notice: &Notice) -> Event {
        let worker = self.clone();
        match notice {
            Notice::Fork => Event::Fork(worker),
            Notice::Online => Event::Online(worker),
            Notice::Listening(address) => Event::Listening(worker, address.clone()),
            Notice::Disconnect => Event::Disconnect(worker),
            Notice::Exit => Event::Exit(worker, self.status().unwrap_or(ExitStatus::Unknown)),
            Notice::Unresponsive => Event::Unresponsive(worker),
        }
    }

    /// The events of the history, for a callback that is added late.
    pub(crate) fn past(&self) -> Vec<Event> {
        let notices = self.history().notices.clone();
        notices.iter().map(|notice| self.event(notice)).collect()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.0.shared
    }

    fn child(&self) -> Option<Arc<Child>> {
        self.0.child.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Nothing more is heard of it.
    pub(crate) fn release(&self) {
        let child = self.0.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Not under the lock.
        drop(child);
    }
}
