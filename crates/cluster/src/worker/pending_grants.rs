//! Listen requests that the primary has not answered.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::protocol::address::Address;
use crate::protocol::message::ListenGrant;
use crate::worker::node_queue::NodeQueue;

/// The source of connections that a primary granted.
#[derive(Debug)]
pub(crate) enum GrantedSource {
    /// A descriptor to accept from.
    Descriptor(ListenGrant),
    /// The queue for the connections that a Node primary sends on the channel.
    NodeQueue { key: u64, address: Address, node_queue: Arc<NodeQueue> },
}

/// The answer to a listen request: a source, or the errno of the failure.
pub(super) type GrantResult = Result<GrantedSource, i32>;

type Replies = HashMap<u32, Sender<GrantResult>>;

/// The callers that wait for the primary's answer, by the number of their request.
#[derive(Debug)]
pub(super) struct PendingGrants {
    next_request: AtomicU32,
    /// `None` once the channel is closed: no answer will come.
    replies: Mutex<Option<Replies>>,
}

impl PendingGrants {
    pub(super) fn new() -> Self {
        Self { next_request: AtomicU32::new(0), replies: Mutex::new(Some(HashMap::new())) }
    }

    /// Adds a request and returns its number, with the receiver of its answer.
    ///
    /// Returns `None` after [`close`](Self::close). The receiver disconnects if the channel closes
    /// before an answer arrives.
    pub(super) fn add(&self) -> Option<(u32, Receiver<GrantResult>)> {
        let request = self.next_request.fetch_add(1, Ordering::Relaxed);
        let (reply, replied) = bounded(1);
        self.replies().as_mut()?.insert(request, reply);
        Some((request, replied))
    }

    /// Passes the answer to the caller of `request`. An unknown number is ignored.
    pub(super) fn complete(&self, request: u32, result: GrantResult) {
        self.try_complete(request, result);
    }

    /// As [`complete`](Self::complete), and returns whether a caller waited for the answer.
    pub(super) fn try_complete(&self, request: u32, result: GrantResult) -> bool {
        let reply = self.replies().as_mut().and_then(|replies| replies.remove(&request));
        reply.is_some_and(|reply| reply.send(result).is_ok())
    }

    /// Refuses all requests that wait: their answers will not come.
    pub(super) fn cancel(&self) {
        let replies = self.replies().as_mut().map(std::mem::take).unwrap_or_default();
        for reply in replies.into_values() {
            // Fails only if the caller has stopped waiting.
            let _ = reply.send(Err(sys::errno::ECANCELED));
        }
    }

    /// Disconnects all waiting callers, and refuses later requests.
    pub(super) fn close(&self) {
        *self.replies() = None;
    }

    fn replies(&self) -> MutexGuard<'_, Option<Replies>> {
        self.replies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
