//! The invariants: what must hold for each output and after each step.

use super::*;

impl World {
    pub(super) fn start_failed(&mut self) {
        assert!(!self.ready && !self.start_failed, "fails once, at the start");
        self.start_failed = true;
        self.saw("start failed");
        self.stopping = true;
    }

    pub(super) fn became_ready(&mut self) {
        assert!(std::mem::take(&mut self.ready_due), "told once");
        self.ready = true;
    }

    pub(super) fn notice(&mut self, worker: WorkerId, notice: Notice, exit_requested: bool) {
        match notice {
            Notice::Fork => self.told(worker).forks += 1,
            Notice::Online => {
                self.told(worker).onlines += 1;
                assert_eq!(self.told(worker).onlines, 1);
            }
            Notice::Listening(_) => assert!(!self.told(worker).listening.is_empty()),
            Notice::Disconnect => {
                self.told(worker).disconnects += 1;
                assert_eq!(self.told(worker).disconnects, 1);
            }
            Notice::Exit => self.exit(worker, exit_requested),
            Notice::Unresponsive => {
                assert!(!self.told(worker).exited);
                self.saw(if self.workers[&worker].node { "silent" } else { "unresponsive" });
            }
        }
    }

    pub(super) fn exit(&mut self, id: WorkerId, wanted: bool) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.told.spawned {
            worker.told.exits += 1;
            assert_eq!(worker.told.exits, 1);
        }
        let (slot, ended) = (worker.slot, worker.ended);
        if worker.told.finishing && !self.stopping {
            assert!(wanted || !worker.told.spawned, "{id} was asked to end");
        }
        let refused = worker.forked && !worker.told.spawned;
        let restarted = match self.options.restart.restart {
            _ if refused => false,
            Restart::Always => true,
            Restart::OnCrash => ended != Some(ExitKind::Code(0)),
            Restart::Never => false,
        };
        let others = |(other, it): (&WorkerId, &Worker)| {
            *other != id
                && it.slot == slot
                && !it.told.exited
                && !self.supervisor.is_leaving(*other)
        };
        let alone = !self.workers.iter().any(others);
        if !restarted && !wanted && alone {
            self.wanted.remove(&slot);
        }
    }

    pub(super) fn reloaded(&mut self, number: u32, result: Result<(), ReloadFailure>) {
        let under_way = self.reload.take_if(|reload| *reload == number).is_some();
        match result {
            Ok(()) => self.saw("reloaded"),
            Err(ReloadFailure::NotReady(_)) => self.saw("reload: not ready"),
            Err(ReloadFailure::Ended(_)) => self.saw("reload: ended"),
            Err(ReloadFailure::Closed) => assert!(self.stopping || self.all_gone),
            Err(ReloadFailure::UnderWay) => return assert!(self.reload.is_some() && !under_way),
        }
        assert!(under_way || self.stopping, "answered once");
    }

    pub(super) fn forked(&mut self, worker: Option<WorkerId>) {
        assert!(!self.forking || worker.is_none(), "ordered before it is said");
        assert!(worker.is_some() || self.stopping, "there is a place");
        self.forking = false;
        self.ready_due = true;
        self.saw("forked");
    }

    pub(super) fn idle(&mut self) {
        assert!(!self.stopping && self.wanted.is_empty());
        assert!(self.workers.values().all(|worker| worker.told.exited));
        self.saw("idle");
        // The next start is a first one again.
        self.ready = false;
    }

    /// Those who were to end have.
    pub(super) fn left(&mut self, number: u32) {
        let ids = self.disconnecting_all.remove(&number).expect("told once");
        assert!(ids.iter().all(|id| self.workers[id].told.exited), "all have ended");
        // Unless somebody is to come who may want them.
        let exited = self.workers.values().all(|worker| worker.told.exited);
        if exited && self.wanted.is_empty() {
            assert!(self.ports.is_empty() && self.queues.is_empty(), "all is closed");
        }
    }

    /// Nothing is sent to a worker that has not said, or no longer says, that it listens.
    pub(super) fn check_may_send(&self, id: WorkerId, key: Key) {
        let told = &self.workers[&id].told;
        assert!(told.listening.contains(&key), "{id} listens on {key}");
        assert!(!told.exited && !told.killed, "{id} lives");
        // A worker that finishes may have hung up while its queue is still its own.
        assert!(!told.channel_closed || self.stopping || told.finishing, "{id} is connected");
        assert!(!self.queues[&(id, key)].has_ended(), "{id} {key} has not ended");
        assert!(!self.workers[&id].node || told.send_disconnects == 0, "{id} is not told to go");
    }

    /// Nobody is handed round: each time there is a reason.
    pub(super) fn check_sends(&mut self, connection: usize) {
        self.sends[connection] += 1;
        let sends = self.sends[connection];
        if sends > 1 {
            self.saw("dispatched again");
        }
        // One that died, hung up or closed its listener, or 100 ms unread.
        let unread = (self.now - self.born).as_millis() as usize / 100;
        // Or a rest that is over, the first of them sooner.
        let rests = if self.nodes > 0 { self.workers.len() * (4 + unread) } else { 0 };
        assert!(sends <= 2 + self.workers.len() + unread + rests, "{connection} is handed round");
    }

    /// In a shutdown nobody is closed whom a worker could still be given, while there is time.
    pub(super) fn check_nobody_could(&self, connection: usize) {
        let (key, half) = (self.homes[connection], self.options.disconnect / 2);
        let slow = self.ending.given_up.get(&key).is_some_and(|at| self.now >= *at + half);
        if self.ending.aborting || slow {
            return;
        }
        let serves = |(id, worker): &(&WorkerId, &Worker)| {
            let told = &worker.told;
            let queue = self.queues.get(&(**id, key));
            let open = queue.is_some_and(|queue| !queue.has_ended() && !queue.is_gone());
            let alive = !told.exited && !told.channel_closed && !told.killed;
            let alive = alive && told.send_disconnects == 0;
            open && alive && told.listening.contains(&key)
        };
        let able = self.workers.iter().find(serves).map(|(id, _)| id);
        assert_eq!(able, None, "{connection} of {key} could be given to it");
    }

    /// What the workers had is what all had, as long as all are remembered.
    pub(super) fn check_shares(&self) {
        let shares = self.workers.keys().map(|id| self.supervisor.worker_counters(*id));
        let Some(shares) = shares.collect::<Option<Vec<_>>>() else { return };
        let sum = self.supervisor.counters();
        let total = |part: fn(&WorkerCounters) -> u64| shares.iter().map(part).sum::<u64>();
        assert_eq!(total(|share| share.dispatched), sum.dispatched);
        assert_eq!(total(|share| share.reclaimed), sum.reclaimed);
        assert_eq!(total(|share| share.re_dispatched), sum.re_dispatched);
    }

    /// Where we do not accept, somebody does.
    pub(super) fn check_doors(&self) {
        for (key, port) in &self.ports {
            for (slot, _) in port.doors.iter().filter(|(_, door)| !door.stands_in) {
                let mut there = self.workers.values().filter(|worker| worker.slot == *slot);
                let accepts = there.any(|worker| {
                    let listens = worker.own.contains(key) && worker.told.listening.contains(key);
                    listens && !worker.told.exited
                });
                assert!(accepts, "nobody accepts from {slot} of {key}");
            }
        }
    }

    /// The counters say what the ledger says.
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
        self.check_doors();
        if self.workers.len() < 8 {
            self.check_shares();
        }
    }
}
