//! The one room of brood that speaks to the kernel, and the only one with `unsafe` in it.
//!
//! Every function here takes typed arguments, gives owned results, and leaves nothing open on
//! any path. Nothing here decides: policy lives in the crates above.
#![allow(unsafe_code, reason = "this crate is where the project's unsafe code is kept")]

pub mod bind;
pub mod epoll;
pub mod errno;
pub mod exit;
pub mod fd;
pub mod host;
pub mod limit;
pub mod memory;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod reuse_port;
pub mod scm;
pub mod semaphore;
pub mod signal;
pub mod socket;
pub mod spawn;
pub mod startup;
