//! Who is told what happens: the one queue of events, and callbacks for some of them.
//!
//! Every event goes to every callback that wants it and to the queue. A message has one owner: a
//! callback of its worker, else one of the primary, else the queue. Callbacks of a worker come
//! before those of its primary, as in Node.

use std::fmt;

use crossbeam_channel::Sender;

use crate::contract::{Notice, WorkerId};
use crate::primary::event::{Event, Kind};
use crate::primary::worker_process::WorkerProcess;

#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    /// The way to the user, if he asked for events.
    pub(crate) queue: Option<Sender<Event>>,
    callbacks: Vec<Callback>,
    /// Nothing will happen any more.
    pub(crate) ended: bool,
}

pub(crate) struct Callback {
    /// `None`: of all workers.
    worker: Option<WorkerId>,
    kind: Kind,
    call: Box<dyn FnMut(Event) + Send>,
}

impl Callback {
    /// Calls on the callback thread, one event after the other.
    pub(crate) fn new(
        worker: Option<WorkerId>,
        kind: Kind,
        call: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        Self { worker, kind, call: Box::new(reactor::callback::each(call)) }
    }

    fn wants(&self, event: &Event) -> bool {
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
            if callback.wants(&event) {
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

    pub(crate) fn emit(&mut self, event: Event) {
        let mut rest = Some(event);
        for callback in &mut self.callbacks {
            let Some(event) = rest.take() else { break };
            if callback.wants(&event) {
                rest = event.try_clone();
                (callback.call)(event);
            } else {
                rest = Some(event);
            }
        }
        if let (Some(event), Some(queue)) = (rest, &self.queue) {
            // The user dropped the receiver: he no longer wants to know.
            let _ = queue.send(event);
        }
    }
}
