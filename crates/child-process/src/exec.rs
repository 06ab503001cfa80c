//! Commands whose output is collected on the event loop: `exec` and `exec_file`.

use std::ffi::OsStr;
use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crossbeam_channel::{Receiver, Sender};
use reactor::{BYTES_PER_TURN, Event, Interest, READ_BUFFER_BYTES, Source, Token, Turn, reactor};
use sys::pidfd::PidFd;
use sys::signal::Signal;

use crate::capture::{Capture, OUTPUTS, Output, Pipe, run};
use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, OutputStream};
use crate::exec_error::ExecError;
use crate::given_up::Waiter;
use crate::process::{RECHECK_MAX, RECHECK_MIN};

type Outcome = Result<Output, ExecError>;
type Callback = Box<dyn FnOnce(Outcome) + Send>;

/// A running command whose output is collected.
///
/// Dropping it neither stops the command nor waits for it; the result is then discarded.
///
/// ```
/// let hello = brood_child_process::exec("echo hello | tr a-z A-Z")?;
/// assert_eq!(hello.wait()?.stdout, b"HELLO\n");
/// let failed = brood_child_process::exec("exit 3")?.wait().unwrap_err();
/// assert_eq!(failed.to_string(), "command failed: exit 3");
/// assert_eq!(failed.error.to_string(), "exited with code 3");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Exec {
    child: Arc<Child>,
    outcome: Receiver<Outcome>,
    callback: Arc<Mutex<Option<Callback>>>,
    line: String,
}

impl Exec {
    /// Waits for the result.
    ///
    /// # Errors
    ///
    /// The failure of the command, with the output that was collected until then. In a process that
    /// was forked by `fork(2)` meanwhile, [`Error::Os`], because it has no event loop.
    pub fn wait(self) -> Outcome {
        // A process that was forked later has no loop that would send the result.
        if let (true, Err(error)) = (reactor::is_forked(), reactor()) {
            let forked = |_| Err(ExecError::before_start(error.into(), self.line));
            return self.outcome.try_recv().unwrap_or_else(forked);
        }
        self.outcome.recv().expect("the collector sends a result before it is removed")
    }

    /// Calls on the callback thread with the result. Returns the process.
    pub fn on_done(self, call: impl FnOnce(Outcome) + Send + 'static) -> Arc<Child> {
        let mut callback = lock(&self.callback);
        // Under the lock: the collector either has sent its result, or will find the callback.
        match self.outcome.try_recv() {
            Ok(outcome) => reactor::callback::call(move || call(outcome)),
            Err(_) => *callback = Some(Box::new(call)),
        }
        drop(callback);
        self.child
    }

    /// Returns the receiver of the result, to wait for it together with other channels.
    #[must_use]
    pub fn outcome(&self) -> &Receiver<Outcome> {
        &self.outcome
    }

    /// Returns the running process, to signal it or to read its process id.
    #[must_use]
    pub fn child(&self) -> &Child {
        &self.child
    }
}

impl fmt::Debug for Exec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Exec").field("child", &self.child).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

const STDIN: Token = Token(2);
const PIDFD: Token = Token(3);

/// A [`Capture`] on the loop. The outputs have tokens 0 and 1.
struct Collector {
    capture: Capture,
    /// A second descriptor of the process: the child's driver may watch the first one.
    pidfd: PidFd,
    outcome: Sender<Outcome>,
    callback: Arc<Mutex<Option<Callback>>>,
    /// The outputs that had more bytes than one turn may read, to be read on in the next turn.
    unfinished: [bool; 2],
    /// The time of the next check for an exit that the pidfd has announced but `waitid` did not
    /// show.
    recheck_at: Option<Instant>,
    /// Whether the result was sent.
    answered: bool,
}

impl Collector {
    fn start(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        for stream in OUTPUTS {
            if let Some(fd) = self.capture.descriptor(Pipe::Output(stream)) {
                turn.register(fd, Token(stream as u64), Interest::READABLE)?;
            }
        }
        if let Some(fd) = self.capture.descriptor(Pipe::Stdin) {
            turn.register(fd, STDIN, Interest::WRITABLE)?;
        }
        turn.register(self.pidfd.as_fd(), PIDFD, Interest::READABLE)
    }

    /// Reads an output, within the budget of a turn.
    fn read(&mut self, stream: OutputStream, turn: &mut Turn<'_>) {
        let turns = BYTES_PER_TURN / READ_BUFFER_BYTES;
        let more = (0..turns).all(|_| self.capture.read(stream, turn.read_buffer()));
        self.unfinished[stream as usize] = more;
        if more {
            turn.again();
        }
    }

    fn write(&mut self) {
        while self.capture.write() {}
    }

    fn answer(&mut self) {
        self.answered = true;
        let mut callback = lock(&self.callback);
        let outcome = self.capture.finish();
        match callback.take() {
            Some(call) => reactor::callback::call(move || call(outcome)),
            // Fails when the receiver was dropped.
            None => drop(self.outcome.send(outcome)),
        }
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        // The loop has ended, or this source has panicked.
        if !self.answered {
            self.capture.fail("the event loop", io::ErrorKind::Other.into());
            self.answer();
        }
    }
}

