//! The thread that writes captured standard error of workers to that of the primary.
//!
//! Such a write may block for as long as nobody reads, so it must not run on the loop. Nothing is
//! dropped: while more than [`QUEUED_MAX`] bytes wait, the driver leaves the pipes of its workers
//! unread, and a worker that goes on writing blocks, as it would on the real standard error. A
//! normal exit of the process waits until all is written, unless nothing was for [`STALL_MAX`].

use std::cell::OnceCell;
use std::io::{self, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, Once, PoisonError};
use std::thread;
use std::time::Duration;

use crossbeam_channel::Sender;

use crate::primary::primary_state::Shared;

/// The number of bytes in the queue from which on the pipes of the workers are left unread.
const QUEUED_MAX: usize = 1 << 20;
/// The longest time for which an exit waits for a standard error that takes nothing.
const STALL_MAX: Duration = Duration::from_secs(10);
/// The most bytes of one write: the wait at an exit sees the progress of each.
const WRITE_BYTES_MAX: usize = 4096;

/// The queue of all primaries of this process.
struct Queue {
    /// The number of bytes that are not written.
    bytes: usize,
    /// The drivers that left a pipe unread.
    starved: Vec<Arc<Shared>>,
}

static QUEUE: Mutex<Queue> = Mutex::new(Queue { bytes: 0, starved: Vec::new() });
static WRITTEN: Condvar = Condvar::new();

fn queue() -> MutexGuard<'static, Queue> {
    QUEUE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The handle of the thread, which is started with the first write and ends with this value.
#[derive(Debug)]
pub(crate) struct StderrWriter {
    shared: Arc<Shared>,
    writes: OnceCell<Option<Sender<Vec<u8>>>>,
}

impl StderrWriter {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        Self { shared, writes: OnceCell::new() }
    }

    /// Returns a writer without a thread, which drops what it is given.
    #[cfg(test)]
    pub(crate) fn discarding(shared: Arc<Shared>) -> Self {
        Self { shared, writes: OnceCell::from(None) }
    }

    /// Queues a write to the standard error of this process.
    pub(crate) fn write(&self, bytes: Vec<u8>) {
        let Some(writes) = self.writes.get_or_init(start) else { return };
        queue().bytes += bytes.len();
        writes.send(bytes).expect("the thread receives as long as the sender lives");
    }

    /// Whether the pipes of workers should be left unread. The driver is woken when that changes.
    pub(crate) fn is_full(&self) -> bool {
        let mut queue = queue();
        let is_full = queue.bytes >= QUEUED_MAX;
        if is_full && !queue.starved.iter().any(|it| Arc::ptr_eq(it, &self.shared)) {
            queue.starved.push(self.shared.clone());
        }
        is_full
    }
}

/// Starts the thread; `None` if that fails, and nothing is written then.
fn start() -> Option<Sender<Vec<u8>>> {
    static AT_EXIT: Once = Once::new();
    AT_EXIT.call_once(|| sys::at_exit::at_exit(wait_until_written));
    let (writes, received) = crossbeam_channel::unbounded::<Vec<u8>>();
    let thread = thread::Builder::new().name("brood-stderr".into()).spawn(move || {
        for bytes in received {
            for piece in bytes.chunks(WRITE_BYTES_MAX) {
                // An error cannot be reported anywhere: standard error itself is closed.
                let _ = io::stderr().write_all(piece);
                written(piece.len());
            }
        }
    });
    thread.ok().map(|_| writes)
}

fn written(bytes: usize) {
    let mut queue = queue();
    queue.bytes -= bytes;
    let starved =
        if queue.bytes < QUEUED_MAX / 2 { std::mem::take(&mut queue.starved) } else { Vec::new() };
    drop(queue);
    WRITTEN.notify_all();
    starved.iter().for_each(|shared| shared.wake());
}

/// Runs at a normal exit of the process.
fn wait_until_written() {
    // A process that was forked without exec has no thread that writes.
    if reactor::is_forked() {
        return;
    }
    let mut queue = queue();
    while queue.bytes > 0 {
        let before = queue.bytes;
        let waited = WRITTEN.wait_timeout(queue, STALL_MAX).unwrap_or_else(PoisonError::into_inner);
        queue = waited.0;
        if waited.1.timed_out() && queue.bytes == before {
            return;
        }
    }
}
