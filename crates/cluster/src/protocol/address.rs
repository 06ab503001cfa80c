//! The addresses at which a cluster can listen.
//!
//! An address is a value: this file resolves and opens nothing. Addresses travel between primary
//! and workers, so the serialized form keeps all of them, also a scope id and a path that is not
//! UTF-8.
//!
//! Pure.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use sys::text;

/// The address of a listener or a datagram socket.
///
/// `Display` writes it as a user would type it: `127.0.0.1:8000`, `/run/app.sock`, `@name`.
/// Characters that would change a log or a terminal are escaped.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
#[non_exhaustive]
pub enum Address {
    /// TCP over IPv4 or IPv6; port 0 lets the kernel choose.
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// For IPv6: accepts no IPv4 connections.
        v6_only: bool,
    },
    /// A Unix stream socket with this path.
    UnixPath(PathBuf),
    /// A Unix stream socket with this name in the abstract namespace, without the leading zero.
    UnixAbstract(Vec<u8>),
    /// UDP over IPv4 or IPv6; port 0 lets the kernel choose.
    Udp {
        /// Address and port.
        address: SocketAddr,
        /// For IPv6: receives no IPv4 datagrams.
        v6_only: bool,
    },
    /// A Unix datagram socket with this path.
    DatagramPath(PathBuf),
    /// A Unix datagram socket with this name in the abstract namespace, without the leading zero.
    DatagramAbstract(Vec<u8>),
    /// The socket that the primary inherited under this name, by
    /// [`Builder::socket`](crate::Builder::socket) or from systemd. A listener that was granted the
    /// socket has the address at which the socket is bound instead.
    Inherited(String),
}

impl Address {
    /// Returns whether the kernel chooses the port.
    pub(crate) fn is_port_0(&self) -> bool {
        match self {
            Self::Tcp { address, .. } | Self::Udp { address, .. } => address.port() == 0,
            Self::UnixPath(_)
            | Self::UnixAbstract(_)
            | Self::DatagramPath(_)
            | Self::DatagramAbstract(_)
            | Self::Inherited(_) => false,
        }
    }

    /// Returns whether two sockets at these addresses cannot be open at once: they have the same
    /// port, or the same name.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { address: one, .. }, Self::Tcp { address: two, .. })
            | (Self::Udp { address: one, .. }, Self::Udp { address: two, .. }) => {
                one.port() == two.port() && one.port() != 0
            }
            (one, two) => one == two,
        }
    }

    /// Returns whether the socket is for datagrams. Workers always share such a socket.
    pub(crate) fn is_datagram(&self) -> bool {
        match self {
            Self::Udp { .. } | Self::DatagramPath(_) | Self::DatagramAbstract(_) => true,
            Self::Tcp { .. } | Self::UnixPath(_) | Self::UnixAbstract(_) | Self::Inherited(_) => {
                false
            }
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } | Self::Udp { address, .. } => address.fmt(f),
            Self::UnixPath(path) | Self::DatagramPath(path) => {
                text::line(path.as_os_str().as_bytes()).fmt(f)
            }
            Self::UnixAbstract(name) | Self::DatagramAbstract(name) => {
                write!(f, "@{}", name.escape_ascii())
            }
            Self::Inherited(name) => write!(f, "socket '{}'", text::line(name)),
        }
    }
}

impl From<SocketAddr> for Address {
    /// Returns a TCP address. An IPv6 address accepts IPv4 connections too, if the kernel allows it
    /// for that address.
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { address, v6_only: false }
    }
}

impl From<&Path> for Address {
    /// Returns the address of a Unix stream socket.
    fn from(path: &Path) -> Self {
        Self::UnixPath(path.to_owned())
    }
}

impl From<PathBuf> for Address {
    /// Returns the address of a Unix stream socket.
    fn from(path: PathBuf) -> Self {
        Self::UnixPath(path)
    }
}

/// The serialized form. The form of serde itself loses the flow and scope of a socket address, and
/// refuses a path that is not UTF-8.
#[derive(Serialize, Deserialize)]
enum Wire {
    Tcp(Ip, bool),
    UnixPath(Vec<u8>),
    UnixAbstract(Vec<u8>),
    Udp(Ip, bool),
    DatagramPath(Vec<u8>),
    DatagramAbstract(Vec<u8>),
    Inherited(String),
}

