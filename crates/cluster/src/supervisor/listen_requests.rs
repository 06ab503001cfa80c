//! Listen requests of workers: from the request to the grant, and back to the closed listener.
//!
//! Connections that come back out of queues whose scheduler is gone are closed here, too.
//!
//! Pure.

use std::time::Instant;

use crate::listen_rules::Credentials;
use crate::policy::Policy;
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use crate::scheduler::Scheduler;
use crate::supervisor::addresses::{ListenRequest, Resolution};
use crate::supervisor::lifecycle::Event;
use sys::errno::{EACCES, ECANCELED, EPERM};

use super::listen_permissions::forbid;
use super::{
    Access, ClientAffinity, Grant, Key, ListenRefusal, Notice, Output, Refusal, SlotId, Supervisor,
    WorkerId, WorkerKind,
};

impl<H: ClientAffinity> Supervisor<H> {
    /// Opens the address with these rights, or shares it, for a worker that may listen there.
    pub(super) fn listen(
        &mut self,
        (worker, request): (WorkerId, u32),
        address: Address,
        mut options: ListenOptions,
        rights: Option<Credentials>,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(entry) = self.workers.get(&worker) else { return };
        let slot_of_worker = entry.slot;
        let slot = Some(slot_of_worker).filter(|slot| self.serves_for(worker, *slot));
        let listen_request = ListenRequest {
            address: &address,
            rights,
            again: options.reuse_address,
            open_max: options.max_connections,
            data: options.data.take(),
        };
        let resolution = self.addresses.request_address(worker, slot, request, listen_request);
        let held = self.addresses.holdings(worker);
        let reserved_max = self.listens_max().saturating_sub(held);
        self.addresses.limit_reservations(slot_of_worker, reserved_max);
        match resolution {
            Resolution::Bind(key) => {
                if self.dispatches(&address) {
                    self.schedulers.insert(key, Scheduler::new(key, &self.options));
                }
                if self.addresses.is_closing(&address) {
                    self.deferred_binds.push((key, address, options));
                } else {
                    out.push(self.bind(key, address, options));
                }
            }
            Resolution::Wait => {}
            Resolution::Grant(key) => self.grant(worker, request, key, out),
            Resolution::Refuse(errno) => refuse(worker, request, address, errno, out),
        }
    }

