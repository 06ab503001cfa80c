//! The events of workers' channels and processes, as inputs of the supervisor.

use child_process::internal;
use reactor::Turn;

use super::Driver;
use crate::contract::{ExitKind, Input, WorkerId};
use crate::error::Error;
use crate::listen_rules::ListenFacts;
use crate::primary::event::Event;
use crate::protocol::hand_off_queue::Connection;
use crate::protocol::message::ToPrimary;
use crate::protocol::violation::Violation;

impl Driver {
    /// Handles one event of a worker's channel or process.
    pub(super) fn child(&mut self, worker: WorkerId, event: internal::Event, turn: &mut Turn<'_>) {
        use child_process::Event as E;
        use internal::Event::{Acknowledged, Internal, User};
        match event {
            Internal(message) if self.is_node(worker) => self.receive_node(worker, message),
            Acknowledged { ticket, taken } => self.handle_acknowledged(worker, ticket, taken),
            Internal(message) => match message.decode() {
                Ok(message) => {
                    let mut input = input_of(worker, message);
                    if let Input::ListenRequested { address, facts, .. } = &mut input {
                        self.inherited.resolve(address);
                        *facts = self.listen_facts(worker, address);
                    }
                    self.inputs.push_back(input);
                }
                Err(_) => {
                    let violation = Violation::UnknownMessage;
                    self.inputs.push_back(Input::Violated { worker, violation });
                }
            },
            User(E::Message(message)) => {
                self.relay(worker, &message);
                if let Some(worker_io) = self.workers.get_mut(worker) {
                    let worker = worker_io.process.clone();
                    self.shared.emit(Event::Message { worker, message });
                }
            }
            User(E::Disconnect) => self.inputs.push_back(Input::ChannelClosed { worker }),
            User(E::Exit(status)) => {
                if let Some(worker_io) = self.workers.get_mut(worker) {
                    worker_io.process.set_status(status);
                    let bytes = worker_io.read_stderr(turn);
                    self.write_stderr(bytes.unwrap_or_default());
                }
                self.inputs.push_back(Input::Exited { worker, exit: exit_kind(status) });
            }
            User(E::Error(error)) => {
                if let Some(violation) = frame_violation(&error) {
                    self.inputs.push_back(Input::Violated { worker, violation });
                }
                self.shared.emit(Event::error(Some(worker), Error::Worker(error)));
            }
            _ => {}
        }
    }
}

/// Converts a message of a worker to an input of the supervisor.
fn input_of(worker: WorkerId, message: ToPrimary) -> Input<Connection> {
    if let Some(violation) = message.violation() {
        return Input::Violated { worker, violation };
    }
    match message {
        ToPrimary::Online => Input::Online { worker },
        ToPrimary::Listen { request, address, options } => {
            let facts = ListenFacts::default();
            Input::ListenRequested { worker, request, address, options, facts }
        }
        ToPrimary::ListensAlone { address } => Input::ListensAlone { worker, address },
        ToPrimary::Listening { key } => Input::Listening { worker, key },
        ToPrimary::HasRoom { key } => Input::HasRoom { worker, key },
        ToPrimary::Close { key } => Input::ListenerClosed { worker, key },
        ToPrimary::Disconnect => Input::DisconnectRequested { worker },
    }
}

/// Returns the rule of the channel that a worker broke. A process that is killed while it writes
/// leaves half a frame behind, and a worker of another version another handshake.
fn frame_violation(error: &child_process::Error) -> Option<Violation> {
    match error {
        child_process::Error::Channel(ipc::Error::Protocol(ipc::FrameError::EndInFrame)) => None,
        child_process::Error::Channel(ipc::Error::Protocol(error)) => {
            Some(Violation::Frame(error.clone()))
        }
        _ => None,
    }
}

fn exit_kind(status: child_process::ExitStatus) -> ExitKind {
    use child_process::ExitStatus as S;
    match status {
        S::Code(code) => ExitKind::Code(code),
        S::Signal(signal) => ExitKind::Signal(signal.number()),
        _ => ExitKind::Unknown,
    }
}
