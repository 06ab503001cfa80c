//! The worker's own side: what it is, its way to the primary, and its end.

mod node;

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use child_process::Parent;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use reactor::{Source, Turn};

use self::node::Host;
use crate::address::Address;
use crate::claim::Claim;
use crate::draining::{DRAIN_READ_MS_MAX, Drain, Draining};
use crate::error::Error;
use crate::inbox::Inbox;
use crate::message::{Granted, ToPrimary, ToWorker};
use crate::options::ListenOptions;
use crate::process::State;
use crate::spawner::{STDERR, UNIQUE_ID, UNIQUE_NO};

/// How long a worker whose primary died may finish what it has, in milliseconds, by default.
pub const ORPHAN_DRAIN_MS: u64 = 1500;

/// So long a worker that ends itself waits for its primary to hear it.
const KILL_WAITS_MAX: Duration = Duration::from_secs(1);

/// This process as a worker of a cluster. Cheap to clone; every clone is the same.
///
/// Node: `cluster.worker` inside a worker. As its primary sees it, it is a
/// [`WorkerProcess`](crate::WorkerProcess).
#[derive(Clone, Debug)]
pub struct Worker(Arc<Runtime>);

type OnDisconnect = Box<dyn FnOnce() + Send>;
type OnError = Box<dyn Fn(Arc<child_process::Error>) + Send>;

/// Who gets the primary's messages.
enum Sink {
    Queue(Sender<ipc::Message>),
    Callback(Box<dyn Fn(ipc::Message) + Send>),
}

impl Sink {
    fn put(&self, message: ipc::Message) {
        match self {
            // Refused where the receiver was dropped: nobody wants messages.
            Self::Queue(queue) => drop(queue.send(message)),
            Self::Callback(call) => call(message),
        }
    }
}

/// Who waits for which answer.
type Requests = HashMap<u32, Sender<Result<Offer, i32>>>;

/// What a wish to listen comes to.
#[derive(Debug)]
pub(crate) enum Offer {
    /// A descriptor to accept from.
    Granted(Granted),
    /// Where the connections of a Node primary come in.
    Inbox { key: u32, address: Address, inbox: Arc<Inbox> },
}

impl Offer {
    /// The place itself; the primary is told when it is dropped.
    pub(crate) fn claim(&mut self, worker: &Worker) -> Claim {
        let (key, address, data) = match self {
            Self::Granted(granted) => (granted.key, &granted.address, granted.data.take()),
            Self::Inbox { key, address, .. } => (*key, &*address, None),
        };
        Claim::granted(key, address.clone(), data, worker.0.clone())
    }
}

