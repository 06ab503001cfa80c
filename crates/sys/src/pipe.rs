//! Pipes: one direction, from a writer to a reader.

use std::io;
use std::os::fd::OwnedFd;

use nix::fcntl::OFlag;

use crate::fd;

/// Makes a pipe and returns its reading and its writing end, close-on-exec and blocking. Their
/// numbers are above 2, even where standard streams are closed. See `pipe2(2)`.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(OFlag::O_CLOEXEC)?;
    Ok((fd::above_standard(reader), fd::above_standard(writer)))
}
