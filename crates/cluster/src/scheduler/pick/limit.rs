//! A maximum of open connections: a worker that has as many as it may is passed over.
//!
//! How many it has is known without asking, see `load`. When nobody is free, those that are only
//! at their limit are told to say when the next of theirs ends. So whoever came waits here or
//! with the kernel, is refused by nobody and handed round by nobody, and no time is spent on
//! looking again and again.
//!
//! Pure.

use std::time::Instant;

use crate::contract::{Affinity, Output};

use crate::scheduler::Scheduler;
use crate::scheduler::backend::Backend;

impl<H: Affinity> Scheduler<H> {
    /// Nobody is free: the next end in a worker at its limit will be told. Answers whether there
    /// was one meanwhile.
    pub(in crate::scheduler) fn await_closed(&self) -> bool {
        if self.blocked_until.is_some() {
            return false;
        }
        let backends =
            self.backends.iter().filter(|backend| backend.is_free_but_for_its_limit(self.window));
        // All of them are told.
        backends.filter(|backend| backend.has_room_now()).count() > 0
    }

    /// Nobody was free, and somebody was only at its limit: all hangs on what that says. It may
    /// have room by now.
    pub(crate) fn awaits_room(&self) -> bool {
        let limited = |backend: &Backend| {
            backend.open_max.is_some() && backend.is_free_but_for_its_limit(self.window)
        };
        self.open && !self.accepting && self.backends.iter().any(limited)
    }

    /// The address is given up: what waits is served by those that are left, whatever they have.
    pub(crate) fn lift_limits(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        let limits = self.backends.iter_mut().filter_map(|backend| backend.open_max.take());
        if limits.count() > 0 {
            self.dispatch(now, out);
        }
    }
}

impl Backend {
    fn has_room_now(&self) -> bool {
        if let (Some(_), Some(closed_counter)) = (self.open_max, &self.closed_counter) {
            closed_counter.notify_next();
        }
        !self.is_at_its_limit()
    }
}
