//! The end of a process that a Node program forked: the channel closes on both sides first.
//!
//! A Node program ends by an unhandled error when it writes to a channel whose other end is closed.
//! It may write at any moment: an answer of its `cluster`, or a message of its own. At a normal exit
//! this process therefore ends only its sending direction, which Node takes for a disconnect, and
//! lives until Node has closed its end.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The longest time that an exit waits for a parent that is busy.
const CLOSE_MAX: Duration = Duration::from_secs(5);

/// The stage of the channel to a Node parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Open,
    /// The process ends, and waits until the channel is closed.
    Ending,
    /// The channel is closed, or there is none.
    Closed,
}

static STAGE: Mutex<Stage> = Mutex::new(Stage::Closed);
static CHANGED: Condvar = Condvar::new();

fn stage() -> MutexGuard<'static, Stage> {
    STAGE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes that the channel is about to be opened.
pub(crate) fn open() {
    *stage() = Stage::Open;
}

/// Notes that the channel is closed. Returns whether the program is to be notified, which it is not
/// while the process ends.
pub(crate) fn closed() -> bool {
    let before = std::mem::replace(&mut *stage(), Stage::Closed);
    CHANGED.notify_all();
    before != Stage::Ending
}

/// Closes the channel in order, as a hook of a normal exit. `disconnect` ends the sending direction.
pub(crate) fn close(disconnect: impl FnOnce()) {
    // An exit on the loop cannot wait for the loop, which reads the channel. A process that was
    // forked without exec has no loop, and the channel is not its own.
    if reactor::on_loop() || reactor::is_forked() {
        return;
    }
    {
        let mut stage = stage();
        if *stage == Stage::Closed {
            return;
        }
        *stage = Stage::Ending;
    }
    disconnect();
    let until = Instant::now() + CLOSE_MAX;
    let mut stage = stage();
    while *stage == Stage::Ending {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return;
        }
        stage = CHANGED.wait_timeout(stage, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
