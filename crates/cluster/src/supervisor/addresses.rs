//! The table of addresses: the key of each address, and the workers that hold it.
//!
//! Workers that request the same address share a key, and with it one listening socket of the
//! primary. A worker's n-th request for port 0 shares the n-th such key, so that all workers of a
//! program get the same ports. A request for the port number that the kernel chose shares the key
//! as well. One worker cannot hold a key twice: as with two plain sockets, the address is in use.
//!
//! Workers share a key only if the socket is opened with the same rights for all of them.
//!
//! A key is in use as long as a worker holds it or waits for it, or a slot has it reserved. A slot
//! reserves the keys that its worker held and gave up, by its end or by closing the listener, until
//! a worker of the slot requests them. The socket, and the port number behind port 0, therefore
//! outlive the workers. While the slot has a worker that is up, the reservation has a time limit.
//!
//! Pure.

use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use sys::errno::EADDRINUSE;

use crate::contract::{Key, SlotId, WorkerId};
use crate::listen_rules::Credentials;
use crate::protocol::address::Address;

/// The keys of a primary.
#[derive(Debug, Default)]
pub(crate) struct AddressTable {
    entries: BTreeMap<Key, Entry>,
    /// The next index and the number of held keys, for each worker and address with port 0.
    indexes: HashMap<(WorkerId, Address), Index>,
    last_key: Key,
}

#[derive(Debug)]
struct Entry {
    requested: Address,
    /// Distinguishes requests for port 0; 0 for all other addresses.
    index: u32,
    /// The rights with which the socket is opened; `None` for those of the primary.
    rights: Option<Credentials>,
    state: EntryState,
    holders: Vec<Holder>,
    reservations: Vec<Reservation>,
    /// The last reservation has lapsed, and nobody has requested the key since.
    lapsed: bool,
    /// Data for all workers that share the key.
    data: Option<Vec<u8>>,
}

/// A slot's right to a key that its worker gave up.
#[derive(Clone, Copy, Debug)]
struct Reservation {
    slot: SlotId,
    /// The end of the right; `None` while the slot has no worker that is up.
    until: Option<Instant>,
}

#[derive(Debug)]
enum EntryState {
    /// `Bind` was ordered; these requests wait for the answer.
    Binding(Vec<(WorkerId, u32)>),
    Bound(Address),
    /// `Unbind` was ordered.
    Unbinding(Address),
}

#[derive(Clone, Copy, Debug)]
struct Holder {
    worker: WorkerId,
    /// The request took an index.
    indexed: bool,
    /// The connection limit of the worker.
    open_max: Option<u32>,
    /// The worker has received its listener.
    listening: bool,
}

#[derive(Clone, Copy, Debug, Default)]
struct Index {
    next: u32,
    held: u32,
}

/// The parameters of a listen request.
#[derive(Debug)]
pub(crate) struct ListenRequest<'a> {
    pub(crate) address: &'a Address,
    /// The rights with which the socket is opened; `None` for those of the primary.
    pub(crate) rights: Option<Credentials>,
    /// For datagrams: the worker may hold the address already.
    pub(crate) again: bool,
    /// The connection limit of the worker.
    pub(crate) open_max: Option<u32>,
    /// Data for all workers that share the address; the first data is kept.
    pub(crate) data: Option<Vec<u8>>,
}

/// The decision about a listen request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// Bind the address first; the request waits.
    Bind(Key),
    /// The address is being bound; the request waits.
    Wait,
    Grant(Key),
    Refuse(i32),
}

