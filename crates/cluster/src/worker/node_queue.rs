//! The inbox: connections that a Node primary sent and this worker has not accepted.
//!
//! They come on the channel, and the loop puts them here. Each is answered for when it is
//! accepted: a worker that does not accept gets no second one, and what it leaves unaccepted can
//! still go to another. The descriptor is readable when a take is worth a try.
//!
//! One that is too much for the listener's limit is held for [`REST`], and let in if another ends
//! meanwhile; then it is for another worker. Declined at once it would come back at once when all
//! workers are at theirs: Node's primary hands it round as fast as it can.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sys::semaphore::Semaphore;

use crate::protocol::hand_off_queue::Connection;

/// How long a connection above the limit is held.
const REST: Duration = Duration::from_millis(20);

#[derive(Debug)]
pub(crate) struct NodeQueue {
    waiting: Mutex<Waiting>,
    /// As many as wait, and one more when nothing will come.
    ready: Semaphore,
    /// So many may wait or be open.
    limit: usize,
}

#[derive(Debug, Default)]
struct Waiting {
    /// With the numbers they are to be answered by.
    connections: VecDeque<(i64, Connection)>,
    /// Taken, and not yet at their end.
    open: usize,
    /// Above the limit, and until when they are held.
    surplus: VecDeque<(Instant, i64, Connection)>,
    ended: bool,
}

impl NodeQueue {
    pub(crate) fn new(limit: Option<u32>) -> io::Result<Self> {
        let limit = limit.and_then(|limit| usize::try_from(limit).ok()).unwrap_or(usize::MAX);
        Ok(Self { waiting: Mutex::default(), ready: Semaphore::new()?, limit })
    }

    /// Puts a connection here; it comes back when the inbox has ended.
    pub(crate) fn put(
        &self,
        number: i64,
        connection: Connection,
        now: Instant,
    ) -> Result<(), Connection> {
        let mut waiting = self.lock();
        if waiting.ended {
            return Err(connection);
        }
        waiting.surplus.push_back((now + REST, number, connection));
        self.let_in(&mut waiting);
        Ok(())
    }

    fn let_in(&self, waiting: &mut Waiting) {
        while waiting.ended || waiting.connections.len() + waiting.open < self.limit {
            let Some((_, number, connection)) = waiting.surplus.pop_front() else { return };
            waiting.connections.push_back((number, connection));
            self.ready.add();
        }
    }

    /// When the first of those above the limit has been held long enough.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.lock().surplus.front().map(|(due, ..)| *due)
    }

    /// Gives the numbers of those that have been held long enough, and closes them here.
    pub(crate) fn overdue(&self, now: Instant) -> Vec<i64> {
        let mut waiting = self.lock();
        let count = waiting.surplus.iter().take_while(|(due, ..)| *due <= now).count();
        waiting.surplus.drain(..count).map(|(_, number, _)| number).collect()
    }

    /// Takes the next connection; `None` when none waits, an error kind of `UnexpectedEof` when
    /// none will come.
    pub(crate) fn take(&self) -> io::Result<Option<(i64, Connection)>> {
        let mut waiting = self.lock();
        match waiting.connections.pop_front() {
            Some(first) => {
                self.ready.take();
                waiting.open += 1;
                Ok(Some(first))
            }
            None if waiting.ended => Err(io::ErrorKind::UnexpectedEof.into()),
            None => Ok(None),
        }
    }

    /// One of those that were taken has ended.
    pub(crate) fn leave(&self) {
        let mut waiting = self.lock();
        waiting.open -= 1;
        self.let_in(&mut waiting);
    }

    /// Nothing more will come; what is here can still be taken, above the limit too.
    pub(crate) fn end(&self) {
        let mut waiting = self.lock();
        if !std::mem::replace(&mut waiting.ended, true) {
            self.let_in(&mut waiting);
            self.ready.add();
        }
    }

    /// Nobody takes any more; gives the numbers of those that nobody took.
    pub(crate) fn close(&self) -> Vec<i64> {
        self.end();
        std::mem::take(&mut self.lock().connections).into_iter().map(|(number, _)| number).collect()
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
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
    fn it_is_readable_while_a_take_is_worth_a_try() {
        let node_queue = NodeQueue::new(None).unwrap();
        assert!(!readable(&node_queue) && node_queue.take().unwrap().is_none());
        node_queue.put(7, connection(), Instant::now()).unwrap();
        assert!(readable(&node_queue));
        assert_eq!(node_queue.take().unwrap().unwrap().0, 7);
        assert!(!readable(&node_queue));
        node_queue.put(8, connection(), Instant::now()).unwrap();
        node_queue.end();
        node_queue.end();
        assert_eq!(node_queue.take().unwrap().unwrap().0, 8, "what was there can be taken");
        for _ in 0..2 {
            assert!(readable(&node_queue));
            assert_eq!(node_queue.take().unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        }
        assert!(node_queue.put(9, connection(), Instant::now()).is_err());
    }

    #[test]
    fn above_its_limit_one_is_held_until_another_ends_or_its_time_is_over() {
        let now = Instant::now();
        let node_queue = NodeQueue::new(Some(2)).unwrap();
        let take = || node_queue.take().unwrap().map(|(number, _)| number);
        (1..=4).for_each(|number| node_queue.put(number, connection(), now).unwrap());
        assert_eq!((take(), take(), take()), (Some(1), Some(2), None));
        assert!(!readable(&node_queue));
        node_queue.leave();
        assert!(readable(&node_queue));
        assert_eq!((take(), node_queue.due()), (Some(3), Some(now + REST)));
        assert!(node_queue.overdue(now).is_empty());
        assert_eq!((node_queue.overdue(now + REST), node_queue.due()), (vec![4], None));
        node_queue.put(5, connection(), now).unwrap();
        node_queue.end();
        assert_eq!((take(), node_queue.due()), (Some(5), None), "rather than reset");
    }

    #[test]
    fn what_nobody_took_is_named_when_it_closes() {
        let node_queue = NodeQueue::new(None).unwrap();
        node_queue.put(1, connection(), Instant::now()).unwrap();
        node_queue.put(2, connection(), Instant::now()).unwrap();
        assert_eq!(node_queue.close(), [1, 2]);
        assert!(
            node_queue.close().is_empty()
                && node_queue.put(3, connection(), Instant::now()).is_err()
        );
    }
}