pub(crate) struct Runtime {
    id: u32,
    parent: &'static Parent,
    /// The primary, where it is a Node program.
    host: Option<Host>,
    next_request: AtomicU32,
    /// Wishes to listen that the primary has not answered; `None` once its channel is closed.
    requests: Mutex<Option<Requests>>,
    messages: Mutex<Option<Sink>>,
    /// What came and comes, until somebody takes it.
    unread: Mutex<Option<Receiver<ipc::Message>>>,
    /// Called when the channel is closed; `None` when it has been.
    on_disconnect: Mutex<Option<Vec<OnDisconnect>>>,
    on_error: Mutex<Vec<OnError>>,
    drain: Arc<Drain>,
    /// It has listened once.
    listened: AtomicBool,
    /// Its end was asked for.
    wanted: AtomicBool,
    orphan_drain_ms: AtomicU64,
    orphaned: OnceLock<Instant>,
    began: OnceLock<Instant>,
    clock: OnceLock<reactor::Handle>,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Worker {
    /// This process's role: `Some` when a primary started it, `None` when it runs alone.
    ///
    /// The first call brings the worker's runtime up and tells the primary so (`online`); call
    /// it early. It is decided by `NODE_UNIQUE_ID`, which is taken out of the environment before
    /// `main`, so that this process's own children are no workers.
    ///
    /// # Panics
    ///
    /// When the process was started as a worker and has no descriptor or thread left for its
    /// runtime, or its channel is not what its environment says.
    #[must_use]
    #[doc(alias = "isWorker")]
    pub fn current() -> Option<Self> {
        static CURRENT: OnceLock<Option<Worker>> = OnceLock::new();
        CURRENT.get_or_init(Self::from_environment).clone()
    }

    fn from_environment() -> Option<Self> {
        let taken = |name| sys::startup::variable(name)?.to_str()?.parse().ok();
        let id = taken(UNIQUE_ID).or_else(|| taken(UNIQUE_NO))?;
        let Some(parent) = child_process::parent() else {
            // Running on as a primary would start workers of its own, and those again.
            assert!(
                sys::startup::variable("BROOD_CHANNEL").is_none(),
                "started as worker {id}, but the channel to the primary cannot be used"
            );
            return None;
        };
        if let Some(stderr) = sys::startup::take_descriptor(STDERR) {
            // The primary's pipe goes: a worker must not die of its words when that is gone.
            let _ = sys::fd::replace_stderr(stderr);
        }
        let (messages, unread) = unbounded();
        let runtime = Arc::new(Runtime {
            id,
            parent,
            host: parent.is_node().then(Host::default),
            next_request: AtomicU32::new(0),
            requests: Mutex::new(Some(HashMap::new())),
            messages: Mutex::new(Some(Sink::Queue(messages))),
            unread: Mutex::new(Some(unread)),
            drain: Arc::new(Drain::new().expect("a worker starts with descriptors to spare")),
            on_disconnect: Mutex::new(Some(Vec::new())),
            on_error: Mutex::default(),
            listened: AtomicBool::new(false),
            wanted: AtomicBool::new(false),
            orphan_drain_ms: AtomicU64::new(ORPHAN_DRAIN_MS),
            orphaned: OnceLock::new(),
            began: OnceLock::new(),
            clock: OnceLock::new(),
        });
        let reactor = reactor::reactor().expect("a worker starts with a thread to spare");
        let clock = reactor.add(Clock(runtime.clone()));
        runtime.clock.get_or_init(|| clock);
        let told = runtime.clone();
        parent.subscribe(move |event| told.hear(event));
        runtime.tell(ToPrimary::Online);
        Some(Self(runtime))
    }

    /// Its number: from 1, never used twice by one primary.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.0.id
    }

    /// Asks the primary for an address, and blocks until it has answered.
    pub(crate) fn ask(&self, address: &Address, options: &ListenOptions) -> Result<Offer, Error> {
        if self.0.drain.has_begun() {
            return Err(Error::Closed);
        }
        let request = self.0.next_request.fetch_add(1, Ordering::Relaxed);
        let (reply, replied) = bounded(1);
        match self.0.requests().as_mut() {
            Some(requests) => requests.insert(request, reply),
            None => return Err(Error::Closed),
        };
        let wish =
            ToPrimary::Listen { request, address: address.clone(), options: options.clone() };
        self.0.tell(wish);
        replied.recv().map_err(|_| Error::Closed)?.map_err(|errno| {
            if errno == sys::errno::ECANCELED {
                return Error::Closed;
            }
            Error::Listen(address.clone(), std::io::Error::from_raw_os_error(errno))
        })
    }

    pub(crate) fn runtime(&self) -> &Arc<Runtime> {
        &self.0
    }

    /// When this worker shall end: a future, a flag and a blocking wait.
    pub fn draining(&self) -> Draining {
        Draining::of(self.0.drain.clone())
    }

    /// How far this worker has come.
    #[must_use]
    pub fn state(&self) -> State {
        match () {
            () if !self.is_connected() => State::Disconnected,
            () if self.0.drain.has_begun() => State::Disconnecting,
            () if self.0.listened.load(Ordering::Acquire) => State::Listening,
            () => State::Online,
        }
    }

