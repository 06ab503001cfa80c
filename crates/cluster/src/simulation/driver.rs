//! The driver: gives inputs to the supervisor and performs its outputs.

use super::*;

impl World {
    /// Gives one input to the supervisor, performs the outputs, and checks the invariants.
    pub(super) fn step(&mut self, input: Input<usize>) {
        let accepted = matches!(input, Input::Accepted { .. });
        let not_spawned = match input {
            Input::SpawnFailed { worker } => Some(worker),
            _ => None,
        };
        if self.is_replay {
            eprintln!("{input:?}");
        }
        if self.breaking.is_none() {
            self.record_input(&input);
        }
        let mut out = std::mem::take(&mut self.out);
        self.supervisor.step(input, self.now, &mut out);
        for (id, worker) in &mut self.workers {
            worker.history.finishing |= !worker.history.exited && self.supervisor.is_leaving(*id);
            worker.history.asked |= self.supervisor.was_asked(*id);
        }
        let many = if accepted && !self.stopping { 8 } else { 8 * self.fates.len() };
        assert!(out.len() <= many + 16 * (self.workers.len() + 4), "too many outputs");
        if let Some(id) = not_spawned {
            let wanted = self.history(id).finishing;
            self.check_exit(id, wanted);
        }
        for output in out.drain(..) {
            if self.is_replay {
                eprintln!("    {output:?}");
            }
            assert!(!self.finished || matches!(output, Output::Close { .. }), "{output:?}");
            self.perform(output);
        }
        self.out = out;
        // Signals that arrive during a reload share the next one.
        self.reload_on_signal &= self.supervisor.is_reloading();
        self.check_succession();
        self.check();
    }

    /// Records an input in the ledger and in the histories of the workers.
    fn record_input(&mut self, input: &Input<usize>) {
        let mut hold = |connection: &usize| {
            assert_eq!(self.fates[*connection], Fate::InInput);
            self.fates[*connection] = Fate::Supervisor;
            self.ledger.held += 1;
        };
        match input {
            Input::Accepted { connection, .. } => {
                hold(connection);
                self.ledger.accepted += 1;
            }
            Input::Reclaimed { connections, .. } => {
                connections.iter().for_each(hold);
                self.ledger.reclaimed += connections.len() as u64;
            }
            Input::Answered { answer: Answer::Declined(c) | Answer::Lost(c), .. } => {
                hold(c);
                self.ledger.reclaimed += 1;
            }
            Input::SendFailed { connection: Some(connection), .. } => {
                hold(connection);
                self.ledger.dispatched -= 1;
            }
            Input::Listening { worker, key } => {
                self.history(*worker).listening.insert(*key);
                self.history(*worker).listening_ever.insert(*key);
            }
            Input::ListenerClosed { worker, key } if self.workers.contains_key(worker) => {
                self.history(*worker).listening.remove(key);
            }
            Input::Online { worker } => self.history(*worker).online_received = true,
            Input::ChannelClosed { worker } => self.history(*worker).channel_closed = true,
            Input::Scale(slots) if !self.stopping => {
                self.ready_due = true;
                self.wanted = (0..*slots).collect();
                let surplus = self.workers.values_mut().filter(|worker| worker.slot >= *slots);
                surplus.for_each(|worker| worker.history.finishing |= !worker.history.exited);
            }
            // Such a request changes nothing.
            Input::DisconnectRequested { worker } if self.is_leaving_or_violator(*worker) => {}
            Input::DisconnectRequested { worker }
                if self.options.restart.restart != Restart::Never
                    && self.supervisor.holds_slot(*worker) =>
            {
                self.history(*worker).finishing = true;
                self.mark("left by itself");
            }
            Input::Disconnect { worker } | Input::DisconnectRequested { worker } => {
                let SimulatedWorker { slot, history, .. } = &self.workers[worker];
                // The slot stays wanted when the worker only leaves it or is about to take it.
                if !history.exited && self.supervisor.holds_slot(*worker) {
                    self.wanted.remove(&slot.clone());
                    self.history(*worker).finishing = true;
                }
            }
            Input::Reload { number: Some(number) } => _ = self.reloads.insert(*number),
            Input::Reload { number: None } => self.reload_on_signal = true,
            Input::Fork { .. } => self.forking = true,
            Input::DisconnectAll { number } => {
                let alive = self.workers.iter_mut().filter(|(_, worker)| !worker.history.exited);
                let mut ids = Vec::new();
                for (id, worker) in alive {
                    worker.history.finishing = true;
                    ids.push(*id);
                }
                self.wanted.clear();
                self.disconnecting_all.insert(*number, ids);
                self.disconnected_all = true;
            }
            Input::Shutdown => self.stopping = true,
            Input::Abort => (self.stopping, self.shutdown.aborting) = (true, true),
            _ => {}
        }
    }

