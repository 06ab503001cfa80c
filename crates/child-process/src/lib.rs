//! Node's `child_process` for Rust on Linux: `spawn`, `exec`, `exec_file`, `fork` and their
//! synchronous forms, at the cost of a `vfork`, without zombies.
//!
//! ```
//! use brood_child_process::{Command, Event, exec, exec_sync};
//!
//! // Runs a line in a shell and waits for its output.
//! assert_eq!(exec_sync("echo hello | tr a-z A-Z")?.stdout, b"HELLO\n");
//! // Collects the output in the background.
//! let running = exec("sleep 0.01; echo done")?;
//! assert_eq!(running.wait()?.stdout, b"done\n");
//! // Starts a child and receives all its events.
//! let child = Command::new("cat").env("LANG", "C").spawn()?;
//! drop(child.wait()?);
//! let events = child.take_events().expect("taken once");
//! assert!(matches!(events.iter().last(), Some(Event::Close(_))));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Guarantees
//!
//! - **The cost of a spawn does not grow with the memory of this process**, whichever options are
//!   used: the child borrows that memory until it executes its program, and nothing is copied.
//!   There is no `pre_exec`; options cover its usual purposes.
//! - **A child has only the descriptors that its command names**, even where a library leaves
//!   descriptors open across `execve`. Descriptors given to a [`Command`] move into the child.
//! - **No child becomes a zombie.** A [`Child`] that is dropped is reaped when its process ends.
//!   As process 1 of a container, a program that calls [`init()`] first has no zombies either.
//!   Only [`reap_orphans`] uses `SIGCHLD`, and signals go through a pidfd, so they cannot reach another
//!   process that has got the same process id.
//! - **An exit is reported at once**, even while other processes hold the child's pipes, and unread
//!   messages do not delay it. [`Event::Close`] follows when the pipes and the channel have ended.
//! - **An error names the [`Step`] that failed**: a missing directory is not a missing program.
//! - Callbacks run on a thread of their own, never on the event loop.
//!
//! # From Node
//!
//! | Node | here |
//! |---|---|
//! | `spawn(cmd, args, options)` | [`spawn`], [`Command::spawn`] |
//! | `exec`, `execFile` | [`exec`], [`exec_file`], [`Command::exec`]: an [`Exec`] with `wait`, `on_done` |
//! | `spawnSync` | [`spawn_sync`], [`Command::output`]: every exit is `Ok`, as in Node |
//! | `execSync`, `execFileSync` | [`exec_sync`], [`exec_file_sync`], [`Command::exec_sync`] |
//! | `fork(module)` | [`fork()`], [`Fork`] with a [`Module`]: a named function of this program, this program, another program |
//! | `process.send`, `process.on('message')` | [`parent()`]: [`Parent::send`], [`Parent::take_events`] |
//! | `AbortSignal` | [`CancelToken`] |
//! | `child.kill()`, `child.killed` | [`Child::kill`], [`Child::killed`]; [`Child::kill_tree`] also signals descendants, [`Command::own_cgroup`] every process of a control group |
//! | `'exit'`, `'close'`, … | [`Child::take_events`], or [`Child::on_exit`], [`Child::on_close`], … |
//! | `stdio: ['pipe', 'ignore', 'ipc', fd]` | [`Stdio::pipe`], [`Stdio::null`], [`Stdio::ipc`], any type that owns a descriptor |
//!
//! # Differences from Node
//!
//! - `close` is also emitted after this side has disconnected.
//! - A timeout is an error, even if the child then exits with 0. A child that ignores its kill signal
//!   is sent `SIGKILL` after [`Command::kill_after`]; a stopped child is continued.
//! - `max_buffer` keeps exactly the allowed number of bytes of each stream, in the synchronous
//!   forms as well.
//! - The output that a killed child leaves in its pipes is still collected.
//! - A signal that this process ignores stays ignored in a child, except `SIGPIPE` and `SIGCHLD`, so
//!   that `nohup` and background jobs of a shell work; Node resets all of them, and so does
//!   [`Command::default_signals`].
//! - A message has one owner: while an `on_message` callback is installed, the receiver of
//!   [`take_events`](Child::take_events) gets no
//!   messages.

mod buffer;
mod cancel;
mod capture;
mod channel_env;
mod child;
mod child_state;
mod command;
mod control_group;
mod ending;
mod error;
mod event;
mod exec;
mod exec_error;
mod fork;
mod given_up;
mod init;
#[doc(hidden)]
pub mod internal;
mod lifecycle;
mod module;
mod orphans;
mod parent;
mod parent_death;
mod parent_exit;
mod plan;
mod proc_fs;
mod process;
mod sandbox;
mod signalled;
mod start;
mod stdio;
mod subscribers;
mod terminal;
#[cfg(feature = "tokio")]
mod tokio;
mod tree;

pub use cancel::CancelToken;
pub use capture::Output;
pub use child::Child;
pub use command::Command;
/// The receiver of [`Child::take_events`], [`Parent::take_events`] and [`Exec::outcome`], a type of
/// the crate `crossbeam-channel`, version 0.5.
#[doc(no_inline)]
pub use crossbeam_channel::Receiver;
pub use error::{Error, InvalidOption, OutputStream, SpawnError};
pub use event::Event;
pub use exec::{Exec, exec, exec_file, exec_file_sync, exec_sync, spawn, spawn_sync};
pub use exec_error::ExecError;
pub use fork::{Fork, fork};
pub use init::init;
pub use module::{Module, module, run_modules};
pub use orphans::reap_orphans;
pub use parent::{Parent, parent, parent_with};
pub use sandbox::Sandbox;
pub use signalled::{Signalled, TreeError};
pub use stdio::{ChildOutput, ChildStdin, Stdio};
pub use sys::capability::Capability;
pub use sys::pidfd::ExitStatus;
pub use sys::rlimit::{Limit, Resource, raise_descriptors};
pub use sys::seccomp::{Argument, Denied, Filter, Instruction, Test};
pub use sys::signal::Signal;
pub use sys::spawn::Step;
pub use sys::startup::inherited;
pub use terminal::{Terminal, TerminalSize};
#[cfg(feature = "tokio")]
pub use tokio::AsyncStdin;

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
