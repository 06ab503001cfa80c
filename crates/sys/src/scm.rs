//! Messages that carry descriptors: `sendmsg(2)` and `recvmsg(2)` with owned descriptors.
//!
//! [`send`] lends descriptors to the kernel; [`recv`] and [`recv_append`] return owned ones.
//! Descriptors that the caller does not take are closed when [`Received`] drops, also when control
//! data was truncated.
//!
//! A read without room for descriptors opens none: the kernel drops them and reports it. A read with
//! room also has room for the sender's credentials and its pidfd, which the kernel adds on a socket
//! with `SO_PASSCRED` or `SO_PASSPIDFD`. Every control message is examined, and each descriptor that
//! the kernel opened has an owner. Descriptors beyond the caller's number, and the pidfd, are closed
//! at once.
//!
//! Received descriptors are close-on-exec from birth. No call sets `O_NONBLOCK`, and none raises
//! `SIGPIPE`. Limits: [`FDS_MAX`] descriptors per message, [`SLICES_MAX`] slices per send.

use std::io::{self, IoSlice};
use std::mem::{self, MaybeUninit};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

use crate::fd::above_standard;

/// The largest number of descriptors in one message, a limit of the kernel.
pub const FDS_MAX: usize = 253;

/// The largest number of slices in one call, a limit of the kernel (`UIO_MAXIOV`).
pub const SLICES_MAX: usize = 1024;

/// The options of [`recv`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RecvFlags {
    /// Returns `WouldBlock` instead of sleeping, whatever the mode of the descriptor.
    pub dont_wait: bool,
    /// Leaves the message in the queue. Its descriptors are duplicated.
    pub peek: bool,
}

/// The result of one `recvmsg(2)`.
#[derive(Debug, Default)]
pub struct Received {
    /// The number of bytes written to the buffer; 0 on a stream means that the peer closed it.
    pub bytes: usize,
    /// Whether descriptors were lost: more came than allowed, or this process can open no more.
    pub truncated: bool,
    /// Whether a packet was longer than the buffer (packet sockets only). Its rest is lost.
    pub payload_truncated: bool,
    /// The descriptors that arrived, in the order sent; closed with this value.
    pub fds: Vec<OwnedFd>,
}

/// Room for the control messages of one read, aligned as `cmsghdr` must be.
type Control = [MaybeUninit<u64>; CONTROL_WORDS];

const CONTROL_WORDS: usize = (OTHERS_BYTES + control_length(FDS_MAX)).div_ceil(8);

const EMPTY: Control = [MaybeUninit::uninit(); CONTROL_WORDS];

/// The room for the control messages that nobody asks for: `SCM_CREDENTIALS` and `SCM_PIDFD`.
const OTHERS_BYTES: usize =
    control_space(mem::size_of::<libc::ucred>()) + control_space(mem::size_of::<libc::c_int>());

/// The kind of control message that holds a pidfd of the sender, from Linux 6.5 on.
const SCM_PIDFD: libc::c_int = 4;

