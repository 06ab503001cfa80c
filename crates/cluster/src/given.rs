//! Sockets that were bound before the primary came: given by its user, or by systemd.
//!
//! Workers ask for one by its address or by its name. It stays open as long as the primary lives,
//! so that nobody is refused while no worker listens.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use crate::address::Address;
use crate::bind::{Bound, adopt};
use crate::error::Error;

#[derive(Debug, Default)]
pub(crate) struct Given(Vec<(String, Bound)>);

impl Given {
    /// Those of the user, and those of systemd where nobody has taken them yet.
    ///
    /// One of systemd's that is no socket for a server is left out: it is not meant for us.
    pub(crate) fn collect(sockets: &[(String, Arc<OwnedFd>)]) -> Result<Self, Error> {
        let mut given = Self::default();
        for (name, socket) in sockets {
            let added = socket.try_clone().and_then(|socket| given.add(name.clone(), socket));
            added.map_err(|error| Error::Listen(Address::Given(name.clone()), error))?;
        }
        for (name, socket) in sys::startup::listen_sockets() {
            let _ = given.add(name, socket);
        }
        Ok(given)
    }

    /// Takes a socket, which has to be bound and, for streams, to listen.
    fn add(&mut self, name: String, socket: OwnedFd) -> io::Result<()> {
        self.0.push((name, adopt(socket)?));
        Ok(())
    }

    /// Puts the address in the place of a name.
    pub(crate) fn resolve(&self, address: &mut Address) {
        if let Address::Given(name) = address {
            if let Some((_, bound)) = self.0.iter().find(|(known, _)| known == name) {
                *address = bound.address.clone();
            }
        }
    }

    /// A duplicate of the socket with this address.
    pub(crate) fn at(&self, address: &Address) -> Option<io::Result<Bound>> {
        let (_, bound) = self.0.iter().find(|(_, bound)| bound.address == *address)?;
        let copy = |socket| Bound { socket, address: address.clone(), file: None };
        Some(bound.socket.try_clone().map(copy))
    }
}
