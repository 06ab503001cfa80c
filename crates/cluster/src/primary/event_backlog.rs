//! The events that one subscriber has not taken, as far as a worker can repeat them.
//!
//! A worker may fail to listen, or listen and close, as often as it likes, and nothing makes a
//! subscriber take its events. [`EventBacklog::admit`] therefore counts the untaken events of each
//! worker and kind. Above [`UNTAKEN_MAX`] further ones are left out, and only counted; the count is
//! reported as an event of its own before the next event that has room, and at the latest before
//! the exit of the worker. Events that a worker cannot repeat are never left out. Messages have
//! credit, which bounds them in the channel.
//!
//! Pure.

use std::collections::{HashMap, VecDeque};
use std::mem::Discriminant;

use crate::contract::WorkerId;
use crate::error::Error;
use crate::primary::event::{Event, Kind};

/// The greatest number of events of one worker and kind that a subscriber has not taken.
pub(crate) const UNTAKEN_MAX: usize = 64;

/// The events that count together: each kind of error has room of its own.
type Repeated = (Option<WorkerId>, Kind, Option<Discriminant<Error>>);

/// The events that were sent to one subscriber.
#[derive(Debug, Default)]
pub(crate) struct EventBacklog {
    /// The number of events sent so far, which is the number of the next event.
    sent: u64,
    /// The numbers of the untaken events.
    untaken: HashMap<Repeated, VecDeque<u64>>,
    /// The events of each worker that were left out and not reported.
    left_out: HashMap<Option<WorkerId>, u64>,
}

/// The decision about an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Admission {
    Send,
    /// Send a report first: this many events of the worker were left out.
    SendAfterReport(u64),
    LeaveOut,
}

impl EventBacklog {
    /// Decides about an event when `taken` events have been taken.
    pub(crate) fn admit(&mut self, event: &Event, taken: u64) -> Admission {
        let worker = event.worker_id();
        match event.kind() {
            Kind::Error | Kind::Listening => {}
            Kind::Exit => {
                self.untaken.retain(|(of, ..), _| *of != worker);
                return self.report(worker);
            }
            Kind::Setup
            | Kind::Fork
            | Kind::Online
            | Kind::Message
            | Kind::Disconnect
            | Kind::Unresponsive
            | Kind::Violation
            | Kind::AddressClosed
            | Kind::Reloaded => return Admission::Send,
        }
        let error = match event {
            Event::Error { error, .. } => Some(std::mem::discriminant(&**error)),
            _ => None,
        };
        let repeated = (worker, event.kind(), error);
        if !self.untaken.contains_key(&repeated) {
            // A subscriber to one kind sees no exit, and a worker that does not start has none.
            self.untaken.retain(|_, it| it.back().is_some_and(|number| *number >= taken));
        }
        let untaken = self.untaken.entry(repeated).or_default();
        while untaken.front().is_some_and(|number| *number < taken) {
            untaken.pop_front();
        }
        if untaken.len() >= UNTAKEN_MAX {
            *self.left_out.entry(worker).or_default() += 1;
            return Admission::LeaveOut;
        }
        // A report before the event takes one number.
        let reported = u64::from(self.left_out.contains_key(&worker));
        untaken.push_back(self.sent + reported);
        self.report(worker)
    }

    fn report(&mut self, worker: Option<WorkerId>) -> Admission {
        self.left_out.remove(&worker).map_or(Admission::Send, Admission::SendAfterReport)
    }

    /// Counts an event that is sent.
    pub(crate) fn count_sent(&mut self) {
        self.sent += 1;
    }

    /// Returns the number of events sent so far.
    pub(crate) fn sent(&self) -> u64 {
        self.sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failure(worker: u32) -> Event {
        Event::error(Some(WorkerId(worker)), Error::Closed)
    }

    /// Offers an event this many times and returns how many were sent, reports included.
    fn offer(backlog: &mut EventBacklog, event: &Event, times: usize, taken: u64) -> usize {
        let mut sent = 0;
        for _ in 0..times {
            let count = match backlog.admit(event, taken) {
                Admission::Send => 1,
                Admission::SendAfterReport(_) => 2,
                Admission::LeaveOut => 0,
            };
            (0..count).for_each(|_| backlog.count_sent());
            sent += count;
        }
        sent
    }

    #[test]
    fn a_worker_that_repeats_itself_fills_its_own_room_alone() {
        let mut backlog = EventBacklog::default();
        assert_eq!(offer(&mut backlog, &failure(1), 10_000, 0), UNTAKEN_MAX);
        assert_eq!(offer(&mut backlog, &failure(2), 1, 0), 1, "another worker");
        let other = Event::error(Some(WorkerId(1)), Error::NotRunning);
        // Another kind of error has room, and the report goes before it.
        assert_eq!(backlog.admit(&other, 0), Admission::SendAfterReport(10_000 - 64));
        assert_eq!(offer(&mut backlog, &Event::Reloaded, 1000, 0), 1000, "never left out");
    }

    #[test]
    fn workers_whose_events_are_taken_leave_nothing_behind() {
        let mut backlog = EventBacklog::default();
        for worker in 1..1000 {
            let all = backlog.sent();
            assert_eq!(offer(&mut backlog, &failure(worker), 1, all), 1);
        }
        assert_eq!(backlog.untaken.len(), 1);
        assert_eq!(offer(&mut backlog, &failure(1000), UNTAKEN_MAX + 1, 998), UNTAKEN_MAX);
        assert_eq!(backlog.untaken.len(), 2, "the last event of worker 999 is not taken");
    }

    #[test]
    fn taken_events_make_room_and_the_count_of_those_left_out_comes_first() {
        let mut backlog = EventBacklog::default();
        offer(&mut backlog, &failure(1), UNTAKEN_MAX + 3, 0);
        assert_eq!(backlog.admit(&failure(1), 0), Admission::LeaveOut);
        assert_eq!(backlog.admit(&failure(1), 1), Admission::SendAfterReport(4));
        backlog.count_sent();
        backlog.count_sent();
        assert_eq!(backlog.admit(&failure(1), 1), Admission::LeaveOut, "one was taken");
        let all = backlog.sent();
        assert_eq!(backlog.admit(&failure(1), all), Admission::SendAfterReport(1));
        assert_eq!(backlog.untaken.values().map(VecDeque::len).sum::<usize>(), 1);
    }
}
