//! The handle of a worker in its primary.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use child_process::internal;
use child_process::{Child, ChildOutput, ChildStdin, ExitStatus, Signal, Signalled};
use ipc::{Queued, SendHandleError};
use serde::Serialize;

use crate::contract::{Input, Notice, WorkerId, WorkerKind};
use crate::counters::WorkerCounters;
use crate::error::Error;
use crate::error::not_ready::UnreadyWorker;
use crate::primary::event::Event;
use crate::primary::primary_state::{Job, Shared, Spawned};
use crate::primary::settings::Settings;
use crate::worker_state::WorkerState;

/// The primary's ends of a worker's pipes, until the user takes them.
#[derive(Debug, Default)]
pub(crate) struct Pipes {
    stdin: Option<ChildStdin>,
    stdout: Option<ChildOutput>,
    stderr: Option<ChildOutput>,
    extra: BTreeMap<i32, UnixStream>,
}

impl Pipes {
    pub(crate) fn take_from(child: &mut Child, settings: &Settings) -> Self {
        let extra = settings.extra_pipes();
        let extra = extra.filter_map(|number| Some((number, child.take_descriptor(number)?)));
        let extra = extra.collect();
        let (stdin, stdout) = (child.take_stdin(), child.take_stdout());
        Self { stdin, stdout, stderr: child.take_stderr(), extra }
    }
}

/// The most addresses in the history of a worker: the latest on which it has listened.
const LISTENING_MAX: usize = 64;

/// The life of a worker so far. The state and all answers about the past are derived from here.
#[derive(Debug, Default)]
struct History {
    notices: Vec<Notice>,
    /// The value that [`Notice::Disconnect`] or [`Notice::Exit`] reported, whichever came last.
    exited_after_disconnect: Option<bool>,
    /// The exit status, which is known before [`Notice::Exit`] is recorded.
    status: Option<ExitStatus>,
}

impl History {
    fn contains(&self, notice: &Notice) -> bool {
        self.notices.contains(notice)
    }

    fn add(&mut self, notice: Notice) {
        // A worker may listen on one address again and again, and on ever new ones.
        if self.contains(&notice) {
            return;
        }
        let is_listening = |notice: &Notice| matches!(notice, Notice::Listening(_));
        if is_listening(&notice) {
            let before = || self.notices.iter().filter(|it| is_listening(it));
            let oldest = self.notices.iter().position(is_listening);
            if let Some(oldest) = oldest.filter(|_| before().count() == LISTENING_MAX) {
                self.notices.remove(oldest);
            }
        }
        self.notices.push(notice);
    }

    /// Returns the furthest state: notices may arrive late and never lead back.
    fn state(&self) -> WorkerState {
        let states = self.notices.iter().map(reached);
        states.max_by_key(|state| *state as u8).unwrap_or(WorkerState::Started)
    }
}

/// Returns the state that a notice reports.
fn reached(notice: &Notice) -> WorkerState {
    match notice {
        Notice::Fork | Notice::Unresponsive | Notice::Violation(_) => WorkerState::Started,
        Notice::Online => WorkerState::Online,
        Notice::Listening(_) => WorkerState::Listening,
        Notice::Disconnect => WorkerState::Disconnected,
        Notice::Exit => WorkerState::Dead,
    }
}

/// A handle to a worker process in its primary. Clones are cheap and refer to the same worker.
///
/// `drop` changes nothing: workers belong to their [`Primary`](crate::Primary). A handle to an
/// exited worker keeps only its untaken pipes open, with one exception: a worker that left more
/// than 4 MiB of messages unread keeps two descriptors, its channel and its pidfd, until the
/// messages are read.
///
/// A handle that came with an [`Event`] keeps the state that the event reported, and during a
/// callback for an event of the worker all its handles report that state: see
/// [`state`](Self::state).
///
/// Node: the class `Worker` of a primary. [`Worker`](crate::Worker) is the worker's own side.
#[derive(Clone)]
#[doc(alias = "Worker")]
pub struct WorkerProcess {
    inner: Arc<Inner>,
    /// The state that an event reported; `None` in a handle that came with no such event.
    reported: Option<WorkerState>,
}

