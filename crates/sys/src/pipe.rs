//! Pipes: one direction, from a writer to a reader.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

/// Makes a pipe and returns its reading and its writing end, close-on-exec and blocking. See
/// `pipe2(2)`.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(nix::unistd::pipe2(OFlag::O_CLOEXEC)?)
}
