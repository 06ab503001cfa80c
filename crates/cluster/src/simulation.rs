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

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::contract::{
    Access, Answer, Ended, Grant, Input, Key, Notice, Output, Refusal, ReloadFailure, Restart,
    SlotId, SupervisorOptions, WorkerId, WorkerKind,
};
use crate::counters::CloseReason;
use crate::counters::WorkerCounters;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::supervisor::Supervisor;
use crate::supervisor::restart::Rng;

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

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Record {
    Connection(usize),
    Probe,
}

#[derive(Debug, Default)]
struct Queue {
    records: VecDeque<Record>,
    /// What a Node worker has not answered, as the driver holds it.
    held: VecDeque<usize>,
    ended: bool,
    refused: bool,
    /// Takes nothing any more.
    gone: bool,
}

#[derive(Debug)]
struct Port {
    on: bool,
    /// Nothing is accepted: its workers share it.
    datagram: bool,
    address: Address,
    /// What its backlog holds is taken, wanted or not, and then it is closed.
    closing: bool,
    backlog: VecDeque<usize>,
    /// Slots have sockets of their own here.
    group: bool,
    /// Clients come in at the one that is nobody's own.
    listens: bool,
    doors: BTreeMap<SlotId, Door>,
}

/// A slot's own socket.
#[derive(Debug)]
struct Door {
    /// The driver accepts from it.
    stands_in: bool,
    backlog: VecDeque<usize>,
}

impl Port {
    /// The next one that the driver may take.
    fn next(&mut self) -> Option<usize> {
        let (closing, on) = (self.closing, self.on);
        let doors = self.doors.values_mut().filter(|door| closing || (on && door.stands_in));
        let mut backlogs =
            std::iter::once(&mut self.backlog).chain(doors.map(|it| &mut it.backlog));
        backlogs.find_map(VecDeque::pop_front)
    }

    /// Where a client comes in: by chance, as the kernel's hash has it.
    fn backlog(&mut self, chance: usize) -> Option<&mut VecDeque<usize>> {
        if self.datagram {
            return None;
        }
        let doors = self.doors.values_mut().map(|door| &mut door.backlog);
        let mut all: Vec<_> =
            self.listens.then_some(&mut self.backlog).into_iter().chain(doors).collect();
        if all.is_empty() { None } else { Some(all.swap_remove(chance % all.len())) }
    }
}

#[derive(Debug, Default)]
struct Worker {
    /// Somebody forked it, and hears when it cannot be started.
    forked: bool,
    slot: SlotId,
    node: bool,
    /// Takes no connection: it has enough.
    full: bool,
    running: bool,
    frozen: bool,
    /// Does not end when it is told to.
    stubborn: bool,
    /// Does not end on `SIGTERM` either.
    deaf: bool,
    term: bool,
    told_to_finish: bool,
    said_online: bool,
    wishes: VecDeque<Address>,
    requests: u32,
    unanswered: BTreeSet<u32>,
    /// Keys it accepts from.
    listeners: BTreeSet<Key>,
    /// Those of them where it has its slot's own socket.
    own: BTreeSet<Key>,
    /// What it said and the core was not given yet.
    channel: VecDeque<Input<usize>>,
    channel_open: bool,
    ended: Option<Ended>,
    /// What the core was given.
    told: FromPrimary,
}

