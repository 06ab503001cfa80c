//! The thread of the loop: it waits for events and delivers them to the sources.
//!
//! One turn has four steps, in this order: commands from other threads (and from the previous
//! turn), readiness, deadlines that are due, and the sources that asked for another event in an
//! *earlier* turn. A source that always asks for another event therefore comes last in each turn,
//! and costs the others no turn.

use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use sys::origin::Origin;

use crate::deadlines::Deadlines;
use crate::error::StartError;
use crate::event::{Event, SourceId};
use crate::poller::Readiness;
use crate::source::Source;
use crate::turn::{READ_BUFFER_BYTES, Requests, Turn};
use crate::wake::{Command, Handle, Mailbox, mark_loop_thread};

/// The loop. Each process has one, which [`reactor()`] returns.
#[derive(Debug)]
pub struct Reactor {
    mailbox: Arc<Mailbox>,
}

/// Returns the loop of this process, and starts it on first use.
///
/// The thread and its two descriptors (epoll and eventfd, close-on-exec) stay until the process
/// ends. A process that was forked by `fork(2)` after the first use, and that executes nothing, has
/// no thread of the loop. It gets an error, and its copies of sources and handles have no effect.
///
/// # Errors
///
/// `EMFILE`, `ENFILE` or `EAGAIN` when the loop cannot be started; the next call tries again. The
/// error of `epoll_wait(2)` after the loop has ended by it: its descriptor was closed by other code.
/// [`Unsupported`](io::ErrorKind::Unsupported) in a process that was forked after the first use.
pub fn reactor() -> Result<&'static Reactor, StartError> {
    static INSTANCE: OnceLock<Reactor> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    // Before the lock, which another thread may have held at the moment of the fork.
    if !HOME.get_or_init(Origin::here).is_here() {
        let source = io::Error::new(io::ErrorKind::Unsupported, FORKED);
        return Err(StartError { call: "using the loop", source });
    }
    if let Some(reactor) = INSTANCE.get() {
        return reactor.running();
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reactor) = INSTANCE.get() {
        return reactor.running();
    }
    let reactor = Reactor::start()?;
    Ok(INSTANCE.get_or_init(|| reactor))
}

/// The process that has used the loop first.
static HOME: OnceLock<Origin> = OnceLock::new();

/// The error of a forked process.
const FORKED: &str = "this process was forked without exec by one that uses the event loop, which \
    has no thread here: execute a program after the fork, or fork before the first use";

/// Returns whether this process was forked by one that uses the loop, which has no thread here.
#[must_use]
pub fn is_forked() -> bool {
    HOME.get().is_some_and(|home| !home.is_here())
}

impl Reactor {
    /// Starts a separate loop. The tests of this crate count the turns of theirs.
    pub(crate) fn start() -> Result<Self, StartError> {
        let (readiness, waker) = Readiness::new()?;
        let mailbox = Arc::new(Mailbox::new(waker));
        let driver = Driver {
            mailbox: Arc::clone(&mailbox),
            readiness,
            deadlines: Deadlines::new(),
            sources: BTreeMap::new(),
            again: Vec::new(),
            buffer: vec![0; READ_BUFFER_BYTES],
        };
        let thread = thread::Builder::new().name("brood-loop".to_owned());
        thread
            .spawn(move || driver.run())
            .map_err(StartError::of("starting a thread (clone or clone3)"))?;
        Ok(Self { mailbox })
    }

    /// Returns this loop, or the error by which it has ended.
    fn running(&self) -> Result<&Self, StartError> {
        match self.mailbox.failure() {
            None => Ok(self),
            Some(errno) => {
                let source = io::Error::from_raw_os_error(errno);
                Err(StartError { call: "epoll_wait", source })
            }
        }
    }

    /// Adds `source` to the loop, from any thread, and does not wait.
    ///
    /// The loop soon delivers [`Event::Start`], before every other event of the source.
    pub fn add(&self, source: impl Source) -> Handle {
        self.add_with(|_| source)
    }

    /// Adds the source that `make` returns, as [`add`](Self::add) does.
    ///
    /// `make` gets the handle before the source runs, and may store it where other threads find it
    /// as soon as the source has an effect. A wake-up inside `make` would be lost.
    pub fn add_with<S: Source>(&self, make: impl FnOnce(&Handle) -> S) -> Handle {
        let handle = self.mailbox.handle();
        let source = make(&handle);
        self.mailbox.send(Command::Add(Box::new(source), handle.clone()));
        handle
    }

