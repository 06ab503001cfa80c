//! The driver: gives inputs to the supervisor and performs its outputs.

use super::*;

impl World {
    pub(super) fn step(&mut self, input: Input<usize>) {
        let accepted = matches!(input, Input::Accepted { .. });
        let not_spawned = match input {
            Input::SpawnFailed { worker } => Some(worker),
            _ => None,
        };
        if self.shown {
            eprintln!("{input:?}");
        }
        self.note(&input);
        let mut out = std::mem::take(&mut self.out);
        self.supervisor.step(input, self.now, &mut out);
        for (id, worker) in &mut self.workers {
            worker.told.finishing |= !worker.told.exited && self.supervisor.is_leaving(*id);
        }
        let many = if accepted && !self.stopping { 8 } else { 8 * self.fates.len() };
        assert!(out.len() <= many + 16 * (self.workers.len() + 4), "too many outputs");
        if let Some(id) = not_spawned {
            let wanted = self.told(id).finishing;
            self.exit(id, wanted);
        }
        for output in out.drain(..) {
            if self.shown {
                eprintln!("    {output:?}");
            }
            assert!(!self.finished || matches!(output, Output::Close { .. }), "{output:?}");
            self.perform(output);
        }
        self.out = out;
        self.check();
    }

    pub(super) fn note(&mut self, input: &Input<usize>) {
        let mut held = |connection: &usize| {
            assert_eq!(self.fates[*connection], Fate::Coming);
            self.fates[*connection] = Fate::Supervisor;
            self.ledger.held += 1;
        };
        match input {
            Input::Accepted { connection, .. } => {
                held(connection);
                self.ledger.accepted += 1;
            }
            Input::Reclaimed { connections, .. } => {
                connections.iter().for_each(held);
                self.ledger.reclaimed += connections.len() as u64;
            }
            Input::Answered { answer: Answer::Declined(c) | Answer::Lost(c), .. } => {
                held(c);
                self.ledger.reclaimed += 1;
            }
            Input::SendFailed { connection: Some(connection), .. } => {
                held(connection);
                self.ledger.dispatched -= 1;
            }
            Input::Listening { worker, key } => {
                self.told(*worker).listening.insert(*key);
                self.told(*worker).listening_ever.insert(*key);
            }
            Input::ListenerClosed { worker, key } if self.workers.contains_key(worker) => {
                self.told(*worker).listening.remove(key);
            }
            Input::ChannelClosed { worker } => self.told(*worker).channel_closed = true,
            Input::Scale(slots) if !self.stopping => {
                self.ready_due = true;
                self.wanted = (0..*slots).collect();
                let surplus = self.workers.values_mut().filter(|worker| worker.slot >= *slots);
                surplus.for_each(|worker| worker.told.finishing |= !worker.told.exited);
            }
            Input::Disconnect { worker } | Input::DisconnectRequested { worker } => {
                let Worker { slot, told, .. } = &self.workers[worker];
                // One that leaves or comes has no say about the slot.
                if !told.exited && self.supervisor.holds_slot(*worker) {
                    self.wanted.remove(&slot.clone());
                    self.told(*worker).finishing = true;
                }
            }
            Input::Reload { number } if self.reload.is_none() && !self.stopping => {
                self.reload = Some(*number);
            }
            Input::Fork { .. } => self.forking = true,
            Input::DisconnectAll { number } => {
                let alive = self.workers.iter_mut().filter(|(_, worker)| !worker.told.exited);
                let mut ids = Vec::new();
                for (id, worker) in alive {
                    worker.told.finishing = true;
                    ids.push(*id);
                }
                self.wanted.clear();
                self.disconnecting_all.insert(*number, ids);
                self.all_gone = true;
            }
            Input::Shutdown => self.stopping = true,
            Input::Abort => (self.stopping, self.ending.aborting) = (true, true),
            _ => {}
        }
    }

    pub(super) fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    pub(super) fn told(&mut self, worker: WorkerId) -> &mut FromPrimary {
        &mut self.workers.get_mut(&worker).unwrap().told
    }

