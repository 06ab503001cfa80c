//! Primaries and workers: the crate `cluster`, without Node.

mod accepting;
mod addresses;
mod connection_limit;
mod descriptors;
mod disconnect;
mod dispatch;
mod errors;
mod failures;
mod lifecycle;
mod listening;
mod long_connections;
mod many;
mod messages;
mod mistakes;
mod node_suite;
mod races;
mod reload;
mod reuse_port;
mod setup;
mod shortage;
mod shutdown;
mod signals;
mod sockets;
mod unread_messages;
mod workers;
