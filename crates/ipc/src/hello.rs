//! The handshake: the first frame in each direction names the protocol of its sender.
//!
//! Parent and child may be different builds. A peer with another protocol, codec or application is
//! detected here, before a message is decoded wrongly, by an error that names both sides.
//!
//! ```text
//! protocol u16 · codec u8 · 0 u8 · capabilities u32 · tag (the rest, UTF-8), all little endian
//! ```
//!
//! Pure. Limits: [`TAG_BYTES_MAX`].

use crate::serialization::Serialization;
use std::fmt;

/// The longest application tag, in bytes.
pub(crate) const TAG_BYTES_MAX: usize = 256;

/// The content of the handshake: the protocol, codec and application of one side.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of the protocol.
    pub protocol: u16,
    /// The codec of payloads, by [`Serialization::number`]. A number, because the peer may use a
    /// codec that this build does not know.
    pub codec: u8,
    /// The abilities of this side beyond the base protocol, one bit each. Both sides use their
    /// common abilities. No bit is defined yet.
    pub capabilities: u32,
    /// The application's name for its own protocol, for example a version.
    pub tag: String,
}

impl Hello {
    /// The version of the protocol, which is the meaning of frames. A peer of another version is
    /// refused.
    pub const PROTOCOL: u16 = 2;

    /// Makes the handshake of this side.
    #[must_use]
    pub fn new(serialization: Serialization, tag: &str) -> Hello {
        let codec = serialization.number();
        Hello { protocol: Hello::PROTOCOL, codec, capabilities: 0, tag: tag.to_owned() }
    }

    /// Writes the payload of a handshake frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.tag.len());
        bytes.extend_from_slice(&self.protocol.to_le_bytes());
        bytes.extend_from_slice(&[self.codec, 0]);
        bytes.extend_from_slice(&self.capabilities.to_le_bytes());
        bytes.extend_from_slice(self.tag.as_bytes());
        bytes
    }

    /// Reads the payload of a handshake frame. Returns `None` when it is malformed.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Hello> {
        let (head, tag) = bytes.split_first_chunk::<8>()?;
        let [p0, p1, codec, _, c0, c1, c2, c3] = *head;
        if tag.len() > TAG_BYTES_MAX {
            return None;
        }
        Some(Hello {
            protocol: u16::from_le_bytes([p0, p1]),
            codec,
            capabilities: u32::from_le_bytes([c0, c1, c2, c3]),
            tag: String::from_utf8(tag.to_vec()).ok()?,
        })
    }

    /// Returns whether both sides speak the same protocol, codec and tag.
    #[must_use]
    pub fn agrees_with(&self, other: &Hello) -> bool {
        (self.protocol, self.codec, &self.tag) == (other.protocol, other.codec, &other.tag)
    }
}

impl fmt::Display for Hello {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "protocol {}, codec ", self.protocol)?;
        match Serialization::from_number(self.codec) {
            Some(codec) => write!(f, "{codec}")?,
            None => write!(f, "number {}", self.codec)?,
        }
        write!(f, ", tag {:?}", self.tag)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handshake_comes_back_as_it_was_written() {
        let hello = Hello::new(Serialization::Json, "app 7");
        assert_eq!(Hello::parse(&hello.to_bytes()), Some(hello));
    }

    #[test]
    fn malformed_handshakes_are_refused() {
        let long = [vec![0; 8], vec![b'a'; TAG_BYTES_MAX + 1]].concat();
        for bytes in [&b""[..], &[1, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff], &long] {
            assert_eq!(Hello::parse(bytes), None);
        }
    }

    #[test]
    fn capabilities_do_not_matter_for_agreement_and_everything_else_does() {
        let ours = Hello::new(Serialization::Bincode, "a");
        assert!(ours.agrees_with(&Hello { capabilities: 5, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { protocol: 1, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { codec: 2, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { tag: "b".into(), ..ours.clone() }));
    }

    #[test]
    fn both_sides_can_be_named() {
        let hello = Hello { codec: 77, ..Hello::new(Serialization::Bincode, "v2") };
        assert_eq!(hello.to_string(), "protocol 2, codec number 77, tag \"v2\"");
    }
}
