//! The handle of a child process.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use ipc::{Link, Message, Queued, SendHandleError, internal};
use serde::Serialize;
use sys::pidfd::ExitStatus;
use sys::signal::Signal;

use crate::child_state::Shared;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::signalled::Signalled;
use crate::stdio::{ChildOutput, ChildStdin};
use crate::subscribers::Subscriber;
use crate::terminal::Terminal;
use crate::tree;

/// A process that this process has started.
///
/// The exit is observed through a pidfd, and the status is stored once: waiting, events and
/// callbacks do not take it from each other. [`AsFd`] gives the pidfd, which is readable when the
/// process has ended.
///
/// Dropping the handle neither waits nor ends the process (unless
/// [`Command::kill_on_drop`](crate::Command::kill_on_drop) is set); the process is reaped when it
/// ends. The channel is closed on drop, unless events were subscribed to.
///
/// ```
/// use brood_child_process::{Command, Event, ExitStatus};
///
/// let child = Command::new("sh").args(["-c", "exit 3"]).spawn()?;
/// let events: Vec<Event> = child.take_events().expect("taken once").iter().collect();
/// assert!(matches!(
///     events[..],
///     [Event::Spawn, Event::Exit(ExitStatus::Code(3)), Event::Close(ExitStatus::Code(3))]
/// ));
/// # Ok::<(), brood_child_process::Error>(())
/// ```
#[doc(alias = "ChildProcess")]
pub struct Child {
    shared: Arc<Shared>,
    streams: Mutex<Streams>,
    kill_on_drop: bool,
    killed: AtomicBool,
    events_taken: AtomicBool,
}

/// This process's ends of the child's pipes, until they are taken.
#[derive(Debug, Default)]
pub(crate) struct Streams {
    pub(crate) stdin: Option<ChildStdin>,
    pub(crate) stdout: Option<ChildOutput>,
    pub(crate) stderr: Option<ChildOutput>,
    pub(crate) extra: BTreeMap<i32, UnixStream>,
    pub(crate) terminal: Option<Terminal>,
}

