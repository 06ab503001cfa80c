//! One child on the loop: its exit, the end of its outputs, its timeout.
//!
//! It names what happened; [`Shared`] knows what that means and whom to tell. It goes when there
//! is nothing left to do, and may come back when somebody listens late.

use std::os::fd::AsFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{Event, Interest, Key, Source, Turn};

use crate::error::Error;
use crate::process::{RECHECK_MAX, RECHECK_MIN};
use crate::shared::Shared;

/// The pidfd; outputs have their index.
const PIDFD: Key = Key(u32::MAX);

pub(crate) struct Driver {
    shared: Arc<Shared>,
    /// Which outputs are registered.
    watched: Vec<usize>,
    timeout_at: Option<Instant>,
    /// When to look again for an exit that the pidfd has announced.
    recheck_at: Option<Instant>,
    recheck: Duration,
}

impl Driver {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let timeout_at = shared.timeout_at;
        Self { shared, watched: Vec::new(), timeout_at, recheck_at: None, recheck: RECHECK_MIN }
    }

    /// Reaps if the process has ended. `announced`: the pidfd said so.
    fn reap(&mut self, announced: bool, now: Instant) {
        match self.shared.process.try_wait() {
            Ok(Some(_)) => {
                self.recheck_at = None;
                self.timeout_at = None;
                self.shared.exited();
            }
            Ok(None) if announced => {
                self.recheck_at = Some(now + self.recheck);
                self.recheck = (self.recheck * 2).min(RECHECK_MAX);
            }
            Ok(None) => {}
            Err(error) => self.shared.report(Error::Os("waitid", error)),
        }
    }

    fn deadline(&mut self, now: Instant) {
        if self.recheck_at.is_some_and(|at| at <= now) {
            self.recheck_at = None;
            self.reap(true, now);
        }
        if self.timeout_at.is_some_and(|at| at <= now) {
            self.timeout_at = None;
            match self.shared.process.signal(self.shared.kill_signal) {
                Ok(true) => self.shared.report(Error::TimedOut),
                // It ended just before.
                Ok(false) => self.reap(true, now),
                Err(error) => self.shared.report(Error::Os("kill", error)),
            }
        }
    }

    /// Registers the outputs whose end matters, and notices those whose end on our side is gone.
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
            if let Err(error) = turn.register(pipe.as_fd(), Key(index as u32), Interest::HANGUP) {
                self.shared.report(Error::Os("watching an output", error));
                self.shared.output_ended(index);
            }
        }
    }
}

impl Source for Driver {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        self.shared.take_errors();
        match event {
            Event::Start => {
                self.reap(false, now);
                let fd = self.shared.process.pidfd().as_fd();
                if let Err(error) = turn.register(fd, PIDFD, Interest::READABLE) {
                    // Never without a look at the exit, however slow.
                    self.recheck_at = Some(now + RECHECK_MAX);
                    self.shared.report(Error::Os("watching a process", error));
                }
            }
            Event::Ready { key: PIDFD, .. } => self.reap(true, now),
            Event::Ready { key, .. } => self.shared.output_ended(key.0 as usize),
            Event::Deadline => self.deadline(now),
            Event::Wake | Event::Again => {}
        }
        self.shared.take_pending();
        self.watch_outputs(turn);
        if self.shared.retire_if_idle() {
            turn.remove();
        } else {
            let next = [self.timeout_at, self.recheck_at].into_iter().flatten().min();
            turn.set_deadline(next);
        }
    }
}

impl std::fmt::Debug for Driver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Driver").field("pid", &self.shared.process.pid()).finish_non_exhaustive()
    }
}
