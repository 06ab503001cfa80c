//! The two directions of one socket, whichever endpoint drives them.

pub(crate) mod flusher;
pub(crate) mod inbox;
pub(crate) mod outbox;
pub(crate) mod outgoing;
pub(crate) mod socket_io;
