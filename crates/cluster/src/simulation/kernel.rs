//! The kernel and the clients: listening sockets, backlogs, and the hand-off queues.

use super::*;

/// An address that the driver has bound, with all its sockets.
#[derive(Debug)]
pub(super) struct BoundAddress {
    /// Whether the driver accepts.
    pub(super) on: bool,
    /// Whether the socket is for datagrams: the workers share it, and nothing is accepted.
    pub(super) datagram: bool,
    pub(super) address: Address,
    /// Whether the driver accepts all that the backlog holds, wanted or not, and then closes the
    /// socket.
    pub(super) closing: bool,
    pub(super) backlog: VecDeque<usize>,
    /// Whether each slot has a socket of its own.
    pub(super) is_reuse_port: bool,
    /// Whether the socket that belongs to no slot listens.
    pub(super) listens: bool,
    pub(super) slot_sockets: BTreeMap<SlotId, SlotSocket>,
}

/// A slot's own socket.
#[derive(Debug)]
pub(super) struct SlotSocket {
    /// Whether the driver accepts from this socket.
    pub(super) is_accepted_on_behalf: bool,
    pub(super) backlog: VecDeque<usize>,
}

impl BoundAddress {
    /// Takes the next connection that the driver may accept.
    pub(super) fn next(&mut self) -> Option<usize> {
        let (closing, on) = (self.closing, self.on);
        let slot_sockets = self
            .slot_sockets
            .values_mut()
            .filter(|socket| closing || (on && socket.is_accepted_on_behalf));
        let mut backlogs =
            std::iter::once(&mut self.backlog).chain(slot_sockets.map(|it| &mut it.backlog));
        backlogs.find_map(VecDeque::pop_front)
    }

    /// Returns the backlog in which a client arrives. The choice stands for the kernel's hash.
    pub(super) fn backlog(&mut self, chance: usize) -> Option<&mut VecDeque<usize>> {
        if self.datagram {
            return None;
        }
        let slot_sockets = self.slot_sockets.values_mut().map(|socket| &mut socket.backlog);
        let mut all: Vec<_> =
            self.listens.then_some(&mut self.backlog).into_iter().chain(slot_sockets).collect();
        if all.is_empty() { None } else { Some(all.swap_remove(chance % all.len())) }
    }
}

impl World {
    /// Lets some clients connect to one address.
    pub(super) fn connect_clients(&mut self) {
        let Some(key) = self.any_key() else { return };
        for _ in 0..=self.below(4) {
            let chance = self.below(100);
            let bound = self.bound.get_mut(&key).unwrap();
            let closing = bound.closing;
            let Some(backlog) = bound.backlog(chance) else { return };
            if backlog.len() < BACKLOG && !(closing && backlog.is_empty()) {
                backlog.push_back(self.fates.len());
                self.fates.push(Fate::Backlog);
                self.arrival_keys.push(key);
                self.sends.push(0);
            }
        }
    }

    /// Lets the driver accept one connection, or close a socket whose backlog is empty. Returns
    /// `false` when there is nothing to do.
    pub(super) fn accept(&mut self, key: Key) -> bool {
        let bound = self.bound.get_mut(&key).unwrap();
        if !bound.on && !bound.closing {
            return false;
        }
        let closing = bound.closing;
        let Some(connection) = bound.next() else {
            if closing {
                self.bound.remove(&key);
                self.step(Input::Unbound { key });
            }
            return closing;
        };
        if closing {
            self.mark("drained");
        }
        self.fates[connection] = Fate::InInput;
        self.step(Input::Accepted { key, connection });
        true
    }

    /// Lets the driver find connections that wait in a slot's own socket.
    pub(super) fn report_unaccepted(&mut self) {
        let Some(key) = self.any_key() else { return };
        let mut slot_sockets = self.bound[&key].slot_sockets.iter();
        let waits =
            |socket: &SlotSocket| !socket.is_accepted_on_behalf && !socket.backlog.is_empty();
        if let Some((&slot, _)) = slot_sockets.find(|(_, socket)| waits(socket)) {
            self.step(Input::Unaccepted { key, slot });
        }
    }

    pub(super) fn bind(&mut self, key: Key, mut address: Address, reuse_port: bool) {
        assert!(self.keys.insert(key), "a key is bound once");
        if self.faults && self.chance(20) {
            let errno = if self.chance(50) { 98 } else { 13 };
            return self.answers.push_back(Input::Bound { key, result: Err(errno) });
        }
        if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &mut address {
            if address.port() == 0 {
                address.set_port(self.next_port);
                self.next_port += 1;
            }
        }
        assert!(self.bound.values().all(|bound| bound.address != address), "{address} is in use");
        let is_reuse_port = reuse_port && !self.chance(20);
        let bound = BoundAddress {
            on: false,
            datagram: address.is_datagram(),
            address: address.clone(),
            closing: false,
            backlog: VecDeque::new(),
            is_reuse_port,
            listens: !is_reuse_port,
            slot_sockets: BTreeMap::new(),
        };
        self.bound.insert(key, bound);
        self.answers.push_back(Input::Bound { key, result: Ok(address) });
    }

