//! The life of one worker: what each piece of news means in each state.
//!
//! A worker is ordered, runs, and is dead; in between it says that it is online, listens, is
//! asked to finish, and is helped along with signals when it does not. News may come in any
//! order: exit and hang-up are seen by different descriptors. [`Lifecycle::step`] is one table of
//! state and event; what it answers is told or done exactly once for each worker.
//!
//! Pure.

use std::time::{Duration, Instant};

/// A dead worker whose channel has not hung up is forgotten after this time.
const HANG_UP_MAX: Duration = Duration::from_secs(1);

/// How far a worker has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// Being started; what shall become of it then.
    Ordered(Intent),
    /// Runs, and is not heard of.
    None,
    /// Its runtime is up.
    Online,
    /// It has listened.
    Listening,
    /// Its channel hung up, and nobody asked it to.
    Disconnected,
    /// Asked to finish.
    Draining,
    /// `SIGTERM` was sent.
    Terminated,
    /// `SIGKILL` was sent.
    Killed,
    /// Its process ended, or could not be started.
    Dead,
}

/// What shall become of a worker that does not run yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Intent {
    Run,
    Finish,
    Kill,
}

/// News, or a decision of the core.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Spawned,
    SpawnFailed,
    Online,
    Listening,
    /// Shall finish what it has and end: its exit is a wanted one from now on.
    Finish,
    /// Shall be gone at once.
    Kill,
    ChannelClosed,
    Exited,
    /// The deadline is reached.
    Due,
}

/// What is to be told or done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    TellFork,
    TellForkFailed,
    TellOnline,
    TellDisconnect,
    TellExit,
    /// It takes connections no more: read its queues back.
    Release,
    Terminate,
    Kill,
    /// Nothing more will be heard of it.
    Forget,
}

/// The times in a life.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Times {
    pub(crate) disconnect: Duration,
    pub(crate) term: Duration,
    /// From online to ready, for a worker that does not listen; `None`: only listening counts.
    pub(crate) ready_after: Option<Duration>,
}

/// One worker's life.
#[derive(Clone, Debug)]
pub(crate) struct Lifecycle {
    state: Stage,
    until: Option<Instant>,
    /// Its exit was asked for.
    wanted: bool,
    /// Its channel has not hung up.
    connected: bool,
    /// It has listened, or was online for long enough.
    ready: bool,
    fork_emitted: bool,
    online_emitted: bool,
    listening_since: Option<Instant>,
}

impl Lifecycle {
    pub(crate) fn new() -> Self {
        Self {
            state: Stage::Ordered(Intent::Run),
            until: None,
            wanted: false,
            connected: true,
            ready: false,
            fork_emitted: false,
            online_emitted: false,
            listening_since: None,
        }
    }

