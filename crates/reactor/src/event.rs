//! Events: the values that the loop delivers to a source, and the names that go with them.
//!
//! Pure.

/// The number of a source, never reused while the process lives.
pub(crate) type SourceId = u64;

/// The name that a source gives to one of its descriptors.
///
/// A token is unique within its source only; the loop does not interpret it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Token(pub u64);

/// An event that a [`Source`](crate::Source) handles.
///
/// The enum is deliberately exhaustive: a source answers every kind of event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Event {
    /// The source is on the loop and may register descriptors. The first event of every source.
    Start,
    /// A registered descriptor is ready.
    ///
    /// Readiness is edge-triggered. The loop reports it once, and reports it again only after a
    /// call on the descriptor has answered `EAGAIN` and the readiness has changed. A source
    /// therefore reads or writes until `EAGAIN`, or remembers that the descriptor may be ready
    /// and calls [`Turn::again`](crate::Turn::again). Spurious events occur. Hang-ups and errors
    /// count as readable and writable.
    Ready {
        /// The token under which the descriptor was registered.
        token: Token,
        /// Whether a read would not block.
        readable: bool,
        /// Whether a write would not block.
        writable: bool,
    },
    /// The deadline was reached. The source has no deadline any more.
    Deadline,
    /// [`Handle::wake`](crate::Handle::wake) was called at least once since the last `Wake`.
    Wake,
    /// [`Turn::again`](crate::Turn::again) was called in an earlier turn.
    Again,
}
