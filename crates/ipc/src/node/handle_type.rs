//! Node's names for the handles that it sends and receives.
//!
//! Pure.

/// The kind of a handle in a Node peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HandleType {
    /// A connection: a `net.Socket`.
    Socket(Transport),
    /// A listening socket: a `net.Server`.
    Server(Transport),
    /// A UDP socket: a `dgram.Socket`.
    Datagram(Family),
    /// A connection for Node's cluster, without a JavaScript object around it.
    RawSocket(Transport),
    /// A listening socket for Node's cluster, without a JavaScript object around it.
    RawServer(Transport),
    /// A UDP socket for Node's cluster, without a JavaScript object around it.
    RawDatagram,
}

/// The address family of a UDP socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Family {
    V4,
    V6,
}

/// The transport of a stream socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Transport {
    Tcp,
    Unix,
}

impl HandleType {
    /// Returns Node's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            HandleType::Socket(_) => "net.Socket",
            HandleType::Server(_) => "net.Server",
            HandleType::Datagram(_) => "dgram.Socket",
            HandleType::RawSocket(_) | HandleType::RawServer(_) => "net.Native",
            HandleType::RawDatagram => "dgram.Native",
        }
    }

    /// Returns the second name that Node needs for a datagram socket.
    pub(crate) fn datagram_type(self) -> Option<&'static str> {
        match self {
            HandleType::Datagram(Family::V4) => Some("udp4"),
            HandleType::Datagram(Family::V6) => Some("udp6"),
            HandleType::Socket(_)
            | HandleType::Server(_)
            | HandleType::RawSocket(_)
            | HandleType::RawServer(_)
            | HandleType::RawDatagram => None,
        }
    }

    /// Returns the further members of a handle's message, as JSON.
    ///
    /// Node reads `dgramType` and finds everything else out itself. Deno takes a raw handle for a
    /// connection and a stream for TCP, unless these members say otherwise.
    pub(crate) fn members(self) -> &'static str {
        match self {
            HandleType::Datagram(Family::V4) => r#","dgramType":"udp4""#,
            HandleType::Datagram(Family::V6) => r#","dgramType":"udp6""#,
            HandleType::RawServer(Transport::Tcp) => r#","socketType":1,"nativeKind":"tcp""#,
            HandleType::RawServer(Transport::Unix) => r#","socketType":1,"nativeKind":"pipe""#,
            HandleType::Socket(Transport::Unix)
            | HandleType::Server(Transport::Unix)
            | HandleType::RawSocket(Transport::Unix) => r#","nativeKind":"pipe""#,
            HandleType::Socket(Transport::Tcp)
            | HandleType::Server(Transport::Tcp)
            | HandleType::RawSocket(Transport::Tcp)
            | HandleType::RawDatagram => "",
        }
    }
}
