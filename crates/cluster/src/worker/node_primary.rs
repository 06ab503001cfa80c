//! A worker whose primary is a Node program.
//!
//! What the worker's runtime tells is put into Node's words here, and what the primary says is
//! understood. Connections come on the channel into an [`NodeQueue`] for each listener, or the
//! listening socket itself comes, as the primary's policy wants it.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use ipc::AnyHandle;

use super::runtime::{Granted, Runtime};
use crate::node::wire::Message;
use crate::node::worker_session::{FromPrimary, WorkerSession};
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;
use crate::protocol::message::{ListenGrant, ToPrimary};
use crate::worker::node_queue::NodeQueue;

/// What is known of a Node primary.
#[derive(Debug, Default)]
pub(crate) struct NodePrimary(Mutex<SessionState>);

#[derive(Debug, Default)]
struct SessionState {
    session: WorkerSession,
    node_queues: HashMap<u32, Arc<NodeQueue>>,
    /// Of wishes that are not answered: how many connections may be open.
    limits: HashMap<u32, u32>,
}

impl Runtime {
    pub(super) fn tell_node(&self, node_primary: &NodePrimary, message: ToPrimary) {
        let mut state = node_primary.lock();
        match message {
            ToPrimary::Online => self.say(state.session.online()),
            ToPrimary::Listen { request, address, options } => {
                let here = std::env::current_dir().unwrap_or_default();
                match state.session.ask(request, &address, &options, &here) {
                    Ok(ask) => {
                        state.limits.extend(options.max_connections.map(|max| (request, max)));
                        if let Err(failed) = self.parent.send_internal(ask) {
                            self.not_asked(request, &failed.error);
                        }
                    }
                    Err(errno) => self.answer(request, Err(errno)),
                }
            }
            ToPrimary::Listening { key } => {
                if let Some(control) = state.session.listening(key) {
                    self.say(control);
                }
            }
            // Node's primaries are not told.
            ToPrimary::ListensAlone { .. } | ToPrimary::HasRoom { .. } => {}
            ToPrimary::Close { key } => self.close(&mut state, key),
            ToPrimary::Disconnect => {
                if let Some((closes, leave)) = state.session.leave() {
                    closes.into_iter().for_each(|close| self.say(close));
                    self.say(leave);
                }
                drop(state);
                self.begin_drain();
            }
        }
    }

    /// Hears the primary, on the loop.
    pub(super) fn receive_node(&self, node_primary: &NodePrimary, mut message: ipc::Message) {
        let handle = message.take_handle();
        // What cannot be understood is not for us: a message of another time.
        let Ok(message) = message.decode::<Message>() else { return };
        let mut state = node_primary.lock();
        match state.session.receive(&message) {
            FromPrimary::Nothing => {}
            FromPrimary::Granted { request, key, address, backlog } => {
                let limit = state.limits.remove(&request);
                let offer = self.offer(&mut state, (key, limit), (address, backlog), handle);
                if offer.is_err() {
                    self.close(&mut state, key);
                }
                self.answer(request, offer.map_err(|error| errno_of(&error)));
            }
            FromPrimary::Refused { request, errno } => {
                state.limits.remove(&request);
                self.answer(request, Err(errno));
            }
            FromPrimary::Connection { key, number } => {
                let node_queue = key.and_then(|key| state.node_queues.get(&key));
                let put = match (node_queue, handle.map(connection)) {
                    (Some(node_queue), Some(connection)) => {
                        node_queue.put(number, connection, Instant::now()).is_ok()
                    }
                    (None, _) | (_, None) => false,
                };
                if !put {
                    let declined = state.session.answer(number, false);
                    self.say(declined);
                }
                drop(state);
                self.wake_if_due(node_primary);
            }
            FromPrimary::Disconnect => {
                self.wanted.store(true, Ordering::Release);
                drop(state);
                node_primary.end();
                self.begin_drain();
            }
            FromPrimary::MayLeave => {
                drop(state);
                node_primary.end();
            }
        }
    }

    /// The worker accepted the connection with this number: the primary is told before anybody
    /// uses it.
    pub(crate) fn took(&self, number: i64) {
        if let Some(node_primary) = &self.node_primary {
            let mut state = node_primary.lock();
            let accepted = state.session.answer(number, true);
            self.say(accepted);
        }
    }

    /// Above a limit, a connection is held: the clock has to know.
    fn wake_if_due(&self, node_primary: &NodePrimary) {
        if let (Some(_), Some(clock)) = (node_primary.due(), self.clock.get()) {
            clock.wake();
        }
    }

    /// What was held above a limit for long enough is for another worker.
    pub(super) fn decline_overdue(&self, node_primary: &NodePrimary, now: Instant) {
        let mut state = node_primary.lock();
        let node_queues = state.node_queues.values();
        let overdue: Vec<_> = node_queues.flat_map(|node_queue| node_queue.overdue(now)).collect();
        for number in overdue {
            let declined = state.session.answer(number, false);
            self.say(declined);
        }
    }

    /// The primary no longer deals to the listener, then gets back what nobody accepted.
    fn close(&self, state: &mut SessionState, key: u32) {
        if let Some(close) = state.session.close(key) {
            self.say(close);
        }
        for number in
            state.node_queues.remove(&key).map(|node_queue| node_queue.close()).unwrap_or_default()
        {
            let declined = state.session.answer(number, false);
            self.say(declined);
        }
    }

    fn offer(
        &self,
        state: &mut SessionState,
        (key, limit): (u32, Option<u32>),
        (address, backlog): (Address, u32),
        handle: Option<AnyHandle>,
    ) -> io::Result<Granted> {
        let Some(handle) = handle else {
            if address.is_datagram() {
                return Err(io::Error::from_raw_os_error(sys::errno::EINVAL));
            }
            let node_queue = Arc::new(NodeQueue::new(limit)?);
            state.node_queues.insert(key, node_queue.clone());
            return Ok(Granted::NodeQueue { key, address, node_queue });
        };
        let descriptor = OwnedFd::from(handle);
        let address = bound(&address, &descriptor)?;
        if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &address {
            state.session.bound(key, address.port());
        }
        if !address.is_datagram() {
            // The primary has bound it, and leaves the rest to us.
            sys::socket::listen(descriptor.as_fd(), backlog)?;
        }
        let descriptor = ipc::Handle::new(descriptor);
        Ok(Granted::Granted(ListenGrant {
            key,
            address,
            descriptor,
            shared: true,
            own: None,
            data: None,
            count: None,
        }))
    }

    fn say(&self, message: impl serde::Serialize) {
        // Fails only when the channel is closed, which is heard as an event of its own.
        let _ = self.parent.send_internal(message);
    }
}

impl NodePrimary {
    /// No primary sends anything more.
    pub(super) fn end(&self) {
        self.lock().node_queues.values().for_each(|node_queue| node_queue.end());
    }

    /// When something that is held above a limit is to be declined.
    pub(super) fn due(&self) -> Option<Instant> {
        self.lock().node_queues.values().filter_map(|node_queue| node_queue.due()).min()
    }

    fn lock(&self) -> MutexGuard<'_, SessionState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the socket is bound. A Node primary notices late that a port is taken: then it sends a
/// socket that is bound nowhere.
fn bound(asked: &Address, socket: &OwnedFd) -> io::Result<Address> {
    let mut real = asked.clone();
    if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &mut real {
        let wanted = address.port();
        *address = sys::socket::local_address(socket.as_fd())?;
        if wanted != 0 && wanted != address.port() {
            return Err(io::Error::from_raw_os_error(sys::errno::EADDRINUSE));
        }
    }
    Ok(real)
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
