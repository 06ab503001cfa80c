//! The two directions of one socket, for every kind of endpoint.
//!
//! A sender turns a value into a frame ([`outgoing`]) in a queue ([`outbox`]). A receiver cuts
//! frames out of the bytes that arrived ([`inbox`]). [`socket_io`] makes the system calls, and
//! [`linger`] writes the queue of an endpoint that is gone.

pub(crate) mod inbox;
pub(crate) mod linger;
pub(crate) mod outbox;
pub(crate) mod outgoing;
pub(crate) mod socket_io;
