//! The outputs of the supervisor, performed.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use reactor::{Interest, Token, Turn};
use sys::signal::Signal;

use super::rights::ParkedGrant;
use super::{Driver, WatchedFd};
use crate::contract::{Access, Grant, Input, Key, Output, Refusal, SharedPage, WorkerId};
use crate::error::Error;
use crate::primary::event::Event;
use crate::primary::spawner::SpawnOrder;
use crate::primary::worker_io::Answering;
use crate::protocol::address::Address;
use crate::protocol::hand_off_queue::{Connection, HandOffQueue};
use crate::protocol::message::{ListenGrant, ToWorker};
use crate::protocol::queue_page::QueuePage;
use crate::protocol::violation::Violation;

impl Driver {
    /// Performs one output. Answers go into the queue of inputs.
    pub(super) fn perform(&mut self, output: Output<Connection>, turn: &mut Turn<'_>) {
        match output {
            Output::Spawn { worker, slot: _, worker_options, capture_stderr, is_successor } => {
                let mut settings = self.settings.clone();
                if let Some(worker_options) = worker_options {
                    Arc::make_mut(&mut settings).overlay(&worker_options);
                }
                self.spawner.spawn(SpawnOrder { worker, settings, capture_stderr, is_successor });
            }
            Output::CancelSpawn { worker } => self.cancel_spawn(worker),
            Output::Forked { number, worker } => self.replies.assign(number, worker),
            Output::Idle => self.idle(),
            Output::AllGone { number } => self.replies.all_gone(number),
            Output::Emit { worker, notice, exit_requested } => {
                self.notify(worker, notice, exit_requested, turn);
            }
            output @ (Output::ListenFailed { .. }
            | Output::ListenRefused { .. }
            | Output::AskPermission { .. }
            | Output::Bind { .. }) => self.perform_listen(output),
            Output::StartFailed { worker } => {
                let failure = self.startup_failure(worker);
                self.shared.change(|state| state.failure = Some(failure));
            }
            Output::Ready => self.all_ready(),
            Output::Unbind { key, drain } => self.unbind(key, drain, turn),
            Output::Grant { worker, request, result } => self.grant(worker, request, result, turn),
            Output::Accept { key, on } => self.set_accepting(key, on, turn),
            Output::AcceptOnBehalf { key, slot, on } => self.accept_on_behalf(key, slot, on, turn),
            Output::Send { worker, key, connection } => self.send(worker, key, connection, turn),
            Output::Probe { worker, key } => self.probe(worker, key, turn),
            Output::PollDepth { worker, key } => {
                let depth = self.workers.queue(worker, key).and_then(|queue| queue.depth().ok());
                let records = u32::try_from(depth.unwrap_or(0)).unwrap_or(u32::MAX);
                self.inputs.push_back(Input::Depth { worker, key, records });
            }
            Output::Reclaim { worker, key } if self.is_node(worker) => {
                self.reclaim_from_node(worker, key);
            }
            Output::Reclaim { worker, key } => {
                let (connections, probes) = self.workers.reclaim(worker, key);
                self.inputs.push_back(Input::Reclaimed { worker, key, connections, probes });
            }
            Output::EndQueue { worker, key } => {
                if let Some(queue) = self.workers.queue(worker, key) {
                    // Fails only if the queue has ended already.
                    let _ = queue.end();
                }
            }
            Output::DropQueue { worker, key } => self.drop_queue(worker, key, turn),
            Output::SendDisconnect { worker } if self.is_node(worker) => {
                self.disconnect_node(worker)
            }
            Output::SendDisconnect { worker } => self.workers.send(worker, ToWorker::Disconnect),
            Output::CloseChannel { worker } => self.workers.disconnect(worker),
            Output::Signal { worker, hard } => {
                self.workers.kill(worker, if hard { Signal::KILL } else { Signal::TERM });
            }
            Output::Close { connection, reason: _ } => drop(connection),
            Output::AddressClosed { address } => self.shared.emit(Event::AddressClosed { address }),
            Output::Reloaded { numbers, on_signal, result } => {
                self.reloaded(&numbers, on_signal, result);
            }
            Output::Finished => self.finished = true,
        }
    }

    /// Performs the outputs about a request to listen, up to its grant.
    fn perform_listen(&mut self, output: Output<Connection>) {
        match output {
            Output::ListenFailed { worker, address, errno } => {
                self.listen_failed(worker, address, errno);
            }
            Output::ListenRefused { worker, address, refusal } => {
                self.listen_refused(worker, address, refusal);
            }
            Output::AskPermission { worker, request, address } => {
                self.ask(worker, request, address);
            }
            Output::Bind { key, address, options, reuse_port, rights: Some(rights) } => {
                self.order_first(key, (address, options), reuse_port, rights);
            }
            Output::Bind { key, address, options, reuse_port, rights: None } => {
                let result = self.bind(key, &address, &options, reuse_port);
                let result = result.map_err(|error| errno_of(&error));
                self.inputs.push_back(Input::Bound { key, result });
            }
            _ => unreachable!("performed by the caller"),
        }
    }

