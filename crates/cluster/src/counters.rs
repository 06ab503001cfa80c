//! What became of the connections, in numbers.
//!
//! Pure.

/// Why a connection was closed unserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CloseReason {
    /// The primary ends and no worker is left to serve it.
    Shutdown,
    /// The list of waiting connections is full.
    Overflow,
    /// All listeners of its address are closed.
    NotListening,
}

/// What became of the connections that the primary accepted, since it began.
///
/// They always add up: `accepted + reclaimed == dispatched + closed() + waiting`. What was
/// dispatched and not taken back, `dispatched - reclaimed`, has been delivered or lies in a
/// worker's queue. With [`Policy::Shared`](crate::Policy::Shared) the workers accept by themselves
/// and all are 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Counters {
    /// Taken from the kernel.
    pub accepted: u64,
    /// Put into a worker's queue; a connection may be more than once.
    pub dispatched: u64,
    /// Read back from the queue of a worker that ended, closed its listener or was stuck.
    pub reclaimed: u64,
    /// Those of `dispatched` that had been taken back before.
    pub re_dispatched: u64,
    /// Closed because the primary ended and nobody was left to serve them.
    pub closed_shutdown: u64,
    /// Closed because too many were waiting.
    pub closed_overflow: u64,
    /// Closed because every listener of their address was closed.
    pub closed_not_listening: u64,
    /// Held by the primary until a worker has room, now.
    pub waiting: u64,
}

impl Counters {
    /// All that were closed unserved.
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
    }
}

/// What one worker had to do with it; `dispatched - reclaimed` are delivered or in its queue.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct WorkerCounters {
    /// Put into its queues.
    pub dispatched: u64,
    /// Read back from its queues.
    pub reclaimed: u64,
    /// Those of `dispatched` that had been taken back, from another worker or from this one.
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
