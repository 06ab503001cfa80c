//! Draining: how a worker learns that it shall finish what it has, and then end.
//!
//! Wanted by a disconnect from either side, or by the primary's death. It is *begun* as soon as
//! it is wanted and *reached* when every source of connections of the worker has been read to its end,
//! so that a server which stops accepting then leaves nobody behind. A worker that does not
//! accept does not hold it up for longer than [`DRAIN_READ_MS_MAX`].

use std::future::Future;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::pin::Pin;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

/// How long a drain waits for the hand-off queues to be read, in milliseconds.
pub const DRAIN_READ_MS_MAX: u64 = 1000;

/// A worker's wish to end, shared by its runtime, its listeners and whoever waits.
#[derive(Debug)]
pub(crate) struct Drain {
    state: Mutex<State>,
    changed: Condvar,
    /// Hangs up, and so is readable, once the drain has begun.
    begun: OwnedFd,
}

#[derive(Debug)]
struct State {
    /// Open until the drain begins.
    hold: Option<OwnedFd>,
    /// Hand-off queues and shared sockets that have not been read to their end.
    queues: usize,
    reached: bool,
    wakers: Vec<Waker>,
}

impl State {
    fn wait(&mut self, context: &Context<'_>) {
        if !self.wakers.iter().any(|waker| waker.will_wake(context.waker())) {
            self.wakers.push(context.waker().clone());
        }
    }
}

impl Drain {
    pub(crate) fn new() -> io::Result<Self> {
        let (begun, hold) = sys::socket::pair_stream()?;
        let state = State { hold: Some(hold), queues: 0, reached: false, wakers: Vec::new() };
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

    pub(crate) fn is_reached(&self) -> bool {
        self.lock().reached
    }

    /// Readable once the drain has begun.
    pub(crate) fn begun(&self) -> BorrowedFd<'_> {
        self.begun.as_fd()
    }

    fn reach(&self, mut state: MutexGuard<'_, State>) {
        state.reached = true;
        self.wake(state);
    }

    fn wake(&self, mut state: MutexGuard<'_, State>) {
        let wakers = std::mem::take(&mut state.wakers);
        drop(state);
        self.changed.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    fn lock(&self) -> MutexGuard<'_, State> {
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

/// Waits until this worker shall end: a future, a flag and a blocking wait in one.
///
/// Resolves when the drain is reached: a disconnect was asked for by either side or the primary
/// is gone, *and* the connections already dealt to this worker have been accepted (at most one
/// second later). Made for `axum::serve(…).with_graceful_shutdown(worker.draining())`; it needs
/// no particular runtime. Dropping it forgets nothing: ask for another.
#[derive(Clone, Debug)]
#[must_use = "a future does nothing unless it is awaited"]
pub struct Draining(pub(crate) Arc<Drain>);

impl Draining {
    /// Whether the worker has been asked to end, though its queues may not be read yet.
    #[must_use]
    pub fn has_begun(&self) -> bool {
        self.0.has_begun()
    }

    /// Blocks until the drain is reached.
    pub fn wait(&self) {
        let mut state = self.0.lock();
        while !state.reached {
            state = self.0.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

impl Future for Draining {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.reached {
            return Poll::Ready(());
        }
        state.wait(context);
        Poll::Pending
    }
}

/// Resolves when the drain begins, for those whose part it is to reach its end.
#[cfg(feature = "tokio")]
#[derive(Debug)]
pub(crate) struct Beginning(pub(crate) Arc<Drain>);

#[cfg(feature = "tokio")]
impl Future for Beginning {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        let mut state = self.0.lock();
        if state.hold.is_none() {
            return Poll::Ready(());
        }
        state.wait(context);
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_reached(drain: &Arc<Drain>) -> bool {
        let mut context = Context::from_waker(Waker::noop());
        Pin::new(&mut Draining(drain.clone())).poll(&mut context).is_ready()
    }

    #[test]
    fn without_queues_the_drain_is_reached_when_it_begins() {
        let drain = Arc::new(Drain::new().unwrap());
        assert!(!is_reached(&drain) && !drain.has_begun());
        assert!(drain.begin(), "the first call begins it");
        assert!(!drain.begin(), "the second does not");
        assert!(is_reached(&drain) && drain.has_begun());
        Draining(drain).wait();
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
}
