//! A child process, as its parent holds it.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ipc::{Message, SendError};
use serde::Serialize;
use sys::pidfd::ExitStatus;
use sys::signal::Signal;

use crate::command::Command;
use crate::error::Error;
use crate::event::{Event, Kind};
use crate::hub::Listener;
use crate::shared::Shared;
use crate::stdio::{ChildOutput, ChildStdin};

/// A process we started.
///
/// Its end is seen through a pidfd, by whoever asks first: waiting here, events and callbacks
/// never take it from each other. As a descriptor ([`AsFd`]) it is that pidfd, readable when the
/// process has ended.
///
/// Dropping it does not end the process (unless [`Command::kill_on_drop`]) and never waits: the
/// process is reaped when it ends. The channel is closed then, unless somebody listens.
///
/// ```
/// use child_process::{Command, Event, ExitStatus};
///
/// let child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
/// let events: Vec<Event> = child.events().into_iter().collect();
/// assert!(matches!(
///     events[..],
///     [Event::Spawn, Event::Exit(ExitStatus::Code(3)), Event::Close(ExitStatus::Code(3))]
/// ));
/// # Ok::<(), child_process::Error>(())
/// ```
#[doc(alias = "ChildProcess")]
pub struct Child {
    shared: Arc<Shared>,
    streams: Mutex<Streams>,
    kill_on_drop: bool,
    killed: AtomicBool,
    events_taken: AtomicBool,
    /// The control group that only it and its descendants are in.
    own_cgroup: Option<PathBuf>,
}

/// Our ends of the child's pipes that nobody has taken yet.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildOutput>,
    pub(crate) stderr: Option<ChildOutput>,
    pub(crate) extra: BTreeMap<i32, UnixStream>,
}

impl Child {
    pub(crate) fn new(shared: Arc<Shared>, streams: Streams, command: &Command) -> Self {
        Self {
            shared,
            streams: Mutex::new(streams),
            kill_on_drop: command.kill_on_drop,
            killed: AtomicBool::new(false),
            events_taken: AtomicBool::new(false),
            own_cgroup: command.rights.cgroup.clone().filter(|_| command.rights.cgroup_is_own),
        }
    }

    /// Starts what runs beside the child: its timeout, its cancellation.
    pub(crate) fn arm(&self, command: &Command) -> Result<(), Error> {
        if self.shared.timeout_at.is_some() {
            self.shared.kick().map_err(|error| Error::Os("starting the loop", error))?;
        }
        if let Some(token) = &command.cancel {
            token.watch(&self.shared);
        }
        Ok(())
    }

    pub(crate) fn own_cgroup(&self) -> Option<&Path> {
        self.own_cgroup.as_deref()
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends a signal; `false` when the process has ended before.
    ///
    /// A signal that was sent says nothing about the end: wait for that.
    ///
    /// # Errors
    ///
    /// `EPERM` when the process runs as somebody else.
    pub fn kill(&self, signal: Signal) -> Result<bool, Error> {
        let sent = self.shared.process.signal(signal).map_err(|error| Error::Os("kill", error))?;
        self.killed.fetch_or(sent, Ordering::AcqRel);
        Ok(sent)
    }

    /// Waits until the process has ended. Closes our end of its standard input first, unless that
    /// was taken, so that both do not wait for each other.
    ///
    /// Outputs that nobody reads fill up and make the process wait: read them, inherit them, or
    /// collect them with [`Command::output`].
    ///
    /// # Errors
    ///
    /// What `waitid(2)` answers.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        drop(self.streams().stdin.take());
        match self.shared.process.wait_until(None) {
            Ok(status) => Ok(status.expect("without a deadline the wait ends with the process")),
            Err(error) => Err(Error::Os("waitid", error)),
        }
    }

