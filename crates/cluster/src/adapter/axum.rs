//! `axum::serve` on a listener of the cluster.

use std::time::Duration;

use ::axum::serve::Listener as Serve;

use crate::adapter::tokio::{AsyncListener, AsyncStream};
use crate::error::Error;
use crate::worker::connection_guard::Accepted;

/// How long an accept that failed for want of descriptors waits before it is tried again, and
/// how long the last connections have to be read from before a drain is reached.
const PAUSE: Duration = Duration::from_millis(50);

impl<S: AsyncStream> Serve for AsyncListener<S> {
    type Io = Accepted<S::Async>;
    type Addr = S::Peer;

    /// Never ends and never fails: when no connection will come it waits for ever, and leaves
    /// the end to `with_graceful_shutdown(worker.draining())`.
    async fn accept(&mut self) -> (Accepted<S::Async>, S::Peer) {
        loop {
            match self.take().await {
                Ok(accepted) => return accepted,
                Err(Error::Closed) => {
                    // A graceful shutdown drops connections of which nothing was read. The last
                    // were accepted just now: let their first bytes be read before it begins.
                    let hold = self.close();
                    ::tokio::time::sleep(PAUSE).await;
                    drop(hold);
                    std::future::pending::<()>().await;
                }
                Err(_) => ::tokio::time::sleep(PAUSE).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<S::Peer> {
        S::local(self.address())
    }
}
