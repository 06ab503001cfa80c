//! Children of every kind: the crate `child-process`.

mod beyond_node;
mod control_groups;
mod node_suite;
