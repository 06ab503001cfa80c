//! The Node workers of a primary: their messages as inputs of the supervisor, and the outputs of
//! the supervisor as messages.

use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::OnceLock;

use child_process::internal::InternalChannel;
use reactor::Turn;

use super::Driver;
use super::perform::errno_of;
use crate::contract::{Access, Grant, Input, Key, Refusal, WorkerId};
use crate::error::Error;
use crate::node::query::Target;
use crate::node::session_with_worker::{FromWorker, SessionWithWorker, Ticket};
use crate::node::wire::Message;
use crate::primary::event::Event;
use crate::primary::worker_io::WorkerIo;
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;
use crate::protocol::listen_options::ListenOptions;

impl Driver {
    pub(super) fn is_node(&mut self, worker: WorkerId) -> bool {
        self.workers.get_mut(worker).is_some_and(|worker_io| worker_io.session.is_some())
    }

    /// Handles a message of a Node worker.
    pub(super) fn receive_node(&mut self, worker: WorkerId, message: ipc::Message) {
        let Some(session) = self.session(worker) else { return };
        match message.decode::<Message>() {
            Ok(message) => {
                let event = session.receive(&message, has_ipv6());
                self.session_event(worker, event);
            }
            Err(error) => self.shared.emit(Event::error(Some(worker), Error::Channel(error))),
        }
    }

    /// Handles the report of the channel on the descriptor of a message.
    pub(super) fn handle_acknowledged(&mut self, worker: WorkerId, ticket: Ticket, taken: bool) {
        let Some(session) = self.session(worker) else { return };
        let event = session.acknowledged(ticket, taken);
        self.session_event(worker, event);
    }

    fn session_event(&mut self, worker: WorkerId, event: FromWorker<Connection>) {
        let input = match event {
            FromWorker::Nothing => return,
            FromWorker::Online => Input::Online { worker },
            FromWorker::ListenRequested { request, target, options } => {
                self.listen_requested(worker, request, target, options)
            }
            FromWorker::InvalidRequest(refusal) => {
                return self.send_node_message(worker, Some(*refusal));
            }
            FromWorker::Listening(key) => Input::Listening { worker, key },
            FromWorker::ListensAlone(address) => {
                self.shared.change(|state| {
                    state.address.get_or_insert_with(|| address.clone());
                });
                Input::ListensAlone { worker, address }
            }
            FromWorker::ListenerClosed(key) => Input::ListenerClosed { worker, key },
            FromWorker::DisconnectRequested(acknowledgement) => {
                self.send_node_message(worker, acknowledgement.map(|message| *message));
                Input::DisconnectRequested { worker }
            }
            FromWorker::Answered { key, nth, answer } => {
                Input::Answered { worker, key, nth, answer }
            }
            FromWorker::SocketNotTaken { key, message } => {
                self.send_node_message(worker, Some(*message));
                Input::ListenerClosed { worker, key }
            }
        };
        self.inputs.push_back(input);
    }

    fn listen_requested(
        &mut self,
        worker: WorkerId,
        request: u32,
        target: Target,
        options: ListenOptions,
    ) -> Input<Connection> {
        if let Target::Descriptor { number, .. } = target {
            let rights = self.credentials_of(worker);
            let is_given = self.inherited.has_number(number);
            // Asked first, because such a socket begins to listen when it is taken.
            if !is_given && !self.supervisor.may_name_descriptor(rights.as_ref(), number) {
                let address = descriptor_name(number);
                return Input::ForbiddenDescriptor { worker, request, address };
            }
        }
        match self.resolve(target, &options) {
            Ok(address) => {
                let facts = self.listen_facts(worker, &address);
                Input::ListenRequested { worker, request, address, options, facts }
            }
            Err((address, errno)) => Input::NoSuchSocket { worker, request, address, errno },
        }
    }

    /// Returns the address of the target. A descriptor number names an inherited socket; without
    /// one, the error is a name for the target and an errno.
    fn resolve(
        &mut self,
        target: Target,
        options: &ListenOptions,
    ) -> Result<Address, (Address, i32)> {
        let (number, datagrams) = match target {
            Target::Address(address) => return Ok(address),
            Target::Descriptor { number, datagrams } => (number, datagrams),
        };
        let address = self.inherited.numbered(number, options, datagrams);
        address.map_err(|error| (descriptor_name(number), errno_of(&error)))
    }

