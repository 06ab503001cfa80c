//! The simulation: random worlds drive the supervisor and check what must always hold.
//!
//! A [`World`] is the driver, the kernel, the workers and the clients in one, with a clock of its
//! own. A seed decides the order of all that happens. Faults are workers that exit, freeze, refuse
//! connections or do not answer, spawns that fail, messages that are lost or late, queues that are
//! full, descriptors that run out, clocks that jump, and workers that break the protocol. Some workers are Node workers: their
//! connections ride on their channel and are answered there. Some workers accept from their slots'
//! own sockets. After each step the world compares the ledger of all connections with the
//! supervisor's counters, and each output with the inputs before it.
//!
//! `SEED=n` replays one world and prints all its inputs and outputs; `SEEDS=n` runs that many
//! worlds.

mod check;
mod driver;
mod faults;
mod invariants;
mod kernel;
mod worker;
mod world;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{
    Access, Answer, ExitKind, Grant, Input, Key, Notice, Output, Refusal, ReloadFailure, Restart,
    SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::{CloseReason, WorkerCounters};
use crate::kernel_model::{KernelQueue, KernelRecord, ModelPage};
use crate::listen_rules::{Credentials, ListenFacts, ListenPermission};
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::violation::Violation;
use crate::supervisor::Supervisor;
use crate::supervisor::restart::Rng;

use kernel::BoundAddress;
use worker::{SimulatedWorker, WorkerHistory};

const MS: Duration = Duration::from_millis(1);
const SEEDS: u64 = 3000;
const POLICIES: [Policy; 5] =
    [Policy::Shared, Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky, Policy::ReusePort];
/// The number of records that fit into a queue.
const QUEUE_RECORDS: usize = 6;
/// The number of connections that fit into a backlog.
const BACKLOG: usize = 12;
/// More steps than any world needs until nothing is due.
const STEPS_MAX: usize = 20_000;

/// The events that thousands of worlds must have seen; without them the worlds prove little.
const SEEN: [&str; 37] = [
    "asked",
    "refused",
    "start canceled",
    "forked",
    "idle",
    "delivered",
    "accepted by itself",
    "accepted on behalf",
    "no own socket",
    "reclaimed",
    "dispatched again",
    "probe",
    "all full",
    "room reported",
    "queue full",
    "in flight",
    "gone",
    "reclaimed in part",
    "closed: shutdown",
    "closed: overflow",
    "closed: not listening",
    "unresponsive",
    "granted again",
    "drained",
    "start failed",
    "declined",
    "lost",
    "silent",
    "unanswered reclaimed",
    "replaced by a successor",
    "reloaded",
    "reload: not ready",
    "reload: ended",
    "address closed",
    "left by itself",
    "start given up",
    "violation",
];

/// The place of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Backlog,
    /// In an input that the supervisor has not received.
    InInput,
    /// Held by the supervisor.
    Supervisor,
    Queue,
    Delivered,
    Closed,
    /// Never accepted: the socket was closed with the connection in its backlog.
    Reset,
}

/// A cluster, its kernel and its clients.
struct World {
    rng: Rng,
    supervisor: Supervisor<usize>,
    options: SupervisorOptions,
    now: Instant,
    /// Whether faults may happen now.
    faults: bool,
    /// The user and group of all workers, if they are not those of the primary.
    credentials: Option<Credentials>,
    /// The share of Node workers.
    node_percent: usize,
    ready: bool,
    stopping: bool,
    shutdown: ShutdownState,
    finished: bool,
    start_failed: bool,
    wanted: BTreeSet<SlotId>,
    /// The addresses that each worker requests, in this order.
    program: Vec<Address>,
    /// The inputs that answer outputs, in the order of the outputs.
    answers: VecDeque<Input<usize>>,
    bound: BTreeMap<Key, BoundAddress>,
    /// All keys that were ever bound.
    keys: BTreeSet<Key>,
    next_port: u16,
    queues: BTreeMap<(WorkerId, Key), KernelQueue<usize>>,
    pages: BTreeMap<(WorkerId, Key), Arc<ModelPage>>,
    /// The number of connections that a worker may have open for each key.
    open_max: Option<u32>,
    workers: BTreeMap<WorkerId, SimulatedWorker>,
    /// The place of each connection.
    fates: Vec<Fate>,
    /// The key in whose backlog each connection arrived.
    arrival_keys: Vec<Key>,
    ledger: Ledger,
    out: Vec<Output<usize>>,
    /// The number of times that each connection was sent into a queue.
    sends: Vec<usize>,
    started_at: Instant,
    /// Whether `Ready` is due.
    ready_due: bool,
    /// The reloads that are not answered.
    reloads: BTreeSet<u32>,
    /// Whether a signal requested a reload that is not answered.
    reload_on_signal: bool,
    /// The slots whose workers have listened, for each key, with the last time that they did.
    claims: BTreeMap<Key, BTreeMap<SlotId, Instant>>,
    /// The keys that the user has closed.
    closed_by_user: BTreeSet<Key>,
    /// The number of `AddressClosed` that have to follow in this step.
    closures_due: u32,
    /// The worker of each slot.
    holders: BTreeMap<SlotId, WorkerId>,
    /// The last number that a request of the user had.
    last_number: u32,
    /// A fork that has not been answered.
    forking: bool,
    /// The worker that breaks the protocol in this step.
    breaking: Option<WorkerId>,
    /// The unanswered `DisconnectAll` requests, with the workers that each waits for.
    disconnecting_all: BTreeMap<u32, Vec<WorkerId>>,
    /// Whether `DisconnectAll` was requested at least once.
    disconnected_all: bool,
    /// The number of times that each event of [`SEEN`] has happened.
    seen: BTreeMap<&'static str, u64>,
    /// Whether inputs and outputs are printed.
    is_replay: bool,
}

/// The facts about the end of a world that the checks need.
#[derive(Debug, Default)]
struct ShutdownState {
    aborting: bool,
    /// The time at which each address was closed.
    closed_at: BTreeMap<Key, Instant>,
}

/// The values that the supervisor's counters must have.
#[derive(Debug, Default)]
struct Ledger {
    accepted: u64,
    dispatched: u64,
    reclaimed: u64,
    closed: [u64; 3],
    /// The connections that the supervisor holds.
    held: u64,
}

/// Prints how to replay a world in which an assertion failed.
struct ReplayHint(u64);

impl Drop for ReplayHint {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SEED={}", self.0);
        }
    }
}

#[test]
fn in_every_world_each_connection_has_one_end_and_each_shutdown_finishes() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut seen = BTreeMap::new();
    for seed in seeds {
        let _hint = ReplayHint(seed);
        let mut world = World::new(seed);
        world.run();
        world.check_at_rest();
        world.shut_down();
        world.seen.iter().for_each(|(event, times)| *seen.entry(*event).or_insert(0) += times);
    }
    eprintln!("{seen:?}");
    for event in SEEN {
        assert!(!many || seen.contains_key(event), "no world has seen: {event}");
    }
}
