//! What runs when the process ends normally.

use std::panic;
use std::sync::{Mutex, Once, PoisonError};

static HOOKS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());
static REGISTER: Once = Once::new();

/// Lets `hook` run when this process ends by returning from `main` or calling `exit`.
///
/// Hooks run in the order they were given, on the thread that ends the process, while all other
/// threads still run; a panic in one does not stop the next. They do not run on `abort`, `_exit`,
/// a deadly signal, or `execve`.
pub fn at_exit(hook: fn()) {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    REGISTER.call_once(|| {
        // SAFETY: the function is `extern "C"`, takes nothing, never unwinds, and lives for ever.
        // A full table (impossible for the first 32 entries) means only that no hook runs.
        let _ = unsafe { libc::atexit(run) };
    });
}

extern "C" fn run() {
    // Taken first: a hook may register another, and must not find the lock held.
    let hooks: Vec<fn()> = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    for hook in hooks {
        let _ = panic::catch_unwind(hook);
    }
}