    /// As [`wait`](Self::wait), at most this long; `None` when the process runs still.
    ///
    /// # Errors
    ///
    /// What `waitid(2)` answers.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        drop(self.streams().stdin.take());
        let deadline = Instant::now().checked_add(timeout);
        self.shared.process.wait_until(deadline).map_err(|error| Error::Os("waitid", error))
    }

    /// How the process ended; `None` while it runs. Never waits.
    ///
    /// # Errors
    ///
    /// What `waitid(2)` answers.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.shared.process.check().map_err(|error| Error::Os("waitid", error))
    }

    /// Sends a message; `false` says that more waits to be written than the channel likes, and
    /// that it will arrive all the same.
    ///
    /// # Errors
    ///
    /// The value comes back, with its handles, when there is no open channel, the message is over
    /// a limit, or it cannot be encoded.
    pub fn send<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        match self.shared.link() {
            Some(link) => link.send(value),
            None => Err(SendError { value, error: ipc::Error::Closed }),
        }
    }

    /// Sends a message with a socket beside it to a Node child, which gets it as a `net.Socket`, a
    /// `net.Server` or a `dgram.Socket`. Between Rust programs, a [`Handle`](ipc::Handle) is a part
    /// of the message instead.
    ///
    /// The socket moves, and is made non-blocking, which also concerns clones that are kept here.
    /// What is sent after it waits until the child has acknowledged it.
    ///
    /// ```no_run
    /// use child_process::Fork;
    /// use std::net::TcpListener;
    ///
    /// // process.on('message', (message, server) => server.on('connection', …))
    /// let child = Fork::new("serve.js").spawn()?;
    /// child.send_with_handle("a server for you", TcpListener::bind("127.0.0.1:0")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), with the descriptor; `ERR_INVALID_HANDLE_TYPE` for one that would
    /// end a Node process (a file, a pipe, a terminal, …), and for a child that is no Node.
    pub fn send_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        match self.shared.link() {
            Some(link) => link.send_with_handle(value, handle),
            None => Err(SendError { value: (value, handle.into()), error: ipc::Error::Closed }),
        }
    }

    /// For the crates above: an internal message with a raw handle to a Node child, whose answer
    /// comes as [`Event::Acknowledged`].
    ///
    /// # Errors
    ///
    /// As [`send_with_handle`](Self::send_with_handle).
    #[doc(hidden)]
    pub fn send_internal_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
        ticket: u64,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        match self.shared.link() {
            Some(link) => link.send_internal_with_handle(value, handle, ticket),
            None => Err(SendError { value: (value, handle.into()), error: ipc::Error::Closed }),
        }
    }

    /// For the crates above: the child is not heard because too much of what it said lies unread.
    #[doc(hidden)]
    #[must_use]
    pub fn is_held_back(&self) -> bool {
        self.shared.link().is_some_and(|link| link.is_backpressured())
    }

    /// For the crates above: a message that users never see.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[doc(hidden)]
    pub fn send_internal<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        match self.shared.link() {
            Some(link) => link.send_internal(value),
            None => Err(SendError { value, error: ipc::Error::Closed }),
        }
    }

    /// Closes the channel, after what was sent has been written. Nothing can be sent any more;
    /// [`Event::Disconnect`] follows.
    ///
    /// # Errors
    ///
    /// [`Error::NoChannel`] when there is none, or it is closed already.
    pub fn disconnect(&self) -> Result<(), Error> {
        match self.shared.link() {
            Some(link) if link.is_connected() => {
                link.disconnect();
                Ok(())
            }
            _ => Err(Error::NoChannel),
        }
    }

    /// Everything that happens, from the start, as values. Once per child.
    ///
    /// # Panics
    ///
    /// When it was called before: a second receiver would miss messages.
    pub fn events(&self) -> Receiver<Event> {
        let first = !self.events_taken.swap(true, Ordering::AcqRel);
        assert!(first, "the events of a child are taken once");
        let (events, receiver) = crossbeam_channel::unbounded();
        self.shared.listen(Listener::queue(events));
        receiver
    }

    /// For the crates above: `sink` is told everything on the loop, where it must not block.
    pub fn subscribe(&self, sink: impl FnMut(Event) + Send + 'static) {
        self.shared.listen(Listener::sink(sink));
    }

    /// Calls on the callback thread, once, when the program runs.
    pub fn on_spawn(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Spawn, move |_| call())
    }

    /// Calls on the callback thread for every message. A message has one owner: while there is
    /// such a callback, [`events`](Self::events) gets none.
    pub fn on_message(&self, mut call: impl FnMut(Message) + Send + 'static) -> &Self {
        self.on(Kind::Message, move |event| {
            if let Event::Message(message) = event {
                call(message);
            }
        })
    }

    /// Calls on the callback thread when the channel has ended.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Disconnect, move |_| call())
    }

    /// Calls on the callback thread when the process has ended.
    pub fn on_exit(&self, mut call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(Kind::Exit, move |event| {
            if let Event::Exit(status) = event {
                call(status);
            }
        })
    }

    /// Calls on the callback thread when the process, its outputs and its channel have ended.
    pub fn on_close(&self, mut call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(Kind::Close, move |event| {
            if let Event::Close(status) = event {
                call(status);
            }
        })
    }

    /// Calls on the callback thread for every [`Event::Error`].
    pub fn on_error(&self, mut call: impl FnMut(Error) + Send + 'static) -> &Self {
        self.on(Kind::Error, move |event| {
            if let Event::Error(error) = event {
                call(error);
            }
        })
    }

    fn on(&self, kind: Kind, call: impl FnMut(Event) + Send + 'static) -> &Self {
        self.shared.listen(Listener::callback(kind, call));
        self
    }

    /// Takes our end of the standard input, where that is a pipe: once.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.streams().stdin.take()
    }

    /// Takes our end of the standard output, where that is a pipe: once.
    pub fn take_stdout(&mut self) -> Option<ChildOutput> {
        self.streams().stdout.take()
    }

    /// Takes our end of the standard error, where that is a pipe: once.
    pub fn take_stderr(&mut self) -> Option<ChildOutput> {
        self.streams().stderr.take()
    }

    /// Takes our end of descriptor `number`, 3 or higher, where that is a pipe: once.
    pub fn take_descriptor(&mut self, number: i32) -> Option<UnixStream> {
        self.streams().extra.remove(&number)
    }

    /// The process id. It means this process until it is reaped: to signal, use
    /// [`kill`](Self::kill).
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.process.pid()
    }

    /// The exit code, once the process has exited by itself.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.try_wait().ok().flatten().and_then(ExitStatus::code)
    }

    /// The signal that ended the process, once one has.
    #[must_use]
    pub fn signal_code(&self) -> Option<Signal> {
        self.try_wait().ok().flatten().and_then(ExitStatus::signal)
    }

    /// Whether [`kill`](Self::kill) has sent a signal. Says nothing about the end.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// How many bytes of what was sent wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.link().map_or(0, ipc::Link::queued_bytes)
    }

    /// Whether there is a channel, and it is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.shared.link().is_some_and(ipc::Link::is_connected)
    }

    pub(crate) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for Child {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.shared.process.pidfd().as_fd()
    }
}

impl fmt::Debug for Child {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Child")
            .field("pid", &self.pid())
            .field("status", &self.shared.process.known())
            .finish_non_exhaustive()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if self.kill_on_drop {
            // Fails only when it has ended, or runs as somebody else.
            let _: io::Result<bool> = self.shared.process.signal(Signal::KILL);
        }
        self.shared.leave();
    }
}
