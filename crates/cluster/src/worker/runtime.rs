//! The worker's runtime: its way to the primary, and its end.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use child_process::Parent;
use crossbeam_channel::{Receiver, Sender};
use reactor::{Source, Turn};

use crate::protocol::address::Address;
use crate::protocol::message::{ListenGrant, ToPrimary, ToWorker};
use crate::worker::draining::{DRAIN_READ_MS_MAX, Drain};
use crate::worker::node_primary::NodePrimary;
use crate::worker::node_queue::NodeQueue;

pub(super) type OnDisconnect = Box<dyn FnOnce() + Send>;
pub(super) type OnError = Box<dyn Fn(Arc<child_process::Error>) + Send>;

/// Who gets the primary's messages.
pub(super) enum Sink {
    Queue(Sender<ipc::Message>),
    Callback(Box<dyn Fn(ipc::Message) + Send>),
}

impl Sink {
    pub(super) fn put(&self, message: ipc::Message) {
        match self {
            // Refused where the receiver was dropped: nobody wants messages.
            Self::Queue(queue) => drop(queue.send(message)),
            Self::Callback(call) => call(message),
        }
    }
}

/// Who waits for which answer.
pub(super) type Requests = HashMap<u32, Sender<Result<Granted, i32>>>;

/// What a wish to listen comes to.
#[derive(Debug)]
pub(crate) enum Granted {
    /// A descriptor to accept from.
    Granted(ListenGrant),
    /// Where the connections of a Node primary come in.
    NodeQueue { key: u32, address: Address, node_queue: Arc<NodeQueue> },
}

pub(crate) struct Runtime {
    pub(super) id: u32,
    pub(super) parent: &'static Parent,
    /// The primary, where it is a Node program.
    pub(super) node_primary: Option<NodePrimary>,
    pub(super) next_request: AtomicU32,
    /// Wishes to listen that the primary has not answered; `None` once its channel is closed.
    pub(super) requests: Mutex<Option<Requests>>,
    pub(super) messages: Mutex<Option<Sink>>,
    /// What came and comes, until somebody takes it.
    pub(super) unread: Mutex<Option<Receiver<ipc::Message>>>,
    /// Called when the channel is closed; `None` when it has been.
    pub(super) on_disconnect: Mutex<Option<Vec<OnDisconnect>>>,
    pub(super) on_error: Mutex<Vec<OnError>>,
    pub(super) drain: Arc<Drain>,
    /// It has listened once.
    pub(super) listened: AtomicBool,
    /// Its end was asked for.
    pub(super) wanted: AtomicBool,
    pub(super) orphan_drain_ms: AtomicU64,
    pub(super) orphaned: OnceLock<Instant>,
    pub(super) began: OnceLock<Instant>,
    pub(super) clock: OnceLock<reactor::Handle>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Runtime {
    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    pub(crate) fn tell(&self, message: ToPrimary) {
        if let ToPrimary::Listening { .. } | ToPrimary::ListensAlone { .. } = message {
            self.listened.store(true, Ordering::Release);
        }
        if let Some(node_primary) = &self.node_primary {
            return self.tell_node(node_primary, message);
        }
        if let Err(failed) = self.parent.send_internal(message) {
            if let ToPrimary::Listen { request, .. } = failed.value {
                self.not_asked(request, &failed.error);
            }
        }
    }

    /// A wish that could not be told: nobody would answer it.
    pub(super) fn not_asked(&self, request: u32, error: &ipc::Error) {
        let closed = matches!(error, ipc::Error::Closed);
        let errno = if closed { sys::errno::ECANCELED } else { sys::errno::ENOBUFS };
        self.answer(request, Err(errno));
    }

    /// Hears the parent, on the loop.
    pub(super) fn receive(&self, event: child_process::Event) {
        use child_process::Event as E;
        match event {
            E::Internal(message) => self.receive_internal(message),
            E::Message(message) => {
                let messages = self.messages.lock().unwrap_or_else(PoisonError::into_inner);
                if let Some(messages) = messages.as_ref() {
                    messages.put(message);
                }
            }
            E::Error(error) => {
                let error = Arc::new(error);
                let calls = self.on_error.lock().unwrap_or_else(PoisonError::into_inner);
                calls.iter().for_each(|call| call(error.clone()));
            }
            E::Disconnect => {
                self.end_node_primary();
                *self.requests() = None;
                *self.messages.lock().unwrap_or_else(PoisonError::into_inner) = None;
                self.orphaned.get_or_init(Instant::now);
                self.begin_drain();
                let calls = self.on_disconnect().take();
                calls.into_iter().flatten().for_each(reactor::callback::call);
            }
            _ => {}
        }
    }

    fn receive_internal(&self, message: ipc::Message) {
        if let Some(node_primary) = &self.node_primary {
            return self.receive_node(node_primary, message);
        }
        match message.decode() {
            Ok(ToWorker::Listen { request, result }) => {
                self.answer(request, result.map(Granted::Granted));
            }
            // A primary that cannot be understood is as good as gone.
            Ok(ToWorker::Disconnect) | Err(_) => {
                self.wanted.store(true, Ordering::Release);
                self.begin_drain();
            }
        }
    }

    pub(super) fn answer(&self, request: u32, result: Result<Granted, i32>) {
        let reply = self.requests().as_mut().and_then(|requests| requests.remove(&request));
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }

    pub(super) fn begin_drain(&self) {
        self.drain.begin();
        self.began.get_or_init(Instant::now);
        if let Some(clock) = self.clock.get() {
            clock.wake();
        }
    }

    /// A Node primary sends nothing more.
    fn end_node_primary(&self) {
        if let Some(node_primary) = &self.node_primary {
            node_primary.end();
        }
    }

    pub(super) fn on_disconnect(&self) -> MutexGuard<'_, Option<Vec<OnDisconnect>>> {
        self.on_disconnect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn requests(&self) -> MutexGuard<'_, Option<Requests>> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// When an orphan has to be gone.
    fn orphan_deadline(&self) -> Option<Instant> {
        let ms = self.orphan_drain_ms.load(Ordering::Relaxed);
        self.orphaned.get()?.checked_add(Duration::from_millis(ms))
    }

    /// When a drain no longer waits for queues that nobody reads.
    fn read_deadline(&self) -> Option<Instant> {
        self.began.get()?.checked_add(Duration::from_millis(DRAIN_READ_MS_MAX))
    }
}

/// Keeps a worker's deadlines on the loop.
pub(super) struct Clock(pub(super) Arc<Runtime>);

impl Source for Clock {
    fn event(&mut self, _event: reactor::Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        let read = self.0.read_deadline().filter(|at| *at > now);
        if read.is_none() && self.0.began.get().is_some() {
            self.0.drain.force();
            self.0.end_node_primary();
        }
        let orphan = self.0.orphan_deadline();
        if orphan.is_some_and(|at| at <= now) {
            // Exit handlers may wait for the loop, so they run elsewhere.
            let exit = std::thread::Builder::new().spawn(|| std::process::exit(0));
            if exit.is_err() {
                std::process::abort();
            }
            return turn.remove();
        }
        let due = self.0.node_primary.as_ref().and_then(|node_primary| {
            self.0.decline_overdue(node_primary, now);
            node_primary.due()
        });
        turn.set_deadline(read.into_iter().chain(orphan).chain(due).min());
    }
}
