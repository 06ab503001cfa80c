//! The worker's runtime: the channel to the primary, and the events that arrive on it.
//!
//! Messages to the primary are sent by whichever thread has something to report. Messages from the
//! primary are handled on the reactor's thread, where nothing blocks and no user code runs.

use std::fmt;
use std::os::fd::AsFd;
use std::os::unix::process::parent_id;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use child_process::Parent;
use child_process::internal::{self, InternalChannel};
use reactor::{Interest, Source, Token, Turn};
use sys::pidfd::PidFd;

use crate::error::Error;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::protocol::message::{ToPrimary, ToWorker};
use crate::worker::deadlines::Deadlines;
use crate::worker::draining::Drain;
use crate::worker::node_session::NodePrimary;
use crate::worker::pending_grants::{GrantedSource, PendingGrants};
use crate::worker::signals::{self, WorkerSignals};
use crate::worker::user_messages::UserMessages;
use crate::worker_id::WorkerId;
use crate::worker_state::WorkerState;

type OnDisconnect = Box<dyn FnOnce() + Send>;
type OnError = Box<dyn Fn(Arc<child_process::Error>) + Send>;

/// The state that all handles, listeners and guards of this process's worker share.
pub(crate) struct Runtime {
    id: WorkerId,
    parent: &'static Parent,
    /// The session with the primary, if it is a Node program.
    node_primary: Option<NodePrimary>,
    pending_grants: PendingGrants,
    messages: UserMessages,
    /// Called when the channel closes; `None` once they have been called.
    on_disconnect: Mutex<Option<Vec<OnDisconnect>>>,
    on_error: Mutex<Vec<OnError>>,
    drain: Arc<Drain>,
    deadlines: Deadlines,
    /// Set by the first listener or socket of this worker.
    listened: AtomicBool,
    /// Set when either side has asked for the worker's end.
    exited_after_disconnect: AtomicBool,
    /// Set when this side has closed the channel at the end of its drain.
    closed_channel: AtomicBool,
}

impl fmt::Debug for Runtime {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Runtime").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Runtime {
    /// Starts the runtime and reports the worker as online.
    ///
    /// # Panics
    ///
    /// No descriptor is left for the drain, or no thread for the reactor.
    pub(super) fn start(
        id: WorkerId,
        parent: &'static Parent,
        worker_signals: WorkerSignals,
    ) -> Arc<Self> {
        let runtime = Arc::new(Self {
            id,
            parent,
            node_primary: parent.is_node().then(NodePrimary::default),
            pending_grants: PendingGrants::new(),
            messages: UserMessages::new(),
            on_disconnect: Mutex::new(Some(Vec::new())),
            on_error: Mutex::default(),
            drain: Arc::new(Drain::new().expect("a worker starts with descriptors to spare")),
            deadlines: Deadlines::new(),
            listened: AtomicBool::new(false),
            exited_after_disconnect: AtomicBool::new(false),
            closed_channel: AtomicBool::new(false),
        });
        let reactor = reactor::reactor().expect("a worker starts with a thread to spare");
        // Before the first event can arrive: a drain that begins wakes the timer.
        let timer = reactor.add(DeadlineTimer {
            runtime: runtime.clone(),
            primary_pid: parent_id(),
            primary: None,
        });
        runtime.drain.set_timer(timer);
        let receiving = runtime.clone();
        parent.subscribe(move |event| receiving.receive(event));
        runtime.send_to_primary(ToPrimary::Online);
        // After that message: a signal that has waited begins the drain at once.
        match worker_signals {
            // Without a descriptor the signals keep their usual effect.
            WorkerSignals::Drain => drop(signals::watch(runtime.clone(), reactor)),
            WorkerSignals::Untouched => sys::signal::release_held(),
        }
        runtime
    }

    /// Requests an address from the primary, and blocks until the answer arrives.
    ///
    /// # Errors
    ///
    /// [`Error::Listen`] with the primary's errno; [`Error::Closed`] once the worker drains or the
    /// channel is closed.
    pub(super) fn request_listen(
        &self,
        address: &Address,
        options: &ListenOptions,
    ) -> Result<GrantedSource, Error> {
        // A Node primary does not answer a worker that has asked to be disconnected.
        if self.drain.has_begun() || self.exited_after_disconnect() {
            return Err(Error::Closed);
        }
        let (request, reply) = self.pending_grants.add().ok_or(Error::Closed)?;
        if self.node_primary.is_some() && self.exited_after_disconnect() {
            // The request to disconnect overtook this one.
            self.pending_grants.cancel();
        }
        self.send_to_primary(ToPrimary::Listen {
            request,
            address: address.clone(),
            options: options.clone(),
        });
        reply.recv().map_err(|_| Error::Closed)?.map_err(|errno| {
            if errno == sys::errno::ECANCELED {
                return Error::Closed;
            }
            let source = std::io::Error::from_raw_os_error(errno);
            Error::Listen { address: address.clone(), source }
        })
    }

