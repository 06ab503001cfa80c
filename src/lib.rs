//! Node's process model for Rust on Linux.
//!
//! This crate is a façade: it re-exports the crates of the workspace under Node's names, and each
//! of them can be used alone.
//!
//! | module | crate | Node's module |
//! |---|---|---|
//! | [`cluster`] | `brood-cluster` | `cluster`: worker processes that share a server port |
//! | [`child_process`] | `brood-child-process` | `child_process`: spawn, exec, fork |
//! | [`ipc`] | `brood-ipc` | `process.send`: typed messages with descriptors inside |
//! | [`os`] | `brood-os-info` | `os`: the machine, and the limits of the container |
//!
//! ```
//! use brood::child_process::Command;
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let output = Command::new("echo").arg("hello").output()?;
//! assert_eq!(output.stdout_text(), "hello\n");
//! println!("on {} processors", brood::os::available_parallelism());
//! # Ok(()) }
//! ```
//!
//! A worker process and its primary are the same program; [`cluster`] begins with a complete one.
//! The folder `docs/guide` explains the crates by task, and `docs/from-node.md` has the table of
//! Node's names.
//!
//! Features, all of which only forward: `cluster` (default), `tokio` (async endpoints and
//! listeners), `axum` (`axum::serve` on a listener of a worker), `serde` (for the values of
//! [`os`]).

pub use ::child_process;
pub use ::child_process::init;
#[cfg(feature = "cluster")]
pub use ::cluster;
pub use ::ipc;
pub use ::os_info as os;

/// The programs of the pages are compiled as tests.
#[cfg(doctest)]
mod pages {
    #[doc = include_str!("../README.md")]
    struct Readme;
    #[doc = include_str!("../docs/guide/first-cluster.md")]
    struct FirstCluster;
    #[doc = include_str!("../docs/guide/processes.md")]
    struct Processes;
    #[doc = include_str!("../docs/guide/messages.md")]
    struct Messages;
    #[doc = include_str!("../docs/guide/reload-and-deploy.md")]
    struct ReloadAndDeploy;
    #[doc = include_str!("../docs/guide/policies.md")]
    struct Policies;
    #[doc = include_str!("../docs/guide/node.md")]
    struct Node;
    #[doc = include_str!("../docs/guide/containers-and-systemd.md")]
    struct ContainersAndSystemd;
    #[doc = include_str!("../docs/guide/troubleshooting.md")]
    struct Troubleshooting;
}
