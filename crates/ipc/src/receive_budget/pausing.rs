//! The decision which channels are read: the unread bytes and handles of each channel, and the
//! unread handles of the process.
//!
//! A channel that is not read stays in the list of the process until it is read again, whatever the
//! reason. The last condition that is met therefore resumes it, in whatever order they are met.
//!
//! `super::sync` has the primitives: those of std here, and those of a model checker in the test.

use super::sync::{AtomicBool, AtomicUsize, Mutex, Ordering};
use std::sync::{Arc, PoisonError, Weak};

/// The owner of a channel, and the limit of the process.
pub(super) trait Environment: 'static {
    /// Wakes the owner: the channel may be read again.
    fn wake(&self);

    /// Returns whether unread messages of a process that hold `handles` handles leave room.
    fn has_room(handles: usize) -> bool;
}

/// The unread handles of the process, and the channels that are not read.
#[derive(Debug)]
pub(super) struct ProcessShare<E: 'static> {
    handles: AtomicUsize,
    paused: Mutex<Vec<Weak<ChannelShare<E>>>>,
}

/// The unread bytes and handles of one channel.
#[derive(Debug)]
pub(super) struct ChannelShare<E: 'static> {
    pub(super) environment: E,
    process: &'static ProcessShare<E>,
    bytes: AtomicUsize,
    handles: AtomicUsize,
    bytes_max: usize,
    handles_max: usize,
    paused: AtomicBool,
}

impl<E: Environment> ProcessShare<E> {
    pub(super) const fn new() -> ProcessShare<E> {
        ProcessShare { handles: AtomicUsize::new(0), paused: Mutex::new(Vec::new()) }
    }

    fn has_room(&self) -> bool {
        E::has_room(self.handles.load(Ordering::SeqCst))
    }

    /// Adds a channel to those that are not read. Removes channels that are gone or are read again.
    fn add(&self, channel: &Arc<ChannelShare<E>>) {
        let mut paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
        paused.retain(|other| {
            other.upgrade().is_some_and(|other| other.is_paused() && !Arc::ptr_eq(&other, channel))
        });
        paused.push(Arc::downgrade(channel));
    }

    /// Resumes every channel that has room itself. The others stay in the list.
    fn resume_all(&self) {
        // The lock is free during the wake-ups.
        let paused: Vec<_> = {
            let paused = self.paused.lock().unwrap_or_else(PoisonError::into_inner);
            paused.iter().filter_map(Weak::upgrade).collect()
        };
        paused.iter().for_each(|channel| channel.resume());
    }
}

impl<E: Environment> ChannelShare<E> {
    pub(super) fn new(
        environment: E,
        process: &'static ProcessShare<E>,
        bytes_max: usize,
        handles_max: usize,
    ) -> ChannelShare<E> {
        ChannelShare {
            environment,
            process,
            bytes: AtomicUsize::new(0),
            handles: AtomicUsize::new(0),
            bytes_max,
            handles_max,
            paused: AtomicBool::new(false),
        }
    }

    /// Counts an unread message.
    pub(super) fn add(&self, bytes: usize, handles: usize) {
        self.bytes.fetch_add(bytes, Ordering::SeqCst);
        if handles > 0 {
            self.handles.fetch_add(handles, Ordering::SeqCst);
            self.process.handles.fetch_add(handles, Ordering::SeqCst);
        }
    }

    /// Removes a message that was counted, and resumes the channels for which this was needed.
    pub(super) fn remove(&self, bytes: usize, handles: usize) {
        self.bytes.fetch_sub(bytes, Ordering::SeqCst);
        if handles > 0 {
            self.handles.fetch_sub(handles, Ordering::SeqCst);
            self.process.handles.fetch_sub(handles, Ordering::SeqCst);
            if self.process.has_room() {
                self.process.resume_all();
            }
        }
        if self.is_paused() {
            self.resume();
        }
    }

    /// Returns whether the channel may be read. Otherwise its owner is woken as soon as it may.
    pub(super) fn may_read(self: &Arc<ChannelShare<E>>) -> bool {
        if self.has_room(1) {
            return true;
        }
        self.paused.store(true, Ordering::SeqCst);
        self.process.add(self);
        // A message that was removed between the two checks has either seen `paused` or is seen here.
        self.has_room(1) && self.paused.swap(false, Ordering::SeqCst)
    }

    pub(super) fn is_paused(&self) -> bool {
        self.paused.load(Ordering::SeqCst)
    }

    fn has_room(&self, part: usize) -> bool {
        self.bytes.load(Ordering::SeqCst) <= self.bytes_max / part
            && self.handles.load(Ordering::SeqCst) < (self.handles_max / part).max(1)
            && self.process.has_room()
    }

    fn resume(&self) {
        // Half of the limit must be free: resuming at the limit would pause again with each
        // message.
        if self.has_room(2) && self.paused.swap(false, Ordering::SeqCst) {
            self.environment.wake();
        }
    }
}
