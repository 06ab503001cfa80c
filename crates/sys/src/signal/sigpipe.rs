//! Writes to pipes without `SIGPIPE`.

use std::io;
use std::mem::MaybeUninit;
use std::ptr;

use nix::sys::signal::{SigSet, SigmaskHow, Signal as Named};

/// Runs `write`, which writes `bytes` bytes to a pipe, so that a pipe without a reader is `EPIPE`
/// and no `SIGPIPE`, whatever the disposition of that signal is in this process.
///
/// The signal is blocked in the calling thread for the duration of the call. `send(2)` has a flag
/// for the same purpose, `write(2)` has none.
///
/// # Errors
///
/// Those of `write`.
///
/// ```
/// use std::io::Write;
///
/// let (reader, mut writer) = std::io::pipe()?;
/// drop(reader);
/// let refused = brood_sys::signal::without_sigpipe(1, || writer.write(b"x")).unwrap_err();
/// assert_eq!(refused.kind(), std::io::ErrorKind::BrokenPipe);
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn without_sigpipe(
    bytes: usize,
    write: impl FnOnce() -> io::Result<usize>,
) -> io::Result<usize> {
    let pipe = SigSet::from(Named::SIGPIPE);
    let before = pipe.thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let restore = Restore(&before);
    // A signal that was blocked and pending before belongs to the caller.
    let kept = before.contains(Named::SIGPIPE) && is_pending(Named::SIGPIPE);
    let answer = write();
    // A reader that goes away while the write waits for room leaves a signal with a success: the
    // count of the bytes before.
    let raised = match &answer {
        Ok(count) => *count < bytes,
        Err(error) => error.raw_os_error() == Some(libc::EPIPE),
    };
    if raised && !kept {
        take_pending(&pipe);
    }
    drop(restore);
    answer
}

/// Restores the signal mask of the thread, after a panic as well.
struct Restore<'a>(&'a SigSet);

impl Drop for Restore<'_> {
    fn drop(&mut self) {
        // Fails only for an operation that does not exist.
        let _ = self.0.thread_set_mask();
    }
}

fn is_pending(signal: Named) -> bool {
    let mut pending = MaybeUninit::<libc::sigset_t>::zeroed();
    // SAFETY: the set is writable and of the right size.
    unsafe { libc::sigpending(pending.as_mut_ptr()) };
    // SAFETY: zeroes are a valid set, and the kernel wrote over them.
    let pending = unsafe { pending.assume_init() };
    // SAFETY: reads a set of ours.
    unsafe { libc::sigismember(&raw const pending, signal as i32) == 1 }
}

/// Takes a pending signal of `set` away from the calling thread, if there is one. Never waits.
fn take_pending(set: &SigSet) {
    let now = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    loop {
        // SAFETY: the set and the time are valid for the call; no information is asked for.
        let answer = unsafe {
            libc::sigtimedwait(ptr::from_ref(set.as_ref()), ptr::null_mut(), &raw const now)
        };
        if answer >= 0 || io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    /// A blocked signal becomes pending even where it is ignored, as it is in this program.
    #[test]
    fn a_pipe_without_a_reader_leaves_no_signal_behind_and_takes_none_of_the_caller() {
        let (reader, mut writer) = io::pipe().unwrap();
        drop(reader);
        let pipe = SigSet::from(Named::SIGPIPE);
        let mask = pipe.thread_swap_mask(SigmaskHow::SIG_BLOCK).unwrap();
        let refused = without_sigpipe(1, || writer.write(b"x")).unwrap_err();
        assert_eq!(refused.kind(), io::ErrorKind::BrokenPipe);
        assert!(!is_pending(Named::SIGPIPE));
        crate::signal::raise(crate::signal::Signal::PIPE).unwrap();
        without_sigpipe(1, || writer.write(b"x")).unwrap_err();
        assert!(is_pending(Named::SIGPIPE), "the signal of the caller stays");
        take_pending(&pipe);
        assert!(!is_pending(Named::SIGPIPE));
        mask.thread_set_mask().unwrap();
    }

    #[test]
    fn the_mask_of_the_thread_is_restored() {
        let (reader, mut writer) = io::pipe().unwrap();
        without_sigpipe(1, || writer.write(b"x")).unwrap();
        drop(reader);
        without_sigpipe(1, || writer.write(b"x")).unwrap_err();
        assert!(!SigSet::thread_get_mask().unwrap().contains(Named::SIGPIPE));
    }
}
