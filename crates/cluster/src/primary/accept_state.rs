//! The state of one listening socket: when to accept from it, watch it, poll it and close it.
//!
//! The driver passes the result of each call and each event of the loop to [`AcceptState::step`],
//! and performs the [`AcceptAction`] that it returns. The driver accepts while
//! [`AcceptState::wants_accept`] holds, and comes back at [`AcceptState::deadline`].
//!
//! The loop is edge-triggered. Whenever accepting stops before the backlog is empty, the socket
//! stays marked as perhaps ready and is tried again without an edge. `EAGAIN` shows that the
//! backlog is empty; each later connection is an edge of its own. An error of the process or the
//! machine pauses the socket for [`ACCEPT_PAUSE`], so that it causes neither a busy loop nor an
//! end.
//!
//! Under the policy `ReusePort` an address has one socket for each slot. The worker in that slot
//! accepts from the socket, and the primary accepts only on behalf of a worker that does not. The
//! primary then polls the worker's socket every [`POLL_INTERVAL`] for connections that nobody
//! accepts. After some polls without any, the loop watches the socket until the next connection.
//!
//! The kernel resets the unaccepted connections of a socket that is closed. A closing socket
//! therefore first refuses new clients, then waits for the handshakes under way, and is drained
//! when its backlog is empty after that.
//!
//! Pure.

use std::time::{Duration, Instant};

use crate::protocol::address::Address;

/// The time that a socket pauses when this process or the machine lacks descriptors or memory.
pub(crate) const ACCEPT_PAUSE: Duration = Duration::from_millis(50);
/// The time between two polls of a worker's own socket while connections arrive.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// The number of polls without an unaccepted connection after which the loop watches the socket.
const QUIET_POLLS_MAX: u32 = 10;
/// The longest time that a closing socket waits for descriptors.
const CLOSE_WITHIN: Duration = Duration::from_secs(2);
/// The longest time that handshakes take which were under way when new clients were refused: most
/// round trips are shorter.
const HANDSHAKE_MAX: Duration = Duration::from_millis(100);
/// The same within this machine, where a handshake is one call of the client.
const HANDSHAKE_LOOPBACK_MAX: Duration = Duration::from_millis(5);
/// The most connections that are taken from a backlog before its socket is closed.
const DRAIN_CONNECTIONS_MAX: usize = 65_536;

/// One event of a listening socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptEvent {
    /// `accept4(2)` returned a connection.
    Accepted,
    /// `accept4(2)` failed with `EAGAIN`: the backlog is empty.
    WouldBlock,
    /// `accept4(2)` failed for this connection only. The next one may be sound.
    ConnectionError,
    /// `accept4(2)` failed for a reason of this process or the machine.
    ResourceError,
    /// The loop reported that the socket is readable.
    Readable,
    /// The loop watches the socket: the result of [`AcceptAction::Watch`].
    Watched,
    /// The loop cannot watch the socket, for lack of kernel memory.
    WatchFailed,
    /// The supervisor wants connections of this address, or does not.
    Accept(bool),
    /// The primary accepts on behalf of the worker that owns the socket, or the worker does.
    AcceptOnBehalf(bool),
    /// The number of unaccepted connections was read, and was not 0.
    PolledSome,
    /// The number of unaccepted connections was read, and was 0.
    PolledNone,
    /// The socket is being closed. Handshakes may be under way for this time.
    Close { handshakes: Duration },
}

/// A task for the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AcceptAction {
    /// Register the socket with the loop; answer `Watched` or `WatchFailed`.
    Watch,
    /// Deregister the socket.
    Unwatch,
    /// Accept again in the next turn of the loop.
    Retry,
    /// Report that the worker leaves connections unaccepted.
    ReportUnaccepted,
}

/// The process that accepts from a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Acceptor {
    /// The primary, while the supervisor wants connections.
    Primary,
    /// The worker whose slot owns the socket. At 0 polls left, the loop watches for the next
    /// connection instead.
    Worker { polls_left: u32 },
}

