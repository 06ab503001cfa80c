//! Callbacks for events: of all workers, and of one.
//!
//! Callbacks run on the callback thread, one after the other, in the order of the events. Callbacks
//! of a worker run before those of its primary. A message goes to the first callback for messages,
//! and without one to the queue of events. All other events go to all callbacks and to the queue.

use std::sync::Arc;

use child_process::ExitStatus;

use crate::contract::WorkerId;
use crate::error::Error;
use crate::primary::Primary;
use crate::primary::event::{Event, Kind};
use crate::primary::settings::Settings;
use crate::primary::subscribers::Callback;
use crate::primary::worker_process::WorkerProcess;
use crate::protocol::address::Address;
use crate::protocol::violation::Violation;

/// Callbacks for events of all workers. They run on the callback thread, in the order of the
/// events.
///
/// Add callbacks before [`start`](Self::start) to get every event. The queue of
/// [`take_events`](Self::take_events) gets the same events, except messages that a callback takes.
///
/// The primary owns its callbacks, so a callback that uses the primary needs a weak reference:
///
/// ```no_run
/// # fn main() -> Result<(), brood_cluster::Error> {
/// use brood_cluster::{Primary, Restart, WorkerOptions};
/// use std::sync::Arc;
///
/// let primary = Arc::new(Primary::builder().restart(Restart::Never).build()?);
/// let weak = Arc::downgrade(&primary);
/// primary.on_exit(move |worker, status| {
///     eprintln!("worker {} ended with {status}", worker.id());
///     // Starts the next worker as Node programs do; `Restart::Never` turned restarts off.
///     let forked = weak.upgrade().map(|primary| primary.fork(WorkerOptions::new()));
///     if let Some(Err(error)) = forked {
///         eprintln!("{error:?}");
///     }
/// });
/// primary.fork(WorkerOptions::new())?;
/// # Ok(()) }
/// ```
impl Primary {
    /// Calls back when the settings were changed.
    pub fn on_setup(&self, mut call: impl FnMut(Arc<Settings>) + Send + 'static) -> &Self {
        self.on(Kind::Setup, move |event| {
            if let Event::Setup { settings } = event {
                call(settings);
            }
        })
    }

    /// Calls back when the process of a worker was started.
    pub fn on_fork(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Fork, call)
    }

    /// Calls back when the runtime of a worker is up.
    pub fn on_online(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Online, call)
    }

    /// Calls back when a worker listens on an address.
    pub fn on_listening(
        &self,
        mut call: impl FnMut(WorkerProcess, Address) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Listening, move |event| {
            if let Event::Listening { worker, address } = event {
                call(worker, address);
            }
        })
    }

    /// Calls back for messages of workers that have no callback of their own for messages.
    ///
    /// The queue of events does not get these messages. A message has one owner: of several
    /// callbacks only the first is called.
    pub fn on_message(
        &self,
        mut call: impl FnMut(WorkerProcess, ipc::Message) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Message, move |event| {
            if let Event::Message { worker, message } = event {
                call(worker, message);
            }
        })
    }

    /// Calls back when a worker left its queue unread for too long. The worker is being killed and
    /// will be replaced.
    pub fn on_unresponsive(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Unresponsive, call)
    }

    /// Calls back when a worker broke the protocol. The worker is being killed and will be replaced;
    /// see [`Event::Violation`](crate::Event::Violation).
    pub fn on_violation(
        &self,
        mut call: impl FnMut(WorkerProcess, Violation) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Violation, move |event| {
            if let Event::Violation { worker, violation } = event {
                call(worker, violation);
            }
        })
    }

    /// Calls back when a reload has replaced every worker.
    pub fn on_reloaded(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Reloaded, move |_| call())
    }

    /// Calls back when the channel of a worker is closed.
    pub fn on_disconnect(&self, call: impl FnMut(WorkerProcess) + Send + 'static) -> &Self {
        self.on_worker(Kind::Disconnect, call)
    }

    /// Calls back when the process of a worker has ended.
    pub fn on_exit(
        &self,
        mut call: impl FnMut(WorkerProcess, ExitStatus) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Exit, move |event| {
            if let Event::Exit { worker, status } = event {
                call(worker, status);
            }
        })
    }

    /// Calls back when the primary has given up an address; see
    /// [`Event::AddressClosed`](crate::Event::AddressClosed).
    pub fn on_address_closed(&self, mut call: impl FnMut(Address) + Send + 'static) -> &Self {
        self.on(Kind::AddressClosed, move |event| {
            if let Event::AddressClosed { address } = event {
                call(address);
            }
        })
    }

    /// Calls back when an operation failed, with the number of the worker if one is concerned.
    pub fn on_error(
        &self,
        mut call: impl FnMut(Option<WorkerId>, Arc<Error>) + Send + 'static,
    ) -> &Self {
        self.on(Kind::Error, move |event| {
            if let Event::Error { worker, error } = event {
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

/// Callbacks for events of one worker. They run on the callback thread, in the order of the events,
/// before the callbacks of the primary.
///
/// A new callback gets the earlier events of the worker at once, except messages and errors. To get
/// all of those, add a callback to the primary before the worker is started.
impl WorkerProcess {
    /// Calls back when the runtime of the worker is up.
    pub fn on_online(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Online, move |_| call())
    }

    /// Calls back when the worker listens on an address.
    pub fn on_listening(&self, mut call: impl FnMut(Address) + Send + 'static) -> &Self {
        self.on(Kind::Listening, move |event| {
            if let Event::Listening { address, .. } = event {
                call(address);
            }
        })
    }

    /// Calls back for messages of the worker.
    ///
    /// Callbacks of the primary and the queue of events do not get these messages. A message has
    /// one owner: of several callbacks only the first is called.
    pub fn on_message(&self, mut call: impl FnMut(ipc::Message) + Send + 'static) -> &Self {
        self.on(Kind::Message, move |event| {
            if let Event::Message { message, .. } = event {
                call(message);
            }
        })
    }

    /// Calls back when the channel of the worker is closed.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.on(Kind::Disconnect, move |_| call())
    }

    /// Calls back when the process of the worker has ended.
    pub fn on_exit(&self, mut call: impl FnMut(ExitStatus) + Send + 'static) -> &Self {
        self.on(Kind::Exit, move |event| {
            if let Event::Exit { status, .. } = event {
                call(status);
            }
        })
    }

    /// Calls back when an operation for the worker failed.
    pub fn on_error(&self, mut call: impl FnMut(Arc<Error>) + Send + 'static) -> &Self {
        self.on(Kind::Error, move |event| {
            if let Event::Error { error, .. } = event {
                call(error);
            }
        })
    }

    fn on(&self, kind: Kind, call: impl FnMut(Event) + Send + 'static) -> &Self {
        let callback = Callback::new(Some(self.id()), kind, call);
        // Events are emitted under this lock, so none is lost between past and future.
        self.shared().lock().subscribers.add_for(self, callback);
        self
    }
}
