//! A process, and the one place that stores its exit status.
//!
//! The kernel gives the status once. Every caller that sees the pidfd readable reaps under the lock
//! and stores the status, so a blocking wait and the loop never take it from each other.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::pidfd::{ExitStatus, PidFd};
use sys::poll;
use sys::signal::Signal;

/// The first pause before an exit is checked again. The pidfd of a traced process can be readable
/// before `waitid` shows the exit, because the tracer is notified first. Each pause is twice as
/// long, up to [`RECHECK_MAX`].
pub(crate) const RECHECK_MIN: Duration = Duration::from_millis(1);
/// The longest pause before an exit is checked again.
pub(crate) const RECHECK_MAX: Duration = Duration::from_millis(64);

/// The effect of a signal that was sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signalled {
    /// The kernel has taken the signal for the process. The process may still be running, and a
    /// handler or a mask may keep the signal from having an effect.
    Delivered,
    /// The process had ended before, so that nothing was sent.
    AlreadyExited,
}

#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: PidFd,
    status: Mutex<Option<ExitStatus>>,
}

impl Process {
    pub(crate) fn new(pid: u32, pidfd: PidFd) -> Self {
        Self { pid, pidfd, status: Mutex::new(None) }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn pidfd(&self) -> &PidFd {
        &self.pidfd
    }

    /// Returns the stored status, without a system call.
    pub(crate) fn known_status(&self) -> Option<ExitStatus> {
        *self.status()
    }

    /// Reaps the process if it has ended, and returns its status.
    pub(crate) fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self.status();
        if status.is_none() {
            *status = self.pidfd.try_wait()?;
        }
        Ok(*status)
    }

    /// Waits until the process has ended, or until `deadline`.
    pub(crate) fn wait_until(&self, deadline: Option<Instant>) -> io::Result<Option<ExitStatus>> {
        let mut pause = RECHECK_MIN;
        loop {
            if let Some(status) = self.known_status() {
                return Ok(Some(status));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            if !poll::readable(self.pidfd.as_fd(), left)? {
                return self.try_wait();
            }
            if let Some(status) = self.try_wait()? {
                return Ok(Some(status));
            }
            // The pidfd stays readable, so polling it again would spin.
            thread::sleep(left.map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(RECHECK_MAX);
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    /// Runs `act` while the process is certainly not reaped, so that its process id cannot mean
    /// another process; returns `None` if it is reaped already.
    pub(crate) fn while_unreaped<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let status = self.status();
        let answer = status.is_none().then(act);
        drop(status);
        answer
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<Signalled> {
        // A zombie accepts signals, so it is reaped first.
        if self.try_wait()?.is_some() {
            return Ok(Signalled::AlreadyExited);
        }
        match self.pidfd.send_signal(signal) {
            Ok(()) => Ok(Signalled::Delivered),
            // The process was reaped between the two calls.
            Err(error) if error.raw_os_error() == Some(sys::errno::ESRCH) => {
                Ok(Signalled::AlreadyExited)
            }
            Err(error) => Err(error),
        }
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
