//! Children of every kind: the crate `child-process`.

mod control_groups;
mod exits;
mod node_suite;
mod options;
mod streams;
mod timeouts;
