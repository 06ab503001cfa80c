//! Children of every kind: the crate `child-process`.

mod activation;
mod channel_ends;
mod closed_streams;
mod control_groups;
mod ending;
mod ends;
mod exits;
mod forked;
mod init;
mod limits;
mod lost_loop;
pub(crate) mod modules;
mod node_suite;
mod options;
mod parent_death;
mod sandboxes;
mod secure_programs;
mod sigpipe;
mod starts;
mod streams;
mod terminal;
mod timeouts;
mod users;
