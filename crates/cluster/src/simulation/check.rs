//! The invariants: what must hold for each output, and after each step.

use super::*;
use crate::contract::ForkRefusal;

impl World {
    pub(super) fn check_start_failed(&mut self) {
        assert!(
            !self.ready && !self.start_failed,
            "a start fails once, before the cluster is ready"
        );
        self.start_failed = true;
        self.mark("start failed");
        self.stopping = true;
    }

    pub(super) fn check_ready(&mut self) {
        assert!(std::mem::take(&mut self.ready_due), "readiness is reported once");
        self.ready = true;
    }

    pub(super) fn check_notice(&mut self, worker: WorkerId, notice: Notice, exit_requested: bool) {
        match notice {
            Notice::Fork => self.history(worker).forks += 1,
            Notice::Online => {
                self.history(worker).onlines += 1;
                assert_eq!(self.history(worker).onlines, 1);
            }
            Notice::Listening(_) => assert!(!self.history(worker).listening.is_empty()),
            Notice::Disconnect => {
                self.history(worker).disconnects += 1;
                assert_eq!(self.history(worker).disconnects, 1);
            }
            Notice::Exit => self.check_exit(worker, exit_requested),
            Notice::Violation(_) => {
                assert_eq!(
                    self.breaking,
                    Some(worker),
                    "only a hostile worker breaks the protocol"
                );
                self.history(worker).violations += 1;
            }
            Notice::Unresponsive => {
                assert!(!self.history(worker).exited);
                self.mark(if self.workers[&worker].node { "silent" } else { "unresponsive" });
            }
        }
    }

