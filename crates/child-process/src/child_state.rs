//! The state of one child that its handle, its driver and its callbacks share: the process, the
//! channel, the subscribers.
//!
//! A child that is only waited for never touches the event loop. A [`Driver`] is added to the loop
//! when the first subscriber comes, when a timeout runs, or when the handle is dropped before the
//! process has ended, so that the process is reaped.

mod driver;

use std::fs::File;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::{Duration, Instant};

use ipc::Link;
use ipc::internal::{self, Event as LinkEvent};
use reactor::reactor;
use sys::pidfd::ExitStatus;
use sys::signal::Signal;

use crate::control_group::ControlGroup;
use crate::error::Error;
use crate::event::Event;
use crate::given_up::GivenUp;
use crate::lifecycle::{Input, Lifecycle, Notice};
use crate::process::Process;
use crate::signalled::Signalled;
use crate::subscribers::{Subscriber, Subscribers};
use crate::tree;
use driver::Driver;

/// The signals that a child gets on a timeout, on cancellation, and for too much output.
#[derive(Debug)]
pub(crate) struct Kill {
    pub(crate) signal: Signal,
    /// The time between the signal and `SIGKILL`.
    pub(crate) after: Duration,
    /// Whether the descendants get the signals as well.
    pub(crate) tree: bool,
    /// The control group that holds the process and its descendants alone.
    pub(crate) cgroup: Option<ControlGroup>,
}

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) process: Process,
    link: OnceLock<Link>,
    pub(crate) kill: Kill,
    pub(crate) timeout_at: Option<Instant>,
    // Lock order: `state`, then `pending`.
    pending: Mutex<Pending>,
    state: Mutex<LoopState>,
    /// `Some` once the child was cancelled; the inner level is the reason.
    cancelled: OnceLock<Option<String>>,
    pub(crate) given_up: GivenUp,
}

/// The input that other threads leave for the driver.
#[derive(Debug, Default)]
struct Pending {
    subscribers: Vec<Subscriber>,
    errors: Vec<Error>,
    driver: Option<reactor::Handle>,
    /// Whether there has ever been a subscriber.
    subscribed: bool,
    /// Whether the `Child` was dropped without a subscriber, so that none can come.
    abandoned: bool,
}

/// The state that is used on the loop only, once there is a driver.
#[derive(Debug)]
struct LoopState {
    lifecycle: Lifecycle,
    subscribers: Subscribers,
    outputs: Vec<OutputPipe>,
    /// Whether the process has ended; `Exit` is emitted when the channel is read to the end.
    exit_seen: bool,
}

/// The signals after which `SIGCONT` is useless or unwanted.
const STOP_OR_GO: [Signal; 6] =
    [Signal::KILL, Signal::CONT, Signal::STOP, Signal::TSTP, Signal::TTIN, Signal::TTOU];

#[derive(Debug)]
struct OutputPipe {
    pipe: Weak<File>,
    ended: bool,
}

impl Shared {
    pub(crate) fn new(
        process: Process,
        kill: Kill,
        timeout_at: Option<Instant>,
        connected: bool,
    ) -> Self {
        let (lifecycle, subscribers, outputs) =
            (Lifecycle::new(connected, 0), Subscribers::default(), Vec::new());
        let mut state = LoopState { lifecycle, subscribers, outputs, exit_seen: false };
        // Kept in the history, so that every subscriber gets it.
        state.subscribers.emit(Event::Spawn);
        Self {
            process,
            link: OnceLock::new(),
            kill,
            timeout_at,
            pending: Mutex::default(),
            state: Mutex::new(state),
            cancelled: OnceLock::new(),
            given_up: GivenUp::default(),
        }
    }

    /// Sends a signal that is to end the process: its kill signal or `SIGKILL`. A stopped process is
    /// continued, because it could not handle the signal otherwise.
    pub(crate) fn end(&self, signal: Signal) -> Result<Signalled, Error> {
        let send = |signal| {
            if self.kill.tree {
                tree::signal(&self.process, self.kill.cgroup.as_ref(), signal)
            } else {
                self.process.signal(signal)
            }
        };
        let sent = send(signal);
        if !STOP_OR_GO.contains(&signal) && matches!(sent, Ok(Signalled::Delivered)) {
            // The answer is that of the signal before.
            let _ = send(Signal::CONT);
        }
        sent
    }

    /// Records the cancellation, before the kill signal is sent: a caller that sees the process end
    /// must find the reason.
    pub(crate) fn mark_cancelled(&self, reason: Option<String>) {
        // The first reason stays.
        let _ = self.cancelled.set(reason);
    }

    pub(crate) fn cancelled(&self) -> Option<&Option<String>> {
        self.cancelled.get()
    }

    /// Adds a piped output. Called before any other thread knows the child.
    pub(crate) fn add_output(&self, pipe: &Arc<File>) {
        let mut state = self.state();
        state.outputs.push(OutputPipe { pipe: Arc::downgrade(pipe), ended: false });
        let connected = state.lifecycle.is_connected();
        state.lifecycle = Lifecycle::new(connected, state.outputs.len() as u32);
    }

