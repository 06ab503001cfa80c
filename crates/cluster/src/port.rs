//! A listening socket of the primary.
//!
//! The loop is edge-triggered: whatever stopped before the backlog was empty is kept as "may be
//! ready" and tried again without waiting for an edge. That it is empty is seen by a look: each
//! connection that comes after that is an edge of its own. Trouble in `accept4` neither spins nor
//! ends anything: it pauses the port for [`PAUSE`].
//!
//! Under the policy `ReusePort` an address has a socket for each slot, and one that keeps the
//! address for them. From a slot's own socket its worker accepts, and the primary only while it
//! stands in for the worker. Otherwise it looks at most every [`LOOK`] whether connections are
//! left alone there, and not at all while none come.
//!
//! A closed socket resets whoever is connected and not accepted. So a port that is being closed
//! first lets nobody connect any more, then waits for the handshakes under way, and is closed
//! when its backlog is empty after that.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reactor::{Interest, Key as Token, Turn};

use crate::address::Address;
use crate::bind::{Bound, SocketFile};
use crate::queue::Connection;

/// How long a port rests when this process or the machine has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// How long connections may wait in a worker's own socket before it is looked at.
const LOOK: Duration = Duration::from_millis(100);
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
pub(crate) struct Port {
    listener: OwnedFd,
    address: Address,
    /// Removed with the port.
    file: Option<SocketFile>,
    /// Somebody else's too, who goes on with it after us.
    given: bool,
    token: Token,
    watched: bool,
    /// The core wants connections.
    on: bool,
    takes: Takes,
    /// There may be more sockets at this address, with backlogs of this length.
    backlog_of_others: Option<u32>,
    may_be_ready: bool,
    /// The loop has just said that one waits: no need to look.
    told: bool,
    paused_until: Option<Instant>,
    closing: Option<Closing>,
}

/// Whether we accept from a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Takes {
    /// As the core wants.
    Always,
    /// It only keeps the address for others.
    Never,
    /// A slot's own socket. Its worker accepts from it; we look at it when connections have been
    /// there for a while, at this time.
    Theirs { look_at: Option<Instant> },
}

/// A port that is being closed: what its backlog holds is taken first.
#[derive(Debug)]
struct Closing {
    /// From then on an empty backlog stays empty.
    from: Instant,
    /// At the latest.
    by: Instant,
    /// It was seen to be empty after that.
    emptied: bool,
    taken: usize,
}

/// What a try to accept gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Connection(Connection),
    Nothing,
}

impl Port {
    pub(crate) fn new(bound: Bound, given: bool, token: Token) -> Self {
        Self {
            listener: bound.socket,
            address: bound.address,
            file: bound.file,
            given,
            token,
            watched: false,
            on: false,
            takes: Takes::Always,
            backlog_of_others: None,
            may_be_ready: true,
            told: false,
            paused_until: None,
            closing: None,
        }
    }

    /// Only keeps an address for sockets that share it, and that have backlogs of this length.
    pub(crate) fn reserve(bound: Bound, backlog: u32, token: Token) -> Self {
        let port = Self::new(bound, false, token);
        Self { takes: Takes::Never, backlog_of_others: Some(backlog), ..port }
    }

    /// What others at this address are opened with, where there may be any.
    pub(crate) fn backlog_of_others(&self) -> Option<u32> {
        self.backlog_of_others
    }

    /// Listens, if so far it only kept the address: there is somebody who does not accept by
    /// himself.
    pub(crate) fn listen(&mut self, turn: &mut Turn<'_>) -> io::Result<()> {
        if self.takes == Takes::Never {
            sys::socket::listen(self.listener.as_fd(), self.backlog_of_others.unwrap_or(0))?;
            self.takes = Takes::Always;
            self.accept_or_not(turn);
        }
        Ok(())
    }

    pub(crate) fn is_on(&self) -> bool {
        self.on
    }

