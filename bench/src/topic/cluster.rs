//! Worker processes on one port, beside other ways to use all processors.

use std::cell::RefCell;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::context::{Contender, Context};
use crate::load::{self, Connections, Load};
use crate::report::{Measure, Role, Topic, Unit};
use crate::server;
use crate::stats::Better;

const CLIENTS: usize = 32;
const WORKERS: u32 = 4;
const KILL: &str = "From the kill of a worker to the first answer of its replacement";

/// The servers: what they are called, what they are to us, which role they play, how they work.
const NATIVE: [(&str, Role, &str, Kind); 5] = [
    ("brood, round robin", Role::Ours, "brood", Kind::Dealt),
    ("brood, shared listener", Role::Ours, "brood-none", Kind::Workers),
    ("one process, threads", Role::Peer, "threads", Kind::Threads),
    ("processes, plain shared listener", Role::Peer, "shared", Kind::Workers),
    ("processes, SO_REUSEPORT", Role::Peer, "reuse-port", Kind::Workers),
];

/// How a server is built.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A primary accepts, and deals the connections to its workers.
    Dealt,
    /// Workers accept for themselves.
    Workers,
    /// One process.
    Threads,
}

/// What one load on one server has shown.
#[derive(Debug)]
struct Seen {
    load: Load,
    /// Nanoseconds of processor time, of the first process and of all.
    first: f64,
    all: f64,
}

impl Seen {
    /// How far the workers' shares lie apart, as a part of the mean.
    fn unevenness(&self) -> f64 {
        let counts: Vec<f64> = self.load.by_worker.values().map(|&n| n as f64).collect();
        let most = counts.iter().copied().fold(0.0, f64::max);
        let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
        // A worker that never answered has no count at all.
        let least = if counts.len() < WORKERS as usize { 0.0 } else { least };
        (most - least) / (self.load.requests as f64 / f64::from(WORKERS))
    }
}

/// A figure of a round, if servers of this kind have it.
type Value = fn(Kind, &Seen) -> Option<f64>;

pub fn run(context: &Context) -> Topic {
    let script = super::script_file("cluster", include_str!("../peers/cluster.js"));
    let mut servers: Vec<Lane> = NATIVE
        .iter()
        .map(|&(name, role, server, kind)| Lane::new(name, role, kind, Server::native(server)))
        .collect();
    let file = context.node.clone().and_then(|_| script.as_ref().map_err(ToString::to_string));
    let ours = file.clone().and_then(|file| Server::native_with("brood-node", &[file]));
    let theirs = file
        .and_then(|file| Server::start(Command::new("node").args([file, &WORKERS.to_string()])));
    servers.push(Lane::new("brood, Node workers", Role::Ours, Kind::Dealt, ours));
    servers.push(Lane::new("Node cluster", Role::Peer, Kind::Dealt, theirs));
    servers.push(Lane::new("nginx", Role::Peer, Kind::Workers, nginx()));
    let mut measures = Vec::new();
    let per_second: Value = |_, seen| Some(seen.load.requests as f64 / seen.load.seconds);
    let each: Value = |_, seen| Some(seen.all / seen.load.requests as f64);
    let first: Value =
        |kind, seen| (kind == Kind::Dealt).then(|| seen.first / seen.load.requests as f64);
    let uneven: Value = |kind, seen| (kind != Kind::Threads).then(|| seen.unevenness());
    let (lower, higher) = (Better::Lower, Better::Higher);
    let mut take = |title: &str, unit, better, value, from: Option<Connections>| {
        let mut measure = Measure::new(title, unit, better);
        if let Some(connections) = from {
            servers.iter().for_each(Lane::forget);
            load_in_turn(context, title, connections, &servers);
        }
        let replayed = servers.iter().map(|lane| lane.replay(value)).collect();
        measure.rows.push(context.compare("cluster", ("", 0.0), better, replayed));
        measures.push(measure);
    };
    take("Kept-alive requests", Unit::PerSecond, higher, per_second, Some(Connections::Kept));
    take("Processor time per kept-alive request", Unit::Nanoseconds, lower, each, None);
    take("New connections", Unit::PerSecond, higher, per_second, Some(Connections::New));
    take("Processor time per new connection", Unit::Nanoseconds, lower, each, None);
    take("Processor time of the primary per new connection", Unit::Nanoseconds, lower, first, None);
    take("Unevenness of new connections", Unit::Part, lower, uneven, None);
    take("Failed requests", Unit::Count, lower, |_, seen| Some(seen.load.failed as f64), None);
    let mut replaced = Measure::new(KILL, Unit::Nanoseconds, lower);
    let rounds = servers.iter().map(Lane::replaces).collect();
    replaced.rows.push(context.compare("cluster, kill", ("", 0.0), lower, rounds));
    measures.push(replaced);
    drop(servers);
    if let Ok(file) = script {
        let _ = std::fs::remove_file(file);
    }
    Topic {
        name: "cluster".to_owned(),
        title: "Workers on one port".to_owned(),
        notes: notes(),
        measures,
    }
}

/// It is named, and not measured yet.
fn nginx() -> Result<Server, String> {
    match Command::new("nginx").arg("-v").stderr(Stdio::null()).status() {
        Ok(_) => Err("installed, but this topic does not drive it".to_owned()),
        Err(error) => Err(format!("not installed ({error})")),
    }
}

fn notes() -> Vec<String> {
    vec![
        format!(
            "{WORKERS} workers answer `GET /` with a line, over axum; Node's over `http`. \
             The Node workers under our primary run the same script as Node's cluster. \
             {CLIENTS} clients of our own load generator (one thread) send the next request when \
             they have the answer. `one process, threads` has {WORKERS} threads."
        ),
        "With few processors the clients decide the rate. The processor time of the server's \
         processes, taken from the scheduler's books, does not depend on that. Unevenness is the \
         distance between the busiest and the idlest worker, as a part of the mean."
            .to_owned(),
    ]
}

