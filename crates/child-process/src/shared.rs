//! What everybody who has to do with one child shares: its process, its channel, its subscribers.
//!
//! A plain child that is only waited for never touches the loop. A [`Driver`] is put there when
//! somebody listens, when a timeout runs, or when the child is left behind and must be reaped.

use std::fs::File;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak};
use std::time::Instant;

use ipc::{Link, LinkEvent};
use reactor::reactor;
use sys::pidfd::ExitStatus;
use sys::signal::Signal;

use crate::driver::Driver;
use crate::error::Error;
use crate::event::Event;
use crate::lifecycle::{Input, Lifecycle, Notice};
use crate::process::Process;
use crate::subscribers::{Subscriber, Subscribers};

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) process: Process,
    link: OnceLock<Link>,
    pub(crate) kill_signal: Signal,
    pub(crate) timeout_at: Option<Instant>,
    pending: Mutex<Pending>,
    state: Mutex<LoopState>,
    /// The inner level: the reason.
    cancelled: OnceLock<Option<String>>,
}

/// What other threads bring for the driver.
#[derive(Debug, Default)]
struct Pending {
    subscribers: Vec<Subscriber>,
    errors: Vec<Error>,
    driver: Option<reactor::Handle>,
    /// Somebody has listened, or does.
    subscribed: bool,
    /// The `Child` was dropped.
    dropped: bool,
}

/// What belongs to the loop once there is a driver.
#[derive(Debug)]
struct LoopState {
    lifecycle: Lifecycle,
    subscribers: Subscribers,
    outputs: Vec<OutputPipe>,
    /// The process has ended; told when its channel is read.
    exit_seen: bool,
}

#[derive(Debug)]
struct OutputPipe {
    pipe: Weak<File>,
    ended: bool,
}

impl Shared {
    pub(crate) fn new(
        process: Process,
        kill_signal: Signal,
        timeout_at: Option<Instant>,
        connected: bool,
    ) -> Self {
        let (lifecycle, subscribers, outputs) =
            (Lifecycle::new(connected, 0), Subscribers::default(), Vec::new());
        let mut state = LoopState { lifecycle, subscribers, outputs, exit_seen: false };
        state.subscribers.emit(Event::Spawn);
        Self {
            process,
            link: OnceLock::new(),
            kill_signal,
            timeout_at,
            pending: Mutex::default(),
            state: Mutex::new(state),
            cancelled: OnceLock::new(),
        }
    }

    /// Before its kill signal is seen to have worked, so that whoever waits knows why.
    pub(crate) fn mark_cancelled(&self, reason: Option<String>) {
        let _ = self.cancelled.set(reason);
    }

    pub(crate) fn cancelled(&self) -> Option<&Option<String>> {
        self.cancelled.get()
    }

    /// Called once per piped output, before anybody else knows the child.
    pub(crate) fn add_output(&self, pipe: &Arc<File>) {
        let mut state = self.state();
        state.outputs.push(OutputPipe { pipe: Arc::downgrade(pipe), ended: false });
        let connected = self.link.get().is_some();
        state.lifecycle = Lifecycle::new(connected, state.outputs.len() as u32);
    }

