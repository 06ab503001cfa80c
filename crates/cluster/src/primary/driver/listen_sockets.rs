//! The listening sockets: opened, accepted from, and closed.
//!
//! An address has one, or, where workers accept from sockets of their own, one for each slot; and
//! one that is nobody's own, if there are workers who do not accept.

use std::collections::BTreeSet;
use std::io;
use std::ops::Bound::{Excluded, Unbounded};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::time::Instant;

use reactor::Turn;

use super::{Driver, SocketId, Watched};
use crate::bind;
use crate::contract::{self, Access, Input, Key, SlotId};
use crate::primary::listen_socket::{ListenSocket, POLL_INTERVAL, Taken};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// The sockets of an address that may have several.
#[derive(Debug)]
pub(super) struct ReusePortGroup {
    backlog: u32,
    /// Whose own the first, second, … is; what is `None` is nobody's.
    owners: Vec<Option<SlotId>>,
    /// The first is not given away yet.
    spare: bool,
}

impl Driver {
    pub(super) fn bind(
        &mut self,
        key: Key,
        address: &Address,
        options: &ListenOptions,
        reuse_port: bool,
    ) -> io::Result<Address> {
        let inherited = self.inherited.at(address).transpose()?;
        let is_given = inherited.is_some();
        let bound = match inherited {
            Some(inherited) => inherited,
            None if reuse_port => {
                let (backlog, owners) = (options.backlog, vec![None]);
                let bound = bind::found(address, backlog)?;
                self.groups.insert(key, ReusePortGroup { backlog, owners, spare: true });
                bound
            }
            None => bind::bind(address, options)?,
        };
        let listen_socket =
            ListenSocket::new(bound, is_given, self.token(Watched::ListenSocket((key, 0))));
        let bound = listen_socket.address().clone();
        self.listen_sockets.insert((key, 0), listen_socket);
        self.shared.change(|state| {
            state.address.get_or_insert_with(|| bound.clone());
        });
        Ok(bound)
    }