    /// Takes one event; [`Event::Due`] only when [`deadline`](Self::deadline) is reached.
    pub(crate) fn step(&mut self, event: Event, now: Instant, times: &Times) -> &'static [Action] {
        if event == Event::ChannelClosed && !std::mem::take(&mut self.connected) {
            return &[];
        }
        let (next, actions) = self.row(event);
        if event == Event::Finish && self.state != Stage::Dead {
            self.wanted = true;
        }
        self.fork_emitted |= actions.contains(&Action::TellFork);
        self.online_emitted |= actions.contains(&Action::TellOnline);
        self.ready |=
            next == Stage::Listening || (event, self.state) == (Event::Due, Stage::Online);
        if next == Stage::Listening {
            self.listening_since.get_or_insert(now);
        }
        let entered = next != self.state;
        self.state = next;
        if entered || event == Event::Due {
            self.until = self.timeout(times).and_then(|timeout| now.checked_add(timeout));
        }
        actions
    }

    /// The table.
    #[allow(clippy::too_many_lines, reason = "a table shows its holes when it is in one piece")]
    fn row(&self, event: Event) -> (Stage, &'static [Action]) {
        use {Action as A, Event as E, Intent as W, Stage as S};
        let same = self.state;
        let fork: &[A] = if self.fork_emitted { &[] } else { &[A::TellFork] };
        let online: &[A] = if self.online_emitted { &[] } else { &[A::TellOnline] };
        let exit: &[A] = if self.connected {
            &[A::Release, A::TellExit]
        } else {
            &[A::Release, A::TellExit, A::Forget]
        };
        match (self.state, event) {
            // Hung up before it ran: one that was to run is on its own, as below.
            (S::Ordered(W::Run), E::Spawned) if !self.connected => (S::Disconnected, fork),
            (S::Ordered(W::Run), E::Spawned) => (S::None, fork),
            (S::Ordered(W::Finish), E::Spawned) => (S::Draining, fork),
            (S::Ordered(W::Kill), E::Spawned) => (S::Killed, &[A::TellFork, A::Kill]),
            (S::Ordered(_), E::SpawnFailed) => (S::Dead, &[A::TellForkFailed, A::Forget]),
            (S::Ordered(W::Run), E::Finish) => (S::Ordered(W::Finish), &[]),
            (S::Ordered(_), E::Kill) => (S::Ordered(W::Kill), &[]),
            (S::Ordered(W::Run), E::Online | E::Listening) if !self.connected => (same, &[]),
            // Overtook `Spawned`: it runs.
            (S::Ordered(W::Run) | S::None, E::Online) => (S::Online, online),
            (S::Ordered(W::Run) | S::None | S::Online, E::Listening) => (S::Listening, &[]),
            (S::Ordered(_) | S::Draining | S::Terminated | S::Killed, E::ChannelClosed) => {
                (same, &[A::TellDisconnect])
            }
            (S::Listening, E::Online) => (same, online),
            (S::None | S::Online | S::Listening, E::ChannelClosed) => {
                (S::Disconnected, &[A::Release, A::TellDisconnect])
            }
            (S::None | S::Online | S::Listening, E::Finish) => (S::Draining, &[]),
            (
                S::None | S::Online | S::Listening | S::Disconnected | S::Draining | S::Terminated,
                E::Kill,
            ) => (S::Killed, &[A::Release, A::Kill]),
            (S::Disconnected | S::Draining, E::Due) => (S::Terminated, &[A::Terminate]),
            (S::Terminated, E::Due) => (S::Killed, &[A::Kill]),
            (
                S::Ordered(_)
                | S::None
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed,
                E::Exited,
            ) => (S::Dead, exit),
            (S::Dead, E::ChannelClosed | E::Due) => (S::Dead, &[A::TellDisconnect, A::Forget]),
            // The order that was given before it ran is repeated, for it could not be obeyed.
            (S::Killed, E::Spawned) if !self.fork_emitted => (same, &[A::TellFork, A::Kill]),
            (
                S::None
                | S::Online
                | S::Listening
                | S::Disconnected
                | S::Draining
                | S::Terminated
                | S::Killed,
                E::Spawned,
            ) => (same, fork),
            // Settled: no other state, and no deadline any more.
            (S::Online, E::Due) => (same, &[]),
            // Late, early or repeated news: nothing changes.
            (S::Ordered(W::Finish | W::Kill), E::Online | E::Listening | E::Finish)
            | (S::Ordered(_) | S::None | S::Listening | S::Killed, E::Due)
            | (
                S::None
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
                S::Dead,
                E::Spawned
                | E::SpawnFailed
                | E::Online
                | E::Listening
                | E::Finish
                | E::Kill
                | E::Exited,
            ) => (same, &[]),
        }
    }

    /// How long the state just entered may last.
    fn timeout(&self, times: &Times) -> Option<Duration> {
        match self.state {
            Stage::Online => times.ready_after.filter(|_| !self.ready),
            Stage::Disconnected | Stage::Draining => Some(times.disconnect),
            Stage::Terminated => Some(times.term),
            Stage::Dead => self.connected.then_some(HANG_UP_MAX),
            Stage::Ordered(_) | Stage::None | Stage::Listening | Stage::Killed => None,
        }
    }

    /// When [`Event::Due`] is due.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.until
    }

    pub(crate) fn state(&self) -> Stage {
        self.state
    }

    /// Whether its exit was asked for: Node's `exitedAfterDisconnect`.
    pub(crate) fn is_wanted(&self) -> bool {
        self.wanted
    }

    pub(crate) fn is_dead(&self) -> bool {
        self.state == Stage::Dead
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.connected
    }

    /// It has listened, or was online for long enough to say that it never will.
    pub(crate) fn is_ready(&self) -> bool {
        self.ready
    }

    /// It may be granted addresses and given connections.
    pub(crate) fn may_serve(&self) -> bool {
        match self.state {
            Stage::None | Stage::Online | Stage::Listening => true,
            Stage::Ordered(wish) => wish == Intent::Run && self.connected,
            Stage::Disconnected
            | Stage::Draining
            | Stage::Terminated
            | Stage::Killed
            | Stage::Dead => false,
        }
    }

    /// For how long it has been listening.
    pub(crate) fn listened(&self, now: Instant) -> Duration {
        self.listening_since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

#[cfg(test)]
mod tests;
