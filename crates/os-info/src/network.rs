//! The addresses by which this machine is reached.

use crate::Error;
use std::net::IpAddr;
use sys::host::interfaces::{Value, addresses};

/// A network interface that is up and running.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize))]
#[non_exhaustive]
pub struct NetworkInterface {
    /// Its name: `eth0`.
    pub name: String,
    /// Its addresses, in the kernel's order.
    pub addresses: Vec<InterfaceAddress>,
}

/// One address of an interface.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct InterfaceAddress {
    /// The address.
    pub address: IpAddr,
    /// Which bits of it name the network.
    pub netmask: IpAddr,
    /// The interface's hardware address; zeros where it has none, or one of another length.
    pub mac: [u8; 6],
    /// Whether it is the loopback interface, which no other machine reaches.
    pub internal: bool,
    /// How many bits name the network, where they are the first ones: the 24 of `192.0.2.2/24`.
    pub prefix_bits: Option<u32>,
    /// The scope of an IPv6 address: the number of its interface for a link-local one, or 0.
    #[doc(alias = "scopeid")]
    pub scope_id: Option<u32>,
}

impl InterfaceAddress {
    fn new(address: IpAddr, netmask: IpAddr, mac: [u8; 6], internal: bool, scope: u32) -> Self {
        let scope_id = address.is_ipv6().then_some(scope);
        Self { address, netmask, mac, internal, prefix_bits: prefix_bits(netmask), scope_id }
    }

    /// `IPv4` or `IPv6`.
    #[must_use]
    pub fn family(&self) -> &'static str {
        if self.address.is_ipv4() { "IPv4" } else { "IPv6" }
    }

    /// The address with its network: `192.0.2.2/24`; nothing where the netmask has gaps.
    ///
    /// Node: overlooks a gap that `::` stands for, and gives `::ffff` 16 bits of prefix.
    #[must_use]
    pub fn cidr(&self) -> Option<String> {
        self.prefix_bits.map(|bits| format!("{}/{bits}", text(self.address)))
    }

    /// The hardware address as text: `02:fc:00:00:00:01`.
    #[must_use]
    pub fn mac_text(&self) -> String {
        let [a, b, c, d, e, f] = self.mac;
        format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}")
    }
}

/// Node's shape: `address`, `netmask`, `family`, `mac`, `internal`, `cidr`, and `scopeid` for
/// IPv6.
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
/// for interface in os_info::network_interfaces()? {
///     for address in interface.addresses {
///         println!("{} {} {}", interface.name, address.address, address.mac_text());
///     }
/// }
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// What `getifaddrs(3)` answers.
#[doc(alias = "networkInterfaces")]
pub fn network_interfaces() -> Result<Vec<NetworkInterface>, Error> {
    let mut links: Vec<(Vec<u8>, [u8; 6])> = Vec::new();
    let mut found: Vec<NetworkInterface> = Vec::new();
    addresses(|entry| match entry.value {
        Value::Link(mac) => links.push((entry.name.to_vec(), mac)),
        Value::Ip(address, netmask, scope) => {
            // An alias, `eth0:1`, has the hardware address of its interface.
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

/// The address as `inet_ntop(3)` writes it: an IPv6 address that holds one of IPv4 in its last 32
/// bits alone has these dotted, which the standard library does for `::ffff:192.0.2.2` only.
fn text(address: IpAddr) -> String {
    match address {
        // Of `::`, `::1` and its like, zeros are most: they stay short.
        IpAddr::V6(six) if (1 << 16..1 << 32).contains(&six.to_bits()) => {
            let [.., a, b, c, d] = six.octets();
            format!("::{a}.{b}.{c}.{d}")
        }
        _ => address.to_string(),
    }
}

/// The ones at the start of the mask, where nothing but zeros follows.
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
