//! The system calls of brood: the only crate of the workspace that contains `unsafe`.
//!
//! Each module covers one kernel facility. Functions take typed arguments, return owned results,
//! and leave no descriptor open on any error path. Policy lives in the crates above.
//!
//! | Modules | Facility |
//! |---|---|
//! | [`spawn`], [`pidfd`], [`signal`] | processes |
//! | [`init`], [`startup`], [`origin`], [`thread`], [`rlimit`], [`at_exit`] | this process |
//! | [`socket`], [`bind`], [`folder`], [`socket_file`], [`reuse_port`], [`scm`] | sockets, and descriptors sent over them |
//! | [`fd`], [`pipe`], [`memory`], [`eventfd`], [`terminal`] | other descriptors |
//! | [`poll`], [`nested_epoll`] | readiness |
//! | [`capability`], [`landlock`], [`seccomp`], [`dumpable`] | rights, and their limits |
//! | [`errno`], [`text`], [`host`] | error numbers, foreign text, facts about the machine |
#![allow(unsafe_code, reason = "this crate is where the project's unsafe code is kept")]

pub mod at_exit;
pub mod bind;
pub mod capability;
pub mod dumpable;
pub mod errno;
pub mod eventfd;
pub mod fd;
pub mod folder;
pub mod host;
pub mod init;
pub mod landlock;
mod main_program;
pub mod memory;
pub mod nested_epoll;
pub mod origin;
pub mod pidfd;
pub mod pipe;
pub mod poll;
pub mod reuse_port;
pub mod rlimit;
pub mod scm;
pub mod seccomp;
pub mod signal;
pub mod socket;
pub mod socket_file;
pub mod spawn;
pub mod startup;
pub mod terminal;
#[cfg(feature = "testing")]
#[doc(hidden)]
pub mod testing;
pub mod text;
pub mod thread;

/// The example of the README is compiled as a test.
#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;
