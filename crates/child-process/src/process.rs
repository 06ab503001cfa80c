//! One process and the one place where its end is written down.
//!
//! Whoever sees the pidfd readable reaps under the lock and publishes: a blocking wait and the
//! loop never take the status from each other.

use std::io;
use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::pidfd::{ExitStatus, PidFd};
use sys::poll;
use sys::signal::Signal;

/// How long to wait before asking again when the pidfd was readable before the exit could be seen
/// (a tracer is told first); doubled each time up to [`RECHECK_MAX`].
pub(crate) const RECHECK_MIN: Duration = Duration::from_millis(1);
/// The longest of these waits.
pub(crate) const RECHECK_MAX: Duration = Duration::from_millis(64);

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

    /// What is known without asking the kernel.
    pub(crate) fn known_status(&self) -> Option<ExitStatus> {
        *self.status()
    }

    /// Reaps the process if it has ended.
    pub(crate) fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        let mut status = self.status();
        if status.is_none() {
            *status = self.pidfd.try_wait()?;
        }
        Ok(*status)
    }

    /// Waits for the end, at most until `deadline`.
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
            thread::sleep(left.map_or(pause, |left| left.min(pause)));
            pause = (pause * 2).min(RECHECK_MAX);
            if left == Some(Duration::ZERO) {
                return Ok(None);
            }
        }
    }

    /// Runs `act` while the process is certainly not reaped, so that its number is its own; `None`
    /// when it is reaped already.
    pub(crate) fn while_unreaped<T>(&self, act: impl FnOnce() -> T) -> Option<T> {
        let status = self.status();
        let answer = status.is_none().then(act);
        drop(status);
        answer
    }

    /// `false` when the process has ended before.
    pub(crate) fn signal(&self, signal: Signal) -> io::Result<bool> {
        if self.try_wait()?.is_some() {
            return Ok(false);
        }
        match self.pidfd.send_signal(signal) {
            Ok(()) => Ok(true),
            Err(error) if error.raw_os_error() == Some(sys::errno::ESRCH) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
