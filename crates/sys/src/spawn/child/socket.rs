//! The other end of a child: it opens a socket with the rights that it has by now, sends the socket
//! to its parent, and exits. The rules of the parent module hold here as well.

use std::any::Any;
use std::ffi::{c_char, c_int, c_void};
use std::mem;
use std::os::fd::RawFd;
use std::ptr;
use std::sync::Arc;

use super::{Done, Failure, check, errno};
use crate::spawn::plan::Step;

/// The number of the child's descriptor to which it sends the socket.
pub(in crate::spawn) const REPLY: RawFd = 3;

/// The socket to open, in the form that the child needs. The parent reads nothing of it.
#[derive(Clone, Debug)]
pub struct SocketProgram {
    /// The folder of the socket's file; null for an address without a file.
    pub(in crate::spawn) folder: *const c_char,
    /// The name of the file in the folder; null for an address without a file.
    pub(in crate::spawn) name: *const c_char,
    pub(in crate::spawn) family: c_int,
    /// The type of the socket, with flags.
    pub(in crate::spawn) kind: c_int,
    /// Options as level, name and value: before the bind.
    pub(in crate::spawn) before: [Option<[c_int; 3]>; 4],
    /// An option after the socket listens.
    pub(in crate::spawn) after: Option<[c_int; 3]>,
    pub(in crate::spawn) address: *const libc::sockaddr,
    pub(in crate::spawn) address_bytes: libc::socklen_t,
    /// The bits of the file's mode that the mask of the process must not clear.
    pub(in crate::spawn) mode: libc::mode_t,
    /// The backlog of a socket that listens; −1 for one that does not.
    pub(in crate::spawn) backlog: c_int,
    /// Owns the memory behind the pointers, for as long as the child may read it.
    #[allow(dead_code, reason = "held until the child has left the memory")]
    pub(in crate::spawn) memory: Arc<dyn Any + Send + Sync>,
}

// SAFETY: the memory behind the pointers is only read, and lives as long as the program.
unsafe impl Send for SocketProgram {}
// SAFETY: as above.
unsafe impl Sync for SocketProgram {}

/// One control message with two descriptors.
#[repr(C)]
struct Rights {
    head: libc::cmsghdr,
    descriptors: [c_int; 2],
}

/// Opens the socket and sends it, with the folder of its file, to the parent.
pub(super) fn open_socket(program: &SocketProgram) -> Done {
    if !program.folder.is_null() {
        // The kernel checks the rights of the child, and resolves the path only here.
        // SAFETY: a C string that the parent keeps.
        socket_step(unsafe { libc::chdir(program.folder) })?;
    }
    // SAFETY: integers only.
    let socket = unsafe { libc::socket(program.family, program.kind, 0) };
    socket_step(socket)?;
    for option in program.before.iter().flatten() {
        set_option(socket, option)?;
    }
    // The file gets its mode when it is made. A change afterwards would look up the name again.
    // SAFETY: cannot fail; the mask is the child's own, `clone` was not given CLONE_FS.
    let mask = unsafe { libc::umask(0o777) };
    // SAFETY: as above.
    unsafe { libc::umask(mask & !program.mode) };
    bind(program, socket)?;
    if program.backlog >= 0 {
        // SAFETY: integers only.
        socket_step(unsafe { libc::listen(socket, program.backlog) })?;
    }
    if let Some(option) = &program.after {
        set_option(socket, option)?;
    }
    let folder = if program.folder.is_null() {
        -1
    } else {
        let flags = libc::O_PATH | libc::O_DIRECTORY | libc::O_CLOEXEC;
        // SAFETY: a C string.
        let folder = unsafe { libc::open(c".".as_ptr(), flags) };
        socket_step(folder)?;
        folder
    };
    send(socket, folder)
}

fn set_option(socket: RawFd, [level, name, value]: &[c_int; 3]) -> Done {
    let (pointer, bytes) = (ptr::from_ref(value).cast::<c_void>(), size_of::<c_int>());
    // SAFETY: the pointer leads to an integer, whose size is given.
    let answer =
        unsafe { libc::setsockopt(socket, *level, *name, pointer, bytes as libc::socklen_t) };
    socket_step(answer)
}

