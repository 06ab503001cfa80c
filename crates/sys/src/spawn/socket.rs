//! Opening a socket with the rights of another user: a child does it, and sends the socket back.
//!
//! The kernel then decides as it would for that user: about low ports, about folders and their
//! files, and about a group of `SO_REUSEPORT`, which belongs to one user.

use std::borrow::Cow;
use std::ffi::{CString, c_int};
use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::ptr;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::{SockaddrLike, SockaddrStorage, UnixAddr};

use super::child::socket::{REPLY, SocketProgram};
use super::engine::spawn;
use super::plan::{Attributes, Descriptor, Plan, Source};
use crate::scm::{self, RecvFlags};
use crate::signal::Signal;
use crate::{poll, socket};

/// The socket to open, for [`open_socket`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SocketOrder<'a> {
    /// The address.
    pub address: SocketName<'a>,
    /// Whether the socket is for datagrams. Otherwise it is for streams, non-blocking, and listens.
    pub datagram: bool,
    /// The backlog of a socket that listens.
    pub backlog: u32,
    /// For UDP: sets `SO_REUSEADDR`.
    pub reuse_address: bool,
    /// The place of a TCP socket in a group of `SO_REUSEPORT`.
    pub member: Member,
    /// The bits of the mode of a socket's file that the mask of this process does not clear.
    pub mode: u32,
}

/// The address of a socket that [`open_socket`] opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SocketName<'a> {
    /// TCP or UDP.
    Ip {
        /// Address and port.
        address: SocketAddr,
        /// For IPv6: no IPv4.
        v6_only: bool,
    },
    /// A file with this absolute path. The child opens the folder, so the folder's path may be long.
    /// A stale file of the child's user is replaced.
    Path(&'a Path),
    /// A name in the abstract namespace, without the leading zero.
    Abstract(&'a [u8]),
}

/// The place of a TCP socket in a group of `SO_REUSEPORT`: see [`crate::reuse_port`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Member {
    /// The socket is in no group.
    #[default]
    None,
    /// The socket is the first of a group, and joins no group of another program.
    First,
    /// The socket joins the group.
    Next,
}

/// A socket that a child has opened.
#[derive(Debug)]
pub struct OpenedSocket {
    /// The socket.
    pub socket: OwnedFd,
    /// The folder of its file, if it has one, as the child found it: opened with `O_PATH`.
    pub folder: Option<OwnedFd>,
}

