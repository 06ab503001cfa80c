//! Signals as values: opt-in, delivered through the loop.
//!
//! Limits: [`SIGNALS_QUEUED_MAX`] signals are queued for a slow receiver. Later signals are
//! dropped, as the kernel merges signals that arrive too fast.

use std::fmt;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

use crossbeam_channel::{Receiver, Sender, bounded};
use sys::signal::{Signal, SignalWatch};

use crate::event::{Event, Token};
use crate::source::Source;
use crate::turn::Turn;
use crate::{Handle, Interest, reactor};

/// The maximum number of signals that are queued for the receiver.
pub const SIGNALS_QUEUED_MAX: usize = 1024;

/// A subscription to some signals, which lose their usual effect while this value lives.
///
/// Other signals keep their effect. Dropping the value restores the previous handlers at once and
/// closes the channel.
///
/// ```
/// use brood_reactor::signals::Signals;
/// use sys::signal::{Signal, raise};
///
/// let signals = Signals::new(&[Signal::USR2])?;
/// raise(Signal::USR2)?;
/// assert_eq!(signals.receiver().recv(), Ok(Signal::USR2));
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct Signals {
    watch: Arc<SignalWatch>,
    receiver: Receiver<Signal>,
    source: Handle,
}

impl Signals {
    /// Starts to watch `signals`.
    ///
    /// # Errors
    ///
    /// The errors of [`SignalWatch::new`] and [`reactor()`].
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        let reactor = reactor()?;
        let watch = Arc::new(SignalWatch::new(signals)?);
        let (sender, receiver) = bounded(SIGNALS_QUEUED_MAX);
        let source = reactor.add(Watcher { watch: Arc::clone(&watch), sender });
        Ok(Self { watch, receiver, source })
    }

    /// Returns the channel of the signals, in the order in which the loop read them.
    ///
    /// The receiver works with `crossbeam_channel::select!`.
    #[must_use]
    pub fn receiver(&self) -> &Receiver<Signal> {
        &self.receiver
    }
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Signals").field(&self.watch).finish()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        self.watch.restore();
        self.source.remove();
    }
}

struct Watcher {
    watch: Arc<SignalWatch>,
    sender: Sender<Signal>,
}

impl Source for Watcher {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        match event {
            Event::Start => {
                let watched = turn.register(self.watch.as_fd(), Token(0), Interest::READABLE);
                if watched.is_err() {
                    // The user has no watches left. The signals would never be delivered, so they
                    // get their usual effect back. The closed channel shows the failure.
                    self.watch.restore();
                    turn.remove();
                }
            }
            Event::Ready { .. } => {
                for signal in self.watch.take() {
                    let _ = self.sender.try_send(signal);
                }
            }
            Event::Deadline | Event::Wake | Event::Again => {}
        }
    }
}