/// A socket that is being closed.
#[derive(Debug, Clone)]
struct Closing {
    /// From this time on, an empty backlog stays empty.
    handshakes_until: Instant,
    /// The time at which the socket is closed whatever its backlog holds.
    until: Instant,
    /// The backlog was empty after the handshakes.
    is_empty: bool,
    taken: usize,
}

/// The state of one listening socket.
#[derive(Debug, Clone)]
pub(crate) struct AcceptState {
    is_on: bool,
    acceptor: Acceptor,
    is_watched: bool,
    may_be_ready: bool,
    /// The loop has just reported a connection, so no poll is needed before `accept4(2)`.
    is_reported: bool,
    paused_until: Option<Instant>,
    closing: Option<Closing>,
}

impl AcceptState {
    /// Creates the state of a new socket, from which the primary accepts once it is switched on.
    pub(crate) fn new() -> Self {
        Self {
            is_on: false,
            acceptor: Acceptor::Primary,
            is_watched: false,
            may_be_ready: true,
            is_reported: false,
            paused_until: None,
            closing: None,
        }
    }

    /// Takes one event and returns the next action.
    pub(crate) fn step(&mut self, event: AcceptEvent, now: Instant) -> Option<AcceptAction> {
        use {AcceptEvent as E, Acceptor as A};
        if let E::Accepted | E::WouldBlock | E::ConnectionError | E::ResourceError = event {
            (self.is_reported, self.paused_until) = (false, None);
        }
        match (event, self.acceptor) {
            (E::Accepted, _) => {
                self.closing.iter_mut().for_each(|closing| closing.taken += 1);
                None
            }
            (E::ConnectionError, _) => None,
            (E::WouldBlock, _) => self.would_block(now),
            (E::ResourceError, _) => {
                self.paused_until = Some(now + ACCEPT_PAUSE);
                None
            }
            (E::Readable, acceptor) => {
                (self.may_be_ready, self.is_reported) = (true, true);
                if acceptor == A::Primary { None } else { self.leave_to_worker() }
            }
            (E::Watched, A::Primary) => {
                self.is_watched = true;
                self.may_be_ready.then_some(AcceptAction::Retry)
            }
            (E::Watched, A::Worker { .. }) => {
                self.is_watched = true;
                self.acceptor = A::Worker { polls_left: 0 };
                None
            }
            (E::WatchFailed, A::Primary) => {
                // No edge would report the next connection.
                (self.may_be_ready, self.paused_until) = (true, Some(now + ACCEPT_PAUSE));
                None
            }
            (E::Accept(is_on), _) => {
                self.is_on = is_on;
                self.begin()
            }
            (E::AcceptOnBehalf(true), _) => {
                (self.may_be_ready, self.acceptor) = (true, A::Primary);
                self.begin()
            }
            (E::AcceptOnBehalf(false), _) => {
                self.may_be_ready = true;
                self.leave_to_worker()
            }
            (E::PolledSome, A::Worker { .. }) => {
                self.acceptor = A::Worker { polls_left: QUIET_POLLS_MAX };
                Some(AcceptAction::ReportUnaccepted)
            }
            (E::PolledNone, A::Worker { polls_left: 1 }) => Some(AcceptAction::Watch),
            (E::PolledNone, A::Worker { polls_left }) => {
                self.acceptor = A::Worker { polls_left: polls_left.saturating_sub(1) };
                None
            }
            // The last poll is repeated until the loop can watch. The primary polls no socket from
            // which it accepts.
            (E::WatchFailed, A::Worker { .. }) | (E::PolledSome | E::PolledNone, A::Primary) => {
                None
            }
            (E::Close { handshakes }, _) => {
                self.may_be_ready = true;
                self.closing.get_or_insert_with(|| Closing {
                    handshakes_until: now + handshakes,
                    until: now + CLOSE_WITHIN,
                    is_empty: false,
                    taken: 0,
                });
                None
            }
        }
    }

    fn would_block(&mut self, now: Instant) -> Option<AcceptAction> {
        self.may_be_ready = false;
        if let Some(closing) = &mut self.closing {
            closing.is_empty = closing.handshakes_until <= now;
            return None;
        }
        // A connection that arrives before the socket is watched is an edge all the same.
        (!self.is_watched).then_some(AcceptAction::Watch)
    }

