//! The channel to the process that forked this one.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::Receiver;
use ipc::internal::{self, Event as LinkEvent};
use ipc::{Link, Message, Options, Queued, SendHandleError};
use serde::Serialize;

use crate::channel_env::Announcement;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::parent_exit;
use crate::subscribers::{Subscriber, Subscribers};

/// The process that forked this one, as seen through the channel.
///
/// The channel is not read before there is a receiver or a callback, so no message is lost. When
/// the parent is gone, [`Event::Disconnect`] is emitted; the program decides whether to exit then.
///
/// The parent can also be a Node program that started this one with `child_process.fork` (and
/// `execPath`), or with `spawn` and an `'ipc'` slot. A Node program ends when it writes to a channel
/// whose other end is closed. A normal exit of this process therefore disconnects first, and waits
/// until Node has closed its end, for five seconds at most.
pub struct Parent {
    link: Link,
    subscribers: Arc<Mutex<Subscribers>>,
    is_node: bool,
    events_taken: AtomicBool,
}

static PARENT: OnceLock<Option<Parent>> = OnceLock::new();

/// Returns the parent, if this process was started with a channel.
///
/// The announcement was removed from the environment, and the channel made close-on-exec, before
/// `main`: children of this process get neither.
///
/// ```
/// assert!(brood_child_process::parent().is_none(), "nobody forked this example");
/// ```
#[must_use]
pub fn parent() -> Option<&'static Parent> {
    parent_with(Options::new())
}

/// Returns the parent, as [`parent`] does, with the limits and the tag of `options` for the
/// channel. The first call decides, of this function or of `parent`. The parent chooses the codec.
///
/// # Panics
///
/// Panics when the tag is longer than [`Options::TAG_BYTES_MAX`].
#[must_use]
pub fn parent_with(options: Options) -> Option<&'static Parent> {
    if let Err(error) = internal::check_options(&options) {
        panic!("the channel to the parent: {error}");
    }
    PARENT.get_or_init(|| Parent::find(options)).as_ref()
}

impl Parent {
    fn find(options: Options) -> Option<Self> {
        let Announcement { socket, serialization, is_node } = Announcement::take()?;
        let options = options.serialization(serialization);
        let subscribers = Arc::new(Mutex::new(Subscribers::default()));
        let on_loop = subscribers.clone();
        let start = if is_node { internal::start_node } else { internal::start_paused };
        if is_node {
            // Before the first event, which may be the end of the channel.
            parent_exit::open();
            sys::at_exit::at_exit(|| parent_exit::close(disconnect_parent));
        }
        let link = start(socket, options, move |event| on_channel_event(&on_loop, event));
        let Ok(link) = link else {
            parent_exit::closed();
            return None;
        };
        Some(Self { link, subscribers, is_node, events_taken: AtomicBool::new(false) })
    }

    /// Sends a message. Never blocks; [`Queued`] says whether the sender should wait.
    ///
    /// The value is borrowed. After a successful send, the message has taken the handles inside of
    /// the value.
    ///
    /// # Errors
    ///
    /// The channel is closed, the message exceeds a limit, or it cannot be encoded. The handles of
    /// the value stay in it, usable.
    pub fn send<T: Serialize + ?Sized>(&self, value: &T) -> Result<Queued, ipc::Error> {
        self.link.send(value)
    }

    /// Sends a message with a socket to a Node parent. See
    /// [`Child::send_with_handle`](crate::Child::send_with_handle).
    ///
    /// # Errors
    ///
    /// As [`Child::send_with_handle`](crate::Child::send_with_handle).
    pub fn send_with_handle<T: Serialize + ?Sized>(
        &self,
        value: &T,
        handle: impl Into<OwnedFd>,
    ) -> Result<Queued, SendHandleError> {
        self.link.send_with_handle(value, handle)
    }

    /// Closes the channel when everything that was sent is written.
    ///
    /// # Errors
    ///
    /// [`Error::NoChannel`] when it is closed already.
    pub fn disconnect(&self) -> Result<(), Error> {
        if !self.link.is_connected() {
            return Err(Error::NoChannel);
        }
        self.link.disconnect();
        Ok(())
    }

    /// Takes the receiver of all events of the parent. It ends when the channel does. Returns `None`
    /// if it was taken before in this process, because a second receiver would miss messages.
    ///
    /// The receiver is one of `crossbeam_channel`, see [`Receiver`].
    #[doc(alias = "on")]
    pub fn take_events(&self) -> Option<Receiver<Event>> {
        if self.events_taken.swap(true, Ordering::AcqRel) {
            return None;
        }
        let (subscriber, events) = Subscriber::queue();
        self.add(subscriber);
        Some(events)
    }

    /// Calls on the callback thread for every message.
    ///
    /// A message has one owner: while there is such a callback, [`take_events`](Self::take_events) receives
    /// no messages.
    pub fn on_message(&self, call: impl FnMut(Message) + Send + 'static) -> &Self {
        self.add(Subscriber::callback(EventKind::Message, Event::into_message, call));
        self
    }

    /// Calls on the callback thread when the channel has ended.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.add(Subscriber::callback(EventKind::Disconnect, |_| Some(()), move |()| call()));
        self
    }

    /// Returns whether the parent is a Node program, or speaks Node's protocol.
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.is_node
    }

    /// Returns the number of bytes that were sent but are not written yet.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    /// Returns whether the channel is open.
    #[must_use]
    #[doc(alias = "connected")]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }

    pub(crate) fn own_link(&self) -> &Link {
        &self.link
    }

    pub(crate) fn add(&self, subscriber: Subscriber) {
        lock(&self.subscribers).add(subscriber);
        // The channel is read only now: a message without a subscriber would be lost.
        self.link.resume();
    }
}

fn disconnect_parent() {
    if let Some(parent) = PARENT.get().and_then(Option::as_ref) {
        parent.link.disconnect();
    }
}

/// Emits an event of the channel. Runs on the loop.
fn on_channel_event(subscribers: &Mutex<Subscribers>, event: LinkEvent) {
    if matches!(event, LinkEvent::Disconnect { .. }) && !parent_exit::closed() {
        return;
    }
    let mut subscribers = lock(subscribers);
    if subscribers.emit_from_channel(event) {
        subscribers.emit(Event::Disconnect);
        subscribers.close();
    }
}

fn lock(subscribers: &Mutex<Subscribers>) -> MutexGuard<'_, Subscribers> {
    subscribers.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Parent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Parent").field("connected", &self.is_connected()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[should_panic(expected = "the tag is longer than 256 bytes")]
    fn a_tag_that_no_parent_takes_is_refused_although_there_is_no_parent() {
        let _ = parent_with(Options::new().tag("t".repeat(257)));
    }
}
