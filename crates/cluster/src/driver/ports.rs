//! The listening sockets: opened, accepted from, and closed.
//!
//! An address has one, or, where workers accept from sockets of their own, one for each slot and
//! one that keeps the address for these.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::os::fd::OwnedFd;
use std::time::Instant;

use reactor::Turn;

use super::{Driver, Socket, Watched};
use crate::address::Address;
use crate::core::{self, Grant, Input, Key, Slot};
use crate::options::ListenOptions;
use crate::policy::Policy;
use crate::port::{Port, Taken};

impl Driver {
    pub(super) fn bind(
        &mut self,
        key: Key,
        address: &Address,
        options: &ListenOptions,
    ) -> io::Result<Address> {
        let token = self.token(Watched::Port((key, None)));
        let port = match (self.given.at(address), address) {
            (Some(given), _) => Port::new(given?, true, token),
            (None, Address::Tcp { .. }) if self.policy == Policy::ReusePort => {
                Port::reserve(crate::bind::reserve(address)?, options.backlog, token)
            }
            (None, _) => Port::new(crate::bind::bind(address, options)?, false, token),
        };
        let bound = port.address().clone();
        self.ports.insert((key, None), port);
        self.shared.change(|state| {
            state.address.get_or_insert_with(|| bound.clone());
        });
        Ok(bound)
    }

    /// Sees to it that connections come in for this worker. Answers with a duplicate of its slot's
    /// own socket; `None` where it has none.
    pub(super) fn open_for(
        &mut self,
        granted: &core::Granted,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        match granted.how {
            Grant::Own(slot) => self.own_socket(granted.key, slot, turn),
            Grant::HandOff => {
                let base = self.ports.get_mut(&(granted.key, None));
                base.map_or(Ok(()), |port| port.listen(turn)).map(|()| None)
            }
            Grant::Shared => Ok(None),
        }
    }

    /// A slot's own socket is opened once, and kept for whoever sits there; until we are told
    /// otherwise we accept from it. There is none where the address has only one socket for all.
    fn own_socket(
        &mut self,
        key: Key,
        slot: Slot,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let base = self.ports.get(&(key, None));
        let Some((base, backlog)) = base.and_then(|port| Some((port, port.backlog_of_others()?)))
        else {
            return Ok(None);
        };
        if !self.ports.contains_key(&(key, Some(slot))) {
            let (bound, on) = (crate::bind::join(base.address(), backlog)?, base.is_on());
            let mut port = Port::new(bound, false, self.token(Watched::Port((key, Some(slot)))));
            port.set_on(on, turn);
            self.ports.insert((key, Some(slot)), port);
        }
        let port = self.ports.get(&(key, Some(slot))).expect("just looked for, or opened");
        port.listener().try_clone_to_owned().map(Some)
    }

    pub(super) fn accept_or_not(&mut self, key: Key, on: bool, turn: &mut Turn<'_>) {
        self.of(key).for_each(|port| port.set_on(on, turn));
    }

    pub(super) fn stand_in(&mut self, key: Key, slot: Slot, on: bool, turn: &mut Turn<'_>) {
        if let Some(port) = self.ports.get_mut(&(key, Some(slot))) {
            port.stand_in(on, turn);
        }
    }

    /// Ports that are drained go when their backlogs are empty, see `close_drained`.
    pub(super) fn unbind(&mut self, key: Key, drain: bool, turn: &mut Turn<'_>) {
        let mut any = false;
        for port in self.of(key) {
            any = true;
            if drain {
                port.close(turn.now());
            } else {
                // Workers who share it find what is there, and then nothing more.
                port.stop_connects();
            }
        }
        if !any || !drain {
            self.close_ports(key, turn);
        }
    }

    /// Closes an address and says so: after all its connections, on which the core counts.
    fn close_ports(&mut self, key: Key, turn: &mut Turn<'_>) {
        self.node_data.remove(&key);
        let mut closed = None;
        for socket in self.of_key(key) {
            let Some(port) = self.ports.remove(&socket) else { continue };
            // Gone from the loop when it is closed, whatever this says.
            let _ = turn.deregister(port.listener());
            self.watched.remove(&port.token().0);
            closed = Some(port.address().clone());
        }
        let next = self.ports.first_key_value().map(|(_, port)| port.address().clone());
        self.shared.change(|state| {
            if state.address == closed {
                state.address = next;
            }
        });
        self.inputs.push_back(Input::Unbound { key });
    }

    /// Takes connections from every port that may have some, a bounded number of each.
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>) {
        let mut next = self.next_port(None, turn.now());
        while let Some(socket) = next {
            for count in 0.. {
                let Some(port) = self.ports.get_mut(&socket) else { break };
                if count == reactor::ACCEPTS_PER_TURN {
                    turn.again();
                    break;
                }
                match port.accept(turn.now()) {
                    Taken::Connection(connection) => {
                        self.inputs.push_back(Input::Accepted { key: socket.0, connection });
                        self.run(turn);
                    }
                    Taken::Nothing => break,
                }
            }
            next = self.next_port(Some(socket), turn.now());
        }
        self.close_drained(turn);
    }

    fn next_port(&self, after: Option<Socket>, now: Instant) -> Option<Socket> {
        let from = after.map_or(Unbounded, Excluded);
        let mut ports = self.ports.range((from, Unbounded));
        ports.find(|(_, port)| port.wants_turn(now)).map(|(socket, _)| *socket)
    }

    fn close_drained(&mut self, turn: &mut Turn<'_>) {
        if !self.ports.values().any(|port| port.is_drained(turn.now())) {
            return;
        }
        let mut keys: BTreeSet<Key> = self.ports.keys().map(|(key, _)| *key).collect();
        let undrained = self.ports.iter().filter(|(_, port)| !port.is_drained(turn.now()));
        undrained.for_each(|((key, _), _)| _ = keys.remove(key));
        for key in keys {
            self.close_ports(key, turn);
            self.run(turn);
        }
    }

    /// Looks at the workers' own sockets where that is due.
    pub(super) fn look_at_own(&mut self, turn: &mut Turn<'_>) {
        for ((key, slot), port) in &mut self.ports {
            if let (true, Some(slot)) = (port.is_left_alone(turn), *slot) {
                self.inputs.push_back(Input::Unaccepted { key: *key, slot });
            }
        }
    }

    /// The sockets of one address.
    fn of(&mut self, key: Key) -> impl Iterator<Item = &mut Port> {
        self.ports.range_mut((key, None)..(key + 1, None)).map(|(_, port)| port)
    }

    fn of_key(&self, key: Key) -> Vec<Socket> {
        self.ports.range((key, None)..(key + 1, None)).map(|(socket, _)| *socket).collect()
    }
}
