//! The thread that opens sockets with the rights of workers. It waits for the children that do so,
//! so it must not be the loop, and a child that is stopped must not delay the start of workers.
//!
//! The thread is started by the thread that starts workers, with the first order, and ends when the
//! last sender of orders is dropped. Each order is answered once.

use std::io;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use crossbeam_channel::Receiver;
use sys::spawn::Member;

use crate::bind::{self, Bound};
use crate::contract::{Key, SlotId};
use crate::listen_rules::Credentials;
use crate::primary::primary_state::{Job, Shared};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// The longest time that one child may take. Only a child that another process of its user stops
/// takes longer than milliseconds.
const BIND_WITHIN: Duration = Duration::from_secs(2);

/// The place of a socket among those of its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SocketPlace {
    /// The first socket of the address.
    First,
    /// A further one, which belongs to this slot or to no slot.
    Further(Option<SlotId>),
}

/// An order to open a socket.
#[derive(Debug)]
pub(crate) struct BindOrder {
    pub(crate) address: Address,
    pub(crate) options: ListenOptions,
    pub(crate) member: Member,
    pub(crate) rights: Credentials,
    pub(crate) reply: BindReply,
}

/// The answer to an order, which [`Job::SocketOpened`] carries to the driver: `ECANCELED` unless the
/// order was carried out.
#[derive(Debug)]
pub(crate) struct BindReply {
    key: Key,
    place: SocketPlace,
    shared: Arc<Shared>,
    result: Option<io::Result<Bound>>,
}

impl BindReply {
    pub(crate) fn new(key: Key, place: SocketPlace, shared: Arc<Shared>) -> Self {
        Self { key, place, shared, result: None }
    }
}

impl Drop for BindReply {
    fn drop(&mut self) {
        let canceled = || Err(io::Error::from_raw_os_error(sys::errno::ECANCELED));
        let result = self.result.take().unwrap_or_else(canceled);
        let (key, place) = (self.key, self.place);
        self.shared.send_job(Job::SocketOpened { key, place, result });
    }
}

/// Starts the thread. If that fails, the orders are answered as they are dropped.
pub(crate) fn start(orders: Receiver<BindOrder>) {
    let run = move || {
        for order in orders {
            let BindOrder { address, options, member, rights, mut reply } = order;
            let opened = bind::bind_with_rights(&address, &options, member, &rights, BIND_WITHIN);
            reply.result = Some(opened);
        }
    };
    let _ = thread::Builder::new().name("brood-binder".into()).spawn(run);
}
