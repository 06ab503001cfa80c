//! Readiness: the table of registered descriptors, and the wait for their events.
//!
//! This file is the only user of mio's poll. mio takes descriptor numbers. The table keeps them as
//! plain numbers for one purpose: to deregister the descriptors that a removed source left
//! registered. A number is used only while the table says that it still belongs to that source.
//!
//! Every registration has an id that is never reused. An event that epoll has already collected
//! for a deregistered descriptor therefore matches no registration and is dropped.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll, Waker};

use crate::Interest;
use crate::error::StartError;
use crate::event::{Event, SourceId, Token};

/// The name of a registration in mio. [`Token`] is the name that the source has given it.
type RegistrationId = mio::Token;

const WAKER: RegistrationId = mio::Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;

#[derive(Debug)]
pub(crate) struct Readiness {
    poll: Poll,
    events: Events,
    next_id: usize,
    registrations: BTreeMap<RegistrationId, Registration>,
    by_source: BTreeMap<SourceId, Vec<RegistrationId>>,
    /// The current registration of each descriptor number.
    by_number: BTreeMap<i32, RegistrationId>,
}

#[derive(Debug)]
struct Registration {
    source: SourceId,
    token: Token,
    number: i32,
}

impl Readiness {
    pub(crate) fn new() -> Result<(Self, Waker), StartError> {
        let (poll, waker) = sys::fd::with_standard_occupied(|| -> Result<_, StartError> {
            let poll = Poll::new().map_err(StartError::of("epoll_create1"))?;
            let waker = Waker::new(poll.registry(), WAKER).map_err(StartError::of("eventfd2"))?;
            Ok((poll, waker))
        })?;
        let readiness = Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            next_id: 0,
            registrations: BTreeMap::new(),
            by_source: BTreeMap::new(),
            by_number: BTreeMap::new(),
        };
        Ok((readiness, waker))
    }

    /// Waits for events, and adds them to `ready` with the source that owns the descriptor.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        ready: &mut Vec<(SourceId, Event)>,
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            // A signal interrupted the wait. The turn is then one without ready descriptors.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let Some(registration) = self.registrations.get(&event.token()) else { continue };
            let both = event.is_error();
            let readable = both || event.is_readable() || event.is_read_closed();
            let writable = both || event.is_writable() || event.is_write_closed();
            let event = Event::Ready { token: registration.token, readable, writable };
            ready.push((registration.source, event));
        }
        Ok(())
    }

    pub(crate) fn register(
        &mut self,
        source: SourceId,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let number = fd.as_raw_fd();
        let id = mio::Token(self.next_id);
        self.poll.registry().register(&mut SourceFd(&number), id, mio_interest(interest))?;
        self.next_id += 1;
        // The kernel accepted the number, so its previous owner has closed it without
        // deregistering it.
        if let Some(stale) = self.by_number.insert(number, id) {
            self.forget(stale);
        }
        self.registrations.insert(id, Registration { source, token, number });
        self.by_source.entry(source).or_default().push(id);
        Ok(())
    }

    pub(crate) fn reregister(
        &mut self,
        source: SourceId,
        fd: BorrowedFd<'_>,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        let (id, number) = self.find(source, fd)?;
        self.poll.registry().reregister(&mut SourceFd(&number), id, mio_interest(interest))?;
        if let Some(registration) = self.registrations.get_mut(&id) {
            registration.token = token;
        }
        Ok(())
    }

    pub(crate) fn deregister(&mut self, source: SourceId, fd: BorrowedFd<'_>) -> io::Result<()> {
        let (id, number) = self.find(source, fd)?;
        self.by_number.remove(&number);
        self.forget(id);
        self.poll.registry().deregister(&mut SourceFd(&number))
    }

    /// Deregisters every descriptor of `source`.
    ///
    /// Closing the descriptors is not enough: epoll watches the open file description, which stays
    /// in the set while another process or a clone keeps it open.
    pub(crate) fn release(&mut self, source: SourceId) {
        for id in self.by_source.remove(&source).unwrap_or_default() {
            let Some(registration) = self.registrations.remove(&id) else { continue };
            if self.by_number.get(&registration.number) == Some(&id) {
                self.by_number.remove(&registration.number);
                // The call fails when the source has closed the descriptor. Nothing is left to
                // deregister then.
                let _ = self.poll.registry().deregister(&mut SourceFd(&registration.number));
            }
        }
    }

    /// Finds the registration of `fd`, by its number, if `source` made it.
    fn find(&self, source: SourceId, fd: BorrowedFd<'_>) -> io::Result<(RegistrationId, i32)> {
        let number = fd.as_raw_fd();
        let is_of_source = |id: &RegistrationId| {
            self.registrations.get(id).is_some_and(|registration| registration.source == source)
        };
        let id = self.by_number.get(&number).copied().filter(is_of_source);
        id.map(|id| (id, number)).ok_or_else(|| {
            io::Error::new(io::ErrorKind::NotFound, "the source has not registered the descriptor")
        })
    }

    fn forget(&mut self, id: RegistrationId) {
        let Some(registration) = self.registrations.remove(&id) else { return };
        if let Some(ids) = self.by_source.get_mut(&registration.source) {
            ids.retain(|&kept| kept != id);
        }
    }
}

fn mio_interest(interest: Interest) -> mio::Interest {
    match (interest.is_readable(), interest.is_writable()) {
        (true, true) => mio::Interest::READABLE | mio::Interest::WRITABLE,
        (false, true) => mio::Interest::WRITABLE,
        (true, false) => mio::Interest::READABLE,
        // Only hang-ups and errors are wanted, which epoll always reports. mio has no empty
        // interest, and the descriptors used here never have priority data.
        (false, false) => mio::Interest::PRIORITY,
    }
}
