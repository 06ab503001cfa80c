//! Messages between a primary and its workers, beside the user's own.
//!
//! They travel as internal frames on the channel of the fork. Connections do not: those have
//! their hand-off queue, whose worker's end rides in [`ToWorker::Listen`].

use ipc::Handle;
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// The variable that makes a process a worker, as in Node.
pub(crate) const UNIQUE_ID: &str = "NODE_UNIQUE_ID";
/// A second spelling of it, set and understood too.
pub(crate) const UNIQUE_NO: &str = "NODE_UNIQUE_NO";
/// Names the descriptor that is the worker's real standard error.
pub(crate) const STDERR: &str = "BROOD_STDERR";

/// What a worker tells its primary.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToPrimary {
    /// The worker's runtime is up.
    Online,
    /// Wants to listen; answered by [`ToWorker::Listen`] with the same `request`.
    Listen { request: u32, address: Address, options: ListenOptions },
    /// Listens by itself, on a socket of its own.
    ListensAlone { address: Address },
    /// Has its listener in hand.
    Listening { key: u32 },
    /// Has closed its listener; what lies in the queue may be taken back.
    Close { key: u32 },
    /// One of its connections has ended, of which the primary wanted to be told.
    HasRoom { key: u32 },
    /// Wants to be disconnected.
    Disconnect,
}

/// What a primary tells a worker.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker {
    /// The answer to a wish to listen: what to accept from, or an errno.
    Listen { request: u32, result: Result<ListenGrant, i32> },
    /// Finish what you have, then end.
    Disconnect,
}

/// What to accept from.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct ListenGrant {
    /// Names the listener in [`ToPrimary::Listening`] and [`ToPrimary::Close`].
    pub(crate) key: u32,
    /// As bound: with the real port where 0 was asked for.
    pub(crate) address: Address,
    /// A hand-off queue, or the listening socket itself.
    pub(crate) descriptor: Handle<OwnedFd>,
    /// The descriptor is the listening socket, shared by all workers.
    pub(crate) shared: bool,
    /// A listening socket of the worker's own, beside the queue.
    pub(crate) own: Option<Handle<OwnedFd>>,
    /// Of the first that asked for the address.
    pub(crate) data: Option<Vec<u8>>,
    /// Where the worker counts the connections that have ended.
    pub(crate) count: Option<Handle<OwnedFd>>,
}
