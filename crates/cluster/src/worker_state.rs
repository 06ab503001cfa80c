//! How far a worker has come, as Node names it.
//!
//! Pure.

/// How far a worker has come. Node's names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// Started, and not heard of.
    Started,
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
