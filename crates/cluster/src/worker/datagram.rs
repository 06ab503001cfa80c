//! Datagram sockets that all workers share.

use std::net::UdpSocket;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use crate::protocol::address::Address;
use crate::worker::address_kind::AddressKind;
use crate::worker::registration::Registration;

/// A type of datagram socket that workers can share: [`UdpSocket`] or [`UnixDatagram`].
///
/// The trait is sealed: other crates cannot implement it.
pub trait Datagram: sealed::Sealed + From<OwnedFd> + AsFd {}

impl Datagram for UdpSocket {}
impl Datagram for UnixDatagram {}

pub(crate) mod sealed {
    use super::{AddressKind, UdpSocket, UnixDatagram};

    pub trait Sealed: AddressKind {}

    impl Sealed for UdpSocket {}
    impl Sealed for UnixDatagram {}
}

impl AddressKind for UdpSocket {
    const KIND: &'static str = "a UDP address";

    fn fits(address: &Address) -> bool {
        matches!(address, Address::Udp { .. })
    }
}

impl AddressKind for UnixDatagram {
    const KIND: &'static str = "a Unix datagram address";

    fn fits(address: &Address) -> bool {
        matches!(address, Address::DatagramPath(_) | Address::DatagramAbstract(_))
    }
}

/// A bound datagram socket, shared by all workers that requested its address.
///
/// The kernel gives each datagram to one worker, the first that reads. `BoundSocket` dereferences
/// to the socket type of the standard library.
///
/// `O_NONBLOCK` belongs to the shared socket, and so to all workers at once: all of them should
/// set it the same way. Under a Node primary, and beside Node workers, the socket does not block,
/// because Node polls it.
///
/// `drop` closes this worker's descriptor and notifies the primary. The primary closes the socket
/// after the last worker, and removes the file of a Unix socket then.
///
/// ```
/// use brood_cluster::{BoundSocket, ListenOptions};
/// use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
///
/// let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
/// let socket: BoundSocket<UdpSocket> = ListenOptions::new().bind_datagram(address)?;
/// socket.send_to(b"hello", socket.local_addr()?)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct BoundSocket<S> {
    registration: Registration,
    socket: S,
}

impl<S: Datagram> BoundSocket<S> {
    pub(crate) fn new(registration: Registration, socket: S) -> Self {
        Self { registration, socket }
    }

    /// Returns the address of the socket. If the request was for port 0, this is the actual port.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.registration.address()
    }

    /// Returns the [data](crate::ListenOptions::data) of the first worker that bound the address.
    #[must_use]
    pub fn data(&self) -> Option<&[u8]> {
        self.registration.data()
    }
}

impl<S> Deref for BoundSocket<S> {
    type Target = S;

    fn deref(&self) -> &S {
        &self.socket
    }
}

impl<S: AsFd> AsFd for BoundSocket<S> {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
