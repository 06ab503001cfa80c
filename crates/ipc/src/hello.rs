//! The greeting: the first frame each way says who speaks, and how.
//!
//! Parent and child may be different builds. A peer of another protocol, codec or application is
//! told apart here, by an error that names both sides, before any message is decoded wrongly.
//!
//! ```text
//! protocol u16 · codec u8 · 0 u8 · capabilities u32 · tag (the rest, UTF-8), all little endian
//! ```
//!
//! Pure. Limits: [`TAG_BYTES_MAX`].

use crate::serialization::Serialization;
use std::fmt;

/// The version of what frames mean; another one is refused.
pub const PROTOCOL: u16 = 1;

/// The longest application tag, in bytes.
pub const TAG_BYTES_MAX: usize = 256;

/// Who speaks, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The version of what frames mean.
    pub protocol: u16,
    /// How payloads are written, as [`Serialization::number`] counts; a number, since the peer may
    /// know one that we do not.
    pub codec: u8,
    /// What this side can do beyond the base protocol, one bit each; what both can is used. None
    /// is defined yet.
    pub capabilities: u32,
    /// What the application calls its own protocol, for example a version.
    pub tag: String,
}

impl Hello {
    /// The greeting of this side.
    #[must_use]
    pub fn new(serialization: Serialization, tag: &str) -> Hello {
        let codec = serialization.number();
        Hello { protocol: PROTOCOL, codec, capabilities: 0, tag: tag.to_owned() }
    }

    /// Writes the payload of a hello frame.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(8 + self.tag.len());
        bytes.extend_from_slice(&self.protocol.to_le_bytes());
        bytes.extend_from_slice(&[self.codec, 0]);
        bytes.extend_from_slice(&self.capabilities.to_le_bytes());
        bytes.extend_from_slice(self.tag.as_bytes());
        bytes
    }

    /// Reads the payload of a hello frame; `None` when it makes no sense.
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

    /// Tells whether both sides understand each other.
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
    fn a_greeting_comes_back_as_it_was_written() {
        let hello = Hello::new(Serialization::Json, "app 7");
        assert_eq!(Hello::parse(&hello.to_bytes()), Some(hello));
    }

    #[test]
    fn greetings_that_make_no_sense_are_refused() {
        let long = [vec![0; 8], vec![b'a'; TAG_BYTES_MAX + 1]].concat();
        for bytes in [&b""[..], &[1, 0, 0, 0, 0, 0, 0], &[1, 0, 0, 0, 0, 0, 0, 0, 0xff], &long] {
            assert_eq!(Hello::parse(bytes), None);
        }
    }

    #[test]
    fn capabilities_do_not_matter_for_understanding_and_everything_else_does() {
        let ours = Hello::new(Serialization::Bincode, "a");
        assert!(ours.agrees_with(&Hello { capabilities: 5, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { protocol: 2, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { codec: 2, ..ours.clone() }));
        assert!(!ours.agrees_with(&Hello { tag: "b".into(), ..ours.clone() }));
    }

    #[test]
    fn both_sides_can_be_named() {
        let hello = Hello { codec: 77, ..Hello::new(Serialization::Bincode, "v2") };
        assert_eq!(hello.to_string(), "protocol 1, codec number 77, tag \"v2\"");
    }
}
