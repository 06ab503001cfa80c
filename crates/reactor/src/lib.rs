//! The one mio loop of brood: readiness, deadlines, wake-ups, signals.
//!
//! [`reactor()`] returns the loop of the process: one thread, `brood-loop`, started on first use.
//! A [`Source`] is a small state machine on the loop. A source registers descriptors, sets a
//! deadline and is woken through its [`Handle`] from any thread; the loop delivers each of these
//! as an [`Event`], one at a time. User code never runs on the loop: [`callback::call`] runs it on
//! a thread of its own, and [`signals::Signals`] delivers signals as values.
//!
//! Three invariants hold. An idle loop makes no wake-ups. A source that panics is removed and
//! dropped, and the loop continues. A source that asks for more events never delays the others by a turn.
//!
//! ```
//! use brood_reactor::{Event, Source, Turn, reactor};
//!
//! /// Sends a text to a channel at each wake-up.
//! struct Bell(crossbeam_channel::Sender<&'static str>);
//!
//! impl Source for Bell {
//!     fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
//!         if matches!(event, Event::Wake) {
//!             let _ = self.0.send("ding");
//!             turn.remove();
//!         }
//!     }
//! }
//!
//! let (sender, receiver) = crossbeam_channel::unbounded();
//! let bell = reactor()?.add(Bell(sender));
//! bell.wake();
//! assert_eq!(receiver.recv(), Ok("ding"));
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod callback;
pub mod signals;

mod deadlines;
mod driver;
mod error;
mod event;
mod poller;
mod source;
mod turn;
mod wake;

pub use driver::{Reactor, is_forked, reactor};
pub use error::StartError;
pub use event::{Event, Token};
pub use source::{ACCEPTS_PER_TURN, BYTES_PER_TURN, Source};
pub use sys::poll::Interest;
pub use turn::{READ_BUFFER_BYTES, Turn};
pub use wake::{Handle, on_loop};

#[cfg(test)]
mod tests;

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
