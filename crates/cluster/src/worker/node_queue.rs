//! The queue of connections that a Node primary sent and this worker has not accepted.
//!
//! Connections arrive on the channel, and the reactor's thread puts them into the queue. The worker
//! answers for each connection when the program accepts it: Node's primary gives no second
//! connection to a worker that has not answered, and a connection that was not accepted can still
//! go to another worker. The descriptor is readable when [`NodeQueue::accept`] has a result.
//!
//! A connection over the listener's limit is held for [`OVER_LIMIT_HOLD`]. If another connection
//! closes in that time, the held connection is admitted; otherwise the worker declines it, for
//! another worker to take. An immediate answer would make the connection go round as fast as Node's
//! primary can send when all workers are at their limit.
//!
//! A connection that arrived without its descriptor, because this process has none left, is declined
//! after the same time, and an accept reports `EMFILE`. Node's primary still has the connection.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sys::eventfd::Semaphore;

use crate::protocol::hand_off_queue::Connection;

/// The time for which a connection over the limit is held.
const OVER_LIMIT_HOLD: Duration = Duration::from_millis(20);

/// The connections of one listener, in the order of their arrival.
#[derive(Debug)]
pub(crate) struct NodeQueue {
    state: Mutex<NodeQueueState>,
    /// The number of waiting connections, and one more once no further connection will arrive.
    ready: Semaphore,
    /// The maximum of connections that wait or are open.
    limit: usize,
}

#[derive(Debug, Default)]
struct NodeQueueState {
    /// Connections to accept, each with the number of the message to answer.
    waiting: VecDeque<(i64, Connection)>,
    /// The number of accepted connections that are open.
    open: usize,
    /// Connections over the limit, with the time at which they are declined.
    over_limit: VecDeque<(Instant, i64, Connection)>,
    /// Connections that arrived without their descriptors, with the times at which they are declined.
    lost: VecDeque<(Instant, i64)>,
    /// Whether the next accept reports that a descriptor was missing.
    reports_lost: bool,
    finished: bool,
    /// No connection is admitted.
    paused: bool,
}

