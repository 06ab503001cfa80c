//! What lives on the loop, and what it is told.
//!
//! A [`Source`] answers one [`Event`] at a time, through the [`Turn`] it is given with it. It is
//! a driver in the sense of this project: it names what happened, asks a pure machine, performs.

use crate::turn::Turn;

/// How many connections a source accepts in one turn before it calls [`Turn::again`].
pub const ACCEPTS_PER_TURN: usize = 64;

/// How many bytes a source moves in one turn before it calls [`Turn::again`].
pub const BYTES_PER_TURN: usize = 256 * 1024;

/// Names one descriptor of a source; the source chooses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u32);

/// What happened. Deliberately exhaustive: a source answers every kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The first event of every source: now it may register.
    Start,
    /// A registered descriptor has news. Readiness is edge-triggered: it is told once, and again
    /// only after a call on the descriptor answered `EAGAIN` and things changed, so a source
    /// reads or writes until then or remembers "maybe ready" and calls [`Turn::again`]. Spurious
    /// news happen. Hang-ups and errors count as readable and writable.
    Ready {
        /// The descriptor, as it was registered.
        token: Token,
        /// A read would not block.
        readable: bool,
        /// A write would not block.
        writable: bool,
    },
    /// The deadline was reached; it is not set any more.
    Deadline,
    /// [`Handle::wake`](crate::Handle::wake) was called, once or more, since the last `Wake`.
    Wake,
    /// [`Turn::again`] was called in an earlier turn.
    Again,
}

/// A machine on the loop.
///
/// It is dropped on the loop when it was removed or when it panicked. Its descriptors are
/// deregistered before; closing one earlier takes a [`Turn::deregister`] first.
pub trait Source: Send + 'static {
    /// Answers one event. Runs on the loop: it must not block, and it must not run user code.
    ///
    /// A panic is caught; the source is then removed and dropped.
    fn event(&mut self, event: Event, turn: &mut Turn<'_>);
}
