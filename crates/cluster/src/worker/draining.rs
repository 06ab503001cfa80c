//! The end of a worker: first the connections that were dispatched to it, then its exit.
//!
//! A disconnect from either side or the loss of the primary *begins* the drain. The drain is
//! *reached* when every source of connections of the worker has been read to its end: a server
//! that stops accepting then leaves no client behind. A program that does not accept delays the
//! drain by at most [`Draining::READ_MAX`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// The state of a worker's drain, shared by the runtime, the listeners and the waiting tasks.
#[derive(Debug)]
pub(crate) struct Drain {
    state: Mutex<DrainState>,
    changed: Condvar,
    /// One end of a socket pair: hangs up, and so is readable, once the drain has begun.
    begun: OwnedFd,
}

#[derive(Debug)]
struct DrainState {
    /// The other end of the pair, closed when the drain begins.
    not_begun: Option<OwnedFd>,
    /// The number of hand-off queues and sockets that have not been read to their end.
    sources: usize,
    reached: bool,
    /// The wakers of the waiting futures, by the number of the wait.
    wakers: BTreeMap<u64, Waker>,
    last_wait: u64,
}

impl Drain {
    pub(crate) fn new() -> io::Result<Self> {
        let (begun, other) = sys::socket::pair_stream()?;
        let state = DrainState {
            not_begun: Some(other),
            sources: 0,
            reached: false,
            wakers: BTreeMap::new(),
            last_wait: 0,
        };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), begun })
    }

    /// Begins the drain and returns `true`; later calls change nothing and return `false`.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let first = state.not_begun.take().is_some();
        state.reached |= state.sources == 0;
        self.wake(state);
        first
    }

    /// Marks the drain as reached, although queues may be unread.
    pub(crate) fn set_reached(&self) {
        let mut state = self.lock();
        state.reached = true;
        self.wake(state);
    }

    /// Adds a source of connections, which has been read to its end when the hold is dropped.
    pub(crate) fn hold(self: &Arc<Self>) -> DrainHold {
        self.lock().sources += 1;
        DrainHold(self.clone())
    }

    fn release(&self) {
        let mut state = self.lock();
        state.sources = state.sources.saturating_sub(1);
        if state.sources == 0 && state.not_begun.is_none() {
            state.reached = true;
            self.wake(state);
        }
    }

    /// Blocks until the drain has begun or `limit` has passed.
    pub(crate) fn wait_begun(&self, limit: Duration) {
        let state = self.lock();
        // The caller ends the process in both cases.
        let _ = self.changed.wait_timeout_while(state, limit, |state| state.not_begun.is_some());
    }

    /// Blocks until the drain is reached.
    fn wait_reached(&self) {
        let mut state = self.lock();
        while !state.reached {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.lock().not_begun.is_none()
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.lock().reached
    }

    /// Returns a descriptor that becomes readable when the drain begins.
    pub(crate) fn begun(&self) -> BorrowedFd<'_> {
        self.begun.as_fd()
    }

    fn wake(&self, mut state: MutexGuard<'_, DrainState>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, DrainState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One source of connections that a drain waits for; `drop` ends the wait for this source.
#[derive(Debug)]
pub(crate) struct DrainHold(Arc<Drain>);

impl Drop for DrainHold {
    fn drop(&mut self) {
        self.0.release();
    }
}

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

    fn poll(&mut self, context: &Context<'_>, is_over: fn(&DrainState) -> bool) -> Poll<()> {
        // Cloned before the lock is taken, and so dropped after the lock is free: a waker may own the
        // last reference to a task, and the task a future that locks here in its own `drop`.
        let waker = context.waker().clone();
        let mut state = self.drain.lock();
        if is_over(&state) {
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
        self.0.drain.wait_reached();
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
        self.0.poll(context, |state| state.reached)
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
        self.0.poll(context, |state| state.not_begun.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

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
    fn a_queue_that_ends_before_the_drain_begins_does_not_begin_the_drain() {
        let drain = Arc::new(Drain::new().unwrap());
        drop(drain.hold());
        assert!(!is_reached(&drain));
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