/// Binds the socket. A stale file of this user at its path is replaced.
fn bind(program: &SocketProgram, socket: RawFd) -> Done {
    // SAFETY: the address and its size are those that the parent keeps.
    let answer = unsafe { libc::bind(socket, program.address, program.address_bytes) };
    if answer >= 0 || errno() != libc::EADDRINUSE || program.name.is_null() {
        return socket_step(answer);
    }
    if !is_stale(program) {
        return Err(Failure { step: Step::Socket, errno: libc::EADDRINUSE });
    }
    // SAFETY: a C string that the parent keeps.
    socket_step(unsafe { libc::unlink(program.name) })?;
    // SAFETY: as above.
    socket_step(unsafe { libc::bind(socket, program.address, program.address_bytes) })
}

/// Whether the file is a socket of this user to which no process is bound.
fn is_stale(program: &SocketProgram) -> bool {
    // SAFETY: all zeroes is a valid `stat`, a struct of integers.
    let mut about: libc::stat = unsafe { mem::zeroed() };
    let flags = libc::AT_SYMLINK_NOFOLLOW;
    // SAFETY: a C string, and a structure to write to.
    let answer = unsafe { libc::fstatat(libc::AT_FDCWD, program.name, &raw mut about, flags) };
    // SAFETY: no arguments.
    let user = unsafe { libc::syscall(libc::SYS_geteuid) };
    let is_socket = about.st_mode & libc::S_IFMT == libc::S_IFSOCK;
    if answer < 0 || !is_socket || i64::from(about.st_uid) != user {
        return false;
    }
    let kinds = [libc::SOCK_STREAM, libc::SOCK_DGRAM, libc::SOCK_SEQPACKET];
    for kind in kinds {
        let kind = kind | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: integers only.
        let socket = unsafe { libc::socket(libc::AF_UNIX, kind, 0) };
        // SAFETY: the address and its size are those that the parent keeps.
        let answer = unsafe { libc::connect(socket, program.address, program.address_bytes) };
        let error = errno();
        // SAFETY: a descriptor of this child alone, or −1.
        unsafe { libc::close(socket) };
        // A socket of another kind may be bound to the file.
        if answer >= 0 || error != libc::EPROTOTYPE {
            return answer < 0 && error == libc::ECONNREFUSED;
        }
    }
    false
}

/// Sends the socket to the parent, and the folder unless it is −1.
fn send(socket: RawFd, folder: RawFd) -> Done {
    const ONE: u32 = size_of::<c_int>() as u32;
    const TWO: u32 = 2 * ONE;
    // SAFETY: arithmetic on integers only.
    let length = unsafe { libc::CMSG_LEN(if folder < 0 { ONE } else { TWO }) };
    // SAFETY: all zeroes is a valid `cmsghdr`, a struct of integers.
    let mut head: libc::cmsghdr = unsafe { mem::zeroed() };
    head.cmsg_len = length as _;
    head.cmsg_level = libc::SOL_SOCKET;
    head.cmsg_type = libc::SCM_RIGHTS;
    let mut rights = Rights { head, descriptors: [socket, folder] };
    let mut slice = libc::iovec { iov_base: c"s".as_ptr().cast_mut().cast(), iov_len: 1 };
    // SAFETY: all zeroes is a valid `msghdr`: null pointers with zero lengths.
    let mut message: libc::msghdr = unsafe { mem::zeroed() };
    message.msg_iov = &raw mut slice;
    message.msg_iovlen = 1;
    message.msg_control = (&raw mut rights).cast();
    message.msg_controllen = length as _;
    let flags = libc::MSG_NOSIGNAL | libc::MSG_DONTWAIT;
    // SAFETY: the header leads to one byte and to the control message on this stack.
    let sent = unsafe { libc::sendmsg(REPLY, &raw const message, flags) };
    check(Step::Socket, sent as i64)
}

fn socket_step(answer: c_int) -> Done {
    check(Step::Socket, i64::from(answer))
}

// `CMSG_DATA` lies directly behind the header.
const _: () = assert!(mem::offset_of!(Rights, descriptors) == size_of::<libc::cmsghdr>());
