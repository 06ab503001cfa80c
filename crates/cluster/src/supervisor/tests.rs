//! Tests of the supervisor: inputs that a test chooses, and the outputs that must follow.

mod addresses;
mod permissions;
mod replacement;
mod reuse_port;
mod serving;
mod shutdown;
mod starts;
mod transitions;

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::*;
use crate::contract::{Restart, RestartOptions};
use crate::kernel_model::KernelQueue;
use crate::listen_rules::ListenFacts;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

const MS: Duration = Duration::from_millis(1);

fn at(text: &str) -> Address {
    Address::from(text.parse::<SocketAddr>().unwrap())
}

/// A supervisor, a clock, and the hand-off queues that its outputs make and fill.
///
/// The test gives every answer itself, at the time that it chooses.
struct SupervisorHarness {
    supervisor: Supervisor<u32>,
    now: Instant,
    queues: BTreeMap<(WorkerId, Key), KernelQueue<u32>>,
}

impl SupervisorHarness {
    fn new(options: SupervisorOptions) -> Self {
        let supervisor = Supervisor::new(options, 1);
        Self { supervisor, now: Instant::now(), queues: BTreeMap::new() }
    }

    /// Makes a cluster of this many workers that listen on one address, key 1.
    fn listening(workers: u32, options: SupervisorOptions) -> Self {
        let mut harness = Self::new(options);
        harness.step(Input::Scale(workers));
        for worker in 1..=workers {
            harness.start(WorkerId(worker));
        }
        harness
    }

    /// Lets a worker whose spawn was requested come up and listen.
    fn start(&mut self, worker: WorkerId) {
        self.spawned(worker);
        self.step(Input::Online { worker });
        let out = self.request_listen(worker);
        if matches!(out[..], [Output::Bind { .. }]) {
            self.step(Input::Bound { key: 1, result: Ok(at("127.0.0.1:80")) });
        }
        self.step(Input::Listening { worker, key: 1 });
    }

    fn spawned(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        self.step(Input::Spawned { worker, kind: WorkerKind::Native })
    }

    fn request_listen(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        let (address, options) = (at("127.0.0.1:80"), ListenOptions::new());
        self.step(listen_request(worker, 0, address, options))
    }

    /// Gives one input to the supervisor. Returns the outputs, which the queues have performed.
    fn step(&mut self, input: Input<u32>) -> Vec<Output<u32>> {
        let mut out = Vec::new();
        self.supervisor.step(input, self.now, &mut out);
        out.iter().for_each(|output| self.perform(output));
        let sum = self.supervisor.counters();
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
        out
    }

    fn step_after(&mut self, time: Duration, input: Input<u32>) -> Vec<Output<u32>> {
        self.now += time;
        self.step(input)
    }

    /// Performs what an output does to the queues.
    fn perform(&mut self, output: &Output<u32>) {
        match output {
            Output::Grant { worker, result: Ok(Grant { key, access, .. }), .. }
                if *access != Access::Shared =>
            {
                self.queues.insert((*worker, *key), KernelQueue::new(WorkerKind::Native));
            }
            Output::Send { worker, key, connection } => {
                self.queues.get_mut(&(*worker, *key)).unwrap().send(*connection);
            }
            Output::Probe { worker, key } => {
                self.queues.get_mut(&(*worker, *key)).unwrap().probe();
            }
            Output::EndQueue { worker, key } => {
                self.queues.get_mut(&(*worker, *key)).unwrap().end();
            }
            Output::DropQueue { worker, key } => {
                let queue = self.queues.remove(&(*worker, *key)).unwrap();
                assert!(queue.connections().is_empty(), "{worker} has unread connections");
            }
            _ => {}
        }
    }

    fn accept(&mut self, connection: u32) -> Vec<Output<u32>> {
        self.step(Input::Accepted { key: 1, connection })
    }

    /// Lets the worker read its queue to the end, and answers a depth poll.
    fn read(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        if let Some(queue) = self.queues.get_mut(&(worker, 1)) {
            queue.read_all();
        }
        self.step(Input::Depth { worker, key: 1, records: 0 })
    }

    /// Answers a depth poll with what lies in the queue.
    fn poll(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        let records = self.queues[&(worker, 1)].depth();
        self.step(Input::Depth { worker, key: 1, records })
    }

    /// Answers `Reclaim` with all that lies in the queue.
    fn reclaim(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        let queue = self.queues.get_mut(&(worker, 1)).unwrap();
        let (connections, probes) = queue.reclaim(usize::MAX);
        self.step(Input::Reclaimed { worker, key: 1, connections, probes })
    }

    /// Lets the worker close its channel and exit with code 0.
    fn exit(&mut self, worker: WorkerId) -> Vec<Output<u32>> {
        let mut out = self.step(Input::ChannelClosed { worker });
        out.extend(self.step(Input::Exited { worker, exit: ExitKind::Code(0) }));
        out
    }
}

fn listen_request(
    worker: WorkerId,
    request: u32,
    address: Address,
    options: ListenOptions,
) -> Input<u32> {
    let facts = ListenFacts::default();
    Input::ListenRequested { worker, request, address, options, facts }
}

fn send(worker: WorkerId, connection: u32) -> Output<u32> {
    Output::Send { worker, key: 1, connection }
}

fn poll(worker: WorkerId) -> Output<u32> {
    Output::PollDepth { worker, key: 1 }
}

fn reclaim(worker: WorkerId) -> Output<u32> {
    Output::Reclaim { worker, key: 1 }
}

fn spawn(worker: WorkerId, slot: SlotId, capture_stderr: bool) -> Output<u32> {
    let (worker_options, is_successor) = (None, false);
    Output::Spawn { worker, slot, worker_options, capture_stderr, is_successor }
}

fn spawn_successor(worker: WorkerId, slot: SlotId) -> Output<u32> {
    let (worker_options, is_successor) = (None, true);
    Output::Spawn { worker, slot, worker_options, capture_stderr: true, is_successor }
}

fn emit(worker: WorkerId, notice: Notice) -> Output<u32> {
    Output::Emit { worker, notice, exit_requested: false }
}

fn reloaded(number: u32, result: Result<(), ReloadFailure>) -> Output<u32> {
    Output::Reloaded { numbers: vec![number], on_signal: false, result }
}

fn granted(access: Access) -> Grant {
    Grant { key: 1, access, counts_closed: false, data: None }
}
