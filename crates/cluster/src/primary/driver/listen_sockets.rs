//! The listening sockets of the primary: opened, accepted from, polled and closed.
//!
//! An address has one socket. Under the policy `ReusePort` a TCP address has one for each slot,
//! and one that no slot owns if there are workers that do not accept.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::Range;
use std::os::fd::{AsFd, OwnedFd};
use std::time::Instant;

use reactor::Turn;

use super::{Driver, SocketId, WatchedFd};
use crate::bind::{self, Bound};
use crate::contract::{Access, Grant, Input, Key, SlotId};
use crate::primary::listen_socket::ListenSocket;
use crate::primary::reuse_port_group::ReusePortGroup;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

impl Driver {
    /// Opens the first socket of an address, or duplicates an inherited one. Returns the address
    /// as bound.
    pub(super) fn bind(
        &mut self,
        key: Key,
        address: &Address,
        options: &ListenOptions,
        reuse_port: bool,
    ) -> io::Result<Address> {
        let inherited = self.inherited.at(address).transpose()?;
        let is_inherited = inherited.is_some();
        let bound = match inherited {
            Some(inherited) => inherited,
            None if reuse_port => {
                let bound = bind::bind_first(address, options.backlog)?;
                self.groups.insert(key, ReusePortGroup::new(options.backlog));
                bound
            }
            None => bind::bind(address, options, true)?,
        };
        self.check_reserve(bound.socket.as_fd()).inspect_err(|_| _ = self.groups.remove(&key))?;
        Ok(self.add_first(key, bound, is_inherited))
    }

    /// Adds the first socket of an address. Returns the address as bound.
    pub(super) fn add_first(&mut self, key: Key, bound: Bound, is_inherited: bool) -> Address {
        let token = self.token(WatchedFd::ListenSocket((key, 0)));
        let socket = ListenSocket::new(bound, is_inherited, token);
        let address = socket.address().clone();
        self.listen_sockets.insert((key, 0), socket);
        self.shared.change(|state| {
            state.address.get_or_insert_with(|| address.clone());
        });
        address
    }

    /// Opens the socket from which the connections of a grant come. Returns a duplicate of the
    /// socket that the worker's slot owns; `None` if there is no such socket.
    pub(super) fn open_for(
        &mut self,
        grant: &Grant,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let owner = match grant.access {
            Access::OwnSocket(slot) => Some(slot),
            Access::HandOff => None,
            Access::Shared => return Ok(None),
        };
        let Some(number) = self.socket_of(grant.key, owner, turn)? else { return Ok(None) };
        let socket = owner.and_then(|_| self.listen_sockets.get(&(grant.key, number)));
        socket.map(|socket| socket.listener().try_clone_to_owned()).transpose()
    }

