//! The end of a worker: first the connections that were dispatched to it, then its exit.
//!
//! A disconnect from either side or the loss of the primary *begins* the drain. The drain is
//! *reached* when every source of connections of the worker has been read to its end, and the last
//! connections have had time for their first bytes to be read: a server that stops accepting then
//! leaves no client behind. A program that does not accept delays the drain by at most
//! [`Draining::READ_MAX`](crate::Draining::READ_MAX).

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::worker::open_connections::OpenConnections;

/// The state of a worker's drain, shared by the runtime, the listeners, the accepted connections
/// and the waiting tasks.
#[derive(Debug)]
pub(crate) struct Drain {
    state: Mutex<DrainState>,
    changed: Condvar,
    /// One end of a socket pair: hangs up, and so is readable, once the drain has begun.
    begun: OwnedFd,
    connections: OpenConnections,
    /// Set when the drain has begun, or a listener waits for its last connections to be read: the
    /// timer follows the open connections from then on.
    is_followed: AtomicBool,
    /// The timer that calls [`settle`](Self::settle).
    timer: OnceLock<reactor::Handle>,
}

#[derive(Debug)]
pub(super) struct DrainState {
    /// The other end of the pair, closed when the drain begins.
    not_begun: Option<OwnedFd>,
    /// The number of hand-off queues and sockets that have not been read to their end.
    sources: usize,
    reached: bool,
    /// The wakers of the waiting futures, by the number of the wait.
    pub(super) wakers: BTreeMap<u64, Waker>,
    pub(super) last_wait: u64,
    /// The number of threads that wait.
    threads: usize,
}

/// A condition on which a task or thread waits.
pub(super) type Condition = fn(&Drain, &DrainState) -> bool;

/// Whether the drain has begun.
pub(super) fn has_begun(_: &Drain, state: &DrainState) -> bool {
    state.not_begun.is_none()
}

/// Whether the drain is reached.
pub(super) fn is_reached(_: &Drain, state: &DrainState) -> bool {
    state.reached
}

/// Whether the last accepted connections have had time for their first bytes to be read.
pub(super) fn is_quiet(drain: &Drain, state: &DrainState) -> bool {
    state.reached || drain.connections.quiet_at().is_none_or(|at| at <= Instant::now())
}

/// Whether no accepted connection is open.
pub(super) fn is_without_connections(drain: &Drain, _: &DrainState) -> bool {
    drain.connections.open() == 0
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
            threads: 0,
        };
        Ok(Self {
            state: Mutex::new(state),
            changed: Condvar::new(),
            begun,
            connections: OpenConnections::new(),
            is_followed: AtomicBool::new(false),
            timer: OnceLock::new(),
        })
    }

    /// Sets the timer, which calls [`settle`](Self::settle) when it is woken and when the returned
    /// time has come.
    pub(super) fn set_timer(&self, timer: reactor::Handle) {
        self.timer.get_or_init(|| timer);
    }

    /// Has the timer compute its next deadline again.
    pub(super) fn wake_timer(&self) {
        if let Some(timer) = self.timer.get() {
            timer.wake();
        }
    }

    /// Begins the drain and returns `true`; later calls change nothing and return `false`.
    pub(crate) fn begin(&self) -> bool {
        self.is_followed.store(true, Ordering::SeqCst);
        let mut state = self.lock();
        let first = state.not_begun.take().is_some();
        self.update(&mut state);
        self.wake(state);
        self.wake_timer();
        first
    }

    /// Marks the drain as reached, although queues may be unread.
    pub(crate) fn set_reached(&self) {
        let mut state = self.lock();
        state.reached = true;
        self.wake(state);
    }

    /// Wakes all whose wait is over, and returns the time at which to call again: when the last
    /// connections have had their time.
    pub(super) fn settle(&self, now: Instant) -> Option<Instant> {
        if !self.is_followed.load(Ordering::SeqCst) {
            return None;
        }
        let mut state = self.lock();
        let wait = self.connections.quiet_at().filter(|at| *at > now && !state.reached);
        self.update(&mut state);
        self.wake(state);
        wait
    }

    /// Marks the drain as reached if all sources have ended and their last connections have had
    /// their time.
    fn update(&self, state: &mut DrainState) {
        let has_ended = state.not_begun.is_none() && state.sources == 0;
        state.reached |= has_ended && is_quiet(self, state);
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
            self.update(&mut state);
            self.wake(state);
            self.wake_timer();
        }
    }

    /// The program reads all of its connections.
    pub(super) fn all_read(&self) {
        if self.is_followed.load(Ordering::SeqCst) {
            self.wake_timer();
        }
    }

    /// The last open connection was closed.
    pub(super) fn all_closed(&self) {
        // Locked after the count has changed. A task that saw an open connection under the lock has
        // left its waker there.
        self.wake(self.lock());
        if self.is_followed.load(Ordering::SeqCst) {
            self.wake_timer();
        }
    }

    pub(super) fn connections(&self) -> &OpenConnections {
        &self.connections
    }

    /// Returns whether the drain is reached, every source has ended, and no connection is open.
    pub(super) fn is_complete(&self) -> bool {
        let state = self.lock();
        state.reached && state.sources == 0 && self.connections.open() == 0
    }

    /// Blocks until the drain has begun or `limit` has passed.
    pub(crate) fn wait_begun(&self, limit: Duration) {
        // The caller ends the process in both cases.
        let _ = self.wait(has_begun, Instant::now().checked_add(limit));
    }

    /// Blocks until the last accepted connections have had time for their first bytes to be read.
    pub(crate) fn wait_quiet(&self) {
        self.follow();
        self.wait(is_quiet, None);
    }

    /// Blocks until the condition holds or the time has come; returns whether it holds.
    pub(super) fn wait(&self, is_over: Condition, until: Option<Instant>) -> bool {
        let mut state = self.lock();
        state.threads += 1;
        loop {
            let over = is_over(self, &state);
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            if over || left.is_some_and(|left| left.is_zero()) {
                state.threads -= 1;
                return over;
            }
            state = match left {
                None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
                Some(left) => {
                    self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Has the timer report when the last connections have had their time.
    pub(super) fn follow(&self) {
        if !self.is_followed.swap(true, Ordering::SeqCst) {
            self.wake_timer();
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
        let has_threads = state.threads > 0;
        drop(state);
        if has_threads {
            self.changed.notify_all();
        }
        wakers.into_values().for_each(Waker::wake);
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, DrainState> {
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
