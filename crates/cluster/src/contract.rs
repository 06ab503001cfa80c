//! What a primary's core is told, and what it answers.
//!
//! The contract between core and driver. The driver performs outputs in order, and answers
//! (`Bound`, `Unbound`, `Depth`, `Reclaimed`, `SendFailed`) come back in the order of the outputs
//! that asked for them, whatever comes in between. `Spawned` or `SpawnFailed` is the first that is
//! heard of a worker. A worker's queues live until `DropQueue`, however dead it is.
//!
//! A Node worker has no queue: its connections ride on its channel. There the driver keeps each
//! until the worker has answered (`Answered`), and `Reclaim` asks for those it never will.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::counters::CloseReason;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::worker_options::WorkerOptions;

/// A worker's number: from 1, never used twice by one primary.
pub(crate) type WorkerId = u32;
/// A place that is kept filled with a worker, from 0.
pub(crate) type SlotId = u32;
/// A shared listening address, from 1, never used twice by one primary.
pub(crate) type Key = u32;

/// The most workers one primary can have.
pub const WORKERS_MAX: u32 = 4096;

/// The worker's count of its connections that have ended.
pub(crate) trait ClosedCounter: std::fmt::Debug + Send + Sync {
    /// So many, since its queue was granted.
    fn closed(&self) -> u64;
    /// The worker is to say `HasRoom` when the next one ends. What has ended before this call is
    /// not told: it is seen by `ended` after it.
    fn notify_next(&self);
}

/// What a connection tells of its client.
pub(crate) trait Affinity {
    /// A number that stands for the client; none where it has no address.
    fn affinity(&self) -> Option<u64>;
}

#[cfg(test)]
mod affinity {
    impl super::Affinity for u32 {
        fn affinity(&self) -> Option<u64> {
            Some(u64::from(*self) % 16)
        }
    }

    impl super::Affinity for usize {
        fn affinity(&self) -> Option<u64> {
            (self % 3 > 0).then_some(*self as u64 % 16)
        }
    }
}

/// How connections reach a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    /// By hand-off queues, which can be counted and read back.
    Native,
    /// On the channel, where each is answered: the worker is a program of Node's.
    Node,
}

/// What a Node worker did with a connection.
#[derive(Debug, PartialEq, Eq)]

pub(crate) enum Answer<H> {
    Taken,
    /// It has enough, or its listener is closed.
    Declined(H),
    /// It arrived without its descriptor: the worker has none left.
    Lost(H),
}

/// How a process ended, as far as decisions need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitKind {
    Code(i32),
    Signal(i32),
    Unknown,
}

/// Why the kernel did not take a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue has no room (`EAGAIN`): the driver says `Writable` when it has.
    Full,
    /// Too many descriptors in flight (`ETOOMANYREFS`): only time helps.
    InFlight,
    /// The worker's end is gone, or another error.
    Gone,
}

