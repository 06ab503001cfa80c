//! A side table for values that serde cannot carry.
//!
//! serde's traits erase every type but their own, so a handle cannot reach the serializer of this
//! crate as an argument. Instead, the handle's `serialize` inserts it here under a number that
//! nobody can guess, passes the number, and removes the entry if the serializer has not removed it.
//! A foreign format removes nothing, so a handle in a foreign format is an error and never a forged
//! descriptor.
//!
//! Entries live only during one call of `serialize` or `deserialize`.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// The table for values of type `T`.
pub(crate) struct SideTable<T> {
    secret: u64,
    state: Mutex<(u64, Vec<(u64, T)>)>,
}

impl<T> SideTable<T> {
    pub(crate) const fn lazy() -> LazyLock<SideTable<T>> {
        LazyLock::new(|| SideTable {
            secret: RandomState::new().hash_one(0),
            state: Mutex::new((0, Vec::new())),
        })
    }

    /// Inserts `value`, and returns the number under which it can be removed.
    pub(crate) fn insert(&self, value: T) -> u64 {
        let mut state = self.lock();
        state.0 += 1;
        let number = scatter(state.0.wrapping_add(self.secret));
        state.1.push((number, value));
        number
    }

    /// Removes and returns the value under `number`, if it is still there.
    pub(crate) fn remove(&self, number: u64) -> Option<T> {
        let mut state = self.lock();
        // The table is short: one entry for each thread that serializes at this moment.
        let at = state.1.iter().rposition(|(other, _)| *other == number)?;
        Some(state.1.swap_remove(at).1)
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<(u64, T)>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Maps each `seed` to another number, spread over all numbers. Numbers are never seen outside, so
/// good mixing is enough; a keyed hash would cost as much as everything else here.
fn scatter(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_removed_once_and_by_its_number_only() {
        let table = SideTable::lazy();
        let numbers: Vec<u64> = (0..100).map(|value| table.insert(value)).collect();
        assert!((0..1000).all(|guess| table.remove(guess).is_none()));
        for (value, number) in (0..100).zip(numbers).rev() {
            assert_eq!(table.remove(number), Some(value));
            assert_eq!(table.remove(number), None);
        }
    }
}
