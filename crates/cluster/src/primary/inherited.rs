//! The inherited sockets: bound before the primary started, and passed by its user or by systemd.
//!
//! A worker requests a socket by its address or its name, a Node worker also by its descriptor
//! number. A socket stays open as long as the primary lives, so that no client is refused while no
//! worker listens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::bind::{Bound, adopt};
use crate::error::Error;
use crate::listen_rules::GivenSocket;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

/// All inherited sockets of a primary.
#[derive(Debug, Default)]
pub(crate) struct InheritedSockets(Vec<InheritedSocket>);

#[derive(Debug)]
struct InheritedSocket {
    /// `None` for a socket that was found by its number.
    name: Option<String>,
    number: i32,
    bound: Bound,
}

impl InheritedSockets {
    /// Collects the sockets of the user, and those of systemd unless another primary of this
    /// process has them.
    ///
    /// A descriptor from systemd that is no socket for a server is left out, because it is not
    /// meant for the primary.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] when a socket of the user is no socket for a server.
    pub(crate) fn collect(sockets: &[(String, Arc<OwnedFd>)]) -> Result<Self, Error> {
        let mut inherited = Self::default();
        for (name, socket) in sockets {
            let number = sys::fd::number(socket.as_fd());
            let copy = socket.try_clone();
            let added = copy.and_then(|copy| inherited.add(Some(name.clone()), number, copy));
            added.map_err(|error| Error::Listen {
                address: Address::Inherited(name.clone()),
                source: error,
            })?;
        }
        for (name, socket) in sys::startup::listen_sockets() {
            let number = sys::fd::number(socket.as_fd());
            let _ = inherited.add(Some(name), number, socket);
        }
        Ok(inherited)
    }

    /// Adds a socket, which must be bound. A stream socket must also listen.
    fn add(&mut self, name: Option<String>, number: i32, socket: OwnedFd) -> io::Result<()> {
        self.0.push(InheritedSocket { name, number, bound: adopt(socket)? });
        Ok(())
    }

    /// Replaces the name of an inherited socket by its address.
    pub(crate) fn resolve(&self, address: &mut Address) {
        if let Address::Inherited(name) = address {
            if let Some(socket) = self.0.iter().find(|it| it.name.as_ref() == Some(name)) {
                *address = socket.bound.address.clone();
            }
        }
    }

    /// Returns the name and number of the socket with this address.
    pub(crate) fn given_at(&self, address: &Address) -> Option<GivenSocket> {
        let socket = self.0.iter().find(|it| it.bound.address == *address)?;
        Some(GivenSocket { name: socket.name.clone(), number: socket.number })
    }

    /// Whether a socket with this number was passed to the primary for its workers.
    pub(crate) fn has_number(&self, number: i32) -> bool {
        self.0.iter().any(|it| it.number == number && it.name.is_some())
    }

    /// Returns the address of the socket with this descriptor number: an inherited socket, or one
    /// with which this process was started and which any program that it executes would inherit.
    /// A stream socket listens from then on.
    ///
    /// # Errors
    ///
    /// `EINVAL` when there is no such socket, or when `datagrams` does not match its kind.
    pub(crate) fn numbered(
        &mut self,
        number: i32,
        options: &ListenOptions,
        datagrams: bool,
    ) -> io::Result<Address> {
        let invalid = || io::Error::from_raw_os_error(sys::errno::EINVAL);
        if !self.0.iter().any(|it| it.number == number) {
            // Node reports nothing else for a descriptor that is no such socket.
            let socket = sys::startup::inheritable(number).map_err(|_| invalid())?;
            // Fails for a datagram socket, which does not listen.
            let _ = sys::socket::listen(socket.as_fd(), options.backlog);
            self.add(None, number, socket).map_err(|_| invalid())?;
        }
        let socket = self.0.iter().find(|it| it.number == number);
        let address = socket.expect("it was found or added").bound.address.clone();
        if address.is_datagram() == datagrams { Ok(address) } else { Err(invalid()) }
    }

    /// Returns a duplicate of the socket with this address.
    pub(crate) fn at(&self, address: &Address) -> Option<io::Result<Bound>> {
        let bound = &self.0.iter().find(|it| it.bound.address == *address)?.bound;
        let copy = |socket| Bound { socket, address: address.clone(), file: None };
        Some(bound.socket.try_clone().map(copy))
    }
}
