//! The name of a channel's codec: as a value, a number and a text.
//!
//! Pure.

use std::fmt;

/// The codec of a channel. Both sides must use the same.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Serialization {
    /// [`Bincode`](crate::Bincode): compact and the fastest, for Rust programs on both sides.
    #[default]
    Bincode,
    /// [`Json`](crate::Json): Node's default.
    Json,
    /// [`Advanced`](crate::Advanced): Node's structured clone.
    Advanced,
}

impl Serialization {
    /// The deepest nesting of a value, in levels of serde: a struct, a list, an option and an enum
    /// are one level each. The same for every codec.
    pub const NESTING_MAX: usize = 128;

    /// The number of list elements in a payload beyond one per byte. The same for every codec.
    ///
    /// Elements without a size cost nothing to announce. Without this limit, eight bytes could keep
    /// a reader busy for minutes.
    pub const ZERO_SIZE_ELEMENTS_MAX: usize = 65_536;

    /// Returns the number for a handshake.
    #[must_use]
    pub fn number(self) -> u8 {
        match self {
            Serialization::Bincode => 1,
            Serialization::Json => 2,
            Serialization::Advanced => 3,
        }
    }

    /// Returns the codec with this number in a handshake.
    #[must_use]
    pub fn from_number(number: u8) -> Option<Serialization> {
        Some(match number {
            1 => Serialization::Bincode,
            2 => Serialization::Json,
            3 => Serialization::Advanced,
            _ => return None,
        })
    }

    /// Returns the name for an environment variable.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Serialization::Bincode => "bincode",
            Serialization::Json => "json",
            Serialization::Advanced => "advanced",
        }
    }

    /// Returns the codec with this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Serialization> {
        [Serialization::Bincode, Serialization::Json, Serialization::Advanced]
            .into_iter()
            .find(|codec| codec.name() == name)
    }
}

impl fmt::Display for Serialization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
