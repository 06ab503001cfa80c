//! Workers and their listeners: wishes, grants, and what comes back out of queues.
//!
//! Pure.

use std::time::Instant;

use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::scheduler::Scheduler;
use crate::supervisor::addresses::{ListenRequest, Resolution};
use crate::supervisor::lifecycle::Event;
use sys::errno::ECANCELED;

use super::{
    Access, Affinity, Grant, Key, Mode, Notice, Output, Refusal, Supervisor, WorkerId, WorkerKind,
};

impl<H: Affinity> Supervisor<H> {
    pub(super) fn listen_asked(
        &mut self,
        worker: WorkerId,
        request: u32,
        address: Address,
        mut options: ListenOptions,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot = entry.slot;
        if self.mode != Mode::Running || !entry.life.may_serve() {
            return out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
        }
        let wish = ListenRequest {
            address: &address,
            again: options.reuse_address,
            open_max: options.max_connections,
            data: options.data.take(),
        };
        match self.addresses.ask(worker, slot, request, wish) {
            Resolution::Bind(key) => {
                if self.dispatches(&address) {
                    self.schedulers.insert(key, Scheduler::new(key, &self.options));
                }
                if self.addresses.is_closing(&address) {
                    self.deferred.push((key, address, options));
                } else {
                    out.push(self.bind(key, address, options));
                }
            }
            Resolution::Wait => {}
            Resolution::Grant(key) => self.grant(worker, request, key, out),
            Resolution::Refuse(errno) => refuse(worker, request, address, errno, out),
        }
    }

    /// Binds what waited for an address to be closed, if somebody still waits for it.
    pub(super) fn bind_deferred(&mut self, out: &mut Vec<Output<H>>) {
        for (key, address, options) in std::mem::take(&mut self.deferred) {
            let waiting = self.addresses.waiting(key);
            if !waiting.iter().any(|(worker, _)| self.may_serve(*worker)) {
                self.schedulers.remove(&key);
                for (worker, request) in self.addresses.bound(key, Err(ECANCELED)) {
                    out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
                }
            } else if self.addresses.is_closing(&address) {
                self.deferred.push((key, address, options));
            } else {
                out.push(self.bind(key, address, options));
            }
        }
    }

    pub(super) fn bound(
        &mut self,
        key: Key,
        result: Result<Address, i32>,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(asked) = self.addresses.asked(key).cloned() else { return };
        let failure = result.as_ref().err().copied();
        for (worker, request) in self.addresses.bound(key, result) {
            if let Some(errno) = failure {
                refuse(worker, request, asked.clone(), errno, out);
            } else if self.may_serve(worker) {
                self.grant(worker, request, key, out);
            } else {
                self.addresses.release(worker, key);
                out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
            }
        }
        if failure.is_some() {
            // Never used: nothing was accepted.
            self.schedulers.remove(&key);
        }
    }

    fn grant(&mut self, worker: WorkerId, request: u32, key: Key, out: &mut Vec<Output<H>>) {
        let slot = self.workers.get(&worker).map_or(0, |entry| entry.slot);
        let kind = self.workers.get(&worker).map_or(WorkerKind::Native, |entry| entry.kind);
        let open_max = self.addresses.open_max(worker, key);
        let asked = self.addresses.asked(key);
        let has_socket_per_slot = asked.is_some_and(|it| self.has_socket_per_slot(it));
        let access = match self.schedulers.get_mut(&key) {
            None => Access::Shared,
            // The queue of the time before has the same name.
            Some(scheduler) if scheduler.has_backend(worker) => {
                return self.postponed.push((worker, key, request));
            }
            Some(scheduler) => {
                scheduler.grant(worker, slot, kind, open_max);
                let own = has_socket_per_slot && (kind, open_max) == (WorkerKind::Native, None);
                scheduler.set_own_socket(worker, own, out);
                if own { Access::OwnSocket(slot) } else { Access::HandOff }
            }
        };
        let data = self.addresses.data(key).map(<[u8]>::to_vec);
        let counts_closed = access != Access::Shared
            && kind == WorkerKind::Native
            && (self.options.policy == Policy::LeastLoaded || open_max.is_some());
        let granted = Grant { key, how: access, counts_closed, data };
        out.push(Output::Grant { worker, request, result: Ok(granted) });
    }

