//! The signals that the primary handles: the end of the cluster, and a reload.

use std::os::fd::AsFd;

use reactor::{Interest, Turn};
use sys::signal::{Arrivals, Signal};

use super::{Driver, WatchedFd};
use crate::contract::Input;
use crate::error::Error;
use crate::primary::event::Event;

impl Driver {
    pub(super) fn watch_signals(&mut self, turn: &mut Turn<'_>) {
        let token = self.token(WatchedFd::Signals);
        let Some(signals) = &self.signals else { return };
        if let Err(source) = turn.register(signals.as_fd(), token, Interest::READABLE) {
            self.shared.emit(Event::error(None, Error::Os("epoll_ctl", source)));
        }
    }

    pub(super) fn take_signals(&mut self) {
        let Some(signals) = &mut self.signals else { return };
        for arrivals in signals.arrivals() {
            let signal = arrivals.signal;
            if signal == Signal::HUP {
                self.hung_up(arrivals);
                continue;
            }
            for _ in 0..arrivals.times {
                self.signals_seen += 1;
                if self.signals_seen == 1 {
                    self.inputs.push_back(Input::Shutdown);
                } else {
                    self.shared.change(|state| state.interrupted = Some(signal));
                    self.inputs.push_back(Input::Abort);
                }
            }
        }
    }

    /// Handles `SIGHUP`: a request to reload, or the end of the terminal. A shell passes the signal on
    /// when its terminal ends, so the sender alone does not tell.
    fn hung_up(&mut self, arrivals: Arrivals) {
        let lost_terminal = self.had_terminal && !has_controlling_terminal();
        if arrivals.by_kernel || lost_terminal {
            return self.inputs.push_back(Input::Shutdown);
        }
        (0..arrivals.times).for_each(|_| self.reload(None));
    }
}

/// Returns whether this process has a controlling terminal.
pub(super) fn has_controlling_terminal() -> bool {
    std::fs::File::open("/dev/tty").is_ok()
}
