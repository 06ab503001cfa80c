//! The network interfaces of this machine and their addresses.

use std::net::IpAddr;

use sys::host::interfaces::{Value, addresses};

use crate::Error;

/// A network interface that is up and running.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NetworkInterface {
    /// The name of the interface: `eth0`.
    pub name: String,
    /// The addresses of the interface, in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// The mask of the address bits that name the network.
    pub netmask: IpAddr,
    /// The hardware address of the interface; zeros where the interface has none, or one that is
    /// not six bytes long.
    pub mac: [u8; 6],
    /// Whether the interface is a loopback interface, which no other machine reaches.
    pub internal: bool,
    /// The number of bits that name the network: the 24 of `192.0.2.2/24`. `None` where the netmask
    /// has gaps.
    pub prefix_bits: Option<u32>,
    /// The scope of an IPv6 address: the number of the interface for a link-local address, else 0.
    /// `None` for IPv4.
    #[doc(alias = "scopeid")]
    pub scope_id: Option<u32>,
}

impl InterfaceAddress {
    fn new(address: IpAddr, netmask: IpAddr, mac: [u8; 6], internal: bool, scope: u32) -> Self {
        let scope_id = address.is_ipv6().then_some(scope);
        Self { address, netmask, mac, internal, prefix_bits: prefix_bits(netmask), scope_id }
    }

    /// Returns the family of the address: `IPv4` or `IPv6`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        if self.address.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// Returns the address with its prefix length: `192.0.2.2/24`. `None` where the netmask has
    /// gaps.
    ///
    /// Node: overlooks a gap that `::` stands for, and returns a prefix of 16 bits for `::ffff`.
    #[must_use]
    pub fn cidr(&self) -> Option<String> {
        self.prefix_bits.map(|bits| format!("{}/{bits}", text(self.address)))
    }

    /// Returns the hardware address as text: `02:fc:00:00:00:01`.
    #[must_use]
    pub fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Serializes in Node's shape: `address`, `netmask`, `family`, `mac`, `internal`, `cidr`, and
/// `scopeid` for IPv6.
#[cfg(feature = "serde")]
impl serde::Serialize for InterfaceAddress {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        use serde::ser::SerializeMap;
        let mut map = serializer.serialize_map(Some(6 + usize::from(self.scope_id.is_some())))?;
        map.serialize_entry("address", &text(self.address))?;
        map.serialize_entry("netmask", &text(self.netmask))?;
        map.serialize_entry("family", self.family())?;
        map.serialize_entry("mac", &self.mac_text())?;
        map.serialize_entry("internal", &self.internal)?;
        map.serialize_entry("cidr", &self.cidr())?;
        if let Some(scope) = self.scope_id {
            map.serialize_entry("scopeid", &scope)?;
        }
        map.end()
    }
}

/// Lists the interfaces that are up and running and have an address, in the kernel's order.
///
/// ```
/// for interface in brood_os_info::network_interfaces()? {
///     for address in interface.addresses {
///         println!("{} {} {}", interface.name, address.address, address.mac_text());
///     }
/// }
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// The error of `getifaddrs(3)`.
#[doc(alias = "networkInterfaces")]
pub fn network_interfaces() -> Result<Vec<NetworkInterface>, Error> {
    let mut links: Vec<(Vec<u8>, [u8; 6])> = Vec::new();
    let mut found: Vec<NetworkInterface> = Vec::new();
    addresses(|entry| match entry.value {
        Value::Link(mac) => links.push((entry.name.to_vec(), mac)),
        Value::Ip(address, netmask, scope) => {
            // An alias such as `eth0:1` has the hardware address of its interface.
            let base = entry.name.split(|byte| *byte == b':').next().unwrap_or_default();
            let link = links.iter().find(|(name, _)| name == base);
            let mac = link.map_or([0; 6], |(_, mac)| *mac);
            let address = InterfaceAddress::new(address, netmask, mac, entry.internal, scope);
            match found.iter_mut().find(|known| known.name.as_bytes() == entry.name) {
                Some(known) => known.addresses.push(address),
                None => found.push(NetworkInterface {
                    name: String::from_utf8_lossy(entry.name).into_owned(),
                    addresses: vec![address],
                }),
            }
        }
    })
    .map_err(|error| Error::os("getifaddrs", error))?;
    Ok(found)
}

/// Writes the address as `inet_ntop(3)` does.
///
/// `inet_ntop` writes the last 32 bits of an IPv6 address with dots when all other bits are zero.
/// The standard library does so for addresses such as `::ffff:192.0.2.2` only.
fn text(address: IpAddr) -> String {
    match address {
        // Addresses below 2¹⁶, such as `::` and `::1`, have no dots.
        IpAddr::V6(six) if (1 << 16..1 << 32).contains(&six.to_bits()) => {
            let [.., a, b, c, d] = six.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        _ => address.to_string(),
    }
}

/// Returns the number of leading ones of the mask, if only zeros follow.
fn prefix_bits(mask: IpAddr) -> Option<u32> {
    let (bits, width) = match mask {
        IpAddr::V4(mask) => (u128::from(mask.to_bits()) << 96, 32),
        IpAddr::V6(mask) => (mask.to_bits(), 128),
    };
    let ones = bits.leading_ones().min(width);
    (bits.count_ones() == ones).then_some(ones)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_known_where_the_mask_has_no_gaps() {
        for (mask, expected) in [
            ("255.255.255.0", Some(24)),
            ("255.255.255.255", Some(32)),
            ("0.0.0.0", Some(0)),
            ("255.0.255.0", None),
            ("0.0.0.1", None),
            ("ffff:ffff:ffff:ffff::", Some(64)),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Some(128)),
            ("::", Some(0)),
            ("ffff::1", None),
        ] {
            assert_eq!(prefix_bits(mask.parse().unwrap()), expected, "{mask}");
        }
    }

    #[test]
    fn addresses_are_written_as_inet_ntop_writes_them() {
        for (address, expected) in [
            ("::", "::"),
            ("::1", "::1"),
            ("::1234", "::1234"),
            ("::102:304", "::1.2.3.4"),
            ("::102:0", "::1.2.0.0"),
            ("::1:2", "::0.1.0.2"),
            ("::1:0:0", "::1:0:0"),
            ("::ffff:102:304", "::ffff:1.2.3.4"),
            ("::ffff:0:0", "::ffff:0.0.0.0"),
            ("2001:db8::1", "2001:db8::1"),
            ("192.0.2.2", "192.0.2.2"),
        ] {
            assert_eq!(text(address.parse().unwrap()), expected, "{address}");
        }
        let (address, mask) = ("::102:304".parse().unwrap(), "ffff::".parse().unwrap());
        let address = InterfaceAddress::new(address, mask, [0; 6], false, 0);
        assert_eq!(address.cidr().as_deref(), Some("::1.2.3.4/16"));
    }

    #[test]
    fn only_ipv6_has_a_scope_and_a_mask_with_gaps_has_no_cidr() {
        let new = |address: &str, mask: &str| {
            InterfaceAddress::new(address.parse().unwrap(), mask.parse().unwrap(), [2; 6], false, 4)
        };
        let four = new("192.0.2.2", "255.0.255.0");
        assert_eq!((four.family(), four.cidr(), four.scope_id), ("IPv4", None, None));
        let six = new("fe80::1", "ffff:ffff:ffff:ffff::");
        assert_eq!((six.cidr().as_deref(), six.scope_id), (Some("fe80::1/64"), Some(4)));
        assert_eq!(six.mac_text(), "02:02:02:02:02:02");
    }
}