    /// Returns the number of the socket that belongs to this slot, or to no slot; `None` if the
    /// address has no group of sockets.
    ///
    /// The socket is opened once and kept for later workers of the slot. The primary accepts from
    /// a new socket until the supervisor decides otherwise.
    fn socket_of(
        &mut self,
        key: Key,
        owner: Option<SlotId>,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<u32>> {
        let group = self.groups.get_mut(&key);
        let (Some(group), Some(first)) = (group, self.listen_sockets.get(&(key, 0))) else {
            return Ok(None);
        };
        if let Some(number) = group.assign(owner) {
            return Ok(Some(number));
        }
        let (bound, on) = (bind::bind_next(first.address(), group.backlog())?, first.is_on());
        self.check_reserve(bound.socket.as_fd())?;
        let Some(group) = self.groups.get_mut(&key) else { return Ok(None) };
        let number = group.add(owner);
        let token = self.token(WatchedFd::ListenSocket((key, number)));
        let mut socket = ListenSocket::new(bound, false, token);
        socket.set_on(on, turn);
        self.listen_sockets.insert((key, number), socket);
        Ok(Some(number))
    }

    /// Sets whether the supervisor wants connections of this address.
    pub(super) fn set_accepting(&mut self, key: Key, on: bool, turn: &mut Turn<'_>) {
        let sockets = self.listen_sockets.range_mut(all(key));
        sockets.for_each(|(_, socket)| socket.set_on(on, turn));
    }

    /// Sets whether the primary accepts from the socket that a slot owns.
    pub(super) fn accept_on_behalf(
        &mut self,
        key: Key,
        slot: SlotId,
        on: bool,
        turn: &mut Turn<'_>,
    ) {
        let number = self.groups.get(&key).and_then(|group| group.socket_of(slot));
        let socket = number.and_then(|number| self.listen_sockets.get_mut(&(key, number)));
        if let Some(socket) = socket {
            socket.accept_on_behalf(on, turn);
            self.arm_poll_timer(turn);
        }
    }

    /// Closes the sockets of an address, at once or after their backlogs are empty: see
    /// `close_drained`.
    pub(super) fn unbind(&mut self, key: Key, drain: bool, turn: &mut Turn<'_>) {
        let mut any = false;
        for (_, socket) in self.listen_sockets.range_mut(all(key)) {
            any = true;
            if drain {
                socket.close(turn);
            } else {
                // Workers that share the socket accept what its backlog holds, and then no more.
                socket.stop_connects();
            }
        }
        if !any || !drain {
            self.close_sockets_of(key, turn);
        }
    }

    /// Closes the sockets of an address. The report follows all connections of the address, because
    /// the supervisor relies on that order.
    fn close_sockets_of(&mut self, key: Key, turn: &mut Turn<'_>) {
        self.node_data.remove(&key);
        let is_group = self.groups.remove(&key).is_some();
        let ids: Vec<_> = self.listen_sockets.range(all(key)).map(|(id, _)| *id).collect();
        let mut closed = None;
        for id in ids {
            let Some(socket) = self.listen_sockets.remove(&id) else { continue };
            // Even if this fails, the loop forgets the socket when it is closed.
            let _ = turn.deregister(socket.listener());
            self.watched.remove(&socket.token().0);
            if is_group {
                // Workers that are still finishing hold copies, which would keep the address in use.
                socket.shut_down();
            }
            closed = Some(socket.address().clone());
        }
        let next = self.listen_sockets.values().next().map(|socket| socket.address().clone());
        self.shared.change(|state| {
            if state.address == closed {
                state.address = next;
            }
        });
        self.inputs.push_back(Input::Unbound { key });
    }

    /// Accepts from each socket that may have connections, a bounded number from each.
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>) {
        let mut next = self.next_ready(None, turn.now());
        while let Some(id) = next {
            for count in 0.. {
                // The supervisor may have closed the socket in the last round.
                let Some(socket) = self.listen_sockets.get_mut(&id) else { break };
                if count == reactor::ACCEPTS_PER_TURN {
                    turn.again();
                    break;
                }
                let Some(connection) = socket.accept(turn) else { break };
                self.inputs.push_back(Input::Accepted { key: id.0, connection });
                self.run(turn);
            }
            next = self.next_ready(Some(id), turn.now());
        }
        self.close_drained(turn);
    }

    fn next_ready(&self, after: Option<SocketId>, now: Instant) -> Option<SocketId> {
        let from = after.map_or(Unbounded, Excluded);
        let mut sockets = self.listen_sockets.range((from, Unbounded));
        sockets.find(|(_, socket)| socket.wants_accept(now)).map(|(id, _)| *id)
    }

    /// Closes each address all of whose sockets are drained.
    fn close_drained(&mut self, turn: &mut Turn<'_>) {
        let now = turn.now();
        if !self.listen_sockets.values().any(|socket| socket.is_drained(now)) {
            return;
        }
        let mut keys: BTreeSet<Key> = self.listen_sockets.keys().map(|(key, _)| *key).collect();
        let undrained = self.listen_sockets.iter().filter(|(_, socket)| !socket.is_drained(now));
        undrained.for_each(|((key, _), _)| _ = keys.remove(key));
        for key in keys {
            self.close_sockets_of(key, turn);
            self.run(turn);
        }
    }

    pub(super) fn arm_poll_timer(&mut self, turn: &Turn<'_>) {
        let sockets = &self.listen_sockets;
        self.poll_timer.arm(turn.now(), || sockets.values().any(ListenSocket::is_polled));
    }

    /// Polls the sockets from which workers accept, if the time has come.
    pub(super) fn poll_own_sockets(&mut self, turn: &mut Turn<'_>) {
        if !self.poll_timer.take_due(turn.now()) {
            return;
        }
        for (&(key, number), socket) in &mut self.listen_sockets {
            let slot = self.groups.get(&key).and_then(|group| group.owner_of(number));
            if let (true, Some(slot)) = (socket.poll_unaccepted(turn), slot) {
                self.inputs.push_back(Input::Unaccepted { key, slot });
            }
        }
        self.arm_poll_timer(turn);
    }
}

/// Returns the range of the sockets of one address.
fn all(key: Key) -> Range<SocketId> {
    (key, 0)..(key + 1, 0)
}
