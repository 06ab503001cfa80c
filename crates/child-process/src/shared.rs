//! What everybody who has to do with one child shares: its process, its channel, its listeners.
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
use crate::subscribers::{Hub, Listener};
use crate::lifecycle::{Input, Life, Tell};
use crate::process::Process;

#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) process: Process,
    link: OnceLock<Link>,
    pub(crate) kill_signal: Signal,
    pub(crate) timeout_at: Option<Instant>,
    news: Mutex<News>,
    state: Mutex<State>,
    /// The inner level: the reason.
    cancelled: OnceLock<Option<String>>,
}

/// What other threads bring for the driver.
#[derive(Debug, Default)]
struct News {
    listeners: Vec<Listener>,
    errors: Vec<Error>,
    driver: Option<reactor::Handle>,
    /// Somebody has listened, or does.
    heard: bool,
    /// The `Child` was dropped.
    left: bool,
}

/// What belongs to the loop once there is a driver.
#[derive(Debug)]
struct State {
    life: Life,
    hub: Hub,
    outputs: Vec<Output>,
    /// The process has ended; told when its channel is read.
    exit_seen: bool,
}

#[derive(Debug)]
struct Output {
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
        let (life, hub, outputs) = (Life::new(connected, 0), Hub::default(), Vec::new());
        let mut state = State { life, hub, outputs, exit_seen: false };
        state.hub.tell(Event::Spawn);
        Self {
            process,
            link: OnceLock::new(),
            kill_signal,
            timeout_at,
            news: Mutex::default(),
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
        state.outputs.push(Output { pipe: Arc::downgrade(pipe), ended: false });
        let connected = self.link.get().is_some();
        state.life = Life::new(connected, state.outputs.len() as u32);
    }

    /// Called once, before anybody else knows the child.
    pub(crate) fn set_link(&self, link: Link) {
        let mut state = self.state();
        state.life = Life::new(true, state.outputs.len() as u32);
        let first = self.link.set(link);
        debug_assert!(first.is_ok(), "a child has one channel");
    }

    pub(crate) fn link(&self) -> Option<&Link> {
        self.link.get()
    }

    /// Adds a listener, which is told on the loop what has happened and what happens from now on.
    pub(crate) fn listen(self: &Arc<Self>, listener: Listener) {
        let mut news = self.news();
        news.heard = true;
        news.listeners.push(listener);
        drop(news);
        if let Err(error) = self.kick() {
            // There is no loop, so nothing else runs at the same time.
            let news = std::mem::take(&mut self.news().listeners);
            for mut listener in news {
                listener
                    .tell_alone(Event::Error(Error::Os("starting the loop", loop_error(&error))));
            }
        }
    }

    /// Tells an error in its order, if somebody listens.
    pub(crate) fn report(self: &Arc<Self>, error: Error) {
        let mut news = self.news();
        news.errors.push(error);
        let heard = news.heard;
        drop(news);
        // A later listener is told as well. Without a loop nobody can be listening.
        if heard {
            let _ = self.kick();
        }
    }

    /// Makes sure that the driver looks at the news soon.
    pub(crate) fn kick(self: &Arc<Self>) -> io::Result<()> {
        let mut news = self.news();
        match &news.driver {
            Some(driver) => driver.wake(),
            None => news.driver = Some(reactor()?.add(Driver::new(self.clone()))),
        }
        Ok(())
    }

    /// One of our ends of the child's outputs is gone.
    pub(crate) fn output_dropped(&self) {
        if let Some(driver) = &self.news().driver {
            driver.wake();
        }
    }

    /// The `Child` is dropped: what nobody listens to is closed, and the loop reaps.
    pub(crate) fn leave(self: &Arc<Self>) {
        let mut news = self.news();
        news.left = true;
        let heard = news.heard;
        drop(news);
        if let (false, Some(link)) = (heard, self.link()) {
            link.disconnect();
        }
        if matches!(self.process.check(), Ok(None)) && self.kick().is_err() {
            orphans().push(self.clone());
        }
    }

    /// What the channel brings. Runs on the loop.
    pub(crate) fn link_event(self: &Arc<Self>, event: LinkEvent) {
        let mut state = self.state();
        if matches!(event, LinkEvent::PeerGone) {
            state.step(Input::Exited, &self.process);
        } else if state.hub.tell_of_the_channel(event) {
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
        let errors = std::mem::take(&mut self.news().errors);
        let mut state = self.state();
        for error in errors {
            state.hub.tell(Event::Error(error));
        }
    }

    /// Takes the news. Runs on the loop.
    pub(crate) fn take_news(&self) {
        self.take_errors();
        let listeners = std::mem::take(&mut self.news().listeners);
        let resume = !listeners.is_empty();
        let mut state = self.state();
        for listener in listeners {
            state.hub.add(listener);
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
        match self.link().filter(|_| state.life.is_connected()) {
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
    pub(crate) fn is_settled(&self) -> bool {
        let state = self.state();
        let mut news = self.news();
        let idle = news.listeners.is_empty() && news.errors.is_empty();
        let unheard = state.hub.is_empty();
        let settled = idle && !state.life.is_alive() && (unheard || state.life.is_closed());
        if settled {
            news.driver = None;
        }
        settled
    }

    /// Whether the end of the outputs matters to anybody. Runs on the loop.
    pub(crate) fn is_heard(&self) -> bool {
        !self.state().hub.is_empty()
    }

    fn news(&self) -> MutexGuard<'_, News> {
        self.news.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn step(&mut self, input: Input, process: &Process) {
        for tell in self.life.step(input) {
            let status = process.known().unwrap_or(ExitStatus::Unknown);
            self.hub.tell(match tell {
                Tell::Disconnect => Event::Disconnect,
                Tell::Exit => Event::Exit(status),
                Tell::Close => Event::Close(status),
            });
        }
        if self.life.is_closed() {
            self.hub.end();
        }
    }
}

fn loop_error(error: &io::Error) -> io::Error {
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
        orphans
            .retain(|shared| matches!(shared.process.check(), Ok(None)) && shared.kick().is_err());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_is_listened_to_is_small() {
        let bytes = size_of::<Shared>() + size_of::<Driver>() + size_of::<crate::Child>();
        assert!(bytes <= 1024, "{bytes} bytes, and as much again for listeners and the loop");
    }
}
