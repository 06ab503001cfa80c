//! Starting programs: one engine for every option, at the cost of a `vfork`.
//!
//! [`Plan`] describes the child, and [`spawn`] starts it. The child borrows the memory of this
//! process until it has executed its program, so the cost does not depend on the size of that
//! memory, and an error comes back without a pipe, together with the [`Step`] that failed. Sandboxes
//! that refuse `CLONE_PIDFD`, and emulators that copy the memory, are noticed: see `clone`.
//!
//! A start has an end: a child that has not executed its program in time is killed. No lock is held
//! meanwhile, and a thread that waits for one child delays no other.
//!
//! Files: `plan` is the data, `engine` the parent's side, `loan` the memory that the child borrows,
//! `clone` the call itself, `wait` the wait for the child, `credentials` the dumpable flag during a
//! change of user, `remnants` the children that cannot be ended, and `child` the program that runs
//! between `clone` and `execve`.

mod child;
mod clone;
mod credentials;
mod engine;
mod loan;
mod plan;
mod remnants;
mod socket;
mod wait;

#[doc(hidden)]
pub use child::socket::SocketProgram;
pub use engine::{SpawnError, Spawned, spawn};
pub use plan::{Attributes, Descriptor, Plan, Source, Step};
pub use socket::{Member, OpenedSocket, SocketName, SocketOrder, open_socket};
