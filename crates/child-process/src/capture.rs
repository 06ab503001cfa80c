//! Collects the output of a child while writing its input.
//!
//! [`Capture`] reads and writes, never waits, and decides when the command is done. Two drivers
//! wait for it: [`wait`] on the caller's thread, [`Collector`](crate::exec) on the loop.
//!
//! A command is done when its process and its outputs have ended. After a kill signal (timeout,
//! cancellation, too much output) the end of the process is enough, because other processes may
//! hold its pipes. A process that cannot be signalled, or that its `SIGKILL` does not end, is not
//! waited for.
//!
//! Limits: `max_buffer` bytes of each output, and one buffer for reading.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use sys::eventfd::Semaphore;
use sys::poll::{self, Interest};
use sys::signal::{Signal, without_sigpipe};

use crate::buffer::Buffer;
use crate::child::Child;
use crate::command::Command;
use crate::ending::{Ending, EndingStep};
use crate::error::{Error, InvalidOption, OutputStream};
use crate::exec_error::ExecError;
use crate::given_up::Waiter;
use crate::process::RECHECK_MIN;
use crate::start;
use crate::stdio::Slot;

/// The size of a read, in bytes.
pub(crate) const READ_BYTES: usize = 64 * 1024;

/// The output of a child, and its exit status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status of the process.
    pub status: sys::pidfd::ExitStatus,
    /// The bytes that the child wrote to descriptor 1, if that was a pipe.
    pub stdout: Vec<u8>,
    /// The bytes that the child wrote to descriptor 2, if that was a pipe.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Returns the standard output as text. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn stdout_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// Returns the standard error as text. Bytes that are not UTF-8 are replaced.
    #[must_use]
    pub fn stderr_text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stderr)
    }
}

/// A pipe of the child, for a driver that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Pipe {
    Stdin,
    Output(OutputStream),
}

/// A running child whose outputs are collected.
pub(crate) struct Capture {
    pub(crate) child: Arc<Child>,
    ending: Ending,
    /// The process is not waited for, because it could not be ended.
    abandoned: bool,
    stdin: Option<File>,
    input: Vec<u8>,
    written: usize,
    outputs: [Option<File>; 2],
    buffers: [Buffer; 2],
    /// The first reason for the kill signal, or for not reading the pipes any more.
    stopped: Option<Error>,
    line: String,
    /// Whether an exit other than code 0 is an error.
    checked: bool,
}

pub(crate) const OUTPUTS: [OutputStream; 2] = [OutputStream::Stdout, OutputStream::Stderr];

impl Capture {
    pub(crate) fn start(command: &mut Command, checked: bool) -> Result<Self, Error> {
        if command.has_channel() {
            let why = "a command whose output is collected cannot have a channel";
            return Err(InvalidOption::coded("stdio", why, "ERR_IPC_SYNC_FORK").into());
        }
        if command.stdio.iter().any(|(_, slot)| matches!(slot, Slot::Terminal)) {
            let why = "output that is collected cannot come from a terminal";
            return Err(InvalidOption::value("stdio", why).into());
        }
        if command.input.is_some() {
            command.descriptor(0, crate::Stdio::pipe());
        }
        // The capture keeps the deadline itself, so the child needs no timer on the loop.
        let mut child = start::start(command, None)?;
        // Only now: a command whose start failed keeps its input for the next attempt.
        let input = command.input.take();
        let timeout_at = command.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
        let stdin = child.take_stdin().filter(|_| input.is_some());
        let stdin = stdin.map(|stdin| unblocked(stdin.into())).transpose()?;
        let outputs = [child.take_stdout(), child.take_stderr()];
        let [stdout, stderr] =
            outputs.map(|output| output.map(|o| unblocked(o.into())).transpose());
        Ok(Self {
            child: Arc::new(child),
            ending: Ending::new(timeout_at, command.kill_after),
            abandoned: false,
            stdin,
            input: input.unwrap_or_default(),
            written: 0,
            outputs: [stdout?, stderr?],
            buffers: [Buffer::new(command.max_buffer), Buffer::new(command.max_buffer)],
            stopped: None,
            line: command.line(),
            checked,
        })
    }

