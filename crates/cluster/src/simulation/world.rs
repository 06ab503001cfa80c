//! The phases of a world, and the choice of what happens next.

use super::*;

impl World {
    pub(super) fn new(seed: u64) -> Self {
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
    pub(super) fn apply(&mut self) {
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
    pub(super) fn rest(&mut self) {
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
    pub(super) fn end(&mut self) {
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

    pub(super) fn come_to_rest(&mut self) {
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
    pub(super) fn progress(&mut self) -> bool {
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
    pub(super) fn happen(&mut self) {
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

    pub(super) fn tick_if_due(&mut self) {
        if self.supervisor.deadline().is_some_and(|deadline| deadline <= self.now) {
            self.tick();
        }
    }

    pub(super) fn tick(&mut self) {
        // What a dead Node worker had said is heard before it is given up.
        for id in self.workers.keys().copied().collect::<Vec<_>>() {
            while self.workers[&id].node && self.workers[&id].told.exited && self.receive(id) {}
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
        // The youngest have most to say.
        let among = self.workers.len().min(8);
        let skip = self.below(among.max(1));
        self.workers.keys().rev().nth(skip).copied()
    }

    pub(super) fn any_port(&mut self) -> Option<Key> {
        let nth = self.below(self.ports.len().max(1));
        self.ports.keys().nth(nth).copied()
    }
}

fn below(rng: &mut Rng, end: usize) -> usize {
    usize::try_from(rng.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
}

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}
