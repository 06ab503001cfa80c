//! The workers, the processes that they run in, and their channels.

use super::*;

/// A worker and its process.
#[derive(Debug, Default)]
pub(super) struct SimulatedWorker {
    /// Whether `Fork` made the worker: its slot is given up when the worker cannot be started.
    pub(super) forked: bool,
    pub(super) slot: SlotId,
    pub(super) node: bool,
    /// Whether the worker is a Node worker that declines every connection.
    pub(super) full: bool,
    /// Whether the start of the process is never answered.
    pub(super) start_hangs: bool,
    pub(super) running: bool,
    pub(super) frozen: bool,
    /// Whether the worker stays when it gets a disconnect message.
    pub(super) ignores_disconnect: bool,
    /// Whether the worker ignores `SIGTERM`.
    pub(super) ignores_sigterm: bool,
    pub(super) got_sigterm: bool,
    pub(super) got_disconnect: bool,
    pub(super) sent_online: bool,
    pub(super) addresses_to_request: VecDeque<Address>,
    /// The number of the last listen request.
    pub(super) requests: u32,
    pub(super) pending_requests: BTreeSet<u32>,
    /// The keys that the worker was ever granted.
    pub(super) granted: BTreeSet<Key>,
    /// The keys from which the worker accepts.
    pub(super) listeners: BTreeSet<Key>,
    /// The keys for which the worker has its slot's own socket.
    pub(super) own_sockets: BTreeSet<Key>,
    /// The messages that the supervisor has not received.
    pub(super) channel: VecDeque<Input<usize>>,
    pub(super) channel_open: bool,
    pub(super) ended: Option<ExitKind>,
    /// The inputs and outputs of the supervisor about this worker.
    pub(super) history: WorkerHistory,
}

/// The inputs about one worker that the supervisor has received, and the outputs that it has made.
#[derive(Debug, Default)]
pub(super) struct WorkerHistory {
    pub(super) spawned: bool,
    pub(super) exited: bool,
    pub(super) channel_closed: bool,
    pub(super) listening: BTreeSet<Key>,
    pub(super) listening_ever: BTreeSet<Key>,
    /// Whether the supervisor has received that the worker is online.
    pub(super) online_received: bool,
    pub(super) violations: u32,
    pub(super) forks: u32,
    pub(super) onlines: u32,
    pub(super) disconnects: u32,
    pub(super) exits: u32,
    pub(super) send_disconnects: u32,
    /// Whether the worker was requested to exit.
    pub(super) finishing: bool,
    /// Whether the primary requested that.
    pub(super) asked: bool,
    pub(super) killed: bool,
}

impl SimulatedWorker {
    fn kind(&self) -> WorkerKind {
        if self.node { WorkerKind::Node } else { WorkerKind::Native }
    }
}

impl World {
    /// Starts the worker's process, or fails to. Returns `false` when that has happened already.
    pub(super) fn start_process(&mut self, id: WorkerId) -> bool {
        let fails = self.faults && self.chance(10);
        let hangs = self.faults && self.chance(2);
        let node = self.chance(self.node_percent);
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.history.spawned || worker.ended.is_some() || worker.start_hangs {
            return false;
        }
        if hangs {
            worker.start_hangs = true;
            return true;
        }
        if fails {
            worker.ended = Some(ExitKind::Unknown);
            worker.history.exited = true;
            self.step(Input::SpawnFailed { worker: id });
        } else {
            worker.history.spawned = true;
            worker.running = true;
            worker.node = node;
            worker.channel_open = true;
            worker.addresses_to_request = self.program.iter().cloned().collect();
            let kind = worker.kind();
            self.step(Input::Spawned { worker: id, kind });
        }
        true
    }

