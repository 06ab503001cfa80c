//! Counts of connections, and of workers that broke the protocol.
//!
//! Pure.

/// The reason for closing a connection that no worker accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The primary ends, and no worker is left that could accept the connection.
    Shutdown,
    /// The list of waiting connections is full.
    Overflow,
    /// All listeners of the address are closed.
    NotListening,
}

/// Counts of the connections that the primary has accepted since it began.
///
/// The counts always add up: `accepted + reclaimed == dispatched + closed() + waiting`. The
/// difference `dispatched - reclaimed` has been accepted by workers or lies in their queues. With
/// [`Policy::Shared`](crate::Policy::Shared) the workers accept by themselves, and all counts are
/// 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Connections that the primary accepted.
    pub accepted: u64,
    /// Connections put into the queue of a worker. A connection may be dispatched more than once.
    pub dispatched: u64,
    /// Connections read back from the queue of a worker that ended, closed its listener or stalled.
    pub reclaimed: u64,
    /// The part of `dispatched` that had been reclaimed before.
    pub re_dispatched: u64,
    /// Connections closed because the primary ended and no worker was left.
    pub closed_shutdown: u64,
    /// Connections closed because too many were waiting.
    pub closed_overflow: u64,
    /// Connections closed because every listener of their address was closed.
    pub closed_not_listening: u64,
    /// Connections that wait in the primary at the moment, until a worker has room.
    pub waiting: u64,
    /// Workers that were ended because they broke the protocol; see
    /// [`Event::Violation`](crate::Event::Violation).
    pub violations: u64,
}

impl Counters {
    /// Returns the number of connections that were closed before a worker accepted them.
    #[must_use]
    pub fn closed(&self) -> u64 {
        self.closed_shutdown + self.closed_overflow + self.closed_not_listening
    }

    pub(crate) fn close(&mut self, reason: CloseReason, connections: u64) {
        match reason {
            CloseReason::Shutdown => self.closed_shutdown += connections,
            CloseReason::Overflow => self.closed_overflow += connections,
            CloseReason::NotListening => self.closed_not_listening += connections,
        }
    }

    pub(crate) fn add(&mut self, other: &Self) {
        self.accepted += other.accepted;
        self.dispatched += other.dispatched;
        self.reclaimed += other.reclaimed;
        self.re_dispatched += other.re_dispatched;
        self.closed_shutdown += other.closed_shutdown;
        self.closed_overflow += other.closed_overflow;
        self.closed_not_listening += other.closed_not_listening;
        self.waiting += other.waiting;
        self.violations += other.violations;
    }
}

/// Counts of the connections of one worker.
///
/// The difference `dispatched - reclaimed` has been accepted by the worker or lies in its queues.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounters {
    /// Connections put into the worker's queues.
    pub dispatched: u64,
    /// Connections read back from the worker's queues.
    pub reclaimed: u64,
    /// The part of `dispatched` that had been reclaimed before, from another worker or this one.
    pub re_dispatched: u64,
}

impl WorkerCounters {
    pub(crate) fn add(&mut self, other: &Self) {
        self.dispatched += other.dispatched;
        self.reclaimed += other.reclaimed;
        self.re_dispatched += other.re_dispatched;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_counted_and_sums_are_sums() {
        let mut counters = Counters { accepted: 9, waiting: 1, ..Counters::default() };
        counters.close(CloseReason::Shutdown, 1);
        counters.close(CloseReason::Overflow, 2);
        counters.close(CloseReason::NotListening, 3);
        assert_eq!(counters.closed(), 6);
        let mut sum = counters;
        sum.add(&counters);
        assert_eq!((sum.accepted, sum.closed(), sum.waiting), (18, 12, 2));
    }
}