    pub(super) fn check_exit(&mut self, id: WorkerId, wanted: bool) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.history.spawned {
            worker.history.exits += 1;
            assert_eq!(worker.history.exits, 1);
        }
        let (slot, ended, asked) = (worker.slot, worker.ended, worker.history.asked);
        if worker.history.finishing && !self.stopping {
            assert!(wanted || !worker.history.spawned, "{id} was requested to exit");
        }
        let fork_failed = worker.forked && !worker.history.spawned;
        let restarted = match self.options.restart.restart {
            _ if fork_failed => false,
            Restart::Always => true,
            Restart::OnCrash => ended != Some(ExitKind::Code(0)),
            Restart::Never => false,
        };
        let others = |(other, it): (&WorkerId, &SimulatedWorker)| {
            *other != id
                && it.slot == slot
                && !it.history.exited
                // A worker that leaves by itself may hold its slot until it has exited.
                && (!self.supervisor.is_leaving(*other) || self.supervisor.holds_slot(*other))
        };
        let alone = !self.workers.iter().any(others);
        if !restarted && !asked && alone {
            self.wanted.remove(&slot);
        }
    }

    pub(super) fn check_reloaded(
        &mut self,
        numbers: &[u32],
        on_signal: bool,
        result: Result<(), ReloadFailure>,
    ) {
        let answered = numbers.iter().all(|number| self.reloads.remove(number));
        assert!(answered, "a reload is answered once");
        assert!(!on_signal || self.reload_on_signal);
        match result {
            Ok(()) => self.mark("reloaded"),
            Err(ReloadFailure::NotReady(..)) => self.mark("reload: not ready"),
            Err(ReloadFailure::Ended(_)) => self.mark("reload: ended"),
            Err(ReloadFailure::NotRunning) => assert!(self.stopping || self.disconnected_all),
        }
    }

    pub(super) fn check_forked(&mut self, worker: Result<WorkerId, ForkRefusal>) {
        assert!(!self.forking || worker.is_err(), "a worker is spawned before it is reported");
        assert!(worker.is_ok() || self.stopping, "a slot is free");
        assert_ne!(worker, Err(ForkRefusal::TooManyWorkers), "there are few workers");
        self.forking = false;
        self.ready_due = true;
        self.mark("forked");
    }

    pub(super) fn check_idle(&mut self) {
        assert!(!self.stopping && self.wanted.is_empty());
        assert!(self.workers.values().all(|worker| worker.history.exited));
        self.mark("idle");
        // The next start counts as a first one.
        self.ready = false;
    }

    /// Checks that the workers of this `DisconnectAll` are gone, and all addresses that they held.
    pub(super) fn check_all_gone(&mut self, number: u32) {
        let ids = self.disconnecting_all.remove(&number).expect("a disconnect is answered once");
        assert!(ids.iter().all(|id| self.workers[id].history.exited), "all have exited");
        // A worker that is still wanted may use the sockets again.
        let exited = self.workers.values().all(|worker| worker.history.exited);
        if exited && self.wanted.is_empty() {
            assert!(self.bound.is_empty() && self.queues.is_empty(), "all is closed");
        }
    }

    /// Checks that nothing is sent to a worker that does not listen yet, or no longer.
    pub(super) fn check_may_send(&self, id: WorkerId, key: Key) {
        let history = &self.workers[&id].history;
        assert!(history.listening.contains(&key), "{id} listens on {key}");
        assert!(!history.exited && !history.killed, "{id} lives");
        // A worker that finishes may have closed its channel while it still reads its queue.
        assert!(!history.channel_closed || self.stopping || history.finishing, "{id} is connected");
        assert!(!self.queues[&(id, key)].has_ended(), "{id} {key} has not ended");
        assert!(
            !self.workers[&id].node || history.send_disconnects == 0,
            "{id} was sent a disconnect"
        );
    }

    /// Checks that there was a reason for each dispatch of a connection.
    pub(super) fn check_sends(&mut self, connection: usize) {
        self.sends[connection] += 1;
        let sends = self.sends[connection];
        if sends > 1 {
            self.mark("dispatched again");
        }
        // Each worker can exit, close its channel or its listener once, and a connection can be
        // reclaimed after 100 ms unread.
        let unread = (self.now - self.started_at).as_millis() as usize / 100;
        // A Node worker can decline after each back-off, of which the first ones are shorter.
        let backoffs = if self.node_percent > 0 { self.workers.len() * (4 + unread) } else { 0 };
        let sends_max = 2 + self.workers.len() + unread + backoffs;
        assert!(sends <= sends_max, "{connection} was sent {sends} times");
    }

    /// Checks that a shutdown closes no connection that a worker could still take in time.
    pub(super) fn check_no_worker_could_take(&self, connection: usize) {
        let (key, half) = (self.arrival_keys[connection], self.options.disconnect / 2);
        let slow = self.shutdown.closed_at.get(&key).is_some_and(|at| self.now >= *at + half);
        if self.shutdown.aborting || slow {
            return;
        }
        let serves = |(id, worker): &(&WorkerId, &SimulatedWorker)| {
            let history = &worker.history;
            let queue = self.queues.get(&(**id, key));
            let open = queue.is_some_and(|queue| !queue.has_ended() && !queue.is_gone());
            let alive = !history.exited && !history.channel_closed && !history.killed;
            let alive = alive && history.send_disconnects == 0;
            open && alive && history.listening.contains(&key)
        };
        let able = self.workers.iter().find(serves).map(|(id, _)| id);
        assert_eq!(able, None, "this worker could take {connection} of {key}");
    }

    /// Checks that the counters of all workers add up, as long as none is forgotten.
    fn check_worker_counters(&self) {
        let shares = self.workers.keys().map(|id| self.supervisor.worker_counters(*id));
        let Some(shares) = shares.collect::<Option<Vec<_>>>() else { return };
        let sum = self.supervisor.counters();
        let total = |part: fn(&WorkerCounters) -> u64| shares.iter().map(part).sum::<u64>();
        assert_eq!(total(|share| share.dispatched), sum.dispatched);
        assert_eq!(total(|share| share.reclaimed), sum.reclaimed);
        assert_eq!(total(|share| share.re_dispatched), sum.re_dispatched);
    }

    /// Checks that a worker accepts from each socket from which the driver does not.
    fn check_slot_sockets(&self) {
        for (key, bound) in &self.bound {
            for (slot, _) in
                bound.slot_sockets.iter().filter(|(_, socket)| !socket.is_accepted_on_behalf)
            {
                let mut there = self.workers.values().filter(|worker| worker.slot == *slot);
                let accepts = there.any(|worker| {
                    let listens =
                        worker.own_sockets.contains(key) && worker.history.listening.contains(key);
                    listens && !worker.history.exited
                });
                assert!(accepts, "no worker accepts from {slot} of {key}");
            }
        }
    }

    /// Checks the supervisor's counters against the ledger.
    pub(super) fn check(&self) {
        let (sum, ledger) = (self.supervisor.counters(), &self.ledger);
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
        assert_eq!(sum.accepted, ledger.accepted);
        assert_eq!(sum.dispatched, ledger.dispatched);
        assert_eq!(sum.reclaimed, ledger.reclaimed);
        assert_eq!(sum.waiting, ledger.held);
        assert!(sum.re_dispatched <= sum.reclaimed.min(sum.dispatched));
        let closed = [sum.closed_shutdown, sum.closed_overflow, sum.closed_not_listening];
        assert_eq!(closed, ledger.closed);
        self.check_slot_sockets();
        if self.workers.len() < 8 {
            self.check_worker_counters();
        }
    }
}
