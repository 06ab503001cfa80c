//! Node on the other side of a channel: as parent, child, primary and worker.

mod affinity;
mod child;
mod descriptors;
mod every_value;
mod handles;
mod hostile;
mod leaving;
mod mixed_workers;
mod parent;
pub(crate) mod primary;
mod random_values;
mod recycling;
mod relay;
mod worker_drain;
mod worker_inspector;
mod worker_rights;
mod worker_sockets;
mod worker_trouble;
mod workers;
