//! Cancellation of any number of children by one token.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::Instant;

use sys::signal::Signal;

use crate::child_state::Shared;
use crate::ending::GIVE_UP_AFTER;
use crate::error::Error;

/// A token that cancels every child it was given to, once.
///
/// Clones share the token. A child that is started with a cancelled token is started and sent its
/// kill signal at once, as in Node.
///
/// ```
/// use brood_child_process::{CancelToken, Command, ExitStatus, Signal};
///
/// let stop = CancelToken::new();
/// let sleeper = Command::new("sleep").arg("60").cancel_with(&stop).spawn()?;
/// stop.cancel_because("no longer needed");
/// assert_eq!(sleeper.wait()?, ExitStatus::Signal(Signal::TERM));
/// # Ok::<(), brood_child_process::Error>(())
/// ```
#[derive(Clone, Default)]
#[doc(alias = "AbortController")]
#[doc(alias = "AbortSignal")]
pub struct CancelToken(Arc<Mutex<TokenState>>);

#[derive(Default)]
struct TokenState {
    /// `Some` once cancelled; the inner level is the reason.
    cancelled: Option<Option<String>>,
    children: Vec<Weak<Shared>>,
}

impl CancelToken {
    /// Creates a token that is not cancelled.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sends each child its kill signal and emits an [`Event::Error`](crate::Event::Error) with
    /// [`Error::Cancelled`](crate::Error::Cancelled). A second call does nothing.
    ///
    /// A child that still runs after [`kill_after`](crate::Command::kill_after) is sent `SIGKILL`.
    pub fn cancel(&self) {
        self.cancel_children(None);
    }

    /// Cancels with a reason, which the error names. See [`cancel`](Self::cancel).
    pub fn cancel_because(&self, reason: impl Into<String>) {
        self.cancel_children(Some(reason.into()));
    }

    /// Returns whether the token was cancelled.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled.is_some()
    }

    /// Returns the number of running children that the token would cancel.
    #[must_use]
    pub fn children(&self) -> usize {
        let is_alive = |child: &Weak<Shared>| {
            child.upgrade().is_some_and(|shared| matches!(shared.process.try_wait(), Ok(None)))
        };
        self.state().children.iter().filter(|child| is_alive(child)).count()
    }

    pub(crate) fn watch(&self, shared: &Arc<Shared>) {
        let mut state = self.state();
        if let Some(reason) = state.cancelled.clone() {
            // Cancelling takes the locks of the child.
            drop(state);
            return shared.cancel(reason);
        }
        state.children.retain(|child| child.strong_count() > 0);
        state.children.push(Arc::downgrade(shared));
    }

    fn cancel_children(&self, reason: Option<String>) {
        let mut state = self.state();
        if state.cancelled.is_some() {
            return;
        }
        state.cancelled = Some(reason.clone());
        let children = std::mem::take(&mut state.children);
        drop(state);
        for shared in children.iter().filter_map(Weak::upgrade) {
            shared.cancel(reason.clone());
        }
    }

    fn state(&self) -> MutexGuard<'_, TokenState> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for CancelToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancelToken").field("cancelled", &self.is_cancelled()).finish()
    }
}

impl Shared {
    /// Sends the kill signal and reports the reason, unless the process has ended.
    fn cancel(self: &Arc<Self>, reason: Option<String>) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        // Before the signal: a caller that sees the process end must find the reason.
        self.mark_cancelled(reason.clone());
        self.report(Error::Cancelled(reason.clone()));
        match self.end(self.kill.signal) {
            Ok(_) => {}
            Err(error @ Error::Tree(_)) => self.report(error),
            // A second signal would fail as this one has.
            Err(error) => {
                self.given_up.set(error.copy());
                return self.report(error);
            }
        }
        // The driver sends the second signal.
        if self.wake_driver().is_err() {
            self.kill_without_the_loop(reason);
        }
    }

    /// Sends `SIGKILL` when its time has come, on a thread of its own, and gives the process up as the
    /// driver would.
    fn kill_without_the_loop(self: &Arc<Self>, reason: Option<String>) {
        let shared = Arc::clone(self);
        let until = Instant::now().checked_add(self.kill.after);
        let kill = move || {
            if matches!(shared.process.wait_until(until), Ok(None)) {
                // Fails only when the process has ended, or as the first signal has.
                let _ = shared.end(Signal::KILL);
                let until = Instant::now() + GIVE_UP_AFTER;
                if matches!(shared.process.wait_until(Some(until)), Ok(None)) {
                    shared.given_up.set(Error::Cancelled(reason));
                }
            }
        };
        if thread::Builder::new().name("brood-kill".to_owned()).spawn(kill).is_err() {
            let _ = self.end(Signal::KILL);
        }
    }
}
