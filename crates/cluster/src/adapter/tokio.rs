//! Listeners in a Tokio runtime.

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
use crate::worker::accepted::Accepted;
use crate::worker::listener::{CountedConnection, Listener};
use crate::worker::stream_types::Stream;

/// A stream type that has a counterpart in Tokio.
pub trait AsyncStream: Stream {
    /// Tokio's type.
    type Async: AsyncRead + AsyncWrite + Unpin + Send + 'static;

    /// Converts the stream, which must be non-blocking, for the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the descriptor.
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

/// A [`Listener`] for Tokio, whose `accept` is a future.
///
/// With the feature `axum` it is also a listener for `axum::serve`. `drop` removes the descriptor
/// from the runtime and then closes the listener.
///
/// ```
/// # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
/// let listener = brood_cluster::AsyncListener::new(brood_cluster::listen("127.0.0.1:0")?)?;
/// # let client = std::net::TcpStream::connect(listener.address().to_string()).unwrap();
/// let (stream, peer) = listener.accept().await?;
/// println!("{peer} is connected");
/// # drop((client, stream));
/// # Ok::<(), brood_cluster::Error>(())
/// # }).unwrap();
/// ```
#[derive(Debug)]
pub struct AsyncListener<S: AsyncStream = StdTcpStream> {
    /// `None` once the listener is closed.
    watched: Option<AsyncFd<Watched<S>>>,
    address: Address,
}

/// A listener with the trait that Tokio needs.
#[derive(Debug)]
struct Watched<S: AsyncStream>(Listener<S>);

impl<S: AsyncStream> AsRawFd for Watched<S> {
    fn as_raw_fd(&self) -> i32 {
        self.0.as_fd().as_raw_fd()
    }
}

impl<S: AsyncStream> AsyncListener<S> {
    /// Registers a listener with the current Tokio runtime.
    ///
    /// # Errors
    ///
    /// The runtime cannot watch the descriptor.
    ///
    /// # Panics
    ///
    /// There is no current Tokio runtime, or I/O is not enabled in it.
    #[allow(
        deprecated,
        reason = "the successor is `unsafe`; it requires the same descriptor for the whole life \
                  of the value, and a listener never changes its descriptor"
    )]
    pub fn new(listener: Listener<S>) -> Result<Self, Error> {
        use ::tokio::io::Interest;
        let address = listener.address().clone();
        let watched = AsyncFd::with_interest(Watched(listener), Interest::READABLE)
            .map_err(|source| Error::Os("epoll_ctl", source))?;
        Ok(Self { watched: Some(watched), address })
    }

    /// Waits for a connection, and returns it with the peer's address.
    ///
    /// The future is cancel safe: a connection is taken in the poll that returns it.
    ///
    /// # Errors
    ///
    /// As [`Listener::accept`].
    pub async fn accept(&self) -> Result<(Accepted<S::Async>, S::Peer), Error> {
        let accepted = self.accept_connection().await;
        if let (Err(Error::Closed), Some(watched)) = (&accepted, &self.watched) {
            let listener = &watched.get_ref().0;
            drop(listener.stop());
            if let Some(quiet) = listener.quiet() {
                quiet.await;
            }
        }
        accepted
    }

    /// As [`accept`](Self::accept), but after [`Error::Closed`] the caller has to stop the
    /// listener.
    async fn accept_connection(&self) -> Result<(Accepted<S::Async>, S::Peer), Error> {
        let watched = self.watched.as_ref().ok_or(Error::Closed)?;
        loop {
            let Some(ready) = readable(watched).await else {
                // The drain has begun: the socket is read until it is empty.
                match watched.get_ref().0.accept_connection()? {
                    Some(counted) => return into_async::<S>(counted),
                    None => continue,
                }
            };
            let mut ready = ready.map_err(|source| Error::Os("epoll_wait", source))?;
            match watched.get_ref().0.accept_connection()? {
                Some(counted) => return into_async::<S>(counted),
                None => ready.clear_ready(),
            }
        }
    }

    /// Announces that this listener accepts nothing for a while; see [`Listener::pause`].
    pub fn pause(&self) {
        if let Some(watched) = &self.watched {
            watched.get_ref().0.pause();
        }
    }

    /// Ends a [`pause`](Self::pause).
    pub fn resume(&self) {
        if let Some(watched) = &self.watched {
            watched.get_ref().0.resume();
        }
    }

    /// Closes the descriptor.
    #[cfg(feature = "axum")]
    pub(crate) fn close(&mut self) {
        self.watched = None;
    }

    /// Returns the address of the listener. If the request was for port 0, this is the actual
    /// port.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }
}

/// Waits until an accept should be tried. Returns `None` once the worker drains, if the listener's
/// socket does not report the drain itself.
///
/// Several tasks may wait here at once; the drain wakes all of them.
async fn readable<S: AsyncStream>(
    watched: &AsyncFd<Watched<S>>,
) -> Option<io::Result<AsyncFdReadyGuard<'_, Watched<S>>>> {
    let listener = &watched.get_ref().0;
    let Some(mut drain_begun) = listener.drain_begun() else {
        let draining = listener.is_draining_socket();
        return if draining { None } else { Some(watched.readable().await) };
    };
    let mut readable = pin!(watched.readable());
    poll_fn(|context| {
        if let Poll::Ready(ready) = readable.as_mut().poll(context) {
            return Poll::Ready(Some(ready));
        }
        Pin::new(&mut drain_begun).poll(context).map(|()| None)
    })
    .await
}

/// Converts a connection to Tokio's stream. The descriptor is non-blocking since `accept4(2)`, as
/// Tokio requires.
fn into_async<S: AsyncStream>(
    counted: CountedConnection,
) -> Result<(Accepted<S::Async>, S::Peer), Error> {
    let (stream, peer) = Listener::<S>::into_stream(counted)?;
    let stream = stream.try_map(S::into_async).map_err(|source| Error::Os("epoll_ctl", source))?;
    Ok((stream, peer))
}

impl<S: AsyncRead + Unpin> AsyncRead for Accepted<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        self.begin_read();
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