/// All rounds of one kind of load, the servers in turn. The rounds are kept, and read by each
/// measure: one load gives all its figures.
fn load_in_turn(context: &Context, title: &str, connections: Connections, servers: &[Lane]) {
    let time = Duration::from_millis(context.pick(300, 1000));
    let rounds = context.rounds() + 1;
    for round in 0..rounds {
        for place in 0..servers.len() {
            let place = if round % 2 == 0 { place } else { servers.len() - 1 - place };
            let lane = &servers[place];
            let step = round * servers.len() + place;
            context.progress.show("cluster", title, lane.name, step, rounds * servers.len());
            lane.load(time, connections);
        }
    }
}

/// A server with what it has shown.
struct Lane {
    name: &'static str,
    role: Role,
    kind: Kind,
    server: Result<Server, String>,
    seen: RefCell<Vec<Result<Seen, String>>>,
}

impl Lane {
    fn new(name: &'static str, role: Role, kind: Kind, server: Result<Server, String>) -> Self {
        Self { name, role, kind, server, seen: RefCell::default() }
    }

    fn forget(&self) {
        self.seen.borrow_mut().clear();
    }

    fn load(&self, time: Duration, connections: Connections) {
        let Ok(server) = &self.server else { return };
        let (first, all) = load::processor_time(server.child.id());
        let seen = load::run(server.address, CLIENTS, time, connections)
            .map_err(|error| error.to_string())
            .and_then(|load| {
                let (first_after, all_after) = load::processor_time(server.child.id());
                match load.requests {
                    0 => Err(format!("no answers, {} failures", load.failed)),
                    _ => Ok(Seen { load, first: first_after - first, all: all_after - all }),
                }
            });
        self.seen.borrow_mut().push(seen);
    }

    /// A contender that gives `value` of each kept round, the warm-up first.
    fn replay(&self, value: Value) -> Contender<'_> {
        if let Err(why) = &self.server {
            return Contender::absent(self.role, self.name, why.clone());
        }
        let mut round = 0;
        Contender::new(self.role, self.name, move || {
            round += 1;
            match self.seen.borrow().get(round - 1) {
                Some(Ok(seen)) => match value(self.kind, seen) {
                    Some(value) => Ok(vec![value]),
                    None => Err("it has no such thing".to_owned()),
                },
                Some(Err(why)) => Err(why.clone()),
                None => Err("not loaded".to_owned()),
            }
        })
    }
}

impl Lane {
    /// A contender that kills a worker in each round; for those that replace it.
    fn replaces(&self) -> Contender<'_> {
        match &self.server {
            Err(why) => Contender::absent(self.role, self.name, why.clone()),
            Ok(_) if self.kind != Kind::Dealt && self.role != Role::Ours => {
                Contender::absent(self.role, self.name, "nobody replaces its workers")
            }
            Ok(server) => Contender::new(self.role, self.name, || server.replace_one()),
        }
    }
}

/// A running server. Dropping it ends it with its workers.
#[derive(Debug)]
struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    fn native(kind: &str) -> Result<Self, String> {
        Self::native_with(kind, &[])
    }

    fn native_with(kind: &str, more: &[&str]) -> Result<Self, String> {
        let program = std::env::current_exe().map_err(|error| error.to_string())?;
        let workers = WORKERS.to_string();
        Self::start(Command::new(program).args(["role", server::ROLE, kind, &workers]).args(more))
    }

    fn start(command: &mut Command) -> Result<Self, String> {
        let command = command.stdin(Stdio::null()).stdout(Stdio::piped()).process_group(0);
        let mut child = command.spawn().map_err(|error| error.to_string())?;
        let output = child.stdout.take().expect("it was piped");
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let mut server = Self { child, address };
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line).map_err(|error| error.to_string())?;
        let port = line.trim().parse().map_err(|_| format!("it did not start: {line:?}"))?;
        server.address.set_port(port);
        Ok(server)
    }
}

impl Server {
    /// Kills the oldest worker, and asks until one answers that was not there before. The oldest,
    /// so that each place has its turn and no back-off begins.
    fn replace_one(&self) -> Result<Vec<f64>, String> {
        let before = load::children(self.child.id());
        let victim = *before.iter().min().ok_or("it has no workers")?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let begin = Instant::now();
        sys::signal::kill(victim, sys::signal::Signal::KILL).map_err(|error| error.to_string())?;
        while begin.elapsed() < Duration::from_secs(10) {
            // What the killed one had accepted fails; that is not measured here.
            let answer = runtime.block_on(async {
                tokio::time::timeout(Duration::from_secs(1), load::ask_once(self.address)).await
            });
            let Ok(Ok(answer)) = answer else { continue };
            let pid = answer.rsplit(' ').next().and_then(|pid| pid.parse().ok());
            if pid.is_some_and(|pid: u32| !before.contains(&pid)) {
                return Ok(vec![begin.elapsed().as_nanos() as f64]);
            }
        }
        Err("no replacement within 10 s".to_owned())
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let pid = self.child.id();
        if let Some(term) = sys::signal::Signal::from_name("SIGTERM") {
            let _ = sys::signal::kill(pid, term);
        }
        let ended = sys::pidfd::PidFd::open(pid).and_then(|child| {
            use std::os::fd::AsFd;
            sys::poll::readable(child.as_fd(), Some(Duration::from_secs(5)))
        });
        if !ended.unwrap_or(false) {
            let _ = sys::signal::kill_group(pid, sys::signal::Signal::KILL);
        }
        let _ = self.child.wait();
    }
}
