//! Descriptors: their kinds, duplicates, close-on-exec.

use std::fs;
use std::io;
use std::mem;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use nix::sys::stat::{FileStat, SFlag};

/// The kind of object that a descriptor refers to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Kind {
    /// A listening TCP socket.
    TcpListener,
    /// A TCP socket that does not listen.
    TcpStream,
    /// A UDP socket.
    Udp,
    /// A listening Unix stream socket.
    UnixListener,
    /// A Unix stream socket that does not listen.
    UnixStream,
    /// A Unix datagram socket.
    UnixDatagram,
    /// A Unix packet socket.
    UnixSeqpacket,
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A pipe or named pipe.
    Pipe,
    /// Anonymous memory, as `memfd_create(2)` makes it.
    Memfd,
    /// A terminal or another character device.
    CharDevice,
    /// Anything else: epoll, eventfd, pidfd, a block device, …
    Other,
}

/// Opens the regular file at `path` for reading. The call never waits for another process, and the
/// file never becomes the controlling terminal.
///
/// # Errors
///
/// As `open(2)`; [`InvalidData`](io::ErrorKind::InvalidData) for a directory, a pipe, a device and
/// everything else that is no regular file.
pub fn open_regular(path: &Path) -> io::Result<fs::File> {
    // Without O_NONBLOCK the kernel would wait for a process that writes into a pipe.
    let flags = libc::O_NONBLOCK | libc::O_NOCTTY;
    let file = fs::OpenOptions::new().read(true).custom_flags(flags).open(path)?;
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    Ok(file)
}

/// Returns the kind of object that `fd` refers to.
///
/// # Errors
///
/// As `fstat(2)`.
pub fn kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    let stat = nix::sys::stat::fstat(fd)?;
    let bits = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
    Ok(match bits {
        SFlag::S_IFSOCK => socket_kind(fd)?,
        SFlag::S_IFREG if is_memfd(fd, &stat) => Kind::Memfd,
        SFlag::S_IFREG => Kind::File,
        SFlag::S_IFDIR => Kind::Directory,
        SFlag::S_IFIFO => Kind::Pipe,
        SFlag::S_IFCHR => Kind::CharDevice,
        _ => Kind::Other,
    })
}

fn socket_kind(fd: BorrowedFd<'_>) -> io::Result<Kind> {
    let family = int_option(fd, libc::SO_DOMAIN)?;
    let kind = int_option(fd, libc::SO_TYPE)?;
    let protocol = int_option(fd, libc::SO_PROTOCOL)?;
    let listens = int_option(fd, libc::SO_ACCEPTCONN)? != 0;
    Ok(match (family, kind) {
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if protocol != libc::IPPROTO_TCP => {
            Kind::Other
        }
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) if listens => Kind::TcpListener,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_STREAM) => Kind::TcpStream,
        (libc::AF_INET | libc::AF_INET6, libc::SOCK_DGRAM) if protocol == libc::IPPROTO_UDP => {
            Kind::Udp
        }
        (libc::AF_UNIX, libc::SOCK_STREAM) if listens => Kind::UnixListener,
        (libc::AF_UNIX, libc::SOCK_STREAM) => Kind::UnixStream,
        (libc::AF_UNIX, libc::SOCK_DGRAM) => Kind::UnixDatagram,
        (libc::AF_UNIX, libc::SOCK_SEQPACKET) => Kind::UnixSeqpacket,
        _ => Kind::Other,
    })
}

/// Returns whether `fd` is a memory file: it has seals and never had a name. A file of a tmpfs has
/// seals as well, but also a name until it is unlinked.
fn is_memfd(fd: BorrowedFd<'_>, stat: &FileStat) -> bool {
    // SAFETY: the call takes integers and touches no memory of ours.
    let seals = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GET_SEALS) };
    stat.st_nlink == 0 && seals >= 0
}

/// Returns the inode number of `fd`. Two descriptors of one socket have the same inode.
///
/// # Errors
///
/// As `fstat(2)`.
pub fn inode(fd: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(nix::sys::stat::fstat(fd)?.st_ino)
}

/// Returns whether descriptor `number` of this process is open and refers to `inode`.
///
/// A caller that has passed a descriptor on can check whether it is still open.
#[must_use]
pub fn leads_to(number: i32, inode: u64) -> bool {
    if number < 0 {
        return false;
    }
    // SAFETY: the borrow ends with the next line, and `fstat` on a closed number is an error only.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    self::inode(fd).ok() == Some(inode)
}

