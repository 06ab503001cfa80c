//! How far a worker has come, as Node names it.
//!
//! Pure.

/// How far a worker has come. Node's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[repr(u8)]
pub enum State {
    /// Started, and not heard of.
    None,
    /// Its runtime is up.
    Online,
    /// It listens.
    Listening,
    /// It is to end, and finishes what it has; only the worker itself says so.
    Disconnecting,
    /// Its channel is closed.
    Disconnected,
    /// Its process has ended.
    Dead,
}

pub(crate) const STATES: [State; 6] = [
    State::None,
    State::Online,
    State::Listening,
    State::Disconnecting,
    State::Disconnected,
    State::Dead,
];
