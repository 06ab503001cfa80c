//! Addresses that a cluster can listen on.
//!
//! A value, not a socket: nothing is resolved or opened here. It travels between primary and
//! workers, so its serialized form keeps everything, a scope id or a path that is no text too.
//!
//! Pure.

use core::fmt;
use core::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

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
}

impl Address {
    /// Whether the kernel chooses the port.
    pub(crate) fn is_port_0(&self) -> bool {
        match self {
            Self::Tcp { address, .. } => address.port() == 0,
            Self::UnixPath(_) | Self::UnixAbstract(_) => false,
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { address, .. } => address.fmt(f),
            Self::UnixPath(path) => path.display().fmt(f),
            Self::UnixAbstract(name) => write!(f, "@{}", name.escape_ascii()),
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
    Tcp { ip: IpAddr, port: u16, flow: u32, scope: u32, v6_only: bool },
    UnixPath(Vec<u8>),
    UnixAbstract(Vec<u8>),
}

impl From<Address> for Wire {
    fn from(address: Address) -> Self {
        match address {
            Address::Tcp { address, v6_only } => {
                let (flow, scope) = match address {
                    SocketAddr::V4(_) => (0, 0),
                    SocketAddr::V6(v6) => (v6.flowinfo(), v6.scope_id()),
                };
                Self::Tcp { ip: address.ip(), port: address.port(), flow, scope, v6_only }
            }
            Address::UnixPath(path) => Self::UnixPath(path.into_os_string().into_vec()),
            Address::UnixAbstract(name) => Self::UnixAbstract(name),
        }
    }
}

impl From<Wire> for Address {
    fn from(wire: Wire) -> Self {
        match wire {
            Wire::Tcp { ip, port, flow, scope, v6_only } => {
                let address = match ip {
                    IpAddr::V4(_) => SocketAddr::new(ip, port),
                    IpAddr::V6(ip) => SocketAddrV6::new(ip, port, flow, scope).into(),
                };
                Self::Tcp { address, v6_only }
            }
            Wire::UnixPath(path) => Self::UnixPath(OsString::from_vec(path).into()),
            Wire::UnixAbstract(name) => Self::UnixAbstract(name),
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
            Address::UnixPath(odd_path),
            Address::UnixAbstract(vec![0, 255]),
        ] {
            assert_eq!(Address::from(Wire::from(address.clone())), address);
        }
    }
}
