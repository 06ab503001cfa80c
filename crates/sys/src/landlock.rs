//! Facts that a Landlock ruleset needs, and the view in which its paths are looked up.

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Returns the version of Landlock in this kernel; 0 where Landlock is absent or turned off.
#[must_use]
pub fn version() -> u32 {
    const VERSION: u32 = 1;
    let (none, create) = (std::ptr::null::<u8>(), libc::SYS_landlock_create_ruleset);
    // SAFETY: with this flag the kernel reads no attributes.
    let version = unsafe { libc::syscall(create, none, 0usize, VERSION) };
    u32::try_from(version).unwrap_or(0)
}

/// Moves the calling thread into a mount namespace, for good: its root and working directory are
/// then its own. For a thread that ends soon.
///
/// # Errors
///
/// Those of `setns(2)`: `EPERM` without `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`, `EINVAL` when `fd` is
/// no mount namespace.
pub fn enter_mount_namespace(fd: BorrowedFd<'_>) -> io::Result<()> {
    // SAFETY: integers only. The flag changes nothing but who shares root and working directory.
    if unsafe { libc::unshare(libc::CLONE_FS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only, on a descriptor that is open.
    if unsafe { libc::setns(fd.as_raw_fd(), libc::CLONE_NEWNS) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}