impl Source for Collector {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        match event {
            Event::Start => {
                if let Err(error) = self.start(turn) {
                    self.capture.fail("watching a child", error);
                }
            }
            Event::Ready { token: STDIN, .. } => self.write(),
            Event::Ready { token: PIDFD, .. } => self.recheck_at = Some(now + RECHECK_MIN),
            Event::Ready { token, .. } => self.read(OUTPUTS[token.0 as usize & 1], turn),
            Event::Again => {
                for stream in OUTPUTS {
                    if self.unfinished[stream as usize] {
                        self.read(stream, turn);
                    }
                }
            }
            Event::Deadline | Event::Wake => {}
        }
        self.capture.step(now);
        if self.capture.is_done() {
            self.answer();
            return turn.remove();
        }
        match self.capture.child.try_wait() {
            Ok(None) if self.recheck_at.is_some_and(|at| at <= now) => {
                self.recheck_at = Some(now + RECHECK_MAX);
            }
            Ok(None) => {}
            _ => self.recheck_at = None,
        }
        turn.set_deadline([self.capture.deadline(), self.recheck_at].into_iter().flatten().min());
    }
}

impl Command {
    /// Starts the child and collects its output on the loop.
    ///
    /// # Errors
    ///
    /// As [`spawn`](Self::spawn). Later failures are in the result of the [`Exec`].
    #[doc(alias = "execFile")]
    pub fn exec(&mut self) -> Result<Exec, Error> {
        // First: without the loop nothing may start.
        let reactor = reactor()?;
        let capture = Capture::start(self, true)?;
        let (child, callback) = (Arc::clone(&capture.child), Arc::default());
        let pidfd = child.shared().process.pidfd().try_clone().map_err(|error| {
            // A command that is reported as not started must not go on.
            let _ = child.kill(Signal::KILL);
            Error::Os("fcntl", error)
        })?;
        let (outcome, receiver) = crossbeam_channel::bounded(1);
        let callback_too = Arc::clone(&callback);
        let unfinished = [false; 2];
        let recheck_at = None;
        let answered = false;
        let collector =
            Collector { capture, pidfd, outcome, callback, unfinished, recheck_at, answered };
        reactor.add_with(|handle| {
            child.shared().given_up.set_waiter(Waiter::Loop(handle.clone()));
            collector
        });
        Ok(Exec { child, outcome: receiver, callback: callback_too, line: self.line() })
    }
}

/// Starts `program` with pipes as its standard streams. [`Command`] has more options, and takes
/// arguments that are not UTF-8.
///
/// ```
/// use std::io::Write;
///
/// let mut cat = brood_child_process::spawn("cat", [])?;
/// cat.take_stdin().unwrap().write_all(b"all of it")?;
/// assert!(cat.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Command::spawn`].
pub fn spawn<'a>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = &'a str>,
) -> Result<Child, Error> {
    Command::new(program).args(args).spawn()
}

/// Runs a line with `/bin/sh -c` and collects its output.
///
/// ```
/// let running = brood_child_process::exec("echo hello | tr a-z A-Z")?;
/// assert_eq!(running.wait()?.stdout, b"HELLO\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Command::exec`].
pub fn exec(line: impl AsRef<OsStr>) -> Result<Exec, Error> {
    Command::shell_line(line).exec()
}

/// Runs a program, without a shell, and collects its output. [`Command`] takes arguments that are
/// not UTF-8.
///
/// ```
/// let running = brood_child_process::exec_file("echo", ["hello", "$HOME"])?;
/// assert_eq!(running.wait()?.stdout, b"hello $HOME\n");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Command::exec`].
#[doc(alias = "execFile")]
pub fn exec_file<'a>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = &'a str>,
) -> Result<Exec, Error> {
    Command::new(program).args(args).exec()
}

/// Runs a program on this thread until it ends, and collects its output. Every exit is `Ok`.
///
/// ```
/// let output = brood_child_process::spawn_sync("sh", ["-c", "echo no luck >&2; exit 3"])?;
/// assert_eq!((output.status.code(), output.stderr), (Some(3), b"no luck\n".to_vec()));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
///
/// # Errors
///
/// As [`Command::output`].
#[doc(alias = "spawnSync")]
pub fn spawn_sync<'a>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = &'a str>,
) -> Outcome {
    run(Command::new(program).args(args), false)
}

/// Runs a line with `/bin/sh -c` on this thread until it ends, and collects its output.
///
/// ```
/// assert_eq!(brood_child_process::exec_sync("echo $((6 * 7))")?.stdout, b"42\n");
/// # Ok::<(), brood_child_process::ExecError>(())
/// ```
///
/// # Errors
///
/// As [`Command::exec_sync`].
#[doc(alias = "execSync")]
pub fn exec_sync(line: impl AsRef<OsStr>) -> Outcome {
    run(&mut Command::shell_line(line), true)
}

/// Runs a program, without a shell, on this thread until it ends, and collects its output.
///
/// ```
/// let output = brood_child_process::exec_file_sync("echo", ["hello"])?;
/// assert_eq!(output.stdout_text(), "hello\n");
/// # Ok::<(), brood_child_process::ExecError>(())
/// ```
///
/// # Errors
///
/// As [`Command::exec_sync`].
#[doc(alias = "execFileSync")]
pub fn exec_file_sync<'a>(
    program: impl AsRef<OsStr>,
    args: impl IntoIterator<Item = &'a str>,
) -> Outcome {
    run(Command::new(program).args(args), true)
}
