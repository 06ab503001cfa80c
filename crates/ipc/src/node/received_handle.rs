//! Handles attached to a message: the kinds that arrive, and the kinds that may be sent.

use super::handle_type::{Family, HandleType, Transport};
use crate::error::Error;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use sys::fd::Kind;

/// A handle that a Node peer attached to a message, by its kind.
///
/// All sockets are non-blocking, as Node made them.
#[derive(Debug)]
#[non_exhaustive]
pub enum AnyHandle {
    /// A `net.Socket` over TCP.
    TcpStream(TcpStream),
    /// A `net.Server` over TCP.
    TcpListener(TcpListener),
    /// A `dgram.Socket`.
    UdpSocket(UdpSocket),
    /// A `net.Socket` over a Unix socket, as Node's pipes to children are.
    UnixStream(UnixStream),
    /// A `net.Server` over a Unix socket.
    UnixListener(UnixListener),
    /// Any other descriptor.
    Other(OwnedFd),
}

impl AnyHandle {
    /// Returns a short name: `tcp-socket`, `tcp-server`, `udp`, `unix-socket`, `unix-server` or
    /// `other`.
    #[must_use]
    pub fn name(&self) -> &'static str {
        match self {
            AnyHandle::TcpStream(_) => "tcp-socket",
            AnyHandle::TcpListener(_) => "tcp-server",
            AnyHandle::UdpSocket(_) => "udp",
            AnyHandle::UnixStream(_) => "unix-socket",
            AnyHandle::UnixListener(_) => "unix-server",
            AnyHandle::Other(_) => "other",
        }
    }
}

impl From<OwnedFd> for AnyHandle {
    fn from(fd: OwnedFd) -> AnyHandle {
        match sys::fd::kind(fd.as_fd()) {
            Ok(Kind::TcpStream) => AnyHandle::TcpStream(fd.into()),
            Ok(Kind::TcpListener) => AnyHandle::TcpListener(fd.into()),
            Ok(Kind::Udp) => AnyHandle::UdpSocket(fd.into()),
            Ok(Kind::UnixStream) => AnyHandle::UnixStream(fd.into()),
            Ok(Kind::UnixListener) => AnyHandle::UnixListener(fd.into()),
            _ => AnyHandle::Other(fd),
        }
    }
}

impl From<AnyHandle> for OwnedFd {
    fn from(handle: AnyHandle) -> OwnedFd {
        match handle {
            AnyHandle::TcpStream(socket) => socket.into(),
            AnyHandle::TcpListener(socket) => socket.into(),
            AnyHandle::UdpSocket(socket) => socket.into(),
            AnyHandle::UnixStream(socket) => socket.into(),
            AnyHandle::UnixListener(socket) => socket.into(),
            AnyHandle::Other(fd) => fd,
        }
    }
}

/// Returns Node's type for a descriptor, if the descriptor may be sent to Node.
///
/// A file, a terminal or a pidfd would end a Node process. Other kinds of sockets would block every
/// later handle.
pub(crate) fn handle_type(fd: &OwnedFd, raw: bool) -> Result<HandleType, Error> {
    let kind = sys::fd::kind(fd.as_fd()).map_err(|error| Error::Os("fstat", error))?;
    Ok(match kind {
        Kind::TcpStream if raw => HandleType::RawSocket(Transport::Tcp),
        Kind::UnixStream if raw => HandleType::RawSocket(Transport::Unix),
        Kind::TcpListener if raw => HandleType::RawServer(Transport::Tcp),
        Kind::UnixListener if raw => HandleType::RawServer(Transport::Unix),
        Kind::TcpStream => HandleType::Socket(Transport::Tcp),
        Kind::UnixStream => HandleType::Socket(Transport::Unix),
        Kind::TcpListener => HandleType::Server(Transport::Tcp),
        Kind::UnixListener => HandleType::Server(Transport::Unix),
        Kind::Udp if raw => HandleType::RawDatagram,
        Kind::Udp => match sys::socket::local_address(fd.as_fd()) {
            Ok(SocketAddr::V4(_)) => HandleType::Datagram(Family::V4),
            Ok(SocketAddr::V6(_)) => HandleType::Datagram(Family::V6),
            Err(error) => return Err(Error::Os("getsockname", error)),
        },
        Kind::File => return Err(Error::InvalidHandle("a file")),
        Kind::Memfd => return Err(Error::InvalidHandle("memory")),
        Kind::Directory => return Err(Error::InvalidHandle("a directory")),
        Kind::CharDevice => return Err(Error::InvalidHandle("a terminal or another device")),
        Kind::Pipe => return Err(Error::InvalidHandle("a pipe")),
        Kind::UnixDatagram | Kind::UnixSeqpacket => {
            return Err(Error::InvalidHandle("a Unix socket of packets"));
        }
        _ => return Err(Error::InvalidHandle("no socket that Node knows")),
    })
}
