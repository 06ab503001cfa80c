//! Hostile workers beside honest ones: every message of the protocol at random, and all else that a
//! process can do with its channel. The primary stays small, and serves the honest ones' clients.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cluster::{Event, Policy, Primary, WorkerOptions};
use ipc::Handle;
use sys::memory::Counters;

use crate::harness::{apply, role, storm};
use crate::support::hostile_worker::{self as hostile, ToPrimary, header, tcp};
use crate::support::http::{self, Outcome};
use crate::support::random::Random;
use crate::support::{storm_time, wait};

/// The most memory that the primary may have beyond its memory at the start.
const GROWTH_MAX: u64 = 32 << 20;
/// The descriptors that the primary may open, and how many of them hostile workers may take up.
const DESCRIPTORS: u64 = 1024;
const DESCRIPTORS_TAKEN_MAX: usize = 512;
/// The hostile workers at one time.
const HOSTILE: u32 = 3;
/// The lengths at which limits are, and one more.
const LENGTHS: [usize; 9] = [0, 1, 107, 108, 255, 256, 4096, 4097, 70_000];
const KEYS: [u64; 6] = [0, 1, 2, 3, u32::MAX as u64, u64::MAX];

/// `hostile_worker SEED BUSY`: breaks the protocol at random; `BUSY` is a port in use.
#[apply(role)]
fn hostile_worker(args: &[String]) {
    let seed: u64 = args[0].parse().expect("a number");
    let busy = args[1].parse().expect("a port");
    let mut random = Random::seeded(seed ^ (u64::from(std::process::id()) << 20));
    let mut hostile = Hostile { primary: hostile::Primary::take(), random, busy };
    random = Random::seeded(hostile.random.next());
    if !random.one_in(8) {
        hostile.primary.read();
    }
    if !random.one_in(16) {
        hostile.primary.say(&ToPrimary::Online);
    }
    for _ in 0..1 + random.below(20) {
        hostile.act();
    }
    // Not every life ends by a breach.
    wait(Duration::from_millis(random.next() % 50));
}

struct Hostile {
    primary: hostile::Primary,
    random: Random,
    busy: u16,
}

impl Hostile {
    fn act(&mut self) {
        match self.random.below(16) {
            0..=1 => self.say_anything(),
            2 => self.write_garbage(),
            3 => self.write_header(),
            4 => self.write_half_a_frame(),
            5 => self.send_descriptors(),
            6 => self.fail_to_listen(),
            7..=8 => self.listen_and_close(),
            9 => self.ask_and_not_read(),
            10 => self.listen_alone(),
            11 => self.write_into_the_page(),
            12 => self.send_long_messages(),
            _ => self.listen(),
        }
    }

    fn key(&mut self) -> u64 {
        *self.random.pick(&KEYS)
    }

    fn length(&mut self) -> usize {
        *self.random.pick(&LENGTHS)
    }

    fn address(&mut self) -> hostile::Address {
        let (kind, length) = (self.random.below(8), self.length());
        let bytes = vec![b'x'; length];
        let path = [b"/dev/null/".as_slice(), &bytes].concat();
        let name = [format!("brood-{}-", std::process::id()).as_bytes(), &bytes].concat();
        match kind {
            0..=2 => tcp(0),
            3 => tcp(self.busy),
            4 => hostile::Address::UnixPath(path),
            5 => hostile::Address::DatagramPath(path),
            6 => hostile::Address::UnixAbstract(name),
            _ => hostile::Address::DatagramAbstract(name),
        }
    }

    fn options(&mut self) -> hostile::ListenOptions {
        let data = self.random.one_in(4).then(|| vec![0; self.length()]);
        let max_connections = [None, None, Some(0), Some(1), Some(u32::MAX)];
        hostile::ListenOptions {
            backlog: self.random.next() as u32,
            exclusive: self.random.one_in(2),
            reuse_address: self.random.one_in(2),
            max_connections: *self.random.pick(&max_connections),
            data,
            ..Default::default()
        }
    }

    fn say_anything(&mut self) {
        let message = match self.random.below(8) {
            0 => ToPrimary::Online,
            1 => ToPrimary::ListensAlone { address: self.address() },
            2 => ToPrimary::Listening { key: self.key() },
            3 => ToPrimary::Close { key: self.key() },
            4 => ToPrimary::HasRoom { key: self.key() },
            5 => ToPrimary::Disconnect,
            6 => ToPrimary::Unknown { number: self.random.next() },
            _ => {
                let (address, options) = (self.address(), self.options());
                return self.primary.request(address, options);
            }
        };
        self.primary.say(&message);
    }

