//! How a worker wants to listen, beside where.
//!
//! Pure. It travels to the primary with the wish; the first wish for an address decides.

use serde::{Deserialize, Serialize};

/// The backlog of a listener that asks for none, as in Node.
pub(crate) const BACKLOG: u32 = 511;
/// The most bytes of data that a wish to listen may carry.
pub const LISTEN_DATA_BYTES_MAX: usize = 64 * 1024;

/// How to listen: the options of `listen_with` and its like.
///
/// Where several workers share an address, the first that asks decides how it is opened.
///
/// ```
/// use cluster::ListenOptions;
///
/// let listener = cluster::listen_with("127.0.0.1:0", &ListenOptions::new().backlog(16))?;
/// # drop(listener);
/// # Ok::<(), cluster::Error>(())
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
    /// A backlog of 511, shared by all workers, IPv4 as well where the address is IPv6.
    pub fn new() -> Self {
        Self::default()
    }

    /// How many connections the kernel keeps until they are accepted.
    pub fn backlog(mut self, connections: u32) -> Self {
        self.backlog = connections;
        self
    }

    /// Binds in this worker alone, without the primary: port 0 is then another port in each.
    pub fn exclusive(mut self, exclusive: bool) -> Self {
        self.exclusive = exclusive;
        self
    }

    /// For IPv6: takes no IPv4.
    #[doc(alias = "ipv6Only")]
    pub fn v6_only(mut self, v6_only: bool) -> Self {
        self.v6_only = v6_only;
        self
    }

    /// For a Unix socket's path: everybody may read.
    #[doc(alias = "readableAll")]
    pub fn readable_all(mut self, readable: bool) -> Self {
        self.readable_all = readable;
        self
    }

    /// For a Unix socket's path: everybody may write, which on Linux is to connect.
    #[doc(alias = "writableAll")]
    pub fn writable_all(mut self, writable: bool) -> Self {
        self.writable_all = writable;
        self
    }

    /// For UDP: sets `SO_REUSEADDR`, and one worker may bind the address more than once.
    #[doc(alias = "reuseAddr")]
    pub fn reuse_address(mut self, reuse: bool) -> Self {
        self.reuse_address = reuse;
        self
    }

    /// The most connections that this worker has open at once from this listener, 1 or more; by
    /// default there is no such limit. Each worker may ask for another number.
    ///
    /// A connection is open until its [`Accepted`](crate::Accepted) is dropped. Who has as many is
    /// passed over; when all have, connections wait, in the order in which they came, for the
    /// first that has room. Nobody is refused: what no longer finds room in the kernel's backlog
    /// is tried again by the client's kernel. Where the listening socket is shared or the
    /// worker's own, the listener gives nothing and is not readable until there is room.
    ///
    /// Clients may be accepted beyond it when the worker drains or its address is given up,
    /// rather than reset. A Rust worker under a Node primary declines what is too much, as Node's
    /// workers do, but not before 20 ms have passed.
    ///
    /// Node: `server.maxConnections`.
    #[doc(alias = "maxConnections")]
    pub fn max_connections(mut self, connections: u32) -> Self {
        self.max_connections = Some(connections);
        self
    }

    /// Bytes for all workers that share the address, at most [`LISTEN_DATA_BYTES_MAX`]: those of
    /// the first that asks are what all of them find in their listener's `data`. Made for keys
    /// that must be the same everywhere, such as those of TLS session tickets.
    pub fn data(mut self, bytes: impl Into<Vec<u8>>) -> Self {
        self.data = Some(bytes.into());
        self
    }
}
