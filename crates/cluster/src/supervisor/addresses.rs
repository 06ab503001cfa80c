//! Which address is which key, and who holds it.
//!
//! Workers that ask for the same address share a key, and with it one listening socket of the
//! primary. A worker's n-th wish for port 0 shares the n-th such key, so that each worker of a
//! program gets the same ports; a wish for the very number that came out of it shares it too. One
//! worker cannot hold a key twice: as with two plain sockets, the address is in use.
//!
//! A key is *wanted* as long as somebody holds it, waits for it, or is its heir: a slot whose
//! worker held it, died, and is replaced by one that has not asked yet. So the socket, and the number behind port 0,
//! outlive the workers.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap};

use crate::contract::{Key, Slot, WorkerId};
use crate::protocol::address::Address;

/// The address is in use.
pub(crate) const EADDRINUSE: i32 = 98;

/// All keys of a primary.
#[derive(Debug, Default)]
pub(crate) struct Ports {
    ports: BTreeMap<Key, Port>,
    /// For each worker and address with port 0: its next index, and how many it holds.
    indexes: HashMap<(WorkerId, Address), Index>,
    last_key: Key,
}

#[derive(Debug)]
struct Port {
    asked: Address,
    /// Tells wishes for port 0 apart; 0 for all others.
    index: u32,
    state: PortState,
    holders: Vec<Holder>,
    heirs: Vec<Slot>,
    /// For all that share it.
    data: Option<Vec<u8>>,
}

#[derive(Debug)]
enum PortState {
    /// `Bind` is under way; these wishes wait for it.
    Binding(Vec<(WorkerId, u32)>),
    Bound(Address),
    /// `Unbind` is under way.
    Unbinding(Address),
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    worker: WorkerId,
    /// Its wish took an index.
    indexed: bool,
    /// So many connections it may have open.
    open_max: Option<u32>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Index {
    next: u32,
    held: u32,
}

/// A wish to listen.
#[derive(Debug)]
pub(crate) struct Wish<'a> {
    pub(crate) address: &'a Address,
    /// Datagrams: although this worker holds it already.
    pub(crate) again: bool,
    /// So many connections this worker may have open.
    pub(crate) open_max: Option<u32>,
    /// For all that share the address; the first that brings some decides.
    pub(crate) data: Option<Vec<u8>>,
}

/// What a wish to listen comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Answer {
    /// Open it first; the wish waits.
    Bind(Key),
    /// It is being opened; the wish waits.
    Wait,
    Grant(Key),
    Refuse(i32),
}

impl Ports {
    /// A worker wants to listen.
    pub(crate) fn ask(
        &mut self,
        worker: WorkerId,
        slot: Slot,
        request: u32,
        wish: Wish<'_>,
    ) -> Answer {
        let address = wish.address;
        let indexed = address.is_port_0();
        let index = if indexed { self.next_index(worker, address) } else { 0 };
        let holder = Holder { worker, indexed, open_max: wish.open_max };
        let shared = self.ports.iter_mut().find(|(_, port)| port.is(address, index));
        let Some((key, port)) = shared else {
            self.last_key += 1;
            let state = PortState::Binding(vec![(worker, request)]);
            let (asked, holders, heirs) = (address.clone(), vec![holder], Vec::new());
            let data = wish.data;
            self.ports.insert(self.last_key, Port { asked, index, state, holders, heirs, data });
            return Answer::Bind(self.last_key);
        };
        if port.is_held_by(worker) && !(wish.again && address.is_datagram()) {
            if indexed {
                // It holds this one by its number: port 0 means the next.
                self.index_back(worker, address);
                return self.ask(worker, slot, request, wish);
            }
            return Answer::Refuse(EADDRINUSE);
        }
        if port.data.is_none() {
            port.data = wish.data;
        }
        port.holders.push(holder);
        port.heirs.retain(|heir| *heir != slot);
        match &mut port.state {
            PortState::Binding(waiting) => {
                waiting.push((worker, request));
                Answer::Wait
            }
            PortState::Bound(_) => Answer::Grant(*key),
            PortState::Unbinding(_) => unreachable!("a port that is being closed is not shared"),
        }
    }

    /// `Bind` is under way.
    pub(crate) fn is_binding(&self) -> bool {
        self.ports.values().any(|port| matches!(port.state, PortState::Binding(_)))
    }

    /// The wishes that wait for the answer to `Bind`.
    pub(crate) fn waiting(&self, key: Key) -> Vec<(WorkerId, u32)> {
        match self.ports.get(&key).map(|port| &port.state) {
            Some(PortState::Binding(waiting)) => waiting.clone(),
            Some(PortState::Bound(_) | PortState::Unbinding(_)) | None => Vec::new(),
        }
    }

