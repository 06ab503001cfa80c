//! The life of one worker: what each event means in each stage.
//!
//! A worker is being started, runs, and is dead. In between it reports that it is online and that
//! it listens, is asked to finish, and gets signals when it does not. Events may arrive in any
//! order, because different descriptors report the exit of the process and the end of its channel.
//! [`Lifecycle::step`] is one table of stages and events. Each of its actions is returned at most
//! once for each worker.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::contract::{Notice, SupervisorOptions, WorkerKind};

/// A dead worker whose channel has not closed is forgotten after this time.
const CHANNEL_CLOSE_MAX: Duration = Duration::from_secs(1);

/// A program without connections exits by itself in this time after its order to finish; `SIGTERM`
/// in the middle of that exit would look as if the program had been interrupted.
const SIGTERM_DELAY_MIN: Duration = Duration::from_millis(200);

/// A stage in the life of a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The process is being started; the intent says what happens to it once it runs.
    Starting(Intent),
    /// The process runs; its runtime has not reported yet.
    Started,
    /// The runtime is up.
    Online,
    /// The worker has opened a listener.
    Listening,
    /// The channel closed although no exit was requested.
    Disconnected,
    /// The worker has been asked to finish.
    Draining,
    /// `SIGTERM` was sent.
    Terminated,
    /// `SIGKILL` was sent.
    Killed,
    /// The process ended, or could not be started.
    Dead,
}

/// The order for a worker whose process does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Run,
    Finish,
    Kill,
}

/// An input about one worker, or a decision of the supervisor about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Spawned,
    SpawnFailed,
    Online,
    Listening,
    /// The worker is to finish its connections and exit; its exit counts as requested from now on.
    Finish,
    /// All queues of the worker have ended: nothing more is sent to it.
    QueuesEnded,
    /// The worker is to end at once.
    Kill,
    /// The time of a worker that is to finish is over.
    Expire,
    ChannelClosed,
    Exited,
    /// The deadline is reached.
    Due,
}

/// An order for the supervisor that follows an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    Emit(Notice),
    /// Stop sending connections to the worker and reclaim its queues.
    Release,
    /// Ask the worker to finish.
    SendDisconnect,
    Terminate,
    Kill,
    /// Decide about the next worker of the slot: this one has no process any more.
    Vacate,
    /// Drop all state of the worker; no further event follows.
    Forget,
}

/// The time limits of the stages.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) disconnect: Duration,
    pub(crate) term: Duration,
    /// The time from the order to finish to `SIGTERM`, if that is before the end of `disconnect`.
    pub(crate) sigterm_after: Option<Duration>,
    /// The time from online to ready for a worker that does not listen; `None` when only a
    /// listener makes a worker ready.
    pub(crate) ready_after: Option<Duration>,
}

impl Times {
    /// Returns the limits of workers of this kind.
    pub(crate) fn new(
        options: &SupervisorOptions,
        kind: WorkerKind,
        ready_after: Option<Duration>,
    ) -> Self {
        let (disconnect, term) = match kind {
            WorkerKind::Native => (options.disconnect, options.term),
            WorkerKind::Node => (options.disconnect_node, options.term_node),
        };
        let early = options.sigterm_node.filter(|_| kind == WorkerKind::Node);
        let sigterm_after = early.map(|delay| delay.max(SIGTERM_DELAY_MIN));
        Self { disconnect, term, sigterm_after, ready_after }
    }
}