    /// Binds addresses that waited for the same address to be closed, if a worker still waits.
    pub(super) fn bind_deferred(&mut self, out: &mut Vec<Output<H>>) {
        for (key, address, options) in std::mem::take(&mut self.deferred_binds) {
            let waiting = self.addresses.waiting(key);
            if !waiting.iter().any(|(worker, _)| self.may_serve(*worker)) {
                self.schedulers.remove(&key);
                for (worker, request) in self.addresses.bound(key, Err(ECANCELED)) {
                    out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
                }
            } else if self.addresses.is_closing(&address) {
                self.deferred_binds.push((key, address, options));
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
        let Some(asked) = self.addresses.requested(key).cloned() else { return };
        let by_rights = self.addresses.rights(key).is_some();
        let failure = result.as_ref().err().copied();
        for (worker, request) in self.addresses.bound(key, result) {
            if by_rights && matches!(failure, Some(EACCES | EPERM)) {
                forbid(worker, request, asked.clone(), ListenRefusal::NotAllowed, out);
            } else if let Some(errno) = failure {
                refuse(worker, request, asked.clone(), errno, out);
            } else if self.may_serve(worker) {
                self.grant(worker, request, key, out);
            } else {
                self.addresses.release(worker, key);
                out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
            }
        }
        if failure.is_some() {
            // Nothing was accepted, so the scheduler holds no connection and no count.
            self.schedulers.remove(&key);
        }
    }

    fn grant(&mut self, worker: WorkerId, request: u32, key: Key, out: &mut Vec<Output<H>>) {
        let slot = self.workers.get(&worker).map_or(0, |entry| entry.slot);
        let kind = self.workers.get(&worker).map_or(WorkerKind::Native, |entry| entry.kind);
        let open_max = self.addresses.open_max(worker, key);
        let asked = self.addresses.requested(key);
        let has_socket_per_slot = asked.is_some_and(|it| self.has_socket_per_slot(it));
        let access = match self.schedulers.get_mut(&key) {
            None => Access::Shared,
            // The earlier queue of this worker and key still exists under the same name.
            Some(scheduler) if scheduler.has_backend(worker) => {
                return self.postponed_grants.push((worker, key, request));
            }
            Some(scheduler) => {
                scheduler.add_backend(worker, slot, kind, open_max);
                let own = has_socket_per_slot && (kind, open_max) == (WorkerKind::Native, None);
                scheduler.set_own_socket(worker, own, out);
                if own { Access::OwnSocket(slot) } else { Access::HandOff }
            }
        };
        let data = self.addresses.data(key).map(<[u8]>::to_vec);
        let counts_closed = access != Access::Shared
            && kind == WorkerKind::Native
            && (self.options.policy == Policy::LeastLoaded || open_max.is_some());
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.conduct.granted(key);
        }
        let granted = Grant { key, access, counts_closed, data };
        out.push(Output::Grant { worker, request, result: Ok(granted) });
    }

    fn bind(&self, key: Key, address: Address, options: ListenOptions) -> Output<H> {
        let reuse_port = self.has_socket_per_slot(&address);
        let rights = self.addresses.rights(key).cloned();
        Output::Bind { key, address, options, reuse_port, rights }
    }

    /// Whether each slot has a listening socket of its own at this address.
    fn has_socket_per_slot(&self, address: &Address) -> bool {
        self.options.policy == Policy::ReusePort && matches!(address, Address::Tcp { .. })
    }

    pub(super) fn grant_failed(
        &mut self,
        (worker, request, key): (WorkerId, u32, Key),
        errno: i32,
        out: &mut Vec<Output<H>>,
    ) {
        if let Some(entry) = self.workers.get_mut(&worker) {
            entry.conduct.not_granted(key);
        }
        let address = self.addresses.requested(key).cloned();
        self.listener_closed(worker, key, out);
        match address.filter(|_| errno != ECANCELED) {
            Some(address) => refuse(worker, request, address, errno, out),
            None => out.push(Output::Grant { worker, request, result: Err(errno) }),
        }
    }

    /// Grants requests that waited for an earlier queue to be dropped.
    pub(super) fn grant_postponed(&mut self, out: &mut Vec<Output<H>>) {
        for (worker, key, request) in std::mem::take(&mut self.postponed_grants) {
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
        self.addresses.set_listening(worker, key);
        self.apply(worker, Event::Listening, None, now, out);
        let opened = match self.schedulers.get_mut(&key) {
            None => true,
            Some(scheduler) => scheduler.open_backend(worker),
        };
        if opened {
            self.emit(worker, Notice::Listening(address), out);
        }
        if let Some(scheduler) = self.schedulers.get_mut(&key) {
            scheduler.dispatch_waiting(now, out);
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
            self.emit(worker, Notice::Listening(address), out);
        }
    }

    pub(super) fn listener_closed(&mut self, worker: WorkerId, key: Key, out: &mut Vec<Output<H>>) {
        let slot = self.workers.get(&worker).map(|entry| entry.slot);
        let serves = |slot: &SlotId| self.serves_for(worker, *slot);
        // The worker may be about to end or to listen anew, so the address stays open meanwhile.
        if let Some(slot) = slot.filter(serves).filter(|_| self.addresses.holds(worker, key)) {
            self.addresses.reserve(key, slot);
        }
        self.addresses.release(worker, key);
        self.postponed_grants.retain(|(waiter, of, _)| (*waiter, *of) != (worker, key));
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
            Some(scheduler) => scheduler.send_failed(worker, connection, refusal, now, out),
            None => self.close_all(connection, out),
        }
    }

    /// Closes connections out of a queue whose scheduler is gone.
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

    /// Whether the slot is wanted and has this worker, which is no successor and not relieved.
    fn serves_for(&self, worker: WorkerId, slot: SlotId) -> bool {
        let slot_entry = &self.slots[usize::try_from(slot).expect("slots are counted in memory")];
        slot_entry.wanted && slot_entry.worker == Some(worker)
    }

    /// Whether the primary accepts at this address and dispatches.
    fn dispatches(&self, address: &Address) -> bool {
        match self.options.policy {
            Policy::RoundRobin | Policy::LeastLoaded | Policy::Sticky | Policy::ReusePort => {
                !address.is_datagram()
            }
            Policy::Shared => false,
        }
    }
}

pub(super) fn refuse<H>(
    worker: WorkerId,
    request: u32,
    address: Address,
    errno: i32,
    out: &mut Vec<Output<H>>,
) {
    out.push(Output::ListenFailed { worker, address, errno });
    out.push(Output::Grant { worker, request, result: Err(errno) });
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::contract::{ExitKind, Input, SupervisorOptions};
    use crate::kernel_model::ModelPage;
    use crate::listen_rules::ListenFacts;
    use crate::scheduler::TICK;
    use std::time::Duration;

    fn address() -> Address {
        Address::from("127.0.0.1:80".parse::<std::net::SocketAddr>().unwrap())
    }

    /// A worker that was granted key 1 in answer to request 7, and the output that granted it.
    fn granted(
        policy: Policy,
        kind: WorkerKind,
        open_max: Option<u32>,
    ) -> (Supervisor<u32>, Instant, Vec<Output<u32>>) {
        let options = SupervisorOptions { policy, ..SupervisorOptions::default() };
        let (mut supervisor, now) = (Supervisor::new(options, 1), Instant::now());
        let options = ListenOptions { max_connections: open_max, ..ListenOptions::new() };
        let mut out = Vec::new();
        for input in [
            Input::Scale(1),
            Input::Spawned { worker: WorkerId(1), kind },
            Input::Online { worker: WorkerId(1) },
            Input::ListenRequested {
                worker: WorkerId(1),
                request: 7,
                address: address(),
                options,
                facts: ListenFacts::default(),
            },
            Input::Bound { key: 1, result: Ok(address()) },
        ] {
            out.clear();
            supervisor.step(input, now, &mut out);
        }
        (supervisor, now, out)
    }

    #[test]
    fn only_workers_with_a_queue_count_and_only_where_the_count_is_needed() {
        use {Policy as P, WorkerKind as W};
        for (policy, kind, open_max, counts) in [
            (P::RoundRobin, W::Native, None, false),
            (P::RoundRobin, W::Native, Some(5), true),
            (P::RoundRobin, W::Node, Some(5), false),
            (P::Sticky, W::Native, None, false),
            (P::ReusePort, W::Native, None, false),
            (P::ReusePort, W::Native, Some(5), true),
            (P::LeastLoaded, W::Native, None, true),
            (P::LeastLoaded, W::Node, None, false),
            (P::Shared, W::Native, Some(5), false),
        ] {
            let (_, _, out) = granted(policy, kind, open_max);
            let grant = out.iter().find_map(|output| match output {
                Output::Grant { result: Ok(grant), .. } => Some(grant.counts_closed),
                _ => None,
            });
            assert_eq!(grant, Some(counts), "{policy:?} {kind:?} {open_max:?}");
        }
    }

    #[test]
    fn a_grant_that_fails_and_a_socket_that_is_missing_are_refused_with_the_errno() {
        let (mut supervisor, now, mut out) = granted(Policy::RoundRobin, WorkerKind::Native, None);
        out.clear();
        let failed = Input::GrantFailed { worker: WorkerId(1), request: 7, key: 1, errno: 24 };
        supervisor.step(failed, now, &mut out);
        let refused =
            |request, errno| Output::Grant { worker: WorkerId(1), request, result: Err(errno) };
        let dropped = Output::DropQueue { worker: WorkerId(1), key: 1 };
        let failed = Output::ListenFailed { worker: WorkerId(1), address: address(), errno: 24 };
        assert_eq!(out, [dropped, failed, refused(7, 24)]);
        out.clear();
        let address = Address::Inherited("descriptor 9".to_owned());
        let missing = Input::NoSuchSocket {
            worker: WorkerId(1),
            request: 8,
            address: address.clone(),
            errno: 22,
        };
        supervisor.step(missing, now, &mut out);
        let notice = Output::ListenFailed { worker: WorkerId(1), address, errno: 22 };
        assert_eq!(out, [notice, refused(8, 22)]);
    }

    #[test]
    fn while_has_room_is_delayed_room_is_polled_for_at_once_and_at_every_tick() {
        let (mut supervisor, now, mut out) =
            granted(Policy::RoundRobin, WorkerKind::Native, Some(1));
        let page = std::sync::Arc::new(ModelPage::counting());
        let mut step = |input, now| {
            out.clear();
            supervisor.step(input, now, &mut out);
            (supervisor.awaits_room(), supervisor.deadline())
        };
        step(Input::Counts { worker: WorkerId(1), key: 1, page }, now);
        step(Input::Listening { worker: WorkerId(1), key: 1 }, now);
        step(Input::Accepted { key: 1, connection: 1 }, now);
        step(Input::Depth { worker: WorkerId(1), key: 1, records: 0 }, now);
        let later = now + Duration::from_secs(1);
        step(Input::Tick, later);
        step(Input::Depth { worker: WorkerId(1), key: 1, records: 0 }, later);
        assert_eq!(step(Input::Accepted { key: 1, connection: 2 }, later), (true, None));
        assert_eq!(step(Input::HasRoomDelayed, later), (true, Some(later + TICK)));
        assert_eq!(
            step(Input::Tick, later + TICK),
            (true, None),
            "no poll without a paused channel"
        );
        assert_eq!(step(Input::HasRoomDelayed, later + TICK), (true, Some(later + 2 * TICK)));
        step(Input::Exited { worker: WorkerId(1), exit: ExitKind::Code(0) }, later + TICK);
        assert!(!supervisor.awaits_room());
    }
}
