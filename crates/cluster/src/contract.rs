//! The contract between a primary's supervisor and its driver: inputs, outputs and options.
//!
//! The driver performs outputs in order. Its answers (`Bound`, `Unbound`, `Depth`, `Reclaimed`,
//! `SendFailed`) arrive in the order of the outputs that they answer; other inputs may arrive in
//! between. `Spawned` or `SpawnFailed` is the first input about a worker. The queues of a worker
//! exist until `DropQueue`, even after the worker has died.
//!
//! A Node worker has no queue: its connections travel on its channel. The driver keeps each
//! connection until the worker has answered (`Answered`). `Reclaim` returns the connections that
//! the worker will not answer any more.
//!
//! Pure.

use std::sync::Arc;
use std::time::Duration;

use crate::counters::CloseReason;
use crate::listen_rules::{Credentials, ListenFacts, ListenPermission, ListenRules};
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::violation::Violation;
pub(crate) use crate::worker_id::WorkerId;
use crate::worker_options::WorkerOptions;

/// The number of a slot, which is kept filled with a worker: from 0.
pub(crate) type SlotId = u32;
/// The number of a shared listening address: from 1, never used twice by one primary.
pub(crate) type Key = u64;

/// Default of [`SupervisorOptions::listens_max`].
pub(crate) const LISTENS_MAX: u32 = 64;

/// Default of [`SupervisorOptions::listens_after`]. A worker of the first start that ends later than
/// this after its spawn is no failed start.
pub(crate) const LISTENS_AFTER: Duration = Duration::from_secs(10);

/// The greatest number of workers of one primary.
pub(crate) const WORKERS_MAX: u32 = 4096;

/// The page that a worker shares with the primary, for one queue.
pub(crate) trait SharedPage: std::fmt::Debug + Send + Sync {
    /// Returns the number of connections that the worker has closed since the queue was granted;
    /// `None` if the worker does not count them.
    fn closed(&self) -> Option<u64>;
    /// Asks the worker to send `HasRoom` when it closes the next connection. Connections closed
    /// before this call cause no notification, so read [`closed`](Self::closed) after it.
    fn notify_next(&self);
    /// Whether the worker had no descriptor left for a connection when it last read its queue.
    fn is_short_of_descriptors(&self) -> bool;
    /// Whether the worker has paused the listener: it accepts nothing, and that is no fault.
    fn is_paused(&self) -> bool;
    /// Returns a number that changes with every sign of life of the worker.
    fn signs_of_life(&self) -> u64;
}

/// The client of a connection, as far as dispatch needs it.
pub(crate) trait ClientAffinity {
    /// Returns a number that stands for the client; `None` for a client without an address.
    fn affinity(&self) -> Option<u64>;
}

#[cfg(test)]
mod affinity {
    impl super::ClientAffinity for u32 {
        fn affinity(&self) -> Option<u64> {
            Some(u64::from(*self) % 16)
        }
    }

    impl super::ClientAffinity for usize {
        fn affinity(&self) -> Option<u64> {
            (self % 3 > 0).then_some(*self as u64 % 16)
        }
    }
}

/// The way on which connections reach a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WorkerKind {
    /// Through hand-off queues, whose records the primary can count and read back.
    Native,
    /// On the channel, where the worker answers each connection: it is a Node program.
    Node,
}

/// The answer of a Node worker to a connection.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Answer<H> {
    Taken,
    /// The worker has enough connections, or its listener is closed.
    Declined(H),
    /// The connection arrived without its descriptor, because the worker has none left.
    Lost(H),
}

/// The end of a process, as far as the supervisor needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ExitKind {
    Code(i32),
    Signal(i32),
    Unknown,
}

/// The reason why the kernel refused a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The queue has no room (`EAGAIN`); `Writable` follows when it has.
    Full,
    /// Too many descriptors are in flight (`ETOOMANYREFS`); only waiting helps.
    InFlight,
    /// The worker's end is closed, or another error occurred.
    Gone,
}

