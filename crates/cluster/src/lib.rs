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

mod accepted;
mod address;
#[cfg(feature = "axum")]
mod axum;
mod bind;
mod callbacks;
mod claim;
mod contract;
mod core;
mod count;
mod counters;
mod datagram;
mod draining;
mod driver;
mod error;
mod event;
mod gate;
mod given;
mod inbox;
mod lifecycle;
mod listen;
mod listener;
mod listeners;
mod listening;
mod members;
mod message;
mod mio;
mod node;
mod options;
mod own;
mod policy;
mod port;
mod primary;
mod process;
mod queue;
mod record;
mod restart;
mod schedule;
mod settings;
mod setup;
mod shared;
#[cfg(test)]
mod simulation;
mod spawner;
mod state;
mod stream;
#[cfg(feature = "tokio")]
mod tokio;
mod worker;

pub use accepted::Accepted;
pub use address::Address;
pub use contract::{Restart, WORKERS_MAX};
pub use counters::{Counters, WorkerCounters};
pub use datagram::{BoundSocket, Datagram};
pub use draining::{DRAIN_READ_MS_MAX, Draining};
pub use error::Error;
pub use event::Event;
pub use listener::Listener;
pub use listening::{
    bind_at, bind_udp, bind_unix_datagram, listen, listen_at, listen_unix, listen_with,
};
pub use options::{LISTEN_DATA_BYTES_MAX, ListenOptions};
pub use policy::Policy;
pub use primary::Primary;
pub use process::WorkerProcess;
pub use settings::Builder;
pub use setup::{Settings, Setup, WorkerStdio};
pub use state::State;
pub use stream::Stream;
#[cfg(feature = "tokio")]
pub use tokio::{AsyncListener, AsyncStream};
pub use worker::{ORPHAN_DRAIN_MS, Worker, is_master, is_primary, is_worker};

/// The example of the README is compiled as a test.
#[cfg(all(doctest, feature = "axum"))]
#[doc = include_str!("../../../README.md")]
struct Readme;
