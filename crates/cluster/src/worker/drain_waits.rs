//! The waits for the stages of a worker's end, each a future and most of them a blocking call, too.

use std::future::Future;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use crate::worker::draining::{Condition, Drain, is_reached, is_without_connections};
#[cfg(feature = "tokio")]
use crate::worker::draining::{has_begun, is_quiet};

/// The place of one future among the waiting tasks; `drop` removes its waker.
///
/// The number identifies the wait. The waker cannot: `will_wake` may answer `false` for two equal
/// wakers, and each poll would then leave one more waker behind.
#[derive(Debug)]
struct DrainWait {
    drain: Arc<Drain>,
    number: Option<u64>,
}

impl DrainWait {
    fn new(drain: Arc<Drain>) -> Self {
        Self { drain, number: None }
    }

    fn poll(&mut self, context: &Context<'_>, is_over: Condition) -> Poll<()> {
        // Cloned before the lock is taken, and so dropped after the lock is free: a waker may own the
        // last reference to a task, and the task a future that locks here in its own `drop`.
        let waker = context.waker().clone();
        let mut state = self.drain.lock();
        if is_over(&self.drain, &state) {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.last_wait += 1;
            state.last_wait
        });
        let before = state.wakers.insert(number, waker);
        drop(state);
        // For the same reason the earlier waker is dropped last.
        drop(before);
        Poll::Pending
    }
}

impl Drop for DrainWait {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            // The lock is free again before the waker is dropped, as in `poll`.
            let waker = self.drain.lock().wakers.remove(&number);
            drop(waker);
        }
    }
}

impl Clone for DrainWait {
    fn clone(&self) -> Self {
        Self::new(self.drain.clone())
    }
}

/// A wait for the end of this worker: a future, a flag and a blocking call in one.
///
/// The future resolves when the drain is reached: either side has asked for a disconnect or the
/// primary is gone, *and* the connections that were dispatched to this worker have been accepted.
/// The program has at most [`READ_MAX`](Self::READ_MAX) for the second part. The future needs no
/// particular runtime, and fits `axum::serve(…).with_graceful_shutdown(worker.draining())`.
///
/// Dropping or cloning it does not affect the drain; [`Worker::draining`](crate::Worker::draining)
/// returns as many of them as a program needs.
///
/// ```no_run
/// let worker = brood_cluster::Worker::current().expect("a primary started this process");
/// worker.draining().wait();
/// println!("all connections are accepted");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Draining(DrainWait);

impl Draining {
    /// The longest time that a drain waits for the program to accept the connections that were
    /// dispatched to it: 1 s.
    pub const READ_MAX: Duration = Duration::from_secs(1);

    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        Self(DrainWait::new(drain))
    }

    /// Blocks until the drain is reached.
    pub fn wait(&self) {
        self.0.drain.wait(is_reached, None);
    }

    /// Returns whether the drain has begun. Connections may still wait to be accepted.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.drain.has_begun()
    }
}

/// A descriptor that becomes readable when the drain *begins*, for a program's own poll or epoll
/// loop. Listeners that share a socket with other processes never end by themselves; a loop over
/// such listeners polls this descriptor beside them.
impl AsFd for Draining {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.drain.begun()
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context, is_reached)
    }
}

/// A future that resolves when the drain begins, for listeners that have to reach its end.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct DrainBegun(DrainWait);

#[cfg(feature = "tokio")]
impl DrainBegun {
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        Self(DrainWait::new(drain))
    }
}

#[cfg(feature = "tokio")]
impl Future for DrainBegun {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context, has_begun)
    }
}

/// A future for the end of a listener: the last accepted connections have had time for their first
/// bytes to be read.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct Quiet(DrainWait);

#[cfg(feature = "tokio")]
impl Quiet {
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        drain.follow();
        Self(DrainWait::new(drain))
    }
}

#[cfg(feature = "tokio")]
impl Future for Quiet {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context, is_quiet)
    }
}

/// A wait until this worker has no open connection: a future and a blocking call in one.
///
/// [`Worker::all_closed`](crate::Worker::all_closed) returns it. The wait is over when
/// [`Worker::open`](crate::Worker::open) is 0. It needs no particular runtime, and says nothing
/// about connections that are accepted later; after the drain there are none.
///
/// ```no_run
/// let worker = brood_cluster::Worker::current().expect("a primary started this process");
/// worker.draining().wait();
/// worker.all_closed().wait();
/// println!("all connections are closed");
/// ```
#[derive(Clone, Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct AllClosed(DrainWait);

impl AllClosed {
    pub(crate) fn new(drain: Arc<Drain>) -> Self {
        Self(DrainWait::new(drain))
    }

    /// Blocks until no connection is open.
    pub fn wait(&self) {
        self.0.drain.wait(is_without_connections, None);
    }

    /// Blocks until no connection is open, but at most for `limit`. Returns the number of
    /// connections that are open then.
    pub fn wait_timeout(&self, limit: Duration) -> usize {
        self.0.drain.wait(is_without_connections, Instant::now().checked_add(limit));
        self.0.drain.connections().open()
    }
}

impl Future for AllClosed {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context, is_without_connections)
    }
}

