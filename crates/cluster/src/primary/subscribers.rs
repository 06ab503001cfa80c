//! Who is told what happens: the one queue of events, and callbacks for some of them.
//!
//! Every event goes to every callback that wants it and to the queue. A message has one owner: a
//! callback of its worker, else one of the primary, else the queue. Callbacks of a worker come
//! before those of its primary, as in Node.

use std::fmt;

use crossbeam_channel::Sender;

use crate::contract::WorkerId;
use crate::primary::event::{Event, Kind};

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
    tell: Box<dyn FnMut(Event) + Send>,
}

impl Callback {
    /// Calls on the callback thread, one event after the other.
    pub(crate) fn new(
        worker: Option<WorkerId>,
        kind: Kind,
        call: impl FnMut(Event) + Send + 'static,
    ) -> Self {
        let tell = reactor::callback::each(call);
        Self { worker, kind, tell: Box::new(tell) }
    }

    fn wants(&self, event: &Event) -> bool {
        self.kind == event.kind() && (self.worker.is_none() || self.worker == event.worker_id())
    }
}

impl fmt::Debug for Callback {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { worker, kind, tell: _ } = self;
        f.debug_struct("Callback").field("worker", worker).field("kind", kind).finish()
    }
}

impl Subscribers {
    /// From now on; `past` is what its worker has been through already.
    pub(crate) fn add(&mut self, mut callback: Callback, past: Vec<Event>) {
        let over = is_over(&past);
        for event in past {
            if callback.wants(&event) {
                (callback.tell)(event);
            }
        }
        if self.ended || over {
            return;
        }
        // A stable order: those of workers first.
        let at = match callback.worker {
            Some(_) => self.callbacks.partition_point(|other| other.worker.is_some()),
            None => self.callbacks.len(),
        };
        self.callbacks.insert(at, callback);
    }

    pub(crate) fn tell(&mut self, event: Event) {
        let (kind, worker) = (event.kind(), event.worker().cloned());
        if let (Some(worker), Some(try_clone)) = (&worker, event.try_clone()) {
            worker.remember(&try_clone);
        }
        let mut rest = Some(event);
        for callback in &mut self.callbacks {
            let Some(event) = rest.take() else { break };
            if callback.wants(&event) {
                rest = event.try_clone();
                (callback.tell)(event);
            } else {
                rest = Some(event);
            }
        }
        if let (Some(event), Some(queue)) = (rest, &self.queue) {
            // The user dropped the receiver: he no longer wants to know.
            let _ = queue.send(event);
        }
        let closed_counter = matches!(kind, Kind::Exit | Kind::Disconnect);
        if let Some(worker) = worker.filter(|worker| closed_counter && is_over(&worker.past())) {
            self.callbacks.retain(|callback| callback.worker != Some(worker.id()));
        }
    }
}

/// Nothing more happens to a worker that has been through this.
fn is_over(past: &[Event]) -> bool {
    let has = |kind| past.iter().any(|event| event.kind() == kind);
    has(Kind::Exit) && has(Kind::Disconnect)
}
