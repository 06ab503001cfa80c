//! Wake-ups: the commands by which any thread reaches the loop.
//!
//! Commands go through one queue. A sender writes to the loop's eventfd only for the first command
//! after the loop has emptied the queue. The thread of the loop never writes to it, because the
//! loop checks the queue before it waits. Several wake-ups of a source before its turn become one
//! event.

use std::cell::Cell;
use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;
use sys::origin::Origin;

use crate::event::SourceId;
use crate::source::Source;

thread_local! {
    static ON_LOOP: Cell<bool> = const { Cell::new(false) };
}

/// Returns whether the caller runs on the loop, where it must not block.
#[must_use]
pub fn on_loop() -> bool {
    ON_LOOP.get()
}

/// Marks the calling thread as the thread of a loop.
pub(crate) fn mark_loop_thread() {
    ON_LOOP.set(true);
}

/// A request of another thread to the loop.
pub(crate) enum Command {
    Add(Box<dyn Source>, Handle),
    Wake(SourceId),
    Remove(SourceId),
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    queue: Mutex<Queue>,
    waker: Waker,
    next_id: AtomicU64,
    /// The process that has the thread of the loop.
    home: Origin,
    /// The error by which the loop has ended, or 0. Set under the lock of the queue.
    failure: AtomicI32,
    /// The number of turns of the loop so far.
    pub(crate) turns: AtomicU64,
}

#[derive(Default)]
struct Queue {
    commands: Vec<Command>,
    /// Whether the eventfd was written since the loop last emptied the queue.
    woken: bool,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Self {
        let (queue, next_id, turns) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        let failure = AtomicI32::new(0);
        Self { queue, waker, next_id, home: Origin::here(), failure, turns }
    }

    pub(crate) fn handle(self: &Arc<Self>) -> Handle {
        let id = self.next_id.fetch_add(1, Ordering::Relaxed);
        Handle { id, woken: Arc::new(AtomicBool::new(false)), mailbox: Arc::clone(self) }
    }

    pub(crate) fn send(&self, command: Command) {
        // After a fork the eventfd is the parent's, and the lock may be held for ever.
        if !self.home.is_here() {
            return;
        }
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        if self.failure.load(Ordering::Acquire) != 0 {
            drop(queue);
            // A source is dropped outside of the lock, as it may send commands itself.
            return drop(command);
        }
        queue.commands.push(command);
        let wake = !queue.woken && !on_loop();
        queue.woken |= wake;
        drop(queue);
        if wake {
            // A full eventfd is no failure: mio then resets it and writes again.
            let woken = self.waker.wake();
            debug_assert!(woken.is_ok(), "an eventfd can be written while it is open");
        }
    }

    /// Moves all commands into `commands`, which must be empty.
    pub(crate) fn take(&self, commands: &mut Vec<Command>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut queue.commands, commands);
        queue.woken = false;
    }

    /// Accepts no more commands, and returns those that were not taken.
    pub(crate) fn close(&self, errno: i32) -> Vec<Command> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        self.failure.store(errno, Ordering::Release);
        mem::take(&mut queue.commands)
    }

    /// Returns the error by which the loop has ended.
    pub(crate) fn failure(&self) -> Option<i32> {
        Some(self.failure.load(Ordering::Acquire)).filter(|errno| *errno != 0)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).commands.is_empty()
    }
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").field("commands", &self.commands.len()).finish()
    }
}

/// A reference to one source on the loop, usable from any thread.
///
/// Dropping the handle does not remove the source. In a process that was forked later, the handle
/// has no effect.
#[derive(Clone)]
pub struct Handle {
    pub(crate) id: SourceId,
    /// Whether a wake-up is queued and not yet delivered.
    woken: Arc<AtomicBool>,
    mailbox: Arc<Mailbox>,
}

impl Handle {
    /// Wakes the source: the loop soon delivers an [`Event::Wake`](crate::Event::Wake).
    ///
    /// The call is cheap. Several calls before the delivery become one event. The source sees
    /// everything that was written before the call.
    ///
    /// Does nothing when the source is gone.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.mailbox.send(Command::Wake(self.id));
        }
    }

    /// Removes the source: the loop soon drops it and delivers no other event to it.
    ///
    /// Does not wait for the removal. Does nothing when the source is gone already.
    pub fn remove(&self) {
        self.mailbox.send(Command::Remove(self.id));
    }

    /// Marks the queued wake-up as delivered.
    ///
    /// The loop calls this right before the event, so that a wake-up during the event is a new
    /// one and is not lost.
    pub(crate) fn mark_delivered(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("source", &self.id).finish_non_exhaustive()
    }
}
