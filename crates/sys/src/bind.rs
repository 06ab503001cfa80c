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

/// The name of a Unix socket.
#[derive(Clone, Copy, Debug)]
pub enum UnixName<'a> {
    /// The path of a socket file.
    Path(&'a Path),
    /// A name in the abstract namespace, without the leading zero.
    Abstract(&'a [u8]),
}

impl UnixName<'_> {
    fn address(self) -> io::Result<UnixAddr> {
        Ok(match self {
            Self::Path(path) => UnixAddr::new(path)?,
            Self::Abstract(name) => UnixAddr::new_abstract(name)?,
        })
    }
}

/// Binds a Unix stream socket, non-blocking. [`socket::listen`](crate::socket::listen) makes it
/// listen.
///
/// # Errors
///
/// `EADDRINUSE`, also when the path exists; `ENAMETOOLONG`, `ENOENT`, `EACCES`, `EROFS`, and the
/// other errors of `bind(2)`.
pub fn unix_stream(name: UnixName<'_>) -> io::Result<OwnedFd> {
    unix(SockType::Stream, SockFlag::SOCK_NONBLOCK, name)
}

/// Binds a Unix datagram socket, blocking.
///
/// # Errors
///
/// As [`unix_stream`].
pub fn unix_datagram(name: UnixName<'_>) -> io::Result<OwnedFd> {
    unix(SockType::Datagram, SockFlag::empty(), name)
}

fn unix(kind: SockType, flags: SockFlag, name: UnixName<'_>) -> io::Result<OwnedFd> {
    let address = name.address()?;
    let flags = flags | SockFlag::SOCK_CLOEXEC;
    let socket = above_standard(ns::socket(AddressFamily::Unix, kind, flags, None)?);
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
    let address = UnixName::Path(path).address()?;
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
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn a_socket_file_is_stale_when_no_socket_is_bound_to_it() {
        let folder = std::env::temp_dir().join(format!("brood-stale-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let path = folder.join("s");
        let name = UnixName::Path(&path);
        let stream = unix_stream(name).unwrap();
        assert!(is_stale(&path).unwrap(), "a bound socket that does not listen is as good as none");
        crate::socket::listen(stream.as_fd(), 0).unwrap();
        assert!(!is_stale(&path).unwrap());
        // The connection of the first check still fills the backlog.
        assert!(!is_stale(&path).unwrap(), "its backlog is full");
        let taken = unix_datagram(name).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
        drop(stream);
        assert!(is_stale(&path).unwrap());
        std::fs::remove_file(&path).unwrap();
        let _datagram = unix_datagram(name).unwrap();
        assert!(!is_stale(&path).unwrap());
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_is_an_error_with_its_own_number() {
        let long = "x".repeat(PATH_BYTES_MAX + 1);
        let error = unix_stream(UnixName::Path(Path::new(&long))).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENAMETOOLONG));
    }

    #[test]
    fn abstract_names_leave_no_file_and_are_bound_once() {
        let name = format!("brood-test-{}", std::process::id());
        let name = UnixName::Abstract(name.as_bytes());
        let _held = unix_stream(name).unwrap();
        let taken = unix_stream(name).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
    }
}