    pub(super) fn unbind(&mut self, key: Key, drain: bool) {
        let bound = self.bound.get_mut(&key).expect("closes a bound address");
        assert!(!bound.closing, "an address is closed once");
        self.check_may_unbind(key);
        let bound = self.bound.get_mut(&key).expect("just seen");
        self.shutdown.closed_at.insert(key, self.now);
        if drain {
            bound.closing = true;
            return;
        }
        let bound = self.bound.remove(&key).expect("just seen");
        let slot_sockets = bound.slot_sockets.into_values().flat_map(|socket| socket.backlog);
        for connection in bound.backlog.into_iter().chain(slot_sockets) {
            self.fates[connection] = Fate::Reset;
        }
        self.answers.push_back(Input::Unbound { key });
    }

    /// Opens the sockets through which the worker's connections arrive.
    pub(super) fn open_access(&mut self, id: WorkerId, key: Key, access: Access) {
        let bound = self.bound.get_mut(&key).unwrap();
        let worker = self.workers.get_mut(&id).unwrap();
        let Access::OwnSocket(slot) = access else {
            bound.listens = true;
            return;
        };
        assert!(!worker.node && slot == worker.slot, "{id} gets the socket of its slot");
        if bound.is_reuse_port {
            let new = SlotSocket { is_accepted_on_behalf: true, backlog: VecDeque::new() };
            bound.slot_sockets.entry(slot).or_insert(new);
            worker.own_sockets.insert(key);
        } else {
            self.mark("no own socket");
            self.answers.push_back(Input::NoOwnSocket { worker: id, key });
        }
    }

    pub(super) fn accept_on_behalf(&mut self, key: Key, slot: SlotId, on: bool) {
        if on {
            self.mark("accepted on behalf");
        }
        // The address may be closed already.
        let bound = self.bound.get_mut(&key);
        if let Some(socket) = bound.and_then(|bound| bound.slot_sockets.get_mut(&slot)) {
            assert_ne!(socket.is_accepted_on_behalf, on, "each output changes who accepts");
            socket.is_accepted_on_behalf = on;
        }
    }

    pub(super) fn send(&mut self, worker: WorkerId, key: Key, connection: usize) {
        assert_eq!(self.fates[connection], Fate::Supervisor);
        self.check_may_send(worker, key);
        self.ledger.held -= 1;
        self.ledger.dispatched += 1;
        let in_flight = self.faults && self.chance(3);
        let gone = self.faults && self.chance(1);
        let queue = self.queues.get_mut(&(worker, key)).unwrap();
        let (refusal, event) = if queue.records().len() >= QUEUE_RECORDS {
            (Refusal::Full, "queue full")
        } else if in_flight {
            (Refusal::InFlight, "in flight")
        } else if gone {
            (Refusal::Gone, "gone")
        } else {
            self.fates[connection] = Fate::Queue;
            queue.send(connection);
            let unread = queue.records().filter(|it| matches!(it, KernelRecord::Connection(_)));
            let open = self.pages.get(&(worker, key)).map(|count| count.open_count());
            let has = unread.count() as u64 + open.unwrap_or(0);
            let max = self.open_max.filter(|_| !self.workers[&worker].node);
            let closed_at = self.shutdown.closed_at.contains_key(&key);
            let within = closed_at || max.is_none_or(|max| has <= u64::from(max));
            assert!(within, "{worker} has {has} of {key}");
            return self.check_sends(connection);
        };
        queue.refuse(refusal);
        self.mark(event);
        if refusal == Refusal::Gone && self.workers[&worker].node {
            // A channel refuses a message only when it is closed.
            self.close_channel(worker);
        }
        self.fates[connection] = Fate::InInput;
        let connection = Some(connection);
        self.answers.push_back(Input::SendFailed { worker, key, connection, refusal });
    }

    pub(super) fn reclaim(&mut self, worker: WorkerId, key: Key) {
        if self.workers[&worker].node {
            return self.reclaim_unanswered(worker, key);
        }
        let part = self.faults && self.chance(10);
        let queue = self.queues.get_mut(&(worker, key)).expect("reclaims an existing queue");
        let all = queue.records().len();
        let count = if part { all / 2 } else { all };
        let (connections, probes) = queue.reclaim(count);
        if part && all > count {
            self.mark("reclaimed in part");
        }
        if count > 0 {
            self.mark("reclaimed");
        }
        connections.iter().for_each(|connection| self.fates[*connection] = Fate::InInput);
        self.answers.push_back(Input::Reclaimed { worker, key, connections, probes });
    }

    /// Answers `Reclaim` for a Node worker whose channel has been read to its end.
    fn reclaim_unanswered(&mut self, id: WorkerId, key: Key) {
        let (worker, queue) = (&self.workers[&id], self.queues.get_mut(&(id, key)).unwrap());
        assert!(worker.history.exited || worker.history.channel_closed, "{id} may still answer");
        let answers = |message: &Input<usize>| matches!(message, Input::Answered { .. });
        assert!(!worker.channel.iter().any(answers), "{id} has answered");
        let (connections, _) = queue.reclaim(usize::MAX);
        connections.iter().for_each(|it| {
            let before = std::mem::replace(&mut self.fates[*it], Fate::InInput);
            assert_eq!(before, Fate::Queue, "{id} has used {it}");
        });
        self.mark("unanswered reclaimed");
        self.answers.push_back(Input::Reclaimed { worker: id, key, connections, probes: 0 });
    }
}
