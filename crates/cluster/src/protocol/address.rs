//! Addresses that a cluster can listen on.
//!
//! A value, not a socket: nothing is resolved or opened here. It travels between primary and
//! workers, so its serialized form keeps everything, a scope id or a path that is no text too.
//!
//! Pure.

use std::ffi::OsString;
use std::fmt;
use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

use serde::{Deserialize, Serialize};

/// Where a listener listens.
///
/// Its `Display` is what a user would type: `127.0.0.1:8000`, `/run/app.sock`, `@name`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "Wire", into = "Wire")]
#[non_exhaustive]
pub enum Address {
    /// TCP over IPv4 or IPv6; port 0 lets the kernel choose.
    Tcp {
        /// Address and port.
        address: SocketAddr,
        /// For IPv6: takes no IPv4 connections.
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
        /// For IPv6: takes no IPv4 datagrams.
        v6_only: bool,
    },
    /// A Unix datagram socket with this path.
    DatagramPath(PathBuf),
    /// A Unix datagram socket with this name in the abstract namespace, without the leading zero.
    DatagramAbstract(Vec<u8>),
    /// A socket that the primary was given under this name, by
    /// [`Builder::socket`](crate::Builder::socket) or by systemd. What is granted is its address.
    Inherited(String),
}

impl Address {
    /// Whether the kernel chooses the port.
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

    /// Whether there are datagrams instead of connections: the socket is always shared.
    /// Both cannot be open at once, unless they are one: the same port, or the same name.
    pub(crate) fn collides(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp { address: one, .. }, Self::Tcp { address: two, .. })
            | (Self::Udp { address: one, .. }, Self::Udp { address: two, .. }) => {
                one.port() == two.port() && one.port() != 0
            }
            (one, two) => one == two,
        }
    }

    pub(crate) fn is_datagram(&self) -> bool {
        match self {
            Self::Udp { .. } | Self::DatagramPath(_) | Self::DatagramAbstract(_) => true,
            Self::Tcp { .. } | Self::UnixPath(_) | Self::UnixAbstract(_) | Self::Inherited(_) => {
                false
            }
        }
    }
}

/// The shorter of a path and the way to it from this folder; both absolute. A socket's path has
/// room for 107 bytes only.
pub(crate) fn shorter(path: &Path, from: &Path) -> PathBuf {
    let shared = path.components().zip(from.components()).take_while(|(a, b)| a == b).count();
    let up = from.components().skip(shared).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(path.components().skip(shared)).collect();
    let is_shorter = relative.as_os_str().len() < path.as_os_str().len();
    if is_shorter { relative } else { path.to_owned() }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } | Self::Udp { address, .. } => address.fmt(f),
            Self::UnixPath(path) | Self::DatagramPath(path) => path.display().fmt(f),
            Self::UnixAbstract(name) | Self::DatagramAbstract(name) => {
                write!(f, "@{}", name.escape_ascii())
            }
            Self::Inherited(name) => write!(f, "socket '{name}'"),
        }
    }
}

impl From<SocketAddr> for Address {
    /// An IPv6 address takes IPv4 connections too, where its kind allows it.
    fn from(address: SocketAddr) -> Self {
        Self::Tcp { address, v6_only: false }
    }
}

/// What is serialized: serde's own form of a socket address forgets flow and scope, that of a
/// path refuses what is not UTF-8.
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
            (name, "@app\\xff\\n"),
        ] {
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn only_tcp_addresses_let_the_kernel_choose() {
        assert!(tcp("0.0.0.0:0").is_port_0());
        assert!(!tcp("0.0.0.0:1").is_port_0());
        assert!(!Address::UnixPath(PathBuf::new()).is_port_0());
        assert!(!Address::UnixAbstract(Vec::new()).is_port_0());
    }

    #[test]
    fn nothing_is_lost_on_the_wire() {
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

    #[test]
    fn the_shorter_way_to_a_path_is_taken() {
        for (path, from, way) in [
            ("/a/b/c/s", "/a/b/c", "s"),
            ("/a/b/s", "/a/b/c", "../s"),
            ("/s", "/a/b/c", "/s"),
            ("/a/s", "/", "a/s"),
            ("/x/s", "/y", "/x/s"),
        ] {
            assert_eq!(shorter(Path::new(path), Path::new(from)), Path::new(way), "{path} {from}");
        }
    }
}
