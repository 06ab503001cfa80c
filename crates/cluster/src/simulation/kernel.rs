//! The kernel and the clients: listening sockets, backlogs, and the hand-off queues.

use super::*;

#[derive(Debug)]
pub(super) struct Port {
    pub(super) on: bool,
    /// Nothing is accepted: its workers share it.
    pub(super) datagram: bool,
    pub(super) address: Address,
    /// What its backlog holds is taken, wanted or not, and then it is closed.
    pub(super) closing: bool,
    pub(super) backlog: VecDeque<usize>,
    /// Slots have sockets of their own here.
    pub(super) group: bool,
    /// Clients come in at the one that is nobody's own.
    pub(super) listens: bool,
    pub(super) doors: BTreeMap<SlotId, Door>,
}

/// A slot's own socket.
#[derive(Debug)]
pub(super) struct Door {
    /// The driver accepts from it.
    pub(super) stands_in: bool,
    pub(super) backlog: VecDeque<usize>,
}

impl Port {
    /// The next one that the driver may take.
    pub(super) fn next(&mut self) -> Option<usize> {
        let (closing, on) = (self.closing, self.on);
        let doors = self.doors.values_mut().filter(|door| closing || (on && door.stands_in));
        let mut backlogs =
            std::iter::once(&mut self.backlog).chain(doors.map(|it| &mut it.backlog));
        backlogs.find_map(VecDeque::pop_front)
    }

    /// Where a client comes in: by chance, as the kernel's hash has it.
    pub(super) fn backlog(&mut self, chance: usize) -> Option<&mut VecDeque<usize>> {
        if self.datagram {
            return None;
        }
        let doors = self.doors.values_mut().map(|door| &mut door.backlog);
        let mut all: Vec<_> =
            self.listens.then_some(&mut self.backlog).into_iter().chain(doors).collect();
        if all.is_empty() { None } else { Some(all.swap_remove(chance % all.len())) }
    }
}

impl World {
    pub(super) fn client(&mut self) {
        let Some(key) = self.any_port() else { return };
        for _ in 0..=self.below(4) {
            let chance = self.below(100);
            let port = self.ports.get_mut(&key).unwrap();
            let closing = port.closing;
            let Some(backlog) = port.backlog(chance) else { return };
            if backlog.len() < BACKLOG && !(closing && backlog.is_empty()) {
                backlog.push_back(self.fates.len());
                self.fates.push(Fate::Backlog);
                self.homes.push(key);
                self.sends.push(0);
            }
        }
    }

    pub(super) fn accept(&mut self, key: Key) -> bool {
        let port = self.ports.get_mut(&key).unwrap();
        if !port.on && !port.closing {
            return false;
        }
        let closing = port.closing;
        let Some(connection) = port.next() else {
            if closing {
                self.ports.remove(&key);
                self.step(Input::Unbound { key });
            }
            return closing;
        };
        if closing {
            self.saw("drained");
        }
        self.fates[connection] = Fate::Coming;
        self.step(Input::Accepted { key, connection });
        true
    }

    /// The driver sees that connections wait in a slot's own socket.
    pub(super) fn poll(&mut self) {
        let Some(key) = self.any_port() else { return };
        let mut doors = self.ports[&key].doors.iter();
        let waits = |door: &Door| !door.stands_in && !door.backlog.is_empty();
        if let Some((&slot, _)) = doors.find(|(_, door)| waits(door)) {
            self.step(Input::Unaccepted { key, slot });
        }
    }

    pub(super) fn bind(&mut self, key: Key, asked: Address, reuse_port: bool) {
        assert!(self.keys.insert(key), "a key is bound once");
        if self.faults && self.chance(20) {
            let errno = if self.chance(50) { 98 } else { 13 };
            return self.answers.push_back(Input::Bound { key, result: Err(errno) });
        }
        let mut bound = asked;
        if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &mut bound {
            if address.port() == 0 {
                address.set_port(self.next_port);
                self.next_port += 1;
            }
        }
        let datagram = bound.is_datagram();
        assert!(self.ports.values().all(|port| port.address != bound), "{bound} is in use");
        let (address, backlog) = (bound.clone(), VecDeque::new());
        let group = reuse_port && !self.chance(20);
        let (on, closing, doors) = (false, false, BTreeMap::new());
        let port = Port { on, datagram, address, closing, backlog, group, listens: !group, doors };
        self.ports.insert(key, port);
        self.answers.push_back(Input::Bound { key, result: Ok(bound) });
    }

