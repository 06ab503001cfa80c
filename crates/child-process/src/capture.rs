//! Collecting what a child writes, while feeding it what it reads.
//!
//! [`Capture`] does the reading and writing, never waits, and decides when all is done. Two
//! drivers wait for it: [`wait`] on the caller's thread, [`Collector`](crate::exec) on the loop.
//!
//! All is done when the process and its outputs have ended. A child that was sent its kill signal
//! (timeout, cancellation, too much output) is waited for, but not whoever else holds its pipes.
//!
//! Limits: `max_buffer` bytes of each output, and one buffer for reading.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sys::poll::{self, Interest};
use sys::signal::Signal;

use crate::buffer::Buffer;
use crate::child::Child;
use crate::command::Command;
use crate::error::{Error, ExecError, ExecFailure, InvalidOption, OutputStream};
use crate::process::RECHECK_MIN;
use crate::start;

/// How many bytes are read at once.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// What a child wrote, and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// How the process ended.
    pub status: sys::pidfd::ExitStatus,
    /// What it wrote to descriptor 1, where that was a pipe.
    pub stdout: Vec<u8>,
    /// What it wrote to descriptor 2, where that was a pipe.
    pub stderr: Vec<u8>,
}

impl Output {
    /// The standard output as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// The standard error as text; what is not UTF-8 is replaced.
    #[must_use]
    pub fn stderr_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// One of the child's descriptors, for a driver that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipe {
    Stdin,
    Output(OutputStream),
}

/// A running child whose outputs are collected.
pub(crate) struct Capture {
    pub(crate) child: Arc<Child>,
    pub(crate) deadline: Option<Instant>,
    stdin: Option<File>,
    input: Vec<u8>,
    written: usize,
    outputs: [Option<File>; 2],
    buffers: [Buffer; 2],
    kill_signal: Signal,
    /// Why the child was ended, or its pipes are no longer read.
    stopped: Option<Error>,
    line: String,
    /// Whether an unsuccessful end is an error.
    checked: bool,
}

pub(crate) const OUTPUTS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

impl Capture {
    pub(crate) fn start(command: &mut Command, checked: bool) -> Result<Self, Error> {
        if command.has_channel() {
            let why = "collecting output and a channel do not go together";
            return Err(InvalidOption::coded("stdio", why, "ERR_IPC_SYNC_FORK").into());
        }
        let input = command.input.take();
        if input.is_some() {
            command.descriptor(0, crate::Stdio::pipe());
        }
        // The capture keeps the deadline itself, so the child needs no timer on the loop.
        let mut child = start::start(command, None)?;
        let deadline = command.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let stdin = child.take_stdin().filter(|_| input.is_some());
        let stdin = stdin.map(|stdin| unblocked(stdin.into())).transpose()?;
        let outputs = [child.take_stdout(), child.take_stderr()];
        let [stdout, stderr] =
            outputs.map(|output| output.map(|o| unblocked(o.into())).transpose());
        Ok(Self {
            child: Arc::new(child),
            deadline,
            stdin,
            input: input.unwrap_or_default(),
            written: 0,
            outputs: [stdout?, stderr?],
            buffers: [Buffer::new(command.max_buffer), Buffer::new(command.max_buffer)],
            kill_signal: command.kill_signal,
            stopped: None,
            line: command.line(),
            checked,
        })
    }

