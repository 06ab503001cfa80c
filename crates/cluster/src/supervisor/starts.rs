//! The end of starts that are not answered.
//!
//! The driver starts one process after the other, each with a limit of its own. When no start has
//! been answered for longer than that limit, the driver hangs, and every worker that was ordered
//! counts as one that could not be started.
//!
//! Pure.

use std::time::{Duration, Instant};

use super::{Cause, ClientAffinity, Event, Output, Supervisor, WorkerId};

/// The time that an answer may take beyond the limit of a start: killing and reaping the child.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

/// The wait for the answer of a start.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct AwaitedStart {
    until: Option<Instant>,
    /// Whether the wait has begun, with or without a limit.
    is_awaited: bool,
}

impl AwaitedStart {
    /// Records that a start was answered: the time of the next one begins.
    pub(super) fn answered(&mut self) {
        *self = Self::default();
    }
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Begins the wait for an answer, if a worker is being started, or ends it.
    pub(super) fn await_starts(&mut self, now: Instant) {
        if !self.workers.values().any(|entry| entry.life.is_starting()) {
            self.awaited_start = AwaitedStart::default();
        } else if !self.awaited_start.is_awaited {
            let limit = self.options.start.checked_add(ANSWER_WITHIN);
            let until = limit.and_then(|limit| now.checked_add(limit));
            self.awaited_start = AwaitedStart { until, is_awaited: true };
        }
    }

    /// Gives up all starts when the time for an answer is over.
    pub(super) fn cancel_starts(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        if self.awaited_start.until.is_none_or(|until| until > now) {
            return;
        }
        self.awaited_start = AwaitedStart::default();
        let starting = self.workers.iter().filter(|(_, entry)| entry.life.is_starting());
        for worker in starting.map(|(id, _)| *id).collect::<Vec<WorkerId>>() {
            out.push(Output::CancelSpawn { worker });
            self.apply(worker, Event::SpawnFailed, Some(Cause::NotStarted), now, out);
        }
    }

    pub(super) fn start_deadline(&self) -> Option<Instant> {
        self.awaited_start.until
    }
}
