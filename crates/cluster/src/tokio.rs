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
#[cfg(feature = "axum")]
use crate::draining::Hold;
use crate::error::Error;
use crate::listener::Listener;
use crate::queue::Connection;
use crate::record::no_address;

/// A [`Listener`] whose `accept` is a future.
///
/// Made by [`AsyncListener::new`] inside a tokio runtime with I/O enabled. `drop` takes it off
/// the runtime and closes it, in this order.
#[derive(Debug)]
pub struct AsyncListener {
    /// `None` once it is closed.
    watched: Option<AsyncFd<Watched>>,
    address: Address,
}

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
        let address = listener.address().clone();
        let watched = AsyncFd::with_interest(Watched(listener), Interest::READABLE)
            .map_err(|source| Error::Os("epoll_ctl", source))?;
        Ok(Self { watched: Some(watched), address })
    }

    /// Waits for a connection. Cancel safe: a connection is taken in the same poll that gives it.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`].
    pub async fn accept(&self) -> Result<(TcpStream, SocketAddr), Error> {
        let accepted = self.take().await;
        if let (Err(Error::Closed), Some(watched)) = (&accepted, &self.watched) {
            drop(watched.get_ref().0.end());
        }
        accepted
    }

    /// As `accept`, but leaves it to the caller to end the listener.
    pub(crate) async fn take(&self) -> Result<(TcpStream, SocketAddr), Error> {
        let watched = self.watched.as_ref().ok_or(Error::Closed)?;
        loop {
            let Some(ready) = readable(watched).await else {
                // The drain has begun: what is there is taken, then it is closed.
                match watched.get_ref().0.take()? {
                    Some(connection) => return into_stream(connection),
                    None => continue,
                }
            };
            let mut ready = ready.map_err(|source| Error::Os("epoll_wait", source))?;
            match watched.get_ref().0.take()? {
                Some(connection) => return into_stream(connection),
                None => ready.clear_ready(),
            }
        }
    }

    /// Closes the descriptor; the worker's drain goes on when the answer is dropped.
    #[cfg(feature = "axum")]
    pub(crate) fn close(&mut self) -> Option<Hold> {
        self.watched.take().and_then(|watched| watched.get_ref().0.end())
    }

    /// The address, with the real port where 0 was asked for.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Waits until a try is worth it; `None` once the worker drains and its socket, shared with
/// others, does not say so. Every task that waits here is woken, not only the last.
async fn readable(
    watched: &AsyncFd<Watched>,
) -> Option<io::Result<AsyncFdReadyGuard<'_, Watched>>> {
    let listener = &watched.get_ref().0;
    let Some(mut beginning) = listener.beginning() else {
        let shared = listener.is_draining_socket();
        return if shared { None } else { Some(watched.readable().await) };
    };
    let mut readable = pin!(watched.readable());
    poll_fn(|context| {
        if Pin::new(&mut beginning).poll(context).is_ready() {
            return Poll::Ready(None);
        }
        readable.as_mut().poll(context).map(Some)
    })
    .await
}

/// The descriptor is non-blocking since `accept4(2)`, as tokio needs it.
fn into_stream(connection: Connection) -> Result<(TcpStream, SocketAddr), Error> {
    let stream = TcpStream::from_std(StdStream::from(connection.socket))
        .map_err(|source| Error::Os("epoll_ctl", source))?;
    Ok((stream, connection.peer.unwrap_or_else(no_address)))
}