impl Child {
    pub(crate) fn new(shared: Arc<Shared>, streams: Streams, kill_on_drop: bool) -> Self {
        Self {
            shared,
            streams: Mutex::new(streams),
            kill_on_drop,
            killed: AtomicBool::new(false),
            events_taken: AtomicBool::new(false),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    /// Sends a signal.
    ///
    /// Sending a signal does not mean that the process ends: wait for the exit.
    ///
    /// ```
    /// use brood_child_process::{Command, Signal, Signalled};
    ///
    /// let sleep = Command::new("sleep").arg("60").spawn()?;
    /// assert_eq!(sleep.kill(Signal::TERM)?, Signalled::Delivered);
    /// sleep.wait()?;
    /// assert_eq!(sleep.kill(Signal::TERM)?, Signalled::AlreadyExited);
    /// # Ok::<(), brood_child_process::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `EPERM` when the process belongs to another user.
    pub fn kill(&self, signal: Signal) -> Result<Signalled, Error> {
        let sent = self.shared.process.signal(signal)?;
        self.killed.fetch_or(sent == Signalled::Delivered, Ordering::AcqRel);
        Ok(sent)
    }

    pub(crate) fn queue_signal(&self, signal: Signal) -> Result<Signalled, Error> {
        let sent = self.shared.process.queue_signal(signal)?;
        self.killed.fetch_or(sent == Signalled::Delivered, Ordering::AcqRel);
        Ok(sent)
    }

    /// Sends a signal to the child, to its descendants, and to its process group if it leads one.
    /// The result tells whether the child itself had ended before any of these signals was sent.
    ///
    /// Orphaned descendants are reached only through the group. Give a child whose whole tree must
    /// end a [`process_group`](crate::Command::process_group), or make it
    /// [`detached`](crate::Command::detached). A process can leave both by starting a session, but
    /// it cannot leave an [`own_cgroup`](crate::Command::own_cgroup). The processes of that control
    /// group get the signal even when the child has ended before; for `SIGKILL` the kernel's
    /// `cgroup.kill` is used if it exists (control groups version 2, Linux 5.14).
    ///
    /// ```
    /// use brood_child_process::{Command, ExitStatus, Signal, Signalled};
    ///
    /// let shell = Command::new("sh").args(["-c", "sleep 60 | sleep 60"]).process_group(0).spawn()?;
    /// assert_eq!(shell.kill_tree(Signal::KILL)?, Signalled::Delivered);
    /// assert_eq!(shell.wait()?, ExitStatus::Signal(Signal::KILL));
    /// # Ok::<(), brood_child_process::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// [`Error::Tree`] when the signal may not have reached every descendant: one of them belongs to
    /// another user, or `/proc` cannot be read. The error says whether the child has the signal.
    /// [`Error::Os`] when the child itself cannot be signalled, as for [`kill`](Self::kill).
    pub fn kill_tree(&self, signal: Signal) -> Result<Signalled, Error> {
        let sent = tree::signal(&self.shared.process, self.shared.kill.cgroup.as_ref(), signal)?;
        self.killed.fetch_or(sent == Signalled::Delivered, Ordering::AcqRel);
        Ok(sent)
    }

    /// Sends a signal because of a timeout, a cancellation, or too much output.
    pub(crate) fn end(&self, signal: Signal) -> Result<Signalled, Error> {
        let sent = self.shared.end(signal)?;
        self.killed.fetch_or(sent == Signalled::Delivered, Ordering::AcqRel);
        Ok(sent)
    }

    /// Waits until the process has ended.
    ///
    /// Closes this process's end of the standard input first, unless it was taken: otherwise a
    /// child that reads to the end of its input and this call would wait for each other.
    ///
    /// A child blocks when its piped outputs are full. Read them, inherit them, or collect them
    /// with [`Command::output`](crate::Command::output).
    ///
    /// # Errors
    ///
    /// As `waitid(2)`.
    pub fn wait(&self) -> Result<ExitStatus, Error> {
        drop(self.streams().stdin.take());
        let status = self.shared.process.wait_until(None)?;
        Ok(status.expect("without a deadline the wait ends with the process"))
    }

    /// Waits as [`wait`](Self::wait) does, but at most for `timeout`. Returns `None` if the process
    /// is still running then.
    ///
    /// # Errors
    ///
    /// As `waitid(2)`.
    pub fn wait_timeout(&self, timeout: Duration) -> Result<Option<ExitStatus>, Error> {
        drop(self.streams().stdin.take());
        let deadline = Instant::now().checked_add(timeout);
        self.shared.process.wait_until(deadline)
    }

    /// Returns the exit status, or `None` while the process is running. Never waits.
    ///
    /// # Errors
    ///
    /// As `waitid(2)`.
    pub fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.shared.process.try_wait()
    }

    /// Sends a message. Never blocks; [`Queued`] says whether the sender should wait.
    ///
    /// The value is borrowed. After a successful send, the message has taken the handles inside of
    /// the value.
    ///
    /// ```no_run
    /// use brood_child_process::Fork;
    ///
    /// fn main() -> Result<(), Box<dyn std::error::Error>> {
    ///     let child = Fork::new("./worker").spawn()?;
    ///     let value = (7, "seven".to_owned());
    ///     child.send(&value)?;
    ///     Ok(())
    /// }
    /// ```
    ///
    /// # Errors
    ///
    /// There is no open channel, the message exceeds a limit, or it cannot be encoded. The handles
    /// of the value stay in it, usable.
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Queued, ipc::Error> {
        channel(self.shared.current_link())?.send(value)
    }

    /// Sends a message with a socket to a Node child, which receives a `net.Socket`, a `net.Server`
    /// or a `dgram.Socket`. Between Rust programs a [`Handle`](ipc::Handle) is a part of the
    /// message instead.
    ///
    /// The socket moves to the child and becomes non-blocking. That affects clones of the socket in
    /// this process as well. Later messages wait until the child has acknowledged the socket.
    ///
    /// ```no_run
    /// use brood_child_process::Fork;
    /// use std::net::TcpListener;
    ///
    /// // process.on('message', (message, server) => server.on('connection', …))
    /// let child = Fork::new("serve.js").spawn()?;
    /// child.send_with_handle("here is a server", TcpListener::bind("127.0.0.1:0")?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send), with the descriptor. `ERR_INVALID_HANDLE_TYPE` for a descriptor
    /// that would crash a Node process (a file, a pipe, a terminal, …), and for a child without
    /// Node's channel.
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: impl Into<OwnedFd>,
    ) -> Result<Queued, SendHandleError> {
        match channel(self.shared.current_link()) {
            Ok(link) => link.send_with_handle(value, handle),
            Err(error) => Err(internal::send_handle_error(handle.into(), error)),
        }
    }

    /// Closes the channel when everything that was sent is written. Nothing can be sent any more,
    /// and [`Event::Disconnect`] follows.
    ///
    /// # Errors
    ///
    /// [`Error::NoChannel`] when there is no channel, or it is already closed.
    pub fn disconnect(&self) -> Result<(), Error> {
        match self.shared.current_link() {
            Some(link) if link.is_connected() => {
                link.disconnect();
                Ok(())
            }
            _ => Err(Error::NoChannel),
        }
    }

    /// Takes the receiver of all events of the child, those of the past included. Returns `None` if
    /// it was taken before, because a second receiver would miss messages.
    ///
    /// The receiver is one of `crossbeam_channel`, see [`Receiver`].
    #[doc(alias = "on")]
    pub fn take_events(&self) -> Option<Receiver<Event>> {
        if self.events_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (subscriber, events) = Subscriber::queue();
        self.shared.subscribe(subscriber);
        Some(events)
    }

