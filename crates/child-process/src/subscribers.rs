//! Who listens, and how each listener gets what it wants, in order.
//!
//! A listener that comes late is told first what has happened: life-cycle events are few and kept.
//! Messages are not kept here: the channel is not read before somebody listens.

use std::fmt;

use crossbeam_channel::Receiver;
use ipc::LinkEvent;

use crate::error::Error;
use crate::event::{Event, Kind};

/// Something that is told events, on the loop.
pub(crate) struct Listener {
    /// `None`: everything.
    only: Option<Kind>,
    tell: Box<dyn FnMut(Event) + Send>,
}

impl Listener {
    pub(crate) fn sink(tell: impl FnMut(Event) + Send + 'static) -> Self {
        Self { only: None, tell: Box::new(tell) }
    }

    /// Makes a queue of everything but what is internal.
    pub(crate) fn queue() -> (Self, Receiver<Event>) {
        let (events, receiver) = crossbeam_channel::unbounded();
        let listener = Self::sink(move |event| {
            if event.kind() != Kind::Internal {
                // Nobody has the receiver any more: nobody wants to know.
                let _ = events.send(event);
            }
        });
        (listener, receiver)
    }

    /// Calls on the callback thread with `part` of each event of a kind, one after the other.
    pub(crate) fn callback<T: 'static>(
        only: Kind,
        part: fn(Event) -> Option<T>,
        mut call: impl FnMut(T) + Send + 'static,
    ) -> Self {
        let tell = reactor::callback::each(move |event| {
            if let Some(part) = part(event) {
                call(part);
            }
        });
        Self { only: Some(only), tell: Box::new(tell) }
    }

    /// For a listener that has no hub.
    pub(crate) fn tell_alone(&mut self, event: Event) {
        if self.wants(event.kind()) {
            (self.tell)(event);
        }
    }

    fn wants(&self, kind: Kind) -> bool {
        self.only.is_none_or(|only| only == kind)
    }
}

impl fmt::Debug for Listener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Listener").field("only", &self.only).finish_non_exhaustive()
    }
}

/// The listeners of one child. Used on the loop only.
#[derive(Debug, Default)]
pub(crate) struct Hub {
    listeners: Vec<Listener>,
    history: Vec<Event>,
    ended: bool,
}

impl Hub {
    /// Adds a listener and tells it what it has missed.
    pub(crate) fn add(&mut self, mut listener: Listener) {
        let only = listener.only;
        let missed = self.history.iter().filter(|event| only.is_none_or(|o| o == event.kind()));
        for event in missed.filter_map(Event::twin) {
            (listener.tell)(event);
        }
        if !self.ended {
            self.listeners.push(listener);
        }
    }

    /// Nothing follows: queues see their end.
    pub(crate) fn end(&mut self) {
        self.listeners.clear();
        self.ended = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.listeners.is_empty()
    }

    /// Tells what the channel brings; `true` when the channel has ended.
    pub(crate) fn tell_of_the_channel(&mut self, event: LinkEvent) -> bool {
        match event {
            LinkEvent::Message(message) => self.tell(Event::Message(message)),
            LinkEvent::Internal(message) => self.tell(Event::Internal(message)),
            LinkEvent::Error(error) => self.tell(Event::Error(Error::Channel(error))),
            LinkEvent::Acknowledged { ticket, taken } => {
                self.tell(Event::Acknowledged { ticket, taken });
            }
            LinkEvent::Disconnect { error, .. } => {
                if let Some(error) = error {
                    self.tell(Event::Error(Error::Channel(error)));
                }
                return true;
            }
            // `PeerGone` says nothing here, nor does a kind that a later channel may bring.
            _ => {}
        }
        false
    }

    /// Tells everybody who wants it. What cannot be doubled goes to the callbacks for it, or else
    /// to whoever came first.
    pub(crate) fn tell(&mut self, event: Event) {
        if let Some(twin) = event.twin() {
            self.history.push(twin);
        }
        let kind = event.kind();
        let mut wanting: Vec<_> =
            self.listeners.iter_mut().filter(|listener| listener.wants(kind)).collect();
        // Special listeners first; a stable sort keeps the order otherwise.
        wanting.sort_by_key(|listener| listener.only.is_none());
        let mut rest = Some(event);
        for listener in wanting {
            let Some(event) = rest.take() else { return };
            rest = event.twin();
            (listener.tell)(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use sys::pidfd::ExitStatus;

    fn collector() -> (Listener, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let keep = seen.clone();
        (Listener::sink(move |event| keep.lock().unwrap().push(format!("{event:?}"))), seen)
    }

    #[test]
    fn a_late_listener_is_told_what_it_has_missed() {
        let mut hub = Hub::default();
        hub.tell(Event::Spawn);
        hub.tell(Event::Error(Error::TimedOut));
        let (listener, seen) = collector();
        hub.add(listener);
        hub.tell(Event::Exit(ExitStatus::Code(3)));
        assert_eq!(*seen.lock().unwrap(), ["Spawn", "Error(TimedOut)", "Exit(Code(3))"]);
    }

    #[test]
    fn every_listener_is_told() {
        let mut hub = Hub::default();
        let ((one, seen_by_one), (two, seen_by_two)) = (collector(), collector());
        hub.add(one);
        hub.add(two);
        hub.tell(Event::Disconnect);
        hub.tell(Event::Close(ExitStatus::Code(0)));
        assert_eq!(*seen_by_one.lock().unwrap(), ["Disconnect", "Close(Code(0))"]);
        assert_eq!(*seen_by_two.lock().unwrap(), *seen_by_one.lock().unwrap());
    }
}
