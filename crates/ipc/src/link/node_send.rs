//! Sending to Node, from any thread.

use super::node_protocol::{framing, submit};
use crate::buffer_pool::FrameBuffer;
use crate::codec::advanced::Value;
use crate::error::{Error, SendHandleError};
use crate::frame::Kind;
use crate::link::{Queue, Queued, Shared, Written};
use crate::node::ack_window::{AttachedHandle, NodeFrame};
use crate::node::decoder::Framing;
use crate::node::encode::{self, Origin};
use crate::node::handle_type::HandleType;
use crate::node::received_handle::handle_type;
use serde::Serialize;
use serde_json::value::RawValue;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::MutexGuard;
use std::sync::atomic::Ordering;

/// Sends a message without a handle.
pub(crate) fn send<T: Serialize + ?Sized>(
    shared: &Shared,
    value: &T,
    kind: Kind,
) -> Result<Queued, Error> {
    let origin = if kind == Kind::Internal { Origin::Internal } else { Origin::User };
    let frame = encode(shared, value, None, origin)?;
    // Encoding comes before the lock, so that a long value delays neither senders nor the loop.
    let queue = shared.open_queue(frame.len(), kind)?;
    enqueue(shared, queue, NodeFrame { frame, attached: None }).map_err(|(error, _)| error)
}

/// Sends a payload on that another peer has encoded with the same codec.
///
/// The payload is parsed: a Node process would not survive an invalid one.
pub(crate) fn forward(shared: &Shared, payload: &[u8]) -> Result<Queued, Error> {
    let invalid = |why: &dyn std::fmt::Display| Error::Decode(why.to_string());
    match framing(shared.options.serialization)? {
        Framing::Lines => {
            let value: &RawValue = serde_json::from_slice(payload).map_err(|why| invalid(&why))?;
            send(shared, value, Kind::Message)
        }
        Framing::Lengths => {
            let value = Value::from_bytes(payload).map_err(|why| invalid(&why))?;
            send(shared, &value, Kind::Message)
        }
    }
}

/// Sends a message with an attached handle; with a ticket, as an internal message.
pub(crate) fn send_with_handle<T: Serialize + ?Sized>(
    shared: &Shared,
    value: &T,
    handle: OwnedFd,
    ticket: Option<u64>,
) -> Result<Queued, SendHandleError> {
    let prepared = prepare(shared, value, &handle, ticket.is_some());
    let (frame, queue, retry_copy) = match prepared {
        Ok(prepared) => prepared,
        Err(error) => return Err(SendHandleError { handle, error }),
    };
    let attached = Some(AttachedHandle { handle, retry_copy, ticket });
    enqueue(shared, queue, NodeFrame { frame, attached }).map_err(|(error, handle)| {
        let handle = handle.expect("the queue has given back the handle of its last frame");
        SendHandleError { handle, error }
    })
}

type Prepared<'a> = (FrameBuffer, MutexGuard<'a, Queue>, Option<OwnedFd>);

fn prepare<'a, T: Serialize + ?Sized>(
    shared: &'a Shared,
    value: &T,
    handle: &OwnedFd,
    internal: bool,
) -> Result<Prepared<'a>, Error> {
    if !shared.is_node {
        return Err(Error::InvalidHandle("put a Handle inside the message"));
    }
    let kind = handle_type(handle, internal)?;
    let origin = if internal { Origin::Internal } else { Origin::User };
    let frame = encode(shared, value, Some(kind), origin)?;
    let queue =
        shared.open_queue(frame.len(), if internal { Kind::Internal } else { Kind::Message })?;
    // Only connections are sent again, which needs a second descriptor. Without one there is no
    // retry.
    let retry_copy =
        if matches!(kind, HandleType::Socket(_)) { handle.try_clone().ok() } else { None };
    // Node polls its sockets, and a blocking call would stop the whole process.
    sys::socket::set_nonblocking(handle.as_fd(), true)
        .map_err(|error| Error::Os("fcntl", error))?;
    Ok((frame, queue, retry_copy))
}

fn encode<T: Serialize + ?Sized>(
    shared: &Shared,
    value: &T,
    handle: Option<HandleType>,
    origin: Origin,
) -> Result<FrameBuffer, Error> {
    let framing = framing(shared.options.serialization)?;
    let is_bun = origin == Origin::Internal && framing == Framing::Lines;
    let is_bun = is_bun && shared.peer_is_bun.load(Ordering::Relaxed);
    let origin = if is_bun { Origin::InternalForBun } else { origin };
    let mut frame = FrameBuffer::take();
    let max = shared.options.frame_bytes_max.min(encode::PAYLOAD_BYTES_MAX);
    let features = shared.credit.features();
    encode::encode(&mut frame, value, framing, handle, origin, max, features)?;
    Ok(frame)
}

/// Queues the frame and perhaps writes it.
///
/// Advises the sender to wait above the high-water mark, and from the second frame on that waits
/// for an acknowledgement, as Node does.
///
/// # Errors
///
/// [`Error::Closed`] when the peer is gone, with the handle of the frame.
fn enqueue(
    shared: &Shared,
    mut queue: MutexGuard<'_, Queue>,
    frame: NodeFrame<OwnedFd>,
) -> Result<Queued, (Error, Option<OwnedFd>)> {
    let handles = usize::from(frame.attached.is_some());
    let queued = submit(&mut queue, frame);
    let few =
        queue.waiting(shared) <= shared.options.high_water_bytes && queue.ack_window.held() < 2;
    let written = if queued {
        shared.write_or_wake(&mut queue)
    } else {
        // The loop sends the frame when the acknowledgement arrives.
        shared.flush_at_exit(&mut queue);
        Written::ByLoop
    };
    let mut handle = None;
    if written == Written::PeerGone {
        handle = queue.outbox.reclaim_last(handles).pop();
    }
    drop(queue);
    match shared.after(written) {
        Ok(()) => Ok(Queued::new(few)),
        Err(error) => Err((error, handle)),
    }
}