impl AddressTable {
    /// Takes a listen request of a worker, which uses the reservation of `slot`. A successor that may
    /// be withdrawn has no slot yet.
    pub(crate) fn request_address(
        &mut self,
        worker: WorkerId,
        slot: Option<SlotId>,
        request: u32,
        listen_request: ListenRequest<'_>,
    ) -> Resolution {
        let address = listen_request.address;
        let indexed = address.is_port_0();
        let again = listen_request.again && address.is_datagram();
        let (index, shared) = loop {
            let index = if indexed { self.next_index(worker, address) } else { 0 };
            let mut shared = self.entries.iter();
            let shared = shared.find(|(_, it)| it.is(address, index, &listen_request.rights));
            let is_held = shared.is_some_and(|(_, entry)| entry.is_held_by(worker));
            if !is_held || again {
                break (index, shared.map(|(key, _)| *key));
            }
            if !indexed {
                return Resolution::Refuse(EADDRINUSE);
            }
            // The worker holds this key under its port number, so port 0 means the next key.
            self.index_back(worker, address);
        };
        let open_max = listen_request.open_max;
        let holder = Holder { worker, indexed, open_max, listening: false };
        let shared = shared.and_then(|key| Some((key, self.entries.get_mut(&key)?)));
        let Some((key, entry)) = shared else {
            self.last_key += 1;
            let entry = Entry {
                requested: address.clone(),
                index,
                rights: listen_request.rights,
                state: EntryState::Binding(vec![(worker, request)]),
                holders: vec![holder],
                reservations: Vec::new(),
                lapsed: false,
                data: listen_request.data,
            };
            self.entries.insert(self.last_key, entry);
            return Resolution::Bind(self.last_key);
        };
        if entry.data.is_none() {
            entry.data = listen_request.data;
        }
        entry.holders.push(holder);
        entry.reservations.retain(|reservation| Some(reservation.slot) != slot);
        entry.lapsed = false;
        match &mut entry.state {
            EntryState::Binding(waiting) => {
                waiting.push((worker, request));
                Resolution::Wait
            }
            EntryState::Bound(_) => Resolution::Grant(key),
            EntryState::Unbinding(_) => {
                unreachable!("an address that is being closed is not shared")
            }
        }
    }

    /// Returns the last key that was given to an address.
    pub(crate) fn last_key(&self) -> Key {
        self.last_key
    }

    /// Whether any address is being bound.
    pub(crate) fn is_binding(&self) -> bool {
        self.entries.values().any(|entry| matches!(entry.state, EntryState::Binding(_)))
    }

    /// Returns the requests that wait for the answer to `Bind`.
    pub(crate) fn waiting(&self, key: Key) -> Vec<(WorkerId, u32)> {
        match self.entries.get(&key).map(|entry| &entry.state) {
            Some(EntryState::Binding(waiting)) => waiting.clone(),
            Some(EntryState::Bound(_) | EntryState::Unbinding(_)) | None => Vec::new(),
        }
    }

    /// Takes the answer to `Bind`; returns the requests that waited for it.
    ///
    /// A failure is not kept: the next request binds again.
    pub(crate) fn bound(&mut self, key: Key, result: Result<Address, i32>) -> Vec<(WorkerId, u32)> {
        let Some(entry) = self.entries.get_mut(&key) else { return Vec::new() };
        let EntryState::Binding(waiting) = &mut entry.state else { return Vec::new() };
        let waiting = std::mem::take(waiting);
        match result {
            Ok(address) => entry.state = EntryState::Bound(address),
            Err(_) => {
                waiting.iter().for_each(|(worker, _)| self.release(*worker, key));
                self.entries.remove(&key);
            }
        }
        waiting
    }

    /// Records that a worker has received its listener.
    pub(crate) fn set_listening(&mut self, worker: WorkerId, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let holders = entry.holders.iter_mut().filter(|holder| holder.worker == worker);
        holders.for_each(|holder| holder.listening = true);
    }

