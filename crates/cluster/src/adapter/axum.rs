//! `axum::serve` on a listener of the cluster.

use std::time::Duration;

use ::axum::Router;
use ::axum::serve::Listener as Serve;

use crate::adapter::tokio::{AsyncListener, AsyncStream};
use crate::error::Error;
use crate::worker::Worker;
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

impl<S: AsyncStream> AsyncListener<S> {
    /// Serves `app` with axum until the worker has drained and all of its connections are closed.
    ///
    /// The graceful shutdown of axum does not wait for connections that a handler has upgraded, such
    /// as WebSockets; this function does. The limit of the wait is the primary's
    /// [`disconnect_within`](crate::Builder::disconnect_within). A handler of a connection that
    /// would not end by itself waits for [`Worker::draining`], too, and says goodbye then.
    ///
    /// In a process that is no worker the server runs until the future is dropped.
    ///
    /// ```no_run
    /// # async fn serve() -> Result<(), Box<dyn std::error::Error>> {
    /// use brood_cluster::AsyncListener;
    ///
    /// let listener = AsyncListener::new(brood_cluster::listen("127.0.0.1:8000")?)?;
    /// listener.serve(axum::Router::new()).await?;
    /// # Ok(())
    /// # }
    /// ```
    ///
    /// # Errors
    ///
    /// Those of `axum::serve`, which has none at the moment.
    ///
    /// # Panics
    ///
    /// As [`AsyncListener::new`].
    pub async fn serve(self, app: Router) -> std::io::Result<()> {
        let server = ::axum::serve(self, app);
        let Some(worker) = Worker::current() else { return server.await };
        server.with_graceful_shutdown(worker.draining()).await?;
        worker.all_closed().await;
        Ok(())
    }
}