    fn bind(&self, key: Key, address: Address, options: ListenOptions) -> Output<H> {
        let reuse_port = self.has_socket_per_slot(&address);
        Output::Bind { key, address, options, reuse_port }
    }

    /// Whether each slot has a listening socket of its own at this address.
    fn has_socket_per_slot(&self, address: &Address) -> bool {
        self.options.policy == Policy::ReusePort && matches!(address, Address::Tcp { .. })
    }

    /// Grants what waited for a queue to be dropped.
    pub(super) fn grant_postponed(&mut self, out: &mut Vec<Output<H>>) {
        for (worker, key, request) in std::mem::take(&mut self.postponed) {
            if self.may_serve(worker) && self.addresses.address(key).is_some() {
                self.grant(worker, request, key, out);
            } else {
                self.addresses.release(worker, key);
                out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
            }
        }
    }

    pub(super) fn listening(
        &mut self,
        worker: WorkerId,
        key: Key,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        if !self.may_serve(worker) || !self.addresses.holds(worker, key) {
            return;
        }
        let Some(address) = self.addresses.address(key).cloned() else { return };
        self.apply(worker, Event::Listening, None, now, out);
        let opened = match self.schedulers.get_mut(&key) {
            None => true,
            Some(scheduler) => scheduler.open_backend(worker),
        };
        if opened {
            out.push(Output::Emit(Notice::Listening { worker, address }));
        }
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.dispatch(now, out);
        }
    }

    pub(super) fn listens_alone(
        &mut self,
        worker: WorkerId,
        address: Address,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        if self.may_serve(worker) {
            self.apply(worker, Event::Listening, None, now, out);
            out.push(Output::Emit(Notice::Listening { worker, address }));
        }
    }

    pub(super) fn listener_closed(&mut self, worker: WorkerId, key: Key, out: &mut Vec<Output<H>>) {
        self.addresses.release(worker, key);
        self.postponed.retain(|(waiter, of, _)| (*waiter, *of) != (worker, key));
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.close_backend(worker, out);
        }
    }

    pub(super) fn reclaimed(
        &mut self,
        worker: WorkerId,
        key: Key,
        (connections, probes): (Vec<H>, u32),
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        match self.schedulers.get_mut(&key) {
            Some(scheduler) => scheduler.reclaimed(worker, connections, probes, now, out),
            None => self.close_all(connections, out),
        }
    }

    pub(super) fn send_failed(
        &mut self,
        worker: WorkerId,
        key: Key,
        connection: Option<H>,
        refusal: Refusal,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        match self.schedulers.get_mut(&key) {
            Some(scheduler) => scheduler.refused(worker, connection, refusal, now, out),
            None => self.close_all(connection, out),
        }
    }

    /// Connections out of a queue that nobody knows any more.
    pub(super) fn close_all(
        &mut self,
        connections: impl IntoIterator<Item = H>,
        out: &mut Vec<Output<H>>,
    ) {
        let reason = self.close_reason();
        for connection in connections {
            self.counters.reclaimed += 1;
            self.counters.close(reason, 1);
            out.push(Output::Close { connection, reason });
        }
    }

    /// The primary accepts and deals.
    fn dispatches(&self, address: &Address) -> bool {
        match self.options.policy {
            Policy::RoundRobin | Policy::LeastLoaded | Policy::Sticky | Policy::ReusePort => {
                !address.is_datagram()
            }
            Policy::Shared => false,
        }
    }
}

fn refuse<H>(
    worker: WorkerId,
    request: u32,
    address: Address,
    errno: i32,
    out: &mut Vec<Output<H>>,
) {
    out.push(Output::Emit(Notice::ListenFailed { worker, address, errno }));
    out.push(Output::Grant { worker, request, result: Err(errno) });
}