    /// Reports that all workers are ready, unless a request for more is still queued.
    fn all_ready(&mut self) {
        self.shared.change(|state| {
            state.ready = state.scales_pending == 0;
            state.first_start = false;
        });
    }

    /// Reports that no worker is left, unless a request for more is still queued.
    fn idle(&mut self) {
        self.shared.change(|state| {
            state.idle = state.scales_pending == 0;
            if state.idle {
                state.idle_version += 1;
                state.ready = false;
            }
        });
    }

    fn send(&mut self, worker: WorkerId, key: Key, connection: Connection, turn: &mut Turn<'_>) {
        let sent = self.workers.queue(worker, key).map(|queue| queue.send(&connection));
        if sent.is_none() && self.is_node(worker) {
            return self.send_to_node(worker, key, connection);
        }
        if let Some(refusal) = self.refusal(worker, key, sent, turn) {
            self.send_failed(worker, key, Some(connection), refusal);
        }
    }

    fn probe(&mut self, worker: WorkerId, key: Key, turn: &mut Turn<'_>) {
        let sent = self.workers.queue(worker, key).map(HandOffQueue::send_probe);
        if let Some(refusal) = self.refusal(worker, key, sent, turn) {
            self.send_failed(worker, key, None, refusal);
        }
    }

    pub(super) fn send_failed(
        &mut self,
        worker: WorkerId,
        key: Key,
        connection: Option<Connection>,
        refusal: Refusal,
    ) {
        self.inputs.push_back(Input::SendFailed { worker, key, connection, refusal });
    }

    /// Returns why a record was not sent, if it was not.
    ///
    /// A full queue is watched until it has room. The loop watches no other queue, because each
    /// record that a worker reads would wake the primary.
    fn refusal(
        &mut self,
        worker: WorkerId,
        key: Key,
        sent: Option<io::Result<()>>,
        turn: &mut Turn<'_>,
    ) -> Option<Refusal> {
        let Some(sent) = sent else { return Some(Refusal::Gone) };
        let refusal = refusal_of(&sent.err()?);
        if refusal == Refusal::Full {
            let token = self.token(WatchedFd::Queue(worker, key));
            if let Some(queue) = self.workers.queue(worker, key) {
                // Fails if the queue is watched already, or for lack of memory. In the second case
                // the scheduler finds the room at its next tick.
                if turn.register(queue.write_end(), token, Interest::WRITABLE).is_err() {
                    self.watched.remove(&token.0);
                }
            }
        }
        Some(refusal)
    }

    /// Reports that a full queue has room, and stops watching it.
    pub(super) fn writable(
        &mut self,
        token: Token,
        worker: WorkerId,
        key: Key,
        turn: &mut Turn<'_>,
    ) {
        self.watched.remove(&token.0);
        if let Some(queue) = self.workers.queue(worker, key) {
            let _ = turn.deregister(queue.write_end());
        }
        self.inputs.push_back(Input::Writable { worker, key });
    }

    pub(super) fn grant(
        &mut self,
        worker: WorkerId,
        request: u32,
        result: Result<Grant, i32>,
        turn: &mut Turn<'_>,
    ) {
        let grant = match result {
            Ok(grant) => grant,
            Err(errno) => return self.refuse(worker, request, errno),
        };
        let key = grant.key;
        if self.awaits_socket(&grant) {
            return self.parked.push(ParkedGrant { worker, request, grant });
        }
        let answering = self.workers.count_answer(worker, true);
        let sent = if answering != Answering::Allowed {
            Err(io::Error::from_raw_os_error(sys::errno::ENOBUFS))
        } else if self.is_node(worker) {
            self.grant_node(worker, request, &grant, turn)
        } else {
            self.grant_native(worker, request, grant, turn)
        };
        if let Err(error) = sent {
            let errno = errno_of(&error);
            self.inputs.push_back(Input::GrantFailed { worker, request, key, errno });
        }
    }

    fn refuse(&mut self, worker: WorkerId, request: u32, errno: i32) {
        if self.workers.count_answer(worker, false) == Answering::Violation {
            let violation = Violation::AnswersUnread;
            return self.inputs.push_back(Input::Violated { worker, violation });
        }
        if self.is_node(worker) {
            return self.refuse_node(worker, request, errno);
        }
        self.workers.send(worker, ToWorker::Listen { request, result: Err(errno) });
    }

