//! The worker's side: a process that a primary started, and the sockets it serves.
//!
//! [`Worker`] is the handle that a program uses. Its runtime runs on the reactor's thread, reads
//! the channel to the primary and keeps the deadlines of a drain. A listener accepts without the
//! runtime: each accept is a system call on a descriptor that the worker holds.
//!
//! Nothing here imports the primary, the supervisor or the scheduler. Both sides share
//! `protocol/`, which has the messages and the hand-off queue.

pub(crate) mod accepted;
pub(crate) mod address_kind;
pub(crate) mod datagram;
pub(crate) mod deadlines;
pub(crate) mod drain_waits;
pub(crate) mod draining;
mod limited_socket;
pub(crate) mod listen;
pub(crate) mod listener;
mod node_queue;
mod node_session;
mod open_connections;
mod opening;
mod own_socket;
mod pending_grants;
pub(crate) mod process_role;
mod registration;
mod runtime;
pub(crate) mod signals;
pub(crate) mod stream_types;
mod user_messages;

use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::Receiver;

use crate::protocol::message::ToPrimary;
use crate::worker::drain_waits::{AllClosed, Draining};
use crate::worker::runtime::Runtime;
use crate::worker_id::WorkerId;
use crate::worker_state::WorkerState;

/// The longest time that [`Worker::exit`] waits for the primary's answer.
const EXIT_WAIT_MAX: Duration = Duration::from_secs(1);

/// A handle to this process as a worker of a cluster.
///
/// [`Worker::current`] returns the handle. Clones are cheap and refer to the same worker;
/// dropping a handle changes nothing.
///
/// ```no_run
/// let worker = brood_cluster::Worker::current().expect("a primary started this process");
/// worker.on_message(|message| println!("from the primary: {:?}", message.decode::<String>()));
/// let listener = brood_cluster::listen("127.0.0.1:8000")?;
/// for accepted in listener.incoming() {
///     let (stream, peer) = accepted?;
///     println!("{peer} is connected to worker {}", worker.id());
///     drop(stream);
/// }
/// // The worker drains: the loop has ended, and the process ends with it.
/// # Ok::<(), brood_cluster::Error>(())
/// ```
///
/// Node: `cluster.worker` inside a worker. The primary's handle to the same worker is a
/// [`WorkerProcess`](crate::WorkerProcess).
#[derive(Clone, Debug)]
pub struct Worker(Arc<Runtime>);

impl Worker {
    /// The default time that a worker whose primary has died may finish its connections: 1.5 s.
    pub const ORPHAN_DRAIN: Duration = Duration::from_millis(1500);

    /// Sends a message to the primary, where it arrives as
    /// [`Event::Message`](crate::Event::Message).
    ///
    /// Never blocks; [`ipc::Queued`] says whether the sender should wait. The value is borrowed;
    /// after a successful send, the message has taken the handles inside of the value.
    ///
    /// # Errors
    ///
    /// The channel is closed, the message exceeds a limit, or the value cannot be encoded. The
    /// handles of the value stay in it, usable.
    pub fn send<T: serde::Serialize + ?Sized>(&self, value: &T) -> Result<ipc::Queued, ipc::Error> {
        self.0.drain().connections().give_sign_of_life();
        self.0.parent().send(value)
    }

    /// Asks the primary to disconnect this worker. Returns at once.
    ///
    /// The primary stops dispatching connections to this worker and answers; the drain begins with
    /// the answer. [`draining`](Self::draining) resolves when the connections that were already
    /// dispatched have been accepted or given to other workers. Once all listeners have ended and
    /// all accepted connections are closed, the channel closes, 100 ms later at the latest, and
    /// [`on_disconnect`](Self::on_disconnect) calls back. Messages to the primary must be sent
    /// before.
    ///
    /// The process runs until its `main` returns or a deadline of the primary ends it. A primary
    /// that is a Node program has no such deadline; if it does not answer within one second, the
    /// drain begins without the answer.
    pub fn disconnect(&self) {
        self.0.set_exited_after_disconnect();
        self.0.send_to_primary(ToPrimary::Disconnect);
    }

