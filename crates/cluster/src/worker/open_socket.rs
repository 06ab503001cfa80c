//! How a socket is got: from the primary, or opened here.

use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::bind::bind;
use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::{LISTEN_DATA_BYTES_MAX, ListenOptions};
use crate::worker::Worker;
use crate::worker::datagram::{BoundSocket, Datagram};
use crate::worker::listener::Listener;
use crate::worker::registration::Registration;
use crate::worker::runtime::Granted;
use crate::worker::stream::Stream;

pub(super) fn tcp(address: SocketAddr, options: &ListenOptions) -> Address {
    Address::Tcp { address, v6_only: options.v6_only }
}

pub(super) fn udp(address: SocketAddr, options: &ListenOptions) -> Address {
    Address::Udp { address, v6_only: options.v6_only }
}

/// Tries the addresses of a name until one can be had.
pub(super) fn first<T>(
    address: impl ToSocketAddrs,
    open: impl Fn(SocketAddr) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut failure = None;
    for address in address.to_socket_addrs().map_err(Error::Resolve)? {
        match open(address) {
            Err(error @ Error::Listen(..)) => failure = Some(error),
            done => return done,
        }
    }
    Err(failure.unwrap_or_else(|| Error::Resolve(std::io::ErrorKind::NotFound.into())))
}

pub(super) fn listen_as<S: Stream>(
    worker: Option<&Worker>,
    address: Address,
    options: &ListenOptions,
) -> Result<Listener<S>, Error> {
    let listener = match open(worker, (address, S::serves, S::WHAT), options)? {
        Opened::Granted(registration, offer) => Listener::granted(registration, offer, options)?,
        Opened::OwnSocket(registration, socket) => Listener::alone(registration, socket, options)?,
    };
    listener.registration().register();
    Ok(listener)
}

pub(super) fn bind_as<S: Datagram>(
    worker: Option<&Worker>,
    address: Address,
    options: &ListenOptions,
) -> Result<BoundSocket<S>, Error> {
    if options.max_connections.is_some() {
        let why = "datagrams have no connections".to_owned();
        return Err(Error::Option("max_connections", why));
    }
    let (registration, socket) = match open(worker, (address, S::serves, S::WHAT), options)? {
        Opened::Granted(registration, Granted::Granted(granted)) => {
            (registration, granted.descriptor.into_inner())
        }
        // No connections can be meant.
        Opened::Granted(registration, Granted::NodeQueue { .. }) => {
            return Err(other_kind(&registration, S::WHAT));
        }
        Opened::OwnSocket(registration, socket) => (registration, socket),
    };
    registration.register();
    Ok(BoundSocket::new(registration, socket.into()))
}

/// A place that can be had, and what is there.
enum Opened {
    Granted(Registration, Granted),
    OwnSocket(Registration, OwnedFd),
}

/// Asks the primary for the address, or opens it here: without one, or where it is to be ours.
fn open(
    worker: Option<&Worker>,
    (address, serves, what): (Address, fn(&Address) -> bool, &'static str),
    options: &ListenOptions,
) -> Result<Opened, Error> {
    check(&address, serves, what, options)?;
    let address = absolute(address)?;
    if let Some(worker) = worker.filter(|_| !options.exclusive) {
        let mut offer = worker.ask(&address, options)?;
        let registration = Registration::of(&mut offer, worker);
        let fits = serves(registration.address());
        return if fits {
            Ok(Opened::Granted(registration, offer))
        } else {
            Err(other_kind(&registration, what))
        };
    }
    let worker = worker.map(|worker| worker.runtime().clone());
    if worker.as_ref().is_some_and(|worker| worker.drain().has_begun()) {
        return Err(Error::Closed);
    }
    let bound = bind(&address, options).map_err(|error| Error::Listen(address, error))?;
    let (registration, socket) = Registration::own(bound, options, worker);
    Ok(Opened::OwnSocket(registration, socket))
}

fn check(
    address: &Address,
    serves: fn(&Address) -> bool,
    what: &'static str,
    options: &ListenOptions,
) -> Result<(), Error> {
    let given = matches!(address, Address::Inherited(_));
    if !given && !serves(address) {
        return Err(wrong_kind(address, what));
    }
    if options.data.as_ref().is_some_and(|data| data.len() > LISTEN_DATA_BYTES_MAX) {
        let why = format!("more than {LISTEN_DATA_BYTES_MAX} bytes");
        return Err(Error::Option("data", why));
    }
    if options.max_connections == Some(0) {
        return Err(Error::Option("max_connections", "0 would be none at all".to_owned()));
    }
    Ok(())
}

/// The primary has something else there.
fn other_kind(registration: &Registration, what: &str) -> Error {
    wrong_kind(registration.address(), what)
}

fn wrong_kind(address: &Address, what: &str) -> Error {
    Error::Option("address", format!("{address} is not {what}"))
}

/// A path means the same in the primary.
fn absolute(address: Address) -> Result<Address, Error> {
    let path = |path: &Path| {
        std::path::absolute(path).map_err(|error| Error::Listen(address.clone(), error))
    };
    Ok(match &address {
        Address::UnixPath(relative) => Address::UnixPath(path(relative)?),
        Address::DatagramPath(relative) => Address::DatagramPath(path(relative)?),
        Address::Tcp { .. }
        | Address::UnixAbstract(_)
        | Address::Udp { .. }
        | Address::DatagramAbstract(_)
        | Address::Inherited(_) => address,
    })
}