/// Sets or clears close-on-exec.
///
/// # Errors
///
/// As `fcntl(2)`.
pub fn set_close_on_exec(fd: BorrowedFd<'_>, on: bool) -> io::Result<()> {
    let flags = if on { libc::FD_CLOEXEC } else { 0 };
    // SAFETY: the call takes integers and touches no memory of ours.
    cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_SETFD, flags) })?;
    Ok(())
}

/// Returns whether `fd` is closed by `execve(2)`.
///
/// # Errors
///
/// As `fcntl(2)`.
pub fn is_close_on_exec(fd: BorrowedFd<'_>) -> io::Result<bool> {
    // SAFETY: the call takes integers and touches no memory of ours.
    let flags = cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_GETFD) })?;
    Ok(flags & libc::FD_CLOEXEC != 0)
}

/// Makes descriptor 2 a duplicate of `with`, which is then closed.
///
/// # Errors
///
/// As `dup2(2)`.
pub fn replace_stderr(with: OwnedFd) -> io::Result<()> {
    loop {
        // SAFETY: `with` is open; what was number 2 is closed in the same step, and std's stderr
        // knows the number only.
        match cvt(unsafe { libc::dup2(with.as_raw_fd(), libc::STDERR_FILENO) }) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            other => return other.map(drop),
        }
    }
}

/// Returns the numbers of all open descriptors of this process, sorted. For leak checks.
///
/// # Errors
///
/// The error of reading `/proc/self/fd`.
pub fn open_descriptors() -> io::Result<Vec<i32>> {
    let mut numbers = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")? {
        let entry = entry?;
        // The descriptor of this listing is the only one that refers to the directory itself.
        let itself = fs::read_link(entry.path())
            .is_ok_and(|to| to.ends_with("fd") && to.starts_with("/proc"));
        if let (false, Some(number)) = (itself, entry.file_name().to_str()) {
            numbers.extend(number.parse::<i32>());
        }
    }
    numbers.sort_unstable();
    Ok(numbers)
}

/// Takes ownership of descriptor `number`, which the parent left open for this process, if it
/// refers to `inode`.
///
/// The descriptor becomes close-on-exec. Each descriptor can be taken once.
///
/// # Errors
///
/// `EBADF` when `number` is closed, refers to another inode, is one of 0 to 2, or was taken before.
pub fn take_inherited(number: i32, inode: u64) -> io::Result<OwnedFd> {
    static TAKEN: Mutex<Vec<(i32, u64)>> = Mutex::new(Vec::new());
    let refused = || io::Error::from_raw_os_error(libc::EBADF);
    if number <= libc::STDERR_FILENO {
        return Err(refused());
    }
    let mut taken = TAKEN.lock().unwrap_or_else(PoisonError::into_inner);
    // SAFETY: the borrow ends with the next line, and `fstat` on a closed number is an error only.
    let fd = unsafe { BorrowedFd::borrow_raw(number) };
    if self::inode(fd).ok() != Some(inode) || taken.contains(&(number, inode)) {
        return Err(refused());
    }
    set_close_on_exec(fd, true)?;
    taken.push((number, inode));
    // SAFETY: the number was inherited for this purpose, as the parent's message about its inode
    // proves, so no value in this process owns it; the list makes sure that none will twice.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

/// Returns the number of `fd`, for interfaces that accept nothing else.
#[must_use]
pub fn number(fd: BorrowedFd<'_>) -> i32 {
    fd.as_raw_fd()
}

/// Moves a descriptor that the kernel has just made to a number above 2, if its number is lower.
///
/// A program that has closed its standard streams would otherwise print into it. It keeps its
/// number if no other one is left.
pub(crate) fn above_standard(fd: OwnedFd) -> OwnedFd {
    if fd.as_raw_fd() > libc::STDERR_FILENO {
        return fd;
    }
    // SAFETY: integers only, on a descriptor we own.
    match cvt(unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, 3) }) {
        // SAFETY: the kernel just made it for us.
        Ok(copy) => unsafe { OwnedFd::from_raw_fd(copy) },
        Err(_) => fd,
    }
}

