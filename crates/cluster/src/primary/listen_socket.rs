//! A listening socket of the primary: the calls that its [`AcceptState`] asks for.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};

use reactor::{Interest, Token, Turn};

use crate::bind::{Bound, SocketFile, is_of_the_connection};
use crate::primary::accept_state::{AcceptAction, AcceptEvent, AcceptState, handshakes_max};
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::Connection;

/// A bound socket, its state, and its token on the loop.
#[derive(Debug)]
pub(crate) struct ListenSocket {
    listener: OwnedFd,
    address: Address,
    /// The file of a Unix socket, which is removed with it.
    file: Option<SocketFile>,
    /// Another process shares the socket, and uses it after the primary.
    is_inherited: bool,
    token: Token,
    state: AcceptState,
}

impl ListenSocket {
    pub(crate) fn new(bound: Bound, is_inherited: bool, token: Token) -> Self {
        let Bound { socket: listener, address, file } = bound;
        Self { listener, address, file, is_inherited, token, state: AcceptState::new() }
    }

    /// Takes one connection; `None` when none is wanted or none waits.
    pub(crate) fn accept(&mut self, turn: &mut Turn<'_>) -> Option<Connection> {
        while self.state.wants_accept(turn.now()) {
            let is_reported = self.state.is_reported();
            let accept =
                if is_reported { sys::socket::accept } else { sys::socket::accept_waiting };
            match accept(self.listener.as_fd()) {
                Ok((socket, peer)) => {
                    self.step(AcceptEvent::Accepted, turn);
                    return Some(Connection { socket, peer });
                }
                Err(error) => _ = self.step(event_of(&error), turn),
            }
        }
        None
    }

    /// Passes on that the loop reported the socket as readable.
    pub(crate) fn readable(&mut self, turn: &mut Turn<'_>) {
        self.step(AcceptEvent::Readable, turn);
    }

    /// Sets whether the supervisor wants connections of this address.
    pub(crate) fn set_on(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.step(AcceptEvent::Accept(on), turn);
    }

    /// Sets whether the primary accepts on behalf of the worker that owns the socket.
    pub(crate) fn accept_on_behalf(&mut self, on: bool, turn: &mut Turn<'_>) {
        self.step(AcceptEvent::AcceptOnBehalf(on), turn);
    }

    /// Reads the number of unaccepted connections, if the socket is polled. Returns whether its
    /// worker leaves some.
    pub(crate) fn poll_unaccepted(&mut self, turn: &mut Turn<'_>) -> bool {
        if !self.state.is_polled() {
            return false;
        }
        let some = sys::reuse_port::unaccepted(self.listener.as_fd()).is_ok_and(|count| count > 0);
        let polled = if some { AcceptEvent::PolledSome } else { AcceptEvent::PolledNone };
        self.step(polled, turn)
    }

    /// Takes no more connections than the backlog holds, and those also while switched off.
    pub(crate) fn close(&mut self, turn: &mut Turn<'_>) {
        let handshakes = match self.state.is_closing() {
            false => self.stop_connects(),
            true => Duration::ZERO,
        };
        self.step(AcceptEvent::Close { handshakes }, turn);
    }

    /// Refuses new clients, unless another process shares the socket. Returns the longest time
    /// that handshakes under way may take.
    pub(crate) fn stop_connects(&mut self) -> Duration {
        // The path may be bound again before this socket is closed.
        self.file = None;
        let stops = !self.is_inherited && !self.address.is_datagram();
        if stops && sys::socket::stop_connects(self.listener.as_fd()).is_ok() {
            handshakes_max(&self.address)
        } else {
            Duration::ZERO
        }
    }

    /// Performs the actions that follow from an event. Returns whether one of them reports
    /// unaccepted connections.
    fn step(&mut self, event: AcceptEvent, turn: &mut Turn<'_>) -> bool {
        let mut action = self.state.step(event, turn.now());
        loop {
            match action {
                None => return false,
                Some(AcceptAction::ReportUnaccepted) => return true,
                Some(AcceptAction::Watch) => {
                    let listener = self.listener.as_fd();
                    let watched = turn.register(listener, self.token, Interest::READABLE).is_ok();
                    let result =
                        if watched { AcceptEvent::Watched } else { AcceptEvent::WatchFailed };
                    action = self.state.step(result, turn.now());
                }
                Some(AcceptAction::Unwatch) => {
                    // Fails only where the loop does not watch it.
                    let _ = turn.deregister(self.listener.as_fd());
                    return false;
                }
                Some(AcceptAction::Retry) => {
                    turn.again();
                    return false;
                }
            }
        }
    }

    /// Shuts the socket down in every process that has a copy. Its backlog must be empty.
    pub(crate) fn shut_down(&self) {
        // Fails only where that is done already.
        let _ = sys::socket::shutdown_both(self.listener.as_fd());
    }

    pub(crate) fn is_on(&self) -> bool {
        self.state.is_on()
    }

    pub(crate) fn is_polled(&self) -> bool {
        self.state.is_polled()
    }

    pub(crate) fn is_drained(&self, now: Instant) -> bool {
        self.state.is_drained(now)
    }

    pub(crate) fn wants_accept(&self, now: Instant) -> bool {
        self.state.wants_accept(now)
    }

    pub(crate) fn deadline(&self, now: Instant) -> Option<Instant> {
        self.state.deadline(now)
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

/// Returns the event that a failed `accept4(2)` is.
fn event_of(error: &io::Error) -> AcceptEvent {
    match error.raw_os_error() {
        _ if error.kind() == io::ErrorKind::WouldBlock => AcceptEvent::WouldBlock,
        // The client or its network gave up. The next connection is not affected.
        Some(errno) if is_of_the_connection(errno) => AcceptEvent::ConnectionError,
        _ => AcceptEvent::ResourceError,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn trouble_of_one_connection_is_passed_over_and_trouble_of_ours_pauses() {
        use sys::errno as e;
        let event = |errno| event_of(&io::Error::from_raw_os_error(errno));
        for errno in [e::ECONNABORTED, e::EINTR, e::EPROTO, e::ENETDOWN, e::EPERM, e::EHOSTUNREACH]
        {
            assert_eq!(event(errno), AcceptEvent::ConnectionError, "{errno}");
        }
        for errno in [e::EMFILE, e::ENFILE, e::ENOMEM, e::ENOBUFS] {
            assert_eq!(event(errno), AcceptEvent::ResourceError, "{errno}");
        }
        assert_eq!(event(e::EAGAIN), AcceptEvent::WouldBlock);
        assert_eq!(event_of(&io::ErrorKind::WouldBlock.into()), AcceptEvent::WouldBlock);
        let now = Instant::now();
        let mut state = AcceptState::new();
        state.step(AcceptEvent::Accept(true), now);
        state.step(AcceptEvent::Watched, now);
        state.step(event(e::ECONNABORTED), now);
        assert!(state.wants_accept(now), "the next one");
        state.step(event(e::EMFILE), now);
        assert!(!state.wants_accept(now), "it rests");
        let later = state.deadline(now).unwrap();
        assert!(state.wants_accept(later), "and goes on");
        state.step(event(e::EAGAIN), later);
        assert!(!state.wants_accept(later), "until the kernel says that there is one");
    }
}
