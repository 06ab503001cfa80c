//! Sandboxes for tests: system calls that fail as a seccomp filter makes them fail.
//!
//! Only with the feature `testing`, which no other crate of the workspace enables. The filter is
//! permanent and goes over to every thread and process that is started later.

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use crate::errno;
use crate::seccomp::{Argument, Denied, Filter, Test};

/// A system call, or one use of it, that a filter refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The name, as in `"waitid(P_PIDFD)"`.
    pub name: &'static str,
    number: libc::c_long,
    first_argument: Option<Test>,
}

impl Refused {
    const fn denied(&self, errno: i32) -> Denied {
        let when = match self.first_argument {
            Some(test) => Some(Argument { index: 0, test }),
            None => None,
        };
        Denied { number: self.number, when, errno }
    }
}

const fn whole(name: &'static str, number: libc::c_long) -> Refused {
    Refused { name, number, first_argument: None }
}

const fn part(name: &'static str, number: libc::c_long, test: Test) -> Refused {
    Refused { name, number, first_argument: Some(test) }
}

/// The calls younger than Linux 2.6.22 that the library, its dependencies or libc make, by name.
pub const REFUSED: &[Refused] = &[
    whole("accept4", libc::SYS_accept4),
    part("clone(CLONE_PIDFD)", libc::SYS_clone, Test::HasAny(libc::CLONE_PIDFD as u32)),
    whole("clone3", libc::SYS_clone3),
    whole("close_range", libc::SYS_close_range),
    whole("epoll_create1", libc::SYS_epoll_create1),
    whole("eventfd2", libc::SYS_eventfd2),
    whole("getrandom", libc::SYS_getrandom),
    whole("memfd_create", libc::SYS_memfd_create),
    whole("pidfd_open", libc::SYS_pidfd_open),
    whole("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    whole("pipe2", libc::SYS_pipe2),
    whole("ppoll", libc::SYS_ppoll),
    whole("prctl", libc::SYS_prctl),
    whole("prlimit64", libc::SYS_prlimit64),
    whole("statx", libc::SYS_statx),
    whole("waitid", libc::SYS_waitid),
    part("waitid(P_PIDFD)", libc::SYS_waitid, Test::Is(libc::P_PIDFD)),
];

/// The call by which older programs send signals.
pub const KILL: Refused = whole("kill", libc::SYS_kill);

/// The call that renames a file and replaces no other one.
pub const RENAMEAT2: Refused = whole("renameat2", libc::SYS_renameat2);

/// Exchanges two files in one step.
///
/// # Errors
///
/// As `renameat2(2)`.
pub fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let name = |path: &Path| CString::new(path.as_os_str().as_bytes());
    let (one, other, here) = (name(one)?, name(other)?, libc::AT_FDCWD);
    let (call, flag) = (libc::SYS_renameat2, libc::RENAME_EXCHANGE);
    // SAFETY: both names end with a zero and live until the call returns; the rest are integers.
    let answer = unsafe { libc::syscall(call, here, one.as_ptr(), here, other.as_ptr(), flag) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Makes these calls fail with `errno` in this thread, and in all threads and processes that it
/// starts. A process with other threads calls this too late.
///
/// # Errors
///
/// Those of `seccomp(2)`: `EINVAL` where the kernel has no filters.
pub fn refuse(calls: &[Refused], errno: i32) -> io::Result<()> {
    let denied: Vec<Denied> = calls.iter().map(|call| call.denied(errno)).collect();
    Filter::deny(&denied)?.install()
}

/// Makes `SIGPIPE` end this process, as in a program that is not written in Rust.
pub fn reset_sigpipe() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Returns the number of an error by its name: `EPERM` or `ENOSYS`.
#[must_use]
pub fn errno_by_name(name: &str) -> Option<i32> {
    [errno::EPERM, errno::ENOSYS].into_iter().find(|number| errno::name(*number) == name)
}
