//! The way to a socket: a request to the primary, or a socket that this process opens itself.
//!
//! A worker opens a socket itself when the option `exclusive` is set, and a program without a
//! primary always does.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::os::fd::OwnedFd;
use std::path::Path;

use crate::bind::bind;
use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::violation::too_long;
use crate::worker::Worker;
use crate::worker::address_kind::AddressKind;
use crate::worker::datagram::{BoundSocket, Datagram};
use crate::worker::listener::Listener;
use crate::worker::pending_grants::GrantedSource;
use crate::worker::registration::Registration;
use crate::worker::stream_types::Stream;

/// Returns the datagram address of the same place.
pub(super) fn as_datagram(address: Address) -> Address {
    match address {
        Address::Tcp { address, v6_only } => Address::Udp { address, v6_only },
        Address::UnixPath(path) => Address::DatagramPath(path),
        Address::UnixAbstract(name) => Address::DatagramAbstract(name),
        Address::Udp { .. }
        | Address::DatagramPath(_)
        | Address::DatagramAbstract(_)
        | Address::Inherited(_) => address,
    }
}

/// Calls `open` with each address of a name until one can be opened.
///
/// # Errors
///
/// [`Error::Resolve`] if the name has no address; otherwise the error of the last address.
pub(super) fn try_each_address<T>(
    address: impl ToSocketAddrs,
    open: impl Fn(SocketAddr) -> Result<T, Error>,
) -> Result<T, Error> {
    let mut failure = None;
    for address in address.to_socket_addrs().map_err(Error::Resolve)? {
        match open(address) {
            Err(error @ Error::Listen { .. }) => failure = Some(error),
            done => return done,
        }
    }
    Err(failure.unwrap_or_else(|| Error::Resolve(std::io::ErrorKind::NotFound.into())))
}

/// Opens a listener, through the primary in a worker.
pub(super) fn open_listener<S: Stream>(
    address: Address,
    options: &ListenOptions,
) -> Result<Listener<S>, Error> {
    let listener = match open_socket::<S>(address, options)? {
        OpenedSocket::Granted(registration, source) => {
            Listener::granted(registration, source, options)?
        }
        OpenedSocket::Local(registration, socket) => {
            Listener::local(registration, socket, options)?
        }
    };
    // Registered only now that the listener is complete: the primary dispatches from here on.
    listener.registration().register();
    Ok(listener)
}

/// Opens a datagram socket, through the primary in a worker.
pub(super) fn open_datagram<S: Datagram>(
    address: Address,
    options: &ListenOptions,
) -> Result<BoundSocket<S>, Error> {
    if options.max_connections.is_some() {
        let why = "a datagram socket has no connections".to_owned();
        return Err(Error::InvalidOption { option: "max_connections", why });
    }
    let (registration, socket) = match open_socket::<S>(address, options)? {
        OpenedSocket::Granted(registration, GrantedSource::Descriptor(grant)) => {
            (registration, grant.descriptor.into_inner())
        }
        // A queue of connections is no datagram socket.
        OpenedSocket::Granted(registration, GrantedSource::NodeQueue { .. }) => {
            return Err(wrong_kind::<S>(registration.address()));
        }
        OpenedSocket::Local(registration, socket) => (registration, socket),
    };
    registration.register();
    Ok(BoundSocket::new(registration, socket.into()))
}

/// A socket whose address fits, with its registration.
enum OpenedSocket {
    /// Granted by the primary.
    Granted(Registration, GrantedSource),
    /// Opened by this process.
    Local(Registration, OwnedFd),
}

fn open_socket<K: AddressKind>(
    address: Address,
    options: &ListenOptions,
) -> Result<OpenedSocket, Error> {
    validate::<K>(&address, options)?;
    let address = absolute(with_v6_only(address, options))?;
    // A path is looked up part by part and may be longer than the kernel's limit. The primary ends a
    // worker that sends such a path, also in the report of a socket that the worker opened itself.
    if too_long(&address).is_some() {
        let source = io::Error::from_raw_os_error(sys::errno::ENAMETOOLONG);
        return Err(Error::Listen { address, source });
    }
    let worker = Worker::current();
    let runtime = worker.as_ref().map(Worker::runtime);
    if let Some(runtime) = runtime.filter(|_| !options.exclusive) {
        let mut source = runtime.request_listen(&address, options)?;
        let registration = Registration::granted(&mut source, runtime.clone());
        // The address of an inherited socket is known only now.
        return if K::fits(registration.address()) {
            Ok(OpenedSocket::Granted(registration, source))
        } else {
            Err(wrong_kind::<K>(registration.address()))
        };
    }
    if runtime.is_some_and(|runtime| runtime.drain().has_begun()) {
        return Err(Error::Closed);
    }
    let bound = bind(&address, options, true);
    let bound = bound.map_err(|source| Error::Listen { address, source })?;
    let (registration, socket) = Registration::local(bound, options, runtime.cloned());
    Ok(OpenedSocket::Local(registration, socket))
}

fn validate<K: AddressKind>(address: &Address, options: &ListenOptions) -> Result<(), Error> {
    let inherited = matches!(address, Address::Inherited(_));
    if !inherited && !K::fits(address) {
        return Err(wrong_kind::<K>(address));
    }
    if options.data.as_ref().is_some_and(|data| data.len() > ListenOptions::DATA_BYTES_MAX) {
        let why = format!("use at most {} bytes", ListenOptions::DATA_BYTES_MAX);
        return Err(Error::InvalidOption { option: "data", why });
    }
    if options.max_connections == Some(0) {
        let why = "use 1 or more".to_owned();
        return Err(Error::InvalidOption { option: "max_connections", why });
    }
    Ok(())
}

fn wrong_kind<K: AddressKind>(address: &Address) -> Error {
    let why = format!("{address} is not {}", K::KIND);
    Error::InvalidOption { option: "address", why }
}

/// Applies the option to the address, which may ask for the same.
fn with_v6_only(mut address: Address, options: &ListenOptions) -> Address {
    if let Address::Tcp { v6_only, .. } | Address::Udp { v6_only, .. } = &mut address {
        *v6_only |= options.v6_only;
    }
    address
}

/// Makes the path of an address absolute: the primary may have another working directory.
fn absolute(address: Address) -> Result<Address, Error> {
    let path = |path: &Path| {
        std::path::absolute(path)
            .map_err(|source| Error::Listen { address: address.clone(), source })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_socket_has_a_path_that_the_primary_takes_for_a_breach() {
        let folder = std::env::temp_dir().join(format!("brood-long-path-{}", std::process::id()));
        std::fs::create_dir(&folder).unwrap();
        let name = format!("/../brood-long-path-{}", std::process::id());
        let path = folder.to_str().unwrap().to_owned() + &name.repeat(200) + "/s";
        assert!(path.len() > 4096);
        let options = ListenOptions::new().exclusive(true);
        let error = options.listen_unix(path).map(drop).unwrap_err();
        assert_eq!(error.code(), "ENAMETOOLONG");
        std::fs::remove_dir(&folder).unwrap();
    }
}
