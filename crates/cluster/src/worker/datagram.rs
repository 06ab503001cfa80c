//! Datagram sockets that all workers share.

use std::net::UdpSocket;
use std::ops::Deref;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use crate::protocol::address::Address;
use crate::worker::registration::Registration;

/// A kind of datagram socket: [`UdpSocket`] or [`UnixDatagram`].
pub trait Datagram: sealed::Sealed + From<OwnedFd> + AsFd {}

impl Datagram for UdpSocket {}
impl Datagram for UnixDatagram {}

pub(crate) mod sealed {
    use super::{Address, UdpSocket, UnixDatagram};

    pub trait Sealed {
        const WHAT: &'static str;
        fn serves(address: &Address) -> bool;
    }

    impl Sealed for UdpSocket {
        const WHAT: &'static str = "a UDP address";

        fn serves(address: &Address) -> bool {
            matches!(address, Address::Udp { .. })
        }
    }

    impl Sealed for UnixDatagram {
        const WHAT: &'static str = "a Unix datagram address";

        fn serves(address: &Address) -> bool {
            matches!(address, Address::DatagramPath(_) | Address::DatagramAbstract(_))
        }
    }
}

/// A bound datagram socket, the same in all workers that asked for its address: the kernel gives
/// each datagram to one of them, to whoever reads first.
///
/// It derefs to std's socket. Whether it blocks belongs to the socket and so to all workers at
/// once: set it the same way everywhere. Where Node is the primary or another of the workers it
/// does not block, because Node polls. `drop` closes this worker's descriptor and tells the
/// primary, which closes the socket after the last; the file of a Unix socket is removed then.
///
/// ```
/// let socket = cluster::bind_udp("127.0.0.1:0")?;
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

    /// The address, with the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.registration.address()
    }

    /// The [data](crate::ListenOptions::data) of the first that asked for the address.
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
