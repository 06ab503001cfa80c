//! How the driver performs what the core wants done.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Instant;

use reactor::{Interest, Token, Turn};
use sys::signal::Signal;

use super::{Driver, Watched, belongs};
use crate::address::Address;
use crate::core::{self, Grant, Input, Key, Output, Refusal, WorkerId};
use crate::count::Count;
use crate::error::Error;
use crate::event::Event;
use crate::message::{Granted, ToWorker};
use crate::policy::Policy;
use crate::queue::{Connection, Queue};
use crate::spawner::Order;

impl Driver {
    pub(super) fn perform(&mut self, output: Output<Connection>, turn: &mut Turn<'_>) {
        match output {
            Output::Spawn { worker, slot: _, setup } => {
                let keep_stderr = !self.shared.lock().ready || self.wishes.is_reloading();
                let mut settings = self.settings.clone();
                if let Some(setup) = setup {
                    Arc::make_mut(&mut settings).overlay(&setup);
                }
                self.spawner.spawn(Order { worker, settings, keep_stderr });
            }
            Output::Forked { number, worker } => self.wishes.ordered(number, worker),
            Output::Idle => self.idle(),
            Output::Emptied { number } => self.wishes.emptied(number),
            Output::Emit(notice) => self.tell(notice, turn),
            Output::Bind { key, address, options } => {
                let result = self.bind(key, &address, &options);
                let result = result.map_err(|error| errno_of(&error));
                self.inputs.push_back(Input::Bound { key, result });
            }
            Output::Unbind { key, drain } => self.unbind(key, drain, turn),
            Output::Grant { worker, request, result } => self.grant(worker, request, result, turn),
            Output::Accept { key, on } => self.accept_or_not(key, on, turn),
            Output::StandIn { key, slot, on } => self.stand_in(key, slot, on, turn),
            Output::Send { worker, key, connection } => self.send(worker, key, connection, turn),
            Output::Probe { worker, key } => self.probe(worker, key, turn),
            Output::Ask { worker, key } => {
                let depth = self.members.queue(worker, key).and_then(|queue| queue.depth().ok());
                let records = u32::try_from(depth.unwrap_or(0)).unwrap_or(u32::MAX);
                self.inputs.push_back(Input::Depth { worker, key, records });
            }
            Output::TakeBack { worker, key } if self.is_node(worker) => {
                self.take_back_from_node(worker, key);
            }
            Output::TakeBack { worker, key } => {
                let queue = self.members.queue(worker, key);
                let (connections, probes) = queue.map(Queue::take_back).unwrap_or_default();
                self.inputs.push_back(Input::TakenBack { worker, key, connections, probes });
            }
            Output::EndQueue { worker, key } => {
                if let Some(queue) = self.members.queue(worker, key) {
                    // Fails only on a queue that has ended already.
                    let _ = queue.end();
                }
            }
            Output::DropQueue { worker, key } => self.drop_queue(worker, key, turn),
            Output::SendDisconnect { worker } if self.is_node(worker) => self.part_from(worker),
            Output::SendDisconnect { worker } => self.members.send(worker, ToWorker::Disconnect),
            Output::CloseChannel { worker } => self.members.disconnect(worker),
            Output::Signal { worker, hard } => {
                self.members.kill(worker, if hard { Signal::KILL } else { Signal::TERM });
            }
            Output::Close { connection, reason: _ } => drop(connection),
            Output::Reloaded { number, result } => self.reloaded(number, result),
            Output::Finished => self.finished = true,
        }
    }

    /// Nobody is left, unless others have been asked for meanwhile.
    fn idle(&mut self) {
        let scales = self.scales;
        self.shared.change(|state| {
            state.idle = state.scales == scales;
            if state.idle {
                state.idles += 1;
                state.ready = false;
            }
        });
    }

    fn send(&mut self, worker: WorkerId, key: Key, connection: Connection, turn: &mut Turn<'_>) {
        let sent = self.members.queue(worker, key).map(|queue| queue.send(&connection));
        if sent.is_none() && self.is_node(worker) {
            return self.send_to_node(worker, key, connection);
        }
        if let Some(refusal) = self.refused(worker, key, sent, turn) {
            let connection = Some(connection);
            self.inputs.push_back(Input::SendFailed { worker, key, connection, refusal });
        }
    }

    fn probe(&mut self, worker: WorkerId, key: Key, turn: &mut Turn<'_>) {
        let sent = self.members.queue(worker, key).map(Queue::send_probe);
        if let Some(refusal) = self.refused(worker, key, sent, turn) {
            self.inputs.push_back(Input::SendFailed { worker, key, connection: None, refusal });
        }
    }

    /// Why a record was not taken. A full queue is watched from now on until it has room; at
    /// other times it is not, because each record that a worker reads would wake us.
    fn refused(
        &mut self,
        worker: WorkerId,
        key: Key,
        sent: Option<io::Result<()>>,
        turn: &mut Turn<'_>,
    ) -> Option<Refusal> {
        let Some(sent) = sent else { return Some(Refusal::Gone) };
        let refusal = refusal_of(&sent.err()?);
        if refusal == Refusal::Full {
            let token = self.token(Watched::Queue(worker, key));
            if let Some(queue) = self.members.queue(worker, key) {
                // Watched already, or not to be watched: the schedule's tick finds the room then.
                if turn.register(queue.write_end(), token, Interest::WRITABLE).is_err() {
                    self.watched.remove(&token.0);
                }
            }
        }
        Some(refusal)
    }

