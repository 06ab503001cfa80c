//! Wake-ups: how any thread reaches the loop.
//!
//! Commands go through one inbox. Only the first one after the loop has emptied it writes to the
//! loop's eventfd, and the loop's own thread never does, because the loop looks into the inbox
//! before it waits. A source that is woken often before it is its turn gets one event.

use std::fmt;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use mio::Waker;

use crate::driver::on_loop;
use crate::source::Source;

/// Names a source for as long as the process lives; never used twice.
pub(crate) type SourceId = u64;

/// What other threads ask of the loop.
pub(crate) enum Command {
    Add(Box<dyn Source>, Handle),
    Wake(SourceId),
    Remove(SourceId),
}

#[derive(Debug)]
pub(crate) struct Mailbox {
    inbox: Mutex<Inbox>,
    waker: Waker,
    next: AtomicU64,
    /// Turns of the loop so far.
    pub(crate) turns: AtomicU64,
}

#[derive(Default)]
struct Inbox {
    commands: Vec<Command>,
    /// The eventfd has been written since the loop last emptied the inbox.
    woken: bool,
}

impl Mailbox {
    pub(crate) fn new(waker: Waker) -> Self {
        let (inbox, next, turns) = (Mutex::default(), AtomicU64::new(0), AtomicU64::new(0));
        Self { inbox, waker, next, turns }
    }

    pub(crate) fn handle(self: &Arc<Self>) -> Handle {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        Handle { id, woken: Arc::new(AtomicBool::new(false)), mailbox: Arc::clone(self) }
    }

    pub(crate) fn send(&self, command: Command) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        inbox.commands.push(command);
        let wake = !inbox.woken && !on_loop();
        inbox.woken |= wake;
        drop(inbox);
        if wake {
            // An eventfd that is full wakes as well; mio empties it then.
            let woken = self.waker.wake();
            debug_assert!(woken.is_ok(), "an eventfd can be written while it is open");
        }
    }

    /// Moves all commands into `commands`, which is empty.
    pub(crate) fn take(&self, commands: &mut Vec<Command>) {
        let mut inbox = self.inbox.lock().unwrap_or_else(PoisonError::into_inner);
        mem::swap(&mut inbox.commands, commands);
        inbox.woken = false;
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.inbox.lock().unwrap_or_else(PoisonError::into_inner).commands.is_empty()
    }
}

impl fmt::Debug for Inbox {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inbox").field("commands", &self.commands.len()).finish()
    }
}

/// Reaches one source on the loop, from any thread. Dropping it does not remove the source.
#[derive(Clone)]
pub struct Handle {
    pub(crate) id: SourceId,
    /// A wake-up is on its way and not yet told.
    woken: Arc<AtomicBool>,
    mailbox: Arc<Mailbox>,
}

impl Handle {
    /// Gives the source an [`Event::Wake`](crate::Event::Wake) soon. Cheap; calls before it is
    /// told become one. What was written before the call is seen by the source.
    ///
    /// Nothing happens when the source is gone.
    pub fn wake(&self) {
        if !self.woken.swap(true, Ordering::AcqRel) {
            self.mailbox.send(Command::Wake(self.id));
        }
    }

    /// Removes the source: it is dropped on the loop, soon, and gets no other event. Does not
    /// wait for that. Nothing happens when it is gone already.
    pub fn remove(&self) {
        self.mailbox.send(Command::Remove(self.id));
    }

    /// Called by the loop right before the event: wake-ups from here on are new ones.
    pub(crate) fn told(&self) {
        self.woken.swap(false, Ordering::AcqRel);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Handle").field("source", &self.id).finish_non_exhaustive()
    }
}
