//! Listeners in a program's own mio loop.

use std::io;
use std::os::fd::{AsFd, AsRawFd};

use ::mio::event::Source;
use ::mio::unix::SourceFd;
use ::mio::{Interest, Registry, Token};

use crate::worker::listener::Listener;
use crate::worker::stream::Stream;

/// Readable means: call [`try_accept`](Listener::try_accept) until it gives `None`. Deregister it
/// before it is dropped; the primary keeps a copy of its queue open.
impl<S: Stream> Source for Listener<S> {
    fn register(&mut self, registry: &Registry, token: Token, wanted: Interest) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).register(registry, token, wanted)
    }

    fn reregister(
        &mut self,
        registry: &Registry,
        token: Token,
        wanted: Interest,
    ) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).reregister(registry, token, wanted)
    }

    fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
        SourceFd(&self.as_fd().as_raw_fd()).deregister(registry)
    }
}
