//! The number by which the scheduler recognises a client: a hash of its IP address.
//!
//! Pure.

use std::net::IpAddr;

use crate::contract::ClientAffinity;
use crate::protocol::client_hash::mix;
use crate::protocol::hand_off_queue::Connection;

impl ClientAffinity for Connection {
    /// Hashes the IP address alone, because a client has another port for each connection. An IPv4
    /// address has the same hash in its IPv6 form.
    fn affinity(&self) -> Option<u64> {
        let ip = u128::from(match self.peer?.ip().to_canonical() {
            IpAddr::V4(ip) => ip.to_ipv6_mapped(),
            IpAddr::V6(ip) => ip,
        });
        let [high, low] = [ip >> 64, ip & u128::from(u64::MAX)];
        let half = |half| u64::try_from(half).unwrap_or_default();
        Some(mix(mix(half(high)) ^ half(low)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from(peer: Option<&str>) -> Connection {
        let (socket, _) = sys::socket::pair_stream().unwrap();
        Connection { socket, peer: peer.map(|peer| peer.parse().unwrap()) }
    }

    #[test]
    fn a_client_is_recognised_by_its_ip_address_in_either_form() {
        let client = |peer| from(Some(peer)).affinity().unwrap();
        assert_eq!(client("192.0.2.7:1000"), client("192.0.2.7:2000"));
        assert_eq!(client("192.0.2.7:1000"), client("[::ffff:192.0.2.7]:1000"), "a dual stack");
        assert_ne!(client("192.0.2.7:1000"), client("192.0.2.8:1000"));
        assert_eq!(client("[2001:db8::1]:1000"), client("[2001:db8::1]:2000"));
        assert_ne!(client("[2001:db8::1]:1000"), client("[2001:db8::2]:1000"));
        assert_ne!(client("[2001:db8:1::1]:1000"), client("[2001:db8:2::1]:1000"));
        assert_eq!(from(None).affinity(), None, "a Unix socket has none");
    }
}