/// Sends without waiting, whatever the mode of the descriptor.
///
/// The descriptors travel with the first byte. On a stream the call may send fewer bytes than
/// offered: all descriptors are then sent, and only bytes remain.
///
/// # Errors
///
/// `WouldBlock` when the socket is full; `EPIPE` when the peer is gone; `ETOOMANYREFS` when this
/// user has too many descriptors in flight; `EINVAL` for more than [`FDS_MAX`] descriptors or for
/// descriptors without a byte.
pub fn send(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_with(socket, bytes, fds, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
}

/// Sends, and sleeps until the socket takes at least one byte, unless the descriptor itself is
/// non-blocking.
///
/// # Errors
///
/// As [`send`], without `WouldBlock` on a blocking descriptor.
pub fn send_blocking(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    fds: &[BorrowedFd<'_>],
) -> io::Result<usize> {
    send_with(socket, bytes, fds, libc::MSG_NOSIGNAL)
}

/// Sends descriptors that the caller owns and keeps, without a list of borrowed ones: as [`send`],
/// or with `wait` as [`send_blocking`].
///
/// # Errors
///
/// As [`send`] and [`send_blocking`].
pub fn send_owned(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    fds: &[OwnedFd],
    wait: bool,
) -> io::Result<usize> {
    let flags = if wait { 0 } else { libc::MSG_DONTWAIT };
    send_with(socket, bytes, fds, flags | libc::MSG_NOSIGNAL)
}

/// Receives into `buf`, with at most `fds_max` descriptors (and at most [`FDS_MAX`]).
///
/// # Errors
///
/// `WouldBlock` when nothing is there and the call must not wait; otherwise as `recvmsg(2)`. A
/// process that can open no more descriptors gets no error: see [`Received::truncated`].
pub fn recv(
    socket: BorrowedFd<'_>,
    buf: &mut [u8],
    fds_max: usize,
    flags: RecvFlags,
) -> io::Result<Received> {
    recv_raw(socket, buf.as_mut_ptr(), buf.len(), fds_max, flags)
}

/// Receives at most `bytes_max` bytes and appends them to `buf`.
///
/// The room is reserved but not zeroed, so a large read makes no extra pass over memory.
///
/// # Errors
///
/// As [`recv`]; `buf` is unchanged then.
pub fn recv_append(
    socket: BorrowedFd<'_>,
    buf: &mut Vec<u8>,
    bytes_max: usize,
    fds_max: usize,
    flags: RecvFlags,
) -> io::Result<Received> {
    buf.reserve(bytes_max);
    let room = buf.spare_capacity_mut();
    let received = recv_raw(socket, room.as_mut_ptr().cast(), bytes_max, fds_max, flags)?;
    let filled = buf.len() + received.bytes.min(bytes_max);
    // SAFETY: the capacity was reserved above, and the kernel wrote this many bytes behind the
    // old length (a packet that was cut counts only what was written, `MSG_TRUNC` is not asked).
    unsafe { buf.set_len(filled) };
    Ok(received)
}

fn send_with<F: AsFd>(
    socket: BorrowedFd<'_>,
    bytes: &[IoSlice<'_>],
    fds: &[F],
    flags: libc::c_int,
) -> io::Result<usize> {
    if fds.len() > FDS_MAX || (!fds.is_empty() && bytes.iter().all(|slice| slice.is_empty())) {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    if let ([slice], []) = (bytes, fds) {
        return send_plain(socket, slice, flags);
    }
    let mut control = EMPTY;
    let mut message = empty_message();
    message.msg_iov = bytes.as_ptr().cast_mut().cast();
    message.msg_iovlen = bytes.len().min(SLICES_MAX) as _;
    if !fds.is_empty() {
        write_rights(&mut control, &mut message, fds);
    }
    loop {
        // SAFETY: the header points at live slices (`IoSlice` has the layout of `iovec`) and at
        // the control block on this stack; the kernel only reads them.
        let sent = unsafe { libc::sendmsg(socket.as_raw_fd(), &message, flags) };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Sends bytes alone with `send(2)`, for which the kernel copies no message header.
fn send_plain(socket: BorrowedFd<'_>, bytes: &[u8], flags: libc::c_int) -> io::Result<usize> {
    loop {
        // SAFETY: the pointer and the length are those of a live slice, which the kernel reads.
        let sent =
            unsafe { libc::send(socket.as_raw_fd(), bytes.as_ptr().cast(), bytes.len(), flags) };
        if sent >= 0 {
            return Ok(sent as usize);
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    }
}

/// Fills `control` with one `SCM_RIGHTS` message of `fds` and attaches it to `message`.
fn write_rights<F: AsFd>(control: &mut Control, message: &mut libc::msghdr, fds: &[F]) {
    let length = control_length(fds.len());
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = length as _;
    // SAFETY: all zeroes is a valid `cmsghdr`, a struct of integers.
    let mut head: libc::cmsghdr = unsafe { mem::zeroed() };
    head.cmsg_len = length as _;
    head.cmsg_level = libc::SOL_SOCKET;
    head.cmsg_type = libc::SCM_RIGHTS;
    // SAFETY: the block is aligned for and far larger than one header.
    unsafe { control.as_mut_ptr().cast::<libc::cmsghdr>().write(head) };
    // SAFETY: the data of the first control message lies at this offset, inside the block.
    let data = unsafe { control.as_mut_ptr().cast::<u8>().add(control_length(0)) };
    for (index, fd) in fds.iter().enumerate() {
        // SAFETY: `FDS_MAX` numbers fit behind the header; the caller checked the count.
        let slot = unsafe { data.cast::<libc::c_int>().add(index) };
        // SAFETY: the slot is inside the block and aligned for an integer.
        unsafe { slot.write(fd.as_fd().as_raw_fd()) };
    }
}

#[allow(clippy::unnecessary_cast, reason = "the length is 32 bits wide on musl")]
fn recv_raw(
    socket: BorrowedFd<'_>,
    buf: *mut u8,
    length: usize,
    fds_max: usize,
    flags: RecvFlags,
) -> io::Result<Received> {
    let mut control = EMPTY;
    let mut slice = libc::iovec { iov_base: buf.cast(), iov_len: length };
    let mut message = empty_message();
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    let room = match fds_max.min(FDS_MAX) {
        0 => 0,
        fds => OTHERS_BYTES + control_length(fds),
    };
    let mut bits = libc::MSG_CMSG_CLOEXEC;
    if flags.dont_wait {
        bits |= libc::MSG_DONTWAIT;
    }
    if flags.peek {
        bits |= libc::MSG_PEEK;
    }
    let bytes = loop {
        message.msg_control = if room == 0 { ptr::null_mut() } else { control.as_mut_ptr().cast() };
        message.msg_controllen = room as _;
        // SAFETY: the callers pass a buffer that is valid for writes of `length` bytes, and the
        // control block on this stack is at least `room` bytes long.
        let got = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, bits) };
        if got >= 0 {
            break got as usize;
        }
        let error = io::Error::last_os_error();
        if error.kind() != io::ErrorKind::Interrupted {
            return Err(error);
        }
    };
    let mut fds = take_descriptors(&control, message.msg_controllen as usize);
    let too_many = fds.len() > fds_max;
    fds.truncate(fds_max);
    Ok(Received {
        bytes,
        truncated: too_many || message.msg_flags & libc::MSG_CTRUNC != 0,
        payload_truncated: message.msg_flags & libc::MSG_TRUNC != 0,
        fds,
    })
}

/// Takes ownership of every descriptor in the first `length` bytes of `control`, and returns those
/// that the sender passed.
///
/// A descriptor of any other control message is closed here.
#[allow(clippy::unnecessary_cast, reason = "the length is 32 bits wide on musl")]
fn take_descriptors(control: &Control, length: usize) -> Vec<OwnedFd> {
    let mut passed = Vec::new();
    let mut at = 0;
    while at + control_length(0) <= length {
        // SAFETY: a header at this offset lies inside the bytes that the kernel wrote.
        let start = unsafe { control.as_ptr().cast::<u8>().add(at) };
        // SAFETY: the offset is a multiple of the alignment of the block, and the kernel wrote a
        // header there.
        let head = unsafe { start.cast::<libc::cmsghdr>().read() };
        let announced = head.cmsg_len as usize;
        let bytes = announced.clamp(control_length(0), length - at);
        if head.cmsg_level == libc::SOL_SOCKET
            && matches!(head.cmsg_type, libc::SCM_RIGHTS | SCM_PIDFD)
        {
            // SAFETY: the data lies behind the header, inside the bytes that the kernel wrote.
            let data = unsafe { start.add(control_length(0)) };
            let opened = own_all(data.cast(), bytes - control_length(0));
            if head.cmsg_type == libc::SCM_RIGHTS {
                passed.extend(opened);
            }
        }
        at += control_space(bytes - control_length(0));
    }
    passed
}

/// Takes ownership of the descriptors whose numbers fill `length` bytes at `data`. In place of a pidfd
/// that it cannot open, the kernel writes the negative number of an error.
fn own_all(data: *const libc::c_int, length: usize) -> Vec<OwnedFd> {
    (0..length / mem::size_of::<libc::c_int>())
        .filter_map(|index| {
            // SAFETY: the index is below the count that the kernel wrote.
            let slot = unsafe { data.add(index) };
            // SAFETY: the kernel filled this slot, which is aligned for an integer.
            let number = unsafe { slot.read() };
            if number < 0 {
                return None;
            }
            // SAFETY: the kernel has just opened this descriptor for us and nobody else knows it.
            Some(above_standard(unsafe { OwnedFd::from_raw_fd(number) }))
        })
        .collect()
}

/// Returns the length of a control message with `bytes` bytes of data, and of the gap behind it.
const fn control_space(bytes: usize) -> usize {
    // SAFETY: arithmetic on integers only.
    unsafe { libc::CMSG_SPACE(bytes as u32) as usize }
}

/// Returns the exact length of a control message with `fds` descriptors.
const fn control_length(fds: usize) -> usize {
    // SAFETY: arithmetic on integers only.
    unsafe { libc::CMSG_LEN((fds * mem::size_of::<libc::c_int>()) as u32) as usize }
}

fn empty_message() -> libc::msghdr {
    // SAFETY: all zeroes is a valid `msghdr`: null pointers with zero lengths.
    unsafe { mem::zeroed() }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;
    use crate::{fd, socket};

    fn duplicates(count: usize, of: &OwnedFd) -> Vec<OwnedFd> {
        (0..count).map(|_| of.try_clone().unwrap()).collect()
    }

    fn borrow(fds: &[OwnedFd]) -> Vec<BorrowedFd<'_>> {
        fds.iter().map(AsFd::as_fd).collect()
    }

    #[test]
    fn bytes_and_descriptors_arrive_together_and_in_order() {
        let (a, b) = socket::pair_stream().unwrap();
        let (x, y) = socket::pair_seqpacket().unwrap();
        let inodes = [fd::inode(x.as_fd()).unwrap(), fd::inode(y.as_fd()).unwrap()];
        let parts = [IoSlice::new(b"he"), IoSlice::new(b"llo")];
        assert_eq!(send(a.as_fd(), &parts, &[x.as_fd(), y.as_fd()]).unwrap(), 5);
        let mut buf = [0; 16];
        let got = recv(b.as_fd(), &mut buf, 2, RecvFlags::default()).unwrap();
        assert_eq!(&buf[..got.bytes], b"hello");
        assert!(!got.truncated && !got.payload_truncated);
        let seen: Vec<u64> = got.fds.iter().map(|f| fd::inode(f.as_fd()).unwrap()).collect();
        assert_eq!(seen, inodes);
        for received in &got.fds {
            assert!(fd::is_close_on_exec(received.as_fd()).unwrap());
        }
    }

    #[test]
    fn the_kernel_limit_of_descriptors_goes_through_and_one_more_is_refused() {
        let (a, b) = socket::pair_stream().unwrap();
        let many = duplicates(FDS_MAX, &a);
        send(a.as_fd(), &[IoSlice::new(b"x")], &borrow(&many)).unwrap();
        let mut buf = [0; 1];
        let got = recv(b.as_fd(), &mut buf, FDS_MAX, RecvFlags::default()).unwrap();
        assert_eq!(got.fds.len(), FDS_MAX);
        let more = duplicates(FDS_MAX + 1, &a);
        let refused = send(a.as_fd(), &[IoSlice::new(b"x")], &borrow(&more)).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    }

    #[test]
    fn more_descriptors_than_asked_for_are_dropped_and_reported() {
        for (sent, asked) in [(2, 1), (1, 0), (4, 3), (253, 1)] {
            let (a, b) = socket::pair_stream().unwrap();
            let many = duplicates(sent, &a);
            send(a.as_fd(), &[IoSlice::new(b"x")], &borrow(&many)).unwrap();
            let mut buf = [0; 1];
            let got = recv(b.as_fd(), &mut buf, asked, RecvFlags::default()).unwrap();
            assert_eq!((got.bytes, got.fds.len(), got.truncated), (1, asked, true));
        }
    }

    #[test]
    fn the_error_in_place_of_a_pidfd_is_no_descriptor() {
        let errors = [-1, -libc::EMFILE];
        assert!(own_all(errors.as_ptr(), mem::size_of_val(&errors)).is_empty());
    }

    #[test]
    fn every_descriptor_has_an_owner_where_the_kernel_adds_the_sender() {
        const SO_PASSPIDFD: libc::c_int = 76;
        for (option, is_old) in [(libc::SO_PASSCRED, true), (SO_PASSPIDFD, false)] {
            let (a, b) = socket::pair_stream().unwrap();
            if let Err(error) = socket::set_int_option(b.as_fd(), option, 1) {
                assert!(!is_old, "{error}");
                continue;
            }
            for (asked, got) in [(FDS_MAX, 200), (200, 200), (199, 199), (1, 1), (0, 0)] {
                let (sent, other) = socket::pair_stream().unwrap();
                send(a.as_fd(), &[IoSlice::new(b"x")], &vec![sent.as_fd(); 200]).unwrap();
                drop(sent);
                let mut buf = [0; 1];
                let received = recv(b.as_fd(), &mut buf, asked, RecvFlags::default()).unwrap();
                assert_eq!((received.bytes, received.fds.len()), (1, got), "{option} {asked}");
                assert_eq!(received.truncated, asked < 200, "{option} {asked}");
                drop(received);
                // A copy that nobody owns would keep the connection open.
                let flags = RecvFlags { dont_wait: true, peek: false };
                let end = recv(other.as_fd(), &mut buf, 0, flags);
                assert_eq!(end.unwrap().bytes, 0, "{option} {asked}");
            }
        }
    }

    #[test]
    fn a_socket_that_refuses_credentials_gets_no_control_messages() {
        let (a, b) = socket::pair_stream().unwrap();
        socket::set_int_option(b.as_fd(), libc::SO_PASSCRED, 1).unwrap();
        let mut buf = [0; 1];
        for refused in [false, true] {
            if refused {
                socket::refuse_credentials(b.as_fd());
            }
            send(a.as_fd(), &[IoSlice::new(b"x")], &[]).unwrap();
            let got = recv(b.as_fd(), &mut buf, 0, RecvFlags::default()).unwrap();
            assert_eq!(got.truncated, !refused, "credentials that have no room are truncated");
        }
    }

    #[test]
    fn a_peek_consumes_neither_bytes_nor_descriptors() {
        let (a, b) = socket::pair_seqpacket().unwrap();
        send(a.as_fd(), &[IoSlice::new(b"abc")], &[a.as_fd()]).unwrap();
        let mut buf = [0; 8];
        for peek in [true, true, false] {
            let flags = RecvFlags { dont_wait: true, peek };
            let got = recv(b.as_fd(), &mut buf, 1, flags).unwrap();
            assert_eq!((got.bytes, got.fds.len()), (3, 1));
        }
        let flags = RecvFlags { dont_wait: true, peek: false };
        let empty = recv(b.as_fd(), &mut buf, 1, flags).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_truncated_packet_is_reported_and_appending_keeps_earlier_bytes() {
        let (a, b) = socket::pair_seqpacket().unwrap();
        send(a.as_fd(), &[IoSlice::new(b"abcdef")], &[]).unwrap();
        let mut buf = b"12".to_vec();
        let got = recv_append(b.as_fd(), &mut buf, 4, 0, RecvFlags::default()).unwrap();
        assert!(got.payload_truncated);
        assert_eq!(buf, b"12abcd");
    }

    #[test]
    fn a_full_socket_answers_would_block_and_a_closed_one_epipe() {
        let (a, b) = socket::pair_stream().unwrap();
        let block = vec![0; 1 << 16];
        let full = loop {
            match send(a.as_fd(), &[IoSlice::new(&block)], &[]) {
                Ok(_) => {}
                Err(error) => break error,
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
        drop(b);
        let gone = send(a.as_fd(), &[IoSlice::new(b"x")], &[]).unwrap_err();
        assert!(matches!(gone.raw_os_error(), Some(libc::EPIPE | libc::ECONNRESET)));
    }

    #[test]
    fn descriptors_without_a_byte_are_refused() {
        let (a, _b) = socket::pair_stream().unwrap();
        let refused = send(a.as_fd(), &[IoSlice::new(b"")], &[a.as_fd()]).unwrap_err();
        assert_eq!(refused.raw_os_error(), Some(libc::EINVAL));
    }
}
