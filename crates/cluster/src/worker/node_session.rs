//! The session of a worker with a primary that is a Node program.
//!
//! This file translates the runtime's messages to Node's protocol, and handles the messages of the
//! primary. As its policy demands, the primary sends connections on the channel, which arrive in
//! one [`NodeQueue`] for each listener, or the listening socket itself.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use child_process::internal::InternalChannel;
use ipc::AnyHandle;

use crate::node::session_with_primary::{FromPrimary, SessionWithPrimary};
use crate::node::wire::Message;
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;
use crate::protocol::message::{ListenGrant, ToPrimary};
use crate::worker::node_queue::NodeQueue;
use crate::worker::pending_grants::GrantedSource;
use crate::worker::runtime::Runtime;

/// The state of the session with a Node primary.
#[derive(Debug, Default)]
pub(super) struct NodePrimary(Mutex<SessionState>);

#[derive(Debug, Default)]
struct SessionState {
    session: SessionWithPrimary,
    node_queues: HashMap<u64, Arc<NodeQueue>>,
    /// The connection limits of requests that the primary has not answered.
    limits: HashMap<u32, u32>,
}

impl Runtime {
    /// Sends a message in Node's protocol.
    pub(super) fn send_to_node(&self, node_primary: &NodePrimary, message: ToPrimary) {
        let mut state = node_primary.lock();
        match message {
            ToPrimary::Online => self.send_node_message(state.session.online()),
            ToPrimary::Listen { request, address, options } => {
                let here = std::env::current_dir().unwrap_or_default();
                match state.session.request_listen(request, &address, &options, &here) {
                    Ok(query) => {
                        state.limits.extend(options.max_connections.map(|max| (request, max)));
                        if let Err(failed) = self.parent().send_internal(&query) {
                            self.fail_request(request, &failed);
                        }
                    }
                    Err(errno) => self.pending_grants().complete(request, Err(errno)),
                }
            }
            ToPrimary::Listening { key } => {
                if let Some(listening) = state.session.listening(key) {
                    self.send_node_message(listening);
                }
            }
            // Node's protocol has no such messages.
            ToPrimary::ListensAlone { .. } | ToPrimary::HasRoom { .. } => {}
            ToPrimary::Close { key } => self.close_node_listener(&mut state, key),
            ToPrimary::Disconnect => {
                if let Some((closes, disconnect)) = state.session.request_disconnect() {
                    closes.into_iter().for_each(|close| self.send_node_message(close));
                    self.send_node_message(disconnect);
                }
                drop(state);
                // The drain begins with the answer. A worker that ended earlier would close the
                // channel on which the primary is about to answer, and a Node program ends by the
                // error of that write.
                self.deadlines().set_disconnect_requested();
                self.wake_timer();
            }
        }
    }

    /// Handles a message of the primary, on the reactor's thread.
    pub(super) fn receive_node(&self, node_primary: &NodePrimary, mut message: ipc::Message) {
        let handle = message.take_handle();
        let is_handle_lost = ipc::internal::take_handle_lost(&mut message);
        // A message that cannot be decoded is from another version of the protocol.
        let Ok(message) = message.decode::<Message>() else { return };
        let mut state = node_primary.lock();
        match state.session.receive(&message) {
            FromPrimary::Nothing => {}
            FromPrimary::Granted { request, key, address, backlog } => {
                let limit = state.limits.remove(&request);
                let source = if is_handle_lost {
                    Err(io::Error::from_raw_os_error(sys::errno::EMFILE))
                } else {
                    self.granted_source(&mut state, (key, limit), (address, backlog), handle)
                };
                let failed = source.is_err();
                let result = source.map_err(|error| errno_of(&error));
                let taken = self.pending_grants().try_complete(request, result);
                if failed || !taken {
                    self.close_node_listener(&mut state, key);
                }
            }
            FromPrimary::Refused { request, errno } => {
                state.limits.remove(&request);
                self.pending_grants().complete(request, Err(errno));
            }
            FromPrimary::Connection { key, number } => {
                let node_queue = key.and_then(|key| state.node_queues.get(&key));
                let pushed = match (node_queue, handle.map(connection)) {
                    (Some(node_queue), Some(connection)) => {
                        node_queue.push(number, connection, Instant::now()).is_ok()
                    }
                    (Some(node_queue), None) if is_handle_lost => {
                        node_queue.push_lost(number, Instant::now())
                    }
                    (None, _) | (_, None) => false,
                };
                if !pushed {
                    let declined = state.session.answer(number, false);
                    self.send_node_message(declined);
                }
                drop(state);
                // A connection over a limit has a deadline.
                if node_primary.next_deadline().is_some() {
                    self.wake_timer();
                }
            }
            FromPrimary::Disconnect => {
                self.set_exited_after_disconnect();
                // `finish_queues` takes the same lock.
                drop(state);
                self.end_by_node(node_primary);
            }
            FromPrimary::DisconnectAcknowledged => {
                drop(state);
                self.end_by_node(node_primary);
            }
        }
    }

