//! A lane: the primary's picture of one worker's hand-off queue, or of what a Node worker has not
//! answered.
//!
//! Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{ClosedCounter, SlotId, WorkerId, WorkerKind};
use crate::counters::WorkerCounters;

use super::SLOW;

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) worker: WorkerId,
    pub(super) slot: SlotId,
    pub(super) kind: WorkerKind,
    pub(super) state: BackendState,
    /// Sent and, as far as known, unread; of a Node worker: not answered.
    pub(super) records: VecDeque<Sent>,
    /// `PollDepth` is under way; so many records lay in the queue then.
    pub(super) asked: Option<usize>,
    /// The kernel refused a record for want of room, or the lane rests.
    pub(super) full: bool,
    /// The oldest record was unread for longer than this when it was last looked at.
    pub(super) slow: bool,
    pub(super) slow_after: Duration,
    /// Was looked at then, before it was passed over, and given nothing since.
    pub(super) polled_at: Option<Instant>,
    /// Unread for longer than [`SLOW`] ever since, and nothing read.
    pub(super) stalled_since: Option<Instant>,
    /// What a Node worker says is not heard now.
    pub(super) paused: bool,
    /// A Node worker took nothing: until then it is asked for nothing more, and how long that is.
    pub(super) rest: Option<(Instant, Duration)>,
    /// The worker's count of what has ended.
    pub(super) closed_counter: Option<Arc<dyn ClosedCounter>>,
    /// It accepts from its slot's own socket, too.
    pub(super) own: bool,
    /// It was last found to do so.
    pub(super) was_accepting: bool,
    /// So many connections it may have, open or in its queue.
    pub(super) open_max: Option<u32>,
    pub(super) counters: WorkerCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendState {
    /// The queue exists; the worker has not said that it listens.
    Granted,
    Open,
    /// Emptied because it was stuck; gets probes only.
    Suspect,
    /// `Reclaim` is under way.
    Taking(After),
    /// The last `Reclaim` came; `PollDepth` is under way, to see whether that was all. It is not when
    /// this process is out of descriptors.
    Checking(u32),
    /// It was not all; the number counts the tries.
    Again(u32),
    /// `EndQueue` was said; the worker reads the rest.
    Ended,
    /// A Node worker that gets nothing more has still to answer, or to be gone for good.
    Answering,
}

/// What follows when a queue is taken back. Later ones win.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum After {
    Suspect,
    End,
    /// With the tries so far.
    Drop(u32),
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Sent {
    pub(super) at: Instant,
    /// Of the connection; `None` for a probe.
    pub(super) connection: Option<Origin>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// Counted from the first that was accepted: its age.
    pub(super) number: u64,
    /// Has been taken back before.
    pub(super) again: bool,
}

impl Backend {
    pub(super) fn new(
        worker: WorkerId,
        slot: SlotId,
        kind: WorkerKind,
        slow_after: Duration,
        open_max: Option<u32>,
    ) -> Self {
        Self {
            worker,
            slot,
            kind,
            state: BackendState::Granted,
            records: VecDeque::new(),
            asked: None,
            full: false,
            slow: false,
            slow_after,
            polled_at: None,
            stalled_since: None,
            paused: false,
            rest: None,
            closed_counter: None,
            own: false,
            was_accepting: false,
            open_max,
            counters: WorkerCounters::default(),
        }
    }

    /// Is sent a connection; what was seen of it before is not true any more.
    pub(super) fn give(&mut self, sent: Sent) {
        self.records.push_back(sent);
        self.polled_at = None;
    }

    /// Takes the answer to `PollDepth`.
    pub(super) fn saw(&mut self, unread: usize, now: Instant) {
        let Some(asked) = self.asked.take() else { return };
        let read = asked.saturating_sub(unread).min(self.records.len());
        self.records.drain(..read);
        self.slow = self.is_unread_for(self.slow_after, now);
        if read > 0 || unread == 0 {
            self.full = false;
            self.stalled_since = None;
        }
        if self.is_unread_for(SLOW, now) {
            self.stalled_since.get_or_insert(now);
        }
    }

    /// Its oldest record is unread, or not answered, for this long.
    pub(super) fn is_unread_for(&self, time: Duration, now: Instant) -> bool {
        self.records.front().is_some_and(|oldest| oldest.at + time <= now)
    }

    /// A record did not get in; tells whose it was.
    pub(super) fn refused(&mut self) -> Option<Origin> {
        // It was among those sent last. Refusals come in the order of what was sent, so that
        // giving each the oldest of those keeps them in line.
        let last = self.records.back()?.at;
        let at = self.records.iter().position(|sent| sent.at == last)?;
        let sent = self.records.remove(at)?;
        self.asked = self.asked.map(|asked| asked.min(self.records.len()));
        // Nobody looks at an empty lane again.
        self.slow &= !self.records.is_empty();
        sent.connection
    }

    pub(super) fn is_free(&self, window: usize) -> bool {
        self.is_free_but_for_its_limit(window) && !self.is_at_its_limit()
    }

    pub(super) fn is_free_but_for_its_limit(&self, window: usize) -> bool {
        let window = match self.kind {
            WorkerKind::Native => window,
            WorkerKind::Node => 1,
        };
        self.has_room(window)
    }

    /// May be given more than its share, up to this many.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.state == BackendState::Open && !self.slow && !self.full && self.records.len() < window
    }

    pub(super) fn load(&self) -> u64 {
        let unread = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.closed_counter.as_ref().map_or(unread, |closed_counter| {
            let given = self.counters.dispatched.saturating_sub(self.counters.reclaimed);
            given.saturating_sub(closed_counter.closed())
        })
    }

    pub(super) fn is_at_its_limit(&self) -> bool {
        self.open_max.is_some_and(|max| self.load() >= u64::from(max))
    }

    /// Has to be looked at every tick.
    pub(super) fn is_watched(&self) -> bool {
        match self.state {
            BackendState::Open => !self.records.is_empty() || self.full,
            BackendState::Suspect => true,
            BackendState::Granted
            | BackendState::Taking(_)
            | BackendState::Checking(_)
            | BackendState::Again(_)
            | BackendState::Ended
            | BackendState::Answering => false,
        }
    }
}
