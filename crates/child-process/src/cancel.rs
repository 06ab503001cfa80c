//! Cancelling: one switch for any number of children.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::error::Error;
use crate::shared::Shared;

/// A switch that ends every child it was given to, once.
///
/// Clones are the same switch. A child that is started with a switch already thrown is started
/// and ended at once, as in Node.
///
/// ```
/// use child_process::{CancelToken, Command, ExitStatus, Signal};
///
/// let stop = CancelToken::new();
/// let sleeper = Command::new("sleep").arg("60").cancel_with(&stop).spawn()?;
/// stop.cancel_because("no longer needed");
/// assert_eq!(sleeper.wait()?, ExitStatus::Signal(Signal::TERM));
/// # Ok::<(), child_process::Error>(())
/// ```
#[derive(Clone, Default)]
#[doc(alias = "AbortController")]
#[doc(alias = "AbortSignal")]
pub struct CancelToken(Arc<Mutex<TokenState>>);

#[derive(Default)]
struct TokenState {
    /// The inner level: the reason.
    cancelled: Option<Option<String>>,
    children: Vec<Weak<Shared>>,
}

impl CancelToken {
    /// A switch that is not thrown.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Ends the children: each gets its kill signal, and an
    /// [`Event::Error`](crate::Event::Error) that says it was cancelled. A second call does
    /// nothing.
    pub fn cancel(&self) {
        self.cancel_children(None);
    }

    /// As [`cancel`](Self::cancel), with a reason for the error.
    pub fn cancel_because(&self, reason: impl Into<String>) {
        self.cancel_children(Some(reason.into()));
    }

    /// Whether it was thrown.
    #[must_use]
    pub fn is_cancelled(&self) -> bool {
        self.state().cancelled.is_some()
    }

    /// How many living children it would end.
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
    /// Sends the kill signal and tells why, unless the process has ended.
    fn cancel(self: &Arc<Self>, reason: Option<String>) {
        if !matches!(self.process.try_wait(), Ok(None)) {
            return;
        }
        // Before the signal: who sees the end shall know why.
        self.mark_cancelled(reason.clone());
        self.report(Error::Cancelled(reason));
        if let Err(error) = self.process.signal(self.kill_signal) {
            self.report(Error::Os("kill", error));
        }
    }
}
