//! Plumbing for the crates above: internal messages, and events on the loop itself.
//!
//! The module is hidden from the documentation, and may change in any release.

use std::os::fd::OwnedFd;

use ipc::{Link, Queued, SendHandleError};
use serde::Serialize;

use crate::child::{Child, channel};
use crate::error::Error;
pub use crate::event::InternalEvent as Event;
use crate::parent::Parent;
use crate::subscribers::Subscriber;
use crate::{Signal, Signalled};

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
