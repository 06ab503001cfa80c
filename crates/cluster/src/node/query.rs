//! Where a Node worker wants to listen, and how that reads as an [`Address`].
//!
//! Node says it in the words of the call: a missing host is every address of both families, and
//! what comes back names the wish again, not the socket. So a wish is remembered to be recognised.
//!
//! Pure.

use core::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use crate::address::Address;

use super::wire::Message;

/// Not understood, or not possible here.
pub(crate) const EINVAL: i32 = 22;
/// A descriptor of the primary that it does not have.
pub(crate) const EBADF: i32 = 9;

/// The flag of `ipv6Only`.
const IPV6_ONLY: i64 = 1;

/// A wish to listen, as its worker put it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    index: Option<i64>,
    address: Option<String>,
    port: Option<i64>,
    address_type: Option<String>,
    fd: Option<i64>,
    flags: Option<i64>,
}

impl Query {
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            index: message.index,
            address: message.address.clone(),
            port: message.port,
            address_type: message.address_type.clone(),
            fd: message.fd.filter(|fd| *fd >= 0),
            flags: message.flags,
        }
    }

    /// Whether `news` that a server listens are news of this wish: they repeat it, with the real
    /// port in place of the one asked for.
    pub(crate) fn is_meant_by(&self, news: &Self) -> bool {
        let port = self.port.unwrap_or(0) == 0 || self.port == news.port;
        port && self.index == news.index
            && self.address == news.address
            && self.address_type == news.address_type
            && self.fd == news.fd
    }

    /// The address, or an errno. Where no host is named it is that of both families, or without
    /// `ipv6` of the only one.
    pub(crate) fn to_address(&self, ipv6: bool) -> Result<Address, i32> {
        if self.fd.is_some() {
            return Err(EBADF);
        }
        match self.address_type.as_deref() {
            Some("-1") => self.unix(),
            Some("4" | "6") => {
                let address = self.internet(ipv6)?;
                let v6_only = address.is_ipv6() && self.flags.unwrap_or(0) & IPV6_ONLY != 0;
                Ok(Address::Tcp { address, v6_only })
            }
            _ => Err(EINVAL),
        }
    }

    fn unix(&self) -> Result<Address, i32> {
        let path = self.address.as_deref().filter(|path| !path.is_empty()).ok_or(EINVAL)?;
        Ok(match path.strip_prefix('\0') {
            Some(name) => Address::UnixAbstract(name.as_bytes().to_vec()),
            None => Address::UnixPath(PathBuf::from(path)),
        })
    }

    fn internet(&self, ipv6: bool) -> Result<SocketAddr, i32> {
        let port = u16::try_from(self.port.unwrap_or(0)).map_err(|_| EINVAL)?;
        let Some(host) = self.address.as_deref() else {
            let any: IpAddr =
                if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            return Ok(SocketAddr::new(any, port));
        };
        // Node shows a scope as the system does: by number, or by a name that means nothing here.
        let (host, scope) = match host.split_once('%') {
            Some((host, scope)) => (host, scope.parse::<u32>().map_err(|_| EINVAL)?),
            None => (host, 0),
        };
        match host.parse().map_err(|_| EINVAL)? {
            IpAddr::V4(ip) => Ok(SocketAddr::from((ip, port))),
            IpAddr::V6(ip) => Ok(SocketAddrV6::new(ip, port, 0, scope).into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Query {
        Query::of(&serde_json::from_str(&format!("{{{text}}}")).unwrap())
    }

    fn tcp(text: &str, v6_only: bool) -> Result<Address, i32> {
        Ok(Address::Tcp { address: text.parse().unwrap(), v6_only })
    }

    #[test]
    fn every_call_of_node_means_an_address() {
        for (text, address) in [
            (r#""address":null,"port":8124,"addressType":4,"backlog":0"#, tcp("[::]:8124", false)),
            (
                r#""address":"127.0.0.1","port":0,"addressType":4,"flags":0"#,
                tcp("127.0.0.1:0", false),
            ),
            (r#""address":"::","port":0,"addressType":6,"flags":1"#, tcp("[::]:0", true)),
            (r#""address":"::1","port":80,"addressType":6"#, tcp("[::1]:80", false)),
            (
                r#""address":"/tmp/x.sock","port":-1,"addressType":-1"#,
                Ok(Address::UnixPath("/tmp/x.sock".into())),
            ),
            (
                r#""address":"\u0000name","port":-1,"addressType":-1"#,
                Ok(Address::UnixAbstract(b"name".to_vec())),
            ),
            (r#""address":null,"port":null,"addressType":null,"fd":7"#, Err(EBADF)),
            (r#""address":null,"port":70000,"addressType":4"#, Err(EINVAL)),
            (r#""address":"a host","port":1,"addressType":4"#, Err(EINVAL)),
            (r#""address":null,"port":-1,"addressType":-1"#, Err(EINVAL)),
            (r#""address":"fe80::1%eth0","port":1,"addressType":6"#, Err(EINVAL)),
            (r#""port":1"#, Err(EINVAL)),
        ] {
            assert_eq!(query(text).to_address(true), address, "{text}");
        }
        let everywhere = query(r#""address":null,"port":80,"addressType":4"#);
        assert_eq!(everywhere.to_address(false), tcp("0.0.0.0:80", false));
        let scoped = query(r#""address":"fe80::1%3","port":1,"addressType":6"#).to_address(true);
        let ip = "fe80::1".parse().unwrap();
        let address = SocketAddrV6::new(ip, 1, 0, 3).into();
        assert_eq!(scoped, Ok(Address::Tcp { address, v6_only: false }));
    }

    #[test]
    fn news_of_a_server_name_its_wish() {
        let first = query(r#""address":null,"port":0,"addressType":4,"index":0"#);
        let second = query(r#""address":null,"port":0,"addressType":4,"index":1"#);
        let fixed = query(r#""address":null,"port":80,"addressType":4,"index":0"#);
        let news = query(r#""address":null,"port":4001,"addressType":4,"index":1"#);
        assert!(!first.is_meant_by(&news) && second.is_meant_by(&news));
        assert!(!fixed.is_meant_by(&news) && fixed.is_meant_by(&fixed));
        let local = query(r#""address":"::1","port":0,"addressType":4,"index":1"#);
        assert!(!local.is_meant_by(&news));
    }
}
