//! The types of streams that listeners return.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixStream};

use crate::protocol::address::Address;
use crate::protocol::record::no_address;
use crate::worker::address_kind::AddressKind;

/// A stream type that a [`Listener`](crate::Listener) can return: [`TcpStream`] or
/// [`UnixStream`].
///
/// The trait is sealed: other crates cannot implement it.
pub trait Stream: private::Sealed + From<OwnedFd> + AsFd + Send + 'static {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

pub(crate) mod private {
    use super::{Address, AddressKind, SocketAddr, io};

    /// The properties of a stream type that listeners need.
    pub trait Sealed: AddressKind + Sized {
        /// The type of the peer's address.
        type Peer: Send + std::fmt::Debug;
        /// Returns the peer's address; `known` is the address that arrived with the connection.
        fn peer(&self, known: Option<SocketAddr>) -> io::Result<Self::Peer>;
        /// Converts the listener's address to the type of the peer's.
        fn local(address: &Address) -> io::Result<Self::Peer>;
    }
}

impl AddressKind for TcpStream {
    const KIND: &'static str = "a TCP address";

    fn fits(address: &Address) -> bool {
        matches!(address, Address::Tcp { .. })
    }
}

impl private::Sealed for TcpStream {
    type Peer = SocketAddr;

    fn peer(&self, known: Option<SocketAddr>) -> io::Result<SocketAddr> {
        Ok(known.unwrap_or_else(no_address))
    }

    fn local(address: &Address) -> io::Result<SocketAddr> {
        match address {
            Address::Tcp { address, .. } => Ok(*address),
            _ => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}

impl AddressKind for UnixStream {
    const KIND: &'static str = "a Unix stream address";

    fn fits(address: &Address) -> bool {
        matches!(address, Address::UnixPath(_) | Address::UnixAbstract(_))
    }
}

impl private::Sealed for UnixStream {
    type Peer = UnixSocketAddr;

    fn peer(&self, _known: Option<SocketAddr>) -> io::Result<UnixSocketAddr> {
        self.peer_addr()
    }

    fn local(address: &Address) -> io::Result<UnixSocketAddr> {
        match address {
            Address::UnixPath(path) => UnixSocketAddr::from_pathname(path),
            Address::UnixAbstract(name) => UnixSocketAddr::from_abstract_name(name),
            _ => Err(io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}