    /// Disconnects this worker and ends the process with code 0.
    ///
    /// Waits for at most one second until the primary has confirmed the disconnect. Connections
    /// that this worker has not accepted go to other workers; connections that it has accepted
    /// are lost.
    ///
    /// Node: `worker.kill()` in a worker, and `worker.destroy()`.
    #[doc(alias = "kill")]
    #[doc(alias = "destroy")]
    pub fn exit(&self) -> ! {
        self.disconnect();
        self.0.drain().wait_begun(EXIT_WAIT_MAX);
        std::process::exit(0)
    }

    /// Takes the queue of the primary's messages, from the first message on. `None` after the
    /// first call, and after [`on_message`](Self::on_message).
    ///
    /// The [`Receiver`](crate::Receiver) also has the messages that arrived before this call.
    ///
    /// A program that needs no messages should drop the receiver. Otherwise unread messages stay
    /// in memory, and at 4 MiB of them the worker stops reading the channel to the primary: a
    /// disconnect by the primary then shows only as the end of the worker's listeners.
    ///
    /// Node: `process.on('message')`, whose first listener also gets the earlier messages.
    #[must_use]
    pub fn take_messages(&self) -> Option<Receiver<ipc::Message>> {
        self.0.messages().take_receiver()
    }

    /// Calls `call` with each of the primary's messages, on the callback thread.
    ///
    /// Messages that wait in the queue come first. A message has one owner: among several such
    /// callbacks only the first is called, and a receiver that
    /// [`take_messages`](Self::take_messages) returned earlier is closed.
    pub fn on_message(&self, call: impl FnMut(ipc::Message) + Send + 'static) -> &Self {
        self.0.messages().set_callback(call);
        self
    }

    /// Calls `call` with each error of the channel to the primary, on the callback thread.
    ///
    /// An error on the channel does not end the process.
    pub fn on_error(&self, call: impl FnMut(Arc<child_process::Error>) + Send + 'static) -> &Self {
        self.0.on_error(call);
        self
    }

    /// Calls `call` on the callback thread when the channel to the primary closes: at the end of a
    /// drain, as [`disconnect`](Self::disconnect) describes, or when the primary is gone. The
    /// [`state`](Self::state) is [`Disconnected`](WorkerState::Disconnected) by then.
    ///
    /// If the channel is already closed, `call` runs soon after this function returns.
    pub fn on_disconnect(&self, call: impl FnOnce() + Send + 'static) -> &Self {
        self.0.on_disconnect(call);
        self
    }

    /// Sets the time this worker has to finish its connections after its primary has died.
    ///
    /// The process then exits with code 0. The default is [`ORPHAN_DRAIN`](Self::ORPHAN_DRAIN).
    pub fn set_orphan_drain(&self, limit: Duration) {
        self.0.deadlines().set_orphan_drain(limit);
    }

    /// Returns the worker's number.
    #[must_use]
    pub fn id(&self) -> WorkerId {
        self.0.id()
    }

    /// Returns a wait for the end of this worker: a future, a flag and a blocking call in one.
    pub fn draining(&self) -> Draining {
        Draining::new(self.0.drain().clone())
    }

    /// Returns the number of connections that this worker has accepted and not closed.
    ///
    /// An [`Accepted`](crate::Accepted) is open until it is dropped or
    /// [`into_inner`](crate::Accepted::into_inner) takes its stream. WebSockets and other upgraded
    /// connections count like all others.
    #[must_use]
    pub fn open(&self) -> usize {
        self.0.drain().connections().open()
    }

    /// Returns a wait until no connection is [`open`](Self::open): a future and a blocking call in
    /// one.
    ///
    /// Graceful shutdown of an HTTP server does not wait for upgraded connections. A program that
    /// has some waits for them after the drain; the primary's
    /// [`disconnect_within`](crate::Builder::disconnect_within) is the limit of that wait.
    pub fn all_closed(&self) -> AllClosed {
        AllClosed::new(self.0.drain().clone())
    }

    /// Returns the stage that this worker has reached.
    #[must_use]
    pub fn state(&self) -> WorkerState {
        self.0.state()
    }

    /// Returns `Some(true)` once the worker or its primary has asked for the worker's end, and
    /// `None` before. The primary does not count the exit of such a worker as a crash.
    #[must_use]
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.0.exited_after_disconnect().then_some(true)
    }

    /// Returns whether the channel to the primary is open.
    #[must_use]
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.0.parent().is_connected()
    }

    fn runtime(&self) -> &Arc<Runtime> {
        &self.0
    }
}
