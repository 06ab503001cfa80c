//! Node on the other side: its words of cluster, as a primary and as a worker hear and say them.

/// So many connections may be on their way to one worker before its system has them.
const HANDLES_IN_FLIGHT_MAX: usize = 16;

pub(crate) mod primary_session;
pub(crate) mod query;
pub(crate) mod wire;
pub(crate) mod worker_session;

/// The channel of a Node worker.
pub(crate) fn channel_options() -> ipc::Options {
    ipc::Options { handles_in_flight_max: HANDLES_IN_FLIGHT_MAX, ..ipc::Options::default() }
}