#[derive(Debug, Default)]
struct FromPrimary {
    spawned: bool,
    exited: bool,
    channel_closed: bool,
    listening: BTreeSet<Key>,
    listening_ever: BTreeSet<Key>,
    forks: u32,
    onlines: u32,
    disconnects: u32,
    exits: u32,
    send_disconnects: u32,
    finishing: bool,
    killed: bool,
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
    queues: BTreeMap<(WorkerId, Key), Queue>,
    closed_counter: BTreeMap<(WorkerId, Key), Arc<EndCount>>,
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

/// What a worker has counted as ended, whether the core is to be told of the next, and how many
/// are open.
#[derive(Debug, Default)]
struct EndCount(AtomicU64, AtomicBool, AtomicU64);

impl crate::contract::ClosedCounter for EndCount {
    fn ended(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn await_next(&self) {
        self.1.store(true, Ordering::Relaxed);
    }
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

impl World {
    fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut pick = |choices: &[u64]| choices[below(&mut rng, choices.len())];
        let mut options = SupervisorOptions {
            window: u32::try_from(pick(&[1, 2, 3, 8, 64])).unwrap(),
            waiting: usize::try_from(pick(&[1, 3, 1024])).unwrap(),
            unresponsive: pick(&[300, 2000, 30_000]) as u32 * MS,
            unresponsive_node: pick(&[200, 5000]) as u32 * MS,
            disconnect: pick(&[0, 200, 5000]) as u32 * MS,
            term: pick(&[0, 100, 2000]) as u32 * MS,
            ..SupervisorOptions::default()
        };
        options.policy = POLICIES[pick(&[0, 1, 2, 3, 4]) as usize];
        options.restart.restart =
            [Restart::Always, Restart::Always, Restart::OnCrash, Restart::Never]
                [pick(&[0, 1, 2, 3]) as usize];
        options.restart.burst = pick(&[0, 1, 5]) as u32;
        let nodes = pick(&[0, 0, 50, 100]) as usize;
        let addresses = ["127.0.0.1:80", "127.0.0.1:0", "127.0.0.1:0", "[::1]:81"];
        let program = match pick(&[0, 1, 2, 3, 4, 5]) {
            0 => &addresses[..0],
            1 => &addresses[..],
            2 => &addresses[1..3],
            _ => &addresses[..1],
        };
        options.listens = !program.is_empty() && pick(&[0, 1]) == 1;
        let now = Instant::now();
        let mut program: Vec<_> = program.iter().map(|text| Address::from(address(text))).collect();
        if pick(&[0, 0, 1]) == 1 && !program.is_empty() {
            program.push(Address::UnixPath("/run/s".into()));
            program.push(Address::Udp { address: address("127.0.0.1:0"), v6_only: false });
            program.push(Address::DatagramAbstract(b"d".to_vec()));
        }
        Self {
            supervisor: Supervisor::new(options.clone(), seed),
            rng,
            options,
            now,
            faults: false,
            nodes,
            ready: false,
            stopping: false,
            ending: Ending::default(),
            finished: false,
            start_failed: false,
            wanted: BTreeSet::new(),
            program,
            answers: VecDeque::new(),
            ports: BTreeMap::new(),
            keys: BTreeSet::new(),
            next_port: 4000,
            queues: BTreeMap::new(),
            closed_counter: BTreeMap::new(),
            open_max: [None, None, Some(1), Some(3)][seed as usize % 4],
            workers: BTreeMap::new(),
            fates: Vec::new(),
            homes: Vec::new(),
            ledger: Ledger::default(),
            out: Vec::new(),
            sends: Vec::new(),
            born: now,
            ready_due: false,
            reload: None,
            reloads: 0,
            forking: false,
            disconnecting_all: BTreeMap::new(),
            all_gone: false,
            seen: BTreeMap::new(),
            shown: std::env::var_os("SEED").is_some(),
        }
    }

    /// Anything may happen.
    fn apply(&mut self) {
        let gentle_start = !self.chance(30);
        let slots = self.below(6) as u32;
        self.step(Input::Scale(slots));
        let steps = 100 + self.below(1500);
        for _ in 0..steps {
            self.faults = !gentle_start || self.ready;
            self.happen();
            if self.finished {
                return;
            }
        }
    }

    /// No more faults: everything comes to rest, and nobody is left waiting.
    fn rest(&mut self) {
        self.faults = false;
        for worker in self.workers.values_mut() {
            worker.frozen = false;
            worker.full = false;
        }
        self.come_to_rest();
        if self.stopping {
            return;
        }
        assert_eq!(self.supervisor.deadline(), None, "idle without a deadline");
        assert_eq!(self.reload, None, "a reload ends");
        assert!(self.disconnecting_all.is_empty(), "workers that are to end do");
        // While one that is said to listen has not begun to, it may want any address.
        let mut running = self.workers.values().filter(|worker| worker.running);
        let coming = running.any(|worker| worker.told.listening_ever.is_empty());
        if !self.options.listens || !coming {
            assert_eq!(self.supervisor.counters().waiting, 0, "nobody waits");
            for (key, port) in &self.ports {
                assert!(port.backlog.is_empty(), "key {key} is accepted from");
                let left = port.doors.iter().find(|(_, door)| !door.backlog.is_empty());
                assert!(left.is_none(), "key {key} is accepted from at {left:?}");
            }
        }
        for (id, worker) in &self.workers {
            assert!(worker.unanswered.is_empty() || !worker.running, "{id} waits for a grant");
        }
        if self.options.restart.restart == Restart::Always {
            let running = self.workers.values().filter(|worker| worker.running);
            let slots: BTreeSet<SlotId> = running.map(|worker| worker.slot).collect();
            assert_eq!(slots, self.wanted, "slots are filled");
            let told = !self.ready_due || self.wanted.is_empty();
            assert!(told || self.options.listens, "readiness is told");
        }
    }

    /// The end comes in bounded time, whatever the workers do.
    fn end(&mut self) {
        self.faults = self.chance(50);
        let (begun, jumps) = (self.now, self.faults);
        let abort = self.chance(20);
        self.step(if abort { Input::Abort } else { Input::Shutdown });
        for _ in 0..self.below(60) {
            if !self.finished {
                self.happen();
            }
        }
        self.faults = false;
        self.come_to_rest();
        assert!(self.finished, "the shutdown ended");
        let times = self.options.disconnect + self.options.term + 3000 * MS;
        assert!(jumps || self.now - begun <= times, "it took {:?}", self.now - begun);
        assert_eq!(self.supervisor.deadline(), None);
        assert!(self.ports.is_empty() && self.queues.is_empty(), "all is closed");
        assert_eq!(self.supervisor.counters().waiting, 0);
        for (id, worker) in &self.workers {
            let spawned = u32::from(worker.told.spawned);
            assert!(!worker.running, "{id} is gone");
            assert_eq!(worker.told.forks, spawned, "{id} fork");
            assert_eq!(worker.told.exits, spawned, "{id} exit");
            assert_eq!(worker.told.disconnects, spawned, "{id} disconnect");
        }
        for (id, fate) in self.fates.iter().enumerate() {
            assert!(
                matches!(fate, Fate::Delivered | Fate::Closed | Fate::Reset),
                "connection {id} is {fate:?}"
            );
        }
    }

    fn come_to_rest(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.progress() {
                continue;
            }
            let Some(deadline) = self.supervisor.deadline() else {
                // Nobody looks any more: who waits must be let in when one ends.
                if self.end_any() {
                    continue;
                }
                return;
            };
            self.now = self.now.max(deadline);
            self.tick();
        }
        panic!("no rest after {STEPS_MAX} steps");
    }

    /// One thing that is due happens; `false` when nothing is.
    fn progress(&mut self) -> bool {
        if let Some(answer) = self.answers.pop_front() {
            self.step(answer);
            return true;
        }
        if self.finished {
            return false;
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.spawner(id) || self.worker_acts(id) || self.receive(id) || self.see_exit(id) {
                return true;
            }
        }
        for key in self.ports.keys().copied().collect::<Vec<_>>() {
            if self.accept(key) {
                return true;
            }
        }
        false
    }

    /// Something happens, by chance.
    fn happen(&mut self) {
        let id = self.any_worker();
        match self.below(100) {
            0..=29 => {
                if let Some(answer) = self.answers.pop_front() {
                    self.step(answer);
                }
            }
            30..=37 => drop(id.map(|id| self.spawner(id))),
            38..=54 => drop(id.map(|id| self.worker_acts(id))),
            55..=65 => drop(id.map(|id| self.receive(id))),
            66 => _ = self.end_any(),
            67..=69 => drop(id.map(|id| self.see_exit(id))),
            70..=79 => self.client(),
            80 => self.poll(),
            81..=86 => {
                if let Some(key) = self.any_port() {
                    self.accept(key);
                }
            }
            87..=94 => {
                let ms = [0, 1, 5, 20, 100][self.below(5)];
                self.now += ms * MS;
                self.tick_if_due();
            }
            _ if !self.faults => self.tick_if_due(),
            _ => self.fault(),
        }
    }

