//! Where values that serde cannot carry wait for the moment between two calls.
//!
//! serde's traits erase every type but its own, so a handle cannot be given to our serializer by
//! argument. Instead the giver leaves it here under a number nobody can guess, passes the number,
//! and takes the deposit away again if it was not picked up. A format that is not ours picks
//! nothing up, so a handle in it is an error, never a forged descriptor.
//!
//! SideTable live only during one call of `serialize` or `deserialize`.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A place for values of type `T` in transit.
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

    /// Leaves `value`; returns the number that gives it back.
    pub(crate) fn insert(&self, value: T) -> u64 {
        let mut state = self.lock();
        state.0 += 1;
        let number = scatter(state.0.wrapping_add(self.secret));
        state.1.push((number, value));
        number
    }

    /// Takes what was left under `number`, if nobody did before.
    pub(crate) fn remove(&self, number: u64) -> Option<T> {
        let mut state = self.lock();
        // Few at a time: one per thread that is between two calls right now.
        let at = state.1.iter().rposition(|(other, _)| *other == number)?;
        Some(state.1.swap_remove(at).1)
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<(u64, T)>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One number for each `seed`, spread over all there are. Nobody outside sees any of them, so
/// mixing well is enough; a keyed hash would cost as much as the rest of a deposit.
fn scatter(seed: u64) -> u64 {
    let mixed = (seed ^ (seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deposit_is_taken_once_and_by_its_number_only() {
        let table = SideTable::lazy();
        let numbers: Vec<u64> = (0..100).map(|value| table.insert(value)).collect();
        assert!((0..1000).all(|guess| table.remove(guess).is_none()));
        for (value, number) in (0..100).zip(numbers).rev() {
            assert_eq!(table.remove(number), Some(value));
            assert_eq!(table.remove(number), None);
        }
    }
}