    /// The answer to `Bind` came; gives the wishes that waited for it and still stand.
    ///
    /// A failure is forgotten: the next wish tries again.
    pub(crate) fn bound(&mut self, key: Key, result: Result<Address, i32>) -> Vec<(WorkerId, u32)> {
        let Some(port) = self.ports.get_mut(&key) else { return Vec::new() };
        let PortState::Binding(waiting) = &mut port.state else { return Vec::new() };
        let waiting = std::mem::take(waiting);
        match result {
            Ok(address) => port.state = PortState::Bound(address),
            Err(_) => {
                waiting.iter().for_each(|(worker, _)| self.release(*worker, key));
                self.ports.remove(&key);
            }
        }
        waiting
    }

    /// A worker closed its listener.
    pub(crate) fn release(&mut self, worker: WorkerId, key: Key) {
        let Some(port) = self.ports.get_mut(&key) else { return };
        let Some(at) = port.holders.iter().position(|holder| holder.worker == worker) else {
            return;
        };
        let holder = port.holders.remove(at);
        if let PortState::Binding(waiting) = &mut port.state {
            waiting.retain(|(waiter, _)| *waiter != worker);
        }
        if holder.indexed {
            let asked = port.asked.clone();
            self.index_back(worker, &asked);
            // Indexes begin anew when a worker holds none, as in Node.
            self.indexes.retain(|_, index| index.held > 0);
        }
    }

    /// A worker ended; with `heir`, its slot gets another one, which will ask again.
    pub(crate) fn died(&mut self, worker: WorkerId, heir: Option<Slot>) {
        for key in self.held_by(worker) {
            while self.holds(worker, key) {
                self.release(worker, key);
            }
            let port = self.ports.get_mut(&key).expect("released, not removed");
            if let Some(slot) = heir.filter(|slot| !port.heirs.contains(slot)) {
                port.heirs.push(slot);
            }
        }
    }

    /// The slot gets no other worker.
    pub(crate) fn disinherit(&mut self, slot: Slot) {
        self.ports.values_mut().for_each(|port| port.heirs.retain(|heir| *heir != slot));
    }

    pub(crate) fn is_heir(&self, slot: Slot) -> bool {
        self.ports.values().any(|port| port.heirs.contains(&slot))
    }

    /// `Unbind` is ordered: nobody shares the key any more.
    pub(crate) fn unbind(&mut self, key: Key) {
        if let Some(port) = self.ports.get_mut(&key) {
            if let PortState::Bound(address) = &port.state {
                port.state = PortState::Unbinding(address.clone());
            }
        }
    }

    /// The address is being closed, and can be bound again after that.
    pub(crate) fn is_closing(&self, address: &Address) -> bool {
        self.ports.values().any(|port| match &port.state {
            PortState::Unbinding(bound) => bound.collides(address),
            PortState::Binding(_) | PortState::Bound(_) => false,
        })
    }

    /// The answer to `Unbind` came.
    pub(crate) fn unbound(&mut self, key: Key) {
        if let Some(port) = self.ports.get(&key) {
            for worker in port.holders.iter().map(|holder| holder.worker).collect::<Vec<_>>() {
                self.release(worker, key);
            }
        }
        self.ports.remove(&key);
    }

    /// The address behind a key, once it is bound.
    pub(crate) fn address(&self, key: Key) -> Option<&Address> {
        match &self.ports.get(&key)?.state {
            PortState::Bound(address) => Some(address),
            PortState::Binding(_) | PortState::Unbinding(_) => None,
        }
    }

    /// What was brought for all that share the key.
    pub(crate) fn data(&self, key: Key) -> Option<&[u8]> {
        self.ports.get(&key)?.data.as_deref()
    }

    /// How many connections the worker may have open, where it asked for a limit.
    pub(crate) fn open_max(&self, worker: WorkerId, key: Key) -> Option<u32> {
        let mut holders = self.ports.get(&key)?.holders.iter();
        holders.find(|holder| holder.worker == worker)?.open_max
    }

    /// The address a key was asked for by.
    pub(crate) fn asked(&self, key: Key) -> Option<&Address> {
        self.ports.get(&key).map(|port| &port.asked)
    }

    pub(crate) fn holds(&self, worker: WorkerId, key: Key) -> bool {
        self.ports.get(&key).is_some_and(|port| port.is_held_by(worker))
    }

    pub(crate) fn held_by(&self, worker: WorkerId) -> Vec<Key> {
        let held = self.ports.iter().filter(|(_, port)| port.is_held_by(worker));
        held.map(|(key, _)| *key).collect()
    }

    /// The bound keys that nobody is heir to and no holder for whom `counts` is true holds.
    pub(crate) fn unwanted(&self, counts: impl Fn(WorkerId) -> bool) -> Vec<Key> {
        let unwanted = |port: &Port| {
            matches!(port.state, PortState::Bound(_))
                && port.heirs.is_empty()
                && !port.holders.iter().any(|holder| counts(holder.worker))
        };
        self.ports.iter().filter(|(_, port)| unwanted(port)).map(|(key, _)| *key).collect()
    }