    /// Sends a message of the cluster's protocol, in the language of this worker's primary.
    ///
    /// A message on a closed channel is dropped: the disconnect arrives as an event of its own.
    pub(crate) fn send_to_primary(&self, message: ToPrimary) {
        if let ToPrimary::Listening { .. } | ToPrimary::ListensAlone { .. } = message {
            self.listened.store(true, Ordering::Release);
        }
        if let Some(node_primary) = &self.node_primary {
            return self.send_to_node(node_primary, message);
        }
        if let Err(error) = self.parent.send_internal(&message) {
            if let ToPrimary::Listen { request, .. } = message {
                self.fail_request(request, &error);
            }
        }
    }

    /// Completes a listen request that could not be sent, because no answer would come.
    pub(super) fn fail_request(&self, request: u32, error: &ipc::Error) {
        let closed = matches!(error, ipc::Error::Closed);
        let errno = if closed { sys::errno::ECANCELED } else { sys::errno::ENOBUFS };
        self.pending_grants.complete(request, Err(errno));
    }

    /// Handles an event of the channel, on the reactor's thread.
    fn receive(&self, event: internal::Event) {
        use child_process::Event as E;
        use internal::Event::{Internal, User};
        match event {
            Internal(message) => self.receive_internal(message),
            User(E::Message(message)) => self.messages.push(message),
            User(E::Error(error)) => {
                let error = Arc::new(error);
                let calls = self.on_error.lock().unwrap_or_else(PoisonError::into_inner);
                calls.iter().for_each(|call| call(error.clone()));
            }
            User(E::Disconnect) => {
                self.finish_node_queues();
                self.pending_grants.close();
                self.messages.close();
                if !self.has_closed_channel() {
                    self.deadlines.set_orphaned();
                }
                self.begin_drain();
                let calls = self.disconnect_callbacks().take();
                calls.into_iter().flatten().for_each(reactor::callback::call);
            }
            _ => {}
        }
    }

    fn receive_internal(&self, message: ipc::Message) {
        if let Some(node_primary) = &self.node_primary {
            return self.receive_node(node_primary, message);
        }
        match message.decode() {
            Ok(ToWorker::Listen { request, result }) => {
                self.pending_grants.complete(request, result.map(GrantedSource::Descriptor));
            }
            // The worker cannot work with a primary whose messages it cannot decode.
            Ok(ToWorker::Disconnect) | Err(_) => {
                self.set_exited_after_disconnect();
                self.begin_drain();
            }
        }
    }

    pub(super) fn on_error(&self, call: impl FnMut(Arc<child_process::Error>) + Send + 'static) {
        let call = reactor::callback::each(call);
        let mut calls = self.on_error.lock().unwrap_or_else(PoisonError::into_inner);
        calls.push(Box::new(call));
    }

    pub(super) fn on_disconnect(&self, call: impl FnOnce() + Send + 'static) {
        match &mut *self.disconnect_callbacks() {
            Some(calls) => calls.push(Box::new(call)),
            None => reactor::callback::call(call),
        }
    }

    pub(super) fn set_exited_after_disconnect(&self) {
        self.exited_after_disconnect.store(true, Ordering::Release);
    }

    pub(super) fn begin_drain(&self) {
        self.deadlines.set_drain_begun();
        self.drain.begin();
    }

    /// Has the [`DeadlineTimer`] compute its next deadline again.
    pub(crate) fn wake_timer(&self) {
        self.drain.wake_timer();
    }

    /// Closes the channel once the drain is complete and the program had time for its last
    /// messages. Returns the time at which to call again.
    fn close_channel(&self, now: Instant) -> Option<Instant> {
        if !self.drain.is_complete() || !self.parent.is_connected() {
            return None;
        }
        let at = self.deadlines.channel_close(now)?;
        if now < at {
            return Some(at);
        }
        self.closed_channel.store(true, Ordering::Release);
        // Fails only if the channel is closed.
        let _ = self.parent.disconnect();
        None
    }

    /// Returns whether this side has closed the channel at the end of its drain.
    fn has_closed_channel(&self) -> bool {
        self.closed_channel.load(Ordering::Acquire)
    }

    /// Marks the queues of a Node primary as complete: no further connection will arrive.
    fn finish_node_queues(&self) {
        if let Some(node_primary) = &self.node_primary {
            node_primary.finish_queues();
        }
    }