/// What happened.
#[derive(Debug)]
pub(crate) enum Input<H> {
    /// At least so many slots are wanted from now on.
    Start(u32),
    /// So many slots are wanted from now on.
    Scale(u32),
    /// One slot more is wanted, and its workers are set up like this; answered by `Forked` with
    /// the same number.
    Fork { number: u32, worker_options: Arc<WorkerOptions> },
    /// All workers are to end, and others may come later; answered by `AllGone` with the same
    /// number.
    DisconnectAll { number: u32 },
    /// Every worker is to be replaced; answered by `Reloaded` with the same number.
    Reload { number: u32 },
    /// The process requested by `Spawn` runs.
    Spawned { worker: WorkerId, kind: WorkerKind },
    /// The process requested by `Spawn` could not be started.
    SpawnFailed { worker: WorkerId },
    /// The worker's runtime has said hello.
    Online { worker: WorkerId },
    /// The worker wants to listen.
    ListenRequested { worker: WorkerId, request: u32, address: Address, options: ListenOptions },
    /// The worker listens on a socket of its own.
    ListensAlone { worker: WorkerId, address: Address },
    /// The answer to `Bind`: the address as bound, or an errno.
    Bound { key: Key, result: Result<Address, i32> },
    /// The worker asked for an inherited socket that the primary does not have, or not of that
    /// kind. The supervisor refuses the request with this errno.
    NoSuchSocket { worker: WorkerId, request: u32, address: Address, errno: i32 },
    /// The answer to `Unbind`, after the connections that its backlog held.
    Unbound { key: Key },
    /// The driver could not carry out a `Grant`. The request is unanswered, and the supervisor
    /// refuses it with this errno.
    GrantFailed { worker: WorkerId, request: u32, key: Key, errno: i32 },
    /// The queue was granted with this count of what has ended.
    Counts { worker: WorkerId, key: Key, closed_counter: Arc<dyn ClosedCounter> },
    /// The worker has its listener in hand.
    Listening { worker: WorkerId, key: Key },
    /// The worker closed its listener.
    ListenerClosed { worker: WorkerId, key: Key },
    /// The kernel gave a new connection.
    Accepted { key: Key, connection: H },
    /// The answer to `PollDepth`: this many records lie unread in the queue.
    Depth { worker: WorkerId, key: Key, records: u32 },
    /// The answer to `Reclaim`: what was unread, oldest first, and how many probes.
    Reclaimed { worker: WorkerId, key: Key, connections: Vec<H>, probes: u32 },
    /// The answer to a `Send` (or, without connection, a `Probe`) the kernel refused.
    SendFailed { worker: WorkerId, key: Key, connection: Option<H>, refusal: Refusal },
    /// A Node worker answered the `nth`, from 0, of the connections it had not answered.
    Answered { worker: WorkerId, key: Key, nth: usize, answer: Answer<H> },
    /// A worker that was granted its slot's own socket has none: the address was given to us, and
    /// we have only the one.
    NoOwnSocket { worker: WorkerId, key: Key },
    /// Connections wait in the slot's own socket for longer than they should.
    Unaccepted { key: Key, slot: SlotId },
    /// A Node worker cannot be heard now, and that is not its fault.
    Paused { worker: WorkerId },
    /// A connection of the key ended in a worker that was told `notify_next`.
    HasRoom { key: Key },
    /// The channel of some worker is paused, which delays its `HasRoom`. The supervisor polls for
    /// room at once, and sets its deadline so that it can poll again.
    HasRoomDelayed,
    /// The queue has room again.
    Writable { worker: WorkerId, key: Key },
    /// The user of the primary disconnects this worker.
    Disconnect { worker: WorkerId },
    /// The worker wants to be disconnected.
    DisconnectRequested { worker: WorkerId },
    /// The worker's channel ended.
    ChannelClosed { worker: WorkerId },
    /// The worker's process ended.
    Exited { worker: WorkerId, exit: ExitKind },
    /// End everything: drain, then signals.
    Shutdown,
    /// End everything at once.
    Abort,
    /// Time passed.
    Tick,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output<H> {
    /// Start a worker; `worker_options` is what its slot has for itself. With `capture_stderr` the end of
    /// the standard error that the worker writes before its runtime is up is kept for the error of
    /// a failed start.
    Spawn {
        worker: WorkerId,
        slot: SlotId,
        worker_options: Option<Arc<WorkerOptions>>,
        capture_stderr: bool,
    },
    /// Notify the user of the primary. `exit_requested` says whether the exit of the worker had
    /// been requested by then: Node's `exitedAfterDisconnect`.
    Emit { worker: WorkerId, notice: Notice, exit_requested: bool },
    /// Report that the worker cannot listen on the address.
    ListenFailed { worker: WorkerId, address: Address, errno: i32 },
    /// Report that a worker of the first start ended before it was ready; everything is being
    /// shut down.
    StartFailed { worker: WorkerId },
    /// Report that all slots are filled and ready: once for each start, scale or fork.
    Ready,
    /// Open a listening socket; answer `Bound`. With `reuse_port` the socket, unless it is
    /// inherited, is the first of a `SO_REUSEPORT` group with one socket for each slot.
    Bind { key: Key, address: Address, options: ListenOptions, reuse_port: bool },
    /// Close the listening socket; when `drain`, first accept all that its backlog holds.
    /// Answer `Unbound`.
    Unbind { key: Key, drain: bool },
    /// Answer a worker's wish to listen: its queue or the shared socket, and the data of the first
    /// that asked for the address; or an errno.
    Grant { worker: WorkerId, request: u32, result: Result<Grant, i32> },
    /// Begin or stop taking connections from the kernel.
    Accept { key: Key, on: bool },
    /// Accept from the slot's own socket as well, or leave that to its worker. From when it is
    /// opened on we do.
    AcceptOnBehalf { key: Key, slot: SlotId, on: bool },
    /// Put the connection into the worker's queue; on refusal answer `SendFailed`.
    Send { worker: WorkerId, key: Key, connection: H },
    /// Put a record without a descriptor into the worker's queue.
    Probe { worker: WorkerId, key: Key },
    /// Count the unread records; answer `Depth`.
    PollDepth { worker: WorkerId, key: Key },
    /// Read back all that is unread, or of a Node worker that is gone: unanswered; answer
    /// `Reclaimed`.
    Reclaim { worker: WorkerId, key: Key },
    /// Nothing more will be sent: let the worker read to the end.
    EndQueue { worker: WorkerId, key: Key },
    /// Close both ends that the primary holds.
    DropQueue { worker: WorkerId, key: Key },
    /// Tell the worker to finish.
    SendDisconnect { worker: WorkerId },
    /// Close the worker's channel.
    CloseChannel { worker: WorkerId },
    /// Signal the worker: `SIGTERM`, or `SIGKILL` when `hard`.
    Signal { worker: WorkerId, hard: bool },
    /// Close a connection that nobody can serve.
    Close { connection: H, reason: CloseReason },
    /// The fork of this number made this worker; `None` when there is no place for one more, or
    /// the primary ends.
    Forked { number: u32, worker: Option<WorkerId> },
    /// No worker is left, and none will come unless it is asked for.
    Idle,
    /// The workers that were there are gone, and all that they listened on is closed.
    AllGone { number: u32 },
    /// The reload of this number is over.
    Reloaded { number: u32, result: Result<(), ReloadFailure> },
    /// No worker is left and none will come.
    Finished,
}

/// What a wish to listen was granted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) key: Key,
    pub(crate) access: Access,
    /// The worker counts its closed connections in a page that the primary reads; the driver
    /// passes the counter on with `Counts`.
    pub(crate) counts_closed: bool,
    pub(crate) data: Option<Vec<u8>>,
}

