//! The subscribers of one child, and the delivery of events to them, in order.
//!
//! A late subscriber first gets the events of the past: life-cycle events are few, so they are
//! kept. Messages are not kept: the channel is not read before there is a subscriber.

use std::fmt;

use crossbeam_channel::Receiver;
use ipc::LinkEvent;

use crate::error::Error;
use crate::event::{Event, EventKind};

/// A receiver of events, called on the loop.
pub(crate) struct Subscriber {
    /// The kind it gets; `None` for every kind.
    kind: Option<EventKind>,
    deliver: Box<dyn FnMut(Event) + Send>,
}

impl Subscriber {
    pub(crate) fn new(deliver: impl FnMut(Event) + Send + 'static) -> Self {
        Self { kind: None, deliver: Box::new(deliver) }
    }

    /// Creates a queue of all events that are not internal.
    pub(crate) fn queue() -> (Self, Receiver<Event>) {
        let (events, receiver) = crossbeam_channel::unbounded();
        let subscriber = Self::new(move |event| {
            if event.kind() != EventKind::Internal {
                // Fails when the receiver was dropped.
                let _ = events.send(event);
            }
        });
        (subscriber, receiver)
    }

    /// Calls on the callback thread with the `part` of each event of one kind, one at a time.
    pub(crate) fn callback<T: 'static>(
        kind: EventKind,
        part: fn(Event) -> Option<T>,
        mut call: impl FnMut(T) + Send + 'static,
    ) -> Self {
        let deliver = reactor::callback::each(move |event| {
            if let Some(part) = part(event) {
                call(part);
            }
        });
        Self { kind: Some(kind), deliver: Box::new(deliver) }
    }

    /// Delivers an event, if it is of the kind that this subscriber gets.
    pub(crate) fn emit(&mut self, event: Event) {
        if self.wants(event.kind()) {
            (self.deliver)(event);
        }
    }

    fn wants(&self, kind: EventKind) -> bool {
        self.kind.is_none_or(|wanted| wanted == kind)
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("kind", &self.kind).finish_non_exhaustive()
    }
}

/// The subscribers of one child. Used on the loop only.
#[derive(Debug, Default)]
pub(crate) struct Subscribers {
    subscribers: Vec<Subscriber>,
    history: Vec<Event>,
    closed: bool,
}

impl Subscribers {
    /// Adds a subscriber and delivers the events that it has missed.
    pub(crate) fn add(&mut self, mut subscriber: Subscriber) {
        let wanted = subscriber.kind;
        let missed =
            self.history.iter().filter(|event| wanted.is_none_or(|kind| kind == event.kind()));
        for event in missed.filter_map(Event::try_clone) {
            (subscriber.deliver)(event);
        }
        if !self.closed {
            self.subscribers.push(subscriber);
        }
    }

    /// Ends every queue; no event follows.
    pub(crate) fn close(&mut self) {
        self.subscribers.clear();
        self.closed = true;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.subscribers.is_empty()
    }

    /// Emits an event of the channel; returns true at the end of the channel.
    pub(crate) fn emit_from_channel(&mut self, event: LinkEvent) -> bool {
        match event {
            LinkEvent::Message(message) => self.emit(Event::Message(message)),
            LinkEvent::Internal(message) => self.emit(Event::Internal(message)),
            LinkEvent::Error(error) => self.emit(Event::Error(Error::Channel(error))),
            LinkEvent::Acknowledged { ticket, taken } => {
                self.emit(Event::Acknowledged { ticket, taken });
            }
            LinkEvent::Disconnect { error, .. } => {
                if let Some(error) = error {
                    self.emit(Event::Error(Error::Channel(error)));
                }
                return true;
            }
            // The caller handles `PeerGone`. The enum may grow.
            _ => {}
        }
        false
    }

    /// Delivers the event to every subscriber of its kind. An event that cannot be copied goes to
    /// the first callback for its kind, or else to the first subscriber.
    pub(crate) fn emit(&mut self, event: Event) {
        if let Some(copy) = event.try_clone() {
            self.history.push(copy);
        }
        let kind = event.kind();
        let mut wanting: Vec<_> =
            self.subscribers.iter_mut().filter(|subscriber| subscriber.wants(kind)).collect();
        // Callbacks for this kind come first; the stable sort keeps the order otherwise.
        wanting.sort_by_key(|subscriber| subscriber.kind.is_none());
        let mut rest = Some(event);
        for subscriber in wanting {
            let Some(event) = rest.take() else { return };
            rest = event.try_clone();
            (subscriber.deliver)(event);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{Arc, Mutex};

    use sys::pidfd::ExitStatus;

    fn recorder() -> (Subscriber, Arc<Mutex<Vec<String>>>) {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = seen.clone();
        (Subscriber::new(move |event| record.lock().unwrap().push(format!("{event:?}"))), seen)
    }

    #[test]
    fn a_late_subscriber_first_gets_the_events_it_has_missed() {
        let mut subscribers = Subscribers::default();
        subscribers.emit(Event::Spawn);
        subscribers.emit(Event::Error(Error::TimedOut));
        let (subscriber, seen) = recorder();
        subscribers.add(subscriber);
        subscribers.emit(Event::Exit(ExitStatus::Code(3)));
        assert_eq!(*seen.lock().unwrap(), ["Spawn", "Error(TimedOut)", "Exit(Code(3))"]);
    }

    #[test]
    fn every_subscriber_gets_every_event() {
        let mut subscribers = Subscribers::default();
        let ((one, seen_by_one), (two, seen_by_two)) = (recorder(), recorder());
        subscribers.add(one);
        subscribers.add(two);
        subscribers.emit(Event::Disconnect);
        subscribers.emit(Event::Close(ExitStatus::Code(0)));
        assert_eq!(*seen_by_one.lock().unwrap(), ["Disconnect", "Close(Code(0))"]);
        assert_eq!(*seen_by_two.lock().unwrap(), *seen_by_one.lock().unwrap());
    }
}
