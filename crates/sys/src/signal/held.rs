//! The signals that reach a worker before its runtime watches for them.
//!
//! A signal to all processes of a service may come while a worker starts, and its default effect
//! would be a crash. The hook of [`startup`](crate::startup) therefore calls [`hold`] before `main`,
//! in a worker only. Its handler counts the signals, until [`SignalWatch::where_default`] takes them
//! over or [`release_held`] gives the signals their usual effect.
//!
//! The handler uses only atomics, `sigaction(2)`, `getppid(2)` and `kill(2)`. Programs that the
//! worker executes meanwhile have the default dispositions, because `execve(2)` resets handlers.
//!
//! [`SignalWatch::where_default`]: super::SignalWatch::where_default

use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::handler::{Handler, Origin, action, handlers_are_gone, in_handler, with_handler};
use super::{Signal, kill, set_default, watch};

/// The signals that service managers, terminals and operators send to all processes of a service.
const HELD: [Signal; 3] = [Signal::TERM, Signal::INT, Signal::HUP];

/// The arrivals of each signal of [`HELD`].
static COUNTS: [AtomicU32; 3] = [const { AtomicU32::new(0) }; 3];

/// Whether the signals have been released. Code that has saved the handler of this file may install
/// the handler once more after that, and it then stands for the default effect.
static RELEASED: AtomicBool = AtomicBool::new(false);

/// Installs the handler for those signals that have the default disposition.
pub(crate) fn hold() {
    for signal in HELD {
        if action(signal, None).is_ok_and(|current| current.sa_sigaction == libc::SIG_DFL) {
            // A signal that cannot be held keeps its usual effect.
            let _ = action(signal, Some(&with_handler(on_signal)));
        }
    }
}

/// Gives `SIGTERM`, `SIGINT` and `SIGHUP` their usual effect again where they were held since before
/// `main`, and sends those that have arrived meanwhile once more.
///
/// Does nothing in a process that no primary has started as a worker, and from the second call on.
pub fn release_held() {
    for (signal, times) in release() {
        if times > 0 {
            send_again(signal);
        }
    }
}

/// Ends the holding, and returns how often each signal has arrived.
pub(super) fn release() -> impl Iterator<Item = (Signal, u32)> {
    RELEASED.store(true, Ordering::SeqCst);
    for signal in HELD {
        if action(signal, None).is_ok_and(|current| is_held(&current)) {
            // Cannot fail: the same number was accepted before.
            let _ = set_default(signal);
        }
    }
    // A handler on another thread may be about to count. One that never ends is stopped with its
    // whole process.
    let _ = handlers_are_gone();
    HELD.into_iter().zip(&COUNTS).map(|(signal, count)| (signal, count.swap(0, Ordering::AcqRel)))
}

/// Sends the signal to this process, as if it had arrived at this moment.
pub(super) fn send_again(signal: Signal) {
    // Fails only for a process that does not exist.
    let _ = kill(std::process::id(), signal);
}

/// Returns whether this disposition is the handler of this file.
pub(super) fn is_held(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as Handler as usize
}

/// Never inlined: its address is compared, and must be the same everywhere.
#[inline(never)]
extern "C" fn on_signal(
    number: libc::c_int,
    info: *const libc::siginfo_t,
    context: *const libc::c_void,
) {
    let signal = Signal(number);
    in_handler(|| match action(signal, None) {
        Ok(current) if is_held(&current) => count(signal, Origin::of_pointer(info)),
        // A watch has taken the signal over after the kernel had chosen this handler.
        Ok(current) if watch::is_watched(&current) => watch::on_signal(number, info, context),
        // A handler of the program calls the one that it has replaced. The signal is the program's.
        Ok(_) | Err(_) => {}
    });
}

/// Called by the handler. The second `SIGTERM`, and what the primary itself sends, ends the process.
fn count(signal: Signal, origin: Origin) {
    let Some((_, count)) = HELD.iter().zip(&COUNTS).find(|(held, _)| **held == signal) else {
        return;
    };
    let earlier = count.fetch_add(1, Ordering::AcqRel);
    let is_of_parent = matches!(origin, Origin::Queue(pid) if pid == parent_id());
    let is_second_term = signal == Signal::TERM && earlier > 0;
    if RELEASED.load(Ordering::SeqCst) || is_of_parent || is_second_term {
        let _ = set_default(signal);
        send_again(signal);
    }
}