    fn write_garbage(&mut self) {
        let count = 1 + self.random.below(4000);
        let bytes: Vec<u8> = (0..count).map(|_| self.random.next() as u8).collect();
        self.primary.write(&bytes, &[]);
    }

    fn write_header(&mut self) {
        let kind = *self.random.pick(&[0, 1, 2, 3, 4, 16, 17, 255]);
        let handles = *self.random.pick(&[0, 1, 253, 254, 255]);
        let lengths = [0, 1, (16 << 20) - 1, 16 << 20, (16 << 20) + 1, u32::MAX];
        self.primary.write(&header(kind, handles, *self.random.pick(&lengths)), &[]);
    }

    /// Announces descriptors, sends them with half a frame, and keeps the frame unfinished.
    fn write_half_a_frame(&mut self) {
        let count = *self.random.pick(&[1, 100, 253]);
        let descriptors = descriptors(count);
        let kind = *self.random.pick(&[2, 3]);
        self.primary.write(&header(kind, descriptors.len() as u8, 1 << 20), &descriptors);
        wait(Duration::from_millis(self.random.next() % 300));
    }

    fn send_descriptors(&mut self) {
        for _ in 0..1 + self.random.below(20) {
            let count = *self.random.pick(&[1, 10, 200]);
            let handles: Vec<_> = descriptors(count).into_iter().map(Handle::new).collect();
            self.primary.send(&handles);
        }
    }

    fn fail_to_listen(&mut self) {
        for _ in 0..3000 {
            self.primary.request(tcp(self.busy), hostile::ListenOptions::default());
        }
    }

    /// Listens and closes in turns, as an honest worker might.
    fn listen_and_close(&mut self) {
        for number in 0..200 {
            let name = format!("brood-{}-l{}", std::process::id(), number % 300);
            let address = match self.random.below(2) {
                0 => tcp(0),
                _ => hostile::Address::UnixAbstract(name.into()),
            };
            self.primary
                .request(address, hostile::ListenOptions { backlog: 1, ..Default::default() });
            let Some(Ok(grant)) = self.primary.answer() else { return };
            if !self.random.one_in(4) {
                self.primary.say(&ToPrimary::Listening { key: grant.key });
            }
            self.primary.say(&ToPrimary::Close { key: grant.key });
        }
    }

    /// Requests addresses without end and reads no answer.
    fn ask_and_not_read(&mut self) {
        for number in 0..2000 {
            let name = format!("brood-{}-l{}", std::process::id(), number % 300);
            let address = hostile::Address::UnixAbstract(name.into());
            self.primary
                .request(address, hostile::ListenOptions { backlog: 1, ..Default::default() });
        }
    }

    fn listen_alone(&mut self) {
        for _ in 0..2000 {
            let port = self.random.next() as u16;
            self.primary.say(&ToPrimary::ListensAlone { address: tcp(port) });
        }
    }

    /// Gets a listener, and writes anything into the page that it shares with the primary.
    fn write_into_the_page(&mut self) {
        let options =
            hostile::ListenOptions { backlog: 1, max_connections: Some(2), ..Default::default() };
        self.primary.request(tcp(0), options);
        let Some(Ok(mut grant)) = self.primary.answer() else { return };
        self.primary.say(&ToPrimary::Listening { key: grant.key });
        let Some(page) = grant.page.take() else { return };
        let Ok(page) = Counters::map(page.into_inner().as_fd()) else { return };
        for _ in 0..500 {
            let value = *self.random.pick(&[0, 1, 2, 3, u64::MAX / 2, u64::MAX]);
            page.swap(self.random.below(6), value);
            self.primary.say(&ToPrimary::HasRoom { key: grant.key });
        }
    }

    fn send_long_messages(&mut self) {
        for _ in 0..self.random.below(20) {
            let length = *self.random.pick(&[0, 100, 65_536, 1 << 20]);
            self.primary.send(&vec![0u8; length]);
        }
    }

    fn listen(&mut self) {
        let (address, options) = (self.address(), self.options());
        self.primary.request(address, options);
    }
}

