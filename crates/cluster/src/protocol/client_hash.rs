//! The hash function of client affinity.
//!
//! Pure.

/// Returns a hash of the number in which every input bit changes about half of the output bits.
///
/// The function is SplitMix64's: the same in every process and every build.
pub(crate) fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