/// An input of the supervisor: a fact, or a request of the user.
#[derive(Debug)]
pub(crate) enum Input<H> {
    /// The user wants at least this many slots.
    Start(u32),
    /// The user wants exactly this many slots.
    Scale(u32),
    /// The user wants one more slot, whose workers get these options. `Forked` answers with the
    /// same number.
    Fork { number: u32, worker_options: Arc<WorkerOptions> },
    /// The user wants all workers to end; others may be requested later. `AllGone` answers with the
    /// same number.
    DisconnectAll { number: u32 },
    /// The user wants every worker to be replaced, after the reload that runs. `Reloaded` answers
    /// with the same number; without one, a signal requested the reload.
    Reload { number: Option<u32> },
    /// The user waits no longer for the first start. It is ended if it is not over.
    GiveUpStart,
    /// The user wants nothing more to be served at this address.
    CloseAddress { address: Address },
    /// The process requested by `Spawn` runs.
    Spawned { worker: WorkerId, kind: WorkerKind },
    /// The process requested by `Spawn` could not be started.
    SpawnFailed { worker: WorkerId },
    /// The runtime of the worker is up.
    Online { worker: WorkerId },
    /// The worker requests to listen on the address. `Grant` answers with the same request number.
    ListenRequested {
        worker: WorkerId,
        request: u32,
        address: Address,
        options: ListenOptions,
        facts: ListenFacts,
    },
    /// Answers `AskPermission`.
    Permission { worker: WorkerId, request: u32, permission: ListenPermission },
    /// The worker names a descriptor of the primary that it may not have. The supervisor refuses the
    /// request.
    ForbiddenDescriptor { worker: WorkerId, request: u32, address: Address },
    /// The worker sent a message that no worker of this crate sends.
    Violated { worker: WorkerId, violation: Violation },
    /// The worker listens on a socket of its own.
    ListensAlone { worker: WorkerId, address: Address },
    /// Answers `Bind`: the address as bound, or an errno.
    Bound { key: Key, result: Result<Address, i32> },
    /// The worker asked for an inherited socket that the primary does not have, or not of that
    /// kind. The supervisor refuses the request with this errno.
    NoSuchSocket { worker: WorkerId, request: u32, address: Address, errno: i32 },
    /// Answers `Unbind`, after the connections of the backlog.
    Unbound { key: Key },
    /// The driver could not carry out a `Grant`. The request is unanswered, and the supervisor
    /// refuses it with this errno.
    GrantFailed { worker: WorkerId, request: u32, key: Key, errno: i32 },
    /// The queue was granted with this counter of closed connections.
    Counts { worker: WorkerId, key: Key, page: Arc<dyn SharedPage> },
    /// The worker has received its listener.
    Listening { worker: WorkerId, key: Key },
    /// The worker closed its listener.
    ListenerClosed { worker: WorkerId, key: Key },
    /// The driver accepted a connection.
    Accepted { key: Key, connection: H },
    /// Answers `PollDepth`: the number of unread records in the queue.
    Depth { worker: WorkerId, key: Key, records: u32 },
    /// Answers `Reclaim`: the unread connections, oldest first, and the number of unread probes.
    Reclaimed { worker: WorkerId, key: Key, connections: Vec<H>, probes: u32 },
    /// Answers a `Send` that the kernel refused, or without a connection a `Probe`.
    SendFailed { worker: WorkerId, key: Key, connection: Option<H>, refusal: Refusal },
    /// A Node worker answered the `nth`, from 0, of its unanswered connections.
    Answered { worker: WorkerId, key: Key, nth: usize, answer: Answer<H> },
    /// The worker was granted its slot's own socket and has none: the address is an inherited
    /// socket, and there is only that one.
    NoOwnSocket { worker: WorkerId, key: Key },
    /// Connections have waited too long in the slot's own socket.
    Unaccepted { key: Key, slot: SlotId },
    /// The channel of a Node worker is paused, so its answers are delayed through no fault of its
    /// own.
    Paused { worker: WorkerId },
    /// The worker closed a connection of the key after `notify_next`.
    HasRoom { worker: WorkerId, key: Key },
    /// The channel of some worker is paused, which delays its `HasRoom`. The supervisor polls for
    /// room at once, and sets its deadline so that it can poll again.
    HasRoomDelayed,
    /// The queue has room again after [`Refusal::Full`].
    Writable { worker: WorkerId, key: Key },
    /// The user of the primary disconnects this worker.
    Disconnect { worker: WorkerId },
    /// The worker requests to be disconnected.
    DisconnectRequested { worker: WorkerId },
    /// The channel of the worker closed.
    ChannelClosed { worker: WorkerId },
    /// The process of the worker ended.
    Exited { worker: WorkerId, exit: ExitKind },
    /// The user ends the cluster: workers drain, then get signals.
    Shutdown,
    /// The user ends the cluster at once.
    Abort,
    /// The deadline of the supervisor is reached.
    Tick,
}

