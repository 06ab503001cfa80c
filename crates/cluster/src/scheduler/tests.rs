//! Tests of one scheduler over a model of the kernel's queues, by subject.

mod drain;
mod limit;
mod node_backend;
mod pending;
mod refresh;
mod rotation;
mod stalled;
mod sticky;
mod waiting;

use std::collections::BTreeMap;
use std::sync::Arc;

use super::*;
use crate::contract::{Answer, Refusal};
use crate::counters::CloseReason;
use crate::kernel_model::{KernelQueue, KernelRecord, ModelPage};

const MS: Duration = Duration::from_millis(1);
/// The number of a probe among the connections of a queue.
const PROBE: u32 = 0;

/// A scheduler, the queues of its workers, and a clock. Workers read only at the command of a test.
struct SchedulerHarness {
    scheduler: Scheduler<u32>,
    now: Instant,
    queues: BTreeMap<WorkerId, KernelQueue<u32>>,
    accepting: bool,
    closed: Vec<(u32, CloseReason)>,
    /// The workers that the scheduler has reported, as often as it has.
    unresponsive: Vec<WorkerId>,
    /// The number of depth polls.
    polls: usize,
    reclaims: usize,
    /// The kernel refuses every connection for this reason.
    refusal: Option<Refusal>,
    /// The primary has no descriptor left: it can reclaim nothing.
    is_out_of_descriptors: bool,
}

impl SchedulerHarness {
    fn new(workers: u32, change: impl FnOnce(&mut SupervisorOptions)) -> Self {
        let mut options = SupervisorOptions::default();
        change(&mut options);
        let mut harness = Self {
            scheduler: Scheduler::new(1, &options),
            now: Instant::now(),
            queues: BTreeMap::new(),
            accepting: false,
            closed: Vec::new(),
            unresponsive: Vec::new(),
            polls: 0,
            reclaims: 0,
            refusal: None,
            is_out_of_descriptors: false,
        };
        (1..=workers).for_each(|worker| harness.add(WorkerId(worker)));
        harness
    }

    fn add(&mut self, worker: WorkerId) {
        self.add_as(worker, WorkerKind::Native);
    }

    fn add_as(&mut self, worker: WorkerId, kind: WorkerKind) {
        self.queues.insert(worker, KernelQueue::new(kind));
        self.scheduler.add_backend(worker, worker.0, kind, None);
        self.open(worker);
    }

    /// Adds a worker that may have at most `max` connections; returns its closed counter.
    fn add_with_limit(&mut self, worker: WorkerId, max: u32) -> Arc<ModelPage> {
        let page = Arc::new(ModelPage::counting());
        self.queues.insert(worker, KernelQueue::new(WorkerKind::Native));
        self.scheduler.add_backend(worker, worker.0, WorkerKind::Native, Some(max));
        self.scheduler.set_page(worker, page.clone());
        self.open(worker);
        page
    }

    fn open(&mut self, worker: WorkerId) {
        assert!(self.scheduler.open_backend(worker));
        self.step(|scheduler, now, out| scheduler.dispatch_waiting(now, out));
    }

    /// Closes a connection in its worker. Returns whether the worker reported `HasRoom`.
    fn close_one(&mut self, page: &ModelPage) -> bool {
        let reported = page.close();
        if reported {
            self.step(|scheduler, now, out| scheduler.dispatch_waiting(now, out));
        }
        reported
    }

    /// Makes one step, and performs all outputs and those that follow from their answers.
    fn step(&mut self, step: impl FnOnce(&mut Scheduler<u32>, Instant, &mut Vec<Output<u32>>)) {
        let mut out = Vec::new();
        step(&mut self.scheduler, self.now, &mut out);
        let mut outputs = VecDeque::from(out);
        while let Some(output) = outputs.pop_front() {
            let mut out = Vec::new();
            self.perform(output, &mut out);
            outputs.extend(out);
        }
        let sum = self.scheduler.counters();
        assert_eq!(sum.accepted + sum.reclaimed, sum.dispatched + sum.closed() + sum.waiting);
    }

    fn perform(&mut self, output: Output<u32>, out: &mut Vec<Output<u32>>) {
        let (scheduler, now) = (&mut self.scheduler, self.now);
        match output {
            Output::Send { worker, connection, .. } => match self.refusal {
                Some(refusal) => scheduler.send_failed(worker, Some(connection), refusal, now, out),
                None => self.queues.get_mut(&worker).unwrap().send(connection),
            },
            Output::Probe { worker, .. } => self.queues.get_mut(&worker).unwrap().probe(),
            Output::PollDepth { worker, .. } => {
                self.polls += 1;
                let unread = self.queues[&worker].depth();
                if scheduler.depth(worker, unread, now, out) == WorkerHealth::Unresponsive {
                    self.unresponsive.push(worker);
                }
            }
            Output::Reclaim { worker, .. } => {
                self.reclaims += 1;
                let max = if self.is_out_of_descriptors { 0 } else { usize::MAX };
                let (connections, probes) = self.queues.get_mut(&worker).unwrap().reclaim(max);
                scheduler.reclaimed(worker, connections, probes, now, out);
            }
            Output::Accept { on, .. } => self.accepting = on,
            Output::Close { connection, reason } => self.closed.push((connection, reason)),
            Output::DropQueue { worker, .. } => drop(self.queues.remove(&worker)),
            Output::EndQueue { worker, .. } => self.queues.get_mut(&worker).unwrap().end(),
            other => panic!("a scheduler does not ask for {other:?}"),
        }
    }

    fn accept(&mut self, connections: impl IntoIterator<Item = u32>) {
        for connection in connections {
            self.step(|scheduler, now, out| scheduler.accepted(connection, now, out));
        }
    }

    /// Lets time pass, with all ticks that are due; `readers` read all that they get meanwhile.
    fn advance(&mut self, time: Duration, readers: &[WorkerId]) {
        let end = self.now + time;
        while let Some(due) = self.scheduler.deadline().filter(|due| *due <= end) {
            self.now = due;
            self.read(readers);
            self.tick();
            assert!(self.scheduler.deadline().is_none_or(|next| next > due));
        }
        self.now = end;
        self.read(readers);
    }

    fn tick(&mut self) {
        let mut unresponsive = Vec::new();
        self.step(|scheduler, now, out| unresponsive = scheduler.tick(now, out));
        self.unresponsive.extend(unresponsive);
    }

    /// Lets a Node worker answer the `nth` of its unanswered connections.
    fn answer(&mut self, worker: WorkerId, nth: usize, answer: impl FnOnce(u32) -> Answer<u32>) {
        let answer = answer(self.queues.get_mut(&worker).unwrap().answer(nth));
        self.step(|scheduler, now, out| scheduler.answered(worker, nth, answer, now, out));
    }

    /// Lets these workers read all that lies in their queues.
    fn read(&mut self, readers: &[WorkerId]) {
        let queues = self.queues.iter_mut().filter(|(worker, _)| readers.contains(worker));
        queues.for_each(|(_, queue)| queue.read_all());
    }

    /// The unread records of a worker, or a Node worker's unanswered connections, oldest first.
    fn queue(&self, worker: WorkerId) -> Vec<u32> {
        let Some(queue) = self.queues.get(&worker) else { return Vec::new() };
        let number = |record| match record {
            KernelRecord::Connection(connection) => connection,
            KernelRecord::Probe => PROBE,
        };
        match queue.kind() {
            WorkerKind::Native => queue.records().map(number).collect(),
            WorkerKind::Node => queue.connections(),
        }
    }
}
