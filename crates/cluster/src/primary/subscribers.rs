//! The subscribers of events: one queue for all events, and callbacks for one kind of event each.
//!
//! An event goes to every callback of its kind and to the queue. A message has one owner: a
//! callback of its worker, otherwise one of the primary, otherwise the queue. Callbacks of a worker
//! stand before those of its primary, as in Node. Events that a worker repeats are left out while
//! too many of them are not taken: see [`event_backlog`](super::event_backlog).

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use crossbeam_channel::Sender;

use crate::contract::{Notice, WorkerId};
use crate::error::Error;
use crate::primary::event::{Event, Kind};
use crate::primary::event_backlog::{Admission, EventBacklog};
use crate::primary::worker_process::WorkerProcess;

#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// The sender of the queue, once the user has taken the receiver.
    queue: Option<Sender<Event>>,
    backlog: EventBacklog,
    callbacks: Vec<Callback>,
    /// The primary has ended: no event follows.
    pub(crate) ended: bool,
}

pub(crate) struct Callback {
    /// The worker whose events are wanted; `None` for all workers.
    worker: Option<WorkerId>,
    kind: Kind,
    call: Box<dyn FnMut(Event) + Send>,
    backlog: EventBacklog,
    /// The number of events for which the call has begun.
    taken: Arc<AtomicU64>,
}

impl Callback {
    /// Wraps `call`, which runs on the callback thread, for one event after the other.
    pub(crate) fn new(
        worker: Option<WorkerId>,
        kind: Kind,
        mut call: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        let taken = Arc::new(AtomicU64::new(0));
        let count = taken.clone();
        let call = move |event: Event| {
            count.fetch_add(1, Ordering::Relaxed);
            match event.worker().cloned() {
                Some(worker) => worker.with_reported_state(|| call(event)),
                None => call(event),
            }
        };
        let (call, backlog) = (Box::new(reactor::callback::each(call)), EventBacklog::default());
        Self { worker, kind, call, backlog, taken }
    }

    fn matches(&self, event: &Event) -> bool {
        self.kind == event.kind() && (self.worker.is_none() || self.worker == event.worker_id())
    }

    /// Calls back, unless too many calls for events that the worker repeats have not begun.
    fn deliver(&mut self, event: Event) {
        let admission = self.backlog.admit(&event, self.taken.load(Ordering::Relaxed));
        // Only a callback for errors can be given the report.
        let report = report_of(&event, admission).filter(|report| self.matches(report));
        let event = (admission != Admission::LeaveOut).then_some(event);
        for event in report.into_iter().chain(event) {
            self.backlog.count_sent();
            (self.call)(event);
        }
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, kind, call: _, backlog: _, taken: _ } = self;
        f.debug_struct("Callback").field("worker", worker).field("kind", kind).finish()
    }
}

impl Subscribers {
    /// Sets the queue for all events that no callback has taken before.
    pub(crate) fn set_queue(&mut self, queue: Sender<Event>) {
        self.queue = Some(queue);
    }

    /// Adds a callback of the primary.
    pub(crate) fn add(&mut self, callback: Callback) {
        if !self.ended {
            self.callbacks.push(callback);
        }
    }

    /// Adds a callback of one worker, which first gets the events of the worker's past.
    pub(crate) fn add_for(&mut self, worker: &WorkerProcess, mut callback: Callback) {
        for event in worker.past() {
            if callback.matches(&event) {
                callback.deliver(event);
            }
        }
        if self.ended || worker.is_over() {
            return;
        }
        // Callbacks of workers stand before those of the primary, each in the order of arrival.
        let at = self.callbacks.partition_point(|other| other.worker.is_some());
        self.callbacks.insert(at, callback);
    }

    /// Records the notice in the worker's history and emits its event.
    pub(crate) fn notify(&mut self, worker: &WorkerProcess, notice: Notice, exit_requested: bool) {
        let event = worker.event(&notice);
        // Before the event, whose receiver may ask for the worker's state.
        worker.record(notice, exit_requested);
        self.emit(event);
        if worker.is_over() {
            self.callbacks.retain(|callback| callback.worker != Some(worker.id()));
        }
    }

    /// Delivers an event to its callbacks and the queue.
    pub(crate) fn emit(&mut self, event: Event) {
        let mut rest = Some(event);
        for callback in &mut self.callbacks {
            let Some(event) = rest.take() else { break };
            if callback.matches(&event) {
                rest = event.try_clone();
                callback.deliver(event);
            } else {
                rest = Some(event);
            }
        }
        let (Some(event), Some(queue)) = (rest, &self.queue) else { return };
        let untaken = u64::try_from(queue.len()).unwrap_or(u64::MAX);
        let admission = self.backlog.admit(&event, self.backlog.sent().saturating_sub(untaken));
        let report = report_of(&event, admission);
        let event = (admission != Admission::LeaveOut).then_some(event);
        for event in report.into_iter().chain(event) {
            self.backlog.count_sent();
            // Fails when the user has dropped the receiver.
            let _ = queue.send(event);
        }
    }
}

/// Returns the report on the events that were left out before this one.
fn report_of(event: &Event, admission: Admission) -> Option<Event> {
    match admission {
        Admission::SendAfterReport(count) => {
            Some(Event::error(event.worker_id(), Error::EventsLeftOut(count)))
        }
        Admission::Send | Admission::LeaveOut => None,
    }
}