/// An output of the supervisor: an order for the driver.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Output<H> {
    /// Start a worker; `worker_options` are those of its slot alone. With `capture_stderr` keep the
    /// tail of the standard error that the worker writes before its runtime is up, for the error of
    /// a failed start. The successor in a reload runs a new release, or fails.
    Spawn {
        worker: WorkerId,
        slot: SlotId,
        worker_options: Option<Arc<WorkerOptions>>,
        capture_stderr: bool,
        is_successor: bool,
    },
    /// Give up a start that has not been answered in time, and report it: `Spawned` and
    /// `SpawnFailed` do not follow any more, and a process that starts after all is killed.
    CancelSpawn { worker: WorkerId },
    /// Notify the user of the primary. `exit_requested` says whether the exit of the worker had
    /// been requested by then: Node's `exitedAfterDisconnect`.
    Emit { worker: WorkerId, notice: Notice, exit_requested: bool },
    /// Report that the worker cannot listen on the address.
    ListenFailed { worker: WorkerId, address: Address, errno: i32 },
    /// Report that the worker may not listen on the address.
    ListenRefused { worker: WorkerId, address: Address, refusal: ListenRefusal },
    /// Ask the function of the user whether the worker may listen on the address; answer
    /// `Permission`.
    AskPermission { worker: WorkerId, request: u32, address: Address },
    /// Report that a worker of the first start ended before all were ready; everything is being
    /// shut down.
    StartFailed { worker: WorkerId },
    /// Report that all slots are filled and ready: once for each start, scale or fork.
    Ready,
    /// Open a listening socket; answer `Bound`. With `reuse_port` the socket, unless it is
    /// inherited, is the first of a `SO_REUSEPORT` group with one socket for each slot. With
    /// `rights` every socket of the address is opened with these, by a child.
    Bind {
        key: Key,
        address: Address,
        options: ListenOptions,
        reuse_port: bool,
        rights: Option<Credentials>,
    },
    /// Close the listening socket; when `drain`, first accept all that its backlog holds.
    /// Answer `Unbound`.
    Unbind { key: Key, drain: bool },
    /// Answer a listen request: with the worker's queue or the shared socket and the data of the
    /// first worker that brought some for the address, or with an errno.
    Grant { worker: WorkerId, request: u32, result: Result<Grant, i32> },
    /// Start or stop accepting connections.
    Accept { key: Key, on: bool },
    /// Accept from the slot's own socket on behalf of its worker, or stop. The driver accepts there
    /// from the moment the socket is opened.
    AcceptOnBehalf { key: Key, slot: SlotId, on: bool },
    /// Report that the address is given up while the cluster goes on.
    AddressClosed { address: Address },
    /// Put the connection into the worker's queue; answer `SendFailed` when the kernel refuses it.
    Send { worker: WorkerId, key: Key, connection: H },
    /// Put a record without a descriptor into the worker's queue.
    Probe { worker: WorkerId, key: Key },
    /// Count the unread records; answer `Depth`.
    PollDepth { worker: WorkerId, key: Key },
    /// Read back all unread records, or the unanswered connections of a Node worker that is gone;
    /// answer `Reclaimed`.
    Reclaim { worker: WorkerId, key: Key },
    /// End the queue: nothing more is sent, and the worker reads to the end.
    EndQueue { worker: WorkerId, key: Key },
    /// Close both ends of the queue that the primary holds.
    DropQueue { worker: WorkerId, key: Key },
    /// Ask the worker to finish its connections and exit.
    SendDisconnect { worker: WorkerId },
    /// Close the worker's channel.
    CloseChannel { worker: WorkerId },
    /// Signal the worker: `SIGTERM`, or `SIGKILL` when `hard`.
    Signal { worker: WorkerId, hard: bool },
    /// Close a connection that no worker can accept.
    Close { connection: H, reason: CloseReason },
    /// Answer `Fork` of this number with the new worker.
    Forked { number: u32, worker: Result<WorkerId, ForkRefusal> },
    /// Report that no worker is left, and none is started before the next request.
    Idle,
    /// Answer `DisconnectAll` of this number: its workers are gone and their addresses closed.
    AllGone { number: u32 },
    /// Answer the `Reload`s of these numbers, and with `on_signal` those without a number.
    Reloaded { numbers: Vec<u32>, on_signal: bool, result: Result<(), ReloadFailure> },
    /// End the driver: no worker is left, and none will be started.
    Finished,
}

/// The grant of a listen request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Grant {
    pub(crate) key: Key,
    pub(crate) access: Access,
    /// The worker counts its closed connections in a page that the primary reads; the driver
    /// passes the counter on with `Counts`.
    pub(crate) counts_closed: bool,
    pub(crate) data: Option<Vec<u8>>,
}

/// The source of a worker's connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    /// From a hand-off queue.
    HandOff,
    /// From the listening socket itself.
    Shared,
    /// From this slot's own socket, and from a hand-off queue for connections that the primary
    /// accepts on behalf of the slot.
    OwnSocket(SlotId),
}

