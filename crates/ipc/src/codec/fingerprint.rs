//! The fingerprint of a value: a number folded from the parts that a codec writes.
//!
//! The sender folds while it writes and the receiver while it reads, so a message that is read as
//! another type is noticed, although bincode writes no types. Only the parts of the wire count:
//!
//! - a number, by its width and whether it is signed, unsigned or a float; `bool`; `char`; text;
//! - bytes, which are a sequence of `u8`;
//! - the tag of an option; the index of an enum's variant, and whether the variant is a unit, a
//!   newtype, a tuple or a struct; the start of a sequence, and of a map; a handle.
//!
//! Names, newtypes, structs, tuples and units leave no mark. The numbers and texts that are
//! themselves elements of a sequence, or keys or values of a map, are all of one type, so only the
//! first one counts; this makes long lists cheap. A list or map that is empty has no element that
//! could differ.
//!
//! Pure.

use std::cell::Cell;

/// A part of a value, as a number without structure.
#[derive(Clone, Copy)]
pub(crate) struct Part(u64);

impl Part {
    pub(crate) const BOOL: Part = Part::number(1);
    pub(crate) const I8: Part = Part::number(2);
    pub(crate) const I16: Part = Part::number(3);
    pub(crate) const I32: Part = Part::number(4);
    pub(crate) const I64: Part = Part::number(5);
    pub(crate) const I128: Part = Part::number(6);
    pub(crate) const U8: Part = Part::number(7);
    pub(crate) const U16: Part = Part::number(8);
    pub(crate) const U32: Part = Part::number(9);
    pub(crate) const U64: Part = Part::number(10);
    pub(crate) const U128: Part = Part::number(11);
    pub(crate) const F32: Part = Part::number(12);
    pub(crate) const F64: Part = Part::number(13);
    pub(crate) const CHAR: Part = Part::number(14);
    pub(crate) const TEXT: Part = Part::number(15);
    pub(crate) const NONE: Part = Part::number(16);
    pub(crate) const SOME: Part = Part::number(17);
    pub(crate) const SEQUENCE: Part = Part::number(18);
    pub(crate) const MAP: Part = Part::number(19);
    pub(crate) const HANDLE: Part = Part::number(20);
    pub(crate) const UNIT_VARIANT: Part = Part::number(21);
    pub(crate) const NEWTYPE_VARIANT: Part = Part::number(22);
    pub(crate) const TUPLE_VARIANT: Part = Part::number(23);
    pub(crate) const STRUCT_VARIANT: Part = Part::number(24);

    const INDEX: Part = Part::number(25);

    /// The index of an enum's variant.
    #[inline]
    pub(crate) fn index(index: u32) -> Part {
        let Part(factor) = Part::INDEX;
        Part((u64::from(index) + 1).wrapping_mul(factor | 1))
    }

    /// The `number`th value of the generator splitmix64.
    const fn number(number: u64) -> Part {
        let z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        Part(z ^ (z >> 31))
    }
}

/// The fingerprint of the parts so far.
#[derive(Debug, Default)]
pub(crate) struct Fingerprint(Cell<u64>);

impl Fingerprint {
    /// Adds a part.
    ///
    /// A polynomial in 9, whose powers repeat only after 2^61 parts. Multiplying by 9 and adding
    /// take one cycle each.
    #[inline(always)]
    pub(crate) fn fold(&self, Part(part): Part) {
        self.0.set(self.0.get().wrapping_mul(9).wrapping_add(part));
    }

    /// Adds `length` bytes, which are a sequence of `u8`.
    #[inline]
    pub(crate) fn fold_bytes(&self, length: usize) {
        self.fold(Part::SEQUENCE);
        if length > 0 {
            self.fold(Part::U8);
        }
    }

    /// Returns the fingerprint for a frame.
    pub(crate) fn finish(&self) -> u32 {
        // The high half depends on every bit of every part.
        (self.0.get().wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as u32
    }
}

#[cfg(test)]
mod tests;