/// Returns this many descriptors, or as many as this process may open.
fn descriptors(count: usize) -> Vec<OwnedFd> {
    let open = || File::open("/dev/null").ok().map(OwnedFd::from);
    std::iter::from_fn(open).take(count).collect()
}

/// The memory of this process that is neither shared nor a file.
fn memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").expect("a status");
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).expect("a line");
    let kib: u64 = line.trim().trim_end_matches(" kB").parse().expect("a number");
    kib << 10
}

/// The counts of a storm.
#[derive(Debug, Default)]
struct Figures {
    answered: AtomicU64,
    wrong: Mutex<Vec<String>>,
    lives: AtomicU64,
    violations: AtomicU64,
    errors: AtomicU64,
    grown: AtomicU64,
    descriptors: AtomicU64,
}

impl Figures {
    fn ask(&self, address: std::net::SocketAddr) {
        match http::get(address).outcome {
            Outcome::Answered { .. } => _ = self.answered.fetch_add(1, Ordering::Relaxed),
            other => self.wrong.lock().expect("lock").push(format!("{other:?}")),
        }
    }

    fn count(&self, event: &Event) {
        match event {
            Event::Fork { .. } => _ = self.lives.fetch_add(1, Ordering::Relaxed),
            Event::Violation { .. } => _ = self.violations.fetch_add(1, Ordering::Relaxed),
            Event::Error { .. } => _ = self.errors.fetch_add(1, Ordering::Relaxed),
            _ => {}
        }
    }

    fn measure(&self, before: (u64, usize)) {
        self.grown.fetch_max(memory().saturating_sub(before.0), Ordering::Relaxed);
        let open = sys::fd::open_descriptors().map_or(0, |open| open.len());
        self.descriptors.fetch_max(open.saturating_sub(before.1) as u64, Ordering::Relaxed);
    }
}

/// Three workers break the protocol in every way, for as long as the storm lasts: the primary
/// stays small, and no client of the two honest workers notices.
#[apply(storm)]
fn hostile_workers_cost_their_primary_little_and_other_clients_nothing() {
    let mut random = Random::new();
    sys::rlimit::set_descriptors(DESCRIPTORS).expect("lower");
    let busy = TcpListener::bind("127.0.0.1:0").expect("bind");
    let port = busy.local_addr().expect("bound").port().to_string();
    let policy = *random.pick(&[Policy::RoundRobin, Policy::LeastLoaded, Policy::ReusePort]);
    let primary = Primary::builder()
        .workers(2)
        .policy(policy)
        .raise_descriptors(false)
        .restart_delay(Duration::from_millis(5), Duration::from_millis(5))
        .worker(WorkerOptions::new().args(["role", "cluster_worker", "127.0.0.2:0", "0"]))
        .build()
        .expect("build");
    let events = primary.take_events().expect("taken once");
    primary.start();
    primary.ready().expect("ready");
    let address = events.try_iter().find_map(|event| match event {
        Event::Listening { address: cluster::Address::Tcp { address, .. }, .. } => Some(address),
        _ => None,
    });
    let address = address.expect("the workers listen");
    let figures = Figures::default();
    (0..20).for_each(|_| figures.ask(address));
    let before = (memory(), sys::fd::open_descriptors().expect("list").len());
    for _ in 0..HOSTILE {
        let seed = random.next().to_string();
        let args = ["role", "hostile_worker", &seed, &port];
        primary.fork(WorkerOptions::new().args(args)).expect("fork");
    }
    let (until, stop) = (Instant::now() + storm_time(5, 15), AtomicBool::new(false));
    thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    figures.ask(address);
                }
            });
        }
        while Instant::now() < until {
            if let Ok(event) = events.recv_timeout(Duration::from_millis(5)) {
                figures.count(&event);
                events.try_iter().for_each(|event| figures.count(&event));
            }
            figures.measure(before);
        }
        stop.store(true, Ordering::Relaxed);
    });
    let counters = primary.counters();
    primary.shutdown();
    primary.wait().expect("ended without a failure");
    println!("{policy:?}: {figures:?}; {counters:?}");
    assert_eq!(*figures.wrong.lock().expect("lock"), Vec::<String>::new());
    assert!(counters.violations > 0, "hostile workers are ended");
    let (grown, taken) = (figures.grown.into_inner(), figures.descriptors.into_inner());
    assert!(grown < GROWTH_MAX, "{grown} bytes");
    assert!((taken as usize) < DESCRIPTORS_TAKEN_MAX, "{taken} descriptors");
}
