//! The workers, the processes that they run in, and their channels.

use super::*;

#[derive(Debug, Default)]
pub(super) struct Worker {
    /// Somebody forked it, and hears when it cannot be started.
    pub(super) forked: bool,
    pub(super) slot: SlotId,
    pub(super) node: bool,
    /// Takes no connection: it has enough.
    pub(super) full: bool,
    pub(super) running: bool,
    pub(super) frozen: bool,
    /// Does not end when it is told to.
    pub(super) stubborn: bool,
    /// Does not end on `SIGTERM` either.
    pub(super) deaf: bool,
    pub(super) term: bool,
    pub(super) told_to_finish: bool,
    pub(super) said_online: bool,
    pub(super) wishes: VecDeque<Address>,
    pub(super) requests: u32,
    pub(super) unanswered: BTreeSet<u32>,
    /// Keys it accepts from.
    pub(super) listeners: BTreeSet<Key>,
    /// Those of them where it has its slot's own socket.
    pub(super) own: BTreeSet<Key>,
    /// What it said and the core was not given yet.
    pub(super) channel: VecDeque<Input<usize>>,
    pub(super) channel_open: bool,
    pub(super) ended: Option<ExitKind>,
    /// What the core was given.
    pub(super) told: FromPrimary,
}

#[derive(Debug, Default)]
pub(super) struct FromPrimary {
    pub(super) spawned: bool,
    pub(super) exited: bool,
    pub(super) channel_closed: bool,
    pub(super) listening: BTreeSet<Key>,
    pub(super) listening_ever: BTreeSet<Key>,
    pub(super) forks: u32,
    pub(super) onlines: u32,
    pub(super) disconnects: u32,
    pub(super) exits: u32,
    pub(super) send_disconnects: u32,
    pub(super) finishing: bool,
    pub(super) killed: bool,
}

impl Worker {
    fn kind(&self) -> WorkerKind {
        if self.node { WorkerKind::Node } else { WorkerKind::Native }
    }
}

impl World {
    pub(super) fn spawner(&mut self, id: WorkerId) -> bool {
        let fails = self.faults && self.chance(10);
        let node = self.chance(self.nodes);
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.told.spawned || worker.ended.is_some() {
            return false;
        }
        if fails {
            worker.ended = Some(ExitKind::Unknown);
            worker.told.exited = true;
            self.step(Input::SpawnFailed { worker: id });
        } else {
            worker.told.spawned = true;
            worker.running = true;
            worker.node = node;
            worker.channel_open = true;
            worker.wishes = self.program.iter().cloned().collect();
            let kind = worker.kind();
            self.step(Input::Spawned { worker: id, kind });
        }
        true
    }

    /// The worker does one thing, if it has something to do.
    pub(super) fn worker_acts(&mut self, id: WorkerId) -> bool {
        let crashes = self.faults && self.chance(1);
        let worker = self.workers.get_mut(&id).unwrap();
        if !worker.running || worker.frozen {
            return false;
        }
        if worker.term && !worker.deaf {
            self.die(id, ExitKind::Signal(15));
        } else if crashes || !worker.channel_open {
            self.die(id, ExitKind::Code(1));
        } else if !worker.said_online {
            worker.said_online = true;
            worker.channel.push_back(Input::Online { worker: id });
        } else if worker.told_to_finish && !worker.stubborn {
            return self.finish(id);
        } else if let Some(address) = worker.wishes.pop_front() {
            worker.requests += 1;
            let request = worker.requests;
            worker.unanswered.insert(request);
            // A Node worker keeps its limit to itself.
            let max_connections = self.open_max.filter(|_| !worker.node);
            let options = ListenOptions { max_connections, ..ListenOptions::new() };
            worker.channel.push_back(Input::ListenRequested {
                worker: id,
                request,
                address,
                options,
            });
        } else {
            return self.read(id);
        }
        true
    }

    /// Reads its queues to the end and ends.
    pub(super) fn finish(&mut self, id: WorkerId) -> bool {
        if self.read(id) {
            return true;
        }
        let node = self.workers[&id].node;
        let open = self.queues.iter().any(|((owner, _), queue)| *owner == id && !queue.has_ended());
        if open
            && !node
            && self.workers[&id].listeners.iter().any(|key| self.queues.contains_key(&(id, *key)))
        {
            return false;
        }
        self.die(id, ExitKind::Code(0));
        true
    }

    pub(super) fn read(&mut self, id: WorkerId) -> bool {
        if self.workers[&id].node && self.options.policy != Policy::Shared {
            return self.read_channel(id);
        }
        for key in self.workers[&id].listeners.iter().copied().collect::<Vec<_>>() {
            let datagram = self.ports.get(&key).is_some_and(|port| port.datagram);
            if self.options.policy == Policy::Shared || datagram {
                let connection = self.ports.get_mut(&key).and_then(|port| port.backlog.pop_front());
                if let Some(connection) = connection {
                    self.fates[connection] = Fate::Delivered;
                    return true;
                }
                continue;
            }
            if self.accept_itself(id, key) {
                return true;
            }
            let Some(queue) = self.queues.get_mut(&(id, key)) else {
                // The primary dropped it: its listener is at its end.
                self.close_key(id, key);
                return true;
            };
            let Some(record) = queue.read() else { continue };
            if queue.take_room_awaited() {
                self.answers.push_back(Input::Writable { worker: id, key });
            }
            if let KernelRecord::Connection(connection) = record {
                assert_eq!(self.fates[connection], Fate::Queue);
                self.fates[connection] = Fate::Delivered;
                self.saw("delivered");
                if let Some(count) = self.closed_counter.get(&(id, key)) {
                    count.open();
                    if self.chance(60) {
                        self.end_one(id, key);
                    }
                }
            }
            return true;
        }
        false
    }

