//! The receiving half on the loop: messages as events, or as callbacks.

use crate::channel::Channel;
use crate::error::Error;
use crate::link::{Link, LinkEvent, Queued};
use crate::received_message::Message;
use crossbeam_channel::Receiver;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::marker::PhantomData;

/// A message of type `R` that has arrived and is not decoded yet.
///
/// Holds credit of its channel until it is decoded or dropped, as [`Message`] does.
pub struct TypedMessage<R> {
    message: Message,
    kind: PhantomData<fn() -> R>,
}

impl<R: DeserializeOwned> TypedMessage<R> {
    /// Decodes the message.
    ///
    /// # Errors
    ///
    /// As [`Message::decode`].
    pub fn decode(self) -> Result<R, Error> {
        self.message.decode()
    }

    /// Returns the message without its type, to decode it as another type or to pass it on.
    #[must_use]
    pub fn into_message(self) -> Message {
        self.message
    }
}

impl<R> fmt::Debug for TypedMessage<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.message.fmt(f)
    }
}

/// An event of a channel whose receiving half is on the loop.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event<R> {
    /// A message has arrived.
    Message(TypedMessage<R>),
    /// The channel is closed. This is the last event.
    Disconnect {
        /// The number of accepted messages that the peer did not read.
        undelivered: usize,
        /// The reason, unless one side disconnected or exited.
        error: Option<Error>,
    },
}

/// The sending half of a channel whose receiving half is on the loop. Never blocks.
///
/// Clones share the half. The drop of the last clone closes the channel after everything that was
/// accepted is written.
pub struct LinkSender<S> {
    link: Link,
    kind: PhantomData<fn(S)>,
}

impl<S: Serialize> LinkSender<S> {
    /// Sends a message. Does not block.
    ///
    /// # Errors
    ///
    /// As [`Link::send`].
    pub fn send(&self, value: &S) -> Result<Queued, Error> {
        self.link.send(value)
    }
}

impl<S> LinkSender<S> {
    /// Closes the channel after everything that was accepted is written. Does not wait.
    pub fn disconnect(&self) {
        self.link.disconnect();
    }

    /// Returns whether messages are accepted.
    #[must_use]
    pub fn is_connected(&self) -> bool {
        self.link.is_connected()
    }
}

impl<S> Clone for LinkSender<S> {
    fn clone(&self) -> LinkSender<S> {
        LinkSender { link: self.link.clone(), kind: PhantomData }
    }
}

impl<S> fmt::Debug for LinkSender<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LinkSender").field("connected", &self.is_connected()).finish()
    }
}

impl<S, R> Channel<S, R> {
    /// Moves the receiving half to the loop; messages arrive as events, for `select!`.
    ///
    /// The queue of events has no limit of its own: messages that are not decoded count against
    /// [`Options::unread_bytes_max`](crate::Options::unread_bytes_max), above which the channel is
    /// not read.
    ///
    /// ```
    /// use brood_ipc::Event;
    ///
    /// let (a, b) = brood_ipc::channel::<u32, u32>()?;
    /// let (sender, events) = a.into_events()?;
    /// b.send(&7)?;
    /// match events.recv()? {
    ///     Event::Message(message) => assert_eq!(message.decode()?, 7),
    ///     other => panic!("{other:?}"),
    /// }
    /// sender.send(&8)?;
    /// assert_eq!(b.recv()?, 8);
    /// drop(b);
    /// assert!(matches!(events.recv()?, Event::Disconnect { undelivered: 0, .. }));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Channel::into_link`].
    pub fn into_events(self) -> Result<(LinkSender<S>, Receiver<Event<R>>), Error>
    where
        R: 'static,
    {
        let (sender, events) = crossbeam_channel::unbounded();
        let link = self.into_link(move |event| {
            let event = match event {
                LinkEvent::Message(message) => {
                    Event::Message(TypedMessage { message, kind: PhantomData })
                }
                LinkEvent::Disconnect { undelivered, error } => {
                    Event::Disconnect { undelivered, error }
                }
            };
            // A receiver that is gone gets no events, and none are stored for it.
            let _ = sender.send(event);
        })?;
        Ok((LinkSender { link, kind: PhantomData }, events))
    }

