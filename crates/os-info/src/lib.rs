//! Node's os module for Rust, and what the container really allows.

mod error;
mod files;
mod groups;
mod parallelism;
mod parse;

pub use error::Error;
pub use parallelism::available_parallelism;
pub use parse::cgroup::CpuQuota;
