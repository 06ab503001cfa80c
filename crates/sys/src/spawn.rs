//! Starting programs: one engine for every option, at the cost of a vfork.
//!
//! [`Plan`] says what the child shall be; [`spawn`] makes it so. The child borrows our memory
//! until it has executed the program, so its cost does not depend on how much of it there is, and
//! an error comes back without a pipe, together with the [`Step`] that failed.
//!
//! Files: `plan` is the data, `engine` the parent's side, `child` the program that runs between
//! `clone` and `execve`.

mod child;
mod engine;
mod plan;

pub use engine::{SpawnError, Spawned, spawn};
pub use plan::{Attributes, Descriptor, Plan, Source, Step};
