//! `axum::serve` on a listener of the cluster.

use std::time::Duration;

use ::axum::serve::Listener as Serve;

use crate::adapter::tokio::{AsyncListener, AsyncStream};
use crate::error::Error;
use crate::worker::accepted::Accepted;

/// The pause after a failed accept, which most often lacked a descriptor.
const ACCEPT_RETRY: Duration = Duration::from_millis(50);

impl<S: AsyncStream> Serve for AsyncListener<S> {
    type Io = Accepted<S::Async>;
    type Addr = S::Peer;

    /// Waits for the next connection; never fails and never ends.
    ///
    /// When no further connection will arrive, the future stays pending. The end of the server is
    /// the task of `with_graceful_shutdown(worker.draining())`.
    async fn accept(&mut self) -> (Accepted<S::Async>, S::Peer) {
        loop {
            match AsyncListener::accept(self).await {
                Ok(accepted) => return accepted,
                Err(Error::Closed) => {
                    self.close();
                    std::future::pending::<()>().await;
                }
                Err(_) => ::tokio::time::sleep(ACCEPT_RETRY).await,
            }
        }
    }

    fn local_addr(&self) -> std::io::Result<S::Peer> {
        S::local(self.address())
    }
}