    /// Begins the drain: the primary sends no further connection, and answers no listen request.
    fn end_by_node(&self, node_primary: &NodePrimary) {
        node_primary.finish_queues();
        self.pending_grants().cancel();
        self.begin_drain();
    }

    /// Reports to a Node primary that the program has accepted the connection with this number.
    ///
    /// The caller reports before anything uses the connection.
    pub(super) fn report_accepted(&self, number: i64) {
        if let Some(node_primary) = self.node_primary() {
            let mut state = node_primary.lock();
            let accepted = state.session.answer(number, true);
            self.send_node_message(accepted);
        }
    }

    /// Declines the connections that were held over a limit for long enough.
    pub(super) fn decline_overdue(&self, node_primary: &NodePrimary, now: Instant) {
        let mut state = node_primary.lock();
        let node_queues = state.node_queues.values();
        let overdue: Vec<_> =
            node_queues.flat_map(|node_queue| node_queue.take_overdue(now)).collect();
        self.decline(&mut state, overdue);
    }

    /// Closes a listener at the primary, then declines the connections that were not accepted.
    ///
    /// The order matters: otherwise the primary could send a declined connection here again.
    fn close_node_listener(&self, state: &mut SessionState, key: u64) {
        if let Some(close) = state.session.close(key) {
            self.send_node_message(close);
        }
        if let Some(node_queue) = state.node_queues.remove(&key) {
            self.decline(state, node_queue.close());
        }
    }

    fn decline(&self, state: &mut SessionState, numbers: Vec<i64>) {
        for number in numbers {
            let declined = state.session.answer(number, false);
            self.send_node_message(declined);
        }
    }

    /// Makes the source for a grant: a socket if the primary sent a handle, a queue otherwise.
    fn granted_source(
        &self,
        state: &mut SessionState,
        (key, limit): (u64, Option<u32>),
        (address, backlog): (Address, u32),
        handle: Option<AnyHandle>,
    ) -> io::Result<GrantedSource> {
        let Some(handle) = handle else {
            if address.is_datagram() {
                return Err(io::Error::from_raw_os_error(sys::errno::EINVAL));
            }
            let node_queue = Arc::new(NodeQueue::new(limit)?);
            state.node_queues.insert(key, node_queue.clone());
            return Ok(GrantedSource::NodeQueue { key, address, node_queue });
        };
        let descriptor = OwnedFd::from(handle);
        let address = bound_address(&address, &descriptor)?;
        if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &address {
            state.session.set_port(key, address.port());
        }
        if !address.is_datagram() {
            // Node's primary binds the socket, and leaves `listen(2)` to the worker.
            sys::socket::listen(descriptor.as_fd(), backlog)?;
        }
        let descriptor = ipc::Handle::new(descriptor);
        Ok(GrantedSource::Descriptor(ListenGrant {
            key,
            address,
            descriptor,
            own_socket: None,
            data: None,
            page: None,
            counts_closed: false,
        }))
    }

    fn send_node_message(&self, message: impl serde::Serialize) {
        // Fails when the channel is closed, which arrives as an event of its own.
        let _ = self.parent().send_internal(&message);
    }
}

impl NodePrimary {
    /// Marks all queues as complete: the primary sends no further connection.
    pub(super) fn finish_queues(&self) {
        self.lock().node_queues.values().for_each(|node_queue| node_queue.finish());
    }

    /// Returns the time at which the next connection over a limit is declined.
    pub(super) fn next_deadline(&self) -> Option<Instant> {
        self.lock().node_queues.values().filter_map(|queue| queue.next_deadline()).min()
    }

    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns the address that the socket is bound to.
///
/// # Errors
///
/// `EADDRINUSE` if the socket does not have the requested port. A Node primary notices late that a
/// port is taken, and sends a socket that is not bound.
fn bound_address(requested: &Address, socket: &OwnedFd) -> io::Result<Address> {
    let mut bound = requested.clone();
    if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &mut bound {
        let port = address.port();
        *address = sys::socket::local_address(socket.as_fd())?;
        if port != 0 && port != address.port() {
            return Err(io::Error::from_raw_os_error(sys::errno::EADDRINUSE));
        }
    }
    Ok(bound)
}

fn connection(handle: AnyHandle) -> Connection {
    let peer = match &handle {
        AnyHandle::TcpStream(stream) => stream.peer_addr().ok(),
        _ => None,
    };
    Connection { socket: handle.into(), peer }
}

fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(sys::errno::EIO)
}
