//! The asynchronous channel: tokio's `AsyncFd` around the same descriptor.

use crate::arrived_handle::ArrivedHandle;
use crate::channel::Channel;
use crate::channel::blocking_endpoint::{Endpoint, EndpointParts, decode};
use crate::error::Error;
use crate::frame::Kind;
use crate::options::Options;
use crate::transport::inbox::Inbox;
use crate::transport::linger;
use crate::transport::outbox::Outbox;
use crate::transport::outgoing::{HandleSlots, OutgoingFrame};
use crate::transport::socket_io::{self, Read};
use ::tokio::io::unix::AsyncFd;
use serde::{Serialize, de::DeserializeOwned};
use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::os::fd::{AsFd, OwnedFd};

/// An asynchronous endpoint, for tokio, of a channel that sends `S` and receives `R`.
///
/// Every future is cancel safe: dropping it loses no message and cuts none. A message whose `send`
/// was dropped counts as accepted, and the next call writes it.
pub struct AsyncChannel<S, R> {
    /// `None` only inside `drop`.
    io: Option<AsyncFd<OwnedFd>>,
    options: Options,
    outbox: Outbox<OwnedFd>,
    inbox: Inbox<ArrivedHandle>,
    /// A write has failed, so nothing more is sent.
    closed: bool,
    types: PhantomData<fn(S) -> R>,
}

impl<S, R> Channel<S, R> {
    /// Makes this endpoint asynchronous. Requires a tokio runtime with I/O enabled.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`] when the endpoint is closed or a half of it is in use; [`Error::Os`] when
    /// the descriptor cannot be registered.
    ///
    /// # Panics
    ///
    /// Panics outside of a tokio runtime, and in one without I/O.
    pub fn into_async(self) -> Result<AsyncChannel<S, R>, Error> {
        let parts = Endpoint::into_parts(self.into_endpoint()).filter(|parts| !parts.closed);
        let EndpointParts { socket, options, outbox, inbox, .. } = parts.ok_or(Error::Closed)?;
        #[allow(
            deprecated,
            reason = "its safe successor is unsafe; an owned descriptor stays open"
        )]
        let io = AsyncFd::new(socket).map_err(|error| Error::Os("epoll_ctl", error))?;
        Ok(AsyncChannel { io: Some(io), options, outbox, inbox, closed: false, types: PhantomData })
    }
}

impl<S, R> AsyncChannel<S, R> {
    fn io(&self) -> &AsyncFd<OwnedFd> {
        self.io.as_ref().expect("an endpoint in use has its socket")
    }

    /// Sends `value`. Waits while the peer does not read.
    ///
    /// # Errors
    ///
    /// As [`Channel::send`].
    pub async fn send(&mut self, value: &S) -> Result<(), Error>
    where
        S: Serialize,
    {
        // The frame is queued before the first await, so dropping the future cannot cut it.
        let slots = self.queue(value)?;
        let result = self.flush().await;
        if result.is_err() {
            self.closed = true;
            slots.reclaim(&mut self.outbox);
        }
        result
    }

    fn queue(&mut self, value: &S) -> Result<HandleSlots, Error>
    where
        S: Serialize,
    {
        if self.closed {
            return Err(Error::Closed);
        }
        let mut frame = OutgoingFrame::encode(value, Kind::Message, &self.options)?;
        frame.queue(&mut self.outbox)?;
        Ok(frame.slots)
    }

    /// Writes the queue. Waits while the peer does not read.
    ///
    /// # Errors
    ///
    /// [`Error::Closed`], [`Error::Os`].
    pub async fn flush(&mut self) -> Result<(), Error> {
        if self.closed {
            return Err(Error::Closed);
        }
        while !self.outbox.is_empty() {
            let io = self.io.as_ref().expect("an endpoint in use has its socket");
            let outbox = &mut self.outbox;
            let mut ready = io.writable().await.map_err(|error| Error::Os("epoll_wait", error))?;
            match ready.try_io(|io| socket_io::write(io.get_ref().as_fd(), outbox, false)) {
                Ok(Ok(_)) | Err(_) => {}
                Ok(Err(error)) if socket_io::is_transient(&error) => {
                    // Readiness stays set, because the socket is writable and only the kernel is
                    // short.
                    drop(ready);
                    ::tokio::task::yield_now().await;
                }
                Ok(Err(error)) => {
                    self.closed = true;
                    let gone = socket_io::is_gone(&error);
                    return Err(if gone { Error::Closed } else { Error::Os("sendmsg", error) });
                }
            }
        }
        self.outbox.recycle_memory();
        Ok(())
    }