    /// Called once, before anybody else knows the child.
    pub(crate) fn set_link(&self, link: Link) {
        let mut state = self.state();
        state.lifecycle = Lifecycle::new(true, state.outputs.len() as u32);
        let first = self.link.set(link);
        debug_assert!(first.is_ok(), "a child has one channel");
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    /// Adds a subscriber, which is told on the loop what has happened and what happens from now on.
    pub(crate) fn subscribe(self: &Arc<Self>, subscriber: Subscriber) {
        let mut pending = self.pending();
        pending.subscribed = true;
        pending.subscribers.push(subscriber);
        drop(pending);
        if let Err(error) = self.wake_driver() {
            // There is no loop, so nothing else runs at the same time.
            let pending = std::mem::take(&mut self.pending().subscribers);
            for mut subscriber in pending {
                subscriber
                    .emit(Event::Error(Error::Os("starting the loop", clone_io_error(&error))));
            }
        }
    }

    /// Tells an error in its order, if somebody listens.
    pub(crate) fn report(self: &Arc<Self>, error: Error) {
        let mut pending = self.pending();
        pending.errors.push(error);
        let subscribed = pending.subscribed;
        drop(pending);
        // A later subscriber is told as well. Without a loop nobody can be listening.
        if subscribed {
            let _ = self.wake_driver();
        }
    }

    /// Makes sure that the driver looks at the pending soon.
    pub(crate) fn wake_driver(self: &Arc<Self>) -> io::Result<()> {
        let mut pending = self.pending();
        match &pending.driver {
            Some(driver) => driver.wake(),
            None => pending.driver = Some(reactor()?.add(Driver::new(self.clone()))),
        }
        Ok(())
    }

    /// One of our ends of the child's outputs is gone.
    pub(crate) fn output_dropped(&self) {
        if let Some(driver) = &self.pending().driver {
            driver.wake();
        }
    }

    /// The `Child` is dropped: what nobody listens to is closed, and the loop reaps.
    pub(crate) fn child_dropped(self: &Arc<Self>) {
        let mut pending = self.pending();
        pending.dropped = true;
        let subscribed = pending.subscribed;
        drop(pending);
        if let (false, Some(link)) = (subscribed, self.link()) {
            link.disconnect();
        }
        if matches!(self.process.try_wait(), Ok(None)) && self.wake_driver().is_err() {
            orphans().push(self.clone());
        }
    }

    /// What the channel brings. Runs on the loop.
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
        self.output_dropped();
    }

    /// Tells what went wrong so far: before an end that it led to. Runs on the loop.
    pub(crate) fn take_errors(&self) {
        let errors = std::mem::take(&mut self.pending().errors);
        let mut state = self.state();
        for error in errors {
            state.subscribers.emit(Event::Error(error));
        }
    }

    /// Takes the pending. Runs on the loop.
    pub(crate) fn take_pending(&self) {
        self.take_errors();
        let subscribers = std::mem::take(&mut self.pending().subscribers);
        let resume = !subscribers.is_empty();
        let mut state = self.state();
        for subscriber in subscribers {
            state.subscribers.add(subscriber);
        }
        drop(state);
        if let (true, Some(link)) = (resume, self.link()) {
            link.resume();
        }
    }

    /// The process has been seen to have ended. What it sent before, and that it left, is told
    /// first, as far as it is read by then. Runs on the loop.
    pub(crate) fn exited(&self) {
        let mut state = self.state();
        match self.link().filter(|_| state.lifecycle.is_connected()) {
            Some(link) => {
                state.exit_seen = true;
                link.peer_is_gone();
            }
            None => state.step(Input::Exited, &self.process),
        }
    }

    /// The output has ended. Runs on the loop.
    pub(crate) fn output_ended(&self, index: usize) {
        let mut state = self.state();
        if let Some(output) = state.outputs.get_mut(index).filter(|output| !output.ended) {
            output.ended = true;
            state.step(Input::OutputEnded, &self.process);
        }
    }

    /// The outputs that have not ended yet: `None` where our end is gone.
    pub(crate) fn open_outputs(&self) -> Vec<(usize, Option<Arc<File>>)> {
        let state = self.state();
        let open = state.outputs.iter().enumerate().filter(|(_, output)| !output.ended);
        open.map(|(index, output)| (index, output.pipe.upgrade())).collect()
    }

    /// Whether the driver has nothing left to do; it is forgotten then. Runs on the loop.
    pub(crate) fn retire_if_idle(&self) -> bool {
        let state = self.state();
        let mut pending = self.pending();
        let idle = pending.subscribers.is_empty() && pending.errors.is_empty();
        let no_subscribers = state.subscribers.is_empty();
        let retired =
            idle && !state.lifecycle.is_alive() && (no_subscribers || state.lifecycle.is_closed());
        if retired {
            pending.driver = None;
        }
        retired
    }

    /// Whether the end of the outputs matters to anybody. Runs on the loop.
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

fn clone_io_error(error: &io::Error) -> io::Error {
    error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)
}

/// Children that were left behind while the loop could not be started: descriptors had run out.
static ORPHANS: Mutex<Vec<Arc<Shared>>> = Mutex::new(Vec::new());

fn orphans() -> MutexGuard<'static, Vec<Arc<Shared>>> {
    ORPHANS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Reaps those of them that have ended: called at every spawn.
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
    fn a_child_that_is_listened_to_is_small() {
        let bytes = size_of::<Shared>() + size_of::<Driver>() + size_of::<crate::Child>();
        assert!(bytes <= 1024, "{bytes} bytes, and as much again for subscribers and the loop");
    }
}
