//! The listener for tokio, and with feature `axum` for `axum::serve`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::{SocketAddr, TcpStream as StdStream};
use std::os::fd::{AsFd, AsRawFd};
use std::pin::{Pin, pin};
use std::task::Poll;

use ::tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use ::tokio::net::TcpStream;

use crate::address::Address;
use crate::error::Error;
use crate::listener::Listener;
use crate::queue::Connection;
use crate::record::no_address;

/// A [`Listener`] whose `accept` is a future.
///
/// Made by [`AsyncListener::new`] inside a tokio runtime with I/O enabled. `drop` takes it off
/// the runtime and closes it, in this order.
#[derive(Debug)]
pub struct AsyncListener(AsyncFd<Watched>);

/// The listener as tokio asks for it: by number.
#[derive(Debug)]
struct Watched(Listener);

impl AsRawFd for Watched {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

impl AsyncListener {
    /// Hands the listener to the tokio runtime this is called in.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the descriptor.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, or in one without I/O.
    #[allow(
        deprecated,
        reason = "the successor is `unsafe`; what it asks for, one descriptor as long as it \
                  lives, is what a listener has"
    )]
    pub fn new(listener: Listener) -> Result<Self, Error> {
        use ::tokio::io::Interest;
        AsyncFd::with_interest(Watched(listener), Interest::READABLE)
            .map(Self)
            .map_err(|source| Error::Os("epoll_ctl", source))
    }

    /// Waits for a connection. Cancel safe: a connection is taken in the same poll that gives it.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`].
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr), Error> {
        let accepted = self.take().await;
        if matches!(accepted, Err(Error::Closed)) {
            self.end();
        }
        accepted
    }

    /// As `accept`, but leaves it to the caller to end the listener.
    pub(crate) async fn take(&self) -> Result<(TcpStream, SocketAddr), Error> {
        loop {
            let Some(ready) = self.readable().await else {
                // The drain has begun: what is there is taken, then it is closed.
                match self.0.get_ref().0.take()? {
                    Some(connection) => return into_stream(connection),
                    None => continue,
                }
            };
            let mut ready = ready.map_err(|source| Error::Os("epoll_wait", source))?;
            match ready.get_inner().0.take()? {
                Some(connection) => return into_stream(connection),
                None => ready.clear_ready(),
            }
        }
    }

    /// The drain need not wait for this listener any longer.
    pub(crate) fn end(&self) {
        self.0.get_ref().0.end();
    }

    /// Waits until a try is worth it; `None` once the worker drains and its socket, shared with
    /// others, does not say so. Every task that waits here is woken, not only the last.
    async fn readable(&self) -> Option<io::Result<AsyncFdReadyGuard<'_, Watched>>> {
        let Some(mut beginning) = self.0.get_ref().0.beginning() else {
            return if self.0.get_ref().0.is_draining_socket() {
                None
            } else {
                Some(self.0.readable().await)
            };
        };
        let mut readable = pin!(self.0.readable());
        poll_fn(|context| {
            if Pin::new(&mut beginning).poll(context).is_ready() {
                return Poll::Ready(None);
            }
            readable.as_mut().poll(context).map(Some)
        })
        .await
    }

    /// The address, with the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.0.get_ref().0.address()
    }
}

/// The descriptor is non-blocking since `accept4(2)`, as tokio needs it.
fn into_stream(connection: Connection) -> Result<(TcpStream, SocketAddr), Error> {
    let stream = TcpStream::from_std(StdStream::from(connection.socket))
        .map_err(|source| Error::Os("epoll_ctl", source))?;
    Ok((stream, connection.peer.unwrap_or_else(no_address)))
}