    fn fault(&mut self) {
        let Some(id) = self.any_worker() else { return };
        match self.below(40) {
            35..=37 => {
                self.reloads += 1;
                self.step(Input::Fork { number: self.reloads, setup: Arc::default() });
            }
            38 if self.chance(30) => {
                self.reloads += 1;
                self.step(Input::DisconnectAll { number: self.reloads });
            }
            30..=31 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.full = !worker.full;
            }
            32..=34 => {
                self.reloads += 1;
                self.step(Input::Reload { number: self.reloads });
            }
            0..=5 => self.die(id, Ended::Signal(9)),
            6..=11 => {
                let worker = self.workers.get_mut(&id).unwrap();
                worker.frozen = !worker.frozen;
            }
            12 => {
                self.now += Duration::from_secs(60);
                self.tick_if_due();
            }
            13..=14 => self.step(Input::Disconnect { worker: id }),
            15..=16 => self.say(id, Input::DisconnectAsked { worker: id }),
            17..=19 => {
                let slots = self.below(6) as u32;
                self.step(Input::Scale(slots));
            }
            20 => self.hang_up(id),
            21..=23 => self.close_listener(id),
            24 => self.die(id, Ended::Code(0)),
            25 => self.workers.get_mut(&id).unwrap().stubborn = true,
            26 => self.workers.get_mut(&id).unwrap().deaf = true,
            27 if self.chance(20) => self.step(Input::Shutdown),
            28 if self.chance(10) => self.step(Input::Abort),
            _ => self.answer_late(id),
        }
    }

    /// News that were true once.
    fn answer_late(&mut self, worker: WorkerId) {
        let key = 1 + self.below(3) as u32;
        match self.below(4) {
            0 => self.step(Input::Writable { worker, key }),
            1 => self.step(Input::ListenerClosed { worker: worker + 1000, key }),
            2 => self.step(Input::Depth { worker: worker + 1000, key, records: 1 }),
            _ => self.step(Input::Tick),
        }
    }

    fn tick_if_due(&mut self) {
        if self.supervisor.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        // What a dead Node worker had said is heard before it is given up.
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            while self.workers[&id].node && self.workers[&id].told.exited && self.receive(id) {}
        }
        self.step(Input::Tick);
        let deadline = self.supervisor.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a tick moves the deadline on");
    }

    fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    fn below(&mut self, end: usize) -> usize {
        below(&mut self.rng, end)
    }

    fn any_worker(&mut self) -> Option<WorkerId> {
        // The youngest have most to say.
        let among = self.workers.len().min(8);
        let skip = self.below(among.max(1));
        self.workers.keys().rev().nth(skip).copied()
    }

    fn any_port(&mut self) -> Option<Key> {
        let nth = self.below(self.ports.len().max(1));
        self.ports.keys().nth(nth).copied()
    }
}

/// Clients, workers, and the processes they run in.
impl World {
    fn client(&mut self) {
        let Some(key) = self.any_port() else { return };
        for _ in 0..=self.below(4) {
            let chance = self.below(100);
            let port = self.ports.get_mut(&key).unwrap();
            let closing = port.closing;
            let Some(backlog) = port.backlog(chance) else { return };
            if backlog.len() < BACKLOG && !(closing && backlog.is_empty()) {
                backlog.push_back(self.fates.len());
                self.fates.push(Fate::Backlog);
                self.homes.push(key);
                self.sends.push(0);
            }
        }
    }

    fn accept(&mut self, key: Key) -> bool {
        let port = self.ports.get_mut(&key).unwrap();
        if !port.on && !port.closing {
            return false;
        }
        let closing = port.closing;
        let Some(connection) = port.next() else {
            if closing {
                self.ports.remove(&key);
                self.step(Input::Unbound { key });
            }
            return closing;
        };
        if closing {
            self.saw("drained");
        }
        self.fates[connection] = Fate::Coming;
        self.step(Input::Accepted { key, connection });
        true
    }

    fn spawner(&mut self, id: WorkerId) -> bool {
        let fails = self.faults && self.chance(10);
        let node = self.chance(self.nodes);
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.told.spawned || worker.ended.is_some() {
            return false;
        }
        if fails {
            worker.ended = Some(Ended::Unknown);
            worker.told.exited = true;
            self.step(Input::SpawnFailed { worker: id, errno: 11 });
        } else {
            worker.told.spawned = true;
            worker.running = true;
            worker.node = node;
            worker.channel_open = true;
            worker.wishes = self.program.iter().cloned().collect();
            let kind = if node { WorkerKind::Node } else { WorkerKind::Native };
            self.step(Input::Spawned { worker: id, pid: 1000 + id, kind });
        }
        true
    }

    /// The worker does one thing, if it has something to do.
    fn worker_acts(&mut self, id: WorkerId) -> bool {
        let crashes = self.faults && self.chance(1);
        let worker = self.workers.get_mut(&id).unwrap();
        if !worker.running || worker.frozen {
            return false;
        }
        if worker.term && !worker.deaf {
            self.die(id, Ended::Signal(15));
        } else if crashes || !worker.channel_open {
            self.die(id, Ended::Code(1));
        } else if !worker.said_online {
            worker.said_online = true;
            worker.channel.push_back(Input::Online { worker: id });
        } else if worker.told_to_finish && !worker.stubborn {
            return self.finish(id);
        } else if let Some(address) = worker.wishes.pop_front() {
            worker.requests += 1;
            let request = worker.requests;
            worker.unanswered.insert(request);
            // A Node worker keeps its limit to itself.
            let max_connections = self.open_max.filter(|_| !worker.node);
            let options = ListenOptions { max_connections, ..ListenOptions::new() };
            worker.channel.push_back(Input::ListenAsked { worker: id, request, address, options });
        } else {
            return self.read(id);
        }
        true
    }

    /// Reads its queues to the end and ends.
    fn finish(&mut self, id: WorkerId) -> bool {
        if self.read(id) {
            return true;
        }
        let node = self.workers[&id].node;
        let open = self.queues.iter().any(|((owner, _), queue)| *owner == id && !queue.ended);
        if open
            && !node
            && self.workers[&id].listeners.iter().any(|key| self.queues.contains_key(&(id, *key)))
        {
            return false;
        }
        self.die(id, Ended::Code(0));
        true
    }

