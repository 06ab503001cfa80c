//! The protocol between a primary and a worker of this crate: messages, records and shared memory.

pub(crate) mod address;
pub(crate) mod client_hash;
pub(crate) mod hand_off_queue;
pub(crate) mod listen_options;
pub(crate) mod message;
pub(crate) mod own_restrictions;
pub(crate) mod queue_page;
pub(crate) mod record;
pub(crate) mod violation;