thread_local! {
    /// The worker whose event a callback on this thread handles, and the state that it reported.
    static REPORTED: Cell<Option<(usize, WorkerState)>> = const { Cell::new(None) };
}

impl fmt::Debug for WorkerProcess {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut debug = f.debug_struct("WorkerProcess");
        debug.field("id", &self.id()).field("pid", &self.pid()).field("state", &self.state());
        debug.finish_non_exhaustive()
    }
}

struct Inner {
    id: WorkerId,
    pid: u32,
    /// The program or script that the worker runs instead of this program.
    exec: Option<PathBuf>,
    is_node: bool,
    /// `None` once no further event follows, so that a handle to a dead worker keeps no descriptor.
    child: Mutex<Option<Arc<Child>>>,
    shared: Arc<Shared>,
    pipes: Mutex<Pipes>,
    history: Mutex<History>,
}

impl WorkerProcess {
    pub(crate) fn new(id: WorkerId, spawned: Spawned, shared: Arc<Shared>) -> Self {
        let Spawned { child, kind, exec, pipes, .. } = spawned;
        let (pipes, history) = (Mutex::new(pipes), Mutex::default());
        let is_node = kind == WorkerKind::Node;
        let (pid, child) = (child.pid(), Mutex::new(Some(child)));
        let inner = Inner { id, pid, exec, is_node, child, shared, pipes, history };
        Self { inner: Arc::new(inner), reported: None }
    }

    /// Sends a message to the worker, which receives it from
    /// [`Worker::take_messages`](crate::Worker::take_messages).
    ///
    /// Never blocks; [`Queued`] says whether the sender should wait. The value is borrowed; after a
    /// successful send, the message has taken the handles inside of the value.
    ///
    /// # Errors
    ///
    /// The channel is closed, the message is over a limit, or the message cannot be encoded. The
    /// handles of the value stay in it, usable.
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Queued, ipc::Error> {
        self.child().ok_or(ipc::Error::Closed)?.send(value)
    }