    fn read(&mut self, id: WorkerId) -> bool {
        if self.workers[&id].node && self.options.policy != Policy::Shared {
            return self.read_channel(id);
        }
        for key in self.workers[&id].listeners.iter().copied().collect::<Vec<_>>() {
            let datagram = self.ports.get(&key).is_some_and(|port| port.datagram);
            if self.options.policy == Policy::Shared || datagram {
                let connection = self.ports.get_mut(&key).and_then(|port| port.backlog.pop_front());
                if let Some(connection) = connection {
                    self.fates[connection] = Fate::Delivered;
                    return true;
                }
                continue;
            }
            if self.accept_itself(id, key) {
                return true;
            }
            let Some(queue) = self.queues.get_mut(&(id, key)) else {
                // The primary dropped it: its listener is at its end.
                self.close_key(id, key);
                return true;
            };
            let Some(record) = queue.records.pop_front() else { continue };
            if std::mem::take(&mut queue.refused) {
                self.answers.push_back(Input::Writable { worker: id, key });
            }
            if let Record::Connection(connection) = record {
                assert_eq!(self.fates[connection], Fate::Queue);
                self.fates[connection] = Fate::Delivered;
                self.saw("delivered");
                if let Some(count) = self.closed_counter.get(&(id, key)) {
                    count.2.fetch_add(1, Ordering::Relaxed);
                    if self.chance(60) {
                        self.end_one(id, key);
                    }
                }
            }
            return true;
        }
        false
    }

    /// A worker accepts from its slot's own socket.
    fn accept_itself(&mut self, id: WorkerId, key: Key) -> bool {
        let worker = &self.workers[&id];
        if !worker.own.contains(&key) || worker.told_to_finish {
            return false;
        }
        let door = self.ports.get_mut(&key).and_then(|port| port.doors.get_mut(&worker.slot));
        let Some(connection) = door.and_then(|door| door.backlog.pop_front()) else {
            return false;
        };
        self.fates[connection] = Fate::Delivered;
        self.saw("accepted by itself");
        true
    }

    /// The driver sees that connections wait in a slot's own socket.
    fn poll(&mut self) {
        let Some(key) = self.any_port() else { return };
        let mut doors = self.ports[&key].doors.iter();
        let waits = |door: &Door| !door.stands_in && !door.backlog.is_empty();
        if let Some((&slot, _)) = doors.find(|(_, door)| waits(door)) {
            self.step(Input::Unaccepted { key, slot });
        }
    }

    /// A connection that some worker has open ends.
    fn end_any(&mut self) -> bool {
        let lives = |id| self.workers[&id].running && !self.workers[&id].frozen;
        let open = |count: &EndCount| count.2.load(Ordering::Relaxed) > 0;
        let mut all =
            self.closed_counter.iter().filter(|((id, _), count)| open(count) && lives(*id));
        let found = all.next().map(|(of, _)| *of);
        found.inspect(|(id, key)| self.end_one(*id, *key)).is_some()
    }

    /// One of those it has open ends.
    fn end_one(&mut self, id: WorkerId, key: Key) {
        let count = &self.closed_counter[&(id, key)];
        count.2.fetch_sub(1, Ordering::Relaxed);
        count.0.fetch_add(1, Ordering::Relaxed);
        if count.1.swap(false, Ordering::Relaxed) {
            self.saw("told of room");
            self.say(id, Input::HasRoom { key });
        }
    }

    /// A Node worker takes the next connection off its channel and answers.
    fn read_channel(&mut self, id: WorkerId) -> bool {
        let loses = self.faults && self.chance(5);
        let mut of = self.queues.iter_mut().filter(|((owner, _), _)| *owner == id);
        let Some((key, record)) =
            of.find_map(|((_, key), queue)| Some((*key, queue.records.pop_front()?)))
        else {
            return false;
        };
        let Record::Connection(connection) = record else { panic!("a probe for {id}") };
        let worker = self.workers.get_mut(&id).unwrap();
        let answer = if loses {
            Answer::Lost(connection)
        } else if worker.full || !worker.listeners.contains(&key) {
            Answer::Declined(connection)
        } else {
            self.fates[connection] = Fate::Delivered;
            Answer::Taken
        };
        // Which one it is, is for the driver to say.
        let said = Input::Answered { worker: id, key, nth: connection, answer };
        self.workers.get_mut(&id).unwrap().channel.push_back(said);
        self.saw("delivered");
        true
    }

    fn close_listener(&mut self, id: WorkerId) {
        let again = self.chance(50);
        let Some(key) = self.workers[&id].listeners.first().copied() else { return };
        if self.workers[&id].running && !self.workers[&id].frozen {
            self.close_key(id, key);
            if again {
                let address = self.program[0].clone();
                self.workers.get_mut(&id).unwrap().wishes.push_back(address);
            }
        }
    }

    fn close_key(&mut self, id: WorkerId, key: Key) {
        self.workers.get_mut(&id).unwrap().listeners.remove(&key);
        self.say(id, Input::ListenerClosed { worker: id, key });
    }

    fn say(&mut self, id: WorkerId, input: Input<usize>) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open && !worker.frozen {
            worker.channel.push_back(input);
        }
    }

    fn hang_up(&mut self, id: WorkerId) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.channel_open = false;
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }

    fn die(&mut self, id: WorkerId, ended: Ended) {
        let lost = self.faults && self.chance(30);
        let worker = self.workers.get_mut(&id).unwrap();
        if !worker.running {
            return;
        }
        worker.running = false;
        worker.ended = Some(ended);
        if worker.channel_open {
            worker.channel_open = false;
            if lost {
                // An answer is written before the connection is used.
                worker.channel.retain(|said| matches!(said, Input::Answered { .. }));
            }
            worker.channel.push_back(Input::ChannelClosed { worker: id });
        }
    }

    /// The core hears what the worker said.
    fn receive(&mut self, id: WorkerId) -> bool {
        let Some(mut input) = self.workers.get_mut(&id).unwrap().channel.pop_front() else {
            return false;
        };
        if let Input::Answered { key, nth, answer, .. } = &mut input {
            let queue = self.queues.get_mut(&(id, *key)).expect("answers for a lane");
            let connection = std::mem::replace(
                nth,
                queue.held.iter().position(|held| held == nth).expect("holds it"),
            );
            queue.held.remove(*nth);
            match answer {
                Answer::Taken => {}
                Answer::Declined(_) | Answer::Lost(_) => {
                    let what = if matches!(answer, Answer::Lost(_)) { "lost" } else { "declined" };
                    self.fates[connection] = Fate::Coming;
                    self.saw(what);
                }
            }
        }
        self.step(input);
        true
    }

    fn see_exit(&mut self, id: WorkerId) -> bool {
        let worker = self.workers.get_mut(&id).unwrap();
        match worker.ended {
            Some(ended) if !worker.told.exited => {
                worker.told.exited = true;
                self.step(Input::Exited { worker: id, ended });
                true
            }
            _ => false,
        }
    }
}

