//! A process, and the one place that stores its exit status.
//!
//! The kernel gives the status once. Every caller that sees the pidfd readable reaps under the lock
//! and stores the status, so a blocking wait and the loop never take it from each other.

use std::os::fd::AsFd;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::origin::Origin;
use sys::pidfd::{ExitStatus, PidFd};
use sys::poll;
use sys::signal::{Signal, group_of, kill, kill_group};

use crate::error::Error;
use crate::signalled::Signalled;

/// The first pause before an exit is checked again. The pidfd of a traced process can be readable
/// before `waitid` shows the exit, because the tracer is notified first. Each pause is twice as
/// long, up to [`RECHECK_MAX`].
pub(crate) const RECHECK_MIN: Duration = Duration::from_millis(1);
/// The longest pause before an exit is checked again.
pub(crate) const RECHECK_MAX: Duration = Duration::from_millis(64);

#[derive(Debug)]
pub(crate) struct Process {
    pid: u32,
    pidfd: PidFd,
    status: Mutex<Option<ExitStatus>>,
    /// The process that has started this one.
    parent: Origin,
}

/// The processes that are held and not reaped. A list, because a number can return before the
/// process that had it is taken out.
static HELD: Mutex<Vec<u32>> = Mutex::new(Vec::new());

fn held() -> MutexGuard<'static, Vec<u32>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether a process is held and not reaped.
pub(crate) fn is_held(pid: u32) -> bool {
    held().contains(&pid)
}

fn release(pid: u32) {
    let mut held = held();
    if let Some(place) = held.iter().position(|known| *known == pid) {
        held.swap_remove(place);
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.known_status().is_none() {
            release(self.pid);
        }
    }
}

impl Process {
    pub(crate) fn new(pid: u32, pidfd: PidFd) -> Self {
        held().push(pid);
        Self { pid, pidfd, status: Mutex::new(None), parent: Origin::here() }
    }

    /// Returns whether this process has started the process, and not the one it was forked from.
    pub(crate) fn is_child_here(&self) -> bool {
        self.parent.is_here()
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
    pub(crate) fn try_wait(&self) -> Result<Option<ExitStatus>, Error> {
        self.reap(&mut self.status())
    }

    /// Reaps the process under the lock: its id means this process until then.
    fn reap(&self, status: &mut Option<ExitStatus>) -> Result<Option<ExitStatus>, Error> {
        if status.is_none() {
            let answer = self.pidfd.try_wait_child(self.pid);
            *status = answer.map_err(|error| Error::Os("waitid", error))?;
            if status.is_some() {
                release(self.pid);
            }
        }
        Ok(*status)
    }

    /// Waits until the process has ended, or until `deadline`.
    pub(crate) fn wait_until(
        &self,
        deadline: Option<Instant>,
    ) -> Result<Option<ExitStatus>, Error> {
        let mut pause = RECHECK_MIN;
        loop {
            if let Some(status) = self.known_status() {
                return Ok(Some(status));
            }
            let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
            let ready = poll::readable(self.pidfd.as_fd(), left);
            if !ready.map_err(|error| Error::Os("ppoll", error))? {
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

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) -> Result<Signalled, Error> {
        let mut status = self.status();
        // A zombie accepts signals, so it is reaped first.
        if self.reap(&mut status)?.is_some() {
            return Ok(Signalled::AlreadyExited);
        }
        self.send(signal)
    }

    /// As [`signal`](Self::signal), but as `sigqueue(3)` does, by which the process can tell the signal
    /// from others; as `kill(2)` does where a sandbox refuses that.
    pub(crate) fn queue_signal(&self, signal: Signal) -> Result<Signalled, Error> {
        let mut status = self.status();
        if self.reap(&mut status)?.is_some() {
            return Ok(Signalled::AlreadyExited);
        }
        match self.pidfd.queue_signal(signal) {
            Ok(()) => Ok(Signalled::Delivered),
            Err(_) => self.send(signal),
        }
    }

    /// Sends a signal to the process group that the process leads, if it leads one, and then to the
    /// process. The second part of the result is the failure of the group's signal.
    ///
    /// The first part says whether the process ran before either signal was sent. The group of a
    /// process that has ended gets the signal as well, unless the process was reaped before.
    pub(crate) fn signal_group(
        &self,
        signal: Signal,
    ) -> Result<(Signalled, Result<(), Error>), Error> {
        let mut status = self.status();
        if status.is_some() {
            return Ok((Signalled::AlreadyExited, Ok(())));
        }
        let ended = self.has_ended();
        // The id means this process, because it is not reaped.
        let leads = group_of(self.pid).is_ok_and(|group| group == self.pid);
        let group = if leads { kill_group(self.pid, signal) } else { Ok(()) };
        let group = match group {
            // Another thread has ended the last process of the group.
            Err(error) if error.raw_os_error() == Some(sys::errno::ESRCH) => Ok(()),
            answer => answer.map_err(|error| Error::Os("kill", error)),
        };
        if ended && self.reap(&mut status)?.is_some() {
            return Ok((Signalled::AlreadyExited, group));
        }
        Ok((self.send(signal)?, group))
    }

    /// Sends a signal without reaping the process. A process that has ended takes the signal and
    /// ignores it; one that is reaped gets none.
    pub(crate) fn signal_unreaped(&self, signal: Signal) -> Result<(), Error> {
        let status = self.status();
        if status.is_some() { Ok(()) } else { self.send(signal).map(drop) }
    }

    /// Returns whether the process has ended, and does not reap it.
    pub(crate) fn has_ended(&self) -> bool {
        // Fails only without memory.
        poll::readable(self.pidfd.as_fd(), Some(Duration::ZERO)).unwrap_or(false)
    }

    /// Sends a signal to the process, which no thread reaps meanwhile: the caller holds the lock.
    fn send(&self, signal: Signal) -> Result<Signalled, Error> {
        let (call, sent) = match self.pidfd.send_signal(signal) {
            // The answer of a process of another user, or that of a sandbox.
            Err(error) if sys::errno::is_refusal(&error) => ("kill", kill(self.pid, signal)),
            answer => ("pidfd_send_signal", answer),
        };
        match sent {
            Ok(()) => Ok(Signalled::Delivered),
            // Reaped by a caller that does not use this crate.
            Err(error) if error.raw_os_error() == Some(sys::errno::ESRCH) => {
                Ok(Signalled::AlreadyExited)
            }
            Err(error) => Err(Error::Os(call, error)),
        }
    }

    fn status(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