    /// Lets the worker do one thing. Returns `false` when it has nothing to do.
    pub(super) fn worker_acts(&mut self, id: WorkerId) -> bool {
        let crashes = self.faults && self.chance(1);
        let facts = ListenFacts { credentials: self.credentials.clone(), ..ListenFacts::default() };
        let worker = self.workers.get_mut(&id).unwrap();
        if !worker.running || worker.frozen {
            return false;
        }
        if worker.got_sigterm && !worker.ignores_sigterm {
            self.exit_process(id, ExitKind::Signal(15));
        } else if crashes || !worker.channel_open {
            self.exit_process(id, ExitKind::Code(1));
        } else if !worker.sent_online {
            worker.sent_online = true;
            worker.channel.push_back(Input::Online { worker: id });
        } else if worker.got_disconnect && !worker.ignores_disconnect {
            return self.finish(id);
        } else if let Some(address) = worker.addresses_to_request.pop_front() {
            worker.requests += 1;
            let request = worker.requests;
            worker.pending_requests.insert(request);
            // A Node worker does not report its limit.
            let max_connections = self.open_max.filter(|_| !worker.node);
            let options = ListenOptions { max_connections, ..ListenOptions::new() };
            worker.channel.push_back(Input::ListenRequested {
                worker: id,
                request,
                address,
                options,
                facts,
            });
        } else {
            return self.read(id);
        }
        true
    }

    /// Lets a worker that is to exit read its queues to the end, and exit.
    fn finish(&mut self, id: WorkerId) -> bool {
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
        self.exit_process(id, ExitKind::Code(0));
        true
    }

    /// Lets the worker accept one connection, from any of its listeners.
    fn read(&mut self, id: WorkerId) -> bool {
        if self.workers[&id].node && self.options.policy != Policy::Shared {
            return self.read_channel(id);
        }
        for key in self.workers[&id].listeners.iter().copied().collect::<Vec<_>>() {
            let datagram = self.bound.get(&key).is_some_and(|bound| bound.datagram);
            if self.options.policy == Policy::Shared || datagram {
                let connection =
                    self.bound.get_mut(&key).and_then(|bound| bound.backlog.pop_front());
                if let Some(connection) = connection {
                    self.fates[connection] = Fate::Delivered;
                    return true;
                }
                continue;
            }
            if self.accept_from_own_socket(id, key) {
                return true;
            }
            let Some(queue) = self.queues.get_mut(&(id, key)) else {
                // The primary has dropped the queue, which ends the listener.
                self.close_listener_of(id, key);
                return true;
            };
            let Some(record) = queue.read() else { continue };
            if queue.take_room_awaited() {
                self.answers.push_back(Input::Writable { worker: id, key });
            }
            if let KernelRecord::Connection(connection) = record {
                assert_eq!(self.fates[connection], Fate::Queue);
                self.fates[connection] = Fate::Delivered;
                self.mark("delivered");
                if let Some(count) = self.pages.get(&(id, key)) {
                    count.open();
                    if self.chance(60) {
                        self.close_one(id, key);
                    }
                }
            }
            return true;
        }
        false
    }

    /// Lets the worker accept from its slot's own socket.
    fn accept_from_own_socket(&mut self, id: WorkerId, key: Key) -> bool {
        let worker = &self.workers[&id];
        if !worker.own_sockets.contains(&key) || worker.got_disconnect {
            return false;
        }
        let socket =
            self.bound.get_mut(&key).and_then(|bound| bound.slot_sockets.get_mut(&worker.slot));
        let Some(connection) = socket.and_then(|socket| socket.backlog.pop_front()) else {
            return false;
        };
        self.fates[connection] = Fate::Delivered;
        self.mark("accepted by itself");
        true
    }

    /// Lets a worker close a connection. Returns `false` when none has one open.
    pub(super) fn close_any(&mut self) -> bool {
        let lives = |id| self.workers[&id].running && !self.workers[&id].frozen;
        let open = |count: &ModelPage| count.open_count() > 0;
        let mut all = self.pages.iter().filter(|((id, _), count)| open(count) && lives(*id));
        let found = all.next().map(|(of, _)| *of);
        found.inspect(|(id, key)| self.close_one(*id, *key)).is_some()
    }

    /// Lets the worker close one of its open connections.
    fn close_one(&mut self, id: WorkerId, key: Key) {
        let count = &self.pages[&(id, key)];
        if count.close() {
            self.mark("room reported");
            self.send_to_primary(id, Input::HasRoom { worker: id, key });
        }
    }

