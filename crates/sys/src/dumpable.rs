//! Whether other processes of the same user may look into this one. See `PR_SET_DUMPABLE` in
//! `prctl(2)`.

use std::ffi::c_int;
use std::io;

/// Forbids core dumps of this process, and `ptrace(2)` and `/proc/PID/mem` to processes without
/// `CAP_SYS_PTRACE`. `execve` takes it back.
///
/// # Errors
///
/// Those of `prctl(2)`, which only a sandbox causes.
pub fn forbid() -> io::Result<()> {
    set(0)
}

pub(crate) fn get() -> c_int {
    // SAFETY: integers only.
    unsafe { libc::prctl(libc::PR_GET_DUMPABLE, 0, 0, 0, 0) }
}

pub(crate) fn set(flag: c_int) -> io::Result<()> {
    // SAFETY: integers only.
    let answer = unsafe { libc::prctl(libc::PR_SET_DUMPABLE, flag as libc::c_ulong, 0, 0, 0) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
