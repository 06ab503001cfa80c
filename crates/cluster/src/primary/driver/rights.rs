//! Requests to listen that rules, a function of the user, or the rights of a worker decide.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;

use reactor::Turn;
use sys::spawn::Member;

use super::perform::errno_of;
use super::{Driver, WatchedFd};
use crate::bind::Bound;
use crate::contract::{Access, Grant, Input, Key, ListenRefusal, SlotId, WorkerId};
use crate::error::Error;
use crate::listen_rules::{Credentials, ListenFacts, ListenPermission};
use crate::primary::binder::{BindOrder, BindReply, SocketPlace};
use crate::primary::builder::PermissionFunction;
use crate::primary::event::Event;
use crate::primary::listen_socket::ListenSocket;
use crate::primary::primary_state::Shared;
use crate::primary::reuse_port_group::ReusePortGroup;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// The number of descriptors that one grant takes, for a moment or as long as the worker listens.
const GRANT_DESCRIPTORS: u64 = 4;

/// A grant whose socket is being opened by a child.
#[derive(Debug)]
pub(super) struct ParkedGrant {
    pub(super) worker: WorkerId,
    pub(super) request: u32,
    pub(super) grant: Grant,
}

/// The answer of the user's function, which is sent when the value is dropped: a function that
/// panics refuses.
struct PermissionReply {
    shared: Arc<Shared>,
    worker: WorkerId,
    request: u32,
    permission: ListenPermission,
}

impl Drop for PermissionReply {
    fn drop(&mut self) {
        let Self { worker, request, permission, .. } = *self;
        self.shared.input(Input::Permission { worker, request, permission });
    }
}

impl Driver {
    /// Sets the function that decides about addresses that no rule allows.
    pub(crate) fn ask_permission(mut self, function: Option<PermissionFunction>) -> Self {
        self.permission = function;
        self
    }

    /// Returns the facts about a request to listen that the supervisor needs.
    pub(super) fn listen_facts(&mut self, worker: WorkerId, address: &Address) -> ListenFacts {
        let path = match address {
            Address::UnixPath(path) | Address::DatagramPath(path) => std::path::absolute(path).ok(),
            Address::Tcp { .. }
            | Address::Udp { .. }
            | Address::UnixAbstract(_)
            | Address::DatagramAbstract(_)
            | Address::Inherited(_) => None,
        };
        let given = self.inherited.given_at(address);
        ListenFacts { credentials: self.credentials_of(worker), given, path }
    }

    pub(super) fn credentials_of(&mut self, worker: WorkerId) -> Option<Credentials> {
        self.workers.get_mut(worker)?.credentials.clone()
    }

    /// Asks the function of the user on the callback thread.
    pub(super) fn ask(&self, worker: WorkerId, request: u32, address: Address) {
        let (shared, permission) = (self.shared.clone(), ListenPermission::Refused);
        let mut reply = PermissionReply { shared, worker, request, permission };
        let Some(PermissionFunction(function)) = self.permission.clone() else { return };
        reactor::callback::call(move || {
            // The whole reply moves into the closure, and is dropped behind the call.
            let reply = &mut reply;
            reply.permission = function(worker, &address);
        });
    }

    /// Reports that a worker may not listen, and records the failure in case the start fails.
    pub(super) fn listen_refused(
        &mut self,
        worker: WorkerId,
        address: Address,
        refusal: ListenRefusal,
    ) {
        let error = || match refusal {
            ListenRefusal::NotAllowed => Error::NotAllowed { address: address.clone() },
            ListenRefusal::TooMany(max) => {
                Error::TooManyListeners { address: address.clone(), max }
            }
        };
        self.record_failure(worker, error());
        self.shared.emit(Event::error(Some(worker), error()));
    }

    /// Orders the first socket of an address from a child.
    pub(super) fn order_first(
        &mut self,
        key: Key,
        (address, options): (Address, ListenOptions),
        reuse_port: bool,
        rights: Credentials,
    ) {
        let member = if reuse_port { Member::First } else { Member::None };
        if reuse_port {
            let group = ReusePortGroup::new(options.backlog).with_rights(rights.clone());
            self.groups.insert(key, group);
        }
        let reply = BindReply::new(key, SocketPlace::First, self.shared.clone());
        self.spawner.bind(BindOrder { address, options, member, rights, reply });
    }