    pub(super) fn perform(&mut self, output: Output<usize>) {
        match output {
            Output::Spawn { worker, slot, .. } => self.order(worker, slot),
            Output::Emit { worker, notice, exit_requested } => {
                self.notice(worker, notice, exit_requested);
            }
            Output::ListenFailed { errno, .. } => assert!([13, 98].contains(&errno)),
            Output::StartFailed { .. } => self.start_failed(),
            Output::Ready => self.became_ready(),
            Output::Bind { key, address, options: _, reuse_port } => {
                self.bind(key, address, reuse_port);
            }
            Output::Unbind { key, drain } => self.unbind(key, drain),
            Output::Grant { worker, request, result } => self.grant(worker, request, result),
            Output::Accept { key, on } => {
                let port = self.ports.get_mut(&key).expect("accepts from an open port");
                assert_ne!(port.on, on, "told once");
                assert!(self.options.policy != Policy::Shared && !port.datagram);
                port.on = on;
                if !on {
                    self.saw("all full");
                }
            }
            Output::AcceptOnBehalf { key, slot, on } => self.accept_on_behalf(key, slot, on),
            Output::Send { worker, key, connection } => self.send(worker, key, connection),
            Output::Probe { worker, key } => {
                self.check_may_send(worker, key);
                self.saw("probe");
                self.queues.get_mut(&(worker, key)).unwrap().probe();
            }
            Output::PollDepth { worker, key } => {
                let queue = self.queues.get(&(worker, key)).expect("asks about a queue");
                let records = queue.depth();
                self.answers.push_back(Input::Depth { worker, key, records });
            }
            Output::Reclaim { worker, key } => self.reclaim(worker, key),
            Output::EndQueue { worker, key } => {
                self.queues.get_mut(&(worker, key)).expect("ends a queue").end();
            }
            Output::DropQueue { worker, key } => {
                if let Some(queue) = self.queues.remove(&(worker, key)) {
                    let read = queue.records().all(|record| record == KernelRecord::Probe);
                    let empty = read && queue.connections().is_empty();
                    assert!(empty, "{worker} {key} is not empty");
                }
            }
            Output::SendDisconnect { worker } => self.tell_to_finish(worker),
            Output::CloseChannel { worker } => assert!(self.told(worker).exited),
            Output::Signal { worker: id, hard } => {
                let worker = self.workers.get_mut(&id).unwrap();
                assert!(worker.told.spawned && !worker.told.exited, "signals a live worker");
                if hard {
                    worker.told.killed = true;
                    self.die(id, ExitKind::Signal(9));
                } else {
                    worker.term = true;
                }
            }
            Output::Close { connection, reason } => self.close(connection, reason),
            Output::Reloaded { number, result } => self.reloaded(number, result),
            Output::Forked { worker, .. } => self.forked(worker),
            Output::Idle => self.idle(),
            Output::AllGone { number } => self.left(number),
            Output::Finished => {
                assert!(!self.finished, "finished once");
                assert!(self.workers.values().all(|worker| worker.told.exited));
                self.finished = true;
            }
        }
    }

    pub(super) fn tell_to_finish(&mut self, id: WorkerId) {
        let told = self.told(id);
        told.send_disconnects += 1;
        assert_eq!(told.send_disconnects, 1);
        assert!(!told.exited);
        self.workers.get_mut(&id).unwrap().told_to_finish = true;
    }

    pub(super) fn order(&mut self, id: WorkerId, slot: SlotId) {
        assert!(!self.stopping, "nobody is started into a shutdown");
        let stays =
            |other: &&Worker| other.slot == slot && !other.told.exited && !other.told.finishing;
        let staying = self.workers.values().filter(stays).count();
        let most = usize::from(self.reload.is_some());
        assert!(staying <= most, "slot {slot} has a worker");
        if staying > 0 {
            self.saw("relieved");
        }
        let forked = std::mem::take(&mut self.forking);
        if forked {
            assert!(self.wanted.insert(slot), "slot {slot} was vacant");
        }
        assert!(self.wanted.contains(&slot), "slot {slot} is wanted");
        let worker = Worker { slot, forked, ..Worker::default() };
        assert!(self.workers.insert(id, worker).is_none(), "a new number");
    }

    pub(super) fn close(&mut self, connection: usize, reason: CloseReason) {
        assert_eq!(self.fates[connection], Fate::Supervisor);
        self.fates[connection] = Fate::Closed;
        self.saw(match reason {
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
            self.check_nobody_could(connection);
        }
    }
}