    /// `Some(true)` once it is to end because either side wants it: its exit is no crash then.
    #[must_use]
    #[doc(alias = "exitedAfterDisconnect")]
    pub fn exited_after_disconnect(&self) -> Option<bool> {
        self.0.wanted.load(Ordering::Acquire).then_some(true)
    }

    /// Ends this process at once, with code 0, and for good: what it has not accepted goes to
    /// others, what it has is lost. The primary is told before, and given a second to hear it.
    ///
    /// Node: `worker.kill()` in a worker, and `worker.destroy()`.
    #[doc(alias = "destroy")]
    pub fn kill(&self) -> ! {
        self.disconnect();
        self.0.drain.wait_begun(KILL_WAITS_MAX);
        std::process::exit(0)
    }

    /// Ends this worker for good: nothing new comes, and [`draining`](Self::draining) resolves
    /// once what was dealt to it is accepted or given to others. Returns at once.
    ///
    /// The process goes on until its `main` returns, or the primary's deadlines end it.
    pub fn disconnect(&self) {
        self.0.wanted.store(true, Ordering::Release);
        self.0.tell(ToPrimary::Disconnect);
    }

    /// Sends a message to the primary, which gets it as [`Event::Message`](crate::Event).
    ///
    /// `false` says that more is queued than the channel likes; it will arrive all the same.
    ///
    /// # Errors
    ///
    /// The value comes back, with its handles, when the channel is closed, the message is over
    /// a limit, or it cannot be encoded.
    pub fn send<T: serde::Serialize>(&self, value: T) -> Result<bool, ipc::SendError<T>> {
        self.0.parent.send(value)
    }

    /// The primary's messages, from the first one on: what came before this call waits in it.
    ///
    /// The first call gives the receiver; those after it give one that is closed. A worker that
    /// wants no messages drops it, or they are kept for as long as it runs, and when 4 MiB of them
    /// lie unread the primary is not heard any further. That it shall end the worker then sees by
    /// the end of its listeners alone.
    ///
    /// Node: `process.on('message')`, which gets what came before the first listener, too.
    #[must_use]
    pub fn messages(&self) -> Receiver<ipc::Message> {
        let unread = self.0.unread.lock().unwrap_or_else(PoisonError::into_inner).take();
        unread.unwrap_or_else(|| unbounded().1)
    }

    /// Has `call` called with each of the primary's messages, on the callback thread, from the
    /// first one on: what [`messages`](Self::messages) would have given comes first. Of several such
    /// callbacks the first is called, for a message has one owner; a receiver that was taken ends.
    pub fn on_message(&self, call: impl FnMut(ipc::Message) + Send + 'static) -> &Self {
        let sink = Sink::Callback(Box::new(reactor::callback::each(call)));
        let mut messages = self.0.messages.lock().unwrap_or_else(PoisonError::into_inner);
        // Also when the channel is closed: what had come before is still there.
        self.messages().try_iter().for_each(|message| sink.put(message));
        if let Some(Sink::Queue(_)) = *messages {
            *messages = Some(sink);
        }
        self
    }

    /// Has `call` called, on the callback thread, with what goes wrong on the channel to the primary.
    /// The process goes on.
    pub fn on_error(&self, call: impl FnMut(Arc<child_process::Error>) + Send + 'static) -> &Self {
        let call = reactor::callback::each(call);
        let mut calls = self.0.on_error.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Box::new(call));
        self
    }

    /// Has `call` called, on the callback thread, when the channel to the primary is closed; soon
    /// if it is.
    pub fn on_disconnect(&self, call: impl FnOnce() + Send + 'static) -> &Self {
        match &mut *self.0.on_disconnect() {
            Some(calls) => calls.push(Box::new(call)),
            None => reactor::callback::call(call),
        }
        self
    }

    /// Whether the channel to the primary is open.
    #[must_use]
    #[doc(alias = "isConnected")]
    pub fn is_connected(&self) -> bool {
        self.0.parent.connected()
    }

    /// How long this worker may finish what it has after its primary died; by default
    /// [`ORPHAN_DRAIN_MS`]. Then the process exits with code 0.
    pub fn set_orphan_drain(&self, limit: Duration) {
        let ms = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
        self.0.orphan_drain_ms.store(ms, Ordering::Relaxed);
    }
}