    /// A worker accepts from its slot's own socket.
    pub(super) fn accept_itself(&mut self, id: WorkerId, key: Key) -> bool {
        let worker = &self.workers[&id];
        if !worker.own.contains(&key) || worker.told_to_finish {
            return false;
        }
        let door = self.ports.get_mut(&key).and_then(|port| port.doors.get_mut(&worker.slot));
        let Some(connection) = door.and_then(|door| door.backlog.pop_front()) else {
            return false;
        };
        self.fates[connection] = Fate::Delivered;
        self.saw("accepted by itself");
        true
    }

    /// A connection that some worker has open ends.
    pub(super) fn end_any(&mut self) -> bool {
        let lives = |id| self.workers[&id].running && !self.workers[&id].frozen;
        let open = |count: &ModelClosedCounter| count.open_count() > 0;
        let mut all =
            self.closed_counter.iter().filter(|((id, _), count)| open(count) && lives(*id));
        let found = all.next().map(|(of, _)| *of);
        found.inspect(|(id, key)| self.end_one(*id, *key)).is_some()
    }

    /// One of those it has open ends.
    pub(super) fn end_one(&mut self, id: WorkerId, key: Key) {
        let count = &self.closed_counter[&(id, key)];
        if count.close() {
            self.saw("told of room");
            self.say(id, Input::HasRoom { key });
        }
    }

    /// A Node worker takes the next connection off its channel and answers.
    pub(super) fn read_channel(&mut self, id: WorkerId) -> bool {
        let loses = self.faults && self.chance(5);
        let mut of = self.queues.iter_mut().filter(|((owner, _), _)| *owner == id);
        let Some((key, record)) = of.find_map(|((_, key), queue)| Some((*key, queue.read()?)))
        else {
            return false;
        };
        let KernelRecord::Connection(connection) = record else { panic!("a probe for {id}") };
        let worker = self.workers.get_mut(&id).unwrap();
        let answer = if loses {
            Answer::Lost(connection)
        } else if worker.full || !worker.listeners.contains(&key) {
            Answer::Declined(connection)
        } else {
            self.fates[connection] = Fate::Delivered;
            Answer::Taken
        };
        // Which one it is, is for the driver to say.
        let said = Input::Answered { worker: id, key, nth: connection, answer };
        self.workers.get_mut(&id).unwrap().channel.push_back(said);
        self.saw("delivered");
        true
    }

    pub(super) fn close_key(&mut self, id: WorkerId, key: Key) {
        self.workers.get_mut(&id).unwrap().listeners.remove(&key);
        self.say(id, Input::ListenerClosed { worker: id, key });
    }

    pub(super) fn say(&mut self, id: WorkerId, input: Input<usize>) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open && !worker.frozen {
            worker.channel.push_back(input);
        }
    }

    /// The core hears what the worker said.
    pub(super) fn receive(&mut self, id: WorkerId) -> bool {
        let Some(mut input) = self.workers.get_mut(&id).unwrap().channel.pop_front() else {
            return false;
        };
        if let Input::Answered { key, nth, answer, .. } = &mut input {
            let queue = self.queues.get_mut(&(id, *key)).expect("answers for a lane");
            let connection = std::mem::replace(
                nth,
                queue.connections().iter().position(|held| held == nth).expect("holds it"),
            );
            queue.answer(*nth);
            match answer {
                Answer::Taken => {}
                Answer::Declined(_) | Answer::Lost(_) => {
                    let what = if matches!(answer, Answer::Lost(_)) { "lost" } else { "declined" };
                    self.fates[connection] = Fate::Coming;
                    self.saw(what);
                }
            }
        }
        self.step(input);
        true
    }

    pub(super) fn see_exit(&mut self, id: WorkerId) -> bool {
        let worker = self.workers.get_mut(&id).unwrap();
        match worker.ended {
            Some(ended) if !worker.told.exited => {
                worker.told.exited = true;
                self.step(Input::Exited { worker: id, exit: ended });
                true
            }
            _ => false,
        }
    }

    pub(super) fn grant(&mut self, id: WorkerId, request: u32, result: Result<Grant, i32>) {
        let breaks = self.faults && self.chance(5);
        let refuses = self.faults && self.chance(10);
        let worker = self.workers.get_mut(&id).unwrap();
        if let (true, Ok(Grant { key, .. })) = (breaks, &result) {
            // No descriptor left for the queue.
            assert!(self.ports.contains_key(key), "grants an open port");
            let (key, errno) = (*key, sys::errno::EMFILE);
            return self.answers.push_back(Input::GrantFailed { worker: id, request, key, errno });
        }
        assert!(worker.unanswered.remove(&request), "answered once");
        let Ok(Grant { key, access, counts_closed, .. }) = result else {
            // A program without its port ends, most of the time.
            if refuses || worker.told_to_finish {
                return;
            }
            return self.die(id, ExitKind::Code(1));
        };
        assert!(self.ports.contains_key(&key), "grants an open port");
        if access != Access::Shared {
            self.open_for(id, key, access);
            if self.workers[&id].told.listening_ever.contains(&key) {
                self.saw("granted again");
            }
            let queue = KernelQueue::new(self.workers[&id].kind());
            let old = self.queues.insert((id, key), queue);
            assert!(old.is_none(), "a queue has one life");
            if counts_closed {
                let closed_counter = Arc::new(ModelClosedCounter::default());
                self.closed_counter.insert((id, key), closed_counter.clone());
                self.answers.push_back(Input::Counts { worker: id, key, closed_counter });
            }
        }
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.listeners.insert(key);
            worker.channel.push_back(Input::Listening { worker: id, key });
        }
    }
}