    /// No socket is open or being opened or closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.ports.is_empty()
    }

    fn next_index(&mut self, worker: WorkerId, address: &Address) -> u32 {
        let index = self.indexes.entry((worker, address.clone())).or_default();
        index.next += 1;
        index.held += 1;
        index.next - 1
    }

    fn index_back(&mut self, worker: WorkerId, address: &Address) {
        if let Some(index) = self.indexes.get_mut(&(worker, address.clone())) {
            index.held -= 1;
        }
    }
}

impl Port {
    fn is(&self, address: &Address, index: u32) -> bool {
        match &self.state {
            PortState::Unbinding(_) => false,
            PortState::Bound(bound) if bound == address => true,
            PortState::Bound(_) | PortState::Binding(_) => {
                self.asked == *address && self.index == index
            }
        }
    }

    fn is_held_by(&self, worker: WorkerId) -> bool {
        self.holders.iter().any(|holder| holder.worker == worker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::net::SocketAddr;

    fn at(text: &str) -> Address {
        Address::from(text.parse::<SocketAddr>().unwrap())
    }

    /// Worker n sits in slot n, and its requests do not matter.
    fn ask(ports: &mut Ports, worker: WorkerId, address: &str) -> Answer {
        ports.ask(worker, worker, 0, wish(&at(address)))
    }

    fn wish(address: &Address) -> Wish<'_> {
        Wish { address, again: false, open_max: None, data: None }
    }

    fn bind(ports: &mut Ports, worker: WorkerId, asked: &str, bound: &str) -> Key {
        let Answer::Bind(key) = ask(ports, worker, asked) else { panic!("shared") };
        assert_eq!(ports.bound(key, Ok(at(bound))), [(worker, 0)]);
        key
    }

    fn unwanted(ports: &Ports) -> Vec<Key> {
        ports.unwanted(|_| true)
    }

    #[test]
    fn the_same_address_is_opened_once_and_shared() {
        let mut ports = Ports::default();
        let key = bind(&mut ports, 1, "127.0.0.1:80", "127.0.0.1:80");
        assert_eq!(ask(&mut ports, 2, "127.0.0.1:80"), Answer::Grant(key));
        assert_eq!(ask(&mut ports, 2, "127.0.0.1:81"), Answer::Bind(key + 1));
        assert_eq!(ports.address(key), Some(&at("127.0.0.1:80")));
        assert_eq!(ports.address(key + 1), None);
        assert_eq!(ports.held_by(2), [key, key + 1]);
    }

    #[test]
    fn wishes_that_come_while_it_is_opened_wait_for_the_one_answer() {
        let mut ports = Ports::default();
        assert_eq!(ports.ask(1, 1, 10, wish(&at("[::1]:80"))), Answer::Bind(1));
        assert_eq!(ports.ask(2, 2, 20, wish(&at("[::1]:80"))), Answer::Wait);
        assert_eq!(ports.ask(3, 3, 30, wish(&at("[::1]:80"))), Answer::Wait);
        ports.died(2, None);
        assert_eq!(ports.bound(1, Ok(at("[::1]:80"))), [(1, 10), (3, 30)]);
        assert!(ports.bound(1, Ok(at("[::1]:80"))).is_empty());
    }

    #[test]
    fn a_failure_answers_all_that_wait_and_is_not_kept() {
        let mut ports = Ports::default();
        assert_eq!(ask(&mut ports, 1, "127.0.0.1:0"), Answer::Bind(1));
        assert_eq!(ask(&mut ports, 2, "127.0.0.1:0"), Answer::Wait);
        assert_eq!(ports.bound(1, Err(13)), [(1, 0), (2, 0)]);
        assert!(ports.is_empty() && ports.indexes.is_empty());
        assert_eq!(ask(&mut ports, 2, "127.0.0.1:0"), Answer::Bind(2));
    }

    #[test]
    fn the_nth_wish_for_port_0_is_the_same_port_in_every_worker() {
        let mut ports = Ports::default();
        let first = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4001");
        let second = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4002");
        assert_ne!(first, second);
        assert_eq!(ask(&mut ports, 2, "0.0.0.0:0"), Answer::Grant(first));
        assert_eq!(ask(&mut ports, 2, "0.0.0.0:0"), Answer::Grant(second));
        // Another address counts for itself.
        assert_eq!(ask(&mut ports, 2, "127.0.0.1:0"), Answer::Bind(3));
    }

    #[test]
    fn indexes_go_on_until_all_are_closed_and_then_begin_anew() {
        let mut ports = Ports::default();
        let first = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4001");
        let second = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4002");
        ports.release(1, first);
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:0"), Answer::Bind(3));
        ports.release(1, second);
        ports.release(1, 3);
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:0"), Answer::Grant(first));
    }

    #[test]
    fn the_number_behind_port_0_is_the_same_key() {
        let mut ports = Ports::default();
        let key = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4001");
        assert_eq!(ask(&mut ports, 2, "0.0.0.0:4001"), Answer::Grant(key));
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:4001"), Answer::Refuse(EADDRINUSE));
        assert_eq!(ask(&mut ports, 2, "0.0.0.0:0"), Answer::Bind(key + 1));
        ports.release(2, key);
        assert_eq!(ports.held_by(1), [key]);
    }

    #[test]
    fn one_worker_cannot_hold_an_address_twice() {
        let mut ports = Ports::default();
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:80"), Answer::Bind(1));
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:80"), Answer::Refuse(EADDRINUSE));
        ports.bound(1, Ok(at("0.0.0.0:80")));
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:80"), Answer::Refuse(EADDRINUSE));
        ports.release(1, 1);
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:80"), Answer::Grant(1));
    }

    #[test]
    fn a_key_is_wanted_until_its_last_holder_closes_it() {
        let mut ports = Ports::default();
        let key = bind(&mut ports, 1, "0.0.0.0:80", "0.0.0.0:80");
        ask(&mut ports, 2, "0.0.0.0:80");
        ports.release(1, key);
        assert!(unwanted(&ports).is_empty());
        assert_eq!(ports.unwanted(|worker| worker != 2), [key]);
        ports.release(2, key);
        assert_eq!(unwanted(&ports), [key]);
    }

    #[test]
    fn a_dead_holders_slot_keeps_the_key_until_its_next_worker_asks_or_none_comes() {
        let mut ports = Ports::default();
        let key = bind(&mut ports, 1, "0.0.0.0:0", "0.0.0.0:4001");
        ports.died(1, Some(7));
        assert!(unwanted(&ports).is_empty());
        // The replacement died before it asked.
        ports.died(2, Some(7));
        assert!(unwanted(&ports).is_empty());
        assert_eq!(ports.ask(3, 7, 0, wish(&at("0.0.0.0:0"))), Answer::Grant(key));
        ports.release(3, key);
        assert_eq!(unwanted(&ports), [key]);
        ports.ask(4, 8, 0, wish(&at("0.0.0.0:0")));
        ports.died(4, Some(8));
        ports.disinherit(8);
        assert_eq!(unwanted(&ports), [key]);
    }

    #[test]
    fn what_is_being_closed_is_not_shared_and_then_gone() {
        let mut ports = Ports::default();
        let key = bind(&mut ports, 1, "0.0.0.0:80", "0.0.0.0:80");
        ports.unbind(key);
        assert!(unwanted(&ports).is_empty());
        assert_eq!(ask(&mut ports, 2, "0.0.0.0:80"), Answer::Bind(key + 1));
        assert_eq!(ask(&mut ports, 1, "0.0.0.0:80"), Answer::Wait);
        ports.unbound(key);
        assert_eq!(ports.held_by(1), [key + 1]);
        ports.bound(key + 1, Err(98));
        assert!(ports.is_empty());
    }

    #[test]
    fn the_first_data_is_everybodys_and_forgotten_with_the_key() {
        let mut ports = Ports::default();
        let address = at("0.0.0.0:80");
        let with = |data: Option<&str>| Wish {
            address: &address,
            again: false,
            open_max: None,
            data: data.map(|text| text.as_bytes().to_vec()),
        };
        assert_eq!(ports.ask(1, 1, 0, with(None)), Answer::Bind(1));
        assert_eq!(ports.data(1), None);
        assert_eq!(ports.ask(2, 2, 0, with(Some("first"))), Answer::Wait);
        assert_eq!(ports.ask(3, 3, 0, with(Some("second"))), Answer::Wait);
        assert_eq!(ports.data(1), Some(&b"first"[..]));
        ports.bound(1, Err(98));
        assert_eq!(ports.data(1), None);
    }

    #[test]
    fn only_a_datagram_address_can_be_held_twice_and_only_on_request() {
        let mut ports = Ports::default();
        let udp = Address::Udp { address: "0.0.0.0:53".parse().unwrap(), v6_only: false };
        let (tcp, mut twice) = (at("0.0.0.0:53"), |address: &Address, again| {
            let wish = |again| Wish { address, again, open_max: None, data: None };
            ports.ask(1, 1, 0, wish(again));
            ports.ask(1, 1, 0, wish(again))
        });
        assert_eq!(twice(&tcp, true), Answer::Refuse(EADDRINUSE));
        assert_eq!(twice(&udp, false), Answer::Refuse(EADDRINUSE));
        assert_eq!(twice(&udp, true), Answer::Wait);
    }
}