/// Opens a socket in a child with these attributes, which exits at once.
///
/// The calling thread waits for the child, at most `within`. Signals to the child do not change that:
/// a child that is stopped is killed at the end of the time.
///
/// # Errors
///
/// The errors of `socket(2)`, `bind(2)` and `listen(2)` for a process with these attributes, and
/// those of a [spawn](spawn()); `ETIMEDOUT`; `ECANCELED` when the child was killed; `EINVAL` for a
/// path without a folder or a name.
pub fn open_socket(
    order: &SocketOrder<'_>,
    attributes: &Attributes,
    within: Duration,
) -> io::Result<OpenedSocket> {
    let memory = Arc::new(Memory::new(order)?);
    let (ours, theirs) = socket::pair_seqpacket()?;
    let mut plan = Plan::new(Vec::new(), Vec::new());
    plan.attributes = Cow::Borrowed(attributes);
    let standard = (0..3).map(|number| Descriptor { number, source: Source::Null });
    let reply = Descriptor { number: REPLY as u32, source: Source::Fd(theirs.as_fd()) };
    plan.descriptors = standard.chain([reply]).collect();
    plan.socket = Some(memory.program(order));
    plan.start_within = within;
    let child = spawn(&plan)?;
    drop(plan);
    // The end of a child that was killed is then the end of the conversation.
    drop(theirs);
    let is_sent = poll::readable(ours.as_fd(), Some(within))?;
    if !is_sent {
        let _ = child.pidfd.send_signal(Signal::KILL);
    }
    // Ends at once: the child has sent its reply, or is killed.
    child.pidfd.wait_child(child.pid)?;
    if !is_sent {
        return Err(io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    let flags = RecvFlags { dont_wait: true, peek: false };
    let received = scm::recv(ours.as_fd(), &mut [0], 2, flags)?;
    let failed = |errno| Err(io::Error::from_raw_os_error(errno));
    if received.bytes == 0 {
        return failed(libc::ECANCELED);
    }
    let mut descriptors = received.fds.into_iter();
    match (descriptors.next(), descriptors.next()) {
        (Some(socket), folder) if folder.is_some() == memory.folder.is_some() => {
            Ok(OpenedSocket { socket, folder })
        }
        // This process can open no more.
        _ => failed(libc::EMFILE),
    }
}

/// The memory to which the pointers of a [`SocketProgram`] lead.
struct Memory {
    folder: Option<CString>,
    name: Option<CString>,
    address: Address,
}

enum Address {
    Ip(SockaddrStorage),
    Unix(UnixAddr),
}

impl Memory {
    fn new(order: &SocketOrder<'_>) -> io::Result<Self> {
        let invalid = || io::Error::from_raw_os_error(libc::EINVAL);
        Ok(match order.address {
            SocketName::Ip { address, .. } => {
                Self { folder: None, name: None, address: Address::Ip(address.into()) }
            }
            SocketName::Abstract(name) => {
                let address = Address::Unix(UnixAddr::new_abstract(name)?);
                Self { folder: None, name: None, address }
            }
            SocketName::Path(path) => {
                let (folder, name) = path.parent().zip(path.file_name()).ok_or_else(invalid)?;
                let address = Address::Unix(UnixAddr::new(name)?);
                let c_string = |text: &std::ffi::OsStr| CString::new(text.as_encoded_bytes());
                let folder = c_string(folder.as_os_str()).map_err(|_| invalid())?;
                let name = c_string(name).map_err(|_| invalid())?;
                Self { folder: Some(folder), name: Some(name), address }
            }
        })
    }

    /// Returns the child's view of the order, which keeps this memory.
    fn program(self: &Arc<Self>, order: &SocketOrder<'_>) -> SocketProgram {
        let on = |level, name| Some([level, name, 1]);
        let (family, [first, second, third]) = match order.address {
            SocketName::Ip { address, v6_only } => {
                let family = if address.is_ipv4() { libc::AF_INET } else { libc::AF_INET6 };
                let stream = !order.datagram;
                let reuse = stream || order.reuse_address;
                let options = [
                    on(libc::SOL_SOCKET, libc::SO_REUSEADDR).filter(|_| reuse),
                    on(libc::IPPROTO_TCP, libc::TCP_NODELAY).filter(|_| stream),
                    Some([libc::IPPROTO_IPV6, libc::IPV6_V6ONLY, c_int::from(v6_only)])
                        .filter(|_| address.is_ipv6()),
                ];
                (family, options)
            }
            SocketName::Path(_) | SocketName::Abstract(_) => (libc::AF_UNIX, [None; 3]),
        };
        let reuse_port = on(libc::SOL_SOCKET, libc::SO_REUSEPORT);
        let next = reuse_port.filter(|_| order.member == Member::Next);
        let (address, address_bytes) = match &self.address {
            Address::Ip(address) => (address.as_ptr(), address.len()),
            Address::Unix(address) => (address.as_ptr().cast(), address.len()),
        };
        let kind =
            if order.datagram { libc::SOCK_DGRAM } else { libc::SOCK_STREAM | libc::SOCK_NONBLOCK };
        let backlog = c_int::try_from(order.backlog).unwrap_or(c_int::MAX);
        let pointer = |text: &Option<CString>| text.as_ref().map_or(ptr::null(), |it| it.as_ptr());
        SocketProgram {
            folder: pointer(&self.folder),
            name: pointer(&self.name),
            family,
            kind: kind | libc::SOCK_CLOEXEC,
            before: [first, second, third, next],
            // After `listen`: with the option set before, `bind` would join a group that listens.
            after: reuse_port.filter(|_| order.member == Member::First),
            address,
            address_bytes,
            mode: order.mode & 0o777,
            backlog: if order.datagram { -1 } else { backlog },
            memory: self.clone(),
        }
    }
}

#[cfg(test)]
mod tests;
