//! Node workers of a primary: their words for the core, and the core's for them.

use std::io;
use std::net::{Ipv6Addr, UdpSocket};
use std::sync::OnceLock;

use reactor::Turn;

use super::Driver;
use super::perform::errno_of;
use crate::contract::{Access, Grant, Input, Key, Refusal, WorkerId};
use crate::error::Error;
use crate::node::primary_session::{FromWorker, PrimarySession, Ticket};
use crate::node::query::Place;
use crate::node::wire::Message;
use crate::primary::event::Event;
use crate::primary::workers::WorkerIo;
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;
use crate::protocol::listen_options::ListenOptions;

impl Driver {
    pub(super) fn is_node(&mut self, worker: WorkerId) -> bool {
        self.workers.get_mut(worker).is_some_and(|worker_io| worker_io.session.is_some())
    }

    pub(super) fn receive_node(&mut self, worker: WorkerId, message: ipc::Message) {
        let Some(session) = self.session(worker) else { return };
        match message.decode::<Message>() {
            Ok(message) => {
                let received = session.receive(&message, has_ipv6());
                self.received(worker, received);
            }
            Err(error) => self.shared.emit(Event::error(Some(worker), Error::Channel(error))),
        }
    }

    /// What became of the descriptor beside a message.
    pub(super) fn node_took(&mut self, worker: WorkerId, ticket: Ticket, taken: bool) {
        let Some(session) = self.session(worker) else { return };
        let received = session.acknowledged(ticket, taken);
        self.received(worker, received);
    }

    fn received(&mut self, worker: WorkerId, received: FromWorker<Connection>) {
        let input = match received {
            FromWorker::Nothing => return,
            FromWorker::Online => Input::Online { worker },
            FromWorker::Asked { request, place, options } => match self.resolve(place, &options) {
                Ok(address) => Input::ListenRequested { worker, request, address, options },
                Err((address, errno)) => Input::NoSuchSocket { worker, request, address, errno },
            },
            FromWorker::Invalid(message) => return self.say_to_node(worker, Some(*message)),
            FromWorker::Listening(key) => Input::Listening { worker, key },
            FromWorker::Closed(key) => Input::ListenerClosed { worker, key },
            FromWorker::Leaving(answer) => {
                self.say_to_node(worker, answer.map(|message| *message));
                Input::DisconnectRequested { worker }
            }
            FromWorker::Answered { key, nth, answer } => {
                Input::Answered { worker, key, nth, answer }
            }
            FromWorker::Refused { key, message } => {
                self.say_to_node(worker, Some(*message));
                Input::ListenerClosed { worker, key }
            }
        };
        self.inputs.push_back(input);
    }

    /// Finds the inherited socket that a worker asks for by the number of a descriptor.
    fn resolve(
        &mut self,
        place: Place,
        options: &ListenOptions,
    ) -> Result<Address, (Address, i32)> {
        let (number, datagrams) = match place {
            Place::At(address) => return Ok(address),
            Place::Descriptor { number, datagrams } => (number, datagrams),
        };
        let found = self.inherited.numbered(number, options, datagrams);
        let unknown = || Address::Inherited(format!("descriptor {number}"));
        found.map_err(|error| (unknown(), errno_of(&error)))
    }

    pub(super) fn refuse_node(&mut self, worker: WorkerId, request: u32, errno: i32) {
        let message = self.session(worker).and_then(|session| session.refuse(request, errno));
        self.say_to_node(worker, message);
    }

    pub(super) fn grant_node(
        &mut self,
        worker: WorkerId,
        request: u32,
        granted: Grant,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        self.open_for(&granted, turn)?;
        let Grant { key, access, .. } = granted;
        let gone = || io::Error::from_raw_os_error(sys::errno::ECANCELED);
        let listen_socket = self.listen_sockets.get(&(key, 0)).ok_or_else(gone)?;
        let worker_io = self.workers.get_mut(worker).ok_or_else(gone)?;
        let WorkerIo { session: Some(session), child, .. } = worker_io else { return Err(gone()) };
        let data = self.node_data.entry(key).or_default();
        match access {
            Access::HandOff | Access::OwnSocket(_) => {
                let message = session.grant(request, key, listen_socket.address(), data);
                self.say_to_node(worker, message);
            }
            Access::Shared => {
                let socket = listen_socket.listener().try_clone_to_owned()?;
                if let Some((message, ticket)) = session.grant_socket(request, key, data) {
                    // Fails only when the channel is closed, which is heard as an event.
                    drop(child.send_internal_with_handle(message, socket, ticket));
                }
            }
        }
        Ok(())
    }

    /// Gives the worker a copy; the connection itself stays until the worker has answered.
    pub(super) fn send_to_node(&mut self, worker: WorkerId, key: Key, connection: Connection) {
        let Some(WorkerIo { session: Some(session), child, .. }) = self.workers.get_mut(worker)
        else {
            let (connection, refusal) = (Some(connection), Refusal::Gone);
            let failed = Input::SendFailed { worker, key, connection, refusal };
            return self.inputs.push_back(failed);
        };
        let copy = match connection.socket.try_clone() {
            Ok(copy) => copy,
            // Out of descriptors: only time helps.
            Err(_) => {
                let (connection, refusal) = (Some(connection), Refusal::InFlight);
                let failed = Input::SendFailed { worker, key, connection, refusal };
                return self.inputs.push_back(failed);
            }
        };
        let (message, ticket) = session.give(key, connection);
        let sent = child.send_internal_with_handle(message, copy, ticket);
        if let Err(failure) = sent {
            let full = matches!(failure.error, ipc::Error::Full);
            let refusal = if full { Refusal::Full } else { Refusal::Gone };
            let connection = session.take_last();
            self.inputs.push_back(Input::SendFailed { worker, key, connection, refusal });
        }
    }

    /// Workers of whom too much lies unread by the user are not heard, answers included.
    pub(super) fn excuse_unheard(&mut self) {
        let unheard = self.workers.paused_with_unanswered().map(|worker| Input::Paused { worker });
        self.inputs.extend(unheard);
    }

    pub(super) fn take_back_from_node(&mut self, worker: WorkerId, key: Key) {
        let connections =
            self.session(worker).map(|session| session.reclaim(key)).unwrap_or_default();
        self.inputs.push_back(Input::Reclaimed { worker, key, connections, probes: 0 });
    }

    /// Tells the worker to leave.
    pub(super) fn disconnect_node(&mut self, worker: WorkerId) {
        let message = self.session(worker).and_then(PrimarySession::farewell);
        self.say_to_node(worker, message);
    }

    fn say_to_node(&mut self, worker: WorkerId, message: Option<Message>) {
        if let (Some(message), Some(worker_io)) = (message, self.workers.get_mut(worker)) {
            // Fails only when the channel is closed, which is heard as an event.
            let _ = worker_io.child.send_internal(message);
        }
    }

    fn session(&mut self, worker: WorkerId) -> Option<&mut PrimarySession<Connection>> {
        self.workers.get_mut(worker)?.session.as_mut()
    }
}

/// Whether this host has IPv6: a Node `listen` without a host then means both families.
fn has_ipv6() -> bool {
    static IPV6: OnceLock<bool> = OnceLock::new();
    *IPV6.get_or_init(|| UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)).is_ok())
}
