//! Several TCP sockets that listen on one port: `SO_REUSEPORT` of `socket(7)`.
//!
//! The kernel deals new connections to the members by a hash of both addresses. A connection
//! belongs to its member from its first packet on: it is accepted there and nowhere else, and reset
//! when the last descriptor of that member is closed.

use crate::fd::cvt;
use crate::socket::{listen, listen_tcp, stream_socket};
use nix::sys::socket::{self as ns, sockopt};
use std::io;
use std::mem::{self, MaybeUninit};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Opens the first listener at an address that others will [`join`]: non-blocking, close-on-exec,
/// with `TCP_NODELAY` set.
///
/// Unlike a plain `SO_REUSEPORT` socket it does not slip in beside strangers: a port that
/// anybody listens on, in a group or not, is in use.
///
/// # Errors
///
/// As [`socket::listen_tcp`](crate::socket::listen_tcp).
pub fn found(addr: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<OwnedFd> {
    let socket = listen_tcp(addr, backlog, v6_only)?;
    // Only now: to one that listens, others of its kind are strangers.
    ns::setsockopt(&socket, sockopt::ReusePort, &true)?;
    Ok(socket)
}

/// Opens one more listener at an address that was [`found`]ed, with a backlog of its own, and all
/// else as there.
///
/// # Errors
///
/// `EADDRINUSE` when somebody has the address who does not share it; otherwise as
/// [`socket::listen_tcp`](crate::socket::listen_tcp).
pub fn join(addr: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(addr, v6_only)?;
    ns::setsockopt(&socket, sockopt::ReusePort, &true)?;
    ns::bind(socket.as_raw_fd(), &ns::SockaddrStorage::from(addr))?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// Counts the connections that wait to be accepted from a TCP listener. See `TCP_INFO` in `tcp(7)`,
/// whose `tcpi_unacked` this is of a socket that listens.
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
    use super::*;
    use crate::socket::{accept, local_address};
    use std::net::TcpStream;

    #[test]
    fn members_share_a_port_that_strangers_cannot_have() {
        for text in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(first) = found(text.parse().unwrap(), 128, true) else {
                assert!(text.starts_with('['), "there is no IPv6");
                continue;
            };
            let address = local_address(first.as_fd()).unwrap();
            let strangers = || {
                for taken in [listen_tcp(address, 1, true), found(address, 1, true)] {
                    assert_eq!(taken.unwrap_err().raw_os_error(), Some(libc::EADDRINUSE));
                }
            };
            strangers();
            let mut members = vec![first];
            members.extend((0..2).map(|_| join(address, 128, true).unwrap()));
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
