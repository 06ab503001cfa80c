//! Integers of any size.
//!
//! Pure.

/// An integer of any size.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct BigInt {
    /// Whether the number is below zero.
    pub negative: bool,
    /// The magnitude, little endian.
    pub magnitude: Vec<u8>,
}

impl BigInt {
    /// Returns the number, if it fits.
    #[must_use]
    pub fn to_i128(&self) -> Option<i128> {
        let magnitude = self.magnitude_u128()?;
        if self.negative {
            0_i128.checked_sub_unsigned(magnitude)
        } else {
            i128::try_from(magnitude).ok()
        }
    }

    /// Returns the number, if it fits and is not below zero.
    #[must_use]
    pub fn to_u128(&self) -> Option<u128> {
        let magnitude = self.magnitude_u128()?;
        (!self.negative || magnitude == 0).then_some(magnitude)
    }

    fn magnitude_u128(&self) -> Option<u128> {
        let mut bytes = [0; 16];
        for (at, byte) in self.magnitude.iter().enumerate() {
            match bytes.get_mut(at) {
                Some(slot) => *slot = *byte,
                None if *byte == 0 => {}
                None => return None,
            }
        }
        Some(u128::from_le_bytes(bytes))
    }

    fn new(negative: bool, magnitude: u128) -> BigInt {
        // V8 writes whole digits of eight bytes, and none for zero.
        let length = match magnitude {
            0 => 0,
            small if small <= u128::from(u64::MAX) => 8,
            _ => 16,
        };
        BigInt { negative, magnitude: magnitude.to_le_bytes()[..length].to_vec() }
    }
}

impl From<i128> for BigInt {
    fn from(number: i128) -> BigInt {
        BigInt::new(number < 0, number.unsigned_abs())
    }
}

impl From<u128> for BigInt {
    fn from(number: u128) -> BigInt {
        BigInt::new(false, number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_at_the_ends_of_their_types_come_back() {
        for number in [i128::MIN, i128::MIN + 1, -1, 0, 1, i128::MAX] {
            assert_eq!(BigInt::from(number).to_i128(), Some(number));
        }
        assert_eq!(BigInt::from(u128::MAX).to_u128(), Some(u128::MAX));
        assert_eq!(BigInt::from(u128::MAX).to_i128(), None);
        let below = BigInt { negative: true, ..BigInt::from(i128::MAX as u128 + 2) };
        assert_eq!((below.to_i128(), below.to_u128()), (None, None));
    }
}
