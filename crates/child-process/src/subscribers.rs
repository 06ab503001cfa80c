//! The subscribers of one child, and the delivery of events to them, in order.
//!
//! A late subscriber first gets the events of the past: life-cycle events are few, so they are
//! kept. Messages are not kept: the channel is not read before there is a subscriber.

use std::fmt;

use crossbeam_channel::Receiver;
use ipc::internal::Event as LinkEvent;

use crate::error::Error;
use crate::event::{Event, EventKind, InternalEvent};

/// A receiver of events, called on the loop.
pub(crate) struct Subscriber {
    filter: Filter,
    deliver: Box<dyn FnMut(InternalEvent) + Send>,
}

/// The events that a subscriber gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Filter {
    /// All events, internal messages included.
    Everything,
    /// The events for users.
    Users,
    /// The events for users of one kind.
    Kind(EventKind),
}

impl Filter {
    fn wants(self, event: &InternalEvent) -> bool {
        match (self, event) {
            (Self::Everything, _) | (Self::Users, InternalEvent::User(_)) => true,
            (Self::Kind(kind), InternalEvent::User(event)) => kind == event.kind(),
            (Self::Users | Self::Kind(_), _) => false,
        }
    }
}

impl Subscriber {
    /// Creates a subscriber for all events, internal messages included.
    pub(crate) fn everything(deliver: impl FnMut(InternalEvent) + Send + 'static) -> Self {
        Self { filter: Filter::Everything, deliver: Box::new(deliver) }
    }

    /// Creates a subscriber for the events for users that pass `filter`.
    fn users(filter: Filter, mut deliver: impl FnMut(Event) + Send + 'static) -> Self {
        let deliver = Box::new(move |event| {
            if let InternalEvent::User(event) = event {
                deliver(event);
            }
        });
        Self { filter, deliver }
    }

    /// Creates a queue of all events that are not internal.
    pub(crate) fn queue() -> (Self, Receiver<Event>) {
        let (events, receiver) = crossbeam_channel::unbounded();
        let subscriber = Self::users(Filter::Users, move |event| {
            // Fails when the receiver was dropped.
            let _ = events.send(event);
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
        Self::users(Filter::Kind(kind), deliver)
    }

    /// Delivers an event, if it is one that this subscriber gets.
    pub(crate) fn emit(&mut self, event: Event) {
        let event = InternalEvent::User(event);
        if self.filter.wants(&event) {
            (self.deliver)(event);
        }
    }
}

impl fmt::Debug for Subscriber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscriber").field("filter", &self.filter).finish_non_exhaustive()
    }
}

/// The number of events above which no error is kept for late subscribers.
const HISTORY_MAX: usize = 64;

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
        for event in self.history.iter().filter_map(Event::try_clone) {
            subscriber.emit(event);
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
            LinkEvent::Internal(message) => self.deliver(InternalEvent::Internal(message)),
            LinkEvent::Error(error) => self.emit(Event::Error(Error::Channel(error))),
            LinkEvent::Acknowledged { ticket, taken } => {
                self.deliver(InternalEvent::Acknowledged { ticket, taken });
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

    /// Emits an event for users, and keeps it for late subscribers if it can be copied.
    ///
    /// Only the first errors are kept: a peer may cause any number of them.
    pub(crate) fn emit(&mut self, event: Event) {
        let is_kept = !matches!(event, Event::Error(_)) || self.history.len() < HISTORY_MAX;
        if let Some(copy) = event.try_clone().filter(|_| is_kept) {
            self.history.push(copy);
        }
        self.deliver(InternalEvent::User(event));
    }

    /// Delivers the event to every subscriber that wants it. An event that cannot be copied goes to
    /// the first callback for its kind, or else to the first subscriber.
    fn deliver(&mut self, event: InternalEvent) {
        let subscribers = self.subscribers.iter_mut();
        let mut wanting: Vec<_> =
            subscribers.filter(|subscriber| subscriber.filter.wants(&event)).collect();
        // Callbacks for this kind come first; the stable sort keeps the order otherwise.
        wanting.sort_by_key(|subscriber| !matches!(subscriber.filter, Filter::Kind(_)));
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
        let deliver = move |event| record.lock().unwrap().push(format!("{event:?}"));
        (Subscriber::users(Filter::Users, deliver), seen)
    }

    #[test]
    fn a_late_subscriber_first_gets_the_events_it_has_missed() {
        let mut subscribers = Subscribers::default();
        subscribers.emit(Event::Spawn);
        subscribers.emit(Event::Error(Error::TimedOut));
        let (subscriber, seen) = recorder();
        subscribers.add(subscriber);
        subscribers.emit(Event::Exit(ExitStatus::Code(3)));
        assert_eq!(
            *seen.lock().unwrap(),
            ["Spawn", "Error(took longer than allowed)", "Exit(Code(3))"]
        );
    }

    #[test]
    fn a_late_subscriber_gets_the_first_errors_and_every_other_event() {
        let mut subscribers = Subscribers::default();
        for _ in 0..10 * HISTORY_MAX {
            subscribers.emit(Event::Error(Error::TimedOut));
        }
        subscribers.emit(Event::Disconnect);
        let (subscriber, seen) = recorder();
        subscribers.add(subscriber);
        let seen = seen.lock().unwrap();
        assert_eq!((seen.len(), seen[HISTORY_MAX].as_str()), (HISTORY_MAX + 1, "Disconnect"));
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
