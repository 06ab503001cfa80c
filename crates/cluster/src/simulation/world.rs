//! The phases of a world, and the choice of what happens next.

use super::*;

impl World {
    /// Makes a world whose options, program and faults depend on the seed alone.
    pub(super) fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed);
        let mut options = random_options(&mut rng);
        let mut pick = |choices: &[u64]| choices[below(&mut rng, choices.len())];
        let node_percent = pick(&[0, 0, 50, 100]) as usize;
        let addresses = ["127.0.0.1:80", "127.0.0.1:0", "127.0.0.1:0", "[::1]:81"];
        let program = match pick(&[0, 1, 2, 3, 4, 5]) {
            0 => &addresses[..0],
            1 => &addresses[..],
            2 => &addresses[1..3],
            _ => &addresses[..1],
        };
        options.listens_after = match pick(&[0, 1, 2, 3]) {
            0 if !program.is_empty() => None,
            1 => Some(500 * MS),
            2 => Some(10_000 * MS),
            _ => Some(Duration::ZERO),
        };
        options.asks_permission = seed % 3 == 0;
        let nobody = Credentials { uid: Some(65_534), gid: None, groups: None };
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
            credentials: Some(nobody).filter(|_| seed % 2 == 0),
            node_percent,
            ready: false,
            stopping: false,
            shutdown: ShutdownState::default(),
            finished: false,
            start_failed: false,
            wanted: BTreeSet::new(),
            program,
            answers: VecDeque::new(),
            bound: BTreeMap::new(),
            keys: BTreeSet::new(),
            next_port: 4000,
            queues: BTreeMap::new(),
            pages: BTreeMap::new(),
            open_max: [None, None, Some(1), Some(3)][seed as usize % 4],
            workers: BTreeMap::new(),
            fates: Vec::new(),
            arrival_keys: Vec::new(),
            ledger: Ledger::default(),
            out: Vec::new(),
            sends: Vec::new(),
            started_at: now,
            ready_due: false,
            reloads: BTreeSet::new(),
            reload_on_signal: false,
            claims: BTreeMap::new(),
            closed_by_user: BTreeSet::new(),
            closures_due: 0,
            holders: BTreeMap::new(),
            last_number: 0,
            forking: false,
            breaking: None,
            disconnecting_all: BTreeMap::new(),
            disconnected_all: false,
            seen: BTreeMap::new(),
            is_replay: std::env::var_os("SEED").is_some(),
        }
    }

    /// Lets random things happen.
    pub(super) fn run(&mut self) {
        let gentle_start = !self.chance(30);
        let slots = self.below(6) as u32;
        self.step(Input::Scale(slots));
        let steps = 100 + self.below(1500);
        for _ in 0..steps {
            self.faults = !gentle_start || self.ready;
            self.do_any();
            if self.finished {
                return;
            }
        }
    }

    /// Lets everything that is due happen without further faults, and checks that nothing is left.
    pub(super) fn check_at_rest(&mut self) {
        self.faults = false;
        for worker in self.workers.values_mut() {
            worker.frozen = false;
            worker.full = false;
        }
        self.run_until_idle();
        if self.stopping {
            return;
        }
        assert_eq!(self.supervisor.deadline(), None, "idle without a deadline");
        assert!(self.reloads.is_empty() && !self.reload_on_signal, "a reload ends");
        assert!(self.disconnecting_all.is_empty(), "workers that were to exit are gone");
        // Without a time limit, a worker that has not listened yet may still request any address.
        let mut running = self.workers.values().filter(|worker| worker.running);
        let coming = running.any(|worker| worker.history.listening_ever.is_empty());
        let listens = self.options.listens_after.is_none();
        if !listens || !coming {
            self.check_all_bound_are_served();
            assert_eq!(self.supervisor.counters().waiting, 0, "no connection waits");
            for (key, bound) in &self.bound {
                assert!(bound.backlog.is_empty(), "key {key} is accepted from");
                let left = bound.slot_sockets.iter().find(|(_, socket)| !socket.backlog.is_empty());
                assert!(left.is_none(), "key {key} is accepted from at {left:?}");
            }
        }
        for (id, worker) in &self.workers {
            assert!(
                worker.pending_requests.is_empty() || !worker.running,
                "{id} waits for a grant"
            );
        }
        if self.options.restart.restart == Restart::Always {
            let running = self.workers.values().filter(|worker| worker.running);
            let slots: BTreeSet<SlotId> = running.map(|worker| worker.slot).collect();
            assert_eq!(slots, self.wanted, "slots are filled");
            let reported = !self.ready_due || self.wanted.is_empty();
            assert!(reported || listens, "readiness is reported");
        }
    }

    /// Shuts the primary down and checks that it finishes in bounded time, whatever the workers do.
    pub(super) fn shut_down(&mut self) {
        self.faults = self.chance(50);
        let (begun, jumps) = (self.now, self.faults);
        let abort = self.chance(20);
        self.step(if abort { Input::Abort } else { Input::Shutdown });
        for _ in 0..self.below(60) {
            if !self.finished {
                self.do_any();
            }
        }
        self.faults = false;
        self.run_until_idle();
        assert!(self.finished, "the shutdown ended");
        let SupervisorOptions { disconnect, term, disconnect_node, term_node, .. } = self.options;
        let starting = self.workers.values().any(|worker| worker.start_hangs);
        let start = if starting { self.options.start + 5000 * MS } else { Duration::ZERO };
        let times = start + disconnect.max(disconnect_node) + term.max(term_node) + 3000 * MS;
        assert!(jumps || self.now - begun <= times, "the shutdown took {:?}", self.now - begun);
        assert_eq!(self.supervisor.deadline(), None);
        assert!(
            self.bound.is_empty() && self.queues.is_empty(),
            "all sockets and queues are closed"
        );
        assert_eq!(self.supervisor.counters().waiting, 0);
        for (id, worker) in &self.workers {
            let spawned = u32::from(worker.history.spawned);
            assert!(!worker.running, "{id} has exited");
            assert_eq!(worker.history.forks, spawned, "{id} fork");
            assert_eq!(worker.history.exits, spawned, "{id} exit");
            assert_eq!(worker.history.disconnects, spawned, "{id} disconnect");
        }
        for (id, fate) in self.fates.iter().enumerate() {
            assert!(
                matches!(fate, Fate::Delivered | Fate::Closed | Fate::Reset),
                "connection {id} is {fate:?}"
            );
        }
    }

    /// Lets everything that is due happen, and lets time pass, until nothing is due any more.
    fn run_until_idle(&mut self) {
        for _ in 0..STEPS_MAX {
            if self.do_next() {
                continue;
            }
            let Some(deadline) = self.supervisor.deadline() else {
                // Without a deadline only a closed connection can make room for a waiting one.
                if self.close_any() {
                    continue;
                }
                return;
            };
            self.now = self.now.max(deadline);
            self.tick();
        }
        panic!("something is still due after {STEPS_MAX} steps");
    }

    /// Lets the first thing that is due happen. Returns `false` when nothing is due.
    fn do_next(&mut self) -> bool {
        if let Some(answer) = self.answers.pop_front() {
            self.step(answer);
            return true;
        }
        if self.finished {
            return false;
        }
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            if self.start_process(id)
                || self.worker_acts(id)
                || self.receive(id)
                || self.report_exit(id)
            {
                return true;
            }
        }
        for key in self.bound.keys().copied().collect::<Vec<_>>() {
            if self.accept(key) {
                return true;
            }
        }
        false
    }

    /// Lets one random thing happen.
    fn do_any(&mut self) {
        let id = self.any_worker();
        match self.below(100) {
            0..=29 => {
                if let Some(answer) = self.answers.pop_front() {
                    self.step(answer);
                }
            }
            30..=37 => drop(id.map(|id| self.start_process(id))),
            38..=54 => drop(id.map(|id| self.worker_acts(id))),
            55..=65 => drop(id.map(|id| self.receive(id))),
            66 => _ = self.close_any(),
            67..=69 => drop(id.map(|id| self.report_exit(id))),
            70..=79 => self.connect_clients(),
            80 => self.report_unaccepted(),
            81..=86 => {
                if let Some(key) = self.any_key() {
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

    pub(super) fn tick_if_due(&mut self) {
        if self.supervisor.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tick();
        }
    }

    fn tick(&mut self) {
        // The driver reads a Node worker's channel to its end before a tick can close it.
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            while self.workers[&id].node && self.workers[&id].history.exited && self.receive(id) {}
        }
        self.step(Input::Tick);
        let deadline = self.supervisor.deadline();
        assert!(deadline.is_none_or(|at| at > self.now), "a tick moves the deadline on");
    }

    pub(super) fn chance(&mut self, percent: usize) -> bool {
        self.below(100) < percent
    }

    pub(super) fn below(&mut self, end: usize) -> usize {
        below(&mut self.rng, end)
    }

    pub(super) fn any_worker(&mut self) -> Option<WorkerId> {
        // The youngest workers have most to do.
        let among = self.workers.len().min(8);
        let skip = self.below(among.max(1));
        self.workers.keys().rev().nth(skip).copied()
    }

    pub(super) fn any_key(&mut self) -> Option<Key> {
        let nth = self.below(self.bound.len().max(1));
        self.bound.keys().nth(nth).copied()
    }
}

fn random_options(rng: &mut Rng) -> SupervisorOptions {
    let mut pick = |choices: &[u64]| choices[below(rng, choices.len())];
    let disconnect = pick(&[0, 200, 5000]);
    let mut options = SupervisorOptions {
        window: u32::try_from(pick(&[1, 2, 3, 8, 64])).unwrap(),
        waiting: usize::try_from(pick(&[1, 3, 1024])).unwrap(),
        unresponsive: pick(&[300, 2000, 30_000]) as u32 * MS,
        unresponsive_node: pick(&[200, 5000]) as u32 * MS,
        disconnect: disconnect as u32 * MS,
        ready: pick(&[300, 30_000]) as u32 * MS,
        start: pick(&[1000, 10_000]) as u32 * MS,
        term: pick(&[0, 100, 2000]) as u32 * MS,
        disconnect_node: (disconnect + pick(&[0, 200, 5000])) as u32 * MS,
        term_node: pick(&[0, 100, 2000]) as u32 * MS,
        sigterm_node: [None, Some(50 * MS)][pick(&[0, 1]) as usize],
        ..SupervisorOptions::default()
    };
    options.policy = POLICIES[pick(&[0, 1, 2, 3, 4]) as usize];
    options.restart.restart = [Restart::Always, Restart::Always, Restart::OnCrash, Restart::Never]
        [pick(&[0, 1, 2, 3]) as usize];
    options.restart.burst = pick(&[0, 1, 5]) as u32;
    options
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