    /// Returns the number of turns that the loop has made.
    ///
    /// The number stands still while nothing happens. Tests and measurements of idle wake-ups use
    /// it.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.mailbox.turns.load(Ordering::Relaxed)
    }
}

struct Driver {
    mailbox: Arc<Mailbox>,
    readiness: Readiness,
    deadlines: Deadlines<SourceId>,
    sources: BTreeMap<SourceId, Entry>,
    again: Vec<SourceId>,
    buffer: Vec<u8>,
}

/// A source on the loop.
struct Entry {
    source: Box<dyn Source>,
    handle: Handle,
    /// Whether `Driver::again` contains the source.
    again: bool,
}

impl Driver {
    fn run(mut self) {
        mark_loop_thread();
        let (mut ready, mut commands) = (Vec::new(), Vec::new());
        loop {
            let timeout = self.timeout();
            if let Err(error) = self.readiness.wait(timeout, &mut ready) {
                return self.fail(&error);
            }
            self.mailbox.turns.fetch_add(1, Ordering::Relaxed);
            // The list is taken before any event is delivered: a source that asks again in this
            // turn waits for the next one.
            let again = mem::take(&mut self.again);
            self.mailbox.take(&mut commands);
            for command in commands.drain(..) {
                self.perform(command);
            }
            for (source, event) in ready.drain(..) {
                self.deliver(source, event);
            }
            for source in self.deadlines.take_due(Instant::now()) {
                self.deliver(source, Event::Deadline);
            }
            for source in again {
                if let Some(entry) = self.sources.get_mut(&source) {
                    entry.again = false;
                    self.deliver(source, Event::Again);
                }
            }
        }
    }

    /// Ends the loop: other code has closed its descriptor, or a filter refuses the wait. Every
    /// source is dropped, and answers those that wait for it.
    fn fail(mut self, error: &io::Error) {
        let rest = self.mailbox.close(error.raw_os_error().unwrap_or(sys::errno::EBADF));
        for command in rest {
            if let Command::Add(source, handle) = command {
                self.sources.insert(handle.id, Entry { source, handle, again: false });
            }
        }
        let ids: Vec<SourceId> = self.sources.keys().copied().collect();
        for id in ids {
            self.remove(id);
        }
        // Not closed: its number may belong to other code meanwhile.
        mem::forget(self.readiness);
    }

    fn timeout(&self) -> Option<Duration> {
        if !self.again.is_empty() || !self.mailbox.is_empty() {
            return Some(Duration::ZERO);
        }
        self.deadlines.next().map(|at| at.saturating_duration_since(Instant::now()))
    }

    fn perform(&mut self, command: Command) {
        match command {
            Command::Add(source, handle) => {
                let id = handle.id;
                self.sources.insert(id, Entry { source, handle, again: false });
                self.deliver(id, Event::Start);
            }
            Command::Wake(id) => {
                if let Some(entry) = self.sources.get(&id) {
                    entry.handle.mark_delivered();
                    self.deliver(id, Event::Wake);
                }
            }
            Command::Remove(id) => self.remove(id),
        }
    }

    /// Delivers one event to one source, and performs the requests of the source.
    fn deliver(&mut self, id: SourceId, event: Event) {
        let Some(entry) = self.sources.get_mut(&id) else { return };
        let mut turn = Turn {
            source: id,
            now: Instant::now(),
            readiness: &mut self.readiness,
            buffer: &mut self.buffer,
            requests: Requests::default(),
        };
        // Unwind safe: after a panic the source is dropped, and the loop's own tables change only
        // in calls that do not run code of the source.
        let result = catch_unwind(AssertUnwindSafe(|| entry.source.event(event, &mut turn)));
        let requests = turn.requests;
        if result.is_err() || requests.remove {
            self.remove(id);
            return;
        }
        if requests.again && !entry.again {
            entry.again = true;
            self.again.push(id);
        }
        if let Some(at) = requests.deadline {
            self.deadlines.set(id, at);
        }
    }

    fn remove(&mut self, id: SourceId) {
        let Some(entry) = self.sources.remove(&id) else { return };
        self.deadlines.set(id, None);
        self.readiness.release(id);
        // A panic in the drop is reported by the panic hook and must not end the loop. The source
        // is gone either way.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(entry)));
    }
}