    /// Removes a worker that closed its listener from the holders.
    pub(crate) fn release(&mut self, worker: WorkerId, key: Key) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        let Some(at) = entry.holders.iter().position(|holder| holder.worker == worker) else {
            return;
        };
        let holder = entry.holders.remove(at);
        if let EntryState::Binding(waiting) = &mut entry.state {
            waiting.retain(|(waiter, _)| *waiter != worker);
        }
        if holder.indexed {
            let requested = entry.requested.clone();
            self.index_back(worker, &requested);
            // Indexes start again at 0 when a worker holds no such key, as in Node.
            self.indexes.retain(|_, index| index.held > 0);
        }
    }

    /// Removes a worker that ended from all holders; `reservation` is its slot, if the slot gets
    /// another worker.
    pub(crate) fn worker_ended(&mut self, worker: WorkerId, reservation: Option<SlotId>) {
        for key in self.held_by(worker) {
            while self.holds(worker, key) {
                self.release(worker, key);
            }
            if let Some(slot) = reservation {
                self.reserve(key, slot);
            }
        }
    }

    /// Reserves a key for a slot, whose worker has given it up.
    pub(crate) fn reserve(&mut self, key: Key, slot: SlotId) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        if !entry.reservations.iter().any(|reservation| reservation.slot == slot) {
            entry.reservations.push(Reservation { slot, until: None });
        }
    }

    /// Drops the oldest reservations of a slot until no more than `most` are left.
    pub(crate) fn limit_reservations(&mut self, slot: SlotId, most: usize) {
        let reserved = self.reserved_by(slot);
        for key in reserved.iter().take(reserved.len().saturating_sub(most)) {
            if let Some(entry) = self.entries.get_mut(key) {
                entry.reservations.retain(|reservation| reservation.slot != slot);
                entry.lapsed = entry.reservations.is_empty() && entry.holders.is_empty();
            }
        }
    }

    /// Drops the reservations of a slot for keys that its new worker holds already.
    pub(crate) fn drop_held_reservations(&mut self, slot: SlotId, worker: WorkerId) {
        for entry in self.entries.values_mut().filter(|entry| entry.is_held_by(worker)) {
            entry.reservations.retain(|reservation| reservation.slot != slot);
        }
    }

    /// Starts, stops and ends the times of reservations: a reservation of a slot that `is_up` ends
    /// at `until`. Holders for which `counts` is false keep no key from lapsing.
    pub(crate) fn expire_reservations(
        &mut self,
        now: Instant,
        until: Option<Instant>,
        is_up: impl Fn(SlotId) -> bool,
        counts: impl Fn(WorkerId) -> bool,
    ) {
        for entry in self.entries.values_mut().filter(|entry| !entry.reservations.is_empty()) {
            entry.reservations.retain_mut(|reservation| {
                if is_up(reservation.slot) {
                    reservation.until = reservation.until.or(until);
                } else {
                    reservation.until = None;
                }
                reservation.until.is_none_or(|until| until > now)
            });
            let held = entry.holders.iter().any(|holder| counts(holder.worker));
            entry.lapsed = entry.reservations.is_empty() && !held;
        }
    }

    /// Returns the time at which the next reservation ends.
    pub(crate) fn deadline(&self) -> Option<Instant> {
        let reservations = self.entries.values().flat_map(|entry| &entry.reservations);
        reservations.filter_map(|reservation| reservation.until).min()
    }

    /// Drops the reservations of a slot that gets no other worker.
    pub(crate) fn drop_reservation(&mut self, slot: SlotId) {
        self.entries
            .values_mut()
            .for_each(|entry| entry.reservations.retain(|reservation| reservation.slot != slot));
    }

    /// Returns the keys that the slot has reserved.
    pub(crate) fn reserved_by(&self, slot: SlotId) -> Vec<Key> {
        let reserved =
            |entry: &Entry| entry.reservations.iter().any(|reservation| reservation.slot == slot);
        self.entries.iter().filter(|(_, entry)| reserved(entry)).map(|(key, _)| *key).collect()
    }

    /// Marks a key as being closed, after which no request shares it.
    pub(crate) fn unbind(&mut self, key: Key) {
        if let Some(entry) = self.entries.get_mut(&key) {
            if let EntryState::Bound(address) = &entry.state {
                entry.state = EntryState::Unbinding(address.clone());
            }
        }
    }

    /// Whether the address is being closed; it can be bound again after that.
    pub(crate) fn is_closing(&self, address: &Address) -> bool {
        self.entries.values().any(|entry| match &entry.state {
            EntryState::Unbinding(bound) => bound.collides(address),
            EntryState::Binding(_) | EntryState::Bound(_) => false,
        })
    }

    /// Takes the answer to `Unbind`.
    pub(crate) fn unbound(&mut self, key: Key) {
        if let Some(entry) = self.entries.get(&key) {
            for worker in entry.holders.iter().map(|holder| holder.worker).collect::<Vec<_>>() {
                self.release(worker, key);
            }
        }
        self.entries.remove(&key);
    }

    /// Returns the address of a key that is bound.
    pub(crate) fn address(&self, key: Key) -> Option<&Address> {
        match &self.entries.get(&key)?.state {
            EntryState::Bound(address) => Some(address),
            EntryState::Binding(_) | EntryState::Unbinding(_) => None,
        }
    }

    /// Returns the data for all workers that share the key.
    pub(crate) fn data(&self, key: Key) -> Option<&[u8]> {
        self.entries.get(&key)?.data.as_deref()
    }

    /// Returns the connection limit that the worker requested.
    pub(crate) fn open_max(&self, worker: WorkerId, key: Key) -> Option<u32> {
        let mut holders = self.entries.get(&key)?.holders.iter();
        holders.find(|holder| holder.worker == worker)?.open_max
    }

    /// Returns the address by which a key was requested.
    pub(crate) fn requested(&self, key: Key) -> Option<&Address> {
        self.entries.get(&key).map(|entry| &entry.requested)
    }

    pub(crate) fn holds(&self, worker: WorkerId, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.is_held_by(worker))
    }

    /// Whether the worker has received a listener of the key.
    pub(crate) fn listens(&self, worker: WorkerId, key: Key) -> bool {
        let listens = |holder: &Holder| holder.worker == worker && holder.listening;
        self.entries.get(&key).is_some_and(|entry| entry.holders.iter().any(listens))
    }

    /// Returns the rights with which the socket of a key is opened, if they are not the primary's.
    pub(crate) fn rights(&self, key: Key) -> Option<&Credentials> {
        self.entries.get(&key)?.rights.as_ref()
    }

    /// Returns the number of listeners that the worker has or waits for.
    pub(crate) fn holdings(&self, worker: WorkerId) -> usize {
        let holders = self.entries.values().flat_map(|entry| &entry.holders);
        holders.filter(|holder| holder.worker == worker).count()
    }

    pub(crate) fn held_by(&self, worker: WorkerId) -> Vec<Key> {
        let held = self.entries.iter().filter(|(_, entry)| entry.is_held_by(worker));
        held.map(|(key, _)| *key).collect()
    }

    /// Returns the bound keys without a reservation and without a holder for which `counts` is
    /// true.
    pub(crate) fn unused(&self, counts: impl Fn(WorkerId) -> bool) -> Vec<Key> {
        let unused = |entry: &Entry| {
            matches!(entry.state, EntryState::Bound(_))
                && entry.reservations.is_empty()
                && !entry.holders.iter().any(|holder| counts(holder.worker))
        };
        self.entries.iter().filter(|(_, entry)| unused(entry)).map(|(key, _)| *key).collect()
    }

    /// Whether the last reservation of the key has lapsed, and no worker listens there.
    pub(crate) fn has_lapsed(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| entry.lapsed)
    }

    /// Returns the bound keys of an address, which may be named as it was requested.
    pub(crate) fn bound_at(&self, address: &Address) -> Vec<Key> {
        let at = |entry: &Entry| match &entry.state {
            EntryState::Bound(bound) => bound == address || entry.requested == *address,
            EntryState::Binding(_) | EntryState::Unbinding(_) => false,
        };
        self.entries.iter().filter(|(_, entry)| at(entry)).map(|(key, _)| *key).collect()
    }

    /// Whether no address is bound, being bound or being closed.
    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    fn next_index(&mut self, worker: WorkerId, address: &Address) -> u32 {
        let index = self.indexes.entry((worker, address.clone())).or_default();
        index.next += 1;
        index.held += 1;
        index.next - 1
    }

    fn index_back(&mut self, worker: WorkerId, address: &Address) {
        if let Some(index) = self.indexes.get_mut(&(worker, address.clone())) {
            index.held -= 1;
        }
    }
}

impl Entry {
    fn is(&self, address: &Address, index: u32, rights: &Option<Credentials>) -> bool {
        self.rights == *rights && self.is_at(address, index)
    }

    fn is_at(&self, address: &Address, index: u32) -> bool {
        match &self.state {
            EntryState::Unbinding(_) => false,
            EntryState::Bound(bound) if bound == address => true,
            EntryState::Bound(_) | EntryState::Binding(_) => {
                self.requested == *address && self.index == index
            }
        }
    }

    fn is_held_by(&self, worker: WorkerId) -> bool {
        self.holders.iter().any(|holder| holder.worker == worker)
    }
}

#[cfg(test)]
mod tests;
