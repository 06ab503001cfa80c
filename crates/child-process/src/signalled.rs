//! The answers of `kill` and `kill_tree`.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use sys::errno::write_with_causes;

/// The effect of a signal that was sent to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Signalled {
    /// The kernel has taken the signal for the process. The process may still be running, and a
    /// handler or a mask may keep the signal from having an effect.
    Delivered,
    /// The process had ended before, so that nothing was sent.
    AlreadyExited,
}

/// A signal that may not have reached every process of a child's tree.
///
/// All processes that could be found and signalled have the signal.
#[non_exhaustive]
pub struct TreeError {
    /// The effect on the child itself.
    pub child: Signalled,
    /// The processes that were found but not signalled, by their ids. Empty when the search itself
    /// failed, so that other processes may exist.
    pub unreached: Vec<u32>,
    /// The first call that failed: `"pidfd_send_signal"`, `"reading /proc"`, …
    pub call: &'static str,
    /// The error of that call.
    pub source: io::Error,
}

impl fmt::Display for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the signal has not reached every descendant")?;
        match self.unreached.as_slice() {
            [] => {}
            [pid] => write!(f, " (process {pid})")?,
            [pid, rest @ ..] => write!(f, " (process {pid} and {} more)", rest.len())?,
        }
        write!(f, ": {} failed", self.call)
    }
}

impl fmt::Debug for TreeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !f.alternate() {
            return write_with_causes(self, f);
        }
        f.debug_struct("TreeError")
            .field("child", &self.child)
            .field("unreached", &self.unreached)
            .field("call", &self.call)
            .field("source", &self.source)
            .finish()
    }
}

impl StdError for TreeError {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}
