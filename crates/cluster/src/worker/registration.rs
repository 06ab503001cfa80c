//! A place to listen or to be bound at, as long as somebody is there.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::bind::{Bound, SocketFile};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::message::ToPrimary;
use crate::worker::Worker;
use crate::worker::runtime::{Granted, Runtime};

/// What a listener and a datagram socket have in common: their address, and whoever has to know
/// of them. Dropping it says that nobody is there any more.
#[derive(Debug)]
pub(crate) struct Registration {
    address: Address,
    data: Option<Vec<u8>>,
    worker: Option<Arc<Runtime>>,
    /// By which the primary knows it; `None` for a socket of our own.
    key: Option<u32>,
    _file: Option<SocketFile>,
}

impl Registration {
    /// By the primary.
    pub(crate) fn of(offer: &mut Granted, worker: &Worker) -> Self {
        let (key, address, data) = match offer {
            Granted::Granted(granted) => (granted.key, &granted.address, granted.data.take()),
            Granted::NodeQueue { key, address, .. } => (*key, &*address, None),
        };
        let (address, worker) = (address.clone(), Some(worker.runtime().clone()));
        Self { address, data, worker, key: Some(key), _file: None }
    }

    /// On a socket of our own, which is the second value.
    pub(crate) fn own(
        bound: Bound,
        options: &ListenOptions,
        worker: Option<Arc<Runtime>>,
    ) -> (Self, OwnedFd) {
        let Bound { socket, address, file } = bound;
        let data = options.data.clone();
        (Self { address, data, worker, key: None, _file: file }, socket)
    }

    /// Tells the primary, where there is one, that somebody is there.
    pub(crate) fn register(&self) {
        let Some(worker) = &self.worker else { return };
        worker.tell(match self.key {
            Some(key) => ToPrimary::Listening { key },
            None => ToPrimary::ListensAlone { address: self.address.clone() },
        });
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
            worker.tell(ToPrimary::Close { key });
        }
    }
}
