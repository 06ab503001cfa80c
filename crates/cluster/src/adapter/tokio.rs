//! The listener for tokio, and with feature `axum` for `axum::serve`.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpStream as StdTcpStream;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};

use ::tokio::io::unix::{AsyncFd, AsyncFdReadyGuard};
use ::tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use ::tokio::net::{TcpStream, UnixStream};

use crate::error::Error;
use crate::protocol::address::Address;
use crate::worker::connection_guard::Accepted;
#[cfg(feature = "axum")]
use crate::worker::draining::Hold;
use crate::worker::listener::{Listener, Taken};
use crate::worker::stream::Stream;

/// A stream that tokio has a type for.
pub trait AsyncStream: Stream {
    /// tokio's type.
    type Async: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Hands the stream, which does not block, to the runtime this is called in.
    ///
    /// # Errors
    ///
    /// When the runtime cannot watch the descriptor.
    fn into_async(self) -> io::Result<Self::Async>;
}

impl AsyncStream for StdTcpStream {
    type Async = TcpStream;

    fn into_async(self) -> io::Result<TcpStream> {
        TcpStream::from_std(self)
    }
}

impl AsyncStream for StdUnixStream {
    type Async = UnixStream;

    fn into_async(self) -> io::Result<UnixStream> {
        UnixStream::from_std(self)
    }
}

/// A [`Listener`] whose `accept` is a future.
///
/// Made by [`AsyncListener::new`] inside a tokio runtime with I/O enabled. `drop` takes it off
/// the runtime and closes it, in this order.
#[derive(Debug)]
pub struct AsyncListener<S: AsyncStream = StdTcpStream> {
    /// `None` once it is closed.
    watched: Option<AsyncFd<Watched<S>>>,
    address: Address,
}

/// The listener as tokio asks for it: by number.
#[derive(Debug)]
struct Watched<S: AsyncStream>(Listener<S>);

impl<S: AsyncStream> AsRawFd for Watched<S> {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

impl<S: AsyncStream> AsyncListener<S> {
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
    pub fn new(listener: Listener<S>) -> Result<Self, Error> {
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
    pub async fn accept(&self) -> Result<(Accepted<S::Async>, S::Peer), Error> {
        let accepted = self.take().await;
        if let (Err(Error::Closed), Some(watched)) = (&accepted, &self.watched) {
            drop(watched.get_ref().0.end());
        }
        accepted
    }

    /// As `accept`, but leaves it to the caller to end the listener.
    pub(crate) async fn take(&self) -> Result<(Accepted<S::Async>, S::Peer), Error> {
        let watched = self.watched.as_ref().ok_or(Error::Closed)?;
        loop {
            let Some(ready) = readable(watched).await else {
                // The drain has begun: what is there is taken, then it is closed.
                match watched.get_ref().0.take()? {
                    Some(taken) => return adopt::<S>(taken),
                    None => continue,
                }
            };
            let mut ready = ready.map_err(|source| Error::Os("epoll_wait", source))?;
            match watched.get_ref().0.take()? {
                Some(taken) => return adopt::<S>(taken),
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
async fn readable<S: AsyncStream>(
    watched: &AsyncFd<Watched<S>>,
) -> Option<io::Result<AsyncFdReadyGuard<'_, Watched<S>>>> {
    let listener = &watched.get_ref().0;
    let Some(mut beginning) = listener.beginning() else {
        let shared = listener.is_draining_socket();
        return if shared { None } else { Some(watched.readable().await) };
    };
    let mut readable = pin!(watched.readable());
    poll_fn(|context| {
        if let Poll::Ready(ready) = readable.as_mut().poll(context) {
            return Poll::Ready(Some(ready));
        }
        Pin::new(&mut beginning).poll(context).map(|()| None)
    })
    .await
}

/// The descriptor is non-blocking since `accept4(2)`, as tokio needs it.
fn adopt<S: AsyncStream>(taken: Taken) -> Result<(Accepted<S::Async>, S::Peer), Error> {
    let (stream, peer) = Listener::<S>::accepted(taken)?;
    let stream = stream.try_map(S::into_async).map_err(|source| Error::Os("epoll_ctl", source))?;
    Ok((stream, peer))
}

impl<S: AsyncRead + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Accepted<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffers: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut **self).poll_write_vectored(context, buffers)
    }

    fn is_write_vectored(&self) -> bool {
        (**self).is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut **self).poll_shutdown(context)
    }
}