    /// A queue that was full has room.
    pub(super) fn writable(
        &mut self,
        token: Token,
        worker: WorkerId,
        key: Key,
        turn: &mut Turn<'_>,
    ) {
        self.watched.remove(&token.0);
        if let Some(queue) = self.members.queue(worker, key) {
            let _ = turn.deregister(queue.write_end());
        }
        self.inputs.push_back(Input::Writable { worker, key });
    }

    fn grant(
        &mut self,
        worker: WorkerId,
        request: u32,
        result: Result<core::Granted, i32>,
        turn: &mut Turn<'_>,
    ) {
        let result = result.and_then(|granted| {
            let own = self.open_for(&granted, turn);
            let own = own.map_err(|error| self.not_granted(worker, granted.key, &error))?;
            Ok((granted, own))
        });
        if self.is_node(worker) {
            let result = result.map(|(granted, _)| (granted.key, granted.how));
            return self.grant_node(worker, request, result);
        }
        let result = result.and_then(|(granted, own)| {
            let key = granted.key;
            let granted = self.granted(worker, granted, own);
            granted.map_err(|error| self.not_granted(worker, key, &error))
        });
        self.members.send(worker, ToWorker::Listen { request, result });
    }

    fn not_granted(&mut self, worker: WorkerId, key: Key, error: &io::Error) -> i32 {
        self.inputs.push_back(Input::ListenerClosed { worker, key });
        errno_of(error)
    }

    fn granted(
        &mut self,
        worker: WorkerId,
        granted: core::Granted,
        own: Option<OwnedFd>,
    ) -> io::Result<Granted> {
        let core::Granted { key, how, open_max, data } = granted;
        let gone = || io::Error::from_raw_os_error(sys::errno::ECANCELED);
        let port = self.ports.get(&(key, 0)).ok_or_else(gone)?;
        let address = port.address().clone();
        let descriptor = match how {
            Grant::Shared => port.listener().try_clone_to_owned()?,
            Grant::HandOff | Grant::Own(_) => {
                let (queue, end) = Queue::new()?;
                let member = self.members.get_mut(worker).ok_or_else(gone)?;
                member.queues.insert(key, queue);
                end
            }
        };
        let shared = how == Grant::Shared;
        let descriptor = ipc::Handle::new(descriptor);
        let mut count = None;
        let counts = self.policy == Policy::LeastLoaded || open_max.is_some();
        if counts && !shared {
            let (ends, page) = Count::new()?;
            count = Some(ipc::Handle::new(page));
            self.inputs.push_back(Input::Counts { worker, key, ends: Arc::new(ends) });
        }
        if matches!(how, Grant::Own(_)) && own.is_none() {
            self.inputs.push_back(Input::NotOwn { worker, key });
        }
        let own = own.map(ipc::Handle::new);
        Ok(Granted { key, address, descriptor, shared, own, data, count })
    }

    fn drop_queue(&mut self, worker: WorkerId, key: Key, turn: &mut Turn<'_>) {
        let Some(member) = self.members.get_mut(worker) else { return };
        if let Some(queue) = member.queues.remove(&key) {
            // Fails where it is not watched, which is nearly always.
            let _ = turn.deregister(queue.write_end());
            self.watched
                .retain(|_, it| !matches!(it, Watched::Queue(w, k) if (*w, *k) == (worker, key)));
        }
        self.leaving.push(worker);
    }

    /// That there is room again is heard behind a worker's messages. While those lie unread it is
    /// looked for instead; gives when to look the next time.
    pub(super) fn look_for_room(&mut self, turn: &mut Turn<'_>) -> Option<Instant> {
        let keys: Vec<Key> = self.core.awaiting_room().collect();
        if keys.is_empty() || !self.members.is_any_held_back() {
            return None;
        }
        self.inputs.extend(keys.into_iter().map(|key| Input::HasRoom { key }));
        self.run(turn);
        Some(turn.now() + crate::schedule::TICK)
    }

    /// Forgets a worker of whom nothing more will be heard.
    pub(super) fn let_go(&mut self, worker: WorkerId, turn: &mut Turn<'_>) {
        if let Some(member) = self.members.remove_if_done(worker) {
            self.watched.retain(|_, watched| !belongs(*watched, worker));
            self.write_stderr(member.close(turn));
        }
    }

    pub(super) fn listen_failed(&mut self, worker: WorkerId, address: Address, errno: i32) {
        let error = |address| Error::Listen(address, io::Error::from_raw_os_error(errno));
        self.blame_later(worker, error(address.clone()));
        self.shared.emit(Event::error(Some(worker), error(address)));
    }

    pub(super) fn write_stderr(&self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.spawner.write_stderr(bytes);
        }
    }
}

fn refusal_of(error: &io::Error) -> Refusal {
    match error.raw_os_error() {
        Some(sys::errno::EAGAIN | sys::errno::ENOBUFS) => Refusal::Full,
        Some(sys::errno::ETOOMANYREFS) => Refusal::InFlight,
        _ => Refusal::Gone,
    }
}

pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(sys::errno::EIO)
}