/// The driver, and what is checked with each input and output.
impl World {
    fn step(&mut self, input: Input<usize>) {
        let accepted = matches!(input, Input::Accepted { .. });
        if self.shown {
            eprintln!("{input:?}");
        }
        self.note(&input);
        let mut out = std::mem::take(&mut self.out);
        self.supervisor.step(input, self.now, &mut out);
        for (id, worker) in &mut self.workers {
            worker.told.finishing |= !worker.told.exited && self.supervisor.is_leaving(*id);
        }
        let many = if accepted && !self.stopping { 8 } else { 8 * self.fates.len() };
        assert!(out.len() <= many + 16 * (self.workers.len() + 4), "too many outputs");
        for output in out.drain(..) {
            if self.shown {
                eprintln!("    {output:?}");
            }
            assert!(!self.finished || matches!(output, Output::Close { .. }), "{output:?}");
            self.perform(output);
        }
        self.out = out;
        self.check();
    }

    fn note(&mut self, input: &Input<usize>) {
        let mut held = |connection: &usize| {
            assert_eq!(self.fates[*connection], Fate::Coming);
            self.fates[*connection] = Fate::Supervisor;
            self.ledger.held += 1;
        };
        match input {
            Input::Accepted { connection, .. } => {
                held(connection);
                self.ledger.accepted += 1;
            }
            Input::Reclaimed { connections, .. } => {
                connections.iter().for_each(held);
                self.ledger.reclaimed += connections.len() as u64;
            }
            Input::Answered { answer: Answer::Declined(c) | Answer::Lost(c), .. } => {
                held(c);
                self.ledger.reclaimed += 1;
            }
            Input::SendFailed { connection: Some(connection), .. } => {
                held(connection);
                self.ledger.dispatched -= 1;
            }
            Input::Listening { worker, key } => {
                self.told(*worker).listening.insert(*key);
                self.told(*worker).listening_ever.insert(*key);
            }
            Input::ListenerClosed { worker, key } if self.workers.contains_key(worker) => {
                self.told(*worker).listening.remove(key);
            }
            Input::ChannelClosed { worker } => self.told(*worker).channel_closed = true,
            Input::Scale(slots) if !self.stopping => {
                self.ready_due = true;
                self.wanted = (0..*slots).collect();
                let surplus = self.workers.values_mut().filter(|worker| worker.slot >= *slots);
                surplus.for_each(|worker| worker.told.finishing |= !worker.told.exited);
            }
            Input::Disconnect { worker } | Input::DisconnectAsked { worker } => {
                let Worker { slot, told, .. } = &self.workers[worker];
                // One that leaves or comes has no say about the slot.
                if !told.exited && self.supervisor.holds_slot(*worker) {
                    self.wanted.remove(&slot.clone());
                    self.told(*worker).finishing = true;
                }
            }
            Input::Reload { number } if self.reload.is_none() && !self.stopping => {
                self.reload = Some(*number);
            }
            Input::Fork { .. } => self.forking = true,
            Input::DisconnectAll { number } => {
                let alive = self.workers.iter_mut().filter(|(_, worker)| !worker.told.exited);
                let mut ids = Vec::new();
                for (id, worker) in alive {
                    worker.told.finishing = true;
                    ids.push(*id);
                }
                self.wanted.clear();
                self.disconnecting_all.insert(*number, ids);
                self.all_gone = true;
            }
            Input::Shutdown => self.stopping = true,
            Input::Abort => (self.stopping, self.ending.aborting) = (true, true),
            _ => {}
        }
    }

    fn saw(&mut self, what: &'static str) {
        *self.seen.entry(what).or_insert(0) += 1;
    }

    fn told(&mut self, worker: WorkerId) -> &mut FromPrimary {
        &mut self.workers.get_mut(&worker).unwrap().told
    }

    fn perform(&mut self, output: Output<usize>) {
        match output {
            Output::Spawn { worker, slot, .. } => self.order(worker, slot),
            Output::Emit(notice) => self.notice(notice),
            Output::Bind { key, address, options: _, reuse_port } => {
                self.bind(key, address, reuse_port);
            }
            Output::Unbind { key, drain } => self.unbind(key, drain),
            Output::Grant { worker, request, result } => self.grant(worker, request, result),
            Output::Accept { key, on } => {
                let port = self.ports.get_mut(&key).expect("accepts from an open port");
                assert_ne!(port.on, on, "told once");
                assert!(self.options.policy != Policy::Shared && !port.datagram);
                port.on = on;
                if !on {
                    self.saw("all full");
                }
            }
            Output::AcceptOnBehalf { key, slot, on } => self.accept_on_behalf(key, slot, on),
            Output::Send { worker, key, connection } => self.send(worker, key, connection),
            Output::Probe { worker, key } => {
                self.check_may_send(worker, key);
                self.saw("probe");
                assert!(!self.workers[&worker].node, "{worker} knows no probes");
                self.queues.get_mut(&(worker, key)).unwrap().records.push_back(Record::Probe);
            }
            Output::PollDepth { worker, key } => {
                let queue = self.queues.get(&(worker, key)).expect("asks about a queue");
                assert!(!self.workers[&worker].node, "{worker} has no queue to ask about");
                let records = queue.records.len() as u32;
                self.answers.push_back(Input::Depth { worker, key, records });
            }
            Output::Reclaim { worker, key } => self.reclaim(worker, key),
            Output::EndQueue { worker, key } => {
                assert!(!self.workers[&worker].node, "{worker} has no queue to end");
                let queue = self.queues.get_mut(&(worker, key)).expect("ends a queue");
                assert!(!std::mem::replace(&mut queue.ended, true), "ended once");
            }
            Output::DropQueue { worker, key } => {
                if let Some(queue) = self.queues.remove(&(worker, key)) {
                    let empty = queue.records.iter().all(|record| *record == Record::Probe);
                    assert!(empty && queue.held.is_empty(), "{worker} {key} is not empty");
                }
            }
            Output::SendDisconnect { worker } => self.tell_to_finish(worker),
            Output::CloseChannel { worker } => assert!(self.told(worker).exited),
            Output::Signal { worker: id, hard } => {
                let worker = self.workers.get_mut(&id).unwrap();
                assert!(worker.told.spawned && !worker.told.exited, "signals a live worker");
                if hard {
                    worker.told.killed = true;
                    self.die(id, Ended::Signal(9));
                } else {
                    worker.term = true;
                }
            }
            Output::Close { connection, reason } => self.close(connection, reason),
            Output::Reloaded { number, result } => self.reloaded(number, result),
            Output::Forked { worker, .. } => self.forked(worker),
            Output::Idle => self.idle(),
            Output::AllGone { number } => self.left(number),
            Output::Finished => {
                assert!(!self.finished, "finished once");
                assert!(self.workers.values().all(|worker| worker.told.exited));
                self.finished = true;
            }
        }
    }

