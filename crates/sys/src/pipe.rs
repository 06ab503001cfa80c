//! Pipes: one way, one reader, one writer.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

/// Makes a pipe, both ends close-on-exec and blocking: what is written into the second is read
/// from the first. See `pipe2(2)`.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}
