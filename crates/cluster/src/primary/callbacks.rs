//! Callbacks beside the queue of events, for all workers and for one.
//!
//! They run on the callback thread, one after the other, in the order of the events; those of a
//! worker before those of its primary. A message goes to the first that wants it, and otherwise
//! to the queue; everything else goes to all of them and to the queue.

use std::sync::Arc;

use child_process::ExitStatus;

use crate::error::Error;
use crate::primary::Primary;
use crate::primary::event::{Event, Kind};
use crate::primary::settings::Settings;
use crate::primary::subscribers::Callback;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;

/// Callbacks, on the callback thread, in the order of the events. Have them before
/// [`start`](Self::start) to miss nothing; the queue of [`events`](Self::events) gets the same
/// events, but for messages.
///
/// A callback that needs the primary holds it weakly, for the primary holds the callback:
///
/// ```no_run
/// # fn main() -> Result<(), cluster::Error> {
/// use cluster::{Primary, Restart, WorkerOptions};
/// use std::sync::Arc;
///
/// let primary = Arc::new(Primary::builder().restart(Restart::Never).build()?);
/// let own = Arc::downgrade(&primary);
/// primary.on_exit(move |worker, status| {
///     eprintln!("worker {} ended with {status}", worker.id());
///     // As Node's programs do it, without our help.
///     let forked = own.upgrade().map(|primary| primary.fork(WorkerOptions::new()));
///     if let Some(Err(error)) = forked {
///         eprintln!("{}", error.with_causes());
///     }
/// });
/// primary.fork(WorkerOptions::new())?;
/// # Ok(()) }
/// ```
impl Primary {
    /// The settings were changed.
    pub fn on_setup(&self, mut call: impl FnMut(Arc<Settings>) + Send + 'static) -> &Self {
        self.on(Kind::Setup, move |event| {
            if let Event::Setup(settings) = event {
                call(settings);
            }
        })
    }

    /// A worker's process has been started.
    pub fn on_fork(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Fork, call)
    }

    /// A worker's runtime is up.
    pub fn on_online(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Online, call)
    }

    /// A worker listens on this address.
    pub fn on_listening(
        &self,
        mut call: impl FnMut(WorkerProcess, Address) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Listening, move |event| {
            if let Event::Listening(worker, address) = event {
                call(worker, address);
            }
        })
    }

    /// A worker sent this, and has no callback of its own for it. The queue does not get it then. Of
    /// several such callbacks the first is called, for a message has one owner.
    pub fn on_message(
        &self,
        mut call: impl FnMut(WorkerProcess, ipc::Message) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Message, move |event| {
            if let Event::Message(worker, message) = event {
                call(worker, message);
            }
        })
    }

    /// A worker left its queue unread for too long and is being killed, to be replaced.
    pub fn on_unresponsive(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Unresponsive, call)
    }

    /// A reload is over: every worker has been replaced.
    pub fn on_reloaded(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Reloaded, move |_| call())
    }

    /// A worker's channel is closed.
    pub fn on_disconnect(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Disconnect, call)
    }

    /// A worker's process has ended.
    pub fn on_exit(
        &self,
        mut call: impl FnMut(WorkerProcess, ExitStatus) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Exit, move |event| {
            if let Event::Exit(worker, status) = event {
                call(worker, status);
            }
        })
    }

    /// Something failed that concerns this worker, or none that exists.
    pub fn on_error(
        &self,
        mut call: impl FnMut(Option<u32>, Arc<Error>) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Error, move |event| {
            if let Event::Error(worker, error) = event {
                call(worker, error);
            }
        })
    }

    fn on_worker(&self, kind: Kind, mut call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on(kind, move |event| {
            if let Some(worker) = event.worker() {
                call(worker.clone());
            }
        })
    }

    fn on(&self, kind: Kind, call: impl FnMut(Event) + Send + 'static) -> &Self {
        self.shared().lock().subscribers.add(Callback::new(None, kind, call));
        self
    }
}

/// Callbacks, on the callback thread, in the order of the events and before those of the primary.
/// What had happened before is told at once, but for messages and errors: to miss none of these
/// use the primary's, and have it before the worker is started.
impl WorkerProcess {
    /// Its runtime is up.
    pub fn on_online(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Online, move |_| call())
    }

    /// It listens on this address.
    pub fn on_listening(&self, mut call: impl FnMut(Address) + Send + 'static) -> &Self {
        self.on(Kind::Listening, move |event| {
            if let Event::Listening(_, address) = event {
                call(address);
            }
        })
    }

    /// It sent this. The primary's callback and queue do not get it then. Of several such callbacks
    /// the first is called.
    pub fn on_message(&self, mut call: impl FnMut(ipc::Message) + Send + 'static) -> &Self {
        self.on(Kind::Message, move |event| {
            if let Event::Message(_, message) = event {
                call(message);
            }
        })
    }

    /// Its channel is closed.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Disconnect, move |_| call())
    }

    /// Its process has ended.
    pub fn on_exit(&self, mut call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(Kind::Exit, move |event| {
            if let Event::Exit(_, status) = event {
                call(status);
            }
        })
    }

    /// Something that concerns it failed.
    pub fn on_error(&self, mut call: impl FnMut(Arc<Error>) + Send + 'static) -> &Self {
        self.on(Kind::Error, move |event| {
            if let Event::Error(_, error) = event {
                call(error);
            }
        })
    }

    fn on(&self, kind: Kind, call: impl FnMut(Event) + Send + 'static) -> &Self {
        let callback = Callback::new(Some(self.id()), kind, call);
        // Events are emitted under the same lock, so none is missed between past and future.
        self.shared().lock().subscribers.add_for(self, callback);
        self
    }
}
