//! Node's `child_process` for Rust on Linux: spawn, exec, exec_file, fork and their synchronous
//! forms, at the cost of a vfork, without zombies.
//!
//! ```
//! use child_process::{Command, Event, exec, exec_sync};
//!
//! // One line in a shell, its output as the result.
//! assert_eq!(exec_sync("echo hello | tr a-z A-Z")?.stdout, b"HELLO\n");
//! // The same without waiting here.
//! let running = exec("sleep 0.01; echo done")?;
//! assert_eq!(running.wait()?.stdout, b"done\n");
//! // A child with all its events.
//! let child = Command::new("cat").env("LANG", "C").spawn()?;
//! drop(child.wait()?);
//! assert!(matches!(child.events().iter().last(), Some(Event::Close(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What always holds
//!
//! - **The cost of a start does not grow with our memory**, whatever options are used: the child
//!   borrows it until its program runs, and nothing is copied. There is no `pre_exec`; what it is
//!   used for elsewhere are options here.
//! - **A child has the descriptors it was given and no other**, even where a library left some
//!   open for children. Descriptors given to a [`Command`] move into the child.
//! - **No zombie, ever**: a [`Child`] that is dropped is reaped when it ends. Nothing needs
//!   `SIGCHLD`, and no process id is used that could have come to mean another process.
//! - **An exit is told at once**, whoever still holds the child's pipes, and never hidden by
//!   unread messages; [`Event::Close`] tells that all of it has ended.
//! - **An error says which [`Step`] failed**: a missing directory is not a missing program.
//! - Nothing runs in a user's name on the loop: callbacks have a thread of their own.
//!
//! # From Node
//!
//! | Node | here |
//! |---|---|
//! | `spawn(cmd, args, options)` | [`spawn`], [`Command::spawn`] |
//! | `exec`, `execFile` | [`exec`], [`exec_file`], [`Command::exec`]: an [`Exec`] with `wait`, `on_done` |
//! | `spawnSync` | [`spawn_sync`], [`Command::output`]: any end is `Ok`, as in Node |
//! | `execSync`, `execFileSync` | [`exec_sync`], [`exec_file_sync`], [`Command::exec_sync`] |
//! | `fork(module)` | [`fork()`], [`Fork`] with a [`Module`]: a named function of this program, this program, another one |
//! | `process.send`, `process.on('message')` | [`parent()`]: [`Parent::send`], [`Parent::events`] |
//! | `AbortSignal` | [`CancelToken`] |
//! | `child.kill()`, `child.killed` | [`Child::kill`], [`Child::killed`]; [`Child::kill_tree`] for descendants too, [`Command::own_cgroup`] for all it started |
//! | `'exit'`, `'close'`, … | [`Child::events`], or [`Child::on_exit`], [`Child::on_close`], … |
//! | `stdio: ['pipe', 'ignore', 'ipc', fd]` | [`Stdio::pipe`], [`Stdio::null`], [`Stdio::ipc`], anything that owns a descriptor |
//!
//! Different from Node, and why: `close` also comes after we disconnected; a timeout is an error
//! even if the child then exits with 0; `max_buffer` keeps exactly the allowed bytes, of each
//! stream also in the synchronous forms; the last words of a child that was ended are read; a
//! message has one owner, so `on_message` takes messages away from `events()`.

mod announcement;
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
mod lifecycle;
mod module;
mod parent;
mod plan;
mod process;
mod shared;
mod start;
mod stdio;
mod subscribers;
#[cfg(feature = "tokio")]
mod tokio;
mod tree;

pub use cancel::CancelToken;
pub use capture::Output;
pub use child::Child;
pub use command::{Command, MAX_BUFFER_BYTES};
pub use error::{Error, ExecError, ExecFailure, InvalidOption, OutputStream, SpawnError};
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
