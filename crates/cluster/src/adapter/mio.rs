//! Listeners in a program's own mio poll.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use ::mio::event::Source;
use ::mio::unix::SourceFd;
use ::mio::{Interest, Registry, Token};

use crate::worker::listener::Listener;
use crate::worker::stream_types::Stream;

/// A listener as a source of mio's `Poll`.
///
/// When the listener is readable, call [`try_accept`](Listener::try_accept) until there is no
/// connection left. Deregister the listener before it is dropped: the primary keeps a copy of the
/// queue open, so closing does not remove the descriptor from the `Poll`.
impl<S: Stream> Source for Listener<S> {
    fn register(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).register(registry, token, interest)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        interest: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).reregister(registry, token, interest)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).deregister(registry)
    }
}
