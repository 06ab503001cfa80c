//! The states of a worker, as Node names them.
//!
//! Pure.

/// The state of a worker, by Node's names. States follow one another in this order; a worker may
/// skip some, and never returns to an earlier one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum WorkerState {
    /// The process runs; its runtime has not reported yet.
    Started,
    /// The runtime is up.
    Online,
    /// The worker has opened a listener.
    Listening,
    /// The worker finishes its connections and ends. Only the worker's own side reports this state.
    Disconnecting,
    /// The channel is closed.
    Disconnected,
    /// The process has ended.
    Dead,
}