    fn grant_native(
        &mut self,
        worker: WorkerId,
        request: u32,
        grant: Grant,
        turn: &mut Turn<'_>,
    ) -> io::Result<()> {
        let own_socket = self.open_for(&grant, turn)?;
        let result = Ok(self.listen_grant(worker, grant, own_socket)?);
        self.workers.send(worker, ToWorker::Listen { request, result });
        Ok(())
    }

    /// Makes the message of a grant, with the descriptors of the worker.
    fn listen_grant(
        &mut self,
        worker: WorkerId,
        grant: Grant,
        own_socket: Option<OwnedFd>,
    ) -> io::Result<ListenGrant> {
        let Grant { key, access, counts_closed, data } = grant;
        let canceled = || io::Error::from_raw_os_error(sys::errno::ECANCELED);
        let socket = self.listen_sockets.get(&(key, 0)).ok_or_else(canceled)?;
        let address = socket.address().clone();
        let (descriptor, page) = match access {
            Access::Shared => (socket.listener().try_clone_to_owned()?, None),
            Access::HandOff | Access::OwnSocket(_) => {
                let (page, page_for_worker) = QueuePage::new(counts_closed)?;
                let page = Arc::new(page);
                let (queue, worker_end) = HandOffQueue::new(page.clone())?;
                let worker_io = self.workers.get_mut(worker).ok_or_else(canceled)?;
                worker_io.queues.insert(key, queue);
                self.inputs.push_back(Input::Counts { worker, key, page });
                (worker_end, Some(ipc::Handle::new(page_for_worker)))
            }
        };
        let descriptor = ipc::Handle::new(descriptor);
        if matches!(access, Access::OwnSocket(_)) && own_socket.is_none() {
            self.inputs.push_back(Input::NoOwnSocket { worker, key });
        }
        let own_socket = own_socket.map(ipc::Handle::new);
        Ok(ListenGrant { key, address, descriptor, own_socket, data, page, counts_closed })
    }

    fn drop_queue(&mut self, worker: WorkerId, key: Key, turn: &mut Turn<'_>) {
        let is_of_queue = |it: &ParkedGrant| (it.worker, it.grant.key) == (worker, key);
        let parked = std::mem::take(&mut self.parked);
        let (of_queue, others): (Vec<_>, Vec<_>) = parked.into_iter().partition(is_of_queue);
        self.parked = others;
        // The worker waits for the answer, if it lives.
        for parked in of_queue {
            self.refuse(worker, parked.request, sys::errno::ECANCELED);
        }
        let Some(worker_io) = self.workers.get_mut(worker) else { return };
        if let Some(queue) = worker_io.queues.remove(&key) {
            // Fails if the queue is not watched, which is the usual case.
            let _ = turn.deregister(queue.write_end());
            self.watched
                .retain(|_, it| !matches!(it, WatchedFd::Queue(w, k) if (*w, *k) == (worker, key)));
        }
        self.maybe_done.push(worker);
    }

    /// Removes a worker that has ended, if nothing of it is left to handle.
    pub(super) fn release(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        if let Some(worker_io) = self.workers.remove_if_done(worker) {
            let is_queue = |it: &WatchedFd| matches!(it, WatchedFd::Queue(of, _) if *of == worker);
            debug_assert!(!self.watched.values().any(is_queue), "every queue was dropped before");
            self.watched.retain(|_, watched| watched.worker() != Some(worker));
            self.write_stderr(worker_io.close(turn));
        }
    }

    /// Reports that a worker could not listen, and records the failure in case the start fails.
    pub(super) fn listen_failed(&mut self, worker: WorkerId, address: Address, errno: i32) {
        let error = |address| {
            let source = io::Error::from_raw_os_error(errno);
            Error::Listen { address, source }
        };
        self.record_failure(worker, error(address.clone()));
        self.shared.emit(Event::error(Some(worker), error(address)));
    }

    /// Writes output of a worker to the standard error of the primary.
    pub(super) fn write_stderr(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.stderr_writer.write(bytes);
        }
    }
}

impl SharedPage for QueuePage {
    fn closed(&self) -> Option<u64> {
        self.counts_closed().then(|| Self::closed(self))
    }

    fn notify_next(&self) {
        Self::notify_next(self);
    }

    fn is_short_of_descriptors(&self) -> bool {
        Self::is_short_of_descriptors(self)
    }

    fn is_paused(&self) -> bool {
        Self::is_paused(self)
    }

    fn signs_of_life(&self) -> u64 {
        Self::signs_of_life(self)
    }
}

/// Converts the error of a failed send.
fn refusal_of(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(sys::errno::EAGAIN | sys::errno::ENOBUFS) => Refusal::Full,
        Some(sys::errno::ETOOMANYREFS) => Refusal::InFlight,
        _ => Refusal::Gone,
    }
}

/// Returns the number of an error; `EIO` for an error that is not the kernel's.
pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(sys::errno::EIO)
}