    /// Sends the refusal of a request to listen.
    pub(super) fn refuse_node(&mut self, worker: WorkerId, request: u32, errno: i32) {
        let message = self.session(worker).and_then(|session| session.refuse(request, errno));
        self.send_node_message(worker, message);
    }

    /// Sends the grant of a request to listen: with the socket if that is shared, and otherwise
    /// without one, because each connection follows on the channel.
    pub(super) fn grant_node(
        &mut self,
        worker: WorkerId,
        request: u32,
        grant: &Grant,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        self.open_for(grant, turn)?;
        let key = grant.key;
        let canceled = || io::Error::from_raw_os_error(sys::errno::ECANCELED);
        let socket = self.listen_sockets.get(&(key, 0)).ok_or_else(canceled)?;
        let worker_io = self.workers.get_mut(worker).ok_or_else(canceled)?;
        let WorkerIo { session: Some(session), child, .. } = worker_io else {
            return Err(canceled());
        };
        let data = self.node_data.entry(key).or_default();
        match grant.access {
            Access::HandOff | Access::OwnSocket(_) => {
                let message = session.grant(request, key, socket.address(), data);
                self.send_node_message(worker, message);
            }
            Access::Shared => {
                let socket = socket.listener().try_clone_to_owned()?;
                if let Some((message, ticket)) = session.grant_socket(request, key, data) {
                    // Fails only when the channel is closed, which arrives as an event.
                    drop(child.send_internal_with_handle(&message, socket, ticket));
                }
            }
        }
        Ok(())
    }

    /// Sends a copy of a connection. The session keeps the connection until the worker answers.
    pub(super) fn send_to_node(&mut self, worker: WorkerId, key: Key, connection: Connection) {
        let worker_io = self.workers.get_mut(worker);
        let Some(WorkerIo { session: Some(session), child, .. }) = worker_io else {
            return self.send_failed(worker, key, Some(connection), Refusal::Gone);
        };
        let Ok(copy) = connection.socket.try_clone() else {
            // The process has no descriptor left: only time helps.
            return self.send_failed(worker, key, Some(connection), Refusal::InFlight);
        };
        let (message, ticket) = session.send(key, connection);
        if let Err(failure) = child.send_internal_with_handle(&message, copy, ticket) {
            let is_full = matches!(failure.error, ipc::Error::Full);
            let refusal = if is_full { Refusal::Full } else { Refusal::Gone };
            let connection = session.take_unsent();
            self.send_failed(worker, key, connection, refusal);
        }
    }

    /// Reports the workers that may have answered, but whose channels are paused because the user
    /// leaves their messages unread.
    pub(super) fn report_paused(&mut self) {
        let paused = self.workers.paused_with_unanswered().map(|worker| Input::Paused { worker });
        self.inputs.extend(paused);
    }

    /// Answers a `Reclaim` with the connections that the worker will not answer any more.
    pub(super) fn reclaim_from_node(&mut self, worker: WorkerId, key: Key) {
        let connections =
            self.session(worker).map(|session| session.reclaim(key)).unwrap_or_default();
        self.inputs.push_back(Input::Reclaimed { worker, key, connections, probes: 0 });
    }

    /// Sends the request to disconnect.
    pub(super) fn disconnect_node(&mut self, worker: WorkerId) {
        let message = self.session(worker).and_then(SessionWithWorker::disconnect);
        self.send_node_message(worker, message);
    }

    fn send_node_message(&mut self, worker: WorkerId, message: Option<Message>) {
        if let (Some(message), Some(worker_io)) = (message, self.workers.get_mut(worker)) {
            // Fails only when the channel is closed, which arrives as an event.
            let _ = worker_io.child.send_internal(&message);
        }
    }

    fn session(&mut self, worker: WorkerId) -> Option<&mut SessionWithWorker<Connection>> {
        self.workers.get_mut(worker)?.session.as_mut()
    }
}

/// Returns the name of a descriptor that is no socket for a worker.
fn descriptor_name(number: i32) -> Address {
    Address::Inherited(format!("descriptor {number}"))
}

/// Returns whether this host has IPv6: a Node `listen` without a host then means both families.
fn has_ipv6() -> bool {
    static IPV6: OnceLock<bool> = OnceLock::new();
    *IPV6.get_or_init(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok())
}
