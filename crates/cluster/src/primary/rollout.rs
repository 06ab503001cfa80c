//! The calls of a primary that bring workers up: the wait for a start, and reloads.

use std::time::Instant;

use crate::contract::Input;
use crate::error::Error;
use crate::primary::primary_state::{Job, PrimaryState};
use crate::primary::{Primary, failure};
use crate::protocol::address::Address;

impl Primary {
    /// Replaces every worker, one after the other, while connections are served. Blocks until the
    /// last old worker has ended.
    ///
    /// A new worker first listens on every address that its predecessor listens on; only then is
    /// the predecessor asked to finish. Before a release that listens on fewer addresses, call
    /// [`close_address`](Self::close_address). A call during a reload waits for its end; then one
    /// further reload answers all such calls. The new workers run the file that lies at the path of this
    /// program (or of [`WorkerOptions::exec`](crate::WorkerOptions::exec)) by then, which may be a new build.
    /// [`Builder::reload_on_hangup`](crate::Builder::reload_on_hangup) reloads on `SIGHUP`.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), brood_cluster::Error> {
    /// # let primary = brood_cluster::Primary::builder().build()?;
    /// match primary.reload() {
    ///     Ok(()) => eprintln!("all workers are new"),
    ///     Err(error) => eprintln!("{error}; the other workers keep running"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    ///
    /// - [`Error::EndedBeforeReady`] or [`Error::Listen`] when a new worker ends, and
    ///   [`Error::NotReady`] when it is not ready within
    ///   [`Builder::ready_within`](crate::Builder::ready_within), or does not
    ///   listen on all these addresses; the error names what is missing. The reload stops, and
    ///   workers that were not replaced yet keep running.
    /// - [`Error::NotRunning`] before the start, and when the cluster ends.
    /// - [`Error::WouldDeadlock`] in a callback.
    ///
    /// Node has no counterpart.
    pub fn reload(&self) -> Result<(), Error> {
        self.may_wait()?;
        self.shared.query(Job::Reload).unwrap_or(Err(Error::NotRunning))
    }

    /// Closes an address that is not to be served any more. Returns at once.
    ///
    /// While there are workers, the primary keeps an address open on which they have listened, and a
    /// reload requires it of new workers. This call ends that: connections that the kernel has
    /// accepted for the address are still dispatched, then the listeners of the workers end, and
    /// new clients are refused. An address with port 0 stands for all ports that were opened by it.
    /// The call has no effect where the primary has no socket. A worker that listens there later
    /// opens the address again.
    ///
    /// Under [`Policy::Shared`](crate::Policy::Shared) and for datagrams the workers share the socket itself, which is open
    /// until the last of them closes it.
    ///
    /// ```no_run
    /// # fn main() -> Result<(), brood_cluster::Error> {
    /// # let primary = brood_cluster::Primary::builder().build()?;
    /// // The next release has no metrics port.
    /// let metrics: std::net::SocketAddr = ([127, 0, 0, 1], 9100).into();
    /// primary.close_address(&metrics.into());
    /// primary.reload()?;
    /// # Ok(()) }
    /// ```
    ///
    /// Node has no counterpart.
    pub fn close_address(&self, address: &Address) {
        self.shared.input(Input::CloseAddress { address: address.clone() });
    }

    /// Blocks until all workers are ready, but at most for the time that
    /// [`Builder::ready_within`](crate::Builder::ready_within) sets. A worker is ready when it
    /// listens; [`Builder::listens_after`](crate::Builder::listens_after) and
    /// [`Builder::listens`](crate::Builder::listens) are for those that do not.
    ///
    /// Before [`start`](Self::start) the wait includes the start.
    ///
    /// # Errors
    ///
    /// A worker of the first start that ends before all are ready, though it may have listened, ends
    /// the whole start; so does one that is not ready in time. No worker is left behind. A worker
    /// that was online and gets a signal that ends it, such as `SIGKILL`, and a worker that ends
    /// more than 10 s after its start are replaced instead.
    ///
    /// - [`Error::NotReady`] when the time has passed. The error names the workers that are not
    ///   ready, and what is missing. The workers get `SIGTERM`, those that are online 500 ms after
    ///   the request to finish, and the error is returned when they have ended, so at most these
    ///   500 ms and [`Builder::terminate_within`](crate::Builder::terminate_within) later.
    /// - [`Error::Listen`] when an address could not be opened.
    /// - [`Error::EndedBeforeReady`], with the end of the worker's standard error, when a worker
    ///   ended for another reason.
    /// - [`Error::Fork`] when a worker could not be started.
    ///
    /// After a [`scale`](Self::scale) or [`fork`](Self::fork) of a primary that has workers already,
    /// all workers keep running when the time has passed, and the call can be repeated.
    ///
    /// - [`Error::NotRunning`] after a shutdown, and when no worker is left that could listen.
    /// - [`Error::Interrupted`] when a second signal cut a shutdown short.
    /// - [`Error::WouldDeadlock`] in a callback.
    pub fn ready(&self) -> Result<(), Error> {
        self.may_wait()?;
        let within = self.shared.lock().readiness.within;
        let ready = self.shared.wait_deadline(Instant::now().checked_add(within), |state| {
            match state {
                PrimaryState { ready: true, .. } => Some(Ok(())),
                // Reported only when no worker is left: a caller that exits leaves none behind.
                PrimaryState { finished: true, .. } | PrimaryState { idle: true, .. } => {
                    Some(Err(failure(state).unwrap_or(Error::NotRunning)))
                }
                _ => None,
            }
        });
        ready.unwrap_or_else(|| Err(self.give_up()))
    }

    /// Ends a first start that took too long. Returns the error for that.
    fn give_up(&self) -> Error {
        let not_ready = self.shared.not_ready(|_| true);
        let (first_start, before) = {
            let state = self.shared.lock();
            (state.first_start, state.idle_version)
        };
        if first_start {
            self.shared.input(Input::GiveUpStart);
            // Reported only when no worker is left: a caller that exits leaves none behind. The
            // start may have been over before the request arrived.
            let over = |state: &mut PrimaryState| {
                state.finished || !state.first_start || state.idle_version != before
            };
            self.shared.wait_until(|state| over(state).then_some(()));
        }
        Error::NotReady(Box::new(not_ready))
    }
}
