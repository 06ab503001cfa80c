//! The thread behind a parent-death signal.
//!
//! The kernel sends the signal when the **thread** that started the child ends. The main thread
//! lives as long as the process and starts such children itself. For every other thread a new
//! thread starts the child and waits until the child has ended. The calling thread creates it, so
//! that it has what that thread has at this moment: namespaces, capabilities, seccomp filters,
//! Landlock rules, `no_new_privs`, nice value, processors. A thread that is shared by several
//! starts would lend the child what another thread had, and there is no way to compare two threads.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use sys::spawn::{SpawnError, Spawned, Step};

use crate::command::Command;

/// The stack of a thread, in bytes. The engine gives the child a stack of its own.
const STACK_BYTES: usize = 128 * 1024;

/// The threads that wait for their child.
static THREADS: AtomicUsize = AtomicUsize::new(0);

/// The place of one thread below the limit.
struct Place;

impl Place {
    fn take() -> Result<Self, SpawnError> {
        let place = Self;
        if THREADS.fetch_add(1, Ordering::Relaxed) < Command::PARENT_DEATH_THREADS_MAX {
            return Ok(place);
        }
        Err(refused(sys::errno::EAGAIN))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        THREADS.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Runs `start` on a thread that lives as long as the child, and returns its result.
pub(crate) fn launch(
    start: impl FnOnce() -> Result<Spawned, SpawnError> + Send + 'static,
) -> Result<Spawned, SpawnError> {
    if sys::thread::is_main() {
        return start();
    }
    let place = Place::take()?;
    let (answer, result) = crossbeam_channel::bounded(1);
    let run = move || {
        // A handler of the program must not run on the small stack.
        sys::thread::block_signals();
        let launched = start();
        let pid = launched.as_ref().ok().map(|spawned| spawned.pid);
        // The caller waits below.
        let _ = answer.send(launched);
        if let Some(pid) = pid {
            sys::thread::wait_for_child(pid);
        }
        drop(place);
    };
    let thread = thread::Builder::new().name("brood-parent".to_owned()).stack_size(STACK_BYTES);
    // Dropping the handle detaches the thread.
    drop(
        thread
            .spawn(run)
            .map_err(|error| refused(error.raw_os_error().unwrap_or(sys::errno::EAGAIN)))?,
    );
    // An error means a panic in `start`, which the panic hook has reported.
    result.recv().unwrap_or_else(|_| Err(refused(sys::errno::EAGAIN)))
}

const fn refused(errno: i32) -> SpawnError {
    SpawnError { step: Step::ParentDeathThread, call: None, errno }
}
