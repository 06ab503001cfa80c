//! Node's names for the handles that it sends and receives.
//!
//! Pure.

/// The kind of a handle in a Node peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleType {
    /// A connection: a `net.Socket`.
    Socket,
    /// A listening socket: a `net.Server`.
    Server,
    /// A UDP socket: a `dgram.Socket`.
    Datagram(Family),
    /// A stream socket for Node's cluster, without a JavaScript object around it.
    RawStream,
    /// A UDP socket for Node's cluster, without a JavaScript object around it.
    RawDatagram,
}

/// The address family of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl HandleType {
    /// Returns Node's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HandleType::Socket => "net.Socket",
            HandleType::Server => "net.Server",
            HandleType::Datagram(_) => "dgram.Socket",
            HandleType::RawStream => "net.Native",
            HandleType::RawDatagram => "dgram.Native",
        }
    }

    /// Returns the second name that Node needs for a datagram socket.
    pub(crate) fn datagram_type(self) -> Option<&'static str> {
        match self {
            HandleType::Datagram(Family::V4) => Some("udp4"),
            HandleType::Datagram(Family::V6) => Some("udp6"),
            HandleType::Socket
            | HandleType::Server
            | HandleType::RawStream
            | HandleType::RawDatagram => None,
        }
    }
}
