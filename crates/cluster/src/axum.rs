//! `axum::serve` on a listener of the cluster.

use std::net::SocketAddr;
use std::time::Duration;

use ::axum::serve::Listener as Serve;
use ::tokio::net::TcpStream;

use crate::error::Error;
use crate::tokio::AsyncListener;

/// How long an accept that failed for want of descriptors waits before it is tried again.
const PAUSE: Duration = Duration::from_millis(50);

impl Serve for AsyncListener {
    type Io = TcpStream;
    type Addr = SocketAddr;

    /// Never ends and never fails: when no connection will come it waits for ever, and leaves
    /// the end to `with_graceful_shutdown(worker.draining())`.
    async fn accept(&mut self) -> (TcpStream, SocketAddr) {
        loop {
            match AsyncListener::accept(self).await {
                Ok(accepted) => return accepted,
                Err(Error::Closed) => std::future::pending::<()>().await,
                Err(_) => ::tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<SocketAddr> {
        match self.address() {
            crate::Address::Tcp { address, .. } => Ok(*address),
            _ => Err(std::io::ErrorKind::AddrNotAvailable.into()),
        }
    }
}
