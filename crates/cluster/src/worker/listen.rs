//! Listening and binding: as a worker through its primary, or in a program alone.

use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::worker::Worker;
use crate::worker::datagram::{BoundSocket, Datagram};
use crate::worker::listener::Listener;
use crate::worker::open_socket::{bind_as, first, listen_as, tcp, udp};
use crate::worker::stream::Stream;

impl Worker {
    /// Listens on an address that all workers share: the primary opens it once and deals the
    /// connections, or shares the socket, as its policy says.
    ///
    /// Port 0 is one port for all workers. Where the name means several addresses the first that
    /// can be had is taken. Blocks until the primary has answered.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] with what the primary's `bind` or `listen` gave; [`Error::Closed`] once
    /// the worker drains or its primary is gone.
    pub fn listen(&self, address: impl ToSocketAddrs) -> Result<Listener, Error> {
        self.listen_with(address, &ListenOptions::new())
    }

    /// As [`listen`](Self::listen), with options.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen); [`Error::Option`] where an option cannot be used.
    pub fn listen_with(
        &self,
        address: impl ToSocketAddrs,
        options: &ListenOptions,
    ) -> Result<Listener, Error> {
        first(address, |address| listen_as(Some(self), tcp(address, options), options))
    }

    /// Listens on the path of a Unix socket. The primary removes its file when the last worker
    /// closed it; one that a dead process left behind is replaced.
    ///
    /// A relative path is this worker's. The kernel has room for 107 bytes; the shorter of the
    /// absolute path and that from the primary's folder counts.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen); `EADDRINUSE` also where another file has the name.
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<Listener<UnixStream>, Error> {
        self.listen_at(Address::UnixPath(path.as_ref().to_owned()), &ListenOptions::new())
    }

    /// Listens on any address whose connections are of this kind; for names in the abstract
    /// namespace, and for sockets that the [primary was given](crate::Builder::socket).
    ///
    /// ```no_run
    /// # use cluster::{Address, Listener, ListenOptions, Worker};
    /// # use std::os::unix::net::UnixStream;
    /// # fn serve(worker: &Worker) -> Result<(), cluster::Error> {
    /// let options = ListenOptions::new();
    /// let abstract_name = Address::UnixAbstract(b"app".to_vec());
    /// let admin: Listener<UnixStream> = worker.listen_at(abstract_name, &options)?;
    /// let web: Listener = worker.listen_at(Address::Inherited("web".to_owned()), &options)?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`listen_with`](Self::listen_with); [`Error::Option`] for an address of another kind;
    /// [`Error::Listen`] with `EBADF` for a socket that the primary was not given.
    pub fn listen_at<S: Stream>(
        &self,
        address: Address,
        options: &ListenOptions,
    ) -> Result<Listener<S>, Error> {
        listen_as(Some(self), address, options)
    }

    /// Binds a UDP socket that all workers share; port 0 is one port for all.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn bind_udp(&self, address: impl ToSocketAddrs) -> Result<BoundSocket<UdpSocket>, Error> {
        self.bind_udp_with(address, &ListenOptions::new())
    }

    /// As [`bind_udp`](Self::bind_udp), with options.
    ///
    /// # Errors
    ///
    /// As [`listen_with`](Self::listen_with).
    pub fn bind_udp_with(
        &self,
        address: impl ToSocketAddrs,
        options: &ListenOptions,
    ) -> Result<BoundSocket<UdpSocket>, Error> {
        first(address, |address| bind_as(Some(self), udp(address, options), options))
    }

    /// Binds a Unix datagram socket that all workers share, at a path as in
    /// [`listen_unix`](Self::listen_unix).
    ///
    /// # Errors
    ///
    /// As [`listen_unix`](Self::listen_unix).
    pub fn bind_unix_datagram(
        &self,
        path: impl AsRef<Path>,
    ) -> Result<BoundSocket<UnixDatagram>, Error> {
        self.bind_at(Address::DatagramPath(path.as_ref().to_owned()), &ListenOptions::new())
    }

    /// Binds at any address whose sockets are of this kind.
    ///
    /// # Errors
    ///
    /// As [`listen_at`](Self::listen_at).
    pub fn bind_at<S: Datagram>(
        &self,
        address: Address,
        options: &ListenOptions,
    ) -> Result<BoundSocket<S>, Error> {
        bind_as(Some(self), address, options)
    }
}

/// Listens as a worker does, or, in a process that is none, by itself.
///
/// The same program runs under a primary and alone.
///
/// ```
/// let listener = cluster::listen("127.0.0.1:0")?;
/// println!("listening on {}", listener.address());
/// # Ok::<(), cluster::Error>(())
/// ```
///
/// # Errors
///
/// As [`Worker::listen`].
pub fn listen(address: impl ToSocketAddrs) -> Result<Listener, Error> {
    listen_with(address, &ListenOptions::new())
}

/// As [`listen`], with options.
///
/// # Errors
///
/// As [`Worker::listen_with`].
pub fn listen_with(
    address: impl ToSocketAddrs,
    options: &ListenOptions,
) -> Result<Listener, Error> {
    let worker = Worker::current();
    first(address, |address| listen_as(worker.as_ref(), tcp(address, options), options))
}

/// Listens on the path of a Unix socket, as a worker or alone.
///
/// # Errors
///
/// As [`Worker::listen_unix`].
pub fn listen_unix(path: impl AsRef<Path>) -> Result<Listener<UnixStream>, Error> {
    listen_at(Address::UnixPath(path.as_ref().to_owned()), &ListenOptions::new())
}

/// Listens on any address whose connections are of this kind, as a worker or alone.
///
/// # Errors
///
/// As [`Worker::listen_at`].
pub fn listen_at<S: Stream>(
    address: Address,
    options: &ListenOptions,
) -> Result<Listener<S>, Error> {
    listen_as(Worker::current().as_ref(), address, options)
}

/// Binds a UDP socket, as a worker or alone.
///
/// # Errors
///
/// As [`Worker::bind_udp`].
pub fn bind_udp(address: impl ToSocketAddrs) -> Result<BoundSocket<UdpSocket>, Error> {
    let options = ListenOptions::new();
    first(address, |address| bind_at(udp(address, &options), &options))
}

/// Binds a Unix datagram socket at a path, as a worker or alone.
///
/// # Errors
///
/// As [`Worker::bind_unix_datagram`].
pub fn bind_unix_datagram(path: impl AsRef<Path>) -> Result<BoundSocket<UnixDatagram>, Error> {
    bind_at(Address::DatagramPath(path.as_ref().to_owned()), &ListenOptions::new())
}

/// Binds at any address whose sockets are of this kind, as a worker or alone.
///
/// # Errors
///
/// As [`Worker::bind_at`].
pub fn bind_at<S: Datagram>(
    address: Address,
    options: &ListenOptions,
) -> Result<BoundSocket<S>, Error> {
    bind_as(Worker::current().as_ref(), address, options)
}
