//! The addresses of the network interfaces.

use std::ffi::CStr;
use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::ptr;

/// One address of an interface that is up and running.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address<'a> {
    /// The name of the interface: `eth0`.
    pub name: &'a [u8],
    /// Whether the interface is the loopback interface.
    pub internal: bool,
    /// The address.
    pub value: Value,
}

/// An address of an interface.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// The hardware address; zeros if the interface has none, or a longer one.
    Link([u8; 6]),
    /// An IP address, its netmask, and the scope of an IPv6 address (0 otherwise).
    Ip(IpAddr, IpAddr, u32),
}

/// Calls `each` for every address of the interfaces that are up and running, in the kernel's
/// order: the hardware addresses first.
///
/// # Errors
///
/// As `getifaddrs(3)`.
pub fn addresses(mut each: impl FnMut(Address<'_>)) -> io::Result<()> {
    let mut list = ptr::null_mut();
    // SAFETY: the call writes one pointer, to the list that `List` frees.
    crate::fd::cvt(unsafe { libc::getifaddrs(&raw mut list) })?;
    let list = List(list);
    let mut next = list.0;
    // SAFETY: the list is whole and lives until `list` is dropped; its end is null.
    while let Some(entry) = unsafe { next.as_ref() } {
        next = entry.ifa_next;
        let wanted = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_uint;
        if entry.ifa_flags & wanted != wanted || entry.ifa_addr.is_null() {
            continue;
        }
        if let Some(value) = value(entry) {
            // SAFETY: a name is a string that ends with a zero and lives as long as the list.
            let name = unsafe { CStr::from_ptr(entry.ifa_name) }.to_bytes();
            let internal = entry.ifa_flags & libc::IFF_LOOPBACK as libc::c_uint != 0;
            each(Address { name, internal, value });
        }
    }
    Ok(())
}

fn value(entry: &libc::ifaddrs) -> Option<Value> {
    // SAFETY: the caller saw that the address is not null, and every address has a family.
    let family = i32::from(unsafe { (*entry.ifa_addr).sa_family });
    match family {
        libc::AF_PACKET => {
            // SAFETY: an address of this family is a `sockaddr_ll`; it may be at any alignment.
            let link = unsafe { entry.ifa_addr.cast::<libc::sockaddr_ll>().read_unaligned() };
            let [a, b, c, d, e, f, ..] = link.sll_addr;
            let fits = usize::from(link.sll_halen) <= 6;
            Some(Value::Link(if fits { [a, b, c, d, e, f] } else { [0; 6] }))
        }
        libc::AF_INET => {
            let (address, _) = ip(entry.ifa_addr)?;
            let mask = ip(entry.ifa_netmask).map_or(Ipv4Addr::UNSPECIFIED.into(), |ip| ip.0);
            Some(Value::Ip(address, mask, 0))
        }
        libc::AF_INET6 => {
            let (address, scope) = ip(entry.ifa_addr)?;
            let mask = ip(entry.ifa_netmask).map_or(Ipv6Addr::UNSPECIFIED.into(), |ip| ip.0);
            Some(Value::Ip(address, mask, scope))
        }
        _ => None,
    }
}

fn ip(address: *const libc::sockaddr) -> Option<(IpAddr, u32)> {
    // SAFETY: the pointer is null or leads to an address of the list, and each has a family.
    let family = i32::from(unsafe { address.as_ref() }?.sa_family);
    match family {
        libc::AF_INET => {
            // SAFETY: an address of this family is a `sockaddr_in`.
            let inet = unsafe { address.cast::<libc::sockaddr_in>().read_unaligned() };
            Some((Ipv4Addr::from(u32::from_be(inet.sin_addr.s_addr)).into(), 0))
        }
        libc::AF_INET6 => {
            // SAFETY: an address of this family is a `sockaddr_in6`.
            let inet = unsafe { address.cast::<libc::sockaddr_in6>().read_unaligned() };
            Some((Ipv6Addr::from(inet.sin6_addr.s6_addr).into(), inet.sin6_scope_id))
        }
        _ => None,
    }
}

struct List(*mut libc::ifaddrs);

impl Drop for List {
    fn drop(&mut self) {
        // SAFETY: the list came from `getifaddrs` and is freed once.
        unsafe { libc::freeifaddrs(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hardware_addresses_come_before_the_others() {
        let mut links_are_over = false;
        addresses(|address| {
            let link = matches!(address.value, Value::Link(_));
            assert!(!link || !links_are_over);
            assert!(!address.name.is_empty());
            links_are_over |= !link;
        })
        .unwrap();
    }
}
