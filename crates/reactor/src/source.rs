//! Sources: the state machines that live on the loop.
//!
//! A [`Source`] handles one [`Event`] at a time. The [`Turn`] that comes with the event gives
//! access to the loop. A source is a driver in the sense of this project: it names the event, asks
//! a pure state machine, and performs the answer.

use crate::event::Event;
use crate::turn::Turn;

/// The number of connections that a source accepts in one turn before it calls [`Turn::again`].
pub const ACCEPTS_PER_TURN: usize = 64;

/// The number of bytes that a source moves in one turn before it calls [`Turn::again`].
pub const BYTES_PER_TURN: usize = 256 * 1024;

/// A state machine on the loop.
///
/// The loop drops a source, on its own thread, after the source was removed or has panicked. Its
/// descriptors are deregistered before that. A source that closes a descriptor earlier calls
/// [`Turn::deregister`] first.
pub trait Source: Send + 'static {
    /// Handles one event.
    ///
    /// Runs on the loop: it must not block, and it must not run user code. The loop catches a
    /// panic, and then removes and drops the source.
    fn event(&mut self, event: Event, turn: &mut Turn<'_>);
}
