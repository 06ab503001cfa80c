//! Functions that run when the process exits normally.

use std::panic;
use std::sync::{Mutex, Once, PoisonError};

static HOOKS: Mutex<Vec<fn()>> = Mutex::new(Vec::new());
static REGISTER: Once = Once::new();

/// Registers `hook` to run when this process returns from `main` or calls `exit`.
///
/// Hooks run in the order of registration, on the thread that ends the process, while all other
/// threads still run. A panic in one hook does not stop the next. Hooks do not run on `abort`,
/// `_exit`, a deadly signal, or `execve`.
pub fn at_exit(hook: fn()) {
    HOOKS.lock().unwrap_or_else(PoisonError::into_inner).push(hook);
    REGISTER.call_once(|| {
        // SAFETY: the function is `extern "C"`, takes nothing, never unwinds, and lives for ever.
        // A full table (impossible for the first 32 entries) means only that no hook runs.
        let _ = unsafe { libc::atexit(run) };
    });
}

extern "C" fn run() {
    // Taken out first: a hook may register another one, and must not find the lock held.
    let hooks: Vec<fn()> = HOOKS.lock().unwrap_or_else(PoisonError::into_inner).drain(..).collect();
    for hook in hooks {
        let _ = panic::catch_unwind(hook);
    }
}