/// How a worker gets its connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// From a hand-off queue.
    HandOff,
    /// From the listening socket itself.
    Shared,
    /// From this slot's own socket, and from a hand-off queue what we accept in its stead.
    OwnSocket(SlotId),
}

/// Why a reload left some workers as they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadFailure {
    /// Another one is not over.
    UnderWay,
    /// The primary has not been started, or ends.
    Closed,
    /// This new worker was not ready in time.
    NotReady(WorkerId),
    /// This new worker ended, or was told to, before it was ready.
    Ended(WorkerId),
}

/// A step in the life of a worker that the user of the primary is notified of.
///
/// The same list is the worker's history: its stage is the furthest step in there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Fork,
    Online,
    Listening(Address),
    Disconnect,
    Exit,
    /// The worker left its queue unread for too long; it is about to be killed.
    Unresponsive,
}

/// Which workers are replaced when they end without having been asked to.
///
/// A worker that was disconnected, or ended by a scale-down or shutdown, never is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// All.
    #[default]
    Always,
    /// Those that ended by a signal or with another code than 0.
    OnCrash,
    /// None.
    Never,
}

/// How soon workers are replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartOptions {
    pub(crate) restart: Restart,
    /// So many restarts of one slot happen at once.
    pub(crate) burst: u32,
    /// One more for each such time of listening.
    pub(crate) refill: Duration,
    /// The first wait when the burst is used up; each further one is twice as long.
    pub(crate) delay_min: Duration,
    /// No wait is longer.
    pub(crate) delay_max: Duration,
    /// A worker that listened that long resets the wait.
    pub(crate) reset: Duration,
}

impl Default for RestartOptions {
    fn default() -> Self {
        Self {
            restart: Restart::Always,
            burst: 5,
            refill: Duration::from_secs(1),
            delay_min: Duration::from_millis(100),
            delay_max: Duration::from_secs(30),
            reset: Duration::from_secs(10),
        }
    }
}

/// What a primary's core can be told to do differently.
#[derive(Clone, Debug)]
pub(crate) struct SupervisorOptions {
    pub(crate) policy: Policy,
    /// How many records may lie in one queue.
    pub(crate) window: u32,
    /// How many accepted connections may wait in the primary, for each address.
    pub(crate) waiting: usize,
    /// How long a queue may be left unread before its worker is killed.
    pub(crate) unresponsive: Duration,
    /// The same for a connection that a Node worker does not answer.
    pub(crate) unresponsive_node: Duration,
    /// From the wish to end to `SIGTERM`.
    pub(crate) disconnect: Duration,
    /// From `SIGTERM` to `SIGKILL`.
    pub(crate) term: Duration,
    /// A worker is ready when it listens; otherwise as soon as it is online.
    pub(crate) listens: bool,
    /// So long a new worker may take to be ready when it is to relieve another.
    pub(crate) ready: Duration,
    /// A worker that came up may take so long to ask for what its predecessor had.
    pub(crate) listen_grace: Duration,
    pub(crate) restart: RestartOptions,
}

impl Default for SupervisorOptions {
    fn default() -> Self {
        Self {
            policy: Policy::RoundRobin,
            window: 64,
            waiting: 1024,
            unresponsive: Duration::from_secs(30),
            unresponsive_node: Duration::from_secs(5),
            disconnect: Duration::from_secs(5),
            term: Duration::from_secs(2),
            listens: true,
            ready: Duration::from_secs(10),
            listen_grace: Duration::from_secs(1),
            restart: RestartOptions::default(),
        }
    }
}
