//! Sockets that were bound before the primary came: given by its user, or by systemd.
//!
//! Workers ask for one by its address or by its name, Node's also by the number it had when it was
//! given. It stays open as long as the primary lives, so that nobody is refused while no worker
//! listens.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::bind::{Bound, adopt};
use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

#[derive(Debug, Default)]
pub(crate) struct InheritedSockets(Vec<One>);

#[derive(Debug)]
struct One {
    /// None for one that was found by its number.
    name: Option<String>,
    number: i32,
    bound: Bound,
}

impl InheritedSockets {
    /// Those of the user, and those of systemd where nobody has taken them yet.
    ///
    /// One of systemd's that is no socket for a server is left out: it is not meant for us.
    pub(crate) fn collect(sockets: &[(String, Arc<OwnedFd>)]) -> Result<Self, Error> {
        let mut inherited = Self::default();
        for (name, socket) in sockets {
            let number = sys::fd::number(socket.as_fd());
            let copy = socket.try_clone();
            let added = copy.and_then(|copy| inherited.add(Some(name.clone()), number, copy));
            added.map_err(|error| Error::Listen(Address::Inherited(name.clone()), error))?;
        }
        for (name, socket) in sys::startup::listen_sockets() {
            let number = sys::fd::number(socket.as_fd());
            let _ = inherited.add(Some(name), number, socket);
        }
        Ok(inherited)
    }

    /// Takes a socket, which has to be bound and, for streams, to listen.
    fn add(&mut self, name: Option<String>, number: i32, socket: OwnedFd) -> io::Result<()> {
        self.0.push(One { name, number, bound: adopt(socket)? });
        Ok(())
    }

    /// Puts the address in the place of a name.
    pub(crate) fn resolve(&self, address: &mut Address) {
        if let Address::Inherited(name) = address {
            if let Some(one) = self.0.iter().find(|one| one.name.as_ref() == Some(name)) {
                *address = one.bound.address.clone();
            }
        }
    }

    /// The address of the socket with this number: of one that was given, or of one that this
    /// process was started with and would hand on to any program. One for connections listens
    /// from then on.
    ///
    /// # Errors
    ///
    /// `EINVAL` when there is no such socket, or when it is for datagrams and `datagrams` is not
    /// set, or the other way round.
    pub(crate) fn numbered(
        &mut self,
        number: i32,
        options: &ListenOptions,
        datagrams: bool,
    ) -> io::Result<Address> {
        let invalid = || io::Error::from_raw_os_error(sys::errno::EINVAL);
        if !self.0.iter().any(|one| one.number == number) {
            // All that Node says of one that is no such socket.
            let socket = sys::startup::inheritable(number).map_err(|_| invalid())?;
            // Fails for datagrams, which need not.
            let _ = sys::socket::listen(socket.as_fd(), options.backlog);
            self.add(None, number, socket).map_err(|_| invalid())?;
        }
        let one = self.0.iter().find(|one| one.number == number);
        let address = one.expect("just looked for, or added").bound.address.clone();
        if address.is_datagram() == datagrams { Ok(address) } else { Err(invalid()) }
    }

    /// A duplicate of the socket with this address.
    pub(crate) fn at(&self, address: &Address) -> Option<io::Result<Bound>> {
        let bound = &self.0.iter().find(|one| one.bound.address == *address)?.bound;
        let copy = |socket| Bound { socket, address: address.clone(), file: None };
        Some(bound.socket.try_clone().map(copy))
    }
}
