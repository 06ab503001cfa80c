//! A model of the kernel's side of a cluster, for all tests of the pure parts.
//!
//! [`KernelQueue`] stands for one worker's hand-off queue, or for the channel of a Node worker.
//! [`ModelPage`] stands for the page that a worker shares with the primary.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use crate::contract::{Refusal, SharedPage, WorkerKind};

/// A record in a [`KernelQueue`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum KernelRecord<H> {
    Connection(H),
    Probe,
}

/// One worker's queue as the kernel holds it.
///
/// A connection for a Node worker lies in two places: on the worker's channel, from where the
/// worker reads it, and among the unanswered, where the driver keeps its copy until it has
/// received the answer.
#[derive(Debug)]
pub(crate) struct KernelQueue<H> {
    kind: WorkerKind,
    records: VecDeque<KernelRecord<H>>,
    unanswered: VecDeque<H>,
    /// `EndQueue` was performed.
    has_ended: bool,
    /// A record was refused for want of room, and `Writable` is due when one has been read.
    is_room_awaited: bool,
    /// The worker's endpoint is closed: every further record is refused.
    is_gone: bool,
}

impl<H: Copy> KernelQueue<H> {
    pub(crate) fn new(kind: WorkerKind) -> Self {
        Self {
            kind,
            records: VecDeque::new(),
            unanswered: VecDeque::new(),
            has_ended: false,
            is_room_awaited: false,
            is_gone: false,
        }
    }

    pub(crate) fn kind(&self) -> WorkerKind {
        self.kind
    }

    /// Performs `Send`.
    pub(crate) fn send(&mut self, connection: H) {
        self.records.push_back(KernelRecord::Connection(connection));
        if self.kind == WorkerKind::Node {
            self.unanswered.push_back(connection);
        }
    }

    /// Performs `Probe`.
    pub(crate) fn probe(&mut self) {
        assert_eq!(self.kind, WorkerKind::Native, "a Node worker has no queue to probe");
        self.records.push_back(KernelRecord::Probe);
    }

    /// Refuses a record, and remembers what follows from that.
    pub(crate) fn refuse(&mut self, refusal: Refusal) {
        match refusal {
            // The channel of a Node worker does not report that it has room.
            Refusal::Full => self.is_room_awaited = self.kind == WorkerKind::Native,
            Refusal::Gone => self.is_gone = true,
            Refusal::InFlight => {}
        }
    }

    /// Performs `PollDepth`.
    pub(crate) fn depth(&self) -> u32 {
        assert_eq!(self.kind, WorkerKind::Native, "a Node worker has no queue to poll");
        u32::try_from(self.records.len()).unwrap()
    }

    /// Performs `Reclaim`: reads back the oldest `records_max` records, or all that a Node worker
    /// has not answered. The number counts the probes.
    pub(crate) fn reclaim(&mut self, records_max: usize) -> (Vec<H>, u32) {
        if self.kind == WorkerKind::Node {
            self.records.clear();
            return (self.unanswered.drain(..).collect(), 0);
        }
        let (mut connections, mut probes) = (Vec::new(), 0);
        for record in self.records.drain(..records_max.min(self.records.len())) {
            match record {
                KernelRecord::Connection(connection) => connections.push(connection),
                KernelRecord::Probe => probes += 1,
            }
        }
        (connections, probes)
    }

    /// Performs `EndQueue`.
    pub(crate) fn end(&mut self) {
        assert_eq!(self.kind, WorkerKind::Native, "a Node worker has no queue to end");
        assert!(!std::mem::replace(&mut self.has_ended, true), "ended once");
    }

    /// The worker reads one record.
    pub(crate) fn read(&mut self) -> Option<KernelRecord<H>> {
        self.records.pop_front()
    }

    /// The worker reads all records.
    pub(crate) fn read_all(&mut self) {
        self.records.clear();
    }

