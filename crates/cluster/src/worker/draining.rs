//! Draining: how a worker learns that it shall finish what it has, and then end.
//!
//! Wanted by a disconnect from either side, or by the primary's death. It is *begun* as soon as
//! it is wanted and *reached* when every source of connections of the worker has been read to its end,
//! so that a server which stops accepting then leaves nobody behind. A worker that does not
//! accept does not hold it up for longer than [`DRAIN_READ_MS_MAX`].

use std::collections::BTreeMap;
use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

/// How long a drain waits for the hand-off queues to be read, in milliseconds.
pub const DRAIN_READ_MS_MAX: u64 = 1000;

/// A worker's wish to end, shared by its runtime, its listeners and whoever waits.
#[derive(Debug)]
pub(crate) struct Drain {
    state: Mutex<DrainState>,
    changed: Condvar,
    /// Hangs up, and so is readable, once the drain has begun.
    begun: OwnedFd,
}

#[derive(Debug)]
struct DrainState {
    /// Open until the drain begins.
    hold: Option<OwnedFd>,
    /// Hand-off queues and shared sockets that have not been read to their end.
    queues: usize,
    reached: bool,
    /// Who waits, by the number of the wait.
    waits: BTreeMap<u64, Waker>,
    last_wait: u64,
}

impl Drain {
    pub(crate) fn new() -> io::Result<Self> {
        let (begun, hold) = sys::socket::pair_stream()?;
        let (waits, last_wait) = (BTreeMap::new(), 0);
        let state = DrainState { hold: Some(hold), queues: 0, reached: false, waits, last_wait };
        Ok(Self { state: Mutex::new(state), changed: Condvar::new(), begun })
    }

    /// Begins the drain; later calls change nothing. Answers whether this call began it.
    pub(crate) fn begin(&self) -> bool {
        let mut state = self.lock();
        let first = state.hold.take().is_some();
        if state.queues == 0 {
            self.reach(state);
        } else {
            self.wake(state);
        }
        first
    }

    /// Ends the drain although queues may be unread.
    pub(crate) fn force(&self) {
        self.reach(self.lock());
    }

    /// A source of connections is open as long as the answer lives.
    pub(crate) fn hold(self: &Arc<Self>) -> Hold {
        self.lock().queues += 1;
        Hold(self.clone())
    }

    fn queue_ended(&self) {
        let mut state = self.lock();
        state.queues = state.queues.saturating_sub(1);
        if state.queues == 0 && state.hold.is_none() {
            self.reach(state);
        }
    }

    pub(crate) fn has_begun(&self) -> bool {
        self.lock().hold.is_none()
    }

    /// Blocks until the drain has begun, and not longer than `limit`.
    pub(crate) fn wait_begun(&self, limit: Duration) {
        let state = self.lock();
        // What was awaited may as well not have come: both are the end.
        let _ = self.changed.wait_timeout_while(state, limit, |state| state.hold.is_some());
    }

    pub(crate) fn is_reached(&self) -> bool {
        self.lock().reached
    }

