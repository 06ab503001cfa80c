//! Node's cluster protocol, as a primary and as a worker of this crate speak it with a Node peer.

/// The most connections on their way to one worker that its system has not taken yet.
const HANDLES_IN_FLIGHT_MAX: usize = 16;

pub(crate) mod inspector;
pub(crate) mod query;
pub(crate) mod session_with_primary;
pub(crate) mod session_with_worker;
pub(crate) mod wire;

/// Returns the options of a Node worker's channel.
pub(crate) fn channel_options() -> ipc::Options {
    ipc::Options::new().handles_in_flight_max(HANDLES_IN_FLIGHT_MAX)
}
