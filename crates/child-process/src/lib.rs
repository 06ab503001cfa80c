//! Node's `child_process` for Rust on Linux: spawn, exec, exec_file, fork and their synchronous
//! forms, at the cost of a vfork, without zombies.

mod buffer;
mod cancel;
mod capture;
mod child;
mod command;
mod driver;
mod error;
mod event;
mod exec;
mod fork;
mod hub;
mod lifecycle;
mod module;
mod parent;
mod plan;
mod process;
mod shared;
mod start;
mod stdio;
#[cfg(feature = "tokio")]
mod tokio;
mod tree;

pub use cancel::CancelToken;
pub use capture::Output;
pub use child::Child;
pub use command::{Command, MAX_BUFFER_BYTES};
pub use error::{Error, ExecError, ExecFailure, Invalid, OutputStream, SpawnFailure};
pub use event::Event;
pub use exec::{Exec, exec, exec_file, exec_file_sync, exec_sync, spawn, spawn_sync};
pub use fork::{Fork, fork};
pub use module::{Module, module, run_modules};
pub use parent::{Parent, parent, parent_with};
pub use stdio::{ChildOutput, ChildStdin, Stdio};
pub use sys::limit::{Limit, Resource};
pub use sys::pidfd::ExitStatus;
pub use sys::signal::Signal;
pub use sys::spawn::Step;
pub use sys::startup::inherited;
