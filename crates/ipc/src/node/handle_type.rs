//! How Node names the handles that travel.
//!
//! Pure.

/// What a handle is for a Node peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleType {
    /// A connection: a `net.Socket`.
    Socket,
    /// A listening socket: a `net.Server`.
    Server,
    /// A UDP socket: a `dgram.Socket`.
    Datagram(Family),
    /// A stream socket as it is, for Node's cluster.
    RawStream,
    /// A UDP socket as it is, for Node's cluster.
    RawDatagram,
}

/// Which UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

impl HandleType {
    /// What Node calls it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HandleType::Socket => "net.Socket",
            HandleType::Server => "net.Server",
            HandleType::Datagram(_) => "dgram.Socket",
            HandleType::RawStream => "net.Native",
            HandleType::RawDatagram => "dgram.Native",
        }
    }

    /// What Node must be told beside the name.
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
