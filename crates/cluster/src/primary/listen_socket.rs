//! A listening socket of the primary.
//!
//! The loop is edge-triggered: whatever stopped before the backlog was empty is kept as "may be
//! ready" and tried again without waiting for an edge. That it is empty is seen by a look: each
//! connection that comes after that is an edge of its own. Trouble in `accept4` neither spins nor
//! ends anything: it pauses the port for [`PAUSE`].
//!
//! Under the policy `ReusePort` an address has a socket for each slot. From it its worker accepts,
//! and the primary only while it stands in for the worker. Otherwise the primary looks every
//! [`POLL_INTERVAL`] whether connections are left alone there, and not at all while none come.
//!
//! A closed socket resets whoever is connected and not accepted. So a port that is being closed
//! first lets nobody connect any more, then waits for the handshakes under way, and is closed
//! when its backlog is empty after that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reactor::{Interest, Token, Turn};

use crate::bind::{Bound, SocketFile, is_of_the_connection};
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;

/// How long a port rests when this process or the machine has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a worker's own socket is looked at while connections come.
pub(crate) const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// So often after the last one that was seen.
const POLLS_WHILE_QUIET: u32 = 10;
/// How long a port that is being closed waits for descriptors.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// How long handshakes may take that were under way when nobody could connect any more: most
/// round trips.
const HANDSHAKE_MAX: Duration = Duration::from_millis(100);
/// The same within this machine, where a handshake is one call of the client.
const HANDSHAKE_HERE_MAX: Duration = Duration::from_millis(5);
/// So many connections are taken from a backlog before its port is closed, at the most.
const DRAIN_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct ListenSocket {
    listener: OwnedFd,
    address: Address,
    /// Removed with the port.
    file: Option<SocketFile>,
    /// Somebody else's too, who goes on with it after us.
    inherited: bool,
    token: Token,
    watched: bool,
    /// The core wants connections.
    on: bool,
    takes: Takes,
    may_be_ready: bool,
    /// The loop has just said that one waits: no need to look.
    told: bool,
    paused_until: Option<Instant>,
    closing: Option<Closing>,
}

/// Who accepts from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// We do, when the core wants.
    Ours,
    /// The worker whose slot it belongs to. Connections came lately: so many looks are left until
    /// the loop is asked to say when the next one comes.
    Theirs { polls_left: u32 },
}

/// A port that is being closed: what its backlog holds is taken first.
#[derive(Debug)]
struct Closing {
    /// From then on an empty backlog stays empty.
    from: Instant,
    /// At the latest.
    by: Instant,
    /// It was seen to be empty after that.
    all_gone: bool,
    taken: usize,
}

/// What a try to accept gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Connection(Connection),
    Nothing,
}