    /// Moves the receiving half to the loop and calls `call` with each message on the callback
    /// thread.
    ///
    /// Calls happen in the order of the messages. The last call gets the error that closed the
    /// channel, or [`Error::Undelivered`] when the peer closed before it had read everything; there
    /// is no such call when neither happened. Then `call` is dropped.
    ///
    /// ```
    /// let (a, b) = brood_ipc::channel::<String, u32>()?;
    /// let (copies, received) = std::sync::mpsc::channel();
    /// let sender = a.on_message(move |message| copies.send(message.unwrap()).unwrap())?;
    /// b.send(&7)?;
    /// assert_eq!(received.recv()?, 7);
    /// sender.send(&"thanks".to_owned())?;
    /// assert_eq!(b.recv()?, "thanks");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    ///
    /// As [`Channel::into_link`].
    pub fn on_message(
        self,
        mut call: impl FnMut(Result<R, Error>) + Send + 'static,
    ) -> Result<LinkSender<S>, Error>
    where
        R: DeserializeOwned,
    {
        let call = reactor::callback::each(move |result: Result<Message, Error>| {
            call(result.and_then(Message::decode));
        });
        let link = self.into_link(move |event| {
            let result = match event {
                LinkEvent::Message(message) => Ok(message),
                LinkEvent::Disconnect { error: Some(error), .. } => Err(error),
                LinkEvent::Disconnect { undelivered, .. } if undelivered > 0 => {
                    Err(Error::Undelivered(undelivered))
                }
                LinkEvent::Disconnect { .. } => return,
            };
            call(result);
        })?;
        Ok(LinkSender { link, kind: PhantomData })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callbacks_get_every_message_in_order_and_errors_as_values() {
        let (a, b) = crate::channel::<(), u8>().unwrap();
        let (copies, received) = crossbeam_channel::unbounded();
        let _sender = a.on_message(move |message| copies.send(message.ok()).unwrap()).unwrap();
        // The peer sends one message of another type in between.
        let peer = b.into_link(|_| {}).unwrap();
        for number in 0..100_u8 {
            peer.send(&number).unwrap();
        }
        peer.send("no number").unwrap();
        peer.send(&100_u8).unwrap();
        drop(peer);
        let expected: Vec<_> = (0..100).map(Some).chain([None, Some(100)]).collect();
        assert_eq!(received.iter().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn the_last_callback_gets_the_error_that_closed_the_channel() {
        let (ours, theirs) = sys::socket::pair_stream().unwrap();
        let a = Channel::<(), u8>::from_fd(ours, crate::Options::new()).unwrap();
        let (copies, received) = crossbeam_channel::unbounded();
        let _sender = a.on_message(move |message| copies.send(message).unwrap()).unwrap();
        let options = crate::Options::new().tag("other");
        let b = Channel::<u8, ()>::from_fd(theirs, options).unwrap();
        b.send(&1).unwrap();
        let all: Vec<_> = received.iter().collect();
        assert!(matches!(all.as_slice(), [Err(Error::Mismatch { .. })]), "{all:?}");
    }

    #[test]
    fn a_typed_message_may_be_decoded_as_another_type_with_the_same_parts() {
        let (b, a) = crate::channel::<u32, ()>().unwrap();
        let (_sender, events) = a.into_events().unwrap();
        b.send(&7).unwrap();
        let Event::Message(message) = events.recv().unwrap() else { panic!() };
        assert_eq!(message.into_message().decode::<(u32,)>().unwrap(), (7,));
        b.send(&7).unwrap();
        let Event::Message(message) = events.recv().unwrap() else { panic!() };
        let error = message.into_message().decode::<[u8; 4]>().unwrap_err();
        assert!(matches!(error, Error::WrongType { expected: "[u8; 4]", .. }), "{error:?}");
    }
}