/// The reason why a worker may not listen on an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ListenRefusal {
    /// The rules, the function of the user, or the kernel by the rights of the worker.
    NotAllowed,
    /// The worker has this many listeners, which is the limit.
    TooMany(u32),
}

/// The reason why a fork got no worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ForkRefusal {
    /// There are `WORKERS_MAX` workers.
    TooManyWorkers,
    /// The primary ends.
    NotRunning,
}

/// The reason why a reload did not replace all workers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum ReloadFailure {
    /// The primary has no workers yet, or ends.
    NotRunning,
    /// This new worker was not ready in time, or did not listen on these addresses, which its
    /// predecessor had.
    NotReady(WorkerId, Vec<Address>),
    /// This new worker ended, or was asked to end, before it was ready.
    Ended(WorkerId),
}

/// A step in the life of a worker that the user of the primary is notified of.
///
/// A worker's handle keeps its notices as history, and derives the state of the worker from it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Notice {
    Fork,
    Online,
    Listening(Address),
    Disconnect,
    Exit,
    /// The worker left its queue unread for too long; it is about to be killed.
    Unresponsive,
    /// The worker broke the protocol; it is about to be killed.
    Violation(Violation),
}

/// The workers that are replaced when they end.
///
/// A worker that the primary asked to leave, by a disconnect, a lower scale or a shutdown, is never
/// replaced. A worker that leaves by itself, by [`Worker::disconnect`](crate::Worker::disconnect),
/// [`Worker::exit`](crate::Worker::exit) or Node's `worker.disconnect()`, counts as one that ends.
/// With `Always` its replacement is started when it begins to leave.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Restart {
    /// All workers.
    #[default]
    Always,
    /// Workers that ended by a signal, or with a code other than 0.
    OnCrash,
    /// No worker.
    Never,
}

/// The delays of replacements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct RestartOptions {
    pub(crate) restart: Restart,
    /// Number of restarts of one slot without delay.
    pub(crate) burst: u32,
    /// Listening time that earns one more of them.
    pub(crate) refill: Duration,
    /// The first delay after the burst; each further delay is twice as long.
    pub(crate) delay_min: Duration,
    /// The longest delay.
    pub(crate) delay_max: Duration,
    /// Listening time after which the delay starts again at `delay_min`.
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

/// The options of the supervisor.
#[derive(Clone, Debug)]
pub(crate) struct SupervisorOptions {
    pub(crate) policy: Policy,
    /// Greatest number of records in one queue.
    pub(crate) window: u32,
    /// Greatest number of accepted connections that wait in the primary, for each address.
    pub(crate) waiting: usize,
    /// Time that a queue may be left unread before its worker is killed.
    pub(crate) unresponsive: Duration,
    /// Time that a Node worker may take to answer a connection before it is killed.
    pub(crate) unresponsive_node: Duration,
    /// Time from the request to end to `SIGTERM`.
    pub(crate) disconnect: Duration,
    /// Time from `SIGTERM` to `SIGKILL`.
    pub(crate) term: Duration,
    /// `disconnect` for Node workers, for which `SIGTERM` is the first notification.
    pub(crate) disconnect_node: Duration,
    /// `term` for Node workers.
    pub(crate) term_node: Duration,
    /// Time after which a Node worker gets `SIGTERM` if that is earlier than `disconnect_node`; the
    /// time of `SIGKILL` stays.
    pub(crate) sigterm_node: Option<Duration>,
    /// Time that a worker is online without a listener before it counts as one that does not
    /// listen, and is ready; `None` when only a listener makes a worker ready.
    pub(crate) listens_after: Option<Duration>,
    /// Time that workers may take to become ready, and to listen on the addresses of their
    /// predecessors. `Primary::ready` applies the limit to its wait.
    pub(crate) ready: Duration,
    /// Time that the start of one process may take.
    pub(crate) start: Duration,
    pub(crate) restart: RestartOptions,
    /// The greatest number of listeners and pending listen requests of one worker.
    pub(crate) listens_max: u32,
    /// The addresses on which workers may listen; `None` without a list.
    pub(crate) listen_rules: Option<ListenRules>,
    /// Whether a function of the user decides about addresses that no rule allows.
    pub(crate) asks_permission: bool,
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
            disconnect_node: Duration::from_secs(9),
            term_node: Duration::from_secs(18),
            sigterm_node: None,
            listens_after: Some(LISTENS_AFTER),
            ready: Duration::from_secs(30),
            start: Duration::from_secs(10),
            restart: RestartOptions::default(),
            listens_max: LISTENS_MAX,
            listen_rules: None,
            asks_permission: false,
        }
    }
}
