//! Sockets: pairs, listeners, `accept`, and queries.
//!
//! Every socket created here is close-on-exec. Pairs are blocking and stay so: `O_NONBLOCK` belongs
//! to the open file description, which two processes may share. Listeners and accepted connections
//! are non-blocking, as readiness loops need them.

use std::io;
use std::mem::{self, MaybeUninit};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{self as ns, AddressFamily, SockFlag, SockType, sockopt};

use crate::fd::{above_standard, cvt, int_option};

/// Makes a connected pair of Unix stream sockets, blocking and close-on-exec.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn pair_stream() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SockType::Stream)
}

/// Makes a connected pair of Unix packet sockets (ordered, with record boundaries), blocking and
/// close-on-exec.
///
/// # Errors
///
/// `EMFILE` or `ENFILE` when no descriptor is left.
pub fn pair_seqpacket() -> io::Result<(OwnedFd, OwnedFd)> {
    pair(SockType::SeqPacket)
}

fn pair(kind: SockType) -> io::Result<(OwnedFd, OwnedFd)> {
    let (one, other) = ns::socketpair(AddressFamily::Unix, kind, None, SockFlag::SOCK_CLOEXEC)?;
    Ok((above_standard(one), above_standard(other)))
}

/// Opens a TCP listener: `SO_REUSEADDR`, non-blocking, close-on-exec. `TCP_NODELAY` is set, so that
/// accepted connections inherit it.
///
/// `v6_only` applies to IPv6 addresses only: with `false` the listener accepts IPv4 as well.
///
/// # Errors
///
/// `EADDRINUSE`, `EACCES`, `EADDRNOTAVAIL`, `EMFILE`, and the other errors of `socket(2)`,
/// `bind(2)` and `listen(2)`.
pub fn listen_tcp(addr: SocketAddr, backlog: u32, v6_only: bool) -> io::Result<OwnedFd> {
    let socket = stream_socket(addr, v6_only)?;
    ns::bind(socket.as_raw_fd(), &ns::SockaddrStorage::from(addr))?;
    listen(socket.as_fd(), backlog)?;
    Ok(socket)
}

/// Creates an unbound TCP socket for the family of `addr`.
pub(crate) fn stream_socket(addr: SocketAddr, v6_only: bool) -> io::Result<OwnedFd> {
    let family = if addr.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 };
    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let socket = above_standard(ns::socket(family, SockType::Stream, flags, None)?);
    ns::setsockopt(&socket, sockopt::ReuseAddr, &true)?;
    ns::setsockopt(&socket, sockopt::TcpNoDelay, &true)?;
    if addr.is_ipv6() {
        ns::setsockopt(&socket, sockopt::Ipv6V6Only, &v6_only)?;
    }
    Ok(socket)
}

/// Makes a bound socket listen. A socket that listens already gets the new backlog.
///
/// # Errors
///
/// `EADDRINUSE`, `EOPNOTSUPP`, and the other errors of `listen(2)`.
pub fn listen(socket: BorrowedFd<'_>, backlog: u32) -> io::Result<()> {
    let backlog = i32::try_from(backlog).unwrap_or(i32::MAX);
    // SAFETY: the call takes two integers and touches no memory of ours.
    cvt(unsafe { libc::listen(socket.as_raw_fd(), backlog) }).map(drop)
}