    /// Sets the channel, once. Called before any other thread knows the child.
    pub(crate) fn set_link(&self, link: Link) {
        let first = self.link.set(link);
        debug_assert!(first.is_ok(), "a child has one channel");
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    /// Returns the channel, after it has noticed the end of a process that is known to have ended.
    pub(crate) fn current_link(&self) -> Option<&Link> {
        let link = self.link()?;
        if self.process.known_status().is_some() {
            internal::notice_hang_up(link);
        }
        Some(link)
    }

    /// Adds a subscriber, which gets the events so far and then all further events, on the loop.
    pub(crate) fn subscribe(self: &Arc<Self>, subscriber: Subscriber) {
        let mut pending = self.pending();
        pending.subscribed = true;
        pending.subscribers.push(subscriber);
        // `wake_driver` takes the same lock.
        drop(pending);
        if let Err(error) = self.wake_driver() {
            // Without a loop no other thread emits events at the same time.
            let pending = std::mem::take(&mut self.pending().subscribers);
            for mut subscriber in pending {
                let source = internal::copy_io_error(&error.source);
                subscriber.emit(Event::Error(Error::Os(error.call, source)));
            }
        }
    }

    /// Records an error, which is emitted before any later event.
    pub(crate) fn report(self: &Arc<Self>, error: Error) {
        let mut pending = self.pending();
        pending.errors.push(error);
        let subscribed = pending.subscribed;
        drop(pending);
        // Without a subscriber the error waits for the first one. Without a loop there is none.
        if subscribed {
            let _ = self.wake_driver();
        }
    }

    /// Makes the driver handle the pending input soon; adds it to the loop if it is not there.
    pub(crate) fn wake_driver(self: &Arc<Self>) -> Result<(), reactor::StartError> {
        // Also for a driver that is there: after a fork without exec no loop runs it.
        let reactor = reactor()?;
        let mut pending = self.pending();
        // The lock is held across the addition: two threads must not add two drivers.
        match &pending.driver {
            Some(driver) => driver.wake(),
            None => pending.driver = Some(reactor.add(Driver::new(self.clone()))),
        }
        Ok(())
    }

    /// Notes that this process has closed its end of an output.
    pub(crate) fn output_dropped(&self) {
        if let Some(driver) = &self.pending().driver {
            driver.wake();
        }
    }

    /// Notes that the `Child` was dropped. Without subscribers the channel is closed; the process
    /// is reaped on the loop when it ends.
    pub(crate) fn child_dropped(self: &Arc<Self>) {
        let abandoned = self.abandon();
        // The call reaps a process that has ended; only a running one needs the loop.
        match self.process.try_wait() {
            Ok(None) if self.wake_driver().is_err() => orphans().push(self.clone()),
            Ok(Some(_)) => {
                // The queue has no reader any more, even where another process holds the socket.
                abandoned.into_iter().for_each(internal::peer_is_gone);
            }
            Ok(None) | Err(_) => {}
        }
    }

    /// Closes the channel that nobody has subscribed to and nobody can any more; returns it.
    fn abandon(&self) -> Option<&Link> {
        let mut pending = self.pending();
        pending.abandoned = !pending.subscribed;
        let link = self.link().filter(|_| pending.abandoned)?;
        drop(pending);
        link.disconnect();
        Some(link)
    }

    /// Handles an event of the channel. Runs on the loop.
    pub(crate) fn channel_event(self: &Arc<Self>, event: LinkEvent) {
        let mut state = self.state();
        if matches!(event, LinkEvent::PeerGone) {
            state.step(Input::Exited, &self.process);
        } else if state.subscribers.emit_from_channel(event) {
            state.step(Input::Disconnected, &self.process);
            if state.exit_seen {
                state.step(Input::Exited, &self.process);
            }
        }
        drop(state);
        // The driver may have nothing left to do now, and must check.
        self.output_dropped();
    }

    /// Emits the recorded errors, so that an error precedes the exit it has caused. Runs on the
    /// loop.
    pub(crate) fn take_errors(&self) {
        let errors = std::mem::take(&mut self.pending().errors);
        let mut state = self.state();
        for error in errors {
            state.subscribers.emit(Event::Error(error));
        }
    }

    /// Handles the pending input. Runs on the loop.
    pub(crate) fn take_pending(&self) {
        self.take_errors();
        let subscribers = std::mem::take(&mut self.pending().subscribers);
        let resume = !subscribers.is_empty();
        let mut state = self.state();
        for subscriber in subscribers {
            state.subscribers.add(subscriber);
        }
        drop(state);
        // The channel is read only now: a message without a subscriber would be lost.
        if let (true, Some(link)) = (resume, self.link()) {
            link.resume();
            if self.state().exit_seen {
                internal::peer_is_gone(link);
            }
        }
    }

    /// Handles the end of the process. Runs on the loop.
    ///
    /// While the channel is open, it is read first, as far as subscribers take the messages: those
    /// messages and `Disconnect` are emitted before `Exit`. All of them wait for the first
    /// subscriber.
    pub(crate) fn exited(&self) {
        let mut state = self.state();
        match self.link().filter(|_| state.lifecycle.is_connected()) {
            Some(link) => {
                state.exit_seen = true;
                let pending = self.pending();
                if pending.subscribed || pending.abandoned {
                    // The link reads what the process has sent and then reports `PeerGone`.
                    internal::peer_is_gone(link);
                }
            }
            None => state.step(Input::Exited, &self.process),
        }
    }

    /// Handles the end of an output. Runs on the loop.
    pub(crate) fn output_ended(&self, index: usize) {
        let mut state = self.state();
        if let Some(output) = state.outputs.get_mut(index).filter(|output| !output.ended) {
            output.ended = true;
            state.step(Input::OutputEnded, &self.process);
        }
    }

    /// Returns the outputs that have not ended; `None` if this process has closed its end.
    pub(crate) fn open_outputs(&self) -> Vec<(usize, Option<Arc<File>>)> {
        let state = self.state();
        let open = state.outputs.iter().enumerate().filter(|(_, output)| !output.ended);
        open.map(|(index, output)| (index, output.pipe.upgrade())).collect()
    }

    /// Removes the driver and returns true if it has nothing left to do. Runs on the loop.
    pub(crate) fn retire_if_idle(&self) -> bool {
        let state = self.state();
        let mut pending = self.pending();
        // Both locks are held: a subscriber that comes now is either seen here, or finds no driver
        // and adds one.
        let idle = pending.subscribers.is_empty() && pending.errors.is_empty();
        let no_subscribers = state.subscribers.is_empty();
        let retired =
            idle && !state.lifecycle.is_alive() && (no_subscribers || state.lifecycle.is_closed());
        if retired {
            pending.driver = None;
        }
        retired
    }

    /// Ends the events with an error, because the loop has ended or the driver has panicked.
    pub(crate) fn abandoned(&self) {
        let mut state = self.state();
        // The lock is held by a thread whose driver came too late for the loop.
        if let Ok(mut pending) = self.pending.try_lock() {
            pending.driver = None;
            for subscriber in std::mem::take(&mut pending.subscribers) {
                state.subscribers.add(subscriber);
            }
        }
        let lost = Error::Os("the event loop", std::io::ErrorKind::Other.into());
        state.subscribers.emit(Event::Error(lost));
        state.subscribers.close();
    }

    /// Returns whether any subscriber needs to know the end of the outputs. Runs on the loop.
    pub(crate) fn has_subscribers(&self) -> bool {
        !self.state().subscribers.is_empty()
    }

    fn pending(&self) -> MutexGuard<'_, Pending> {
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, LoopState> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LoopState {
    fn step(&mut self, input: Input, process: &Process) {
        for notice in self.lifecycle.step(input) {
            let status = process.known_status().unwrap_or(ExitStatus::Unknown);
            self.subscribers.emit(match notice {
                Notice::Disconnect => Event::Disconnect,
                Notice::Exit => Event::Exit(status),
                Notice::Close => Event::Close(status),
            });
        }
        if self.lifecycle.is_closed() {
            self.subscribers.close();
        }
    }
}

/// Dropped children whose process runs, and for which the loop could not be started because no
/// descriptor was left.
static ORPHANS: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

fn orphans() -> MutexGuard<'static, Vec<Arc<Shared>>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps the orphans that have ended and moves the others to the loop if it can be started now.
/// Called at every spawn.
pub(crate) fn reap_orphans() {
    let mut orphans = orphans();
    if !orphans.is_empty() {
        orphans.retain(|shared| {
            matches!(shared.process.try_wait(), Ok(None)) && shared.wake_driver().is_err()
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_with_subscribers_is_small() {
        let bytes = size_of::<Shared>() + size_of::<Driver>() + size_of::<crate::Child>();
        assert!(bytes <= 1024, "{bytes} bytes, and as much again for subscribers and the loop");
    }

    #[test]
    fn a_channel_that_has_closed_before_it_is_set_stays_closed() {
        let plan = sys::spawn::Plan::new(vec![c"/bin/true".into()], vec![c"true".into()]);
        let spawned = sys::spawn::spawn(&plan).unwrap();
        let process = Process::new(spawned.pid, spawned.pidfd);
        let after = Duration::from_secs(1);
        let kill = Kill { signal: Signal::TERM, after, tree: false, cgroup: None };
        let shared = Arc::new(Shared::new(process, kill, None, true));
        shared.channel_event(LinkEvent::Disconnect { undelivered: 0, error: None });
        let (socket, _peer) = sys::socket::pair_stream().unwrap();
        shared.set_link(Link::start_paused(socket, ipc::Options::default(), |_| {}).unwrap());
        assert!(!shared.state().lifecycle.is_connected());
        // `Exit` would otherwise wait for a channel that reports nothing any more.
        shared.process.wait_until(None).unwrap();
        shared.exited();
        assert!(shared.state().lifecycle.is_closed());
    }
}
