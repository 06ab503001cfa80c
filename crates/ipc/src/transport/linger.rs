//! Writing the queue of a dropped endpoint on the loop; a normal exit of the process waits for it.

use crate::options::Options;
use crate::transport::outbox::Outbox;
use crate::transport::socket_io;
use reactor::{Event, Interest, Source, Token, Turn};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::time::{Duration, Instant};

const SOCKET: Token = Token(0);

/// The pause before a write is tried again after a shortage, whose end no readiness reports.
pub(crate) const RETRY: Duration = Duration::from_millis(2);

/// Writes `outbox` to `socket` on the loop, and then closes the socket. Does not wait.
///
/// A peer that reads nothing for `Options::flush_within` does not get the rest.
pub(crate) fn flush_and_close(socket: OwnedFd, outbox: Outbox<OwnedFd>, options: &Options) {
    let Ok(reactor) = reactor::reactor() else { return };
    let pending = PendingFlush::new(options.exit_flush);
    let within = options.flush_within;
    reactor.add(Flusher { socket, outbox, within, until: None, _pending: pending });
}

struct Flusher {
    socket: OwnedFd,
    outbox: Outbox<OwnedFd>,
    within: Duration,
    /// The time at which the rest is dropped, unless the peer reads before.
    until: Option<Instant>,
    _pending: PendingFlush,
}

impl Source for Flusher {
    fn event(&mut self, event: Event, turn: &mut Turn<'_>) {
        if event == Event::Start {
            let interest = Interest::WRITABLE;
            if turn.register(self.socket.as_fd(), SOCKET, interest).is_err() {
                turn.remove();
                return;
            }
            self.until = turn.now().checked_add(self.within);
            turn.set_deadline(self.until);
        }
        while !self.outbox.is_empty() {
            match socket_io::write(self.socket.as_fd(), &mut self.outbox, false) {
                Ok(_) => {
                    self.until = turn.now().checked_add(self.within);
                    turn.set_deadline(self.until);
                }
                Err(_) if self.until.is_some_and(|until| until <= turn.now()) => break,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(error) if socket_io::is_transient(&error) => {
                    turn.set_deadline(Some(turn.now() + RETRY));
                    return;
                }
                Err(_) => break,
            }
        }
        turn.remove();
    }
}

/// One queue for which a normal exit of the process waits, until this value is dropped.
#[derive(Debug)]
pub(crate) struct PendingFlush;

static COUNT: Mutex<Waiters> = Mutex::new(Waiters { pending: 0, longest: Duration::ZERO });
static CHANGED: Condvar = Condvar::new();
static HOOK: Once = Once::new();

struct Waiters {
    pending: usize,
    /// The longest wait that any of the queues asked for.
    longest: Duration,
}

fn waiters() -> MutexGuard<'static, Waiters> {
    COUNT.lock().unwrap_or_else(PoisonError::into_inner)
}

impl PendingFlush {
    pub(crate) fn new(exit_flush: Duration) -> PendingFlush {
        HOOK.call_once(|| sys::at_exit::at_exit(wait_for_all));
        let mut waiters = waiters();
        waiters.pending += 1;
        waiters.longest = waiters.longest.max(exit_flush);
        PendingFlush
    }
}

impl Drop for PendingFlush {
    fn drop(&mut self) {
        let mut waiters = waiters();
        waiters.pending -= 1;
        if waiters.pending == 0 {
            waiters.longest = Duration::ZERO;
            CHANGED.notify_all();
        }
    }
}

/// Runs at a normal exit of the process, while the loop still runs.
fn wait_for_all() {
    // An exit on the loop cannot wait for the loop, which does the writing. In a process that was
    // forked without exec there is no loop.
    if reactor::on_loop() || reactor::is_forked() {
        return;
    }
    let start = Instant::now();
    let mut waiters = waiters();
    while waiters.pending > 0 {
        // A peer that does not read must not keep the process alive.
        let Some(left) = waiters.longest.checked_sub(start.elapsed()) else { return };
        waiters = CHANGED.wait_timeout(waiters, left).unwrap_or_else(PoisonError::into_inner).0;
    }
}
