//! Topic `cluster`: worker processes on one port, beside other ways to use all processors.

use std::cell::RefCell;
use std::process::Command;
use std::time::Duration;

mod many;
mod nginx;
mod server;

use nginx::Nginx;
use server::Server;

use crate::context::{Contender, Context};
use crate::load::{self, Connections, Load};
use crate::report::{Measure, Role, Topic, Unit};
use crate::stats::Better;
use crate::wrk;

const CLIENTS: usize = 32;
const WORKERS: u32 = 2;
/// The number of connections over which the evenness is measured, and the time limit for them.
const EVEN: u64 = 20_000;
const EVEN_MAX: Duration = Duration::from_secs(4);
const KILL: &str = "From the kill of a worker to the first answer of its replacement";

/// The contender that dispatches with system calls alone.
const BARE: &str = "axum, bare accept and sendmsg";

/// The servers: the name, the part in the comparison, the role of the process, the kind of server.
const NATIVE: [(&str, Role, &str, Kind); 7] = [
    ("brood, round robin", Role::Ours, "brood", Kind::Dispatched),
    ("brood, shared listener", Role::Ours, "brood-none", Kind::Workers),
    ("brood, own sockets", Role::Ours, "brood-reuse-port", Kind::Workers),
    ("axum, one process", Role::Peer, "threads", Kind::Threads),
    ("axum, plain shared listener", Role::Peer, "shared", Kind::Workers),
    ("axum, SO_REUSEPORT", Role::Peer, "reuse-port", Kind::Workers),
    (BARE, Role::Limit, "bare", Kind::Dispatched),
];

/// The design of a server.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// A primary accepts, and dispatches the connections to its workers.
    Dispatched,
    /// Workers accept by themselves.
    Workers,
    /// One process serves with several threads.
    Threads,
}

/// The results of one load on one server.
#[derive(Debug)]
struct Seen {
    load: Load,
    /// The processor time of the first process, and of all processes, in nanoseconds.
    first: f64,
    all: f64,
}

impl Seen {
    /// Returns the distance between the largest and the smallest share, as a part of the mean.
    fn unevenness(&self) -> f64 {
        let counts: Vec<f64> = self.load.by_worker.values().map(|&n| n as f64).collect();
        let most = counts.iter().copied().fold(0.0, f64::max);
        let least = counts.iter().copied().fold(f64::INFINITY, f64::min);
        // A worker that never answered is missing from the counts.
        let least = if counts.len() < WORKERS as usize { 0.0 } else { least };
        (most - least) / (self.load.requests as f64 / f64::from(WORKERS))
    }
}

/// Extracts a figure from a round, if servers of this kind have the figure.
type Value = fn(Kind, &Seen) -> Option<f64>;

pub fn run(context: &Context) -> Topic {
    let script = super::script_file("cluster", include_str!("../peers/cluster.js"));
    let file = context.node.clone().and_then(|_| script.as_ref().map_err(ToString::to_string));
    let (nginx, nginx_server) = match Nginx::start(WORKERS) {
        Ok((nginx, server)) => (Some(nginx), Ok(server)),
        Err(why) => (None, Err(why)),
    };
    let servers = servers(file, nginx_server);
    let tool = Tool::find();
    let mut measures = loads(context, &servers, tool);
    measures.push(evenness(context, &servers));
    let mut replaced = Measure::new(KILL, Unit::Nanoseconds, Better::Lower);
    let rounds = servers.iter().map(ServerRuns::replaces).collect();
    replaced.rows.push(context.compare("cluster, kill", ("", 0.0), Better::Lower, rounds));
    measures.push(replaced);
    drop((servers, nginx));
    measures.extend(many::measures(context));
    if let Ok(file) = script {
        let _ = std::fs::remove_file(file);
    }
    Topic {
        name: "cluster".to_owned(),
        title: "Workers on one port".to_owned(),
        notes: notes(tool),
        measures,
    }
}

