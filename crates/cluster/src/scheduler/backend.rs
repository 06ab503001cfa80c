//! A backend: the primary's view of one worker's hand-off queue, or of the connections that a Node
//! worker has not answered.
//!
//! Pure.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::contract::{SharedPage, SlotId, WorkerId, WorkerKind};
use crate::counters::WorkerCounters;

use super::SLOW;

#[derive(Debug)]
pub(super) struct Backend {
    pub(super) worker: WorkerId,
    pub(super) slot: SlotId,
    pub(super) kind: WorkerKind,
    pub(super) state: BackendState,
    /// The records that were sent and, as far as is known, are unread; for a Node worker, the
    /// connections that it has not answered. Oldest first.
    pub(super) records: VecDeque<SentRecord>,
    /// The length of `records` when the queue was last polled, while the answer is due.
    pub(super) polled_depth: Option<usize>,
    /// Whether the kernel refused a record for want of room, or a Node worker is in its back-off.
    pub(super) is_full: bool,
    /// Whether the oldest record was unread for `slow_after` when the queue was last polled.
    pub(super) is_slow: bool,
    pub(super) slow_after: Duration,
    /// The turns in the rotation for which others got a connection, see `pick::turns`.
    pub(super) owed: u32,
    /// The time of the last poll that was made because the backend was about to be skipped; cleared
    /// by the next dispatch.
    pub(super) refreshed_at: Option<Instant>,
    /// The time at which the oldest record had been unread for [`SLOW`], if the worker has read
    /// nothing since.
    pub(super) stalled_since: Option<Instant>,
    /// Whether the primary has paused the reading of the Node worker's channel.
    pub(super) is_paused: bool,
    /// The end and the length of the current back-off, for a Node worker that took nothing.
    pub(super) backoff: Option<(Instant, Duration)>,
    /// The number of the worker's signs of life at the last poll.
    pub(super) signs_of_life: u64,
    /// The page that the worker shares with the primary; `None` for Node workers.
    pub(super) page: Option<Arc<dyn SharedPage>>,
    /// Whether the worker also accepts, from its slot's own socket.
    pub(super) has_own_socket: bool,
    /// Whether the worker accepted from its own socket when that was last determined.
    pub(super) was_accepting: bool,
    /// The number of connections that the worker may have, open or in its queue.
    pub(super) open_max: Option<u32>,
    pub(super) counters: WorkerCounters,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BackendState {
    /// The queue exists; the worker has not reported that it listens.
    Granted,
    /// The backend is in use.
    Open,
    /// The queue stalled and was reclaimed. The worker gets probes only.
    Suspect,
    /// The answer to `Reclaim` is due.
    Reclaiming(AfterReclaim),
    /// The queue was reclaimed after this many retries, and the answer to `PollDepth` is due, which
    /// shows whether anything is left, as happens when this process is out of descriptors.
    Verifying(u32),
    /// Something was left; the number counts the retries.
    RetryingReclaim(u32),
    /// `EndQueue` was sent: the worker reads the rest. A Node worker gets nothing more, and answers
    /// what it has.
    Draining,
    /// The Node worker takes nothing more. Its last answers are due, or the end of its channel.
    AwaitingAnswers,
}

/// The next state of a backend whose queue has been reclaimed. A later variant replaces an earlier
/// one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum AfterReclaim {
    Suspect,
    Drain,
    /// The queue is dropped, with the number of retries so far.
    Drop(u32),
}

/// A record that was sent and has not been read, as far as is known.
#[derive(Clone, Copy, Debug)]
pub(super) struct SentRecord {
    pub(super) sent_at: Instant,
    /// The connection that the record carries; `None` for a probe.
    pub(super) connection: Option<ConnectionTag>,
}