    /// Whether the grant waits for a socket that a child opens. Orders the socket once.
    pub(super) fn awaits_socket(&mut self, grant: &Grant) -> bool {
        let owner = match grant.access {
            Access::OwnSocket(slot) => Some(slot),
            Access::HandOff => None,
            Access::Shared => return false,
        };
        let group = self.groups.get_mut(&grant.key);
        let first = self.listen_sockets.get(&(grant.key, 0));
        let (Some(group), Some(first)) = (group, first) else { return false };
        let Some(rights) = group.rights().cloned() else { return false };
        if group.assign(owner).is_some() {
            return false;
        }
        if self.opening.insert((grant.key, owner)) {
            let options = ListenOptions::new().backlog(group.backlog());
            let (address, member) = (first.address().clone(), Member::Next);
            let place = SocketPlace::Further(owner);
            let reply = BindReply::new(grant.key, place, self.shared.clone());
            self.spawner.bind(BindOrder { address, options, member, rights, reply });
        }
        true
    }

    /// Takes a socket that a child has opened.
    pub(super) fn socket_opened(
        &mut self,
        key: Key,
        place: SocketPlace,
        result: io::Result<Bound>,
        turn: &mut Turn<'_>,
    ) {
        let result = result.and_then(|bound| {
            self.check_reserve(bound.socket.as_fd())?;
            Ok(bound)
        });
        match place {
            SocketPlace::First => {
                if result.is_err() {
                    self.groups.remove(&key);
                }
                let result = result.map(|bound| self.add_first(key, bound, false));
                let result = result.map_err(|error| errno_of(&error));
                self.inputs.push_back(Input::Bound { key, result });
            }
            SocketPlace::Further(owner) => self.further_opened(key, owner, result, turn),
        }
    }

    fn further_opened(
        &mut self,
        key: Key,
        owner: Option<SlotId>,
        result: io::Result<Bound>,
        turn: &mut Turn<'_>,
    ) {
        self.opening.remove(&(key, owner));
        let (waiting, others) = std::mem::take(&mut self.parked).into_iter().partition(|parked| {
            let of = match parked.grant.access {
                Access::OwnSocket(slot) => Some(slot),
                Access::HandOff | Access::Shared => None,
            };
            (parked.grant.key, of) == (key, owner)
        });
        let waiting: Vec<ParkedGrant> = waiting;
        self.parked = others;
        match result {
            Ok(bound) => self.add_further(key, owner, bound, turn),
            Err(error) => {
                let errno = errno_of(&error);
                let failed = waiting.into_iter().map(|ParkedGrant { worker, request, .. }| {
                    Input::GrantFailed { worker, request, key, errno }
                });
                return self.inputs.extend(failed);
            }
        }
        for ParkedGrant { worker, request, grant } in waiting {
            self.grant(worker, request, Ok(grant), turn);
        }
    }

    /// Adds a further socket of an address, unless the address was closed meanwhile.
    fn add_further(&mut self, key: Key, owner: Option<SlotId>, bound: Bound, turn: &mut Turn<'_>) {
        let first = self.listen_sockets.get(&(key, 0)).map(ListenSocket::is_on);
        let (Some(group), Some(on)) = (self.groups.get_mut(&key), first) else { return };
        let number = group.add(owner);
        let token = self.token(WatchedFd::ListenSocket((key, number)));
        let mut socket = ListenSocket::new(bound, false, token);
        socket.set_on(on, turn);
        self.listen_sockets.insert((key, number), socket);
    }

    /// Refuses to keep a new listening socket if it, or the first grant of it, would take descriptors
    /// that the restart of workers may need. Grants of sockets that exist may take them: they are
    /// part of a restart.
    ///
    /// The kernel gives the lowest free number, so a number in the reserve means that all below are
    /// in use.
    ///
    /// # Errors
    ///
    /// `EMFILE`.
    pub(super) fn check_reserve(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let Ok((soft, _)) = sys::rlimit::descriptors() else { return Ok(()) };
        let number = u64::try_from(sys::fd::number(descriptor)).unwrap_or(0);
        let reserve = self.supervisor.descriptor_reserve(soft).saturating_add(GRANT_DESCRIPTORS);
        if number < soft.saturating_sub(reserve) {
            return Ok(());
        }
        Err(io::Error::from_raw_os_error(sys::errno::EMFILE))
    }
}
