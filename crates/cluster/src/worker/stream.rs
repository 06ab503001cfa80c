//! The kinds of streams that listeners give.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsFd, OwnedFd};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr as UnixSocketAddr, UnixStream};

use crate::protocol::address::Address;
use crate::protocol::record::no_address;

/// A kind of stream that a [`Listener`](crate::Listener) gives: [`TcpStream`] or [`UnixStream`].
pub trait Stream: private::Sealed + From<OwnedFd> + AsFd + Send + 'static {}

impl Stream for TcpStream {}
impl Stream for UnixStream {}

pub(crate) mod private {
    use super::{Address, SocketAddr, io};

    /// What the crate has to know of a stream.
    pub trait Sealed: Sized {
        /// What is told of the other end.
        type Peer: Send;
        /// What it is accepted at.
        const WHAT: &'static str;
        /// It is accepted at such an address.
        fn serves(address: &Address) -> bool;
        /// Who is at the other end; `known` came with the connection.
        fn peer(&self, known: Option<SocketAddr>) -> io::Result<Self::Peer>;
        /// This end's address as the peer's type.
        fn local(address: &Address) -> io::Result<Self::Peer>;
    }
}

impl private::Sealed for TcpStream {
    type Peer = SocketAddr;
    const WHAT: &'static str = "a TCP address";

    fn serves(address: &Address) -> bool {
        matches!(address, Address::Tcp { .. })
    }

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

impl private::Sealed for UnixStream {
    type Peer = UnixSocketAddr;
    const WHAT: &'static str = "a Unix stream address";

    fn serves(address: &Address) -> bool {
        matches!(address, Address::UnixPath(_) | Address::UnixAbstract(_))
    }

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