    fn tell_to_finish(&mut self, id: WorkerId) {
        let told = self.told(id);
        told.send_disconnects += 1;
        assert_eq!(told.send_disconnects, 1);
        assert!(!told.exited);
        self.workers.get_mut(&id).unwrap().told_to_finish = true;
    }

    fn reloaded(&mut self, number: u32, result: Result<(), ReloadFailure>) {
        let under_way = self.reload.take_if(|reload| *reload == number).is_some();
        match result {
            Ok(()) => self.saw("reloaded"),
            Err(ReloadFailure::NotReady(_)) => self.saw("reload: not ready"),
            Err(ReloadFailure::Ended(_)) => self.saw("reload: ended"),
            Err(ReloadFailure::Closed) => assert!(self.stopping || self.all_gone),
            Err(ReloadFailure::UnderWay) => return assert!(self.reload.is_some() && !under_way),
        }
        assert!(under_way || self.stopping, "answered once");
    }

    fn forked(&mut self, worker: Option<WorkerId>) {
        assert!(!self.forking || worker.is_none(), "ordered before it is said");
        assert!(worker.is_some() || self.stopping, "there is a place");
        self.forking = false;
        self.ready_due = true;
        self.saw("forked");
    }

    fn idle(&mut self) {
        assert!(!self.stopping && self.wanted.is_empty());
        assert!(self.workers.values().all(|worker| worker.told.exited));
        self.saw("idle");
        // The next start is a first one again.
        self.ready = false;
    }

    /// Those who were to end have.
    fn left(&mut self, number: u32) {
        let ids = self.disconnecting_all.remove(&number).expect("told once");
        assert!(ids.iter().all(|id| self.workers[id].told.exited), "all have ended");
        // Unless somebody is to come who may want them.
        let exited = self.workers.values().all(|worker| worker.told.exited);
        if exited && self.wanted.is_empty() {
            assert!(self.ports.is_empty() && self.queues.is_empty(), "all is closed");
        }
    }

    fn order(&mut self, id: WorkerId, slot: SlotId) {
        assert!(!self.stopping, "nobody is started into a shutdown");
        let stays =
            |other: &&Worker| other.slot == slot && !other.told.exited && !other.told.finishing;
        let staying = self.workers.values().filter(stays).count();
        let most = usize::from(self.reload.is_some());
        assert!(staying <= most, "slot {slot} has a worker");
        if staying > 0 {
            self.saw("relieved");
        }
        let forked = std::mem::take(&mut self.forking);
        if forked {
            assert!(self.wanted.insert(slot), "slot {slot} was vacant");
        }
        assert!(self.wanted.contains(&slot), "slot {slot} is wanted");
        let worker = Worker { slot, forked, ..Worker::default() };
        assert!(self.workers.insert(id, worker).is_none(), "a new number");
    }

    fn notice(&mut self, notice: Notice) {
        match notice {
            Notice::Fork { worker, pid } => {
                assert_eq!(pid, 1000 + worker);
                self.told(worker).forks += 1;
            }
            Notice::Online { worker } => {
                self.told(worker).onlines += 1;
                assert_eq!(self.told(worker).onlines, 1);
            }
            Notice::Listening { worker, .. } => assert!(!self.told(worker).listening.is_empty()),
            Notice::ListenFailed { errno, .. } => assert!([13, 98].contains(&errno)),
            Notice::Disconnect { worker, .. } => {
                self.told(worker).disconnects += 1;
                assert_eq!(self.told(worker).disconnects, 1);
            }
            Notice::Exit { worker, exited_after_disconnect, .. } => {
                self.exit(worker, exited_after_disconnect);
            }
            Notice::ForkFailed { worker, .. } => {
                let wanted = self.told(worker).finishing;
                self.exit(worker, wanted);
            }
            Notice::Unresponsive { worker } => {
                assert!(!self.told(worker).exited);
                self.saw(if self.workers[&worker].node { "silent" } else { "unresponsive" });
            }
            Notice::StartFailed { .. } => {
                assert!(!self.ready && !self.start_failed, "fails once, at the start");
                self.start_failed = true;
                self.saw("start failed");
                self.stopping = true;
            }
            Notice::Ready => {
                assert!(std::mem::take(&mut self.ready_due), "told once");
                self.ready = true;
            }
        }
    }

    fn exit(&mut self, id: WorkerId, wanted: bool) {
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.told.spawned {
            worker.told.exits += 1;
            assert_eq!(worker.told.exits, 1);
        }
        let (slot, ended) = (worker.slot, worker.ended);
        if worker.told.finishing && !self.stopping {
            assert!(wanted || !worker.told.spawned, "{id} was asked to end");
        }
        let refused = worker.forked && !worker.told.spawned;
        let restarted = match self.options.restart.restart {
            _ if refused => false,
            Restart::Always => true,
            Restart::OnCrash => ended != Some(Ended::Code(0)),
            Restart::Never => false,
        };
        let others = |(other, it): (&WorkerId, &Worker)| {
            *other != id
                && it.slot == slot
                && !it.told.exited
                && !self.supervisor.is_leaving(*other)
        };
        let alone = !self.workers.iter().any(others);
        if !restarted && !wanted && alone {
            self.wanted.remove(&slot);
        }
    }

