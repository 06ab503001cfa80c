//! Sending to Node, from any thread.

use super::node_protocol::{framing, submit};
use crate::buffer_pool::FrameBuffer;
use crate::error::{Error, SendHandleError};
use crate::frame::Kind;
use crate::link::{Queue, Queued, Shared};
use crate::node::ack_window::{AttachedHandle, NodeFrame};
use crate::node::encode::{self, Origin};
use crate::node::handle_type::HandleType;
use crate::node::received_handle::handle_type;
use serde::Serialize;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::MutexGuard;

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
    Ok(enqueue(shared, queue, NodeFrame { frame, attached: None }))
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
    Ok(enqueue(shared, queue, NodeFrame { frame, attached }))
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
    let retry_copy = if kind == HandleType::Socket { handle.try_clone().ok() } else { None };
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
    let mut frame = FrameBuffer::take();
    let max = shared.options.frame_bytes_max;
    encode::encode(&mut frame, value, framing, handle, origin, max)?;
    Ok(frame)
}

/// Queues the frame and perhaps writes it.
///
/// Advises the sender to wait above the high-water mark, and from the second frame on that waits
/// for an acknowledgement, as Node does.
fn enqueue(shared: &Shared, mut queue: MutexGuard<'_, Queue>, frame: NodeFrame<OwnedFd>) -> Queued {
    submit(&mut queue, frame);
    let few =
        queue.waiting(shared) <= shared.options.high_water_bytes && queue.ack_window.held() < 2;
    let wake = if queue.outbox.is_empty() {
        // The frame is held. The loop sends it when the acknowledgement arrives.
        shared.flush_at_exit(&mut queue);
        false
    } else {
        shared.write_or_wake(&mut queue)
    };
    drop(queue);
    if wake {
        shared.wake();
    }
    Queued::new(few)
}
