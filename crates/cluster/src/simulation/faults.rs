//! The faults: workers that die, freeze or hang up, and commands of the user at a bad time.

use super::*;

impl World {
    pub(super) fn fault(&mut self) {
        let Some(id) = self.any_worker() else { return };
        match self.below(40) {
            35..=37 => {
                self.reloads += 1;
                self.step(Input::Fork { number: self.reloads, worker_options: Arc::default() });
            }
            38 if self.chance(30) => {
                self.reloads += 1;
                self.step(Input::DisconnectAll { number: self.reloads });
            }
            30..=31 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.full = !worker.full;
            }
            32..=34 => {
                self.reloads += 1;
                self.step(Input::Reload { number: self.reloads });
            }
            0..=5 => self.die(id, ExitKind::Signal(9)),
            6..=11 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.frozen = !worker.frozen;
            }
            12 => {
                self.now += Duration::from_secs(60);
                self.tick_if_due();
            }
            13..=14 => self.step(Input::Disconnect { worker: id }),
            15..=16 => self.say(id, Input::DisconnectRequested { worker: id }),
            17..=19 => {
                let slots = self.below(6) as u32;
                self.step(Input::Scale(slots));
            }
            20 => self.hang_up(id),
            21..=23 => self.close_listener(id),
            24 => self.die(id, ExitKind::Code(0)),
            25 => self.workers.get_mut(&id).unwrap().stubborn = true,
            26 => self.workers.get_mut(&id).unwrap().deaf = true,
            27 if self.chance(20) => self.step(Input::Shutdown),
            28 if self.chance(10) => self.step(Input::Abort),
            _ => self.answer_late(id),
        }
    }

    /// News that were true once.
    pub(super) fn answer_late(&mut self, worker: WorkerId) {
        let key = 1 + self.below(3) as u32;
        match self.below(4) {
            0 => self.step(Input::Writable { worker, key }),
            1 => self.step(Input::ListenerClosed { worker: worker + 1000, key }),
            2 => self.step(Input::Depth { worker: worker + 1000, key, records: 1 }),
            _ => self.step(Input::Tick),
        }
    }

    pub(super) fn close_listener(&mut self, id: WorkerId) {
        let again = self.chance(50);
        let Some(key) = self.workers[&id].listeners.first().copied() else { return };
        if self.workers[&id].running && !self.workers[&id].frozen {
            self.close_key(id, key);
            if again {
                let address = self.program[0].clone();
                self.workers.get_mut(&id).unwrap().wishes.push_back(address);
            }
        }
    }

    pub(super) fn hang_up(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.channel_open = false;
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }

    pub(super) fn die(&mut self, id: WorkerId, exit: ExitKind) {
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
                // An answer is written before the connection is used.
                worker.channel.retain(|said| matches!(said, Input::Answered { .. }));
            }
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }
}