/// Accepts one connection, which is non-blocking and close-on-exec. A Unix peer has no address.
///
/// # Errors
///
/// `WouldBlock` when no connection waits; `ECONNABORTED` when the client has gone; `EMFILE` or
/// `ENFILE` when no descriptor is left (the connection stays in the backlog).
pub fn accept(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
    let address = storage.as_mut_ptr().cast::<libc::sockaddr>();
    let (number, older) = loop {
        // SAFETY: `address` is valid for writes of `length` bytes, and both live on this stack.
        match cvt(unsafe { libc::accept4(listener.as_raw_fd(), address, &raw mut length, flags) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // A sandbox may know only the older call.
            Err(error) if matches!(error.raw_os_error(), Some(libc::EPERM | libc::ENOSYS)) => {
                // SAFETY: as above.
                let taken = unsafe { libc::accept(listener.as_raw_fd(), address, &raw mut length) };
                match cvt(taken) {
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    other => break (other?, true),
                }
            }
            other => break (other?, false),
        }
    };
    // SAFETY: the kernel just returned this descriptor, so it is open and nothing else owns it.
    let socket = above_standard(unsafe { OwnedFd::from_raw_fd(number) });
    if older {
        crate::fd::set_close_on_exec(socket.as_fd(), true)?;
        set_nonblocking(socket.as_fd(), true)?;
    }
    // SAFETY: the storage was zeroed first, which is valid, and the kernel wrote an address over it.
    let storage = unsafe { storage.assume_init() };
    Ok((socket, to_address(&storage)))
}

/// Polls the listener, and accepts one connection if any waits. See [`accept`].
///
/// `accept4(2)` creates a socket, an inode and a descriptor before it notices an empty backlog, and
/// then discards them, which costs about ten times as much as the poll.
///
/// # Errors
///
/// As [`accept`].
pub fn accept_waiting(listener: BorrowedFd<'_>) -> io::Result<(OwnedFd, Option<SocketAddr>)> {
    match crate::poll::readable(listener, Some(Duration::ZERO)) {
        Ok(false) => Err(io::ErrorKind::WouldBlock.into()),
        // If polling fails, `accept` reports the reason.
        Ok(true) | Err(_) => accept(listener),
    }
}

/// Returns the number of bytes that wait to be read. See `FIONREAD` in `ioctl(2)`.
///
/// On a packet socket this is the sum over all waiting packets.
///
/// # Errors
///
/// `ENOTTY` or `EINVAL` when the descriptor has no such count.
pub fn unread_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: `FIONREAD` writes one integer, to which the pointer leads.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Returns the number of bytes that were sent here and not read by the peer. See `SIOCOUTQ` in
/// `unix(7)`.
///
/// # Errors
///
/// `ENOTTY` or `EINVAL` when the descriptor has no such count.
pub fn unsent_bytes(fd: BorrowedFd<'_>) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: `TIOCOUTQ` (the number of `SIOCOUTQ`) writes one integer, to which the pointer leads.
    cvt(unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCOUTQ, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Shuts down the sending direction: the peer reads the bytes sent so far and then end of file.
///
/// # Errors
///
/// `ENOTCONN` when there is no peer.
pub fn shutdown_write(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ns::shutdown(fd.as_raw_fd(), ns::Shutdown::Write)?)
}

/// Shuts down the receiving direction, for every process that holds the socket.
///
/// Bytes that were sent before can still be read. A Unix peer can send nothing more (`EPIPE`).
///
/// # Errors
///
/// `ENOTCONN` when there is no peer.
pub fn shutdown_read(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ns::shutdown(fd.as_raw_fd(), ns::Shutdown::Read)?)
}

/// Shuts down both directions, for every process that holds the socket.
///
/// # Errors
///
/// `ENOTCONN` when there is no peer.
pub fn shutdown_both(fd: BorrowedFd<'_>) -> io::Result<()> {
    Ok(ns::shutdown(fd.as_raw_fd(), ns::Shutdown::Both)?)
}

/// Stops new connections to a listening socket. Connections that are established can still be
/// accepted, as can TCP connections whose handshake is under way.
///
/// Closing a listening socket resets all of those instead, and one more can always arrive between
/// the last `accept` and the `close`. From this call on Unix clients are refused. TCP clients get
/// no answer: their kernel retries after a second, and reaches the socket that listens there by
/// then. The call affects every process that shares the socket and cannot be undone.
///
/// # Errors
///
/// The errors of `shutdown(2)` and `setsockopt(2)`; `ENOMEM` when the socket has no room for
/// options.
pub fn stop_connects(listener: BorrowedFd<'_>) -> io::Result<()> {
    if is_unix_stream(listener) {
        return Ok(ns::shutdown(listener.as_raw_fd(), ns::Shutdown::Read)?);
    }
    // The filter of a TCP socket sees each segment from the TCP header on; byte 13 has the flags.
    // A segment with SYN is dropped (0 bytes pass), every other one passes.
    let step = |code, jt, jf, k| libc::sock_filter { code, jt, jf, k };
    let mut program = [
        step((libc::BPF_LD | libc::BPF_B | libc::BPF_ABS) as u16, 0, 0, 13),
        step((libc::BPF_JMP | libc::BPF_JSET | libc::BPF_K) as u16, 0, 1, TCP_SYN),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, 0),
        step((libc::BPF_RET | libc::BPF_K) as u16, 0, 0, u32::MAX),
    ];
    let length = program.len() as u16;
    let filter = libc::sock_fprog { len: length, filter: program.as_mut_ptr() };
    let (level, name) = (libc::SOL_SOCKET, libc::SO_ATTACH_FILTER);
    let bytes = mem::size_of::<libc::sock_fprog>() as libc::socklen_t;
    let value = (&raw const filter).cast();
    // SAFETY: `value` points to `bytes` bytes that name `program`, and both live on this stack;
    // the kernel copies the program.
    cvt(unsafe { libc::setsockopt(listener.as_raw_fd(), level, name, value, bytes) }).map(drop)
}