    /// Whether the record that was just read made room that `Writable` has to report. Returns `true`
    /// once for each refusal.
    pub(crate) fn take_room_awaited(&mut self) -> bool {
        std::mem::take(&mut self.is_room_awaited)
    }

    /// The driver received a Node worker's answer to its `nth` unanswered connection.
    pub(crate) fn answer(&mut self, nth: usize) -> H {
        self.unanswered.remove(nth).expect("an unanswered connection")
    }

    /// Returns the connections that are unread, or unanswered by a Node worker, oldest first.
    pub(crate) fn connections(&self) -> Vec<H> {
        match self.kind {
            WorkerKind::Native => {
                self.records.iter().filter_map(KernelRecord::connection).collect()
            }
            WorkerKind::Node => self.unanswered.iter().copied().collect(),
        }
    }

    /// Returns the unread records, oldest first.
    pub(crate) fn records(&self) -> impl ExactSizeIterator<Item = KernelRecord<H>> + '_ {
        self.records.iter().copied()
    }

    pub(crate) fn has_ended(&self) -> bool {
        self.has_ended
    }

    pub(crate) fn is_gone(&self) -> bool {
        self.is_gone
    }
}

impl<H: Copy> KernelRecord<H> {
    fn connection(&self) -> Option<H> {
        match self {
            Self::Connection(connection) => Some(*connection),
            Self::Probe => None,
        }
    }
}

/// The page of one queue, and the connections that the worker has open.
#[derive(Debug, Default)]
pub(crate) struct ModelPage {
    closed: AtomicU64,
    is_next_awaited: AtomicBool,
    open: AtomicU64,
    counts_closed: bool,
    is_short: AtomicBool,
    is_paused: AtomicBool,
    signs: AtomicU64,
}

impl ModelPage {
    /// A page on which the worker counts its closed connections.
    pub(crate) fn counting() -> Self {
        Self::with_closed(0)
    }

    /// A page on which the worker has counted this many closed connections.
    pub(crate) fn with_closed(closed: u64) -> Self {
        Self { closed: closed.into(), counts_closed: true, ..Self::default() }
    }

    /// The worker found that it has no descriptor left, or has one again.
    pub(crate) fn set_short_of_descriptors(&self, is_short: bool) {
        self.is_short.store(is_short, Ordering::Relaxed);
    }

    /// The worker pauses its listener, or resumes it.
    pub(crate) fn set_paused(&self, is_paused: bool) {
        self.is_paused.store(is_paused, Ordering::Relaxed);
    }

    /// The worker gives a sign of life.
    pub(crate) fn give_sign_of_life(&self) {
        self.signs.fetch_add(1, Ordering::Relaxed);
    }

    /// The worker accepts a connection.
    pub(crate) fn open(&self) {
        self.open.fetch_add(1, Ordering::Relaxed);
    }

    /// The number of connections that the worker has open, where its harness calls `open`.
    pub(crate) fn open_count(&self) -> u64 {
        self.open.load(Ordering::Relaxed)
    }

    /// The worker closes a connection. Returns whether the primary awaits that.
    pub(crate) fn close(&self) -> bool {
        let _ = self.open.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1));
        self.closed.fetch_add(1, Ordering::Relaxed);
        self.is_next_awaited.swap(false, Ordering::Relaxed)
    }
}

impl SharedPage for ModelPage {
    fn closed(&self) -> Option<u64> {
        self.counts_closed.then(|| self.closed.load(Ordering::Relaxed))
    }

    fn notify_next(&self) {
        self.is_next_awaited.store(true, Ordering::Relaxed);
    }

    fn is_short_of_descriptors(&self) -> bool {
        self.is_short.load(Ordering::Relaxed)
    }

    fn is_paused(&self) -> bool {
        self.is_paused.load(Ordering::Relaxed)
    }

    fn signs_of_life(&self) -> u64 {
        self.signs.load(Ordering::Relaxed)
    }
}
