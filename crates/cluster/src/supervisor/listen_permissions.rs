//! Listen requests of workers: whether the worker may listen there.
//!
//! Pure.

use crate::contract::ListenRefusal;
use crate::listen_rules::{
    Credentials, Decision, ListenFacts, ListenPermission, decide, may_name_descriptor, within,
};
use crate::protocol::address::Address;
use crate::protocol::listen_options::ListenOptions;
use sys::errno::{EACCES, ECANCELED, EMFILE};

use super::listen_requests::refuse;
use super::{ClientAffinity, Input, Mode, Output, Supervisor, WorkerId};

/// The number of descriptors of the primary that the restart of one worker needs.
const SLOT_DESCRIPTORS: u64 = 4;

/// A listen request that is not decided.
#[derive(Debug)]
pub(super) struct PendingListen {
    pub(super) address: Address,
    pub(super) options: ListenOptions,
    pub(super) facts: ListenFacts,
}

impl<H: ClientAffinity> Supervisor<H> {
    /// Takes a request to listen, and what the driver finds out about it.
    pub(super) fn request(&mut self, request: Input<H>, out: &mut Vec<Output<H>>) {
        match request {
            Input::ListenRequested { worker, request, address, options, facts } => {
                let listen_request = PendingListen { address, options, facts };
                self.listen_requested((worker, request), listen_request, out);
            }
            Input::Permission { worker, request, permission } => {
                self.permission((worker, request), permission, out);
            }
            Input::ForbiddenDescriptor { worker, request, address } => {
                forbid(worker, request, address, ListenRefusal::NotAllowed, out);
            }
            Input::NoSuchSocket { worker, request, address, errno } => {
                refuse(worker, request, address, errno, out);
            }
            _ => unreachable!("taken by the caller"),
        }
    }

    /// Decides whether the worker may listen on the address.
    fn listen_requested(
        &mut self,
        (worker, request): (WorkerId, u32),
        listen_request: PendingListen,
        out: &mut Vec<Output<H>>,
    ) {
        if !self.workers.contains_key(&worker) {
            return;
        }
        if self.mode != Mode::Running || !self.may_serve(worker) {
            return out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
        }
        let asking = self.asking.keys().filter(|(asker, _)| *asker == worker).count();
        let listeners = self.addresses.holdings(worker).saturating_add(asking);
        let PendingListen { address, facts, .. } = &listen_request;
        if listeners >= self.listens_max() {
            let refusal = ListenRefusal::TooMany(self.options.listens_max);
            return forbid(worker, request, address.clone(), refusal, out);
        }
        let (rules, asks) = (self.options.listen_rules.as_ref(), self.options.asks_permission);
        match decide(rules, asks, address, facts) {
            Decision::Permission(permission) => {
                self.permitted((worker, request), listen_request, permission, out);
            }
            Decision::Ask => {
                out.push(Output::AskPermission { worker, request, address: address.clone() });
                self.asking.insert((worker, request), listen_request);
            }
        }
    }

    /// Takes the answer of the user's function about a listen request.
    fn permission(
        &mut self,
        (worker, request): (WorkerId, u32),
        permission: ListenPermission,
        out: &mut Vec<Output<H>>,
    ) {
        let Some(listen_request) = self.asking.remove(&(worker, request)) else { return };
        if self.mode != Mode::Running || !self.may_serve(worker) {
            return out.push(Output::Grant { worker, request, result: Err(ECANCELED) });
        }
        let permission = within(permission, &listen_request.facts);
        self.permitted((worker, request), listen_request, permission, out);
    }

    fn permitted(
        &mut self,
        (worker, request): (WorkerId, u32),
        listen_request: PendingListen,
        permission: ListenPermission,
        out: &mut Vec<Output<H>>,
    ) {
        let PendingListen { address, options, facts } = listen_request;
        let rights = match permission {
            ListenPermission::Granted => None,
            ListenPermission::OwnRights => facts.credentials,
            ListenPermission::Refused => {
                return forbid(worker, request, address, ListenRefusal::NotAllowed, out);
            }
        };
        self.listen((worker, request), address, options, rights, out);
    }

    /// Whether a worker with these rights may name a descriptor of the primary that is no inherited
    /// socket.
    pub(crate) fn may_name_descriptor(&self, rights: Option<&Credentials>, number: i32) -> bool {
        may_name_descriptor(self.options.listen_rules.as_ref(), rights, number)
    }

    /// Returns the number of descriptors that listeners leave free, for restarts, of this many.
    pub(crate) fn descriptor_reserve(&self, descriptors: u64) -> u64 {
        let slots = self.slots.iter().filter(|slot_entry| slot_entry.wanted).count();
        let reserve = u64::try_from(slots).unwrap_or(u64::MAX).saturating_mul(SLOT_DESCRIPTORS);
        reserve.min(descriptors / 2)
    }

    pub(super) fn listens_max(&self) -> usize {
        usize::try_from(self.options.listens_max).unwrap_or(usize::MAX)
    }
}

/// Refuses a request that the worker may not make.
pub(super) fn forbid<H>(
    worker: WorkerId,
    request: u32,
    address: Address,
    refusal: ListenRefusal,
    out: &mut Vec<Output<H>>,
) {
    let errno = match refusal {
        ListenRefusal::NotAllowed => EACCES,
        ListenRefusal::TooMany(_) => EMFILE,
    };
    out.push(Output::ListenRefused { worker, address, refusal });
    out.push(Output::Grant { worker, request, result: Err(errno) });
}