/// The flag of the segment that opens a TCP connection.
const TCP_SYN: u32 = 0x02;

/// Returns the address to which a TCP or UDP socket is bound.
///
/// # Errors
///
/// `InvalidInput` when the socket is of another family; otherwise as `getsockname(2)`.
pub fn local_address(fd: BorrowedFd<'_>) -> io::Result<SocketAddr> {
    let mut storage = MaybeUninit::<libc::sockaddr_storage>::zeroed();
    let mut length = mem::size_of::<libc::sockaddr_storage>() as libc::socklen_t;
    let address = storage.as_mut_ptr().cast::<libc::sockaddr>();
    // SAFETY: `address` is valid for writes of `length` bytes, and both live on this stack.
    cvt(unsafe { libc::getsockname(fd.as_raw_fd(), address, &raw mut length) })?;
    // SAFETY: the storage was zeroed first, which is valid, and the kernel wrote an address over it.
    let storage = unsafe { storage.assume_init() };
    to_address(&storage).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

/// Returns whether `fd` is a Unix stream socket.
pub fn is_unix_stream(fd: BorrowedFd<'_>) -> bool {
    let family = int_option(fd, libc::SO_DOMAIN);
    let kind = int_option(fd, libc::SO_TYPE);
    matches!((family, kind), (Ok(libc::AF_UNIX), Ok(libc::SOCK_STREAM)))
}

/// Makes the kernel add nothing to what a Unix socket receives: no credentials, no pidfd and no
/// security label of the sender.
///
/// A connection inherits these settings from its listening socket. The settings belong to the
/// socket, so every holder of it is concerned. A kernel that does not know one of them never adds
/// it. See `unix(7)`.
pub fn refuse_credentials(socket: BorrowedFd<'_>) {
    for name in [libc::SO_PASSCRED, SO_PASSPIDFD, libc::SO_PASSSEC] {
        let _ = set_int_option(socket, name, 0);
    }
}

/// The option by which a Unix socket receives pidfds of its senders, from Linux 6.5 on.
const SO_PASSPIDFD: libc::c_int = 76;

/// Sets an option of `SOL_SOCKET` that is an integer.
pub(crate) fn set_int_option(
    socket: BorrowedFd<'_>,
    name: libc::c_int,
    number: libc::c_int,
) -> io::Result<()> {
    let bytes = mem::size_of::<libc::c_int>() as libc::socklen_t;
    let (level, value) = (libc::SOL_SOCKET, (&raw const number).cast());
    // SAFETY: `value` points to an integer of this length on this stack, which the kernel reads.
    cvt(unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, value, bytes) }).map(drop)
}