    /// Lets a Node worker read the next connection from its channel and answer.
    fn read_channel(&mut self, id: WorkerId) -> bool {
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
        // The driver replaces the number of the connection by its place among the unanswered.
        let message = Input::Answered { worker: id, key, nth: connection, answer };
        self.workers.get_mut(&id).unwrap().channel.push_back(message);
        self.mark("delivered");
        true
    }

    pub(super) fn close_listener_of(&mut self, id: WorkerId, key: Key) {
        self.workers.get_mut(&id).unwrap().listeners.remove(&key);
        self.send_to_primary(id, Input::ListenerClosed { worker: id, key });
    }

    pub(super) fn send_to_primary(&mut self, id: WorkerId, input: Input<usize>) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open && !worker.frozen {
            worker.channel.push_back(input);
        }
    }

    /// Gives the worker's next message to the supervisor. Returns `false` when there is none.
    pub(super) fn receive(&mut self, id: WorkerId) -> bool {
        let Some(mut input) = self.workers.get_mut(&id).unwrap().channel.pop_front() else {
            return false;
        };
        if let Input::Answered { key, nth, answer, .. } = &mut input {
            let queue = self.queues.get_mut(&(id, *key)).expect("answers for an existing queue");
            let connection = std::mem::replace(
                nth,
                queue
                    .connections()
                    .iter()
                    .position(|held| held == nth)
                    .expect("answers an unanswered connection"),
            );
            queue.answer(*nth);
            match answer {
                Answer::Taken => {}
                Answer::Declined(_) | Answer::Lost(_) => {
                    let event = if matches!(answer, Answer::Lost(_)) { "lost" } else { "declined" };
                    self.fates[connection] = Fate::InInput;
                    self.mark(event);
                }
            }
        }
        self.step(input);
        true
    }

    /// Reports the exit of the worker's process. Returns `false` when there is nothing to report.
    pub(super) fn report_exit(&mut self, id: WorkerId) -> bool {
        let worker = self.workers.get_mut(&id).unwrap();
        match worker.ended {
            Some(ended) if !worker.history.exited => {
                worker.history.exited = true;
                self.step(Input::Exited { worker: id, exit: ended });
                true
            }
            _ => false,
        }
    }

    pub(super) fn grant(&mut self, id: WorkerId, request: u32, result: Result<Grant, i32>) {
        let fails = self.faults && self.chance(5);
        let goes_on = self.faults && self.chance(10);
        let worker = self.workers.get_mut(&id).unwrap();
        if let (true, Ok(Grant { key, .. })) = (fails, &result) {
            // The driver has no descriptor left for the queue.
            assert!(self.bound.contains_key(key), "grants a bound address");
            let (key, errno) = (*key, sys::errno::EMFILE);
            return self.answers.push_back(Input::GrantFailed { worker: id, request, key, errno });
        }
        assert!(worker.pending_requests.remove(&request), "a listen request is answered once");
        let Ok(Grant { key, access, counts_closed, .. }) = result else {
            // Most programs exit when they cannot listen.
            if goes_on || worker.got_disconnect {
                return;
            }
            return self.exit_process(id, ExitKind::Code(1));
        };
        assert!(self.bound.contains_key(&key), "grants a bound address");
        worker.granted.insert(key);
        if access != Access::Shared {
            self.open_access(id, key, access);
            if self.workers[&id].history.listening_ever.contains(&key) {
                self.mark("granted again");
            }
            let queue = KernelQueue::new(self.workers[&id].kind());
            let old = self.queues.insert((id, key), queue);
            assert!(old.is_none(), "a queue has one life");
            if counts_closed {
                let page = Arc::new(ModelPage::counting());
                self.pages.insert((id, key), page.clone());
                self.answers.push_back(Input::Counts { worker: id, key, page });
            }
        }
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.listeners.insert(key);
            worker.channel.push_back(Input::Listening { worker: id, key });
        }
    }
}
