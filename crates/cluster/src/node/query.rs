//! The target of a Node worker's request to listen, and its translation to an [`Address`].
//!
//! Node sends the arguments of the call: a missing host is every address of both families. The
//! messages that follow repeat the request and do not name the socket, so a request is kept to
//! recognise them.
//!
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::path::PathBuf;

use sys::errno::EINVAL;

use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;

use super::wire::Message;

/// The flag of `ipv6Only`.
pub(super) const IPV6_ONLY: i64 = 1;
/// The flag of `reuseAddr`, for UDP.
pub(super) const REUSE_ADDRESS: i64 = 4;

/// The target of a request to listen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Target {
    Address(Address),
    /// `{ fd }`: the socket with this descriptor number in the primary.
    Descriptor {
        number: i32,
        /// Whether the socket is for datagrams; otherwise it listens, or can be made to listen.
        datagrams: bool,
    },
}

/// The arguments of a request to listen, as the worker sent them.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Query {
    index: Option<i64>,
    address: Option<String>,
    port: Option<i64>,
    address_type: Option<String>,
    fd: Option<i64>,
    flags: Option<i64>,
    backlog: Option<i64>,
    readable_all: bool,
    writable_all: bool,
}

impl Query {
    /// Copies the arguments out of a message.
    pub(crate) fn of(message: &Message) -> Self {
        Self {
            index: message.index,
            address: message.address.clone(),
            port: message.port,
            address_type: message.address_type.clone(),
            fd: message.fd.filter(|fd| *fd >= 0),
            flags: message.flags,
            backlog: message.backlog,
            readable_all: message.readable_all == Some(true),
            writable_all: message.writable_all == Some(true),
        }
    }

    /// Returns whether a later message repeats this request. The later message names the real port
    /// where the request named port 0.
    pub(crate) fn is_repeated_by(&self, later: &Self) -> bool {
        let port = self.port.unwrap_or(0) == 0 || self.port == later.port;
        port && self.index == later.index
            && self.address == later.address
            && self.address_type == later.address_type
            && self.fd == later.fd
    }

    /// Returns the target. A missing host means the addresses of both families, or without
    /// `ipv6` those of IPv4.
    ///
    /// # Errors
    ///
    /// `EINVAL` when the arguments mean no target.
    pub(crate) fn target(&self, ipv6: bool) -> Result<Target, i32> {
        let kind = self.address_type.as_deref();
        if let Some(fd) = self.fd {
            let number = i32::try_from(fd).map_err(|_| EINVAL)?;
            return Ok(Target::Descriptor { number, datagrams: kind.is_some() });
        }
        let address = match kind {
            Some("-1") => self.unix_address()?,
            Some("4" | "6") => {
                let address = self.ip_address(ipv6)?;
                Address::Tcp { address, v6_only: self.is_v6_only(address) }
            }
            Some(kind @ ("udp4" | "udp6")) => {
                let v6 = kind == "udp6";
                let address = self.ip_address(v6)?;
                if address.is_ipv6() != v6 {
                    return Err(EINVAL);
                }
                Address::Udp { address, v6_only: self.is_v6_only(address) }
            }
            _ => return Err(EINVAL),
        };
        Ok(Target::Address(address))
    }

    /// Returns the options. A backlog of 0 means the default, which is the same in Node and here.
    pub(crate) fn options(&self) -> ListenOptions {
        let options = ListenOptions::new()
            .readable_all(self.readable_all)
            .writable_all(self.writable_all)
            .reuse_address(self.flag(REUSE_ADDRESS));
        match self.backlog.and_then(|backlog| u32::try_from(backlog).ok()) {
            Some(backlog) if backlog > 0 => options.backlog(backlog),
            Some(_) | None => options,
        }
    }

    fn is_v6_only(&self, address: SocketAddr) -> bool {
        address.is_ipv6() && self.flag(IPV6_ONLY)
    }

    fn flag(&self, flag: i64) -> bool {
        self.flags.unwrap_or(0) & flag != 0
    }

    fn unix_address(&self) -> Result<Address, i32> {
        let path = self.address.as_deref().filter(|path| !path.is_empty()).ok_or(EINVAL)?;
        Ok(match path.strip_prefix('\0') {
            Some(name) => Address::UnixAbstract(name.as_bytes().to_vec()),
            None => Address::UnixPath(PathBuf::from(path)),
        })
    }

