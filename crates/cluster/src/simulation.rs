//! A whole cluster in a glass: random worlds drive the core and check what must always hold.
//!
//! A [`World`] is the driver, the kernel, the workers and the clients in one, with a clock of its
//! own. Everything in it happens in an order that a seed decides; faults are workers that die,
//! freeze, refuse or say nothing, spawns that fail, messages that are lost or late, queues that
//! are full, descriptors that run out, and clocks that jump. Some workers are Node's: what they are
//! given rides on their channel and is answered there. Some accept from sockets of their slots'
//! own. After each step the ledger of all connections is compared with the core's counters, and
//! each output with what the core was told.
//!
//! `SEED=n` replays one world and shows all that happens in it; `SEEDS=n` tries so many.

mod check;
mod driver;
mod faults;
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
use crate::counters::CloseReason;
use crate::counters::WorkerCounters;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::supervisor::Supervisor;
use crate::supervisor::restart::Rng;
use crate::testing::{KernelQueue, KernelRecord, ModelClosedCounter};

use kernel::Port;
use worker::{FromPrimary, Worker};

const MS: Duration = Duration::from_millis(1);
const SEEDS: u64 = 3000;
const POLICIES: [Policy; 5] =
    [Policy::Shared, Policy::RoundRobin, Policy::LeastLoaded, Policy::Sticky, Policy::ReusePort];
/// Records that the kernel takes before it says that a queue is full.
const QUEUE_RECORDS: usize = 6;
/// Connections that a port's backlog holds.
const BACKLOG: usize = 12;
/// More steps than any world needs to come to rest.
const STEPS_MAX: usize = 20_000;

/// What thousands of worlds must have seen, or they prove little.
const SEEN: [&str; 30] = [
    "forked",
    "idle",
    "delivered",
    "accepted by itself",
    "stood in for",
    "not its own",
    "taken back",
    "dispatched again",
    "probe",
    "all full",
    "told of room",
    "queue full",
    "in flight",
    "gone",
    "read in part",
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
    "taken back from the dead",
    "relieved",
    "reloaded",
    "reload: not ready",
    "reload: ended",
];

/// Where a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Backlog,
    /// In an input that the core has not been given.
    Coming,
    /// Held by the core.
    Supervisor,
    Queue,
    Delivered,
    Closed,
    /// Never accepted: its port was closed.
    Reset,
}

struct World {
    rng: Rng,
    supervisor: Supervisor<usize>,
    options: SupervisorOptions,
    now: Instant,
    faults: bool,
    /// So many workers of a hundred are Node's.
    nodes: usize,
    ready: bool,
    stopping: bool,
    ending: Ending,
    finished: bool,
    start_failed: bool,
    wanted: BTreeSet<SlotId>,
    program: Vec<Address>,
    answers: VecDeque<Input<usize>>,
    ports: BTreeMap<Key, Port>,
    keys: BTreeSet<Key>,
    next_port: u16,
    queues: BTreeMap<(WorkerId, Key), KernelQueue<usize>>,
    closed_counter: BTreeMap<(WorkerId, Key), Arc<ModelClosedCounter>>,
    /// How many connections a worker may have open of each key.
    open_max: Option<u32>,
    workers: BTreeMap<WorkerId, Worker>,
    fates: Vec<Fate>,
    /// Whose backlog each connection came in.
    homes: Vec<Key>,
    ledger: Ledger,
    out: Vec<Output<usize>>,
    /// How often each connection was put into a queue.
    sends: Vec<usize>,
    born: Instant,
    ready_due: bool,
    /// The reload that is not over, and the last number used.
    reload: Option<u32>,
    reloads: u32,
    /// A fork that has not been answered.
    forking: bool,
    /// Who waits for the end of which workers, and whether anybody ever did.
    disconnecting_all: BTreeMap<u32, Vec<WorkerId>>,
    all_gone: bool,
    /// What has been exercised.
    seen: BTreeMap<&'static str, u64>,
    shown: bool,
}

/// How it all ends.
#[derive(Debug, Default)]
struct Ending {
    aborting: bool,
    /// When each address was given up.
    given_up: BTreeMap<Key, Instant>,
}

/// What the counters must say.
#[derive(Debug, Default)]
struct Ledger {
    accepted: u64,
    dispatched: u64,
    reclaimed: u64,
    closed: [u64; 3],
    held: u64,
}

/// Prints the seed of a world that broke a rule.
struct Blame(u64);

impl Drop for Blame {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("replay with SEED={}", self.0);
        }
    }
}

#[test]
fn whatever_happens_every_connection_has_one_end_and_every_shutdown_ends() {
    let number = |name| std::env::var(name).ok().and_then(|text| text.parse::<u64>().ok());
    let seeds = match number("SEED") {
        Some(seed) => seed..seed + 1,
        None => 0..number("SEEDS").unwrap_or(SEEDS),
    };
    let many = seeds.end - seeds.start >= SEEDS;
    let mut seen = BTreeMap::new();
    for seed in seeds {
        let _blame = Blame(seed);
        let mut world = World::new(seed);
        world.apply();
        world.rest();
        world.end();
        world.seen.iter().for_each(|(what, times)| *seen.entry(*what).or_insert(0) += times);
    }
    eprintln!("{seen:?}");
    for what in SEEN {
        assert!(!many || seen.contains_key(what), "no world has seen: {what}");
    }
}