    /// Receives the next message. Waits until there is one.
    ///
    /// # Errors
    ///
    /// As [`Channel::recv`].
    pub async fn recv(&mut self) -> Result<R, Error>
    where
        R: DeserializeOwned,
    {
        loop {
            while let Some(frame) = self.inbox.next_message()? {
                if frame.kind == Kind::Message {
                    let decoded = decode(&self.options, frame);
                    if !self.inbox.decoder().is_ready() {
                        self.inbox.recycle_buffer();
                    }
                    return decoded;
                }
            }
            self.inbox.recycle_buffer();
            let io = self.io.as_ref().expect("an endpoint in use has its socket");
            let inbox = &mut self.inbox;
            let mut ready = io.readable().await.map_err(|error| Error::Os("epoll_wait", error))?;
            inbox.take_buffer();
            let result =
                ready.try_io(|io| match socket_io::read(io.get_ref().as_fd(), inbox, false) {
                    Ok(Read::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
                    other => Ok(other),
                });
            if let Ok(Ok(read)) = result {
                if read? == Read::EndOfStream {
                    inbox.reclaim_buffer();
                    return Err(Error::Closed);
                }
            }
        }
    }
}

impl<S, R> Drop for AsyncChannel<S, R> {
    fn drop(&mut self) {
        let Some(io) = self.io.take() else { return };
        let socket = io.into_inner();
        if self.outbox.frames() > 0 {
            let outbox = std::mem::replace(&mut self.outbox, Outbox::new());
            linger::flush_and_close(socket, outbox, &self.options);
        }
    }
}

impl<S, R> AsFd for AsyncChannel<S, R> {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.io().get_ref().as_fd()
    }
}

impl<S, R> fmt::Debug for AsyncChannel<S, R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsyncChannel").field("socket", self.io().get_ref()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn an_asynchronous_endpoint_may_move_between_threads() {
        fn check<T: Send + Sync>() {}
        check::<super::AsyncChannel<u8, std::cell::RefCell<u8>>>();
    }

    #[test]
    fn asynchronous_endpoints_exchange_messages_with_blocking_ones() {
        let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (a, b) = crate::channel::<crate::Blob, u32>().unwrap();
            let mut a = a.into_async().unwrap();
            let blocking = std::thread::spawn(move || {
                for blob in b.iter() {
                    b.send(&(blob.unwrap().len() as u32)).unwrap();
                }
            });
            for length in [0, 10, 100_000, 5_000_000] {
                a.send(&crate::Blob::from(vec![1; length])).await.unwrap();
                assert_eq!(a.recv().await.unwrap() as usize, length);
                // An idle endpoint keeps no buffer.
                assert!(a.inbox.decoder().wants_buffer() && !a.outbox.holds_much_memory());
            }
            drop(a);
            blocking.join().unwrap();
        });
    }

    #[test]
    fn a_dropped_future_neither_loses_nor_cuts_a_message() {
        fn once<F: std::future::Future>(future: F) -> bool {
            let mut context = std::task::Context::from_waker(std::task::Waker::noop());
            std::pin::pin!(future).poll(&mut context).is_ready()
        }
        let runtime = ::tokio::runtime::Builder::new_current_thread().enable_io().build().unwrap();
        runtime.block_on(async {
            let (a, b) = crate::channel::<crate::Blob, u32>().unwrap();
            let mut a = a.into_async().unwrap();
            let lengths = [5_000_000, 7];
            assert!(!once(a.recv()), "nothing has arrived");
            assert!(!once(a.send(&crate::Blob::from(vec![1; lengths[0]]))), "the socket is full");
            let blocking = std::thread::spawn(move || {
                b.send(&1).unwrap();
                lengths.map(|_| b.recv().unwrap().len())
            });
            a.send(&crate::Blob::from(vec![1; lengths[1]])).await.unwrap();
            assert_eq!(a.recv().await.unwrap(), 1);
            assert_eq!(blocking.join().unwrap(), lengths);
        });
    }
}
