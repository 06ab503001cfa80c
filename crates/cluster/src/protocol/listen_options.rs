//! The options of a request to listen, which travel to the primary with the address.
//!
//! Pure.

use serde::{Deserialize, Serialize};

/// The default backlog, as in Node.
pub(crate) const BACKLOG: u32 = 511;

/// The options with which a worker listens or binds, and the methods that do so:
/// [`listen`](Self::listen) for TCP, [`listen_unix`](Self::listen_unix),
/// [`listen_at`](Self::listen_at) for any address, and [`bind_datagram`](Self::bind_datagram).
///
/// If several workers share an address, the options of the first request decide how the socket is
/// opened. Each worker has its own [`max_connections`](Self::max_connections).
///
/// ```
/// use brood_cluster::ListenOptions;
///
/// let listener = ListenOptions::new().backlog(16).listen("127.0.0.1:0")?;
/// # drop(listener);
/// # Ok::<(), brood_cluster::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[must_use = "options do nothing until something listens with them"]
pub struct ListenOptions {
    pub(crate) backlog: u32,
    pub(crate) exclusive: bool,
    pub(crate) v6_only: bool,
    pub(crate) readable_all: bool,
    pub(crate) writable_all: bool,
    pub(crate) reuse_address: bool,
    pub(crate) max_connections: Option<u32>,
    pub(crate) data: Option<Vec<u8>>,
}

impl Default for ListenOptions {
    fn default() -> Self {
        Self {
            backlog: BACKLOG,
            exclusive: false,
            v6_only: false,
            readable_all: false,
            writable_all: false,
            reuse_address: false,
            max_connections: None,
            data: None,
        }
    }
}

impl ListenOptions {
    /// The most bytes of [data](Self::data) that a request to listen may have: 64 KiB.
    pub const DATA_BYTES_MAX: usize = 64 * 1024;

    /// Creates the default options: a backlog of 511, a socket that all workers share, and for an
    /// IPv6 address IPv4 as well.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the backlog: the most connections that the kernel keeps until they are accepted. By
    /// default 511, as in Node.
    ///
    /// The kernel drops the handshakes of further clients, who then wait a second or more until their
    /// system repeats them. `net.core.somaxconn` bounds the number without an error.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Binds in this worker alone, without the primary. Port 0 is then another port in each worker.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// For an IPv6 address: accepts no IPv4 connections.
    #[doc(alias = "ipv6Only")]
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// For a Unix socket with a path: lets all users read the socket's file.
    #[doc(alias = "readableAll")]
    pub fn readable_all(mut self, readable: bool) -> Self {
        self.readable_all = readable;
        self
    }

    /// For a Unix socket with a path: lets all users write to the socket's file. On Linux, that
    /// permission is the one to connect.
    #[doc(alias = "writableAll")]
    pub fn writable_all(mut self, writable: bool) -> Self {
        self.writable_all = writable;
        self
    }

    /// Returns the bits that the mode of a socket's file gets in addition.
    pub(crate) fn file_mode(&self) -> u32 {
        (0o444 * u32::from(self.readable_all)) | (0o222 * u32::from(self.writable_all))
    }

    /// For UDP: sets `SO_REUSEADDR`, and lets one worker bind the address more than once.
    #[doc(alias = "reuseAddr")]
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// Limits the connections that this worker has open at once from this listener to this
    /// number, 1 or more. By default there is no limit. Each worker may request its own.
    ///
    /// A connection is open until its [`Accepted`](crate::Accepted) is dropped. The primary skips a
    /// worker at its limit. When all workers are at their limits, connections wait for the first
    /// worker with room, in the order of their arrival. No client is refused: the client's kernel
    /// tries again when the backlog is full. If the listening socket is shared or belongs to the
    /// worker, the listener returns no connection and is not readable until there is room.
    ///
    /// The limit may be exceeded when the worker drains or the primary closes the address, so that
    /// no client is reset. A Rust worker under a Node primary declines connections over the limit,
    /// as Node's workers do, but not before 20 ms have passed.
    ///
    /// Node: `server.maxConnections`.
    #[doc(alias = "maxConnections")]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Sets bytes for all workers that share the address, at most [`DATA_BYTES_MAX`](Self::DATA_BYTES_MAX).
    ///
    /// The listener of each worker returns the bytes of the first request as its `data`. The
    /// option is for keys that must be the same in all workers, such as those of TLS session
    /// tickets.
    pub fn data(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.data = Some(bytes.into());
        self
    }
}