    pub(super) fn id(&self) -> WorkerId {
        self.id
    }

    pub(super) fn parent(&self) -> &'static Parent {
        self.parent
    }

    pub(super) fn node_primary(&self) -> Option<&NodePrimary> {
        self.node_primary.as_ref()
    }

    pub(super) fn pending_grants(&self) -> &PendingGrants {
        &self.pending_grants
    }

    pub(super) fn messages(&self) -> &UserMessages {
        &self.messages
    }

    pub(super) fn deadlines(&self) -> &Deadlines {
        &self.deadlines
    }

    pub(crate) fn drain(&self) -> &Arc<Drain> {
        &self.drain
    }

    pub(super) fn exited_after_disconnect(&self) -> bool {
        self.exited_after_disconnect.load(Ordering::Acquire)
    }

    pub(super) fn state(&self) -> WorkerState {
        if !self.parent.is_connected() {
            WorkerState::Disconnected
        } else if self.drain.has_begun() || self.exited_after_disconnect() {
            WorkerState::Disconnecting
        } else if self.listened.load(Ordering::Acquire) {
            WorkerState::Listening
        } else {
            WorkerState::Online
        }
    }

    fn disconnect_callbacks(&self) -> MutexGuard<'_, Option<Vec<OnDisconnect>>> {
        self.on_disconnect.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The reactor source that keeps a worker's deadlines.
struct DeadlineTimer {
    runtime: Arc<Runtime>,
    primary_pid: u32,
    /// The primary's process, once the channel no longer shows whether the primary lives.
    primary: Option<PidFd>,
}

impl DeadlineTimer {
    /// Watches the primary's process after this side has closed the channel: a worker whose `main`
    /// does not return would otherwise outlive its primary.
    fn watch_primary(&mut self, turn: &mut Turn<'_>) {
        if self.primary.is_some() || !self.runtime.has_closed_channel() {
            return;
        }
        // The process may be another one by now if the primary was reaped.
        let Ok(primary) = PidFd::open(self.primary_pid) else { return };
        if parent_id() != self.primary_pid {
            return self.runtime.deadlines.set_orphaned();
        }
        if turn.register(primary.as_fd(), Token(0), Interest::READABLE).is_ok() {
            self.primary = Some(primary);
        }
    }

    /// Begins the drain of a worker whose Node primary has not answered in time. Returns the time at
    /// which to call again.
    fn begin_overdue_drain(&self, now: Instant) -> Option<Instant> {
        let runtime = &self.runtime;
        let answer = runtime.deadlines.answer().filter(|_| !runtime.drain.has_begun())?;
        if now < answer {
            return Some(answer);
        }
        runtime.finish_node_queues();
        runtime.begin_drain();
        None
    }

    /// Ends a drain that has waited long enough for unread queues.
    fn end_overdue_drain(&self, now: Instant) {
        let runtime = &self.runtime;
        if runtime.deadlines.drain_read().is_some_and(|at| at <= now) {
            runtime.drain.set_reached();
            runtime.finish_node_queues();
        }
    }

    /// Declines the connections that were held over a limit for long enough. Returns the time at
    /// which the next of them is due.
    fn decline_overdue(&self, now: Instant) -> Option<Instant> {
        let node_primary = self.runtime.node_primary.as_ref()?;
        self.runtime.decline_overdue(node_primary, now);
        node_primary.next_deadline()
    }
}

impl Source for DeadlineTimer {
    fn event(&mut self, event: reactor::Event, turn: &mut Turn<'_>) {
        let now = turn.now();
        if let (reactor::Event::Ready { .. }, Some(primary)) = (event, &self.primary) {
            // The process has ended, so the descriptor stays readable.
            let _ = turn.deregister(primary.as_fd());
            self.runtime.deadlines.set_orphaned();
        }
        let answer = self.begin_overdue_drain(now);
        self.end_overdue_drain(now);
        let quiet = self.runtime.drain.settle(now);
        let close = self.runtime.close_channel(now);
        self.watch_primary(turn);
        let orphan_exit = self.runtime.deadlines.orphan_exit();
        if orphan_exit.is_some_and(|at| at <= now) {
            // Exit handlers may wait for the reactor, so they must not run on its thread.
            let exit = std::thread::Builder::new().spawn(|| std::process::exit(0));
            if exit.is_err() {
                std::process::abort();
            }
            return turn.remove();
        }
        let drain_read = self.runtime.deadlines.drain_read().filter(|at| *at > now);
        let declining = self.decline_overdue(now);
        let ends = answer.into_iter().chain(drain_read).chain(quiet).chain(close);
        turn.set_deadline(ends.chain(orphan_exit).chain(declining).min());
    }
}
