//! Workers and their listeners: wishes, grants, and what comes back out of queues.
//!
//! Pure.

use std::time::Instant;

use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::scheduler::Schedule;
use crate::supervisor::addresses::{Answer, Wish};
use crate::supervisor::lifecycle::Event;

use super::{
    Affinity, Core, Grant, Granted, Key, Mode, Notice, Output, Refusal, WorkerId, WorkerKind,
};

/// The answer to a wish that comes too late.
pub(super) const ECANCELED: i32 = 125;

impl<H: Affinity> Core<H> {
    pub(super) fn listen_asked(
        &mut self,
        worker: WorkerId,
        request: u32,
        address: Address,
        mut options: ListenOptions,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(member) = self.members.get(&worker) else { return };
        let slot = member.slot;
        if self.mode != Mode::Running || !member.life.may_serve() {
            return out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
        }
        let wish = Wish {
            address: &address,
            again: options.reuse_address,
            open_max: options.max_connections,
            data: options.data.take(),
        };
        match self.ports.ask(worker, slot, request, wish) {
            Answer::Bind(key) => {
                if self.deals(&address) {
                    self.schedules.insert(key, Schedule::new(key, &self.options));
                }
                if self.ports.is_closing(&address) {
                    self.deferred.push((key, address, options));
                } else {
                    out.push(Output::Bind { key, address, options });
                }
            }
            Answer::Wait => {}
            Answer::Grant(key) => self.grant(worker, request, key, out),
            Answer::Refuse(errno) => refuse(worker, request, address, errno, out),
        }
    }

    /// Binds what waited for an address to be closed, if somebody still waits for it.
    pub(super) fn bind_deferred(&mut self, out: &mut Vec<Output<H>>) {
        for (key, address, options) in std::mem::take(&mut self.deferred) {
            let waiting = self.ports.waiting(key);
            if !waiting.iter().any(|(worker, _)| self.member_may_serve(*worker)) {
                self.schedules.remove(&key);
                for (worker, request) in self.ports.bound(key, Err(ECANCELED)) {
                    out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
                }
            } else if self.ports.is_closing(&address) {
                self.deferred.push((key, address, options));
            } else {
                out.push(Output::Bind { key, address, options });
            }
        }
    }

    pub(super) fn bound(
        &mut self,
        key: Key,
        result: Result<Address, i32>,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(asked) = self.ports.asked(key).cloned() else { return };
        let failure = result.as_ref().err().copied();
        for (worker, request) in self.ports.bound(key, result) {
            if let Some(errno) = failure {
                refuse(worker, request, asked.clone(), errno, out);
            } else if self.member_may_serve(worker) {
                self.grant(worker, request, key, out);
            } else {
                self.ports.release(worker, key);
                out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
            }
        }
        if failure.is_some() {
            // Never used: nothing was accepted.
            self.schedules.remove(&key);
        }
    }

    fn grant(&mut self, worker: WorkerId, request: u32, key: Key, out: &mut Vec<Output<H>>) {
        let slot = self.members.get(&worker).map_or(0, |member| member.slot);
        let kind = self.members.get(&worker).map_or(WorkerKind::Native, |member| member.kind);
        let open_max = self.ports.open_max(worker, key);
        let grant = match self.schedules.get_mut(&key) {
            None => Grant::Shared,
            // The queue of the time before has the same name.
            Some(schedule) if schedule.has_lane(worker) => {
                return self.postponed.push((worker, key, request));
            }
            Some(schedule) => {
                schedule.grant(worker, slot, kind, open_max);
                let own = self.options.policy == Policy::ReusePort
                    && (kind, open_max) == (WorkerKind::Native, None)
                    && matches!(self.ports.asked(key), Some(Address::Tcp { .. }));
                schedule.set_own(worker, own, out);
                if own { Grant::Own(slot) } else { Grant::HandOff }
            }
        };
        let data = self.ports.data(key).map(<[u8]>::to_vec);
        let granted = Granted { key, how: grant, open_max, data };
        out.push(Output::Grant { worker, request, result: Ok(granted) });
    }

    /// Grants what waited for a queue to be dropped.
    pub(super) fn grant_postponed(&mut self, out: &mut Vec<Output<H>>) {
        for (worker, key, request) in std::mem::take(&mut self.postponed) {
            if self.member_may_serve(worker) && self.ports.address(key).is_some() {
                self.grant(worker, request, key, out);
            } else {
                self.ports.release(worker, key);
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
        if !self.member_may_serve(worker) || !self.ports.holds(worker, key) {
            return;
        }
        let Some(address) = self.ports.address(key).cloned() else { return };
        self.live(worker, Event::Listening, None, now, out);
        let opened = match self.schedules.get_mut(&key) {
            None => true,
            Some(schedule) => schedule.open_lane(worker),
        };
        if opened {
            out.push(Output::Emit(Notice::Listening { worker, address }));
        }
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.deal(now, out);
        }
    }

    pub(super) fn listens_alone(
        &mut self,
        worker: WorkerId,
        address: Address,
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        if self.member_may_serve(worker) {
            self.live(worker, Event::Listening, None, now, out);
            out.push(Output::Emit(Notice::Listening { worker, address }));
        }
    }

    pub(super) fn listener_closed(&mut self, worker: WorkerId, key: Key, out: &mut Vec<Output<H>>) {
        self.ports.release(worker, key);
        self.postponed.retain(|(waiter, of, _)| (*waiter, *of) != (worker, key));
        if let Some(schedule) = self.schedules.get_mut(&key) {
            schedule.close_lane(worker, out);
        }
    }

    pub(super) fn taken_back(
        &mut self,
        worker: WorkerId,
        key: Key,
        (connections, probes): (Vec<H>, u32),
        now: Instant,
        out: &mut Vec<Output<H>>,
    ) {
        match self.schedules.get_mut(&key) {
            Some(schedule) => schedule.taken_back(worker, connections, probes, now, out),
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
        match self.schedules.get_mut(&key) {
            Some(schedule) => schedule.refused(worker, connection, refusal, now, out),
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
            self.counters.taken_back += 1;
            self.counters.close(reason, 1);
            out.push(Output::Close { connection, reason });
        }
    }

    /// The primary accepts and deals.
    fn deals(&self, address: &Address) -> bool {
        match self.options.policy {
            Policy::RoundRobin | Policy::LeastLoaded | Policy::Sticky | Policy::ReusePort => {
                !address.is_datagram()
            }
            Policy::None => false,
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
