//! The subscribers of events: one queue for all events, and callbacks for one kind of event each.
//!
//! An event goes to every callback of its kind and to the queue. A message has one owner: a
//! callback of its worker, otherwise one of the primary, otherwise the queue. Callbacks of a worker
//! stand before those of its primary, as in Node.

use std::fmt;

use crossbeam_channel::Sender;

use crate::contract::{Notice, WorkerId};
use crate::primary::event::{Event, Kind};
use crate::primary::worker_process::WorkerProcess;

#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// The sender of the queue, once the user has taken the receiver.
    pub(crate) queue: Option<Sender<Event>>,
    callbacks: Vec<Callback>,
    /// The primary has ended: no event follows.
    pub(crate) ended: bool,
}

pub(crate) struct Callback {
    /// The worker whose events are wanted; `None` for all workers.
    worker: Option<WorkerId>,
    kind: Kind,
    call: Box<dyn FnMut(Event) + Send>,
}

impl Callback {
    /// Wraps `call`, which runs on the callback thread, for one event after the other.
    pub(crate) fn new(
        worker: Option<WorkerId>,
        kind: Kind,
        mut call: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        let call = move |event: Event| match event.worker().cloned() {
            Some(worker) => worker.with_reported_state(|| call(event)),
            None => call(event),
        };
        Self { worker, kind, call: Box::new(reactor::callback::each(call)) }
    }

    fn matches(&self, event: &Event) -> bool {
        self.kind == event.kind() && (self.worker.is_none() || self.worker == event.worker_id())
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, kind, call: _ } = self;
        f.debug_struct("Callback").field("worker", worker).field("kind", kind).finish()
    }
}

impl Subscribers {
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
                (callback.call)(event);
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
                (callback.call)(event);
            } else {
                rest = Some(event);
            }
        }
        if let (Some(event), Some(queue)) = (rest, &self.queue) {
            // Fails when the user has dropped the receiver.
            let _ = queue.send(event);
        }
    }
}
