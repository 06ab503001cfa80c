//! The driver of one child on the event loop: its exit, the end of its outputs, its timeout and the
//! second signal after it.
//!
//! The driver observes; [`Shared`] decides which events follow. The driver leaves the loop when it
//! has nothing left to do, and is added again when a late subscriber comes.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{Event, Interest, Source, Token, Turn};

use sys::signal::Signal;

use crate::child_state::Shared;
use crate::ending::{Ending, EndingStep};
use crate::error::Error;
use crate::process::{RECHECK_MAX, RECHECK_MIN};
use crate::signalled::Signalled;

/// The token of the pidfd. An output's token is its index.
const PIDFD: Token = Token(u64::MAX);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// The indexes of the registered outputs.
    watched: Vec<usize>,
    ending: Ending,
    /// The time of the next check for an exit that the pidfd has announced but `waitid` did not
    /// show.
    recheck_at: Option<Instant>,
    recheck: Duration,
    /// Whether the driver has left the loop because it has nothing left to do.
    retired: bool,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let ending = Ending::new(shared.timeout_at, shared.kill.after);
        let (watched, recheck) = (Vec::new(), RECHECK_MIN);
        Self { shared, watched, ending, recheck_at: None, recheck, retired: false }
    }

    /// Reaps the process if it has ended. `announced` says that the pidfd was readable.
    fn reap(&mut self, announced: bool, now: Instant) {
        match self.shared.process.try_wait() {
            Ok(Some(_)) => {
                self.recheck_at = None;
                self.ending.finish();
                self.shared.exited();
            }
            Ok(None) if announced => {
                self.recheck_at = Some(now + self.recheck);
                self.recheck = (self.recheck * 2).min(RECHECK_MAX);
            }
            Ok(None) => {}
            Err(error) => self.shared.report(error),
        }
    }

    fn deadline(&mut self, now: Instant) {
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck_at = None;
            self.reap(true, now);
        }
        while let Some(step) = self.ending.step(now) {
            match step {
                EndingStep::Signal => self.time_out(now),
                EndingStep::Kill => {
                    if let Err(error) = self.shared.end(Signal::KILL) {
                        if !matches!(error, Error::Tree(_)) {
                            self.shared.given_up.set(error.copy());
                        }
                        self.shared.report(error);
                    }
                }
                // The driver waits for the end all the same, because it must reap the process.
                EndingStep::GiveUp => {
                    if let Some(reason) = self.shared.cancelled() {
                        self.shared.given_up.set(Error::Cancelled(reason.clone()));
                    }
                }
            }
        }
    }

    fn time_out(&mut self, now: Instant) {
        match self.shared.end(self.shared.kill.signal) {
            Ok(Signalled::Delivered) => self.shared.report(Error::TimedOut),
            // The process ended just before the signal.
            Ok(Signalled::AlreadyExited) => self.reap(true, now),
            Err(error) => {
                match &error {
                    Error::Tree(_) => self.shared.report(Error::TimedOut),
                    // A second signal would fail as the first one has.
                    _ => self.ending.finish(),
                }
                self.shared.report(error);
            }
        }
    }

    /// Registers the open outputs, and notes those that this process has closed.
    fn watch_outputs(&mut self, turn: &mut Turn<'_>) {
        if !self.shared.has_subscribers() {
            return;
        }
        for (index, pipe) in self.shared.open_outputs() {
            let Some(pipe) = pipe else {
                self.shared.output_ended(index);
                continue;
            };
            if self.watched.contains(&index) {
                continue;
            }
            self.watched.push(index);
            // Only hang-ups, because the bytes are for the reader. The driver does not keep the
            // pipe open: closing it ends the registration.
            if let Err(error) = turn.register(pipe.as_fd(), Token(index as u64), Interest::HANGUP) {
                self.shared.report(Error::Os("watching an output", error));
                self.shared.output_ended(index);
            }
        }
    }
}

impl Source for Driver {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        // An error is emitted before the exit that it has caused.
        self.shared.take_errors();
        match event {
            Event::Start => {
                self.reap(false, now);
                let fd = self.shared.process.pidfd().as_fd();
                if let Err(error) = turn.register(fd, PIDFD, Interest::READABLE) {
                    // Without the pidfd the exit is polled, however slowly.
                    self.recheck_at = Some(now + RECHECK_MAX);
                    self.shared.report(Error::Os("watching a process", error));
                }
            }
            Event::Ready { token: PIDFD, .. } => self.reap(true, now),
            Event::Ready { token, .. } => self.shared.output_ended(token.0 as usize),
            Event::Deadline => self.deadline(now),
            Event::Wake | Event::Again => {}
        }
        if self.shared.cancelled().is_some() && self.ending.begin(now) {
            self.deadline(now);
        }
        self.shared.take_pending();
        self.watch_outputs(turn);
        if self.shared.retire_if_idle() {
            self.retired = true;
            turn.remove();
        } else {
            let next = [self.ending.deadline(), self.recheck_at].into_iter().flatten().min();
            turn.set_deadline(next);
        }
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        if !self.retired {
            self.shared.abandoned();
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("pid", &self.shared.process.pid()).finish_non_exhaustive()
    }
}