    /// Whether a request to leave crosses that of the primary, or is ignored like every message of a
    /// worker that broke the protocol.
    fn is_leaving_or_violator(&self, worker: WorkerId) -> bool {
        self.supervisor.is_leaving(worker) || self.workers[&worker].history.violations > 0
    }

    /// Records that an event of [`SEEN`] has happened.
    pub(super) fn mark(&mut self, event: &'static str) {
        *self.seen.entry(event).or_insert(0) += 1;
    }

    pub(super) fn history(&mut self, worker: WorkerId) -> &mut WorkerHistory {
        &mut self.workers.get_mut(&worker).unwrap().history
    }

    fn perform(&mut self, output: Output<usize>) {
        match output {
            Output::Spawn { worker, slot, .. } => self.record_spawn(worker, slot),
            Output::CancelSpawn { worker } => self.cancel_spawn(worker),
            Output::Emit { worker, notice, exit_requested } => {
                self.check_notice(worker, notice, exit_requested);
            }
            Output::ListenFailed { errno, .. } => assert!([13, 24, 98].contains(&errno)),
            Output::ListenRefused { .. } => self.mark("refused"),
            Output::AskPermission { worker, request, .. } => self.ask_permission(worker, request),
            Output::StartFailed { .. } => self.check_start_failed(),
            Output::Ready => self.check_ready(),
            Output::Bind { key, address, options: _, reuse_port, rights: _ } => {
                self.bind(key, address, reuse_port);
            }
            Output::Unbind { key, drain } => self.unbind(key, drain),
            Output::Grant { worker, request, result } => self.grant(worker, request, result),
            Output::Accept { key, on } => {
                let bound = self.bound.get_mut(&key).expect("accepts from a bound address");
                assert_ne!(bound.on, on, "each output changes whether the primary accepts");
                assert!(self.options.policy != Policy::Shared && !bound.datagram);
                bound.on = on;
                if !on {
                    self.mark("all full");
                }
            }
            Output::AcceptOnBehalf { key, slot, on } => self.accept_on_behalf(key, slot, on),
            Output::Send { worker, key, connection } => self.send(worker, key, connection),
            Output::Probe { worker, key } => {
                self.check_may_send(worker, key);
                self.mark("probe");
                self.queues.get_mut(&(worker, key)).unwrap().probe();
            }
            Output::PollDepth { worker, key } => {
                let queue = self.queues.get(&(worker, key)).expect("polls an existing queue");
                let records = queue.depth();
                self.answers.push_back(Input::Depth { worker, key, records });
            }
            Output::Reclaim { worker, key } => self.reclaim(worker, key),
            Output::EndQueue { worker, key } => {
                self.queues.get_mut(&(worker, key)).expect("ends an existing queue").end();
            }
            Output::DropQueue { worker, key } => {
                if let Some(queue) = self.queues.remove(&(worker, key)) {
                    let read = queue.records().all(|record| record == KernelRecord::Probe);
                    let empty = read && queue.connections().is_empty();
                    assert!(empty, "{worker} {key} is not empty");
                }
            }
            Output::SendDisconnect { worker } => self.deliver_disconnect(worker),
            Output::CloseChannel { worker } => assert!(self.history(worker).exited),
            Output::Signal { worker, hard } => self.signal(worker, hard),
            Output::Close { connection, reason } => self.close(connection, reason),
            Output::Reloaded { numbers, on_signal, result } => {
                self.check_reloaded(&numbers, on_signal, result);
            }
            Output::AddressClosed { .. } => self.check_address_closed(),
            Output::Forked { worker, .. } => self.check_forked(worker),
            Output::Idle => self.check_idle(),
            Output::AllGone { number } => self.check_all_gone(number),
            Output::Finished => {
                assert!(!self.finished, "a primary finishes once");
                assert!(self.workers.values().all(|worker| worker.history.exited));
                self.finished = true;
            }
        }
    }

