//! Worker processes that share a server port, kept alive: Node's `cluster` for Rust.
//!
//! A [`Primary`] opens the port, starts the workers, deals the connections and replaces who dies.
//! A worker is the same program started again: [`Worker::current`] tells which of the two this
//! process is, and [`Worker::listen`] gives a [`Listener`] that is fed by the primary.
//!
//! What always holds:
//!
//! - The port stays open while workers are replaced: nobody is refused, connections wait.
//! - A connection that no worker had accepted is never lost with a worker: it is read back from
//!   the queue of one that died, froze or closed its listener, and given to another.
//! - A worker that crashes is replaced at once; one that keeps crashing, with growing delay.
//! - No user code runs on the primary's loop; everything that happens is an [`Event`].
//!
//! Node may be on either side. With [`Builder::exec`] the workers are Node applications, which need
//! no change; and a Rust worker whose primary is a Node program finds it by itself.
//!
//! What is not promised: a connection that a worker had accepted dies with it, and a primary that
//! is killed loses what waits in the kernel's backlog.
//!
//! Features: `tokio` for [`AsyncListener`], `axum` for `axum::serve` on it.

mod adapter;
mod bind;
mod contract;
mod counters;
mod error;
mod hash;
mod node;
mod policy;
mod primary;
mod protocol;
mod scheduler;
#[cfg(test)]
mod simulation;
mod supervisor;
#[cfg(test)]
mod testing;
mod worker;
mod worker_options;
mod worker_state;

#[cfg(feature = "tokio")]
pub use adapter::tokio::{AsyncListener, AsyncStream};
pub use contract::{Restart, WORKERS_MAX};
pub use counters::{Counters, WorkerCounters};
pub use error::Error;
pub use policy::Policy;
pub use primary::Primary;
pub use primary::builder::Builder;
pub use primary::event::Event;
pub use primary::settings::Settings;
pub use primary::worker_process::WorkerProcess;
pub use protocol::address::Address;
pub use protocol::listen_options::{LISTEN_DATA_BYTES_MAX, ListenOptions};
pub use worker::Worker;
pub use worker::connection_guard::Accepted;
pub use worker::datagram::{BoundSocket, Datagram};
pub use worker::deadlines::ORPHAN_DRAIN_MS;
pub use worker::draining::{DRAIN_READ_MS_MAX, Draining};
pub use worker::listen::{
    bind_at, bind_udp, bind_unix_datagram, listen, listen_at, listen_unix, listen_with,
};
pub use worker::listener::Listener;
pub use worker::process_role::{is_master, is_primary, is_worker};
pub use worker::stream::Stream;
pub use worker_options::{WorkerOptions, WorkerStdio};
pub use worker_state::WorkerState;

/// The example of the README is compiled as a test.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