    fn bind(&mut self, key: Key, asked: Address, reuse_port: bool) {
        assert!(self.keys.insert(key), "a key is bound once");
        if self.faults && self.chance(20) {
            let errno = if self.chance(50) { 98 } else { 13 };
            return self.answers.push_back(Input::Bound { key, result: Err(errno) });
        }
        let mut bound = asked;
        if let Address::Tcp { address, .. } | Address::Udp { address, .. } = &mut bound {
            if address.port() == 0 {
                address.set_port(self.next_port);
                self.next_port += 1;
            }
        }
        let datagram = bound.is_datagram();
        assert!(self.ports.values().all(|port| port.address != bound), "{bound} is in use");
        let (address, backlog) = (bound.clone(), VecDeque::new());
        let group = reuse_port && !self.chance(20);
        let (on, closing, doors) = (false, false, BTreeMap::new());
        let port = Port { on, datagram, address, closing, backlog, group, listens: !group, doors };
        self.ports.insert(key, port);
        self.answers.push_back(Input::Bound { key, result: Ok(bound) });
    }

    fn unbind(&mut self, key: Key, drain: bool) {
        let port = self.ports.get_mut(&key).expect("closes an open port");
        assert!(!port.closing, "closed once");
        self.ending.given_up.insert(key, self.now);
        if drain {
            port.closing = true;
            return;
        }
        let port = self.ports.remove(&key).expect("just seen");
        let doors = port.doors.into_values().flat_map(|door| door.backlog);
        for connection in port.backlog.into_iter().chain(doors) {
            self.fates[connection] = Fate::Reset;
        }
        self.answers.push_back(Input::Unbound { key });
    }

    fn grant(&mut self, id: WorkerId, request: u32, result: Result<Grant, i32>) {
        let breaks = self.faults && self.chance(5);
        let refuses = self.faults && self.chance(10);
        let worker = self.workers.get_mut(&id).unwrap();
        assert!(worker.unanswered.remove(&request), "answered once");
        let Ok(Grant { key, how, counts_closed, .. }) = result else {
            // A program without its port ends, most of the time.
            if refuses || worker.told_to_finish {
                return;
            }
            return self.die(id, Ended::Code(1));
        };
        assert!(self.ports.contains_key(&key), "grants an open port");
        if breaks {
            // No descriptor left for the queue.
            return self.answers.push_back(Input::ListenerClosed { worker: id, key });
        }
        if how != Access::Shared {
            self.open_for(id, key, how);
            if self.workers[&id].told.listening_ever.contains(&key) {
                self.saw("granted again");
            }
            let old = self.queues.insert((id, key), Queue::default());
            assert!(old.is_none(), "a queue has one life");
            if counts_closed {
                let closed_counter = Arc::new(EndCount::default());
                self.closed_counter.insert((id, key), closed_counter.clone());
                self.answers.push_back(Input::Counts { worker: id, key, closed_counter });
            }
        }
        let worker = self.workers.get_mut(&id).unwrap();
        if worker.running && worker.channel_open {
            worker.listeners.insert(key);
            worker.channel.push_back(Input::Listening { worker: id, key });
        }
    }

    /// Opens what its connections come in by.
    fn open_for(&mut self, id: WorkerId, key: Key, how: Access) {
        let port = self.ports.get_mut(&key).unwrap();
        let worker = self.workers.get_mut(&id).unwrap();
        let Access::OwnSocket(slot) = how else {
            port.listens = true;
            return;
        };
        assert!(!worker.node && slot == worker.slot, "{id} has a socket of its own");
        if port.group {
            let new = Door { stands_in: true, backlog: VecDeque::new() };
            port.doors.entry(slot).or_insert(new);
            worker.own.insert(key);
        } else {
            self.saw("not its own");
            self.answers.push_back(Input::NoOwnSocket { worker: id, key });
        }
    }

    fn accept_on_behalf(&mut self, key: Key, slot: SlotId, on: bool) {
        if on {
            self.saw("stood in for");
        }
        // It may be closed, and then there is nothing to stand in for.
        let port = self.ports.get_mut(&key);
        if let Some(door) = port.and_then(|port| port.doors.get_mut(&slot)) {
            assert_ne!(door.stands_in, on, "told once");
            door.stands_in = on;
        }
    }

    /// Nothing is sent to a worker that has not said, or no longer says, that it listens.
    fn check_may_send(&self, id: WorkerId, key: Key) {
        let told = &self.workers[&id].told;
        assert!(told.listening.contains(&key), "{id} listens on {key}");
        assert!(!told.exited && !told.killed, "{id} lives");
        // A worker that finishes may have hung up while its queue is still its own.
        assert!(!told.channel_closed || self.stopping || told.finishing, "{id} is connected");
        assert!(!self.queues[&(id, key)].ended, "{id} {key} has not ended");
        assert!(!self.workers[&id].node || told.send_disconnects == 0, "{id} is not told to go");
    }

    fn send(&mut self, worker: WorkerId, key: Key, connection: usize) {
        assert_eq!(self.fates[connection], Fate::Supervisor);
        self.check_may_send(worker, key);
        self.ledger.held -= 1;
        self.ledger.dispatched += 1;
        let in_flight = self.faults && self.chance(3);
        let gone = self.faults && self.chance(1);
        let queue = self.queues.get_mut(&(worker, key)).unwrap();
        let (refusal, what) = if queue.records.len() >= QUEUE_RECORDS {
            // The channel of a Node worker says nothing when it has room.
            queue.refused = !self.workers[&worker].node;
            (Refusal::Full, "queue full")
        } else if in_flight {
            (Refusal::InFlight, "in flight")
        } else if gone {
            queue.gone = true;
            (Refusal::Gone, "gone")
        } else {
            self.fates[connection] = Fate::Queue;
            queue.records.push_back(Record::Connection(connection));
            let unread = queue.records.iter().filter(|it| matches!(it, Record::Connection(_)));
            let open = self
                .closed_counter
                .get(&(worker, key))
                .map(|count| count.2.load(Ordering::Relaxed));
            let has = unread.count() as u64 + open.unwrap_or(0);
            let max = self.open_max.filter(|_| !self.workers[&worker].node);
            let given_up = self.ending.given_up.contains_key(&key);
            let within = given_up || max.is_none_or(|max| has <= u64::from(max));
            assert!(within, "{worker} has {has} of {key}");
            if self.workers[&worker].node {
                queue.held.push_back(connection);
            }
            return self.check_sends(connection);
        };
        self.saw(what);
        if refusal == Refusal::Gone && self.workers[&worker].node {
            // A channel takes nothing only when it is closed.
            self.hang_up(worker);
        }
        self.fates[connection] = Fate::Coming;
        let connection = Some(connection);
        self.answers.push_back(Input::SendFailed { worker, key, connection, refusal });
    }

