//! The connection limit: a worker that has as many connections as it may have is skipped.
//!
//! The primary computes that number without a poll, see [`Backend::load`]. When no backend is free,
//! each worker whose limit is the only obstacle is asked to report the next connection that it
//! closes. Clients therefore wait in the primary or in the kernel's backlog, no connection is
//! refused or passed from worker to worker, and nothing is polled meanwhile.
//!
//! Pure.

use std::time::Instant;

use crate::contract::{ClientAffinity, Output};
use crate::scheduler::Scheduler;
use crate::scheduler::backend::Backend;

impl<H: ClientAffinity> Scheduler<H> {
    /// Asks every worker that is only at its limit to report the next connection that it closes.
    /// Returns whether one of them has room by now.
    pub(in crate::scheduler) fn await_closed(&self) -> bool {
        if self.blocked_until.is_some() {
            return false;
        }
        let backends =
            self.backends.iter().filter(|backend| backend.is_free_but_for_its_limit(self.window));
        // `any` would stop at the first, and leave the others without the request.
        backends.filter(|backend| backend.await_closed()).count() > 0
    }

    /// Whether dispatch depends on a report of room: no backend is free, and at least one is only
    /// at its limit, or has a paused listener. A worker may have room by now.
    pub(crate) fn awaits_room(&self) -> bool {
        let limited = |backend: &Backend| {
            (backend.open_max.is_some() && backend.is_free_but_for_its_limit(self.window))
                || backend.has_paused_listener()
        };
        self.is_open && !self.accepting && self.backends.iter().any(limited)
    }

    /// Lifts all limits when the address is closed: the workers that are left get the waiting
    /// connections, however many they have.
    pub(crate) fn lift_limits(&mut self, now: Instant, out: &mut Vec<Output<H>>) {
        let limits = self.backends.iter_mut().filter_map(|backend| backend.open_max.take());
        if limits.count() > 0 {
            self.dispatch_waiting(now, out);
        }
    }
}

impl Backend {
    /// Asks the worker to report the next connection that it closes. Returns whether it has room.
    fn await_closed(&self) -> bool {
        // A connection that is closed before the request is not reported. Therefore the load is
        // read after it.
        if let (Some(_), Some(page)) = (self.open_max, &self.page) {
            page.notify_next();
        }
        !self.is_at_its_limit()
    }
}
