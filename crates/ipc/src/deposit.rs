//! Where values that serde cannot carry wait for the moment between two calls.
//!
//! serde's traits erase every type but its own, so a handle cannot be given to our serializer by
//! argument. Instead the giver leaves it here under a number nobody can guess, passes the number,
//! and takes the deposit away again if it was not picked up. A format that is not ours picks
//! nothing up, so a handle in it is an error, never a forged descriptor.
//!
//! Deposits live only during one call of `serialize` or `deserialize`.

use std::hash::{BuildHasher, RandomState};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

/// A place for values of type `T` in transit.
pub(crate) struct Deposits<T> {
    secret: RandomState,
    state: Mutex<(u64, Vec<(u64, T)>)>,
}

impl<T> Deposits<T> {
    pub(crate) const fn lazy() -> LazyLock<Deposits<T>> {
        LazyLock::new(|| Deposits {
            secret: RandomState::new(),
            state: Mutex::new((0, Vec::new())),
        })
    }

    /// Leaves `value`; returns the number that gives it back.
    pub(crate) fn leave(&self, value: T) -> u64 {
        let mut state = self.lock();
        state.0 += 1;
        let number = self.secret.hash_one(state.0);
        state.1.push((number, value));
        number
    }

    /// Takes what was left under `number`, if nobody did before.
    pub(crate) fn take(&self, number: u64) -> Option<T> {
        let mut state = self.lock();
        // Few at a time: one per thread that is between two calls right now.
        let at = state.1.iter().rposition(|(other, _)| *other == number)?;
        Some(state.1.swap_remove(at).1)
    }

    fn lock(&self) -> MutexGuard<'_, (u64, Vec<(u64, T)>)> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