/// Whether this process is the primary, or would be one: it was not started as a worker.
///
/// ```
/// assert!(cluster::is_primary() && !cluster::is_worker());
/// ```
///
/// Node: `cluster.isPrimary`. As [`Worker::current`] it brings the worker's runtime up.
///
/// # Panics
///
/// As [`Worker::current`].
#[must_use]
#[doc(alias = "isPrimary")]
pub fn is_primary() -> bool {
    !is_worker()
}

/// The same as [`is_primary`]. Node: `cluster.isMaster`.
///
/// # Panics
///
/// As [`Worker::current`].
#[must_use]
#[doc(alias = "isMaster")]
pub fn is_master() -> bool {
    is_primary()
}

/// Whether this process was started as a worker. Node: `cluster.isWorker`.
///
/// # Panics
///
/// As [`Worker::current`].
#[must_use]
#[doc(alias = "isWorker")]
pub fn is_worker() -> bool {
    Worker::current().is_some()
}

impl Runtime {
    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    pub(crate) fn tell(&self, message: ToPrimary) {
        if let ToPrimary::Listening { .. } | ToPrimary::ListensAlone { .. } = message {
            self.listened.store(true, Ordering::Release);
        }
        if let Some(host) = &self.host {
            return self.tell_node(host, message);
        }
        if let Err(failed) = self.parent.send_internal(message) {
            if let ToPrimary::Listen { request, .. } = failed.value {
                self.not_asked(request, &failed.error);
            }
        }
    }

    /// A wish that could not be told: nobody would answer it.
    fn not_asked(&self, request: u32, error: &ipc::Error) {
        let closed = matches!(error, ipc::Error::Closed);
        let errno = if closed { sys::errno::ECANCELED } else { sys::errno::ENOBUFS };
        self.answer(request, Err(errno));
    }

    /// Hears the parent, on the loop.
    fn hear(&self, event: child_process::Event) {
        use child_process::Event as E;
        match event {
            E::Internal(message) => self.hear_internal(message),
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
                self.end_host();
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

    fn hear_internal(&self, message: ipc::Message) {
        if let Some(host) = &self.host {
            return self.hear_node(host, message);
        }
        match message.decode() {
            Ok(ToWorker::Listen { request, result }) => {
                self.answer(request, result.map(Offer::Granted));
            }
            // A primary that cannot be understood is as good as gone.
            Ok(ToWorker::Disconnect) | Err(_) => {
                self.wanted.store(true, Ordering::Release);
                self.begin_drain();
            }
        }
    }

    fn answer(&self, request: u32, result: Result<Offer, i32>) {
        let reply = self.requests().as_mut().and_then(|requests| requests.remove(&request));
        if let Some(reply) = reply {
            let _ = reply.send(result);
        }
    }

    fn begin_drain(&self) {
        self.drain.begin();
        self.began.get_or_init(Instant::now);
        if let Some(clock) = self.clock.get() {
            clock.wake();
        }
    }

    /// A Node primary sends nothing more.
    fn end_host(&self) {
        if let Some(host) = &self.host {
            host.end();
        }
    }

    fn on_disconnect(&self) -> MutexGuard<'_, Option<Vec<OnDisconnect>>> {
        self.on_disconnect.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn requests(&self) -> MutexGuard<'_, Option<Requests>> {
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
struct Clock(Arc<Runtime>);

impl Source for Clock {
    fn event(&mut self, _event: reactor::Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        let read = self.0.read_deadline().filter(|at| *at > now);
        if read.is_none() && self.0.began.get().is_some() {
            self.0.drain.force();
            self.0.end_host();
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
        let due = self.0.host.as_ref().and_then(|host| {
            self.0.decline_overdue(host, now);
            host.due()
        });
        turn.set_deadline(read.into_iter().chain(orphan).chain(due).min());
    }
}