/// The facts about a connection that the scheduler keeps while the connection lies in a queue.
#[derive(Clone, Copy, Debug)]
pub(super) struct ConnectionTag {
    /// The position of the connection in the order of `accept`: its age.
    pub(super) number: u64,
    /// Whether the connection has been reclaimed at least once.
    pub(super) was_reclaimed: bool,
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
            polled_depth: None,
            is_full: false,
            is_slow: false,
            slow_after,
            owed: 0,
            refreshed_at: None,
            stalled_since: None,
            is_paused: false,
            backoff: None,
            signs_of_life: 0,
            page: None,
            has_own_socket: false,
            was_accepting: false,
            open_max,
            counters: WorkerCounters::default(),
        }
    }

    /// Adds a dispatched connection. An earlier poll is not valid any more.
    pub(super) fn push(&mut self, sent: SentRecord) {
        self.records.push_back(sent);
        self.refreshed_at = None;
    }

    /// Takes the answer to `PollDepth`.
    pub(super) fn update_depth(&mut self, unread: usize, now: Instant) {
        let Some(polled) = self.polled_depth.take() else { return };
        let read = polled.saturating_sub(unread).min(self.records.len());
        self.records.drain(..read);
        self.is_slow = self.is_unread_for(self.slow_after, now);
        if read > 0 || unread == 0 {
            self.is_full = false;
            self.stalled_since = None;
        }
        if self.is_unread_for(SLOW, now) {
            self.stalled_since.get_or_insert(now);
        }
    }

    /// Removes a record that the kernel refused. Returns the tag of its connection.
    pub(super) fn remove_refused(&mut self) -> Option<ConnectionTag> {
        // The record is among the last ones, which have one `sent_at`. Refusals arrive in the order
        // of the sends, so the removal of the oldest of these keeps the tags with their connections.
        let last = self.records.back()?.sent_at;
        let at = self.records.iter().position(|sent| sent.sent_at == last)?;
        let sent = self.records.remove(at)?;
        self.polled_depth = self.polled_depth.map(|polled| polled.min(self.records.len()));
        // An empty backend is not polled, so nothing else would clear this.
        self.is_slow &= !self.records.is_empty();
        sent.connection
    }

    /// Whether the oldest record has been unread, or unanswered, for this long.
    pub(super) fn is_unread_for(&self, time: Duration, now: Instant) -> bool {
        let age = |oldest: &SentRecord| now.saturating_duration_since(oldest.sent_at);
        self.records.front().is_some_and(|oldest| age(oldest) >= time)
    }

    /// Whether the worker had no descriptor left for a connection when it last read.
    pub(super) fn is_short_of_descriptors(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.is_short_of_descriptors())
    }

    /// Whether the worker has paused its listener.
    pub(super) fn has_paused_listener(&self) -> bool {
        self.page.as_ref().is_some_and(|page| page.is_paused())
    }

    /// Takes the signs of life of a worker that leaves its queue unread: a paused listener, and a
    /// closed connection or a message since the last poll. The worker is not stuck then.
    pub(super) fn take_signs_of_life(&mut self, now: Instant) {
        let Some(page) = &self.page else { return };
        let signs = page.signs_of_life();
        let gave_sign = std::mem::replace(&mut self.signs_of_life, signs) != signs;
        if gave_sign || page.is_paused() {
            self.stalled_since = self.stalled_since.map(|_| now);
        }
    }

    /// Whether the backend can take a connection in its turn.
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

    /// Whether the backend is in use and its view holds fewer records than `window`.
    pub(super) fn has_room(&self, window: usize) -> bool {
        self.state == BackendState::Open
            && !self.is_slow
            && !self.is_full
            && self.records.len() < window
            && !self.has_paused_listener()
    }

    /// Returns the number of connections that the worker has, open or in its queue. Without a
    /// count of the closed ones these are the unread or unanswered ones.
    pub(super) fn load(&self) -> u64 {
        let unread = u64::try_from(self.records.len()).unwrap_or(u64::MAX);
        self.page.as_ref().and_then(|page| page.closed()).map_or(unread, |closed| {
            let kept = self.counters.dispatched.saturating_sub(self.counters.reclaimed);
            kept.saturating_sub(closed)
        })
    }

    /// Whether the worker has as many connections as it may have.
    pub(super) fn is_at_its_limit(&self) -> bool {
        self.open_max.is_some_and(|max| self.load() >= u64::from(max))
    }

    /// Whether the backend has to be polled every tick.
    pub(super) fn needs_polling(&self) -> bool {
        match self.state {
            BackendState::Open => !self.records.is_empty() || self.is_full,
            BackendState::Suspect => true,
            BackendState::Granted
            | BackendState::Reclaiming(_)
            | BackendState::Verifying(_)
            | BackendState::RetryingReclaim(_)
            | BackendState::Draining
            | BackendState::AwaitingAnswers => false,
        }
    }
}