fn servers(file: Result<&String, String>, nginx: Result<Server, String>) -> Vec<ServerRuns> {
    let native = NATIVE.iter().map(|&(name, role, server, kind)| {
        ServerRuns::new(name, role, kind, Server::native(server, WORKERS, &[]))
    });
    let mut servers: Vec<ServerRuns> = native.collect();
    let ours = file.clone().and_then(|file| Server::native("brood-node", WORKERS, &[file]));
    let theirs = file
        .and_then(|file| Server::start(Command::new("node").args([file, &WORKERS.to_string()])));
    servers.push(ServerRuns::new("brood, Node workers", Role::Ours, Kind::Dispatched, ours));
    servers.push(ServerRuns::new("Node cluster", Role::Peer, Kind::Dispatched, theirs));
    servers.push(ServerRuns::new("nginx", Role::Peer, Kind::Workers, nginx));
    servers
}

/// The load generator.
#[derive(Clone, Copy, Debug)]
enum Tool {
    Wrk,
    Ours,
}

impl Tool {
    fn find() -> Self {
        if wrk::is_installed() { Self::Wrk } else { Self::Ours }
    }
}

/// Returns all measures that the two kinds of load give.
fn loads(context: &Context, servers: &[ServerRuns], tool: Tool) -> Vec<Measure> {
    let per_second: Value = |_, seen| Some(seen.load.requests as f64 / seen.load.seconds);
    let each: Value = |_, seen| Some(seen.all / seen.load.requests as f64);
    let first: Value =
        |kind, seen| (kind == Kind::Dispatched).then(|| seen.first / seen.load.requests as f64);
    let failed: Value = |_, seen| Some(seen.load.failed as f64);
    let (lower, higher) = (Better::Lower, Better::Higher);
    let mut measures = Vec::new();
    let mut take = |title: &str, unit, better, value, from: Option<Connections>| {
        let mut measure = Measure::new(title, unit, better);
        if let Some(connections) = from {
            servers.iter().for_each(ServerRuns::forget);
            load_in_turn(context, title, (connections, tool), servers);
        }
        let replayed = servers.iter().map(|runs| runs.replay(value)).collect();
        measure.rows.push(context.compare("cluster", ("", 0.0), better, replayed));
        measures.push(measure);
    };
    let time = Unit::Nanoseconds;
    take("Kept-alive requests", Unit::PerSecond, higher, per_second, Some(Connections::Kept));
    take("Processor time per kept-alive request", time, lower, each, None);
    take("A kept-alive request, p50", time, lower, |_, seen| seen.load.p50, None);
    take("A kept-alive request, p99", time, lower, |_, seen| seen.load.p99, None);
    take("Failed kept-alive requests", Unit::Count, lower, failed, None);
    take("New connections", Unit::PerSecond, higher, per_second, Some(Connections::New));
    take("Processor time per new connection", time, lower, each, None);
    take("Processor time of the primary per new connection", time, lower, first, None);
    take("A request on a new connection, p50", time, lower, |_, seen| seen.load.p50, None);
    take("A request on a new connection, p99", time, lower, |_, seen| seen.load.p99, None);
    take("Failed requests on new connections", Unit::Count, lower, failed, None);
    measures
}

/// Measures the evenness with our own generator, which records the worker of each answer.
fn evenness(context: &Context, servers: &[ServerRuns]) -> Measure {
    let mut measure = Measure::new("Unevenness of new connections", Unit::Part, Better::Lower);
    let contenders = servers.iter().map(|runs| match &runs.server {
        Err(why) => Contender::absent(runs.role, runs.name, why.clone()),
        Ok(_) if runs.kind == Kind::Threads => {
            Contender::absent(runs.role, runs.name, "it has no worker processes")
        }
        Ok(server) => Contender::new(runs.role, runs.name, || {
            let until = (EVEN_MAX, context.pick(EVEN / 10, EVEN));
            let load = load::run(server.address, CLIENTS, until, Connections::New)
                .map_err(|error| error.to_string())?;
            match load.requests {
                0 => Err("no answers".to_owned()),
                _ => Ok(vec![Seen { load, first: 0.0, all: 0.0 }.unevenness()]),
            }
        }),
    });
    let contenders = contenders.collect();
    measure.rows.push(context.compare("cluster, evenness", ("", 0.0), Better::Lower, contenders));
    measure
}

