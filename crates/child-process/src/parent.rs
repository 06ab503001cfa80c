//! The other end of the channel this process was forked with.

use std::fmt;
use std::os::fd::OwnedFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use crossbeam_channel::Receiver;
use ipc::{Link, LinkEvent, Message, Options, SendError};
use serde::Serialize;

use crate::announcement::Announcement;
use crate::error::Error;
use crate::event::{Event, EventKind};
use crate::subscribers::{Subscriber, Subscribers};

/// The process that forked this one, as far as the channel reaches it.
///
/// Nothing is read before somebody listens, so no message is lost. When the parent is gone,
/// [`Event::Disconnect`] comes; whether to end then is the program's choice.
///
/// The parent may be a Node program that has started this one with `child_process.fork` (and
/// `execPath`), or with `spawn` and an `'ipc'` slot.
pub struct Parent {
    link: Link,
    subscribers: Arc<Mutex<Subscribers>>,
    is_node: bool,
    events_taken: AtomicBool,
}

/// The parent, when this process was forked with a channel.
///
/// The channel and its announcement were taken out of the environment before `main`: children of
/// this process get neither.
///
/// ```
/// assert!(child_process::parent().is_none(), "nobody forked this example");
/// ```
#[must_use]
pub fn parent() -> Option<&'static Parent> {
    parent_with(|_| {})
}

/// As [`parent`], with other limits than the default for the channel, and its tag. Whoever comes
/// first decides; the codec is the parent's choice.
#[must_use]
pub fn parent_with(change: impl FnOnce(&mut Options)) -> Option<&'static Parent> {
    static PARENT: OnceLock<Option<Parent>> = OnceLock::new();
    PARENT.get_or_init(|| Parent::find(change)).as_ref()
}

impl Parent {
    fn find(change: impl FnOnce(&mut Options)) -> Option<Self> {
        let Announcement { socket, serialization, is_node } = Announcement::take()?;
        let mut options = Options::default();
        change(&mut options);
        options.serialization = serialization;
        let subscribers = Arc::new(Mutex::new(Subscribers::default()));
        let on_loop = subscribers.clone();
        let start = if is_node { Link::start_node } else { Link::start_paused };
        let link = start(socket, options, move |event| on_channel_event(&on_loop, event)).ok()?;
        Some(Self { link, subscribers, is_node, events_taken: AtomicBool::new(false) })
    }

    /// Sends a message; `false` says that more waits to be written than the channel likes, and
    /// that it will arrive all the same.
    ///
    /// # Errors
    ///
    /// The value comes back, with its handles, when the channel is closed, the message is over a
    /// limit, or it cannot be encoded.
    pub fn send<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.link.send(value)
    }

    /// Sends a message with a socket beside it to a Node parent. See
    /// [`Child::send_with_handle`](crate::Child::send_with_handle).
    ///
    /// # Errors
    ///
    /// As there.
    pub fn send_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        self.link.send_with_handle(value, handle)
    }

    /// For the crates above: an internal message with a raw handle to a Node parent, whose answer
    /// comes as [`Event::Acknowledged`].
    ///
    /// # Errors
    ///
    /// As [`send_with_handle`](Self::send_with_handle).
    #[doc(hidden)]
    pub fn send_internal_with_handle<T: Serialize>(
        &self,
        value: T,
        handle: impl Into<OwnedFd>,
        ticket: u64,
    ) -> Result<bool, SendError<(T, OwnedFd)>> {
        self.link.send_internal_with_handle(value, handle, ticket)
    }

    /// For the crates above: a message that users never see.
    ///
    /// # Errors
    ///
    /// As [`send`](Self::send).
    #[doc(hidden)]
    pub fn send_internal<T: Serialize>(&self, value: T) -> Result<bool, SendError<T>> {
        self.link.send_internal(value)
    }

    /// Closes the channel, after what was sent has been written.
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

    /// What the parent sends, as values; ends when the channel does. Once per process.
    ///
    /// # Panics
    ///
    /// When it was called before.
    pub fn events(&self) -> Receiver<Event> {
        let first = !self.events_taken.swap(true, Ordering::AcqRel);
        assert!(first, "the events of the parent are taken once");
        let (subscriber, events) = Subscriber::queue();
        self.add(subscriber);
        events
    }

    /// For the crates above: `sink` is told everything on the loop, where it must not block.
    pub fn subscribe(&self, sink: impl FnMut(Event) + Send + 'static) {
        self.add(Subscriber::new(sink));
    }

    /// Calls on the callback thread for every message. A message has one owner: while there is
    /// such a callback, [`events`](Self::events) gets none.
    pub fn on_message(&self, call: impl FnMut(Message) + Send + 'static) -> &Self {
        self.add(Subscriber::callback(EventKind::Message, Event::into_message, call));
        self
    }

    /// Calls on the callback thread when the channel has ended.
    pub fn on_disconnect(&self, mut call: impl FnMut() + Send + 'static) -> &Self {
        self.add(Subscriber::callback(EventKind::Disconnect, |_| Some(()), move |()| call()));
        self
    }

    /// Whether the parent is a Node program (or one that speaks as Node does).
    #[must_use]
    pub fn is_node(&self) -> bool {
        self.is_node
    }

    /// How many bytes of what was sent wait to be written.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.link.queued_bytes()
    }

    /// Whether the channel is open.
    #[must_use]
    pub fn connected(&self) -> bool {
        self.link.is_connected()
    }

    fn add(&self, subscriber: Subscriber) {
        lock(&self.subscribers).add(subscriber);
        self.link.resume();
    }
}

/// Runs on the loop.
fn on_channel_event(subscribers: &Mutex<Subscribers>, event: LinkEvent) {
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
        f.debug_struct("Parent").field("connected", &self.connected()).finish_non_exhaustive()
    }
}
