//! Several TCP sockets that listen on one port: `SO_REUSEPORT` of `socket(7)`.
//!
//! The kernel dispatches new connections to the members by a hash of both addresses. A connection
//! belongs to its member from its first packet on: only that member accepts it, and the connection
//! is reset when the last descriptor of that member is closed.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::sys::socket::{self as ns, sockopt};

use crate::fd::cvt;
use crate::socket::{listen, listen_tcp, stream_socket};

/// Opens the first `SO_REUSEPORT` listener of an address: non-blocking, close-on-exec, with
/// `TCP_NODELAY` set. [`bind_next`] adds members.
///
/// A plain `SO_REUSEPORT` socket also joins listeners of other programs. This one does not: a port
/// with any listener, in a group or not, is in use.
///
/// # Errors
///
/// As [`socket::listen_tcp`](crate::socket::listen_tcp).
pub fn bind_first(addr: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<OwnedFd> {
    let socket = listen_tcp(addr, backlog, v6_only)?;
    // After `listen`: with the option set before, `bind` would join a group that already listens.
    ns::setsockopt(&socket, sockopt::ReusePort, &true)?;
    Ok(socket)
}

/// Binds another `SO_REUSEPORT` listener to an address opened with [`bind_first`]. The listener has
/// a backlog of its own and is otherwise set up as the first.
///
/// # Errors
///
/// `EADDRINUSE` when a socket that does not share the address has it; otherwise as
/// [`socket::listen_tcp`](crate::socket::listen_tcp).
pub fn bind_next(addr: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(addr, v6_only)?;
    ns::setsockopt(&socket, sockopt::ReusePort, &true)?;
    ns::bind(socket.as_raw_fd(), &ns::SockaddrStorage::from(addr))?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// Counts the connections that wait to be accepted from a TCP listener.
///
/// For a socket that listens, `tcpi_unacked` of `TCP_INFO` is this count. See `tcp(7)`.
///
/// # Errors
///
/// `EOPNOTSUPP` or `ENOPROTOOPT` for a socket of another kind.
pub fn unaccepted(listener: BorrowedFd<'_>) -> io::Result<u32> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut bytes = mem::size_of::<libc::tcp_info>() as libc::socklen_t;
    let value = info.as_mut_ptr().cast();
    let (level, name) = (libc::IPPROTO_TCP, libc::TCP_INFO);
    // SAFETY: `value` is valid for writes of `bytes` bytes, and both live on this stack.
    cvt(unsafe { libc::getsockopt(listener.as_raw_fd(), level, name, value, &raw mut bytes) })?;
    // SAFETY: numbers only, all zero before the kernel wrote some of them.
    Ok(unsafe { info.assume_init() }.tcpi_unacked)
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;
    use crate::socket::{accept, local_address};

    #[test]
    fn members_share_a_port_that_strangers_cannot_have() {
        for text in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(first) = bind_first(text.parse().unwrap(), 128, true) else {
                assert!(text.starts_with('['), "there is no IPv6");
                continue;
            };
            let address = local_address(first.as_fd()).unwrap();
            let strangers = || {
                for taken in [listen_tcp(address, 1, true), bind_first(address, 1, true)] {
                    assert_eq!(taken.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
                }
            };
            strangers();
            let mut members = vec![first];
            members.extend((0..2).map(|_| bind_next(address, 128, true).unwrap()));
            strangers();
            let clients: Vec<_> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
            let counts = members.iter().map(|member| unaccepted(member.as_fd()).unwrap());
            let counts: Vec<_> = counts.collect();
            assert_eq!(counts.iter().sum::<u32>(), 60);
            assert!(counts.iter().all(|count| *count > 0), "{counts:?}");
            accept(members[0].as_fd()).unwrap();
            assert_eq!(unaccepted(members[0].as_fd()).unwrap(), counts[0] - 1);
            drop(clients);
        }
        let (pair, _) = crate::socket::pair_stream().unwrap();
        unaccepted(pair.as_fd()).unwrap_err();
    }
}
