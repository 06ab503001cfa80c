//! The faults: workers that exit, freeze or close their channels, and requests of the user at a bad
//! time.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        let Some(id) = self.any_worker() else { return };
        match self.below(42) {
            35..=37 => {
                self.last_number += 1;
                self.step(Input::Fork { number: self.last_number, worker_options: Arc::default() });
            }
            38 if self.chance(30) => {
                self.last_number += 1;
                self.step(Input::DisconnectAll { number: self.last_number });
            }
            30..=31 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.full = !worker.full;
            }
            32..=34 => {
                self.last_number += 1;
                let number = (!self.chance(20)).then_some(self.last_number);
                self.step(Input::Reload { number });
            }
            0..=5 => self.exit_process(id, ExitKind::Signal(9)),
            6..=11 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.frozen = !worker.frozen;
            }
            12 => {
                self.now += Duration::from_secs(60);
                self.tick_if_due();
            }
            13..=14 => self.step(Input::Disconnect { worker: id }),
            15..=16 => self.send_to_primary(id, Input::DisconnectRequested { worker: id }),
            17..=19 => {
                let slots = self.below(6) as u32;
                self.step(Input::Scale(slots));
            }
            20 => self.close_channel(id),
            21..=23 => self.close_listener(id),
            24 => self.exit_process(id, ExitKind::Code(0)),
            25 => self.workers.get_mut(&id).unwrap().ignores_disconnect = true,
            26 => self.workers.get_mut(&id).unwrap().ignores_sigterm = true,
            27 if self.chance(20) => self.step(Input::Shutdown),
            27 if self.chance(10) => self.give_up_start(),
            27 if self.chance(50) => self.close_address(),
            28 if self.chance(10) => self.step(Input::Abort),
            40..=41 if self.chance(40) => self.break_protocol(id),
            _ => self.send_stale_input(id),
        }
    }

    /// The user waits no longer for the start.
    fn give_up_start(&mut self) {
        if self.supervisor.is_starting() && !self.stopping {
            self.mark("start given up");
            self.stopping = true;
            let least = crate::supervisor::shutdown::GIVEN_UP_DISCONNECT;
            self.options.disconnect = self.options.disconnect.min(least);
        }
        self.step(Input::GiveUpStart);
    }

    /// The user closes an address.
    fn close_address(&mut self) {
        let Some(key) = self.any_key() else { return };
        let address = self.bound[&key].address.clone();
        self.closed_by_user.insert(key);
        self.step(Input::CloseAddress { address });
    }

    /// The worker sends what no worker of this crate sends. Others must not notice that.
    fn break_protocol(&mut self, id: WorkerId) {
        let strange = self.any_key().filter(|key| !self.workers[&id].granted.contains(key));
        let worker = &self.workers[&id];
        if !worker.running || !worker.channel_open || !worker.history.spawned {
            return;
        }
        let (online, node) = (worker.history.online_received, worker.node);
        let key = strange.unwrap_or(Key::MAX);
        let input = match self.below(5) {
            0 if !node => Input::Listening { worker: id, key },
            1 if !node => Input::ListenerClosed { worker: id, key },
            2 if !node => Input::HasRoom { worker: id, key: Key::MAX },
            3 if !node && online => Input::Online { worker: id },
            _ => Input::Violated { worker: id, violation: Violation::UnknownMessage },
        };
        self.breaking = Some(id);
        self.step(input);
        self.breaking = None;
        let history = &self.workers[&id].history;
        assert!(history.violations == 1 && history.killed, "{id} is ended");
        self.mark("violation");
    }

    /// Sends an input that is out of date.
    fn send_stale_input(&mut self, worker: WorkerId) {
        let key = 1 + self.below(3) as Key;
        match self.below(4) {
            0 => self.step(Input::Writable { worker, key }),
            1 => self.step(Input::ListenerClosed { worker: WorkerId(worker.0 + 1000), key }),
            2 => self.step(Input::Depth { worker: WorkerId(worker.0 + 1000), key, records: 1 }),
            _ => self.step(Input::Tick),
        }
    }

    /// Closes a listener of the worker, which may request its address again.
    fn close_listener(&mut self, id: WorkerId) {
        let requests_again = self.chance(50);
        let Some(key) = self.workers[&id].listeners.first().copied() else { return };
        if self.workers[&id].running && !self.workers[&id].frozen {
            self.close_listener_of(id, key);
            if requests_again {
                let address = self.program[0].clone();
                self.workers.get_mut(&id).unwrap().addresses_to_request.push_back(address);
            }
        }
    }

    /// The worker closes its channel.
    pub(super) fn close_channel(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.channel_open = false;
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }

    /// The worker's process exits, perhaps with messages unsent.
    pub(super) fn exit_process(&mut self, id: WorkerId, exit: ExitKind) {
        let lost = self.faults && self.chance(30);
        let worker = self.workers.get_mut(&id).unwrap();
        if !worker.running {
            return;
        }
        worker.running = false;
        worker.ended = Some(exit);
        if worker.channel_open {
            worker.channel_open = false;
            if lost {
                // A Node worker writes its answer before it uses the connection.
                worker.channel.retain(|message| matches!(message, Input::Answered { .. }));
            }
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }
}