/// Sets or clears `O_NONBLOCK`, for every holder of the open file description.
///
/// # Errors
///
/// As `fcntl(2)`.
pub fn set_nonblocking(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    // SAFETY: the call takes integers and touches no memory of ours.
    let flags = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFL) })?;
    let wanted = if on { flags | libc::O_NONBLOCK } else { flags & !libc::O_NONBLOCK };
    if wanted != flags {
        // SAFETY: the call takes integers and touches no memory of ours.
        cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFL, wanted) })?;
    }
    Ok(())
}

fn to_address(storage: &libc::sockaddr_storage) -> Option<SocketAddr> {
    let start = &raw const *storage;
    match libc::c_int::from(storage.ss_family) {
        libc::AF_INET => {
            // SAFETY: the family says which struct this is, and the storage has room and
            // alignment for it.
            let v4 = unsafe { start.cast::<libc::sockaddr_in>().read() };
            let ip = Ipv4Addr::from(u32::from_be(v4.sin_addr.s_addr));
            Some(SocketAddrV4::new(ip, u16::from_be(v4.sin_port)).into())
        }
        libc::AF_INET6 => {
            // SAFETY: the family says which struct this is, and the storage has room and
            // alignment for it.
            let v6 = unsafe { start.cast::<libc::sockaddr_in6>().read() };
            let ip = Ipv6Addr::from(v6.sin6_addr.s6_addr);
            let port = u16::from_be(v6.sin6_port);
            Some(SocketAddrV6::new(ip, port, v6.sin6_flowinfo, v6.sin6_scope_id).into())
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::io::{IoSlice, Read, Write};
    use std::net::TcpStream;
    use std::os::fd::AsFd;

    use super::*;
    use crate::scm;

    #[test]
    fn new_clients_do_not_connect_and_connected_ones_are_accepted() {
        for text in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match listen_tcp(text.parse().unwrap(), 16, true) {
                // A container without IPv6 has nothing to test there.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => continue,
                other => other.unwrap(),
            };
            let address = local_address(listener.as_fd()).unwrap();
            let mut early = TcpStream::connect(address).unwrap();
            stop_connects(listener.as_fd()).unwrap();
            let late = TcpStream::connect_timeout(&address, std::time::Duration::from_millis(50));
            assert_eq!(late.unwrap_err().kind(), io::ErrorKind::TimedOut);
            early.write_all(b"x").unwrap();
            let (socket, _) = accept(listener.as_fd()).unwrap();
            set_nonblocking(socket.as_fd(), false).unwrap();
            let mut stream = TcpStream::from(socket);
            stream.read_exact(&mut [0]).unwrap();
            drop(listener);
            stream.write_all(b"y").unwrap();
            early.read_exact(&mut [0]).unwrap();
        }
    }

    #[test]
    fn new_unix_clients_are_refused_and_connected_ones_are_accepted() {
        let path = std::env::temp_dir().join(format!("brood-stop-{}", std::process::id()));
        let listener = std::os::unix::net::UnixListener::bind(&path).unwrap();
        let _early = std::os::unix::net::UnixStream::connect(&path).unwrap();
        stop_connects(listener.as_fd()).unwrap();
        let late = std::os::unix::net::UnixStream::connect(&path).unwrap_err();
        assert_eq!(late.kind(), io::ErrorKind::ConnectionRefused);
        std::fs::remove_file(&path).unwrap();
        accept(listener.as_fd()).unwrap();
        set_nonblocking(listener.as_fd(), true).unwrap();
        let nobody = accept(listener.as_fd()).unwrap_err();
        assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn accepted_connections_are_non_blocking_and_inherit_nodelay() {
        for text in ["127.0.0.1:0", "[::1]:0"] {
            let listener = match listen_tcp(text.parse().unwrap(), 16, true) {
                // A container without IPv6 has nothing to test there.
                Err(error) if error.raw_os_error() == Some(libc::EADDRNOTAVAIL) => continue,
                other => other.unwrap(),
            };
            for accept in [accept, accept_waiting] {
                let nobody = accept(listener.as_fd()).unwrap_err();
                assert_eq!(nobody.kind(), io::ErrorKind::WouldBlock);
            }
            let address = local_address(listener.as_fd()).unwrap();
            let mut client = TcpStream::connect(address).unwrap();
            use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
            let mut wait = [PollFd::new(listener.as_fd(), PollFlags::POLLIN)];
            assert_eq!(poll(&mut wait, PollTimeout::NONE), Ok(1));
            let (socket, from) = accept_waiting(listener.as_fd()).unwrap();
            assert_eq!(from, Some(client.local_addr().unwrap()));
            let mut stream = TcpStream::from(socket);
            assert!(stream.nodelay().unwrap());
            let empty = stream.read(&mut [0]).unwrap_err();
            assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
            client.write_all(b"x").unwrap();
        }
    }

    #[test]
    fn a_port_in_use_is_an_error_with_its_own_number() {
        let listener = listen_tcp("127.0.0.1:0".parse().unwrap(), 16, false).unwrap();
        let address = local_address(listener.as_fd()).unwrap();
        let taken = listen_tcp(address, 16, false).unwrap_err();
        assert_eq!(taken.raw_os_error(), Some(libc::EADDRINUSE));
    }

    #[test]
    fn waiting_bytes_are_counted_over_all_packets() {
        let (a, b) = pair_seqpacket().unwrap();
        assert_eq!(unread_bytes(b.as_fd()).unwrap(), 0);
        for _ in 0..3 {
            scm::send(a.as_fd(), &[IoSlice::new(&[7; 10])], &[]).unwrap();
        }
        assert_eq!(unread_bytes(b.as_fd()).unwrap(), 30);
    }

    #[test]
    fn a_unix_stream_is_recognised_among_other_sockets() {
        let (stream, _peer) = pair_stream().unwrap();
        let (packets, _other) = pair_seqpacket().unwrap();
        assert!(is_unix_stream(stream.as_fd()));
        assert!(!is_unix_stream(packets.as_fd()));
    }

    #[test]
    fn a_peer_cannot_send_after_shutdown_of_reading_and_sent_bytes_are_still_read() {
        let (a, b) = pair_seqpacket().unwrap();
        let copy = b.try_clone().unwrap();
        scm::send(a.as_fd(), &[IoSlice::new(b"last")], &[]).unwrap();
        shutdown_read(b.as_fd()).unwrap();
        drop(b);
        let refused = scm::send(a.as_fd(), &[IoSlice::new(b"late")], &[]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(crate::errno::EPIPE));
        let mut buf = [0; 8];
        let flags = scm::RecvFlags::default();
        assert_eq!(unread_bytes(copy.as_fd()).unwrap(), 4);
        assert_eq!(scm::recv(copy.as_fd(), &mut buf, 0, flags).unwrap().bytes, 4);
        assert_eq!(scm::recv(copy.as_fd(), &mut buf, 0, flags).unwrap().bytes, 0);
    }

    #[test]
    fn shutting_down_ends_the_stream_after_the_bytes_that_were_sent() {
        let (a, b) = pair_stream().unwrap();
        scm::send(a.as_fd(), &[IoSlice::new(b"last")], &[]).unwrap();
        shutdown_write(a.as_fd()).unwrap();
        let mut buf = [0; 8];
        let flags = scm::RecvFlags::default();
        assert_eq!(scm::recv(b.as_fd(), &mut buf, 0, flags).unwrap().bytes, 4);
        assert_eq!(scm::recv(b.as_fd(), &mut buf, 0, flags).unwrap().bytes, 0);
    }
}
