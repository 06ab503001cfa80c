//! The signals that a service manager, a terminal or an operator sends to all processes of a service.
//!
//! `SIGTERM` makes the worker disconnect itself: it finishes its connections and ends. `SIGINT` and
//! `SIGHUP` are the primary's affair, and have no effect on a worker. Handlers do this, because an
//! ignored signal would stay ignored in the programs that the worker starts.
//!
//! Signals of the primary itself have their usual effect: those of `WorkerProcess::kill`, and the
//! `SIGTERM` for a worker whose time is up. A second `SIGTERM` of others has it as well.

use std::io;
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;
use std::sync::Arc;
use std::time::{Duration, Instant};

use reactor::{Event, Interest, Source, Token, Turn};
use sys::signal::{Arrivals, Signal, SignalWatch};

use crate::worker::Worker;
use crate::worker::runtime::Runtime;

/// The treatment of `SIGTERM`, `SIGINT` and `SIGHUP` by a worker's runtime.
///
/// [`Worker::current_with`] takes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum WorkerSignals {
    /// `SIGTERM` begins a drain, `SIGINT` and `SIGHUP` are left to the primary.
    ///
    /// Handlers are installed for those of the three signals that have their default disposition
    /// when the worker's runtime starts. A handler of the program's own, and a signal that is
    /// ignored, stay as they are. A signal that arrives before the runtime starts waits for it,
    /// from the beginning of `main` on. A second `SIGTERM` ends the process, and so does every signal of
    /// [`WorkerProcess::kill`](crate::WorkerProcess::kill). Below a Node primary the process is
    /// ended 5 s after the first `SIGTERM`, because Node's primary has no limit for a drain.
    #[default]
    Drain,
    /// The runtime installs no handler. Until it starts, the three signals wait; one that has
    /// arrived is raised again at the start.
    Untouched,
}

/// The time that a worker of a Node primary has from `SIGTERM` to its end. Node's primary has no
/// such limit of its own.
const TERM_DRAIN_MAX: Duration = Duration::from_secs(5);

/// Installs the handlers.
///
/// # Errors
///
/// The errors of [`SignalWatch::where_default`].
pub(super) fn watch(runtime: Arc<Runtime>, reactor: &reactor::Reactor) -> io::Result<()> {
    let watch = SignalWatch::where_default(&[Signal::TERM, Signal::INT, Signal::HUP])?;
    reactor.add(SignalSource { runtime, watch, terms: 0, ends_at: None });
    Ok(())
}

/// The reactor source that handles the signals.
struct SignalSource {
    runtime: Arc<Runtime>,
    watch: SignalWatch,
    /// The number of `SIGTERM`s so far.
    terms: u32,
    /// The time at which a worker of a Node primary ends.
    ends_at: Option<Instant>,
}

impl SignalSource {
    fn handle(&mut self, arrivals: Arrivals, now: Instant) {
        let signal = arrivals.signal;
        if arrivals.queued_by == Some(parent_id()) {
            return self.end(signal);
        }
        if signal != Signal::TERM {
            return;
        }
        self.terms += arrivals.times;
        if self.terms > 1 {
            return self.end(signal);
        }
        if self.runtime.node_primary().is_some() {
            self.ends_at = now.checked_add(TERM_DRAIN_MAX);
        }
        Worker(self.runtime.clone()).disconnect();
    }

    /// Gives the signals their usual effect, and sends this one once more.
    fn end(&self, signal: Signal) {
        self.watch.restore();
        // Fails only for a process that does not exist.
        let _ = sys::signal::kill(std::process::id(), signal);
    }
}

impl Source for SignalSource {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        if event == Event::Start {
            let watched = turn.register(self.watch.as_fd(), Token(0), Interest::READABLE);
            if watched.is_err() {
                // The signals have their usual effect again.
                return turn.remove();
            }
        }
        for arrivals in self.watch.arrivals() {
            self.handle(arrivals, turn.now());
        }
        if self.ends_at.is_some_and(|at| at <= turn.now()) {
            self.ends_at = None;
            self.end(Signal::TERM);
        }
        turn.set_deadline(self.ends_at);
    }
}
