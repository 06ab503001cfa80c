//! Node's `os` module for Rust, and the limits of the container.
//!
//! Every function asks the system when it is called. No function starts a subprocess or keeps
//! global state, and all are cheap enough for a loop. Names are Node's in Rust's spelling. Results
//! are Node's, except where a line that begins with "Node:" states a difference and its reason.
//!
//! ```
//! let host = brood_os_info::totalmem()?;
//! let allowed = brood_os_info::limits()?.memory.max_bytes.unwrap_or(host);
//! println!(
//!     "{} on {} {}: {} threads, {} of {host} bytes",
//!     brood_os_info::hostname()?,
//!     brood_os_info::os_type()?,
//!     brood_os_info::release()?,
//!     brood_os_info::available_parallelism(),
//!     allowed.min(host),
//! );
//! # Ok::<(), brood_os_info::Error>(())
//! ```
//!
//! - The machine: [`arch`], [`machine`], [`platform`], [`os_type`], [`release`], [`version`],
//!   [`endianness`], [`hostname`], [`uptime`], [`loadavg`], [`cpus`](fn@cpus), [`totalmem`],
//!   [`freemem`], [`network_interfaces`]
//! - The user: [`user_info`], [`homedir`], [`tmpdir`], [`get_priority`], [`set_priority`]
//! - The container: [`available_parallelism`], [`limits`](fn@limits), [`pressure`]
//! - Repeated calls: [`System`] keeps files open, and two [`SystemSnapshot`]s give the usage of the
//!   time between them.
//!
//! With the feature `serde` all results are `Serialize`. Results that Node has serialize in Node's
//! shapes.

pub mod constants;
mod cpu;
mod error;
mod files;
mod groups;
mod limits;
mod load;
mod machine;
mod memory;
mod network;
mod parallelism;
mod parse;
mod priority;
mod snapshot;
mod system;
mod user;

pub use constants::{DEV_NULL, EOL};
pub use cpu::{Cpu, CpuTimes, cpus};
pub use error::Error;
pub use limits::{Limits, MemoryLimit, Pressure, limits, pressure};
pub use load::{loadavg, uptime};
pub use machine::{arch, endianness, hostname, machine, os_type, platform, release, version};
pub use memory::{Memory, freemem, totalmem};
pub use network::{InterfaceAddress, NetworkInterface, network_interfaces};
pub use parallelism::available_parallelism;
pub use parse::cgroup::CpuQuota;
pub use parse::pressure::{Stall, Stalls};
pub use priority::{get_priority, set_priority};
pub use snapshot::{CpuSample, CpuUsage, SystemSnapshot, SystemUsage};
pub use system::System;
pub use user::{UserInfo, homedir, tmpdir, user_info};

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
