//! A listening socket of the primary.
//!
//! The loop is edge-triggered: whatever stopped before the backlog was empty is kept as "may be
//! ready" and tried again without waiting for an edge. Trouble in `accept4` neither spins nor
//! ends anything: it pauses the port for [`PAUSE`].

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reactor::{Interest, Key as Token, Turn};

use crate::address::Address;
use crate::bind::{Bound, SocketFile};
use crate::queue::Connection;

/// How long a port rests when this process or the machine has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// How long a port that is being closed waits for descriptors.
const CLOSING_MAX: Duration = Duration::from_secs(2);
/// So many connections are taken from a backlog before its port is closed, at the most.
const DRAIN_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Port {
    listener: OwnedFd,
    address: Address,
    /// Removed with the port.
    _file: Option<SocketFile>,
    token: Token,
    watched: bool,
    /// The core wants connections.
    on: bool,
    may_be_ready: bool,
    paused_until: Option<Instant>,
    /// Being closed: what its backlog holds is taken first, at the latest by then.
    closing_by: Option<Instant>,
    drained: usize,
}

/// What a try to accept gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Connection(Connection),
    Nothing,
}

impl Port {
    pub(crate) fn new(bound: Bound, token: Token) -> Self {
        Self {
            listener: bound.socket,
            address: bound.address,
            _file: bound.file,
            token,
            watched: false,
            on: false,
            may_be_ready: true,
            paused_until: None,
            closing_by: None,
            drained: 0,
        }
    }

    /// Takes one connection, unless nobody wants it or none is there.
    pub(crate) fn accept(&mut self, now: Instant) -> Taken {
        if !self.wants_turn(now) {
            return Taken::Nothing;
        }
        self.paused_until = None;
        self.drained += usize::from(self.closing_by.is_some());
        loop {
            match sys::socket::accept(self.listener.as_fd()) {
                Ok((socket, peer)) => {
                    return Taken::Connection(Connection { socket, peer });
                }
                Err(error) => match error.raw_os_error() {
                    Some(sys::errno::EAGAIN) => {
                        self.may_be_ready = false;
                        return Taken::Nothing;
                    }
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

    /// Takes nothing more than its backlog holds, whether wanted or not.
    pub(crate) fn close(&mut self, now: Instant) {
        self.closing_by.get_or_insert(now + CLOSING_MAX);
        self.may_be_ready = true;
    }

    /// Nothing more will come from a port that is being closed.
    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        let empty = !self.may_be_ready || self.drained >= DRAIN_MAX;
        self.closing_by.is_some_and(|by| empty || by <= now)
    }

    /// Whether the core wants connections. Watched from the first time that it does: where the
    /// workers accept by themselves, each connection would wake us for nothing.
    pub(crate) fn set_on(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.on = on;
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

    pub(crate) fn may_be_ready(&mut self) {
        self.may_be_ready = true;
    }

    pub(crate) fn wants_turn(&self, now: Instant) -> bool {
        let wanted = self.on || self.closing_by.is_some();
        wanted && self.may_be_ready && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a paused port wants its turn again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        let wanted = self.on || self.closing_by.is_some();
        self.paused_until.filter(|until| wanted && self.may_be_ready && *until > now)
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
