//! The one mio loop of brood: readiness, deadlines, wake-ups, signals.
//!
//! [`reactor()`] gives the process's loop: one thread, `brood-loop`, started on first use. A
//! [`Source`] is a small machine that lives on it: it registers descriptors, sets a deadline, is
//! woken through its [`Handle`] from any thread, and gets everything as an [`Event`], one at a
//! time. User code never runs there: what a user is to run goes through [`callback::call`], and
//! [`signals::Signals`] brings signals as values.
//!
//! What always holds: an idle loop makes no wake-ups; a source that panics is removed and the
//! loop goes on; a source that asks for more turns never keeps the others from theirs.
//!
//! ```
//! use reactor::{Event, Source, Turn, reactor};
//!
//! /// Tells each wake-up to a channel.
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
//! let (rings, heard) = crossbeam_channel::unbounded();
//! let bell = reactor()?.add(Bell(rings));
//! bell.wake();
//! assert_eq!(heard.recv(), Ok("ding"));
//! # Ok::<(), std::io::Error>(())
//! ```

pub mod callback;
pub mod signals;

mod deadlines;
mod driver;
mod readiness;
mod source;
mod turn;
mod wake;

pub use driver::{Reactor, on_loop, reactor};
pub use source::{ACCEPTS_PER_TURN, BYTES_PER_TURN, Event, Source, Token};
pub use sys::poll::Interest;
pub use turn::{READ_BUFFER_BYTES, Turn};
pub use wake::Handle;

#[cfg(test)]
mod tests;
