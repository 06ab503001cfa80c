//! Children of every kind: the crate `child-process`.

mod control_groups;
mod exits;
mod limits;
pub(crate) mod modules;
mod node_suite;
mod options;
mod streams;
mod timeouts;