    /// Readable once the drain has begun.
    pub(crate) fn begun(&self) -> BorrowedFd<'_> {
        self.begun.as_fd()
    }

    fn reach(&self, mut state: MutexGuard<'_, DrainState>) {
        state.reached = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, DrainState>) {
        let waits = std::mem::take(&mut state.waits);
        drop(state);
        self.changed.notify_all();
        waits.into_values().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, DrainState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Keeps a drain from its end.
#[derive(Debug)]
pub(crate) struct Hold(Arc<Drain>);

impl Drop for Hold {
    fn drop(&mut self) {
        self.0.queue_ended();
    }
}

/// The wait of one future, which ends with it.
///
/// It is known by its number. Its waker would not do: `will_wake` may say no of two that are the
/// same, and then every poll would leave one more behind.
#[derive(Debug)]
struct Wait {
    drain: Arc<Drain>,
    number: Option<u64>,
}

impl Wait {
    fn new(drain: Arc<Drain>) -> Self {
        Self { drain, number: None }
    }

    fn poll(&mut self, context: &Context<'_>, is_over: fn(&DrainState) -> bool) -> Poll<()> {
        // Wakers are dropped when the lock is free: with one a task may go that waits here, too.
        let waker = context.waker().clone();
        let mut state = self.drain.lock();
        if is_over(&state) {
            return Poll::Ready(());
        }
        let number = *self.number.get_or_insert_with(|| {
            state.last_wait += 1;
            state.last_wait
        });
        let before = state.waits.insert(number, waker);
        drop(state);
        drop(before);
        Poll::Pending
    }
}

impl Drop for Wait {
    fn drop(&mut self) {
        if let Some(number) = self.number {
            let waker = self.drain.lock().waits.remove(&number);
            drop(waker);
        }
    }
}

impl Clone for Wait {
    fn clone(&self) -> Self {
        Self::new(self.drain.clone())
    }
}

/// Waits until this worker shall end: a future, a flag and a blocking wait in one.
///
/// Resolves when the drain is reached: a disconnect was asked for by either side or the primary
/// is gone, *and* the connections already dealt to this worker have been accepted (at most one
/// second later). Made for `axum::serve(…).with_graceful_shutdown(worker.draining())`; it needs
/// no particular runtime. Dropping it forgets nothing: ask for another.
#[derive(Clone, Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Draining(Wait);

impl Draining {
    pub(crate) fn of(drain: Arc<Drain>) -> Self {
        Self(Wait::new(drain))
    }

    /// Whether the worker has been asked to end, though its queues may not be read yet.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.drain.has_begun()
    }

    /// Blocks until the drain is reached.
    pub fn wait(&self) {
        let drain = &self.0.drain;
        let mut state = drain.lock();
        while !state.reached {
            state = drain.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Readable once the worker has been asked to end: for a program's own poll or epoll loop, beside
/// listeners that share a socket with others and so never end by themselves.
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

/// Resolves when the drain begins, for those whose part it is to reach its end.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct Beginning(Wait);

#[cfg(feature = "tokio")]
impl Beginning {
    pub(crate) fn of(drain: Arc<Drain>) -> Self {
        Self(Wait::new(drain))
    }
}

#[cfg(feature = "tokio")]
impl Future for Beginning {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        self.0.poll(context, |state| state.hold.is_none())
    }
}

#[cfg(test)]
mod tests {
    use std::task::Wake;

    use super::*;

    fn is_reached(drain: &Arc<Drain>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut Draining::of(drain.clone())).poll(&mut context).is_ready()
    }

    #[test]
    fn without_queues_the_drain_is_reached_when_it_begins() {
        let drain = Arc::new(Drain::new().unwrap());
        assert!(!is_reached(&drain) && !drain.has_begun());
        assert!(drain.begin(), "the first call begins it");
        assert!(!drain.begin(), "the second does not");
        assert!(is_reached(&drain) && drain.has_begun());
        Draining::of(drain).wait();
    }

    #[test]
    fn an_unread_queue_holds_the_drain_until_its_end_or_by_force() {
        let drain = Arc::new(Drain::new().unwrap());
        let (first, second) = (drain.hold(), drain.hold());
        drain.begin();
        drop(first);
        assert!(!is_reached(&drain), "one queue is unread");
        drop(second);
        assert!(is_reached(&drain));

        let forced = Arc::new(Drain::new().unwrap());
        let _never = forced.hold();
        forced.begin();
        assert!(!is_reached(&forced));
        forced.force();
        assert!(is_reached(&forced));
    }

    #[test]
    fn a_queue_that_ends_before_the_drain_begins_does_not_begin_it() {
        let drain = Arc::new(Drain::new().unwrap());
        drop(drain.hold());
        assert!(!is_reached(&drain));
    }

    /// A waker that is never the same as another, as far as `will_wake` knows.
    struct Stranger;

    impl Wake for Stranger {
        fn wake(self: Arc<Self>) {}
    }

    #[test]
    fn a_future_waits_once_however_often_it_is_polled_and_no_longer_than_it_lives() {
        let drain = Arc::new(Drain::new().unwrap());
        let (mut one, mut other) = (Draining::of(drain.clone()), Draining::of(drain.clone()));
        for _ in 0..10 {
            let waker = Waker::from(Arc::new(Stranger));
            let mut context = Context::from_waker(&waker);
            assert!(Pin::new(&mut one).poll(&mut context).is_pending());
            assert!(Pin::new(&mut other).poll(&mut context).is_pending());
            assert!(Pin::new(&mut one.clone()).poll(&mut context).is_pending());
        }
        assert_eq!(drain.lock().waits.len(), 2);
        drop(other);
        assert_eq!(drain.lock().waits.len(), 1);
        drain.begin();
        assert!(drain.lock().waits.is_empty(), "it was woken");
        drop(one);
    }
}
