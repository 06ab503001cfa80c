//! Readiness: which descriptor belongs to which source, and waiting for news of any of them.
//!
//! The only file that speaks to mio's poll. mio wants descriptor numbers; they are kept here as
//! plain numbers for one purpose, to deregister what a removed source left registered, and are
//! used only while the table says that the number is still that source's.
//!
//! Every registration has a token that is never used again, so that news which epoll had already
//! collected for a descriptor that is gone find no receiver.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use mio::unix::SourceFd;
use mio::{Events, Poll, Token, Waker};

use crate::Interest;
use crate::source::{Event, Key};
use crate::wake::SourceId;

const WAKER: Token = Token(usize::MAX);
const EVENTS_PER_TURN: usize = 1024;

#[derive(Debug)]
pub(crate) struct Readiness {
    poll: Poll,
    events: Events,
    next: usize,
    entries: BTreeMap<Token, Entry>,
    tokens: BTreeMap<SourceId, Vec<Token>>,
    /// The registration that a descriptor number stands for now.
    owners: BTreeMap<i32, Token>,
}

#[derive(Debug)]
struct Entry {
    source: SourceId,
    key: Key,
    number: i32,
}

impl Readiness {
    pub(crate) fn new() -> io::Result<(Self, Waker)> {
        let poll = Poll::new()?;
        let waker = Waker::new(poll.registry(), WAKER)?;
        let readiness = Self {
            poll,
            events: Events::with_capacity(EVENTS_PER_TURN),
            next: 0,
            entries: BTreeMap::new(),
            tokens: BTreeMap::new(),
            owners: BTreeMap::new(),
        };
        Ok((readiness, waker))
    }

    /// Waits for news, and gives them to the sources that own the descriptors.
    pub(crate) fn wait(
        &mut self,
        timeout: Option<Duration>,
        news: &mut Vec<(SourceId, Event)>,
    ) -> io::Result<()> {
        match self.poll.poll(&mut self.events, timeout) {
            // A signal: as good as a wake-up without news.
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(()),
            result => result?,
        }
        for event in &self.events {
            let Some(entry) = self.entries.get(&event.token()) else { continue };
            let both = event.is_error();
            let readable = both || event.is_readable() || event.is_read_closed();
            let writable = both || event.is_writable() || event.is_write_closed();
            news.push((entry.source, Event::Ready { key: entry.key, readable, writable }));
        }
        Ok(())
    }

    pub(crate) fn register(
        &mut self,
        source: SourceId,
        fd: BorrowedFd<'_>,
        key: Key,
        interest: Interest,
    ) -> io::Result<()> {
        let number = fd.as_raw_fd();
        let token = Token(self.next);
        self.poll.registry().register(&mut SourceFd(&number), token, mio_interest(interest))?;
        self.next += 1;
        // Whoever had this number closed it without telling.
        if let Some(stale) = self.owners.insert(number, token) {
            self.forget(stale);
        }
        self.entries.insert(token, Entry { source, key, number });
        self.tokens.entry(source).or_default().push(token);
        Ok(())
    }

    pub(crate) fn reregister(
        &mut self,
        source: SourceId,
        fd: BorrowedFd<'_>,
        key: Key,
        interest: Interest,
    ) -> io::Result<()> {
        let (token, number) = self.owned(source, fd)?;
        self.poll.registry().reregister(&mut SourceFd(&number), token, mio_interest(interest))?;
        if let Some(entry) = self.entries.get_mut(&token) {
            entry.key = key;
        }
        Ok(())
    }

    pub(crate) fn deregister(&mut self, source: SourceId, fd: BorrowedFd<'_>) -> io::Result<()> {
        let (token, number) = self.owned(source, fd)?;
        self.owners.remove(&number);
        self.forget(token);
        self.poll.registry().deregister(&mut SourceFd(&number))
    }

    /// Deregisters whatever `source` still has. Closing is not enough: a descriptor that another
    /// process shares would stay in the epoll set.
    pub(crate) fn release(&mut self, source: SourceId) {
        for token in self.tokens.remove(&source).unwrap_or_default() {
            let Some(entry) = self.entries.remove(&token) else { continue };
            if self.owners.get(&entry.number) == Some(&token) {
                self.owners.remove(&entry.number);
                // Fails when the source has closed it: then there is nothing to do.
                let _ = self.poll.registry().deregister(&mut SourceFd(&entry.number));
            }
        }
    }

    /// Whether this descriptor, by number, is registered by this source.
    fn owned(&self, source: SourceId, fd: BorrowedFd<'_>) -> io::Result<(Token, i32)> {
        let number = fd.as_raw_fd();
        let token = self.owners.get(&number).copied();
        token
            .filter(|token| self.entries.get(token).is_some_and(|entry| entry.source == source))
            .map(|token| (token, number))
            .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "not registered here"))
    }

    fn forget(&mut self, token: Token) {
        let Some(entry) = self.entries.remove(&token) else { return };
        if let Some(tokens) = self.tokens.get_mut(&entry.source) {
            tokens.retain(|&kept| kept != token);
        }
    }
}

fn mio_interest(interest: Interest) -> mio::Interest {
    match (interest.is_readable(), interest.is_writable()) {
        (true, true) => mio::Interest::READABLE | mio::Interest::WRITABLE,
        (false, true) => mio::Interest::WRITABLE,
        (true, false) => mio::Interest::READABLE,
        // Nothing our kinds of descriptors ever have: what is left are hang-ups and errors.
        (false, false) => mio::Interest::PRIORITY,
    }
}
