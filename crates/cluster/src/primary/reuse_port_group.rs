//! The sockets of one address under the policy `ReusePort`, and the slot that owns each.
//!
//! The group begins with one socket and without owners. The first request decides who owns that
//! socket: the slot of a worker that accepts, or no slot, for connections that the primary
//! dispatches to workers that do not accept. Each further owner gets a socket of its own, which
//! stays open for whichever worker fills the slot next.
//!
//! Pure.

use crate::contract::SlotId;
use crate::listen_rules::Credentials;

/// The sockets of one address, numbered from 0.
#[derive(Debug)]
pub(crate) struct ReusePortGroup {
    backlog: u32,
    /// The rights with which every socket is opened; `None` for those of the primary.
    rights: Option<Credentials>,
    /// The owner of each socket, by number; `None` for the socket that no slot owns.
    owners: Vec<Option<SlotId>>,
    /// The first socket has been assigned.
    is_first_assigned: bool,
}

impl ReusePortGroup {
    /// Creates a group of one socket that is not assigned yet.
    pub(crate) fn new(backlog: u32) -> Self {
        Self { backlog, rights: None, owners: vec![None], is_first_assigned: false }
    }

    /// Sets the rights with which every socket is opened.
    pub(crate) fn with_rights(self, rights: Credentials) -> Self {
        Self { rights: Some(rights), ..self }
    }

    /// Returns the rights with which every socket is opened, if they are not the primary's.
    pub(crate) fn rights(&self) -> Option<&Credentials> {
        self.rights.as_ref()
    }

    /// Returns the number of the socket that belongs to this slot, or to no slot. Assigns the
    /// first socket; `None` when a socket is to be opened and [added](Self::add).
    pub(crate) fn assign(&mut self, owner: Option<SlotId>) -> Option<u32> {
        if !std::mem::replace(&mut self.is_first_assigned, true) {
            self.owners[0] = owner;
        }
        self.number_of(owner)
    }

    /// Adds a socket for this owner and returns its number.
    pub(crate) fn add(&mut self, owner: Option<SlotId>) -> u32 {
        let number = u32::try_from(self.owners.len()).expect("slots are few");
        self.owners.push(owner);
        number
    }

    /// Returns the number of the socket that the slot owns.
    pub(crate) fn socket_of(&self, slot: SlotId) -> Option<u32> {
        self.number_of(Some(slot))
    }

    /// Returns the slot that owns a socket.
    pub(crate) fn owner_of(&self, number: u32) -> Option<SlotId> {
        *self.owners.get(usize::try_from(number).ok()?)?
    }

    /// Returns the backlog of every socket.
    pub(crate) fn backlog(&self) -> u32 {
        self.backlog
    }

    fn number_of(&self, owner: Option<SlotId>) -> Option<u32> {
        let at = self.owners.iter().position(|it| *it == owner)?;
        u32::try_from(at).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_has_one_socket_and_the_first_socket_goes_to_the_first_request() {
        let mut group = ReusePortGroup::new(511);
        assert_eq!((group.backlog(), group.socket_of(3), group.owner_of(0)), (511, None, None));
        assert_eq!(group.assign(Some(3)), Some(0));
        assert_eq!(group.assign(Some(5)), None, "to be opened");
        assert_eq!(group.assign(Some(5)), None, "it could not be opened: once more");
        assert_eq!(group.add(Some(5)), 1);
        assert_eq!(group.assign(None), None);
        assert_eq!(group.add(None), 2);
        for (owner, number) in [(Some(3), 0), (Some(5), 1), (None, 2)] {
            assert_eq!((group.assign(owner), group.owner_of(number)), (Some(number), owner));
        }
        assert_eq!(
            (group.socket_of(5), group.socket_of(9), group.owner_of(9)),
            (Some(1), None, None)
        );
    }

    #[test]
    fn the_first_socket_may_belong_to_no_slot() {
        let mut group = ReusePortGroup::new(1);
        assert_eq!((group.assign(None), group.assign(Some(0))), (Some(0), None));
        assert_eq!(group.owner_of(0), None);
    }
}
