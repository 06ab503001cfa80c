//! The messages between a primary and its workers, apart from the user's own.
//!
//! The messages travel as internal frames on the channel of the worker. Connections travel on a
//! hand-off queue, whose reading end is part of [`ToWorker::Listen`].

use ipc::Handle;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// The environment variable that makes a process a worker, as in Node.
pub(crate) const UNIQUE_ID: &str = "NODE_UNIQUE_ID";
/// A second name of that variable, which is set and read as well.
pub(crate) const UNIQUE_NO: &str = "NODE_UNIQUE_NO";
/// The environment variable with the descriptor number of the worker's real standard error.
pub(crate) const STDERR: &str = "BROOD_STDERR";
/// The environment variable of a worker that is to keep its soft limit of descriptors.
pub(crate) const KEEP_DESCRIPTORS: &str = "BROOD_DESCRIPTORS";
/// The environment variable with the restrictions that a worker's runtime sets, see
/// [`own_restrictions`](super::own_restrictions).
pub(crate) const SANDBOX: &str = "BROOD_SANDBOX";
/// The greatest soft limit of descriptors that a primary or a worker gives itself, as in Node.
pub(crate) const DESCRIPTORS_MAX: u64 = 1 << 20;

/// A message of a worker to its primary.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToPrimary {
    /// The worker's runtime is up.
    Online,
    /// The worker requests to listen. [`ToWorker::Listen`] with the same `request` answers.
    Listen { request: u32, address: Address, options: ListenOptions },
    /// The worker listens on a socket that it opened itself.
    ListensAlone { address: Address },
    /// The worker has its listener.
    Listening { key: u64 },
    /// The worker has closed its listener. The primary may reclaim the unread connections.
    Close { key: u64 },
    /// A connection has been closed, after the primary asked for this message.
    HasRoom { key: u64 },
    /// The worker requests to be disconnected.
    Disconnect,
}

/// A message of a primary to a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The answer to a request to listen: the grant, or an errno.
    Listen { request: u32, result: Result<ListenGrant, i32> },
    /// The worker is to finish its connections, then end.
    Disconnect,
}

/// The source from which a worker accepts.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListenGrant {
    /// The name of the listener in [`ToPrimary::Listening`], [`ToPrimary::HasRoom`] and
    /// [`ToPrimary::Close`].
    pub(crate) key: u64,
    /// The address as bound, with the real port if port 0 was requested.
    pub(crate) address: Address,
    /// The reading end of a hand-off queue, or the listening socket itself.
    pub(crate) descriptor: Handle<OwnedFd>,
    /// The listening socket of the worker's slot, from which it accepts as well as from the queue.
    pub(crate) own_socket: Option<Handle<OwnedFd>>,
    /// The data of the first request for the address.
    pub(crate) data: Option<Vec<u8>>,
    /// The page that the primary and the worker share beside a hand-off queue; `None` if the
    /// descriptor is the listening socket, which all workers share.
    pub(crate) page: Option<Handle<OwnedFd>>,
    /// Whether the worker counts its closed connections in the page.
    pub(crate) counts_closed: bool,
}
