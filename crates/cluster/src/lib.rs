//! Runs a server as several worker processes that share its ports: Node's `cluster` for Rust.
//!
//! A [`Primary`] opens the listening sockets, starts the workers, dispatches the connections to
//! them and replaces workers that end. A worker runs the same program again. In a worker
//! [`Worker::current`] returns the worker's side, and [`listen`] returns a [`Listener`] for
//! the connections that the primary dispatches; in the first process `Worker::current` returns
//! `None`.
//!
//! ```no_run
//! use std::io::Write;
//!
//! fn main() -> Result<(), brood_cluster::Error> {
//!     if let Some(worker) = brood_cluster::Worker::current() {
//!         for connection in brood_cluster::listen("127.0.0.1:8000")?.incoming() {
//!             let (mut stream, _peer) = connection?;
//!             let _ = stream.write_all(b"hello\n");
//!         }
//!         return Ok(());
//!     }
//!     let primary = brood_cluster::Primary::builder().workers(4).shutdown_on_signals().build()?;
//!     primary.start();
//!     primary.ready()?;
//!     primary.wait()
//! }
//! ```
//!
//! # Guarantees
//!
//! - The port stays open while workers are replaced. Clients are not refused: their connections
//!   wait until a worker has room.
//! - A worker that ends loses no connection that it had not accepted. The primary reads such
//!   connections back from the queue of a worker that ended, stalled or closed its listener, and
//!   dispatches them to another worker.
//! - A worker that crashes is replaced at once. A worker that keeps crashing is replaced after a
//!   growing delay.
//! - User code never runs on the primary's event loop. Every change is an [`Event`], in order.
//!
//! # Not guaranteed
//!
//! - A connection that a worker has accepted ends with that worker.
//! - A primary that is killed loses the connections in the kernel's backlog.
//!
//! # Coming from Node, PM2 or gunicorn
//!
//! - Names are Node's, in Rust's spelling: `cluster.fork` is [`Primary::fork`], `setupPrimary` is
//!   [`Primary::setup_primary`], and the events are variants of [`Event`].
//! - Node may run on either side. Workers can be Node applications, which need no change: see
//!   [`WorkerOptions::exec`]. A Rust program that a Node primary starts finds its primary through
//!   [`Worker::current`].
//! - `pm2 reload` and gunicorn's `HUP` correspond to [`Primary::reload`] and
//!   [`Builder::reload_on_hangup`]; `pm2 scale` and gunicorn's `TTIN` and `TTOU` correspond to
//!   [`Primary::scale`].
//! - [`Policy`] lists how connections are dispatched: in rotation, to the least loaded worker, by
//!   the client's address, or by the kernel.
//!
//! # Features
//!
//! - `tokio`: [`AsyncListener`] and [`AsyncStream`].
//! - `axum`: `axum::serve` on an `AsyncListener`.

mod adapter;
mod bind;
mod contract;
mod counters;
mod error;
#[cfg(test)]
mod kernel_model;
mod listen_rules;
mod node;
mod policy;
mod primary;
mod protocol;
mod scheduler;
#[cfg(test)]
mod simulation;
mod supervisor;
mod worker;
mod worker_id;
mod worker_options;
mod worker_state;

#[cfg(feature = "tokio")]
pub use adapter::tokio::{AsyncListener, AsyncStream};
/// The restrictions of workers, and the values that they are made of, as for any child process.
#[doc(no_inline)]
pub use child_process::{Capability, Filter, Limit, Resource, Sandbox};
pub use contract::Restart;
pub use counters::{Counters, WorkerCounters};
/// The receiver of [`Primary::take_events`] and [`Worker::take_messages`], a type of the crate
/// `crossbeam-channel`, version 0.5.
#[doc(no_inline)]
pub use crossbeam_channel::Receiver;
pub use error::Error;
pub use error::not_ready::{NotReady, UnreadyWorker};
pub use listen_rules::{ListenPermission, ListenRules};
/// The crate `mio`, version 1: a [`Listener`] is an `event::Source` of its `Poll`.
#[doc(no_inline)]
pub use mio;
pub use policy::Policy;
pub use primary::Primary;
pub use primary::builder::Builder;
pub use primary::event::Event;
pub use primary::settings::Settings;
pub use primary::worker_process::WorkerProcess;
pub use protocol::address::Address;
pub use protocol::listen_options::ListenOptions;
pub use protocol::violation::Violation;
pub use worker::Worker;
pub use worker::accepted::Accepted;
pub use worker::datagram::{BoundSocket, Datagram};
pub use worker::drain_waits::{AllClosed, Draining};
pub use worker::listen::listen;
pub use worker::listener::Listener;
#[doc(hidden)]
pub use worker::process_role::is_master;
pub use worker::process_role::{is_primary, is_worker};
pub use worker::signals::WorkerSignals;
pub use worker::stream_types::Stream;
pub use worker_id::WorkerId;
pub use worker_options::{WorkerOptions, WorkerStdio};
pub use worker_state::WorkerState;

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
