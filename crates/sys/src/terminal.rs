//! Pseudo-terminals: a terminal whose other end is a program.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use crate::fd::{above_standard, cvt};

/// Opens a pseudo-terminal of this size, and returns its two ends: the program's, which reads what
/// is printed, and the terminal for a child. Both are blocking and close-on-exec.
///
/// # Errors
///
/// `ENOENT` where `/dev/ptmx` is missing, `ENOSPC` when the system has no terminal left, `EMFILE`
/// or `ENFILE` when no descriptor is left.
pub fn open(rows: u16, columns: u16) -> io::Result<(OwnedFd, OwnedFd)> {
    let how = libc::O_RDWR | libc::O_NOCTTY | libc::O_CLOEXEC;
    // SAFETY: integers only.
    let number = cvt(unsafe { libc::posix_openpt(how) })?;
    // SAFETY: the kernel just made it for us.
    let ours = above_standard(unsafe { OwnedFd::from_raw_fd(number) });
    let unlocked: libc::c_int = 0;
    // SAFETY: the request reads one integer.
    cvt(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCSPTLCK as _, &raw const unlocked) })?;
    // By the descriptor and not by a name: another /dev/pts may be mounted here.
    // SAFETY: integers only.
    let number = cvt(unsafe { libc::ioctl(ours.as_raw_fd(), libc::TIOCGPTPEER as _, how) })?;
    // SAFETY: the kernel just made it for us.
    let theirs = above_standard(unsafe { OwnedFd::from_raw_fd(number) });
    set_size(std::os::fd::AsFd::as_fd(&ours), rows, columns)?;
    Ok((ours, theirs))
}

/// Sets the size of a terminal. If it changes, the foreground group gets `SIGWINCH`.
///
/// # Errors
///
/// `ENOTTY` when the descriptor is no terminal.
pub fn set_size(terminal: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the request reads one structure of this type.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ as _, &raw const size) })?;
    Ok(())
}

/// Returns the rows and columns of a terminal.
///
/// # Errors
///
/// `ENOTTY` when the descriptor is no terminal.
pub fn size(terminal: BorrowedFd<'_>) -> io::Result<(u16, u16)> {
    let mut size = MaybeUninit::<libc::winsize>::zeroed();
    // SAFETY: the request writes one structure of this type.
    cvt(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCGWINSZ as _, size.as_mut_ptr()) })?;
    // SAFETY: zeroes are valid, and the kernel wrote over them.
    let size = unsafe { size.assume_init() };
    Ok((size.ws_row, size.ws_col))
}