    /// Returns the descriptor of `pipe` while it is open.
    pub(crate) fn descriptor(&self, pipe: Pipe) -> Option<BorrowedFd<'_>> {
        match pipe {
            Pipe::Stdin => self.stdin.as_ref().map(AsFd::as_fd),
            Pipe::Output(stream) => self.outputs[stream as usize].as_ref().map(AsFd::as_fd),
        }
    }

    /// Reads an output once. Returns true if there may be more, false if there is nothing now or
    /// the output has ended.
    pub(crate) fn read(&mut self, stream: OutputStream, chunk: &mut [u8]) -> bool {
        let index = stream as usize;
        let Some(pipe) = &mut self.outputs[index] else { return false };
        match pipe.read(chunk) {
            Ok(0) => self.outputs[index] = None,
            Ok(count) => {
                if self.buffers[index].push(&chunk[..count]) {
                    return true;
                }
                // Nothing more is kept, so nothing more is read.
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

    /// Writes a part of the input. Returns true if the child may take more.
    pub(crate) fn write(&mut self) -> bool {
        let Some(pipe) = &mut self.stdin else { return false };
        let rest = &self.input[self.written..];
        match without_sigpipe(rest.len(), || pipe.write(rest)) {
            Ok(count) => {
                self.written += count;
                if self.written < self.input.len() {
                    return true;
                }
                self.stdin = None;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => return true,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            // The child has closed its input, as `head` does, which is no failure of the command.
            Err(_) => self.stdin = None,
        }
        false
    }

    /// Returns the time at which [`step`](Self::step) must be called.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.ending.deadline()
    }

    /// Performs the steps that are due: the kill signal at the timeout, `SIGKILL`, giving up.
    pub(crate) fn step(&mut self, now: Instant) {
        while let Some(step) = self.ending.step(now) {
            match step {
                EndingStep::Signal => self.send(self.child.shared().kill.signal, Error::TimedOut),
                EndingStep::Kill => {
                    let reason = self.stopped.take().unwrap_or(Error::TimedOut);
                    self.send(Signal::KILL, reason);
                }
                EndingStep::GiveUp => self.abandoned = true,
            }
        }
    }

    /// Stops the child because it cannot be watched.
    pub(crate) fn fail(&mut self, call: &'static str, error: io::Error) {
        self.stop(Error::Os(call, error));
    }

    /// Sends the kill signal, unless it was sent before.
    fn stop(&mut self, reason: Error) {
        if self.ending.begin(Instant::now()) {
            self.send(self.child.shared().kill.signal, reason);
        }
    }

    fn send(&mut self, signal: Signal, reason: Error) {
        self.stopped = Some(match self.child.end(signal) {
            Ok(_) => reason,
            Err(error) => {
                // A descendant that was not reached does not matter to the wait for the child.
                self.abandoned |= !matches!(error, Error::Tree(_));
                error
            }
        });
        self.stdin = None;
    }

    fn outputs_open(&self) -> bool {
        self.outputs.iter().any(Option::is_some)
    }

    /// Returns whether the command is done.
    pub(crate) fn is_done(&mut self) -> bool {
        if let (None, Some(error)) = (&self.stopped, self.child.shared().given_up.error()) {
            self.abandoned = true;
            self.stopped = Some(error.copy());
        }
        if self.abandoned {
            return true;
        }
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

    /// Returns the result. Called once, when [`is_done`](Self::is_done).
    pub(crate) fn finish(&mut self) -> Result<Output, ExecError> {
        let status = self.child.try_wait().ok().flatten();
        if self.outputs_open() {
            // Reads the rest of the output without waiting for other holders of the pipes.
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
        Err(ExecError { error, status, stdout, stderr, line })
    }
}

fn unblocked(fd: OwnedFd) -> Result<File, Error> {
    // One thread serves several pipes and must not block on one of them.
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
    if command.cancel.is_some() {
        // Without a descriptor, a process that cannot be ended is waited for.
        let semaphore = Semaphore::new().ok().map(Waiter::Thread);
        semaphore.into_iter().for_each(|waiter| capture.child.shared().given_up.set_waiter(waiter));
    }
    if let Err(error) = wait(&mut capture) {
        capture.stop(Error::Os("ppoll", error));
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
        let left = capture.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let [stdout, stderr, stdin, ended, _] = poll::wait(&entries, left)?;
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
            capture.step(Instant::now());
        }
        if runs && ended.any() && matches!(child.try_wait(), Ok(None)) {
            // The tracer of a process is notified of an exit before `waitid` shows it here.
            thread::sleep(RECHECK_MIN);
        }
    }
    Ok(())
}

type Entry<'a> = (BorrowedFd<'a>, Interest);

impl Capture {
    /// Returns the descriptors to wait for: both outputs, the input, the process, and the news that
    /// the process was given up. An entry that has
    /// ended is replaced by another entry, because it would be ready at every call.
    fn entries<'a>(&'a self, child: &'a Child, runs: bool) -> [Entry<'a>; 5] {
        let pipes = [
            (Pipe::Output(OutputStream::Stdout), Interest::READABLE),
            (Pipe::Output(OutputStream::Stderr), Interest::READABLE),
            (Pipe::Stdin, Interest::WRITABLE),
        ];
        let open = pipes.map(|(pipe, interest)| Some((self.descriptor(pipe)?, interest)));
        let process = (child.as_fd(), Interest::READABLE);
        let other = open.into_iter().flatten().next().unwrap_or(process);
        let [stdout, stderr, stdin] = open.map(|entry| entry.unwrap_or(other));
        let given_up = child.shared().given_up.descriptor();
        let given_up = given_up.map_or(other, |fd| (fd, Interest::READABLE));
        [stdout, stderr, stdin, if runs { process } else { other }, given_up]
    }
}

impl Command {
    /// Starts the child, collects its output and waits for its end, on this thread.
    ///
    /// The child reads [`input`](Self::input), or an empty input if descriptor 0 is a pipe. Every
    /// exit is `Ok`: see [`Output::status`].
    ///
    /// # Errors
    ///
    /// The child could not be started, or it was sent its kill signal: timeout, cancellation, too
    /// much output. The error has the output that was collected until then. If the signal could not
    /// be sent, the error names the call that failed; it has no status, and the child still runs.
    #[doc(alias = "spawnSync")]
    pub fn output(&mut self) -> Result<Output, ExecError> {
        run(self, false)
    }

    /// Runs the child as [`output`](Self::output) does. An exit other than code 0 is an error.
    ///
    /// # Errors
    ///
    /// As [`output`](Self::output), and [`Error::Exited`].
    #[doc(alias = "execSync")]
    pub fn exec_sync(&mut self) -> Result<Output, ExecError> {
        run(self, true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sleeping() -> Capture {
        let mut command = Command::new("sleep");
        Capture::start(command.args(["60"]).stdin(crate::Stdio::null()), true).unwrap()
    }

    #[test]
    fn an_output_with_nothing_to_read_stays_open_and_is_read_later() {
        let mut capture = sleeping();
        for stream in OUTPUTS {
            assert!(!capture.read(stream, &mut [0; 8]), "{stream:?}");
            assert!(capture.descriptor(Pipe::Output(stream)).is_some(), "{stream:?}");
        }
        assert!(!capture.is_done());
        capture.send(Signal::KILL, Error::TimedOut);
        wait(&mut capture).unwrap();
    }

    #[test]
    fn an_input_that_does_not_fit_into_the_pipe_is_written_on_later() {
        let mut command = Command::new("sleep");
        let mut capture =
            Capture::start(command.args(["60"]).input(vec![7; 4 << 20]), true).unwrap();
        while capture.write() {}
        assert!(capture.descriptor(Pipe::Stdin).is_some());
        assert!(capture.written > 0 && capture.written < 4 << 20);
        capture.send(Signal::KILL, Error::TimedOut);
        wait(&mut capture).unwrap();
    }

    #[test]
    fn a_child_that_cannot_be_watched_is_ended_and_the_failure_is_the_result() {
        let mut capture = sleeping();
        capture.fail("watching a child", io::Error::other("no memory"));
        wait(&mut capture).unwrap();
        let failed = capture.finish().unwrap_err();
        assert!(matches!(failed.error, Error::Os("watching a child", _)), "{failed:?}");
        assert_eq!(failed.status, Some(sys::pidfd::ExitStatus::Signal(Signal::TERM)));
    }
}
