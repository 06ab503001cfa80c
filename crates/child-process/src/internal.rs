//! Plumbing for the crates above: internal messages, and events on the loop itself.
//!
//! The module is hidden from the documentation, and may change in any release.

use std::ffi::OsStr;
use std::os::fd::OwnedFd;

use ipc::{Link, Queued, SendHandleError};
use serde::Serialize;
use sys::host::user::Account;

use crate::child::{Child, channel};
use crate::error::Error;
pub use crate::event::InternalEvent as Event;
use crate::parent::Parent;
use crate::sandbox::{Sandbox, Undumpable};
use crate::subscribers::Subscriber;
use crate::{InvalidOption, Signal, Signalled};

/// The restrictions of a worker's sandbox that the worker's runtime sets, because `execve` resets
/// them or needs what they forbid.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OwnRestrictions {
    /// Other processes must not look into the worker.
    pub undumpable: bool,
    /// The worker must not execute programs.
    pub forbids_execve: bool,
}

/// Divides the sandbox of a worker into what the child sets before `execve`, and what the worker's
/// runtime sets. `is_native` tells whether the worker runs this program, and `is_other_user` whether
/// its user is another one.
///
/// # Errors
///
/// The option that is invalid, or that only a native worker can have.
pub fn worker_sandbox(
    sandbox: &Sandbox,
    is_native: bool,
    is_other_user: bool,
) -> Result<(Sandbox, OwnRestrictions), InvalidOption> {
    let mut first = sandbox.clone();
    let mut own = OwnRestrictions::default();
    if is_native {
        own.undumpable = std::mem::take(&mut first.undumpable) != Undumpable::No;
        own.forbids_execve = std::mem::take(&mut first.forbids_execve);
    }
    first.check()?;
    Ok((if is_other_user { first.of_another_user() } else { first }, own))
}

/// Returns the ids and groups that [`Command::user`](crate::Command::user) gives a child.
///
/// # Errors
///
/// As a start of such a child: there is no user of this name, or the database cannot be read.
pub fn account(name: &OsStr) -> Result<Account, Error> {
    crate::start::account(name)
}

/// Returns whether the sandbox is [`Sandbox::hardened`].
#[must_use]
pub fn is_hardened(sandbox: &Sandbox) -> bool {
    sandbox.is_hardened
}

/// Sends a signal as `sigqueue(3)` does, by which the child can tell it from one of `kill(2)`.
///
/// # Errors
///
/// As [`Child::kill`].
pub fn queue_signal(child: &Child, signal: Signal) -> Result<Signalled, Error> {
    child.queue_signal(signal)
}

/// A [`Child`] or the [`Parent`], with the operations that only the crates above use.
pub trait InternalChannel {
    /// Calls `sink` on the loop for every event. The call must not block.
    fn subscribe(&self, sink: impl FnMut(Event) + Send + 'static);

    /// Returns the channel, if there is one.
    fn link(&self) -> Option<&Link>;

    /// Returns whether the channel is not read at the moment, because too many of the peer's
    /// messages are unread.
    fn is_paused(&self) -> bool {
        self.link().is_some_and(Link::is_backpressured)
    }

    /// Sends a message that is not delivered to users.
    ///
    /// # Errors
    ///
    /// As [`Child::send`].
    fn send_internal<T: Serialize + ?Sized>(&self, value: &T) -> Result<Queued, ipc::Error> {
        ipc::internal::send_internal(channel(self.link())?, value)
    }

    /// Sends a received message on, as it arrived.
    ///
    /// # Errors
    ///
    /// As [`Child::send`]; [`ipc::Error::Encode`] when the peer has another codec, or when handles
    /// came with the message.
    fn forward(&self, message: &ipc::Message) -> Result<Queued, ipc::Error> {
        ipc::internal::forward(channel(self.link())?, message)
    }

    /// Sends an internal message with a raw handle to a Node peer. The answer comes as
    /// [`Event::Acknowledged`].
    ///
    /// # Errors
    ///
    /// As [`Child::send_with_handle`].
    fn send_internal_with_handle<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: impl Into<OwnedFd>,
        ticket: u64,
    ) -> Result<Queued, SendHandleError> {
        match channel(self.link()) {
            Ok(link) => ipc::internal::send_internal_with_handle(link, value, handle, ticket),
            Err(error) => Err(ipc::internal::send_handle_error(handle.into(), error)),
        }
    }
}

impl InternalChannel for Child {
    fn subscribe(&self, sink: impl FnMut(Event) + Send + 'static) {
        self.shared().subscribe(Subscriber::everything(sink));
    }

    fn link(&self) -> Option<&Link> {
        self.shared().link()
    }
}

impl InternalChannel for Parent {
    fn subscribe(&self, sink: impl FnMut(Event) + Send + 'static) {
        self.add(Subscriber::everything(sink));
    }

    fn link(&self) -> Option<&Link> {
        Some(self.own_link())
    }
}
