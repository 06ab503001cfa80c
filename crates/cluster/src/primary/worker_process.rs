//! A worker as its primary sees it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use child_process::{Child, ChildOutput, ChildStdin, ExitStatus, Signal};
use ipc::SendError;
use serde::Serialize;

use crate::contract::Input;
use crate::counters::WorkerCounters;
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::settings::Settings;
use crate::primary::shared::{Job, Shared};
use crate::protocol::address::Address;
use crate::worker_state::{STATES, WorkerState};

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

/// What a worker has been through, for those who ask later.
#[derive(Debug, PartialEq)]
enum Past {
    Fork,
    Online,
    Listening(Address),
    Disconnect,
    Exit(ExitStatus),
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
    state: AtomicU8,
    /// 0 until it ends or hangs up, then 1 for a crash and 2 for a wanted exit.
    wanted: AtomicU8,
    pipes: Mutex<Pipes>,
    past: Mutex<Vec<Past>>,
}

impl WorkerProcess {
    pub(crate) fn new(id: u32, child: Arc<Child>, pipes: Pipes, shared: Arc<Shared>) -> Self {
        let (state, wanted) = (AtomicU8::new(WorkerState::Started as u8), AtomicU8::new(0));
        let (pipes, past) = (Mutex::new(pipes), Mutex::default());
        let (pid, child) = (child.pid(), Mutex::new(Some(child)));
        Self(Arc::new(Inner { id, pid, child, shared, state, wanted, pipes, past }))
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
        match self.child() {
            Some(child) => child.send(value),
            None => Err(SendError { value, error: ipc::Error::Closed }),
        }
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
        match self.child() {
            Some(child) => child.send_with_handle(value, handle),
            None => Err(SendError { value: (value, handle.into()), error: ipc::Error::Closed }),
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
        STATES[usize::from(self.0.state.load(Ordering::Acquire))]
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

    /// Keeps what happened, for callbacks that come later.
    pub(crate) fn remember(&self, event: &Event) {
        let past = match event {
            Event::Fork(_) => Past::Fork,
            Event::Online(_) => Past::Online,
            Event::Listening(_, address) => Past::Listening(address.clone()),
            Event::Disconnect(_) => Past::Disconnect,
            Event::Exit(_, status) => Past::Exit(*status),
            Event::Setup(_)
            | Event::Message(..)
            | Event::Unresponsive(_)
            | Event::Reloaded
            | Event::Error(..) => return,
        };
        let mut all = self.0.past.lock().unwrap_or_else(PoisonError::into_inner);
        // A worker may listen there again and again.
        if !all.contains(&past) {
            all.push(past);
        }
    }

    pub(crate) fn past(&self) -> Vec<Event> {
        let past = self.0.past.lock().unwrap_or_else(PoisonError::into_inner);
        let event = |past: &Past| match past {
            Past::Fork => Event::Fork(self.clone()),
            Past::Online => Event::Online(self.clone()),
            Past::Listening(address) => Event::Listening(self.clone(), address.clone()),
            Past::Disconnect => Event::Disconnect(self.clone()),
            Past::Exit(status) => Event::Exit(self.clone(), *status),
        };
        past.iter().map(event).collect()
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

    /// Moves forward only: news may come late.
    pub(crate) fn reach(&self, state: WorkerState) {
        self.0.state.fetch_max(state as u8, Ordering::AcqRel);
    }

    pub(crate) fn closed_counter(&self, exited_after_disconnect: bool) {
        self.0.wanted.store(1 + u8::from(exited_after_disconnect), Ordering::Release);
    }
}
