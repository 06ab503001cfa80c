//! The primary's messages for the program: a queue at first, a callback once one is set.

use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crossbeam_channel::{Receiver, Sender, unbounded};

/// The receiving end of user messages.
pub(super) struct UserMessages {
    /// `None` once the channel is closed.
    sink: Mutex<Option<Sink>>,
    /// The queue's receiver, until the program takes it.
    receiver: Mutex<Option<Receiver<ipc::Message>>>,
}

enum Sink {
    Queue(Sender<ipc::Message>),
    Callback(Box<dyn Fn(ipc::Message) + Send>),
}

impl Sink {
    fn accept(&self, message: ipc::Message) {
        match self {
            // Fails when the program has dropped the receiver: the message is dropped, too.
            Self::Queue(queue) => drop(queue.send(message)),
            Self::Callback(call) => call(message),
        }
    }
}

impl UserMessages {
    pub(super) fn new() -> Self {
        let (queue, receiver) = unbounded();
        Self { sink: Mutex::new(Some(Sink::Queue(queue))), receiver: Mutex::new(Some(receiver)) }
    }

    /// Passes a message on; drops it once the channel is closed.
    pub(super) fn push(&self, message: ipc::Message) {
        if let Some(sink) = self.sink().as_ref() {
            sink.accept(message);
        }
    }

    /// Takes the queue's receiver; `None` if it has been taken before.
    pub(super) fn take_receiver(&self) -> Option<Receiver<ipc::Message>> {
        self.receiver.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Replaces the queue by a callback, which gets the queued messages first.
    pub(super) fn set_callback(&self, call: impl FnMut(ipc::Message) + Send + 'static) {
        let callback = Sink::Callback(Box::new(reactor::callback::each(call)));
        // Locked until the callback is in place: a message that arrives meanwhile comes after the
        // queued messages.
        let mut sink = self.sink();
        // On a closed channel, too: the queue still has the messages that arrived before.
        let queued = self.take_receiver().into_iter();
        queued.for_each(|queue| queue.try_iter().for_each(|message| callback.accept(message)));
        if let Some(Sink::Queue(_)) = *sink {
            *sink = Some(callback);
        }
    }

    /// Ends the messages: a taken receiver disconnects after the last message.
    pub(super) fn close(&self) {
        *self.sink() = None;
    }

    fn sink(&self) -> MutexGuard<'_, Option<Sink>> {
        self.sink.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for UserMessages {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserMessages").finish_non_exhaustive()
    }
}