impl NodeQueue {
    pub(crate) fn new(limit: Option<u32>) -> io::Result<Self> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Ok(Self { state: Mutex::default(), ready: Semaphore::new()?, limit })
    }

    /// Adds a connection, or returns it when the queue is finished.
    pub(crate) fn push(
        &self,
        number: i64,
        connection: Connection,
        now: Instant,
    ) -> Result<(), Connection> {
        let mut state = self.lock();
        if state.finished {
            return Err(connection);
        }
        state.over_limit.push_back((now + OVER_LIMIT_HOLD, number, connection));
        self.admit(&mut state);
        Ok(())
    }

    /// Adds a connection that arrived without its descriptor. Returns whether the queue declines it
    /// later.
    pub(crate) fn push_lost(&self, number: i64, now: Instant) -> bool {
        let mut state = self.lock();
        if state.finished {
            return false;
        }
        state.lost.push_back((now + OVER_LIMIT_HOLD, number));
        if !std::mem::replace(&mut state.reports_lost, true) {
            self.ready.add();
        }
        true
    }

    /// Accepts the next connection without waiting; `None` when no connection waits.
    ///
    /// # Errors
    ///
    /// An error of kind `UnexpectedEof` when no further connection will arrive; `EMFILE` when no
    /// descriptor was left for one.
    pub(crate) fn accept(&self) -> io::Result<Option<(i64, Connection)>> {
        let mut state = self.lock();
        if std::mem::take(&mut state.reports_lost) {
            self.ready.take();
            return Err(io::Error::from_raw_os_error(sys::errno::EMFILE));
        }
        match state.waiting.pop_front() {
            Some(first) => {
                self.ready.take();
                state.open += 1;
                Ok(Some(first))
            }
            None if state.finished => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Ok(None),
        }
    }

    /// Counts one open connection less.
    pub(crate) fn connection_closed(&self) {
        let mut state = self.lock();
        state.open -= 1;
        self.admit(&mut state);
    }

    /// Removes and closes the connections that were held long enough, and returns their numbers.
    pub(crate) fn take_overdue(&self, now: Instant) -> Vec<i64> {
        let mut state = self.lock();
        let count = state.over_limit.iter().take_while(|(due, ..)| *due <= now).count();
        let lost = state.lost.iter().take_while(|(due, _)| *due <= now).count();
        let lost: Vec<_> = state.lost.drain(..lost).map(|(_, number)| number).collect();
        let over_limit = state.over_limit.drain(..count).map(|(_, number, _)| number);
        over_limit.chain(lost).collect()
    }

    /// Refuses further connections. Those that have arrived can be accepted, over the limit, too.
    pub(crate) fn finish(&self) {
        let mut state = self.lock();
        if !std::mem::replace(&mut state.finished, true) {
            self.admit(&mut state);
            self.ready.add();
        }
    }

    /// Pauses the queue: connections are declined as those over the limit are, and so are those that
    /// wait. Resumes it otherwise.
    pub(crate) fn set_paused(&self, paused: bool, now: Instant) {
        let mut state = self.lock();
        state.paused = paused;
        if paused && !state.finished {
            while let Some((number, connection)) = state.waiting.pop_back() {
                self.ready.take();
                state.over_limit.push_front((now, number, connection));
            }
        }
        self.admit(&mut state);
    }

    /// Finishes the queue, closes the connections that were not accepted and returns their
    /// numbers.
    pub(crate) fn close(&self) -> Vec<i64> {
        self.finish();
        let mut state = self.lock();
        let lost = std::mem::take(&mut state.lost);
        let waiting = std::mem::take(&mut state.waiting);
        let waiting = waiting.into_iter().map(|(number, _)| number);
        waiting.chain(lost.into_iter().map(|(_, number)| number)).collect()
    }

    /// Returns the time at which the first held connection is due.
    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        let state = self.lock();
        let over_limit = state.over_limit.front().map(|(due, ..)| *due);
        over_limit.into_iter().chain(state.lost.front().map(|(due, _)| *due)).min()
    }

    /// Moves held connections to the waiting ones, up to the limit.
    fn admit(&self, state: &mut NodeQueueState) {
        let limit = if state.paused { 0 } else { self.limit };
        while state.finished || state.waiting.len() + state.open < limit {
            let Some((_, number, connection)) = state.over_limit.pop_front() else { return };
            state.waiting.push_back((number, connection));
            self.ready.add();
        }
    }

    fn lock(&self) -> MutexGuard<'_, NodeQueueState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl AsFd for NodeQueue {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ready.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn connection() -> Connection {
        Connection { socket: sys::socket::pair_stream().unwrap().0, peer: None }
    }

    fn readable(node_queue: &NodeQueue) -> bool {
        sys::poll::readable(node_queue.as_fd(), Some(Duration::ZERO)).unwrap()
    }

    #[test]
    fn the_queue_is_readable_while_an_accept_has_a_result() {
        let node_queue = NodeQueue::new(None).unwrap();
        assert!(!readable(&node_queue) && node_queue.accept().unwrap().is_none());
        node_queue.push(7, connection(), Instant::now()).unwrap();
        assert!(readable(&node_queue));
        assert_eq!(node_queue.accept().unwrap().unwrap().0, 7);
        assert!(!readable(&node_queue));
        node_queue.push(8, connection(), Instant::now()).unwrap();
        node_queue.finish();
        node_queue.finish();
        assert_eq!(
            node_queue.accept().unwrap().unwrap().0,
            8,
            "a waiting connection can still be accepted"
        );
        for _ in 0..2 {
            assert!(readable(&node_queue));
            assert_eq!(node_queue.accept().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(node_queue.push(9, connection(), Instant::now()).is_err());
    }

    #[test]
    fn a_connection_over_the_limit_is_held_until_another_closes_or_its_time_is_over() {
        let now = Instant::now();
        let node_queue = NodeQueue::new(Some(2)).unwrap();
        let accept = || node_queue.accept().unwrap().map(|(number, _)| number);
        (1..=4).for_each(|number| node_queue.push(number, connection(), now).unwrap());
        assert_eq!((accept(), accept(), accept()), (Some(1), Some(2), None));
        assert!(!readable(&node_queue));
        node_queue.connection_closed();
        assert!(readable(&node_queue));
        assert_eq!((accept(), node_queue.next_deadline()), (Some(3), Some(now + OVER_LIMIT_HOLD)));
        assert!(node_queue.take_overdue(now).is_empty());
        assert_eq!(
            (node_queue.take_overdue(now + OVER_LIMIT_HOLD), node_queue.next_deadline()),
            (vec![4], None)
        );
        node_queue.push(5, connection(), now).unwrap();
        node_queue.finish();
        assert_eq!(
            (accept(), node_queue.next_deadline()),
            (Some(5), None),
            "accepted instead of reset"
        );
    }

    #[test]
    fn a_connection_without_its_descriptor_is_reported_at_once_and_declined_later() {
        let now = Instant::now();
        let node_queue = NodeQueue::new(None).unwrap();
        assert!(node_queue.push_lost(1, now) && node_queue.push_lost(2, now));
        node_queue.push(3, connection(), now).unwrap();
        let error = node_queue.accept().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(sys::errno::EMFILE), "one report for both");
        assert_eq!(node_queue.accept().unwrap().unwrap().0, 3);
        assert!(!readable(&node_queue));
        let due = now + OVER_LIMIT_HOLD;
        assert_eq!((node_queue.next_deadline(), node_queue.take_overdue(now)), (Some(due), vec![]));
        assert_eq!(node_queue.take_overdue(due), [1, 2]);
        assert!(node_queue.push_lost(4, now));
        assert_eq!(node_queue.close(), [4]);
        assert!(!node_queue.push_lost(5, now));
    }

    #[test]
    fn a_paused_queue_declines_what_waits_and_what_arrives() {
        let now = Instant::now();
        let node_queue = NodeQueue::new(None).unwrap();
        let accept = || node_queue.accept().unwrap().map(|(number, _)| number);
        (1..=2).for_each(|number| node_queue.push(number, connection(), now).unwrap());
        node_queue.set_paused(true, now);
        assert!(!readable(&node_queue) && accept().is_none());
        assert_eq!(node_queue.take_overdue(now), [1, 2]);
        node_queue.push(3, connection(), now).unwrap();
        assert!(accept().is_none());
        node_queue.set_paused(false, now);
        assert!(readable(&node_queue));
        assert_eq!(accept(), Some(3));
    }

    #[test]
    fn closing_returns_the_numbers_of_connections_that_were_not_accepted() {
        let node_queue = NodeQueue::new(None).unwrap();
        node_queue.push(1, connection(), Instant::now()).unwrap();
        node_queue.push(2, connection(), Instant::now()).unwrap();
        assert_eq!(node_queue.close(), [1, 2]);
        assert!(
            node_queue.close().is_empty()
                && node_queue.push(3, connection(), Instant::now()).is_err()
        );
    }
}
