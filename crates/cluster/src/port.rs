//! A listening socket of the primary.
//!
//! The loop is edge-triggered: whatever stopped before the backlog was empty is kept as "may be
//! ready" and tried again without waiting for an edge. Trouble in `accept4` neither spins nor
//! ends anything: it pauses the port for [`PAUSE`].

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reactor::Key as Token;

use crate::address::Address;
use crate::queue::Connection;

/// How long a port rests when this process or the machine has no descriptor left.
const PAUSE: Duration = Duration::from_millis(50);
/// So many connections are taken from a backlog before its port is closed, at the most.
const DRAIN_MAX: usize = 65_536;

#[derive(Debug)]
pub(crate) struct Port {
    listener: OwnedFd,
    address: Address,
    token: Token,
    /// The core wants connections.
    on: bool,
    may_be_ready: bool,
    paused_until: Option<Instant>,
    drained: usize,
}

/// What a try to accept gave.
#[derive(Debug)]
pub(crate) enum Taken {
    Connection(Connection),
    Nothing,
}

impl Port {
    pub(crate) fn bind(address: &Address, backlog: u32, token: Token) -> io::Result<Self> {
        let Address::Tcp { address, v6_only } = address else {
            return Err(io::Error::from_raw_os_error(sys::errno::EOPNOTSUPP));
        };
        let listener = sys::socket::listen_tcp(*address, backlog, *v6_only)?;
        let bound = sys::socket::local_address(listener.as_fd())?;
        let address = Address::Tcp { address: bound, v6_only: *v6_only };
        Ok(Self {
            listener,
            address,
            token,
            on: false,
            may_be_ready: true,
            paused_until: None,
            drained: 0,
        })
    }

    /// Takes one connection, unless nobody wants it or none is there.
    pub(crate) fn accept(&mut self, now: Instant) -> Taken {
        if !self.wants_turn(now) {
            return Taken::Nothing;
        }
        self.paused_until = None;
        loop {
            match sys::socket::accept(self.listener.as_fd()) {
                Ok((socket, peer)) => {
                    return Taken::Connection(Connection { socket, peer: Some(peer) });
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

    /// Takes one connection from a port that is being closed; `None` when that was all.
    pub(crate) fn drain_one(&mut self) -> Option<Connection> {
        loop {
            self.drained += 1;
            if self.drained > DRAIN_MAX {
                return None;
            }
            match sys::socket::accept(self.listener.as_fd()) {
                Ok((socket, peer)) => return Some(Connection { socket, peer: Some(peer) }),
                Err(error) if error.raw_os_error().is_some_and(is_of_the_connection) => {}
                Err(_) => return None,
            }
        }
    }

    pub(crate) fn set_on(&mut self, on: bool) {
        self.on = on;
    }

    pub(crate) fn may_be_ready(&mut self) {
        self.may_be_ready = true;
    }

    pub(crate) fn wants_turn(&self, now: Instant) -> bool {
        self.on && self.may_be_ready && self.paused_until.is_none_or(|until| until <= now)
    }

    /// When a paused port wants its turn again.
    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.paused_until.filter(|until| self.on && self.may_be_ready && *until > now)
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
fn is_of_the_connection(errno: i32) -> bool {
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