#[derive(Serialize, Deserialize)]
struct Ip {
    ip: IpAddr,
    port: u16,
    flow: u32,
    scope: u32,
}

impl From<SocketAddr> for Ip {
    fn from(address: SocketAddr) -> Self {
        let (flow, scope) = match address {
            SocketAddr::V4(_) => (0, 0),
            SocketAddr::V6(v6) => (v6.flowinfo(), v6.scope_id()),
        };
        Self { ip: address.ip(), port: address.port(), flow, scope }
    }
}

impl From<Ip> for SocketAddr {
    fn from(Ip { ip, port, flow, scope }: Ip) -> Self {
        match ip {
            IpAddr::V4(_) => SocketAddr::new(ip, port),
            IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
        }
    }
}

impl From<Address> for Wire {
    fn from(address: Address) -> Self {
        let bytes = |path: PathBuf| path.into_os_string().into_vec();
        match address {
            Address::Tcp { address, v6_only } => Self::Tcp(address.into(), v6_only),
            Address::UnixPath(path) => Self::UnixPath(bytes(path)),
            Address::UnixAbstract(name) => Self::UnixAbstract(name),
            Address::Udp { address, v6_only } => Self::Udp(address.into(), v6_only),
            Address::DatagramPath(path) => Self::DatagramPath(bytes(path)),
            Address::DatagramAbstract(name) => Self::DatagramAbstract(name),
            Address::Inherited(name) => Self::Inherited(name),
        }
    }
}

impl From<Wire> for Address {
    fn from(wire: Wire) -> Self {
        let path = |bytes| PathBuf::from(OsString::from_vec(bytes));
        match wire {
            Wire::Tcp(ip, v6_only) => Self::Tcp { address: ip.into(), v6_only },
            Wire::UnixPath(bytes) => Self::UnixPath(path(bytes)),
            Wire::UnixAbstract(name) => Self::UnixAbstract(name),
            Wire::Udp(ip, v6_only) => Self::Udp { address: ip.into(), v6_only },
            Wire::DatagramPath(bytes) => Self::DatagramPath(path(bytes)),
            Wire::DatagramAbstract(name) => Self::DatagramAbstract(name),
            Wire::Inherited(name) => Self::Inherited(name),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(text: &str) -> Address {
        Address::from(text.parse::<SocketAddr>().unwrap())
    }

    #[test]
    fn an_address_is_shown_as_a_user_would_type_it() {
        let path = Address::UnixPath("/run/app.sock".into());
        let name = Address::UnixAbstract(b"app\xff\n".to_vec());
        for (address, text) in [
            (tcp("127.0.0.1:8000"), "127.0.0.1:8000"),
            (tcp("[::1]:0"), "[::1]:0"),
            (path, "/run/app.sock"),
            (Address::DatagramPath("/x\n1 exit 2\x1b[31m".into()), r"/x\n1 exit 2\u{1b}[31m"),
            (Address::Inherited("a\r".to_owned()), r"socket 'a\r'"),
            (name, "@app\\xff\\n"),
        ] {
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn the_kernel_chooses_port_0_only() {
        assert!(tcp("0.0.0.0:0").is_port_0());
        assert!(!tcp("0.0.0.0:1").is_port_0());
        assert!(!Address::UnixPath(PathBuf::new()).is_port_0());
        assert!(!Address::UnixAbstract(Vec::new()).is_port_0());
    }

    #[test]
    fn every_address_is_deserialized_as_it_was_serialized() {
        let scoped = SocketAddrV6::new("fe80::1".parse().unwrap(), 443, 0xabcde, 7).into();
        let odd_path = PathBuf::from(OsString::from_vec(b"/tmp/\xff".to_vec()));
        for address in [
            tcp("10.0.0.1:65535"),
            Address::Tcp { address: scoped, v6_only: true },
            Address::UnixPath(odd_path.clone()),
            Address::UnixAbstract(vec![0, 255]),
            Address::Udp { address: scoped, v6_only: false },
            Address::DatagramPath(odd_path),
            Address::DatagramAbstract(vec![255]),
            Address::Inherited("web".to_owned()),
        ] {
            assert_eq!(Address::from(Wire::from(address.clone())), address);
        }
    }
}