impl ListenSocket {
    pub(crate) fn new(bound: Bound, inherited: bool, token: Token) -> Self {
        Self {
            listener: bound.socket,
            address: bound.address,
            file: bound.file,
            inherited,
            token,
            watched: false,
            on: false,
            takes: Takes::Ours,
            may_be_ready: true,
            told: false,
            paused_until: None,
            closing: None,
        }
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Takes one connection, unless nobody wants it or none is there.
    pub(crate) fn accept(&mut self, turn: &mut Turn<'_>) -> Taken {
        let now = turn.now();
        if !self.wants_turn(now) {
            return Taken::Nothing;
        }
        let taken = self.accept_by(now, |listener, told| {
            let accept = if told { sys::socket::accept } else { sys::socket::accept_waiting };
            accept(listener)
        });
        let unwatched = !self.watched && self.closing.is_none();
        if matches!(taken, Taken::Nothing) && unwatched && !self.watch(turn) {
            // Nobody would say that there is another one.
            (self.may_be_ready, self.paused_until) = (true, Some(now + PAUSE));
        }
        taken
    }

    fn accept_by(
        &mut self,
        now: Instant,
        mut accept: impl FnMut(BorrowedFd<'_>, bool) -> io::Result<(OwnedFd, Option<SocketAddr>)>,
    ) -> Taken {
        if !self.wants_turn(now) {
            return Taken::Nothing;
        }
        self.paused_until = None;
        if let Some(closing) = &mut self.closing {
            closing.taken += 1;
        }
        loop {
            let told = std::mem::take(&mut self.told);
            match accept(self.listener.as_fd(), told) {
                Ok((socket, peer)) => {
                    return Taken::Connection(Connection { socket, peer });
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.may_be_ready = false;
                    if let Some(closing) = &mut self.closing {
                        closing.all_gone = closing.from <= now;
                    }
                    return Taken::Nothing;
                }
                Err(error) => match error.raw_os_error() {
                    // The client gave up, or its network did: the next one is as good as ever.
                    Some(errno) if is_of_the_connection(errno) => {}
                    _ => {
                        self.paused_until = Some(now + PAUSE);
                        return Taken::Nothing;
                    }
                },
            }
        }
    }

    /// Lets nobody connect any more, where the socket is ours alone.
    ///
    /// Answers how long handshakes under way may take.
    pub(crate) fn stop_connects(&mut self) -> Duration {
        // There may be another of this name before we are done.
        self.file = None;
        let ours = !self.inherited && !self.address.is_datagram();
        let stopped = ours && sys::socket::stop_connects(self.listener.as_fd()).is_ok();
        match &self.address {
            Address::Tcp { address, .. } if stopped && address.ip().is_loopback() => {
                HANDSHAKE_HERE_MAX
            }
            Address::Tcp { .. } if stopped => HANDSHAKE_MAX,
            _ => Duration::ZERO,
        }
    }

    /// Takes nothing more than its backlog holds, whether wanted or not.
    pub(crate) fn close(&mut self, now: Instant) {
        if self.closing.is_none() {
            let from = now + self.stop_connects();
            let by = now + CLOSING_MAX;
            self.closing = Some(Closing { from, by, all_gone: false, taken: 0 });
        }
        self.may_be_ready = true;
    }

    /// Nothing more will come from a port that is being closed.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        let done = |it: &Closing| it.all_gone || it.taken >= DRAIN_MAX || it.by <= now;
        self.closing.as_ref().is_some_and(done)
    }

    /// Whether the core wants connections. Watched from the first time that it does: where the
    /// workers accept by themselves, each connection would wake us for nothing.
    pub(crate) fn set_on(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.on = on;
        self.accept_or_not(turn);
    }

    /// Whether we stand in for the worker whose socket it is.
    pub(crate) fn accept_on_behalf(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.may_be_ready = true;
        if on {
            self.takes = Takes::Ours;
            self.accept_or_not(turn);
        } else {
            self.poll_for_a_while(turn);
        }
    }

    fn accept_or_not(&mut self, turn: &mut Turn<'_>) {
        if !self.on || self.takes != Takes::Ours {
            return;
        }
        if !self.watched && !self.watch(turn) {
            // No memory for it in the kernel: looked at again after a pause.
            self.paused_until = Some(turn.now() + PAUSE);
        }
        turn.again();
    }

    fn watch(&mut self, turn: &mut Turn<'_>) -> bool {
        let watched = turn.register(self.listener.as_fd(), self.token, Interest::READABLE);
        self.watched = watched.is_ok();
        self.watched
    }

    /// The loop says so.
    pub(crate) fn may_be_ready(&mut self, turn: &mut Turn<'_>) {
        self.may_be_ready = true;
        self.told = true;
        if self.takes != Takes::Ours {
            self.poll_for_a_while(turn);
        }
    }

    /// Not at each of its connections: the loop would wake for every one of them.
    fn poll_for_a_while(&mut self, turn: &mut Turn<'_>) {
        self.takes = Takes::Theirs { polls_left: POLLS_WHILE_QUIET };
        if std::mem::take(&mut self.watched) {
            let _ = turn.deregister(self.listener.as_fd());
        }
    }

    /// It is to be [looked at](Self::is_left_alone) every [`POLL_INTERVAL`].
    pub(crate) fn is_polled(&self) -> bool {
        matches!(self.takes, Takes::Theirs { polls_left: 1.. }) && self.closing.is_none()
    }

    /// Looks whether its worker has left connections there. After some looks that found none the
    /// loop says when the next one comes.
    pub(crate) fn poll_unaccepted(&mut self, turn: &mut Turn<'_>) -> bool {
        let Takes::Theirs { polls_left } = self.takes else { return false };
        if sys::reuse_port::unaccepted(self.listener.as_fd()).is_ok_and(|count| count > 0) {
            self.takes = Takes::Theirs { polls_left: POLLS_WHILE_QUIET };
            return true;
        }
        if polls_left > 1 || self.watch(turn) {
            self.takes = Takes::Theirs { polls_left: polls_left - 1 };
        }
        false
    }

    pub(crate) fn wants_turn(&self, now: Instant) -> bool {
        let last = self.closing.as_ref().is_some_and(|it| it.from <= now && !it.all_gone);
        let wanted = self.wants() && (self.may_be_ready || last);
        wanted && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a paused port, or one that is being closed, wants its turn again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let pause = self.paused_until.filter(|_| self.wants() && self.may_be_ready);
        let last = self.closing.as_ref().filter(|it| !it.all_gone).map(|it| it.from);
        pause.into_iter().chain(last).filter(|at| *at > now).min()
    }

    fn wants(&self) -> bool {
        self.closing.is_some() || (self.on && self.takes == Takes::Ours)
    }

    /// Ends it for all who have a copy. Nobody may wait there.
    pub(crate) fn end(&self) {
        // Fails only where it has ended.
        let _ = sys::socket::shutdown_both(self.listener.as_fd());
    }

    pub(crate) fn listener(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    pub(crate) fn token(&self) -> Token {
        self.token
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::listen_options::ListenOptions;

    #[test]
    fn trouble_of_one_connection_is_passed_over_and_trouble_of_ours_pauses() {
        use sys::errno as e;
        let address = Address::from("127.0.0.1:0".parse::<SocketAddr>().unwrap());
        let bound = crate::bind::bind(&address, &ListenOptions::new()).unwrap();
        let mut listen_socket = ListenSocket::new(bound, false, Token(1));
        listen_socket.on = true;
        let now = Instant::now();
        // Its errors in this order, and then a connection.
        let mut accept = |errors: &[i32], now| {
            let mut errors = errors.iter();
            let taken = listen_socket.accept_by(now, |_, _| match errors.next() {
                Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
                None => Ok((sys::socket::pair_stream().unwrap().0, None)),
            });
            assert_eq!(errors.len(), 0, "all were met");
            (
                matches!(taken, Taken::Connection(_)),
                listen_socket.wants_turn(now),
                listen_socket.deadline(now),
            )
        };
        let gone = [e::ECONNABORTED, e::EINTR, e::EPROTO, e::ENETDOWN, e::EPERM, e::EHOSTUNREACH];
        assert_eq!(accept(&gone, now), (true, true, None));
        for errno in [e::EMFILE, e::ENFILE, e::ENOMEM, e::ENOBUFS] {
            assert_eq!(accept(&[errno], now), (false, false, Some(now + PAUSE)));
            assert!(!accept(&[], now).0, "it rests");
            assert_eq!(accept(&[], now + PAUSE), (true, true, None), "and goes on");
        }
        assert_eq!(accept(&[e::ECONNABORTED, e::EAGAIN], now), (false, false, None));
        assert!(!accept(&[], now).0, "until the kernel says that there is one");
    }
}
