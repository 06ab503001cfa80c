//! The calling thread: whether it is the main one, its signals, the child that it has started.

use std::mem::MaybeUninit;
use std::ptr;

/// Returns whether the calling thread is the main thread, whose end is that of the process.
#[must_use]
pub fn is_main() -> bool {
    // SAFETY: no arguments.
    let thread = unsafe { libc::syscall(libc::SYS_gettid) };
    thread == i64::from(std::process::id())
}

/// Blocks every signal on the calling thread that the C library does not need itself: no handler of
/// the program runs there.
pub fn block_signals() {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    // SAFETY: the set is ours, and the call writes all of it.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: a whole set, and no old one to write.
    unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut()) };
}

/// Waits until the process `pid`, which the calling thread has started, has ended. The status is
/// left to the one who reaps the process.
///
/// Never returns where the kernel refuses such a wait: the thread must not end before its child.
pub fn wait_for_child(pid: u32) {
    // Children of other threads are left out, so no other process with this number is meant even
    // if the child is reaped meanwhile.
    let options = libc::WEXITED | libc::WNOWAIT | libc::__WNOTHREAD;
    loop {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        // SAFETY: `info` is writable memory of the right size.
        let answer = unsafe { libc::waitid(libc::P_PID, pid, info.as_mut_ptr(), options) };
        let error = std::io::Error::last_os_error().raw_os_error();
        match error {
            _ if answer == 0 => return,
            // Reaped already.
            Some(libc::ECHILD) => return,
            Some(libc::EINTR) => {}
            _ => std::thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn a_thread_waits_for_its_own_child_and_leaves_the_status() {
        std::thread::spawn(|| {
            assert!(!is_main());
            let mut child =
                Command::new("/bin/sh").args(["-c", "sleep 0.1; exit 3"]).spawn().unwrap();
            wait_for_child(child.id());
            assert_eq!(child.try_wait().unwrap().unwrap().code(), Some(3));
            // It is reaped, so there is nothing to wait for.
            wait_for_child(child.id());
        })
        .join()
        .unwrap();
    }
}
