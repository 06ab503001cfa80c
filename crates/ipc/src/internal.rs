//! Plumbing for the crates above: channels to Node, and messages that users never see.
//!
//! The module is hidden from the documentation, and may change in any release.

pub use crate::error::copy_io_error;
use crate::error::{Error, SendHandleError};
use crate::frame::Kind;
pub use crate::link::InternalEvent as Event;
use crate::link::{Link, Queued};
use crate::options::Options;
use crate::received_message::Message;
use crate::serialization::Serialization;
use serde::Serialize;
use std::os::fd::OwnedFd;

/// Starts a link as [`Link::start_paused`] does; `sink` gets all events.
///
/// # Errors
///
/// As [`Link::start`].
pub fn start_paused(
    socket: OwnedFd,
    options: Options,
    sink: impl FnMut(Event) + Send + 'static,
) -> Result<Link, Error> {
    Link::begin(socket, options, Box::new(sink), false)
}

/// Starts a link to a Node peer, which does not read before [`Link::resume`].
///
/// Messages are JSON lines, or V8 values with [`Serialization::Advanced`]. See
/// [`node`](crate::node).
///
/// # Errors
///
/// As [`Link::start`], and [`Error::NotAChannel`] for a serialization that Node does not know.
pub fn start_node(
    socket: OwnedFd,
    options: Options,
    sink: impl FnMut(Event) + Send + 'static,
) -> Result<Link, Error> {
    Link::begin_node(socket, options, Box::new(sink))
}

/// Sends an internal message: one for the crate above on the other side, never shown to users.
///
/// Internal messages have extra room in the queue, so that messages of [`Link::send`] cannot crowd
/// them out.
///
/// # Errors
///
/// As [`Link::send`].
pub fn send_internal<T: Serialize + ?Sized>(link: &Link, value: &T) -> Result<Queued, Error> {
    link.send_kind(value, Kind::Internal)
}

/// Sends a received message on, as it arrived, to a peer with the same codec.
///
/// # Errors
///
/// As [`Link::send`]; [`Error::Encode`] for a message of another codec, and for one with handles.
pub fn forward(link: &Link, message: &Message) -> Result<Queued, Error> {
    link.forward(message)
}

/// Sends an internal message with one attached handle, as a raw handle of Node's cluster.
///
/// [`Event::Acknowledged`] with `ticket` reports the peer's acknowledgement.
///
/// # Errors
///
/// As [`Link::send_with_handle`].
pub fn send_internal_with_handle<T: Serialize + ?Sized>(
    link: &Link,
    value: &T,
    handle: impl Into<OwnedFd>,
    ticket: u64,
) -> Result<Queued, SendHandleError> {
    link.send_attached(value, handle.into(), Some(ticket))
}

/// Reports that the peer's process has exited, from a caller who knows.
///
/// After a [`Link::disconnect`], the channel then no longer waits for other processes that hold the
/// peer's socket. [`Event::PeerGone`] or [`Event::Disconnect`] follows.
pub fn peer_is_gone(link: &Link) {
    link.report_peer_gone();
}

/// Notes at once whether the peer has closed its end: sends then fail, and what is queued is dropped.
/// Otherwise the loop notices it soon.
pub fn notice_hang_up(link: &Link) {
    link.notice_hang_up();
}

/// Returns whether the message arrived without its handles, because no descriptor was left. The
/// message can be decoded afterwards.
pub fn take_handle_lost(message: &mut Message) -> bool {
    message.take_handle_lost()
}

/// Checks the options that a channel cannot have.
///
/// # Errors
///
/// [`Error::InvalidOption`].
pub fn check_options(options: &Options) -> Result<(), Error> {
    options.check()
}

/// Copies an error, for one more listener.
#[must_use]
pub fn copy_error(error: &Error) -> Error {
    error.copy()
}

/// Returns the codec of a channel with these options.
#[must_use]
pub fn serialization(options: &Options) -> Serialization {
    options.serialization
}

/// Joins a handle with the reason for which it was not sent.
#[must_use]
pub fn send_handle_error(handle: OwnedFd, error: Error) -> SendHandleError {
    SendHandleError { handle, error }
}

/// Returns the fingerprint that a frame with `value` carries, or 0 when the native codec cannot
/// write the value.
#[cfg(feature = "fuzzing")]
pub fn fingerprint<T: Serialize + ?Sized>(value: &T) -> u32 {
    crate::codec::fingerprint(value)
}
