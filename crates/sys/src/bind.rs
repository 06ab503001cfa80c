//! Sockets bound to a name: Unix sockets, datagram sockets, and the state of a bound socket.
//!
//! Listeners are non-blocking, as in [`socket`](crate::socket). Datagram sockets are blocking,
//! because processes share them, and `O_NONBLOCK` would apply to all of those processes.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{self as ns, AddressFamily, SockFlag, SockType, UnixAddr, sockopt};

use crate::fd::above_standard;

/// The longest path to which a Unix socket can be bound, in bytes.
pub const PATH_BYTES_MAX: usize = 107;

/// The kind of a Unix socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnixKind {
    /// A stream socket, non-blocking. [`socket::listen`](crate::socket::listen) makes it listen.
    Stream,
    /// A datagram socket, blocking.
    Datagram,
}

impl UnixKind {
    pub(crate) fn socket_type(self) -> SockType {
        match self {
            Self::Stream => SockType::Stream,
            Self::Datagram => SockType::Datagram,
        }
    }

    pub(crate) fn flags(self) -> SockFlag {
        match self {
            Self::Stream => SockFlag::SOCK_NONBLOCK,
            Self::Datagram => SockFlag::empty(),
        }
    }
}

/// Binds a Unix socket to a name in the abstract namespace, given without the leading zero.
/// [`socket_file::bind`](crate::socket_file::bind) binds one to a path.
///
/// # Errors
///
/// `EADDRINUSE`; `ENAMETOOLONG` for more than 107 bytes; the other errors of `bind(2)`.
pub fn unix_abstract(kind: UnixKind, name: &[u8]) -> io::Result<OwnedFd> {
    let address = UnixAddr::new_abstract(name)?;
    let flags = kind.flags() | SockFlag::SOCK_CLOEXEC;
    let socket = ns::socket(AddressFamily::Unix, kind.socket_type(), flags, None)?;
    let socket = above_standard(socket);
    ns::bind(socket.as_raw_fd(), &address)?;
    Ok(socket)
}

/// Returns whether a socket file is left over from a process that is gone: no open socket is bound
/// to it.
///
/// # Errors
///
/// The errors of `socket(2)`; those of `connect(2)` that leave the question open.
pub fn is_stale(path: &Path) -> io::Result<bool> {
    let address = UnixAddr::new(path)?;
    for kind in [SockType::Stream, SockType::Datagram, SockType::SeqPacket] {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let socket = ns::socket(AddressFamily::Unix, kind, flags, None)?;
        match ns::connect(socket.as_raw_fd(), &address) {
            // A socket of another kind is bound to it.
            Err(Errno::EPROTOTYPE) => {}
            // A socket is bound, and with EAGAIN its backlog is full.
            Ok(()) | Err(Errno::EAGAIN) => return Ok(false),
            Err(Errno::ECONNREFUSED) => return Ok(true),
            Err(error) => return Err(error.into()),
        }
    }
    Ok(false)
}

/// Binds a UDP socket, blocking.
///
/// `reuse` sets `SO_REUSEADDR`. `v6_only` applies to IPv6 addresses only.
///
/// # Errors
///
/// `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, and the other errors of `socket(2)` and `bind(2)`.
pub fn udp(address: SocketAddr, v6_only: bool, reuse: bool) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let socket = ns::socket(family, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    let socket = above_standard(socket);
    if reuse {
        ns::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    }
    if address.is_ipv6() {
        ns::setsockopt(&socket, sockopt::Ipv6V6Only, &v6_only)?;
    }
    ns::bind(socket.as_raw_fd(), &ns::SockaddrStorage::from(address))?;
    Ok(socket)
}

/// Returns whether an IPv6 socket refuses IPv4; false for every other socket.
#[must_use]
pub fn is_v6_only(socket: BorrowedFd<'_>) -> bool {
    ns::getsockopt(&socket, sockopt::Ipv6V6Only).unwrap_or(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn abstract_names_leave_no_file_and_are_bound_once() {
        let name = format!("brood-test-{}", std::process::id());
        let _held = unix_abstract(UnixKind::Stream, name.as_bytes()).unwrap();
        let taken = unix_abstract(UnixKind::Stream, name.as_bytes()).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
        let long = unix_abstract(UnixKind::Datagram, &[b'x'; PATH_BYTES_MAX + 1]).unwrap_err();
        assert_eq!(long.raw_os_error(), Some(libc::ENAMETOOLONG));
    }
}
