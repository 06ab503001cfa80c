//! The loop's thread: wait, name what happened, let each source answer.
//!
//! One turn, in this order: commands from other threads (and from the turn before), readiness,
//! deadlines that are due, and the sources that asked for another go in an *earlier* turn. So
//! whoever asks again and again comes last each time and costs the others no turn.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::io;
use std::mem;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::Ordering;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use crate::deadlines::Deadlines;
use crate::readiness::Readiness;
use crate::source::{Event, Source};
use crate::turn::{Asked, READ_BUFFER_BYTES, Turn};
use crate::wake::{Command, Handle, Mailbox, SourceId};

/// The loop. There is one per process: [`reactor()`].
#[derive(Debug)]
pub struct Reactor {
    mailbox: Arc<Mailbox>,
}

/// The process's loop, started on first use.
///
/// The thread and its two descriptors (epoll and eventfd, close-on-exec) stay until the process
/// ends. A child made by a bare `fork(2)` has no loop thread and must not use it.
///
/// # Errors
///
/// `EMFILE`, `ENFILE` or `EAGAIN` when the loop cannot be started; the next call tries again.
pub fn reactor() -> io::Result<&'static Reactor> {
    static INSTANCE: OnceLock<Reactor> = OnceLock::new();
    static STARTING: Mutex<()> = Mutex::new(());
    if let Some(reactor) = INSTANCE.get() {
        return Ok(reactor);
    }
    let _starting = STARTING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reactor) = INSTANCE.get() {
        return Ok(reactor);
    }
    let reactor = Reactor::start()?;
    Ok(INSTANCE.get_or_init(|| reactor))
}

thread_local! {
    static ON_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Whether the caller runs on the loop, where it must not block.
#[must_use]
pub fn on_loop() -> bool {
    ON_LOOP.get()
}

impl Reactor {
    /// A loop of its own; the crate's tests count its turns.
    pub(crate) fn start() -> io::Result<Self> {
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
        thread::Builder::new().name("brood-loop".to_owned()).spawn(move || driver.run())?;
        Ok(Self { mailbox })
    }

    /// Puts `source` on the loop, from any thread, and does not wait: [`Event::Start`] comes
    /// soon, on the loop, and before anything else.
    pub fn add(&self, source: impl Source) -> Handle {
        let handle = self.mailbox.handle();
        self.mailbox.send(Command::Add(Box::new(source), handle.clone()));
        handle
    }

    /// How many turns the loop has made. It stands still while nothing happens: for tests and
    /// measurements of idle wake-ups.
    #[must_use]
    pub fn turns(&self) -> u64 {
        self.mailbox.turns.load(Ordering::Relaxed)
    }
}

struct Driver {
    mailbox: Arc<Mailbox>,
    readiness: Readiness,
    deadlines: Deadlines<SourceId>,
    sources: BTreeMap<SourceId, Place>,
    again: Vec<SourceId>,
    buffer: Vec<u8>,
}

/// A source where it lives.
struct Place {
    source: Box<dyn Source>,
    handle: Handle,
    /// It stands in `Driver::again`.
    again: bool,
}

impl Driver {
    fn run(mut self) {
        ON_LOOP.set(true);
        let (mut news, mut commands) = (Vec::new(), Vec::new());
        loop {
            let timeout = self.timeout();
            let waited = self.readiness.wait(timeout, &mut news);
            waited.expect("our epoll descriptor is open, and only a signal can end the wait");
            self.mailbox.turns.fetch_add(1, Ordering::Relaxed);
            let again = mem::take(&mut self.again);
            self.mailbox.take(&mut commands);
            for command in commands.drain(..) {
                self.perform(command);
            }
            for (source, event) in news.drain(..) {
                self.tell(source, event);
            }
            for source in self.deadlines.take_due(Instant::now()) {
                self.tell(source, Event::Deadline);
            }
            for source in again {
                if let Some(place) = self.sources.get_mut(&source) {
                    place.again = false;
                    self.tell(source, Event::Again);
                }
            }
        }
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
                self.sources.insert(id, Place { source, handle, again: false });
                self.tell(id, Event::Start);
            }
            Command::Wake(id) => {
                if let Some(place) = self.sources.get(&id) {
                    place.handle.told();
                    self.tell(id, Event::Wake);
                }
            }
            Command::Remove(id) => self.remove(id),
        }
    }

    /// Lets one source answer one event, and does what it asked for.
    fn tell(&mut self, id: SourceId, event: Event) {
        let Some(place) = self.sources.get_mut(&id) else { return };
        let mut turn = Turn {
            source: id,
            now: Instant::now(),
            readiness: &mut self.readiness,
            buffer: &mut self.buffer,
            asked: Asked::default(),
        };
        // Unwind safe: after a panic the source is dropped, and the loop's own tables change only
        // in calls that do not run code of the source.
        let answer = catch_unwind(AssertUnwindSafe(|| place.source.event(event, &mut turn)));
        let asked = turn.asked;
        if answer.is_err() || asked.remove {
            self.remove(id);
            return;
        }
        if asked.again && !place.again {
            place.again = true;
            self.again.push(id);
        }
        if let Some(at) = asked.deadline {
            self.deadlines.set(id, at);
        }
    }

    fn remove(&mut self, id: SourceId) {
        let Some(place) = self.sources.remove(&id) else { return };
        self.deadlines.set(id, None);
        self.readiness.release(id);
        // The panic has been reported by the panic hook; the source is gone either way.
        let _ = catch_unwind(AssertUnwindSafe(|| drop(place)));
    }
}
