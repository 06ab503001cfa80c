//! The functions that open listeners and datagram sockets, as a worker and without a primary.

use std::net::ToSocketAddrs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::worker::datagram::{BoundSocket, Datagram};
use crate::worker::listener::Listener;
use crate::worker::opening::{as_datagram, open_datagram, open_listener, try_each_address};
use crate::worker::stream_types::Stream;

/// Listens on a TCP address: through the primary in a worker, by itself in any other process.
///
/// The same program can therefore run as a worker and alone. In a worker the primary opens the
/// address once for all workers. As its policy says, it dispatches the connections to the workers
/// or shares the listening socket with them. Port 0 is one port for all workers. If a name has
/// several addresses, the first that can be opened is used. Blocks until the primary has answered.
///
/// [`ListenOptions`] has further options, and methods for Unix and datagram sockets.
///
/// ```
/// let listener = brood_cluster::listen("127.0.0.1:0")?;
/// println!("listening on {}", listener.address());
/// # Ok::<(), brood_cluster::Error>(())
/// ```
///
/// # Errors
///
/// [`Error::Listen`] with the error of `bind(2)` or `listen(2)` in the process that opens the
/// address; [`Error::Resolve`] if the name has no address; [`Error::Closed`] if the worker drains
/// or its primary is gone.
///
/// # Panics
///
/// See [`Worker::current`](crate::Worker::current).
pub fn listen(address: impl ToSocketAddrs) -> Result<Listener, Error> {
    ListenOptions::new().listen(address)
}

/// The sockets that can be opened with these options: through the primary in a worker, by itself in
/// any other process, as [`listen`](fn@listen) does.
impl ListenOptions {
    /// Listens on a TCP address with these options, as [`listen`](fn@listen) does without.
    ///
    /// # Errors
    ///
    /// As [`listen`](fn@listen), and [`Error::InvalidOption`] for an option that cannot be used.
    ///
    /// # Panics
    ///
    /// See [`Worker::current`](crate::Worker::current).
    pub fn listen(&self, address: impl ToSocketAddrs) -> Result<Listener, Error> {
        try_each_address(address, |address| open_listener(address.into(), self))
    }

    /// Listens on the path of a Unix stream socket.
    ///
    /// All workers share the socket. The primary removes the socket's file when the last worker has
    /// closed its listener. A file that a dead process left behind is replaced.
    ///
    /// A relative path is relative to the working directory of this process. The last part of the
    /// path has up to 107 bytes, and the path up to 4,096.
    ///
    /// The folder is looked up once. Symbolic links are followed if they belong to root or to the
    /// user of the process that binds, which is the primary if the socket is shared. A link of
    /// another user is followed only to a folder of that user. The file is made, gets its
    /// permissions and is removed in the folder that was found, whatever is renamed meanwhile, and
    /// only if it is the file of this socket. The folder takes one descriptor as long as the socket
    /// is open.
    ///
    /// Where other users may write to the folder or change the way to it, the file is made in a
    /// subfolder `.brood-…` first and renamed. Clients and `ss(8)` then see a name such as
    /// `/proc/self/fd/9/app.sock` in place of the path, or without `/proc` the last part alone. In a
    /// sticky folder such as `/tmp`, a stale file is replaced only if it belongs to the user of the
    /// process that binds, and without `/proc` only in folders that no other user can change.
    ///
    /// # Errors
    ///
    /// As [`ListenOptions::listen`]. The error is `EADDRINUSE` also if the path names a file that
    /// is no socket, `ELOOP` if a symbolic link of another user leads to a folder that is not that
    /// user's, and `EPERM` if others may write to the folder and its file system stores no owners.
    ///
    /// Node: the path as a whole has up to 107 bytes.
    ///
    /// # Panics
    ///
    /// See [`Worker::current`](crate::Worker::current).
    pub fn listen_unix(&self, path: impl AsRef<Path>) -> Result<Listener<UnixStream>, Error> {
        self.listen_at(Address::from(path.as_ref()))
    }

    /// Listens on any address that fits the type of stream.
    ///
    /// Only this function reaches names in the abstract namespace and the
    /// [inherited sockets](crate::Builder::socket) of the primary.
    ///
    /// ```no_run
    /// # use brood_cluster::{Address, Listener, ListenOptions};
    /// # use std::os::unix::net::UnixStream;
    /// # fn serve() -> Result<(), brood_cluster::Error> {
    /// let options = ListenOptions::new();
    /// let abstract_name = Address::UnixAbstract(b"app".to_vec());
    /// let admin: Listener<UnixStream> = options.listen_at(abstract_name)?;
    /// let web: Listener = options.listen_at(Address::Inherited("web".to_owned()))?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// As [`ListenOptions::listen`]; [`Error::InvalidOption`] for an address of another kind;
    /// [`Error::Listen`] with `EBADF` if the primary has no inherited socket of that name.
    ///
    /// # Panics
    ///
    /// See [`Worker::current`](crate::Worker::current).
    pub fn listen_at<S: Stream>(&self, address: Address) -> Result<Listener<S>, Error> {
        open_listener(address, self)
    }

    /// Binds a datagram socket: a [`UdpSocket`](std::net::UdpSocket), or a
    /// [`UnixDatagram`](std::os::unix::net::UnixDatagram).
    ///
    /// All workers share the socket, and port 0 is one port for all of them. A socket address or a
    /// path is enough, because the type says that the socket is for datagrams: [`Address::Tcp`]
    /// stands for [`Address::Udp`] here, [`Address::UnixPath`] for [`Address::DatagramPath`], and
    /// [`Address::UnixAbstract`] for [`Address::DatagramAbstract`]. The rules for paths are those
    /// of [`listen_unix`](Self::listen_unix).
    ///
    /// ```
    /// use brood_cluster::ListenOptions;
    /// use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
    ///
    /// let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    /// let socket = ListenOptions::new().bind_datagram::<UdpSocket>(address)?;
    /// socket.send_to(b"hello", socket.local_addr()?)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`listen_at`](Self::listen_at).
    ///
    /// # Panics
    ///
    /// See [`Worker::current`](crate::Worker::current).
    pub fn bind_datagram<S: Datagram>(
        &self,
        address: impl Into<Address>,
    ) -> Result<BoundSocket<S>, Error> {
        open_datagram(as_datagram(address.into()), self)
    }
}