    fn signal(&mut self, id: WorkerId, hard: bool) {
        let worker = self.workers.get_mut(&id).unwrap();
        assert!(worker.history.spawned && !worker.history.exited, "signals a live worker");
        if hard {
            worker.history.killed = true;
            self.exit_process(id, ExitKind::Signal(9));
        } else {
            worker.got_sigterm = true;
        }
    }

    fn ask_permission(&mut self, worker: WorkerId, request: u32) {
        self.mark("asked");
        let refuses = self.faults && self.chance(20);
        let (refused, own) = (ListenPermission::Refused, ListenPermission::OwnRights);
        let permission = if refuses { refused } else { own };
        self.answers.push_back(Input::Permission { worker, request, permission });
    }

    fn cancel_spawn(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        assert!(!worker.history.spawned && worker.ended.is_none(), "the start was not answered");
        worker.ended = Some(ExitKind::Unknown);
        worker.history.exited = true;
        self.mark("start canceled");
        let wanted = self.history(id).finishing;
        self.check_exit(id, wanted);
    }

    fn deliver_disconnect(&mut self, id: WorkerId) {
        let history = self.history(id);
        history.send_disconnects += 1;
        assert_eq!(history.send_disconnects, 1);
        assert!(!history.exited);
        self.workers.get_mut(&id).unwrap().got_disconnect = true;
    }

    fn record_spawn(&mut self, id: WorkerId, slot: SlotId) {
        assert!(!self.stopping, "no worker is started during a shutdown");
        let stays = |other: &&SimulatedWorker| {
            other.slot == slot && !other.history.exited && !other.history.finishing
        };
        let staying = self.workers.values().filter(stays).count();
        let staying_max = usize::from(!self.reloads.is_empty() || self.reload_on_signal);
        assert!(staying <= staying_max, "slot {slot} has a worker");
        if staying > 0 {
            self.mark("replaced by a successor");
        }
        let forked = std::mem::take(&mut self.forking);
        if forked {
            assert!(self.wanted.insert(slot), "slot {slot} was vacant");
        }
        assert!(self.wanted.contains(&slot), "slot {slot} is wanted");
        let worker = SimulatedWorker { slot, forked, ..SimulatedWorker::default() };
        assert!(self.workers.insert(id, worker).is_none(), "a worker number is new");
    }

    fn close(&mut self, connection: usize, reason: CloseReason) {
        assert_eq!(self.fates[connection], Fate::Supervisor);
        self.fates[connection] = Fate::Closed;
        self.mark(match reason {
            CloseReason::Shutdown => "closed: shutdown",
            CloseReason::Overflow => "closed: overflow",
            CloseReason::NotListening => "closed: not listening",
        });
        self.ledger.held -= 1;
        self.ledger.closed[reason as usize] += 1;
        assert_eq!(
            reason == CloseReason::Shutdown,
            self.stopping && reason != CloseReason::Overflow
        );
        if reason == CloseReason::Shutdown {
            self.check_no_worker_could_take(connection);
        }
    }
}