    /// The descriptor behind `end`, while it is open.
    pub(crate) fn descriptor(&self, pipe: Pipe) -> Option<BorrowedFd<'_>> {
        match pipe {
            Pipe::Stdin => self.stdin.as_ref().map(AsFd::as_fd),
            Pipe::Output(stream) => self.outputs[stream as usize].as_ref().map(AsFd::as_fd),
        }
    }

    /// Reads an output once. `true`: there may be more; `false`: nothing now, or never again.
    pub(crate) fn read(&mut self, stream: OutputStream, chunk: &mut [u8]) -> bool {
        let index = stream as usize;
        let Some(pipe) = &mut self.outputs[index] else { return false };
        match pipe.read(chunk) {
            Ok(0) => self.outputs[index] = None,
            Ok(count) => {
                if self.buffers[index].push(&chunk[..count]) {
                    return true;
                }
                self.outputs = [None, None];
                self.stop(Error::MaxBuffer(stream));
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                self.outputs[index] = None;
                self.stop(Error::Os("reading an output", error));
            }
        }
        false
    }

    /// Writes some of the input. `true`: the child takes more.
    pub(crate) fn write(&mut self) -> bool {
        let Some(pipe) = &mut self.stdin else { return false };
        match pipe.write(&self.input[self.written..]) {
            Ok(count) => {
                self.written += count;
                if self.written < self.input.len() {
                    return true;
                }
                self.stdin = None;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The child does not want the rest: its own affair.
            Err(_) => self.stdin = None,
        }
        false
    }

    /// To be called when `deadline` is reached.
    pub(crate) fn expire(&mut self) {
        self.deadline = None;
        self.stop(Error::TimedOut);
    }

    /// The child cannot be watched.
    pub(crate) fn fail(&mut self, call: &'static str, error: io::Error) {
        self.stop(Error::Os(call, error));
    }

    /// Ends the child, for the first reason there is.
    fn stop(&mut self, reason: Error) {
        if self.stopped.is_some() {
            return;
        }
        self.stopped = Some(match self.child.kill(self.kill_signal) {
            Ok(_) => reason,
            Err(error) => error,
        });
        self.stdin = None;
    }

    fn outputs_open(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Whether everything worth waiting for has ended.
    pub(crate) fn is_done(&mut self) -> bool {
        let ended = match self.child.try_wait() {
            Ok(status) => status.is_some(),
            Err(error) => {
                self.stop(error);
                return true;
            }
        };
        let given_up = self.stopped.is_some() || self.child.shared().cancelled().is_some();
        ended && (given_up || !self.outputs_open())
    }

    /// The result. Called once, when [`is_done`](Self::is_done).
    pub(crate) fn finish(&mut self) -> Result<Output, ExecError> {
        let status = self.child.try_wait().ok().flatten();
        if self.outputs_open() {
            // Its last words, without waiting for whoever else holds the pipes.
            let mut chunk = [0; 4096];
            OUTPUTS.into_iter().for_each(|stream| while self.read(stream, &mut chunk) {});
        }
        let stopped = self.stopped.take();
        let cancelled =
            self.child.shared().cancelled().map(|reason| Error::Cancelled(reason.clone()));
        let [stdout, stderr] = &mut self.buffers;
        let (stdout, stderr) = (stdout.take(), stderr.take());
        let error = match (stopped.or(cancelled), status) {
            (Some(error), _) => error,
            (None, Some(status)) if status.success() || !self.checked => {
                return Ok(Output { status, stdout, stderr });
            }
            (None, Some(status)) => Error::Exited(status),
            (None, None) => Error::Os("waitid", ErrorKind::NotFound.into()),
        };
        let line = std::mem::take(&mut self.line);
        Err(ExecFailure { error, status, stdout, stderr, line }.into())
    }
}

fn unblocked(fd: OwnedFd) -> Result<File, Error> {
    let set = sys::socket::set_nonblocking(fd.as_fd(), true);
    set.map_err(|error| Error::Os("fcntl", error))?;
    Ok(fd.into())
}

/// Runs the command on the caller's thread.
pub(crate) fn run(command: &mut Command, checked: bool) -> Result<Output, ExecError> {
    let mut capture = match Capture::start(command, checked) {
        Ok(capture) => capture,
        Err(error) => return Err(ExecError::before_start(error, command.line())),
    };
    if let Err(error) = wait(&mut capture) {
        capture.stop(Error::Os("poll", error));
    }
    capture.finish()
}

/// Waits until the capture is done.
fn wait(capture: &mut Capture) -> io::Result<()> {
    let mut chunk = vec![0; READ_BYTES];
    while !capture.is_done() {
        let child = capture.child.clone();
        let runs = matches!(child.try_wait(), Ok(None));
        let entries = capture.entries(&child, runs);
        let left = capture.deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let [stdout, stderr, stdin, ended] = poll::wait(&entries, left)?;
        if stdout.any() {
            capture.read(OutputStream::Stdout, &mut chunk);
        }
        if stderr.any() {
            capture.read(OutputStream::Stderr, &mut chunk);
        }
        if stdin.any() {
            capture.write();
        }
        if left == Some(Duration::ZERO) {
            capture.expire();
        }
        if runs && ended.any() && matches!(child.try_wait(), Ok(None)) {
            // Announced and not to be seen yet: a tracer is told first.
            thread::sleep(RECHECK_MIN);
        }
    }
    Ok(())
}

type Entry<'a> = (BorrowedFd<'a>, Interest);

impl Capture {
    /// What to wait for: both outputs, the input, the process. In the place of one that has ended
    /// stands another one, because it would be ready for ever.
    fn entries<'a>(&'a self, child: &'a Child, runs: bool) -> [Entry<'a>; 4] {
        let pipes = [
            (Pipe::Output(OutputStream::Stdout), Interest::READABLE),
            (Pipe::Output(OutputStream::Stderr), Interest::READABLE),
            (Pipe::Stdin, Interest::WRITABLE),
        ];
        let open = pipes.map(|(pipe, interest)| Some((self.descriptor(pipe)?, interest)));
        let process = (child.as_fd(), Interest::READABLE);
        let other = open.into_iter().flatten().next().unwrap_or(process);
        let [stdout, stderr, stdin] = open.map(|entry| entry.unwrap_or(other));
        [stdout, stderr, stdin, if runs { process } else { other }]
    }
}

impl Command {
    /// Starts the child, collects what it writes, and waits for its end, on this thread.
    ///
    /// Standard input is [`input`](Self::input), or empty where it would be a pipe. However the
    /// child ends by itself is fine: look at [`Output::status`].
    ///
    /// # Errors
    ///
    /// Why it could not be started, or was ended: timeout, cancellation, too much output. What it
    /// wrote until then is in the error.
    #[doc(alias = "spawnSync")]
    pub fn output(&mut self) -> Result<Output, ExecError> {
        run(self, false)
    }

    /// As [`output`](Self::output), and an unsuccessful end is an error too.
    ///
    /// # Errors
    ///
    /// As [`output`](Self::output), and [`Error::Exited`].
    #[doc(alias = "execSync")]
    pub fn exec_sync(&mut self) -> Result<Output, ExecError> {
        run(self, true)
    }
}