    /// Takes one connection, unless nobody wants it or none is there.
    pub(crate) fn accept(&mut self, now: Instant) -> Taken {
        self.accept_by(now, |listener, told| {
            let accept = if told { sys::socket::accept } else { sys::socket::accept_waiting };
            accept(listener)
        })
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
                        closing.emptied = closing.from <= now;
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
        let ours = !self.given && !self.address.is_datagram();
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
            let emptied = self.takes == Takes::Never;
            self.closing = Some(Closing { from, by, emptied, taken: 0 });
        }
        self.may_be_ready = true;
    }

    /// Nothing more will come from a port that is being closed.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        let done = |it: &Closing| it.emptied || it.taken >= DRAIN_MAX || it.by <= now;
        self.closing.as_ref().is_some_and(done)
    }

    /// Whether the core wants connections. Watched from the first time that it does: where the
    /// workers accept by themselves, each connection would wake us for nothing.
    pub(crate) fn set_on(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.on = on;
        self.accept_or_not(turn);
    }

    /// Whether we stand in for the worker whose socket it is.
    pub(crate) fn stand_in(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.takes = if on { Takes::Always } else { Takes::Theirs { look_at: None } };
        self.may_be_ready = true;
        self.accept_or_not(turn);
        if !on {
            self.look_later(turn);
        }
    }

    fn accept_or_not(&mut self, turn: &mut Turn<'_>) {
        let on = self.on && self.takes == Takes::Always;
        if on && !self.watched {
            let watched = turn.register(self.listener.as_fd(), self.token, Interest::READABLE);
            self.watched = watched.is_ok();
            if watched.is_err() {
                // No memory for it in the kernel: looked at again after a pause.
                self.paused_until = Some(turn.now() + PAUSE);
            }
        }
        if on {
            turn.again();
        }
    }

    /// The loop says so.
    pub(crate) fn may_be_ready(&mut self, turn: &mut Turn<'_>) {
        self.may_be_ready = true;
        self.told = true;
        if let Takes::Theirs { look_at: None } = self.takes {
            self.look_later(turn);
        }
    }

    /// Not at each of its connections, which would wake us for every one of them.
    fn look_later(&mut self, turn: &mut Turn<'_>) {
        self.takes = Takes::Theirs { look_at: Some(turn.now() + LOOK) };
        if std::mem::take(&mut self.watched) {
            let _ = turn.deregister(self.listener.as_fd());
        }
    }

    /// Looks whether its worker has left connections there, if it is time; the loop says when the
    /// next one comes.
    pub(crate) fn is_left_alone(&mut self, turn: &mut Turn<'_>) -> bool {
        let Takes::Theirs { look_at: Some(at) } = self.takes else { return false };
        if at > turn.now() || self.closing.is_some() {
            return false;
        }
        self.takes = Takes::Theirs { look_at: Some(turn.now() + LOOK) };
        if sys::group::unaccepted(self.listener.as_fd()).is_ok_and(|count| count > 0) {
            return true;
        }
        let watched = turn.register(self.listener.as_fd(), self.token, Interest::READABLE);
        self.watched = watched.is_ok();
        if self.watched {
            self.takes = Takes::Theirs { look_at: None };
        }
        false
    }

    pub(crate) fn wants_turn(&self, now: Instant) -> bool {
        let last = self.closing.as_ref().is_some_and(|it| it.from <= now && !it.emptied);
        let wanted = self.wants() && (self.may_be_ready || last);
        wanted && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a paused port, or one that is being closed, wants its turn again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let pause = self.paused_until.filter(|_| self.wants() && self.may_be_ready);
        let last = self.closing.as_ref().filter(|it| !it.emptied).map(|it| it.from);
        let look = match self.takes {
            Takes::Theirs { look_at } if self.closing.is_none() => look_at,
            Takes::Theirs { .. } | Takes::Always | Takes::Never => None,
        };
        pause.into_iter().chain(last).filter(|at| *at > now).chain(look).min()
    }

    fn wants(&self) -> bool {
        match self.takes {
            Takes::Never => false,
            Takes::Always => self.on || self.closing.is_some(),
            Takes::Theirs { .. } => self.closing.is_some(),
        }
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

/// `accept(2)`: errors of the network pending on the new socket, to be treated like `EAGAIN`.
pub(crate) fn is_of_the_connection(errno: i32) -> bool {
    use sys::errno as e;
    matches!(
        errno,
        e::ECONNABORTED
            | e::EINTR
            | e::ENETDOWN
            | e::EPROTO
            | e::ENOPROTOOPT
            | e::EHOSTUNREACH
            | e::EOPNOTSUPP
            | e::ENETUNREACH
            | e::EPERM
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::options::ListenOptions;

    #[test]
    fn trouble_of_one_connection_is_passed_over_and_trouble_of_ours_pauses() {
        use sys::errno as e;
        let address = Address::from("127.0.0.1:0".parse::<SocketAddr>().unwrap());
        let bound = crate::bind::bind(&address, &ListenOptions::new()).unwrap();
        let mut port = Port::new(bound, false, Token(1));
        port.on = true;
        let now = Instant::now();
        // Its errors in this order, and then a connection.
        let mut accept = |errors: &[i32], now| {
            let mut errors = errors.iter();
            let taken = port.accept_by(now, |_, _| match errors.next() {
                Some(errno) => Err(io::Error::from_raw_os_error(*errno)),
                None => Ok((sys::socket::pair_stream().unwrap().0, None)),
            });
            assert_eq!(errors.len(), 0, "all were met");
            (matches!(taken, Taken::Connection(_)), port.wants_turn(now), port.deadline(now))
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