/// Runs `make` while the numbers 0 to 2 are occupied: for objects whose descriptor cannot be
/// exchanged. Their numbers may be lower than 3 only if no other one is left.
pub fn with_standard_occupied<T>(make: impl FnOnce() -> T) -> T {
    let mut occupied: Vec<OwnedFd> = Vec::new();
    // SAFETY: integers only; a number that is closed answers EBADF.
    while (0..=2).any(|number| unsafe { libc::fcntl(number, libc::F_GETFD) } < 0) {
        // SAFETY: integers only.
        let Ok(filler) = cvt(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) }) else { break };
        // SAFETY: the kernel just made it for us.
        occupied.push(unsafe { OwnedFd::from_raw_fd(filler) });
        if filler > libc::STDERR_FILENO {
            break;
        }
    }
    let made = make();
    drop(occupied);
    made
}

/// Turns the kernel's `-1` into the error in `errno`.
pub(crate) fn cvt(answer: libc::c_int) -> io::Result<libc::c_int> {
    if answer == -1 { Err(io::Error::last_os_error()) } else { Ok(answer) }
}

/// Reads one integer option of level `SOL_SOCKET`.
pub(crate) fn int_option(fd: BorrowedFd<'_>, name: libc::c_int) -> io::Result<libc::c_int> {
    let mut value: libc::c_int = 0;
    let mut length = mem::size_of::<libc::c_int>() as libc::socklen_t;
    // SAFETY: the kernel writes at most `length` bytes, the size of `value`.
    cvt(unsafe {
        libc::getsockopt(
            fd.as_raw_fd(),
            libc::SOL_SOCKET,
            name,
            (&raw mut value).cast(),
            &raw mut length,
        )
    })?;
    Ok(value)
}

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::os::fd::AsFd;
    use std::os::unix::net::{UnixDatagram, UnixListener};

    use super::*;
    use crate::socket;

    #[test]
    fn every_kind_is_recognised() {
        let check = |fd: BorrowedFd<'_>, expected| assert_eq!(kind(fd).unwrap(), expected);
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        check(listener.as_fd(), Kind::TcpListener);
        check(stream.as_fd(), Kind::TcpStream);
        check(UdpSocket::bind("127.0.0.1:0").unwrap().as_fd(), Kind::Udp);
        let (a, _b) = socket::pair_stream().unwrap();
        check(a.as_fd(), Kind::UnixStream);
        let (a, _b) = socket::pair_seqpacket().unwrap();
        check(a.as_fd(), Kind::UnixSeqpacket);
        check(UnixDatagram::unbound().unwrap().as_fd(), Kind::UnixDatagram);
        let path = std::env::temp_dir().join(format!("brood-kind-{}", std::process::id()));
        let unix = UnixListener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        check(unix.as_fd(), Kind::UnixListener);
        let (read, _write) = std::io::pipe().unwrap();
        check(read.as_fd(), Kind::Pipe);
        check(fs::File::open(std::env::current_exe().unwrap()).unwrap().as_fd(), Kind::File);
        check(fs::File::open("/").unwrap().as_fd(), Kind::Directory);
        check(fs::File::open("/dev/null").unwrap().as_fd(), Kind::CharDevice);
        let memory = crate::memory::create("kind", 16).unwrap();
        check(memory.as_fd(), Kind::Memfd);
    }

    #[test]
    fn an_inode_names_the_object_and_not_the_descriptor() {
        let (a, b) = socket::pair_stream().unwrap();
        let copy = a.try_clone().unwrap();
        assert_eq!(inode(a.as_fd()).unwrap(), inode(copy.as_fd()).unwrap());
        assert_ne!(inode(a.as_fd()).unwrap(), inode(b.as_fd()).unwrap());
    }

    #[test]
    fn close_on_exec_is_set_and_cleared() {
        let (a, _b) = socket::pair_stream().unwrap();
        for on in [false, true] {
            set_close_on_exec(a.as_fd(), on).unwrap();
            assert_eq!(is_close_on_exec(a.as_fd()).unwrap(), on);
        }
    }

    #[test]
    fn open_descriptors_lists_what_is_open() {
        let (a, b) = socket::pair_stream().unwrap();
        let open = open_descriptors().unwrap();
        assert!(open.contains(&a.as_raw_fd()) && open.contains(&b.as_raw_fd()));
        assert!(open.is_sorted());
    }
}