    fn ip_address(&self, ipv6: bool) -> Result<SocketAddr, i32> {
        let port = u16::try_from(self.port.unwrap_or(0)).map_err(|_| EINVAL)?;
        let Some(host) = self.address.as_deref() else {
            let any: IpAddr =
                if ipv6 { Ipv6Addr::UNSPECIFIED.into() } else { Ipv4Addr::UNSPECIFIED.into() };
            return Ok(SocketAddr::new(any, port));
        };
        // Node writes a scope as the system does: by number, or by a name that is not resolved here.
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

    fn tcp(text: &str, v6_only: bool) -> Result<Target, i32> {
        Ok(Target::Address(Address::Tcp { address: text.parse().unwrap(), v6_only }))
    }

    fn udp(text: &str, v6_only: bool) -> Result<Target, i32> {
        Ok(Target::Address(Address::Udp { address: text.parse().unwrap(), v6_only }))
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
                Ok(Target::Address(Address::UnixPath("/tmp/x.sock".into()))),
            ),
            (
                r#""address":"\u0000name","port":-1,"addressType":-1"#,
                Ok(Target::Address(Address::UnixAbstract(b"name".to_vec()))),
            ),
            (
                r#""address":"0.0.0.0","port":0,"addressType":"udp4","fd":-1,"flags":0"#,
                udp("0.0.0.0:0", false),
            ),
            (
                r#""address":"::","port":5353,"addressType":"udp6","fd":-1,"flags":5"#,
                udp("[::]:5353", true),
            ),
            (r#""address":"::1","port":1,"addressType":"udp4""#, Err(EINVAL)),
            (
                r#""address":null,"port":null,"addressType":null,"fd":7"#,
                Ok(Target::Descriptor { number: 7, datagrams: false }),
            ),
            (
                r#""address":null,"port":null,"addressType":"udp4","fd":9,"flags":null"#,
                Ok(Target::Descriptor { number: 9, datagrams: true }),
            ),
            (r#""fd":3000000000"#, Err(EINVAL)),
            (r#""address":null,"port":70000,"addressType":4"#, Err(EINVAL)),
            (r#""address":"a host","port":1,"addressType":4"#, Err(EINVAL)),
            (r#""address":null,"port":-1,"addressType":-1"#, Err(EINVAL)),
            (r#""address":"fe80::1%eth0","port":1,"addressType":6"#, Err(EINVAL)),
            (r#""port":1"#, Err(EINVAL)),
        ] {
            assert_eq!(query(text).target(true), address, "{text}");
        }
        let everywhere = query(r#""address":null,"port":80,"addressType":4"#);
        assert_eq!(everywhere.target(false), tcp("0.0.0.0:80", false));
        let scoped = query(r#""address":"fe80::1%3","port":1,"addressType":6"#).target(true);
        let ip = "fe80::1".parse().unwrap();
        let address = SocketAddrV6::new(ip, 1, 0, 3).into();
        assert_eq!(scoped, Ok(Target::Address(Address::Tcp { address, v6_only: false })));
    }

    #[test]
    fn all_other_arguments_are_options() {
        let options = |text: &str| query(text).options();
        let plain = ListenOptions::new();
        assert_eq!(options(r#""backlog":0"#), plain);
        assert_eq!(options(r#""backlog":5,"flags":1"#), plain.clone().backlog(5));
        assert_eq!(options(r#""flags":5"#), plain.clone().reuse_address(true));
        let all = r#""readableAll":true,"writableAll":true"#;
        assert_eq!(options(all), plain.readable_all(true).writable_all(true));
    }

    #[test]
    fn a_later_message_repeats_the_request_with_the_real_port() {
        let first = query(r#""address":null,"port":0,"addressType":4,"index":0"#);
        let second = query(r#""address":null,"port":0,"addressType":4,"index":1"#);
        let fixed = query(r#""address":null,"port":80,"addressType":4,"index":0"#);
        let later = query(r#""address":null,"port":4001,"addressType":4,"index":1"#);
        assert!(!first.is_repeated_by(&later) && second.is_repeated_by(&later));
        assert!(!fixed.is_repeated_by(&later) && fixed.is_repeated_by(&fixed));
        let local = query(r#""address":"::1","port":0,"addressType":4,"index":1"#);
        assert!(!local.is_repeated_by(&later));
    }
}