    pub(super) fn unbind(&mut self, key: Key, drain: bool) {
        let port = self.ports.get_mut(&key).expect("closes an open port");
        assert!(!port.closing, "closed once");
        self.ending.given_up.insert(key, self.now);
        if drain {
            port.closing = true;
            return;
        }
        let port = self.ports.remove(&key).expect("just seen");
        let doors = port.doors.into_values().flat_map(|door| door.backlog);
        for connection in port.backlog.into_iter().chain(doors) {
            self.fates[connection] = Fate::Reset;
        }
        self.answers.push_back(Input::Unbound { key });
    }

    /// Opens what its connections come in by.
    pub(super) fn open_for(&mut self, id: WorkerId, key: Key, access: Access) {
        let port = self.ports.get_mut(&key).unwrap();
        let worker = self.workers.get_mut(&id).unwrap();
        let Access::OwnSocket(slot) = access else {
            port.listens = true;
            return;
        };
        assert!(!worker.node && slot == worker.slot, "{id} has a socket of its own");
        if port.group {
            let new = Door { stands_in: true, backlog: VecDeque::new() };
            port.doors.entry(slot).or_insert(new);
            worker.own.insert(key);
        } else {
            self.saw("not its own");
            self.answers.push_back(Input::NoOwnSocket { worker: id, key });
        }
    }

    pub(super) fn accept_on_behalf(&mut self, key: Key, slot: SlotId, on: bool) {
        if on {
            self.saw("stood in for");
        }
        // It may be closed, and then there is nothing to stand in for.
        let port = self.ports.get_mut(&key);
        if let Some(door) = port.and_then(|port| port.doors.get_mut(&slot)) {
            assert_ne!(door.stands_in, on, "told once");
            door.stands_in = on;
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
        let (refusal, what) = if queue.records().len() >= QUEUE_RECORDS {
            (Refusal::Full, "queue full")
        } else if in_flight {
            (Refusal::InFlight, "in flight")
        } else if gone {
            (Refusal::Gone, "gone")
        } else {
            self.fates[connection] = Fate::Queue;
            queue.send(connection);
            let unread = queue.records().filter(|it| matches!(it, KernelRecord::Connection(_)));
            let open = self.closed_counter.get(&(worker, key)).map(|count| count.open_count());
            let has = unread.count() as u64 + open.unwrap_or(0);
            let max = self.open_max.filter(|_| !self.workers[&worker].node);
            let given_up = self.ending.given_up.contains_key(&key);
            let within = given_up || max.is_none_or(|max| has <= u64::from(max));
            assert!(within, "{worker} has {has} of {key}");
            return self.check_sends(connection);
        };
        queue.refuse(refusal);
        self.saw(what);
        if refusal == Refusal::Gone && self.workers[&worker].node {
            // A channel takes nothing only when it is closed.
            self.hang_up(worker);
        }
        self.fates[connection] = Fate::Coming;
        let connection = Some(connection);
        self.answers.push_back(Input::SendFailed { worker, key, connection, refusal });
    }

    pub(super) fn reclaim(&mut self, worker: WorkerId, key: Key) {
        if self.workers[&worker].node {
            return self.take_from_the_dead(worker, key);
        }
        let part = self.faults && self.chance(10);
        let queue = self.queues.get_mut(&(worker, key)).expect("takes a queue back");
        let all = queue.records().len();
        let count = if part { all / 2 } else { all };
        let (connections, probes) = queue.reclaim(count);
        if part && all > count {
            self.saw("read in part");
        }
        if count > 0 {
            self.saw("taken back");
        }
        connections.iter().for_each(|connection| self.fates[*connection] = Fate::Coming);
        self.answers.push_back(Input::Reclaimed { worker, key, connections, probes });
    }

    pub(super) fn take_from_the_dead(&mut self, id: WorkerId, key: Key) {
        let (worker, queue) = (&self.workers[&id], self.queues.get_mut(&(id, key)).unwrap());
        assert!(worker.told.exited || worker.told.channel_closed, "{id} may still answer");
        let answers = |said: &Input<usize>| matches!(said, Input::Answered { .. });
        assert!(!worker.channel.iter().any(answers), "{id} has answered");
        let (connections, _) = queue.reclaim(usize::MAX);
        connections.iter().for_each(|it| {
            let before = std::mem::replace(&mut self.fates[*it], Fate::Coming);
            assert_eq!(before, Fate::Queue, "{id} has used {it}");
        });
        self.saw("taken back from the dead");
        self.answers.push_back(Input::Reclaimed { worker: id, key, connections, probes: 0 });
    }
}
