//! The messages between workers by way of the primary.

use child_process::internal::InternalChannel;

use super::Driver;
use crate::contract::WorkerId;
use crate::error::Error;
use crate::primary::event::Event;

impl Driver {
    /// Sends the message of a worker to all other workers, if the user wants that.
    ///
    /// A worker whose channel is closed gets nothing. Any other failure is reported once for each
    /// row of messages that one worker does not get, so that a worker that leaves its messages
    /// unread causes no flood of reports.
    pub(super) fn relay(&mut self, from: WorkerId, message: &ipc::Message) {
        if !self.relays {
            return;
        }
        for worker_io in self.workers.iter_mut().filter(|it| it.process.id() != from) {
            let failure = match worker_io.child.forward(message) {
                Ok(_) => {
                    worker_io.misses_messages = false;
                    continue;
                }
                Err(ipc::Error::Closed) => continue,
                Err(error) => Error::Channel(error),
            };
            if !std::mem::replace(&mut worker_io.misses_messages, true) {
                self.shared.emit(Event::error(Some(worker_io.process.id()), failure));
            }
        }
    }
}