    /// Calls on the callback thread, once, when the child has executed its program.
    pub fn on_spawn(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(EventKind::Spawn, |_| Some(()), move |()| call())
    }

    /// Calls on the callback thread for every message.
    ///
    /// A message has one owner: while there is such a callback, [`take_events`](Self::take_events) receives
    /// no messages.
    pub fn on_message(&self, call: impl FnMut(Message) + Send + 'static) -> &Self {
        self.on(EventKind::Message, Event::into_message, call)
    }

    /// Calls on the callback thread when the channel has ended.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(EventKind::Disconnect, |_| Some(()), move |()| call())
    }

    /// Calls on the callback thread when the process has ended.
    pub fn on_exit(&self, call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(EventKind::Exit, Event::into_status, call)
    }

    /// Calls on the callback thread when the process, its piped outputs and its channel have ended.
    pub fn on_close(&self, call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(EventKind::Close, Event::into_status, call)
    }

    /// Calls on the callback thread for every [`Event::Error`].
    pub fn on_error(&self, call: impl FnMut(Error) + Send + 'static) -> &Self {
        self.on(EventKind::Error, Event::into_error, call)
    }

    fn on<T: 'static>(
        &self,
        kind: EventKind,
        part: fn(Event) -> Option<T>,
        call: impl FnMut(T) + Send + 'static,
    ) -> &Self {
        self.shared.subscribe(Subscriber::callback(kind, part, call));
        self
    }

    /// Takes this process's end of the standard input. `None` if it is no pipe or was taken.
    pub fn take_stdin(&mut self) -> Option<ChildStdin> {
        self.streams().stdin.take()
    }

    /// Takes this process's end of the standard output. `None` if it is no pipe or was taken.
    pub fn take_stdout(&mut self) -> Option<ChildOutput> {
        self.streams().stdout.take()
    }

    /// Takes this process's end of the standard error. `None` if it is no pipe or was taken.
    pub fn take_stderr(&mut self) -> Option<ChildOutput> {
        self.streams().stderr.take()
    }

    /// Takes this process's end of descriptor `number`, 3 or higher. `None` if it is no pipe or was
    /// taken.
    ///
    /// Current standard libraries write to it without `SIGPIPE`. With an old one, in a process in
    /// which that signal has its default disposition, a write to a child that has closed its end
    /// ends this process.
    pub fn take_descriptor(&mut self, number: i32) -> Option<UnixStream> {
        self.streams().extra.remove(&number)
    }

    /// Takes this process's end of the child's terminal, see [`Stdio::pty`](crate::Stdio::pty).
    /// `None` if the child has none, or if it was taken. The drop of a `Child` that still has it
    /// hangs the terminal up.
    pub fn take_terminal(&mut self) -> Option<Terminal> {
        self.streams().terminal.take()
    }

    /// Returns the process id. It means this process until the process is reaped: use
    /// [`kill`](Self::kill) to send signals.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.shared.process.pid()
    }

    /// Returns the exit code, once the process has exited by itself.
    #[must_use]
    pub fn exit_code(&self) -> Option<i32> {
        self.try_wait().ok().flatten().and_then(ExitStatus::code)
    }

    /// Returns the signal that killed the process, once one has.
    #[must_use]
    pub fn signal_code(&self) -> Option<Signal> {
        self.try_wait().ok().flatten().and_then(ExitStatus::signal)
    }

    /// Returns whether [`kill`](Self::kill) has sent a signal. The process may still be running.
    #[must_use]
    pub fn killed(&self) -> bool {
        self.killed.load(Ordering::Acquire)
    }

    /// Returns the number of bytes that were sent but are not written yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.shared.link().map_or(0, Link::queued_bytes)
    }

    /// Returns whether there is an open channel.
    #[must_use]
    #[doc(alias = "connected")]
    pub fn is_connected(&self) -> bool {
        self.shared.current_link().is_some_and(Link::is_connected)
    }

    pub(crate) fn streams(&self) -> MutexGuard<'_, Streams> {
        self.streams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the channel of a child, or the error of a send without one.
pub(crate) fn channel(link: Option<&Link>) -> Result<&Link, ipc::Error> {
    link.ok_or(ipc::Error::NoChannel)
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
            .field("status", &self.shared.process.known_status())
            .finish_non_exhaustive()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        // A process that was forked without exec has a copy of the handle, and not the child.
        if self.kill_on_drop && self.shared.process.is_child_here() {
            // Fails only when the process has ended, or belongs to another user.
            let _: Result<Signalled, Error> = self.shared.process.signal(Signal::KILL);
        }
        self.shared.child_dropped();
    }
}