    /// Sees to it that connections come in for this worker. Answers with a duplicate of its slot's
    /// own socket; `None` where it has none.
    pub(super) fn open_for(
        &mut self,
        granted: &contract::Grant,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<OwnedFd>> {
        let owner = match granted.access {
            Access::OwnSocket(slot) => Some(slot),
            Access::HandOff => None,
            Access::Shared => return Ok(None),
        };
        let Some(number) = self.socket_of(granted.key, owner, turn)? else { return Ok(None) };
        let listen_socket = owner.and_then(|_| self.listen_sockets.get(&(granted.key, number)));
        listen_socket.map(|listen_socket| listen_socket.listener().try_clone_to_owned()).transpose()
    }

    /// Which socket of the address belongs to this slot, or to nobody. It is opened once, and kept
    /// for whoever sits there; until we are told otherwise we accept from it. `None` where there is
    /// only one for all.
    fn socket_of(
        &mut self,
        key: Key,
        owner: Option<SlotId>,
        turn: &mut Turn<'_>,
    ) -> io::Result<Option<u32>> {
        let (Some(group), Some(first)) =
            (self.groups.get_mut(&key), self.listen_sockets.get(&(key, 0)))
        else {
            return Ok(None);
        };
        if std::mem::take(&mut group.spare) {
            group.owners[0] = owner;
        }
        let number = group.owners.iter().position(|it| *it == owner);
        if let Some(number) = number {
            return Ok(u32::try_from(number).ok());
        }
        let (bound, on) = (bind::join(first.address(), group.backlog)?, first.is_on());
        let number = u32::try_from(group.owners.len()).unwrap_or(u32::MAX);
        group.owners.push(owner);
        let mut listen_socket =
            ListenSocket::new(bound, false, self.token(Watched::ListenSocket((key, number))));
        listen_socket.set_on(on, turn);
        self.listen_sockets.insert((key, number), listen_socket);
        Ok(Some(number))
    }

    pub(super) fn accept_or_not(&mut self, key: Key, on: bool, turn: &mut Turn<'_>) {
        self.listen_sockets
            .range_mut(all(key))
            .for_each(|(_, listen_socket)| listen_socket.set_on(on, turn));
    }

    pub(super) fn accept_on_behalf(
        &mut self,
        key: Key,
        slot: SlotId,
        on: bool,
        turn: &mut Turn<'_>,
    ) {
        let group = self.groups.get(&key);
        let number = group.and_then(|it| it.owners.iter().position(|it| *it == Some(slot)));
        let socket = number.and_then(|number| Some((key, u32::try_from(number).ok()?)));
        if let Some(listen_socket) = socket.and_then(|socket| self.listen_sockets.get_mut(&socket))
        {
            listen_socket.accept_on_behalf(on, turn);
            self.poll_later(turn);
        }
    }

    /// Ports that are drained go when their backlogs are empty, see `close_drained`.
    pub(super) fn unbind(&mut self, key: Key, drain: bool, turn: &mut Turn<'_>) {
        let mut any = false;
        for (_, listen_socket) in self.listen_sockets.range_mut(all(key)) {
            any = true;
            if drain {
                listen_socket.close(turn.now());
            } else {
                // Workers who share it find what is there, and then nothing more.
                listen_socket.stop_connects();
            }
        }
        if !any || !drain {
            self.close_sockets_of(key, turn);
        }
    }

    /// Closes an address and says so: after all its connections, on which the core counts.
    fn close_sockets_of(&mut self, key: Key, turn: &mut Turn<'_>) {
        self.node_data.remove(&key);
        let is_group = self.groups.remove(&key).is_some();
        let sockets: Vec<_> =
            self.listen_sockets.range(all(key)).map(|(socket, _)| *socket).collect();
        let mut closed = None;
        for socket in sockets {
            let Some(listen_socket) = self.listen_sockets.remove(&socket) else { continue };
            // Gone from the loop when it is closed, whatever this says.
            let _ = turn.deregister(listen_socket.listener());
            self.watched.remove(&listen_socket.token().0);
            if is_group {
                // Workers that still finish have copies, which would keep the address.
                listen_socket.end();
            }
            closed = Some(listen_socket.address().clone());
        }
        let next = self
            .listen_sockets
            .first_key_value()
            .map(|(_, listen_socket)| listen_socket.address().clone());
        self.shared.change(|state| {
            if state.address == closed {
                state.address = next;
            }
        });
        self.inputs.push_back(Input::Unbound { key });
    }

    /// Takes connections from every port that may have some, a bounded number of each.
    pub(super) fn accept(&mut self, turn: &mut Turn<'_>) {
        let mut next = self.next_ready_socket(None, turn.now());
        while let Some(socket) = next {
            for count in 0.. {
                let Some(listen_socket) = self.listen_sockets.get_mut(&socket) else { break };
                if count == reactor::ACCEPTS_PER_TURN {
                    turn.again();
                    break;
                }
                match listen_socket.accept(turn) {
                    Taken::Connection(connection) => {
                        self.inputs.push_back(Input::Accepted { key: socket.0, connection });
                        self.run(turn);
                    }
                    Taken::Nothing => break,
                }
            }
            next = self.next_ready_socket(Some(socket), turn.now());
        }
        self.close_drained(turn);
    }

    fn next_ready_socket(&self, after: Option<SocketId>, now: Instant) -> Option<SocketId> {
        let from = after.map_or(Unbounded, Excluded);
        let mut listen_sockets = self.listen_sockets.range((from, Unbounded));
        listen_sockets
            .find(|(_, listen_socket)| listen_socket.wants_turn(now))
            .map(|(socket, _)| *socket)
    }

    fn close_drained(&mut self, turn: &mut Turn<'_>) {
        if !self.listen_sockets.values().any(|listen_socket| listen_socket.is_drained(turn.now())) {
            return;
        }
        let mut keys: BTreeSet<Key> = self.listen_sockets.keys().map(|(key, _)| *key).collect();
        let undrained = self
            .listen_sockets
            .iter()
            .filter(|(_, listen_socket)| !listen_socket.is_drained(turn.now()));
        undrained.for_each(|((key, _), _)| _ = keys.remove(key));
        for key in keys {
            self.close_sockets_of(key, turn);
            self.run(turn);
        }
    }

    /// All at one time, so that many cost one wake-up.
    pub(super) fn poll_later(&mut self, turn: &Turn<'_>) {
        if self.poll_at.is_none() && self.listen_sockets.values().any(ListenSocket::is_polled) {
            self.poll_at = Some(turn.now() + POLL_INTERVAL);
        }
    }

    /// Looks at the workers' own sockets, if it is time.
    pub(super) fn poll_own_sockets(&mut self, turn: &mut Turn<'_>) {
        if self.poll_at.take_if(|at| *at <= turn.now()).is_none() {
            return;
        }
        for (&(key, number), listen_socket) in &mut self.listen_sockets {
            let owner =
                |group: &ReusePortGroup| *group.owners.get(usize::try_from(number).ok()?)?;
            let slot = self.groups.get(&key).and_then(owner);
            if let (true, Some(slot)) =
                (listen_socket.is_polled() && listen_socket.poll_unaccepted(turn), slot)
            {
                self.inputs.push_back(Input::Unaccepted { key, slot });
            }
        }
        self.poll_later(turn);
    }
}

/// The sockets of one address.
fn all(key: Key) -> Range<SocketId> {
    (key, 0)..(key + 1, 0)
}