/// The life of one worker.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    stage: Stage,
    deadline: Option<Instant>,
    /// The end of the time for its connections, if `SIGTERM` comes before that.
    drain_until: Option<Instant>,
    exit_requested: bool,
    /// The channel has not closed.
    connected: bool,
    /// The worker has listened, or was online for long enough.
    ready: bool,
    // An event that overtakes `Spawned` moves the stage on, so these do not follow from the stage.
    fork_emitted: bool,
    online_emitted: bool,
    disconnect_sent: bool,
    listening_since: Option<Instant>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::Starting(Intent::Run),
            deadline: None,
            drain_until: None,
            exit_requested: false,
            connected: true,
            ready: false,
            fork_emitted: false,
            online_emitted: false,
            disconnect_sent: false,
            listening_since: None,
        }
    }

    /// Takes one event; [`Event::Due`] only when [`deadline`](Self::deadline) is reached.
    pub(crate) fn step(&mut self, event: Event, now: Instant, times: &Times) -> &'static [Action] {
        if event == Event::ChannelClosed && !std::mem::take(&mut self.connected) {
            return &[];
        }
        let (next, actions) = self.row(event);
        if event == Event::Finish && self.stage != Stage::Dead {
            self.exit_requested = true;
        }
        self.fork_emitted |= actions.contains(&Action::Emit(Notice::Fork));
        self.online_emitted |= actions.contains(&Action::Emit(Notice::Online));
        self.disconnect_sent |= actions.contains(&Action::SendDisconnect);
        self.ready |=
            next == Stage::Listening || (event, self.stage) == (Event::Due, Stage::Online);
        if next == Stage::Listening {
            self.listening_since.get_or_insert(now);
        }
        if event == Event::Expire {
            self.drain_until = None;
        }
        let entered = next != self.stage;
        self.stage = next;
        if entered || event == Event::Due {
            // An early `SIGTERM` does not shorten the time until `SIGKILL`.
            let early = self.drain_until.filter(|_| next == Stage::Terminated);
            let from = early.map_or(now, |until| until.max(now));
            self.deadline = self.timeout(times).and_then(|timeout| from.checked_add(timeout));
        }
        let early = times.sigterm_after.and_then(|delay| now.checked_add(delay));
        if early.is_some() && actions.contains(&Action::SendDisconnect) {
            self.drain_until = self.deadline;
            self.deadline = early.into_iter().chain(self.deadline).min();
        }
        actions
    }

    /// The table.
    #[allow(clippy::too_many_lines, reason = "a table shows its holes when it is in one piece")]
    fn row(&self, event: Event) -> (Stage, &'static [Action]) {
        use {Action as A, Event as E, Intent as I, Notice as N, Stage as S};
        let same = self.stage;
        let fork: &[A] = if self.fork_emitted { &[] } else { &[A::Emit(N::Fork)] };
        let online: &[A] = if self.online_emitted { &[] } else { &[A::Emit(N::Online)] };
        let exit: &[A] = if self.connected {
            &[A::Release, A::Emit(N::Exit), A::Vacate]
        } else {
            &[A::Release, A::Emit(N::Exit), A::Vacate, A::Forget]
        };
        match (self.stage, event) {
            // The channel closed before this event: the worker is disconnected, as in the rows for
            // a worker that runs.
            (S::Starting(I::Run), E::Spawned) if !self.connected => (S::Disconnected, fork),
            (S::Starting(I::Run), E::Spawned) => (S::Started, fork),
            (S::Starting(I::Finish), E::Spawned) => (S::Draining, fork),
            (S::Starting(I::Kill), E::Spawned) => (S::Killed, &[A::Emit(N::Fork), A::Kill]),
            (S::Starting(_), E::SpawnFailed) => (S::Dead, &[A::Vacate, A::Forget]),
            (S::Starting(I::Run), E::Finish) => (S::Starting(I::Finish), &[]),
            (S::Starting(_), E::Kill) => (S::Starting(I::Kill), &[]),
            (S::Starting(I::Run), E::Online | E::Listening) if !self.connected => (same, &[]),
            // Messages that overtook `Spawned` show that the process runs.
            (S::Starting(I::Run) | S::Started, E::Online) => (S::Online, online),
            (S::Starting(I::Run) | S::Started | S::Online, E::Listening) => (S::Listening, &[]),
            (S::Starting(_) | S::Draining | S::Terminated | S::Killed, E::ChannelClosed) => {
                (same, &[A::Emit(N::Disconnect)])
            }
            (S::Listening, E::Online) => (same, online),
            (S::Started | S::Online | S::Listening, E::ChannelClosed) => {
                (S::Disconnected, &[A::Release, A::Emit(N::Disconnect)])
            }
            (S::Started | S::Online | S::Listening, E::Finish) => (S::Draining, &[]),
            (S::Draining, E::QueuesEnded) if self.awaits_queues() => (same, &[A::SendDisconnect]),
            (
                S::Started
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated,
                E::Kill,
            ) => (S::Killed, &[A::Release, A::Kill]),
            (S::Disconnected | S::Draining, E::Due | E::Expire) => (S::Terminated, &[A::Terminate]),
            (S::Terminated, E::Due) => (S::Killed, &[A::Release, A::Kill]),
            (
                S::Starting(_)
                | S::Started
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed,
                E::Exited,
            ) => (S::Dead, exit),
            (S::Dead, E::ChannelClosed | E::Due) => (S::Dead, &[A::Emit(N::Disconnect), A::Forget]),
            // `Kill` was ordered before a process existed, so the signal is sent again now.
            (S::Killed, E::Spawned) if !self.fork_emitted => (same, &[A::Emit(N::Fork), A::Kill]),
            (
                S::Started
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed,
                E::Spawned,
            ) => (same, fork),
            // The worker is ready: the stage stays and has no deadline any more.
            (S::Online, E::Due) => (same, &[]),
            // Late, early or repeated events change nothing.
            (S::Starting(I::Finish | I::Kill), E::Online | E::Listening | E::Finish)
            | (S::Starting(_) | S::Started | S::Listening | S::Killed, E::Due)
            | (
                S::Starting(_)
                | S::Started
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed
                | S::Dead,
                E::QueuesEnded,
            )
            | (
                S::Started
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed,
                E::SpawnFailed,
            )
            | (S::Online, E::Online)
            | (S::Listening, E::Listening)
            | (S::Disconnected, E::Online | E::Listening | E::Finish | E::ChannelClosed)
            | (S::Draining | S::Terminated | S::Killed, E::Online | E::Listening | E::Finish)
            | (S::Killed, E::Kill)
            | (
                S::Starting(_) | S::Started | S::Online | S::Listening | S::Terminated | S::Killed,
                E::Expire,
            )
            | (
                S::Dead,
                E::Spawned
                | E::SpawnFailed
                | E::Online
                | E::Listening
                | E::Finish
                | E::Kill
                | E::Expire
                | E::Exited,
            ) => (same, &[]),
        }
    }

    /// Returns the longest time that the current stage may last.
    fn timeout(&self, times: &Times) -> Option<Duration> {
        match self.stage {
            Stage::Online => times.ready_after.filter(|_| !self.ready),
            Stage::Disconnected | Stage::Draining => Some(times.disconnect),
            Stage::Terminated => Some(times.term),
            Stage::Dead => self.connected.then_some(CHANNEL_CLOSE_MAX),
            Stage::Starting(_) | Stage::Started | Stage::Listening | Stage::Killed => None,
        }
    }

    /// Returns the time for [`Event::Due`].
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    #[cfg(test)]
    pub(crate) fn stage(&self) -> Stage {
        self.stage
    }

    /// Whether the exit of the worker was requested: Node's `exitedAfterDisconnect`.
    pub(crate) fn exit_requested(&self) -> bool {
        self.exit_requested
    }

    /// Whether nothing is known of the process yet.
    pub(crate) fn is_starting(&self) -> bool {
        matches!(self.stage, Stage::Starting(_))
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.stage == Stage::Dead
    }

    /// Whether [`Event::QueuesEnded`] makes the worker finish: it was not asked to yet.
    pub(crate) fn awaits_queues(&self) -> bool {
        self.stage == Stage::Draining && self.connected && !self.disconnect_sent
    }

    /// Whether the worker has listened, or was online for so long that it is not going to.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// Whether the worker may be granted addresses and sent connections.
    pub(crate) fn may_serve(&self) -> bool {
        match self.stage {
            Stage::Started | Stage::Online | Stage::Listening => true,
            Stage::Starting(intent) => intent == Intent::Run && self.connected,
            Stage::Disconnected
            | Stage::Draining
            | Stage::Terminated
            | Stage::Killed
            | Stage::Dead => false,
        }
    }

    /// Whether the worker is ready although it has never listened.
    pub(crate) fn is_ready_without_listener(&self) -> bool {
        self.ready && self.listening_since.is_none()
    }

    /// Whether the runtime of the worker has been up.
    pub(crate) fn was_online(&self) -> bool {
        self.online_emitted
    }

    /// Returns the time since the worker began to listen.
    pub(crate) fn listened(&self, now: Instant) -> Duration {
        self.listening_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests;
