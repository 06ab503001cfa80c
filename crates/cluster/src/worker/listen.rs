//! The functions that open listeners and datagram sockets, in a worker and without a primary.

use std::net::{ToSocketAddrs, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::Path;

use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::worker::Worker;
use crate::worker::datagram::{BoundSocket, Datagram};
use crate::worker::listener::Listener;
use crate::worker::opening::{open_datagram, open_listener, tcp, try_each_address, udp};
use crate::worker::stream_types::Stream;

impl Worker {
    /// Listens on a TCP address that all workers share.
    ///
    /// The primary opens the address once. As its policy says, it dispatches the connections to
    /// the workers or shares the listening socket with them. Port 0 is one port for all workers. If
    /// a name has several addresses, the first that can be opened is used. Blocks until the
    /// primary has answered.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] with the error of `bind(2)` or `listen(2)` in the primary;
    /// [`Error::Resolve`] if the name has no address; [`Error::Closed`] if the worker drains or
    /// its primary is gone.
    pub fn listen(&self, address: impl ToSocketAddrs) -> Result<Listener, Error> {
        self.listen_with(address, &ListenOptions::new())
    }

    /// Listens on a TCP address that all workers share, with options.
    ///
    /// See [`listen`](Self::listen).
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen), and [`Error::Option`] for an option that cannot be used.
    pub fn listen_with(
        &self,
        address: impl ToSocketAddrs,
        options: &ListenOptions,
    ) -> Result<Listener, Error> {
        try_each_address(address, |address| {
            open_listener(Some(self), tcp(address, options), options)
        })
    }

    /// Listens on the path of a Unix stream socket that all workers share.
    ///
    /// The primary removes the socket's file when the last worker has closed its listener. A file
    /// that a dead process left behind is replaced.
    ///
    /// A relative path is relative to the working directory of this worker. The kernel accepts up
    /// to 107 bytes, and the shorter of two forms counts: the absolute path, or the path relative
    /// to the primary's working directory. See `unix(7)`.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen). The error is `EADDRINUSE` also if the path names a file that
    /// is no socket.
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<Listener<UnixStream>, Error> {
        self.listen_at(Address::UnixPath(path.as_ref().to_owned()), &ListenOptions::new())
    }

    /// Listens on any address that fits the type of stream.
    ///
    /// Only this function reaches names in the abstract namespace and the
    /// [inherited sockets](crate::Builder::socket) of the primary.
    ///
    /// ```no_run
    /// # use brood_cluster::{Address, Listener, ListenOptions, Worker};
    /// # use std::os::unix::net::UnixStream;
    /// # fn serve(worker: &Worker) -> Result<(), brood_cluster::Error> {
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
    /// [`Error::Listen`] with `EBADF` if the primary has no inherited socket of that name.
    pub fn listen_at<S: Stream>(
        &self,
        address: Address,
        options: &ListenOptions,
    ) -> Result<Listener<S>, Error> {
        open_listener(Some(self), address, options)
    }

    /// Binds a UDP socket that all workers share. Port 0 is one port for all workers.
    ///
    /// # Errors
    ///
    /// As [`listen`](Self::listen).
    pub fn bind_udp(&self, address: impl ToSocketAddrs) -> Result<BoundSocket<UdpSocket>, Error> {
        self.bind_udp_with(address, &ListenOptions::new())
    }

    /// Binds a UDP socket that all workers share, with options.
    ///
    /// # Errors
    ///
    /// As [`listen_with`](Self::listen_with).
    pub fn bind_udp_with(
        &self,
        address: impl ToSocketAddrs,
        options: &ListenOptions,
    ) -> Result<BoundSocket<UdpSocket>, Error> {
        try_each_address(address, |address| {
            open_datagram(Some(self), udp(address, options), options)
        })
    }

    /// Binds a Unix datagram socket that all workers share.
    ///
    /// The rules for the path are those of [`listen_unix`](Self::listen_unix).
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

    /// Binds a datagram socket to any address that fits the type of socket.
    ///
    /// # Errors
    ///
    /// As [`listen_at`](Self::listen_at).
    pub fn bind_at<S: Datagram>(
        &self,
        address: Address,
        options: &ListenOptions,
    ) -> Result<BoundSocket<S>, Error> {
        open_datagram(Some(self), address, options)
    }
}

/// Listens on a TCP address: through the primary in a worker, by itself in any other process.
///
/// The same program runs as a worker and alone. See [`Worker::listen`].
///
/// ```
/// let listener = brood_cluster::listen("127.0.0.1:0")?;
/// println!("listening on {}", listener.address());
/// # Ok::<(), brood_cluster::Error>(())
/// ```
///
/// # Errors
///
/// As [`Worker::listen`].
pub fn listen(address: impl ToSocketAddrs) -> Result<Listener, Error> {
    listen_with(address, &ListenOptions::new())
}

/// Listens on a TCP address with options, as a worker or alone. See [`Worker::listen_with`].
///
/// # Errors
///
/// As [`Worker::listen_with`].
pub fn listen_with(
    address: impl ToSocketAddrs,
    options: &ListenOptions,
) -> Result<Listener, Error> {
    let worker = Worker::current();
    try_each_address(address, |address| {
        open_listener(worker.as_ref(), tcp(address, options), options)
    })
}

/// Listens on the path of a Unix stream socket, as a worker or alone. See
/// [`Worker::listen_unix`].
///
/// # Errors
///
/// As [`Worker::listen_unix`].
pub fn listen_unix(path: impl AsRef<Path>) -> Result<Listener<UnixStream>, Error> {
    listen_at(Address::UnixPath(path.as_ref().to_owned()), &ListenOptions::new())
}

/// Listens on any address that fits the type of stream, as a worker or alone. See
/// [`Worker::listen_at`].
///
/// # Errors
///
/// As [`Worker::listen_at`].
pub fn listen_at<S: Stream>(
    address: Address,
    options: &ListenOptions,
) -> Result<Listener<S>, Error> {
    open_listener(Worker::current().as_ref(), address, options)
}

/// Binds a UDP socket, as a worker or alone. See [`Worker::bind_udp`].
///
/// # Errors
///
/// As [`Worker::bind_udp`].
pub fn bind_udp(address: impl ToSocketAddrs) -> Result<BoundSocket<UdpSocket>, Error> {
    let options = ListenOptions::new();
    try_each_address(address, |address| bind_at(udp(address, &options), &options))
}

/// Binds a Unix datagram socket to a path, as a worker or alone. See
/// [`Worker::bind_unix_datagram`].
///
/// # Errors
///
/// As [`Worker::bind_unix_datagram`].
pub fn bind_unix_datagram(path: impl AsRef<Path>) -> Result<BoundSocket<UnixDatagram>, Error> {
    bind_at(Address::DatagramPath(path.as_ref().to_owned()), &ListenOptions::new())
}

/// Binds a datagram socket to any address that fits the type of socket, as a worker or alone. See
/// [`Worker::bind_at`].
///
/// # Errors
///
/// As [`Worker::bind_at`].
pub fn bind_at<S: Datagram>(
    address: Address,
    options: &ListenOptions,
) -> Result<BoundSocket<S>, Error> {
    open_datagram(Worker::current().as_ref(), address, options)
}