fn notes(tool: Tool) -> Vec<String> {
    let generator = match tool {
        Tool::Wrk => {
            "`wrk` (one thread) generates the load; our own generator measures the evenness"
        }
        Tool::Ours => "Our own load generator (one thread) generates the load; wrk is absent",
    };
    vec![
        format!(
            "{WORKERS} workers answer `GET /` with a line. Rust workers use axum and hyper, Node \
             workers use `http`, and nginx uses `return` without an application. The Node workers \
             under our primary run the same script as Node's cluster. `axum, one process` has \
             {WORKERS} threads. `bare accept and sendmsg` is a loop that accepts a connection, \
             sends it to the next worker and closes it, which is the minimum cost of dispatching \
             in rotation. {generator}. {CLIENTS} clients send the next request after each answer."
        ),
        "With few processors, the clients limit the rate. The processor time of the server's \
         processes, as the scheduler counts it, does not depend on the clients. Unevenness is the \
         distance between the busiest and the least busy worker, as a part of the mean, over \
         20,000 connections (fewer where they take longer than 4 s)."
            .to_owned(),
    ]
}

/// Runs all rounds of one kind of load, with the servers in turn.
///
/// The results are kept for the measures, so that one load gives all its figures.
fn load_in_turn(context: &Context, title: &str, how: (Connections, Tool), servers: &[ServerRuns]) {
    // `wrk` accepts whole seconds only.
    let time = Duration::from_secs(1);
    let rounds = context.pick(4, 10);
    for round in 0..rounds {
        for place in 0..servers.len() {
            let place = if round % 2 == 0 { place } else { servers.len() - 1 - place };
            let runs = &servers[place];
            let step = round * servers.len() + place;
            context.progress.show("cluster", title, runs.name, step, rounds * servers.len());
            runs.load(time, how);
        }
    }
}

/// A server and the results of its rounds.
struct ServerRuns {
    name: &'static str,
    role: Role,
    kind: Kind,
    server: Result<Server, String>,
    seen: RefCell<Vec<Result<Seen, String>>>,
}

impl ServerRuns {
    fn new(name: &'static str, role: Role, kind: Kind, server: Result<Server, String>) -> Self {
        Self { name, role, kind, server, seen: RefCell::default() }
    }

    fn forget(&self) {
        self.seen.borrow_mut().clear();
    }

    fn load(&self, time: Duration, (connections, tool): (Connections, Tool)) {
        let Ok(server) = &self.server else { return };
        let (first, all) = load::processor_time(server.child.id());
        let loaded = match tool {
            Tool::Wrk => wrk::run(server.address, CLIENTS, time, connections),
            Tool::Ours => load::run(server.address, CLIENTS, (time, u64::MAX), connections)
                .map_err(|error| error.to_string()),
        };
        let seen = loaded.and_then(|load| {
            let (first_after, all_after) = load::processor_time(server.child.id());
            match load.requests {
                0 => Err(format!("no answers, {} failures", load.failed)),
                _ => Ok(Seen { load, first: first_after - first, all: all_after - all }),
            }
        });
        self.seen.borrow_mut().push(seen);
    }

    /// Returns a contender that yields `value` of each kept round; the first is the warm-up.
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
                    None => Err("it has no such figure".to_owned()),
                },
                Some(Err(why)) => Err(why.clone()),
                // The load had fewer rounds than the comparison asks for.
                None => Ok(Vec::new()),
            }
        })
    }
}

impl ServerRuns {
    /// Returns a contender that kills a worker in each round, for servers that replace workers.
    fn replaces(&self) -> Contender<'_> {
        match &self.server {
            Err(why) => Contender::absent(self.role, self.name, why.clone()),
            Ok(_) if self.kind == Kind::Threads => {
                Contender::absent(self.role, self.name, "it has no worker processes")
            }
            Ok(_) if self.role != Role::Ours && self.name.starts_with("axum") => {
                Contender::absent(self.role, self.name, "its workers are not replaced")
            }
            Ok(server) => Contender::new(self.role, self.name, || server.replace_one()),
        }
    }
}