    /// Starts to accept if the primary is to. The socket is watched from then on only: where
    /// workers accept, each connection would wake the primary in vain.
    fn begin(&mut self) -> Option<AcceptAction> {
        if !self.is_on || self.acceptor != Acceptor::Primary {
            return None;
        }
        Some(if self.is_watched { AcceptAction::Retry } else { AcceptAction::Watch })
    }

    /// Polls the socket for some time, instead of waking up for each of its connections.
    fn leave_to_worker(&mut self) -> Option<AcceptAction> {
        self.acceptor = Acceptor::Worker { polls_left: QUIET_POLLS_MAX };
        std::mem::take(&mut self.is_watched).then_some(AcceptAction::Unwatch)
    }

    /// Returns whether to call `accept4(2)` now.
    pub(crate) fn wants_accept(&self, now: Instant) -> bool {
        let closes = |it: &Closing| it.handshakes_until <= now && !it.is_empty;
        let may_be_ready = self.may_be_ready || self.closing.as_ref().is_some_and(closes);
        let is_paused = self.paused_until.is_some_and(|until| now < until);
        self.accepts() && may_be_ready && !is_paused
    }

    /// Returns whether the loop has reported a connection since the last `accept4(2)`.
    pub(crate) fn is_reported(&self) -> bool {
        self.is_reported
    }

    /// Returns the time at which a pause or the handshakes of a closing socket end.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let pause = self.paused_until.filter(|_| self.accepts() && self.may_be_ready);
        let closing = self.closing.as_ref().filter(|it| !it.is_empty);
        let handshakes = closing.map(|it| it.handshakes_until);
        pause.into_iter().chain(handshakes).filter(|at| *at > now).min()
    }

    /// Returns whether the supervisor wants connections of this address.
    pub(crate) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Returns whether the socket is to be polled for connections that its worker does not accept.
    pub(crate) fn is_polled(&self) -> bool {
        matches!(self.acceptor, Acceptor::Worker { polls_left: 1.. }) && self.closing.is_none()
    }

    /// Returns whether the socket is being closed.
    pub(crate) fn is_closing(&self) -> bool {
        self.closing.is_some()
    }

    /// Returns whether a closing socket gives no more connections.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        let is_drained =
            |it: &Closing| it.is_empty || it.taken >= DRAIN_CONNECTIONS_MAX || it.until <= now;
        self.closing.as_ref().is_some_and(is_drained)
    }

    fn accepts(&self) -> bool {
        self.closing.is_some() || (self.is_on && self.acceptor == Acceptor::Primary)
    }
}

/// Returns the time for which handshakes at this address may be under way when new clients are
/// refused.
pub(crate) fn handshakes_max(address: &Address) -> Duration {
    match address {
        Address::Tcp { address, .. } if address.ip().is_loopback() => HANDSHAKE_LOOPBACK_MAX,
        Address::Tcp { .. } => HANDSHAKE_MAX,
        // The other kinds have no handshake in several steps.
        Address::UnixPath(_)
        | Address::UnixAbstract(_)
        | Address::Udp { .. }
        | Address::DatagramPath(_)
        | Address::DatagramAbstract(_)
        | Address::Inherited(_) => Duration::ZERO,
    }
}

/// The time at which all polled sockets are polled together, so that many cost one wake-up.
#[derive(Debug, Default)]
pub(crate) struct PollTimer {
    at: Option<Instant>,
}

impl PollTimer {
    /// Sets the timer, unless it is set or no socket is polled.
    pub(crate) fn arm(&mut self, now: Instant, is_any_polled: impl FnOnce() -> bool) {
        if self.at.is_none() && is_any_polled() {
            self.at = Some(now + POLL_INTERVAL);
        }
    }

    /// Returns whether the timer is due, and clears it then.
    pub(crate) fn take_due(&mut self, now: Instant) -> bool {
        self.at.take_if(|at| *at <= now).is_some()
    }

    /// Returns the time of the next poll.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.at
    }
}

#[cfg(test)]
mod tests;
