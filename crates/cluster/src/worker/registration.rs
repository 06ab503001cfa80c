//! The registration of a listener or datagram socket with the primary.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bind::{Bound, SocketFile};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::message::ToPrimary;
use crate::worker::pending_grants::GrantedSource;
use crate::worker::runtime::Runtime;

/// The common part of a listener and a datagram socket: an address, and the worker that serves
/// the address. `drop` reports to the primary that the address is closed in this worker.
#[derive(Debug)]
pub(crate) struct Registration {
    address: Address,
    data: Option<Vec<u8>>,
    /// `None` in a process that is no worker.
    worker: Option<Arc<Runtime>>,
    /// The primary's number of the grant; `None` for a socket that this process opened.
    key: Option<u64>,
    /// Removes the file of a Unix socket that this process opened.
    _file: Option<SocketFile>,
}

impl Registration {
    /// Makes the registration for a source that the primary granted.
    pub(crate) fn granted(source: &mut GrantedSource, worker: Arc<Runtime>) -> Self {
        let (key, address, data) = match source {
            GrantedSource::Descriptor(grant) => (grant.key, &grant.address, grant.data.take()),
            GrantedSource::NodeQueue { key, address, .. } => (*key, &*address, None),
        };
        let (address, worker) = (address.clone(), Some(worker));
        Self { address, data, worker, key: Some(key), _file: None }
    }

    /// Makes the registration for a socket that this process opened, and returns the socket.
    pub(crate) fn local(
        bound: Bound,
        options: &ListenOptions,
        worker: Option<Arc<Runtime>>,
    ) -> (Self, OwnedFd) {
        let Bound { socket, address, file } = bound;
        let data = options.data.clone();
        (Self { address, data, worker, key: None, _file: file }, socket)
    }

    /// Reports to the primary, if there is one, that this worker serves the address.
    pub(crate) fn register(&self) {
        let Some(worker) = &self.worker else { return };
        worker.send_to_primary(match self.key {
            Some(key) => ToPrimary::Listening { key },
            None => ToPrimary::ListensAlone { address: self.address.clone() },
        });
    }

    /// Has the primary look at the page of the listener.
    pub(crate) fn notify(&self) {
        if let (Some(worker), Some(key)) = (&self.worker, self.key) {
            worker.send_to_primary(ToPrimary::HasRoom { key });
        }
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn data(&self) -> Option<&[u8]> {
        self.data.as_deref()
    }

    pub(crate) fn worker(&self) -> Option<&Arc<Runtime>> {
        self.worker.as_ref()
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        if let (Some(worker), Some(key)) = (&self.worker, self.key) {
            worker.send_to_primary(ToPrimary::Close { key });
        }
    }
}
