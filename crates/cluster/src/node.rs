//! Node on the other side: its words of cluster, as a primary and as a worker hear and say them.

pub(crate) mod desk;
pub(crate) mod guest;
pub(crate) mod query;
pub(crate) mod wire;