    /// Nobody is handed round: each time there is a reason.
    fn check_sends(&mut self, connection: usize) {
        self.sends[connection] += 1;
        let sends = self.sends[connection];
        if sends > 1 {
            self.saw("dispatched again");
        }
        // One that died, hung up or closed its listener, or 100 ms unread.
        let unread = (self.now - self.born).as_millis() as usize / 100;
        // Or a rest that is over, the first of them sooner.
        let rests = if self.nodes > 0 { self.workers.len() * (4 + unread) } else { 0 };
        assert!(sends <= 2 + self.workers.len() + unread + rests, "{connection} is handed round");
    }

    fn reclaim(&mut self, worker: WorkerId, key: Key) {
        if self.workers[&worker].node {
            return self.take_from_the_dead(worker, key);
        }
        let part = self.faults && self.chance(10);
        let queue = self.queues.get_mut(&(worker, key)).expect("takes a queue back");
        let all = queue.records.len();
        let count = if part { all / 2 } else { all };
        let (mut connections, mut probes) = (Vec::new(), 0);
        for record in queue.records.drain(..count) {
            match record {
                Record::Probe => probes += 1,
                Record::Connection(connection) => connections.push(connection),
            }
        }
        if part && all > count {
            self.saw("read in part");
        }
        if count > 0 {
            self.saw("taken back");
        }
        connections.iter().for_each(|connection| self.fates[*connection] = Fate::Coming);
        self.answers.push_back(Input::Reclaimed { worker, key, connections, probes });
    }

    fn take_from_the_dead(&mut self, id: WorkerId, key: Key) {
        let (worker, queue) = (&self.workers[&id], self.queues.get_mut(&(id, key)).unwrap());
        assert!(worker.told.exited || worker.told.channel_closed, "{id} may still answer");
        let answers = |said: &Input<usize>| matches!(said, Input::Answered { .. });
        assert!(!worker.channel.iter().any(answers), "{id} has answered");
        queue.records.clear();
        let connections: Vec<usize> = queue.held.drain(..).collect();
        connections.iter().for_each(|it| {
            let before = std::mem::replace(&mut self.fates[*it], Fate::Coming);
            assert_eq!(before, Fate::Queue, "{id} has used {it}");
        });
        self.saw("taken back from the dead");
        self.answers.push_back(Input::Reclaimed { worker: id, key, connections, probes: 0 });
    }

    fn close(&mut self, connection: usize, reason: CloseReason) {
        assert_eq!(self.fates[connection], Fate::Supervisor);
        self.fates[connection] = Fate::Closed;
        self.saw(match reason {
            CloseReason::Shutdown => "closed: shutdown",
            CloseReason::Overflow => "closed: overflow",
            CloseReason::NotListening => "closed: not listening",
        });
        self.ledger.held -= 1;
        self.ledger.closed[reason as usize] += 1;
        assert_eq!(
            reason == CloseReason::Shutdown,
            self.stopping && reason != CloseReason::Overflow
        );
        if reason == CloseReason::Shutdown {
            self.check_nobody_could(connection);
        }
    }

    /// In a shutdown nobody is closed whom a worker could still be given, while there is time.
    fn check_nobody_could(&self, connection: usize) {
        let (key, half) = (self.homes[connection], self.options.disconnect / 2);
        let slow = self.ending.given_up.get(&key).is_some_and(|at| self.now >= *at + half);
        if self.ending.aborting || slow {
            return;
        }
        let serves = |(id, worker): &(&WorkerId, &Worker)| {
            let told = &worker.told;
            let queue = self.queues.get(&(**id, key));
            let open = queue.is_some_and(|queue| !queue.ended && !queue.gone);
            let alive = !told.exited && !told.channel_closed && !told.killed;
            let alive = alive && told.send_disconnects == 0;
            open && alive && told.listening.contains(&key)
        };
        let able = self.workers.iter().find(serves).map(|(id, _)| id);
        assert_eq!(able, None, "{connection} of {key} could be given to it");
    }

    /// What the workers had is what all had, as long as all are remembered.
    fn check_shares(&self) {
        let shares = self.workers.keys().map(|id| self.supervisor.worker_counters(*id));
        let Some(shares) = shares.collect::<Option<Vec<_>>>() else { return };
        let sum = self.supervisor.counters();
        let total = |part: fn(&WorkerCounters) -> u64| shares.iter().map(part).sum::<u64>();
        assert_eq!(total(|share| share.dispatched), sum.dispatched);
        assert_eq!(total(|share| share.reclaimed), sum.reclaimed);
        assert_eq!(total(|share| share.re_dispatched), sum.re_dispatched);
    }

    /// Where we do not accept, somebody does.
    fn check_doors(&self) {
        for (key, port) in &self.ports {
            for (slot, _) in port.doors.iter().filter(|(_, door)| !door.stands_in) {
                let mut there = self.workers.values().filter(|worker| worker.slot == *slot);
                let accepts = there.any(|worker| {
                    let listens = worker.own.contains(key) && worker.told.listening.contains(key);
                    listens && !worker.told.exited
                });
                assert!(accepts, "nobody accepts from {slot} of {key}");
            }
        }
    }

    /// The counters say what the ledger says.
    fn check(&self) {
        let (sum, ledger) = (self.supervisor.counters(), &self.ledger);
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
        assert_eq!(sum.accepted, ledger.accepted);
        assert_eq!(sum.dispatched, ledger.dispatched);
        assert_eq!(sum.reclaimed, ledger.reclaimed);
        assert_eq!(sum.waiting, ledger.held);
        assert!(sum.re_dispatched <= sum.reclaimed.min(sum.dispatched));
        let closed = [sum.closed_shutdown, sum.closed_overflow, sum.closed_not_listening];
        assert_eq!(closed, ledger.closed);
        self.check_doors();
        if self.workers.len() < 8 {
            self.check_shares();
        }
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
