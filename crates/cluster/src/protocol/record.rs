//! The records of a hand-off queue: the bytes of each packet.
//!
//! A record is one packet of [`RECORD_BYTES`] bytes. All have the same length, so the unread bytes
//! of a queue divided by that length are the unread records. The record of a connection has the
//! address of the peer, which saves the worker a system call. A probe has no content: the primary
//! only observes whether the worker reads it.
//!
//! Pure.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6};

/// The length of every record.
pub(crate) const RECORD_BYTES: usize = 32;

const KIND_CONNECTION: u8 = 1;
const KIND_PROBE: u8 = 2;
const FAMILY_NONE: u8 = 0;
const FAMILY_V4: u8 = 4;
const FAMILY_V6: u8 = 6;

/// The content of one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Record {
    /// A connection, whose descriptor is in the same packet. The peer of a Unix socket has no
    /// address.
    Connection(Option<SocketAddr>),
    /// A packet without a connection, which shows whether the worker reads its queue.
    Probe,
}

impl Record {
    /// Encodes the record. Layout: kind, family, port (2), flow info (4), scope (4), address (16), zeros (4).
    pub(crate) fn encode(self) -> [u8; RECORD_BYTES] {
        let mut bytes = [0; RECORD_BYTES];
        let Self::Connection(peer) = self else {
            bytes[0] = KIND_PROBE;
            return bytes;
        };
        bytes[0] = KIND_CONNECTION;
        let Some(peer) = peer else { return bytes };
        bytes[2..4].copy_from_slice(&peer.port().to_be_bytes());
        match peer {
            SocketAddr::V4(v4) => {
                bytes[1] = FAMILY_V4;
                bytes[12..16].copy_from_slice(&v4.ip().octets());
            }
            SocketAddr::V6(v6) => {
                bytes[1] = FAMILY_V6;
                bytes[4..8].copy_from_slice(&v6.flowinfo().to_be_bytes());
                bytes[8..12].copy_from_slice(&v6.scope_id().to_be_bytes());
                bytes[12..28].copy_from_slice(&v6.ip().octets());
            }
        }
        bytes
    }

    /// Decodes a packet; `None` when it is not a record.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; RECORD_BYTES] = bytes.try_into().ok()?;
        match bytes[0] {
            KIND_PROBE => return Some(Self::Probe),
            KIND_CONNECTION => {}
            _ => return None,
        }
        let port = u16::from_be_bytes([bytes[2], bytes[3]]);
        let word = |at: usize| {
            u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
        };
        let peer = match bytes[1] {
            FAMILY_NONE => None,
            FAMILY_V4 => Some(SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::from(word(12)), port))),
            FAMILY_V6 => {
                let octets: [u8; 16] = bytes[12..28].try_into().ok()?;
                let ip = Ipv6Addr::from(octets);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, word(4), word(8))))
            }
            _ => return None,
        };
        Some(Self::Connection(peer))
    }
}

/// Returns the address that is used for a peer without one: 0.0.0.0, port 0.
pub(crate) fn no_address() -> SocketAddr {
    SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_record_is_decoded_as_it_was_encoded() {
        let records = [
            Record::Probe,
            Record::Connection(None),
            Record::Connection(Some("127.0.0.1:1".parse().unwrap())),
            Record::Connection(Some("255.254.253.252:65535".parse().unwrap())),
            Record::Connection(Some("[::1]:8000".parse().unwrap())),
            Record::Connection(Some(SocketAddr::V6(SocketAddrV6::new(
                "fe80::1:2:3".parse().unwrap(),
                443,
                0x000a_bcde,
                7,
            )))),
        ];
        for record in records {
            assert_eq!(Record::decode(&record.encode()), Some(record));
        }
    }

    #[test]
    fn a_packet_that_is_no_record_is_refused() {
        let good = Record::Connection(Some("127.0.0.1:1".parse().unwrap())).encode();
        assert_eq!(Record::decode(&good[..31]), None);
        assert_eq!(Record::decode(&[]), None);
        for (at, byte) in [(0, 0), (0, 3), (1, 5)] {
            let mut bad = good;
            bad[at] = byte;
            assert_eq!(Record::decode(&bad), None, "byte {at} = {byte}");
        }
    }
}