#[cfg(test)]
mod tests {
    use std::task::{Wake, Waker};

    use crossbeam_channel::{Sender, unbounded};

    use crate::worker::open_connections::OpenConnection;

    use super::*;

    fn is_reached(drain: &Arc<Drain>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut Draining::new(drain.clone())).poll(&mut context).is_ready()
    }

    #[test]
    fn without_queues_the_drain_is_reached_when_it_begins() {
        let drain = Arc::new(Drain::new().unwrap());
        assert!(!is_reached(&drain) && !drain.has_begun());
        assert!(drain.begin(), "the first call begins the drain");
        assert!(!drain.begin(), "the second does not");
        assert!(is_reached(&drain) && drain.has_begun());
        Draining::new(drain).wait();
    }

    #[test]
    fn an_unread_queue_keeps_the_drain_from_being_reached_until_it_ends_or_time_is_up() {
        let drain = Arc::new(Drain::new().unwrap());
        let (first, second) = (drain.hold(), drain.hold());
        drain.begin();
        drop(first);
        assert!(!is_reached(&drain), "one queue is unread");
        drop(second);
        assert!(is_reached(&drain));

        let overdue = Arc::new(Drain::new().unwrap());
        let _never = overdue.hold();
        overdue.begin();
        assert!(!is_reached(&overdue));
        overdue.set_reached();
        assert!(is_reached(&overdue));
    }

    #[test]
    fn a_drain_is_reached_when_the_last_connections_have_had_their_time() {
        let drain = Arc::new(Drain::new().unwrap());
        let hold = drain.hold();
        let connection = OpenConnection::new(drain.clone());
        drain.begin();
        drop(hold);
        assert!(!is_reached(&drain), "the connection was accepted a moment ago");
        let at = drain.settle(Instant::now()).expect("a time");
        drain.wait(|_, _| false, Some(at));
        assert_eq!(drain.settle(Instant::now()), None);
        assert!(is_reached(&drain) && !drain.is_complete());
        let mut closed = AllClosed::new(drain.clone());
        let mut context = Context::from_waker(Waker::noop());
        assert!(Pin::new(&mut closed).poll(&mut context).is_pending());
        assert_eq!(closed.wait_timeout(Duration::ZERO), 1);
        drop(connection);
        assert!(Pin::new(&mut closed).poll(&mut context).is_ready() && drain.is_complete());
        closed.wait();
        assert_eq!(closed.wait_timeout(Duration::MAX), 0);
    }

    #[test]
    fn a_queue_that_ends_before_the_drain_begins_does_not_begin_the_drain() {
        let drain = Arc::new(Drain::new().unwrap());
        drop(drain.hold());
        assert!(!is_reached(&drain));
    }

    /// A timer that reports each of its events.
    struct Timer(Sender<reactor::Event>);

    impl reactor::Source for Timer {
        fn event(&mut self, event: reactor::Event, _: &mut reactor::Turn<'_>) {
            self.0.send(event).unwrap();
        }
    }

    #[test]
    fn the_timer_is_woken_whenever_its_next_time_may_be_another() {
        let drain = Arc::new(Drain::new().unwrap());
        let (sender, events) = unbounded();
        drain.set_timer(reactor::reactor().unwrap().add(Timer(sender)));
        let next = || events.recv_timeout(Duration::from_secs(5)).ok();
        assert_eq!(next(), Some(reactor::Event::Start));
        let connection = OpenConnection::new(drain.clone());
        drain.all_read();
        assert_eq!(drain.settle(Instant::now()), None, "nothing waits for the connection");
        let hold = drain.hold();
        drain.follow();
        assert_eq!(next(), Some(reactor::Event::Wake), "a listener waits");
        assert!(drain.settle(Instant::now()).is_some());
        drain.all_read();
        assert_eq!(next(), Some(reactor::Event::Wake), "the connections are read");
        drain.begin();
        assert_eq!(next(), Some(reactor::Event::Wake), "the drain has begun");
        drop(hold);
        assert_eq!(next(), Some(reactor::Event::Wake), "the last source has ended");
        drop(connection);
        assert_eq!(next(), Some(reactor::Event::Wake), "the last connection is closed");
    }

    /// A waker that `will_wake` never considers equal to another.
    struct UniqueWaker;

    impl Wake for UniqueWaker {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_future_has_one_waker_however_often_it_is_polled_and_none_after_its_drop() {
        let drain = Arc::new(Drain::new().unwrap());
        let (mut one, mut other) = (Draining::new(drain.clone()), Draining::new(drain.clone()));
        for _ in 0..10 {
            let waker = Waker::from(Arc::new(UniqueWaker));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(&mut one).poll(&mut context).is_pending());
            assert!(Pin::new(&mut other).poll(&mut context).is_pending());
            assert!(Pin::new(&mut one.clone()).poll(&mut context).is_pending());
        }
        assert_eq!(drain.lock().wakers.len(), 2);
        drop(other);
        assert_eq!(drain.lock().wakers.len(), 1);
        drain.begin();
        assert!(drain.lock().wakers.is_empty(), "the waker was called");
        drop(one);
    }
}
