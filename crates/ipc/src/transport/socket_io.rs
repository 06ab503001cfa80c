//! One system call in each direction: from an outbox to a socket, and from a socket to an inbox.

use crate::arrived_handle::ArrivedHandle;
use crate::error::Error;
use crate::transport::inbox::Inbox;
use crate::transport::outbox::{Outbox, SLICES_MAX};
use std::io::{self, IoSlice};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;
use sys::poll::{self, Interest};
use sys::scm::{self, Received, RecvFlags};

/// Prepares a socket that becomes a channel: the kernel adds nothing to what it receives.
///
/// # Errors
///
/// [`Error::NotAChannel`] when `socket` is no Unix stream socket.
pub(crate) fn prepare(socket: BorrowedFd<'_>) -> Result<(), Error> {
    if !sys::socket::is_unix_stream(socket) {
        return Err(Error::NotAChannel("the descriptor is no Unix stream socket"));
    }
    sys::socket::refuse_credentials(socket);
    Ok(())
}

/// Writes as much as one `sendmsg(2)` takes, and returns the number of bytes.
///
/// # Errors
///
/// `WouldBlock` when `wait` is false and the socket is full, and the errors of `sendmsg(2)`.
pub(crate) fn write(
    socket: BorrowedFd<'_>,
    outbox: &mut Outbox<OwnedFd>,
    wait: bool,
) -> io::Result<usize> {
    let count = {
        let mut slices = [IoSlice::new(&[]); SLICES_MAX];
        let used = outbox.slices(&mut slices);
        scm::send_owned(socket, &slices[..used], outbox.handles(), wait)?
    };
    outbox.written(count);
    Ok(count)
}

/// The result of one read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Read {
    /// The number of bytes. A read that did not fill its room may still leave bytes unread: it ends
    /// behind bytes that carry descriptors, and the end of the stream may follow.
    Bytes(usize),
    /// The socket has no bytes to read.
    WouldBlock,
    /// The peer has closed, between two frames.
    EndOfStream,
}

/// Reads what one `recvmsg(2)` returns.
///
/// # Errors
///
/// [`Error::Protocol`] when the stream ended inside a frame; [`Error::Os`].
pub(crate) fn read(
    socket: BorrowedFd<'_>,
    inbox: &mut Inbox<ArrivedHandle>,
    wait: bool,
) -> Result<Read, Error> {
    let decoder = inbox.decoder();
    let fds_max = fds_max(decoder.limits().received_handles_max);
    let (buffer, room) = decoder.space();
    let flags = RecvFlags { dont_wait: !wait, peek: false };
    match scm::recv_append(socket, buffer, room, fds_max, flags) {
        Ok(received) if received.bytes > 0 => {
            decoder.arrived(received.fds.into_iter().map(Into::into), received.truncated);
            Ok(Read::Bytes(received.bytes))
        }
        Ok(_) => end(inbox),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(Read::WouldBlock),
        // The peer closed without having read everything that this side sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => end(inbox),
        Err(error) => Err(Error::Os("recvmsg", error)),
    }
}

/// Returns the number of descriptors for which a read has room: none where the channel takes none,
/// and otherwise as many as a peer can send at once, because they are counted by the frame.
fn fds_max(received_handles_max: usize) -> usize {
    if received_handles_max == 0 { 0 } else { scm::FDS_MAX }
}

/// Appends what one `recvmsg(2)` returns to `buffer`.
///
/// Returns `None` when nothing has arrived, and no bytes at the end of the stream.
///
/// # Errors
///
/// [`Error::Os`].
pub(crate) fn read_into(
    socket: BorrowedFd<'_>,
    buffer: &mut Vec<u8>,
    room: usize,
    received_handles_max: usize,
) -> Result<Option<Received>, Error> {
    let flags = RecvFlags { dont_wait: true, peek: false };
    match scm::recv_append(socket, buffer, room, fds_max(received_handles_max), flags) {
        Ok(received) => Ok(Some(received)),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
        // The peer closed without having read everything that this side sent.
        Err(error) if error.kind() == io::ErrorKind::ConnectionReset => {
            Ok(Some(Received::default()))
        }
        Err(error) => Err(Error::Os("recvmsg", error)),
    }
}

fn end(inbox: &mut Inbox<ArrivedHandle>) -> Result<Read, Error> {
    inbox.decoder().end().map_err(Error::Protocol)?;
    Ok(Read::EndOfStream)
}

/// Returns whether the peer has closed its end, so that no write can succeed. Bytes may be left to
/// read.
pub(crate) fn is_hung_up(socket: BorrowedFd<'_>) -> bool {
    let ready = poll::wait(&[(socket, Interest::HANGUP)], Some(Duration::ZERO));
    ready.is_ok_and(|[socket]| socket.any())
}

/// Returns whether a failed write means only that the peer is gone.
pub(crate) fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

/// Returns whether a failed write is worth another attempt later: too many descriptors of this user
/// are in flight, or the kernel is short of memory.
pub(crate) fn is_transient(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number == Some(sys::errno::ETOOMANYREFS)
        || number == Some(sys::errno::ENOBUFS)
        || number == Some(sys::errno::ENOMEM)
}