    /// Sends a message with a socket to a Node worker, which receives the socket as `net.Socket`,
    /// `net.Server` or `dgram.Socket`.
    ///
    /// A Rust worker receives sockets as a [`Handle`](ipc::Handle) inside a message; see
    /// [`send`](Self::send).
    ///
    /// # Errors
    ///
    /// The errors of [`send`](Self::send), with the descriptor.
    /// `ERR_INVALID_HANDLE_TYPE` for a descriptor that would end a Node process, and for a worker
    /// that is not a Node program.
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: impl Into<OwnedFd>,
    ) -> Result<Queued, SendHandleError> {
        match self.child() {
            Some(child) => child.send_with_handle(value, handle),
            None => Err(ipc::internal::send_handle_error(handle.into(), ipc::Error::Closed)),
        }
    }

    /// Sends a signal to the worker, and returns whether its process still existed.
    ///
    /// An exit by the signal counts as a crash, and the worker is replaced. To end a worker for
    /// good use [`disconnect`](Self::disconnect).
    ///
    /// The signal has its usual effect, unless the worker's program handles it. A `SIGTERM` that
    /// another program sends to a worker begins a drain instead, see
    /// [`WorkerSignals`](crate::WorkerSignals). The worker tells the two apart because this method
    /// sends the signal as `sigqueue(3)` does.
    ///
    /// # Errors
    ///
    /// The errors of `pidfd_send_signal(2)`.
    pub fn kill(&self, signal: Signal) -> Result<Signalled, Error> {
        let Some(child) = self.child() else { return Ok(Signalled::AlreadyExited) };
        internal::queue_signal(&child, signal).map_err(Error::Worker)
    }

    /// Ends the worker for good: it gets no new connections, finishes those it has, and is not
    /// replaced. Returns at once.
    ///
    /// At the limits of the primary's [`Builder`](crate::Builder) the worker gets `SIGTERM`, then
    /// `SIGKILL`.
    pub fn disconnect(&self) {
        self.inner.shared.input(Input::Disconnect { worker: self.inner.id });
    }

    /// Returns the number of the worker.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.inner.id
    }

    /// Returns the process id of the worker.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.inner.pid
    }

    /// Returns the state of the worker.
    ///
    /// In a handle that came with an event, and in a callback for an event of the worker, this is the
    /// state that the event reported, however late the event is handled: `Disconnected` with
    /// [`Event::Disconnect`], as in Node, although the worker may be dead by then. [`is_dead`](Self::is_dead) and
    /// [`is_connected`](Self::is_connected) always report the present, and so does the state in a
    /// handle of [`Primary::workers`](crate::Primary::workers) or
    /// [`Primary::fork`](crate::Primary::fork).
    #[must_use]
    pub fn state(&self) -> WorkerState {
        let reported = self.reported.or_else(|| {
            let (worker, state) = REPORTED.get()?;
            (worker == self.address()).then_some(state)
        });
        reported.unwrap_or_else(|| self.history().state())
    }

    /// Calls `call`, in which all handles of the worker report the state of the event that this
    /// handle came with.
    pub(crate) fn with_reported_state<T>(&self, call: impl FnOnce() -> T) -> T {
        /// Restores the former value also when the callback panics.
        struct Restore(Option<(usize, WorkerState)>);
        impl Drop for Restore {
            fn drop(&mut self) {
                REPORTED.set(self.0);
            }
        }
        let state = self.reported.map(|state| (self.address(), state));
        let _restore = Restore(REPORTED.replace(state));
        call()
    }

    /// Identifies the worker among those of all primaries of this process.
    fn address(&self) -> usize {
        Arc::as_ptr(&self.inner) as usize
    }

    /// Returns whether the channel to the worker is open.
    #[must_use]
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.child().is_some_and(|child| child.is_connected())
    }

    /// Returns whether the process of the worker has ended.
    #[must_use]
    #[doc(alias = "isDead")]
    pub fn is_dead(&self) -> bool {
        self.history().state() == WorkerState::Dead
    }

    /// Returns whether the exit of the worker was requested; `None` until the worker ends or its
    /// channel is closed.
    #[must_use]
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.history().exited_after_disconnect
    }

    /// Returns how many connections were put into the worker's queues and read back from them;
    /// `None` when the worker or its primary has ended.
    #[must_use]
    pub fn counters(&self) -> Option<WorkerCounters> {
        self.inner.shared.query(|reply| Job::CountWorker(self.inner.id, reply))
    }

    /// Takes the pipe to the worker's standard input; `None` after the first call, and where it is
    /// no pipe.
    ///
    /// [`WorkerOptions::silent`](crate::WorkerOptions::silent) and
    /// [`WorkerStdio::Pipe`](crate::WorkerStdio) make it a pipe.
    #[must_use]
    pub fn take_stdin(&self) -> Option<ChildStdin> {
        self.pipes().stdin.take()
    }

    /// Takes the pipe from the worker's standard output; `None` after the first call, and where it
    /// is no pipe.
    ///
    /// Read it: a worker blocks when it writes to a full pipe.
    #[must_use]
    pub fn take_stdout(&self) -> Option<ChildOutput> {
        self.pipes().stdout.take()
    }

    /// Takes the pipe from the worker's standard error; `None` after the first call, and where it
    /// is no pipe.
    #[must_use]
    pub fn take_stderr(&self) -> Option<ChildOutput> {
        self.pipes().stderr.take()
    }

    /// Takes the socket to the worker's descriptor `number`, 3 or higher; `None` after the first
    /// call, and where it is no pipe.
    #[must_use]
    pub fn take_descriptor(&self, number: i32) -> Option<UnixStream> {
        self.pipes().extra.remove(&number)
    }

    fn pipes(&self) -> MutexGuard<'_, Pipes> {
        self.inner.pipes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn history(&self) -> MutexGuard<'_, History> {
        self.inner.history.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a notice to the history.
    pub(crate) fn record(&self, notice: Notice, exit_requested: bool) {
        let mut history = self.history();
        if matches!(notice, Notice::Disconnect | Notice::Exit) {
            history.exited_after_disconnect = Some(exit_requested);
        }
        history.add(notice);
    }

    /// Keeps the status of the process that has ended for [`Notice::Exit`].
    pub(crate) fn set_status(&self, status: ExitStatus) {
        self.history().status = Some(status);
    }

    /// Returns the exit status, once it is known.
    pub(crate) fn status(&self) -> ExitStatus {
        self.history().status.unwrap_or(ExitStatus::Unknown)
    }

    /// Describes the worker for an error that says that it is not ready.
    pub(crate) fn unready(&self) -> UnreadyWorker {
        let (exec, is_node) = (self.inner.exec.clone(), self.inner.is_node);
        let (state, missing) = (self.history().state(), Vec::new());
        UnreadyWorker { worker: self.id(), state, exec, missing, is_node }
    }

    /// Whether the user has been notified that the runtime is up.
    pub(crate) fn was_online(&self) -> bool {
        self.history().contains(&Notice::Online)
    }

    /// Whether the process has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.history().contains(&Notice::Exit)
    }

    /// Whether the user has been notified of a listener.
    pub(crate) fn has_listened(&self) -> bool {
        self.history().notices.iter().any(|notice| matches!(notice, Notice::Listening(_)))
    }

    /// Whether no further notice follows.
    pub(crate) fn is_over(&self) -> bool {
        let history = self.history();
        history.contains(&Notice::Exit) && history.contains(&Notice::Disconnect)
    }

    /// Returns the event that reports a notice.
    pub(crate) fn event(&self, notice: &Notice) -> Event {
        let reported = match notice {
            Notice::Unresponsive | Notice::Violation(_) => self.history().state(),
            Notice::Fork
            | Notice::Online
            | Notice::Listening(_)
            | Notice::Disconnect
            | Notice::Exit => reached(notice),
        };
        let worker = Self { inner: self.inner.clone(), reported: Some(reported) };
        match notice {
            Notice::Fork => Event::Fork { worker },
            Notice::Online => Event::Online { worker },
            Notice::Listening(address) => Event::Listening { worker, address: address.clone() },
            Notice::Disconnect => Event::Disconnect { worker },
            Notice::Exit => Event::Exit { worker, status: self.status() },
            Notice::Unresponsive => Event::Unresponsive { worker },
            Notice::Violation(violation) => {
                Event::Violation { worker, violation: violation.clone() }
            }
        }
    }

    /// Returns the events of the history, for a callback that is added late.
    pub(crate) fn past(&self) -> Vec<Event> {
        let notices = self.history().notices.clone();
        notices.iter().map(|notice| self.event(notice)).collect()
    }

    pub(crate) fn shared(&self) -> &Shared {
        &self.inner.shared
    }

    fn child(&self) -> Option<Arc<Child>> {
        self.inner.child.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Releases the child: no further event follows.
    pub(crate) fn release(&self) {
        let child = self.inner.child.lock().unwrap_or_else(PoisonError::into_inner).take();
        // Dropped after the lock is free: `drop` of the child closes its descriptors.
        drop(child);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    #[test]
    fn the_history_of_a_worker_that_listens_on_ever_new_ports_has_an_end() {
        let mut history = History::default();
        let listening = |port| Notice::Listening(SocketAddr::from(([127, 0, 0, 1], port)).into());
        history.add(Notice::Online);
        for port in 1..=2000 {
            history.add(listening(port));
            history.add(listening(port));
        }
        assert_eq!(history.notices.len(), 1 + LISTENING_MAX);
        assert!(history.contains(&Notice::Online) && history.contains(&listening(2000)));
        assert!(!history.contains(&listening(1)));
        assert_eq!(history.state(), WorkerState::Listening);
    }
}
