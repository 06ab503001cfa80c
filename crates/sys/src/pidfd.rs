//! Processes held by descriptor, to signal and await them without process id reuse.
//!
//! A [`PidFd`] becomes readable when its process has exited. [`PidFd::try_wait`] then reaps the
//! process and returns its status. The kernel gives the status once: the caller stores it for all
//! who need it.

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::sync::OnceLock;

use crate::errno;
use crate::fd::above_standard;
use crate::signal::Signal;

/// The way a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ExitStatus {
    /// The process exited with this code, 0 to 255.
    Code(i32),
    /// The process was killed by this signal.
    Signal(Signal),
    /// The process is gone and its status is lost: `SIGCHLD` was ignored or another caller has
    /// reaped it, on a kernel older than 6.15.
    Unknown,
}

impl ExitStatus {
    /// Returns whether the process exited with code 0.
    #[must_use]
    pub const fn success(self) -> bool {
        matches!(self, Self::Code(0))
    }

    /// Returns the exit code, if the process exited by itself.
    #[must_use]
    pub const fn code(self) -> Option<i32> {
        match self {
            Self::Code(code) => Some(code),
            Self::Signal(_) | Self::Unknown => None,
        }
    }

    /// Returns the signal that killed the process, if one did.
    #[must_use]
    pub const fn signal(self) -> Option<Signal> {
        match self {
            Self::Signal(signal) => Some(signal),
            Self::Code(_) | Self::Unknown => None,
        }
    }

    /// Decodes the status word of `wait(2)`.
    fn from_wait_status(status: i32) -> Self {
        if libc::WIFEXITED(status) {
            return Self::Code(libc::WEXITSTATUS(status));
        }
        Signal::from_number(libc::WTERMSIG(status)).map_or(Self::Unknown, Self::Signal)
    }
}

impl fmt::Display for ExitStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "code {code}"),
            Self::Signal(signal) => write!(f, "{signal}"),
            Self::Unknown => f.write_str("unknown"),
        }
    }
}

/// A process, held by a descriptor that can never refer to another process.
///
/// ```
/// use brood_sys::pidfd::PidFd;
/// let me = PidFd::open(std::process::id())?;
/// assert!(me.is_alive()?);
/// # Ok::<(), std::io::Error>(())
/// ```
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens the process `pid`.
    ///
    /// Opens the right process only while `pid` has not been reaped. See `pidfd_open(2)`.
    ///
    /// # Errors
    ///
    /// `ESRCH` when there is no such process, `EINVAL` for 0, `EMFILE` or `ENFILE` when no
    /// descriptor is left.
    pub fn open(pid: u32) -> io::Result<Self> {
        let Ok(pid) = libc::pid_t::try_from(pid) else {
            return Err(io::Error::from_raw_os_error(libc::ESRCH));
        };
        // SAFETY: the call takes two integers and touches no memory of ours.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, pid, 0) };
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the kernel just returned `fd`, so it is open and nothing else owns it.
        Ok(Self(above_standard(unsafe { OwnedFd::from_raw_fd(fd as i32) })))
    }

    /// Wraps a descriptor that is known to be a pidfd.
    #[must_use]
    pub const fn from_owned(fd: OwnedFd) -> Self {
        Self(fd)
    }

    /// Duplicates the descriptor.
    ///
    /// # Errors
    ///
    /// `EMFILE` when no descriptor is left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    /// Sends `signal`.
    ///
    /// # Errors
    ///
    /// `ESRCH` when the process has exited and is reaped, `EPERM` when it may not be signalled.
    pub fn send_signal(&self, signal: Signal) -> io::Result<()> {
        self.send_number(signal.number())
    }

    /// Sends `signal` as `sigqueue(3)` does, by which the process can tell it from one of `kill(2)`.
    ///
    /// # Errors
    ///
    /// As [`send_signal`](Self::send_signal); `EPERM` for another user's process even for root in
    /// some sandboxes.
    pub fn queue_signal(&self, signal: Signal) -> io::Result<()> {
        let info = QueuedInfo::new(signal);
        // SAFETY: the descriptor is open while we borrow it, and the call reads a `siginfo_t` that
        // lives until it returns.
        let answer = unsafe {
            libc::syscall(
                libc::SYS_pidfd_send_signal,
                self.0.as_raw_fd(),
                signal.number(),
                ptr::from_ref(&info),
                0,
            )
        };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Returns whether the process has not been reaped yet. A zombie counts as alive.
    ///
    /// # Errors
    ///
    /// The errors of `pidfd_send_signal(2)` with signal 0, other than `ESRCH` and `EPERM`.
    pub fn is_alive(&self) -> io::Result<bool> {
        match self.send_number(0) {
            Ok(()) => Ok(true),
            Err(error) => match error.raw_os_error() {
                Some(libc::ESRCH) => Ok(false),
                Some(libc::EPERM) => Ok(true),
                _ => Err(error),
            },
        }
    }

    fn send_number(&self, number: i32) -> io::Result<()> {
        let info = ptr::null::<libc::siginfo_t>();
        // SAFETY: the descriptor is open while we borrow it; no signal information is passed.
        let answer = unsafe {
            libc::syscall(libc::SYS_pidfd_send_signal, self.0.as_raw_fd(), number, info, 0)
        };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
    }

    /// Reaps the process if it has exited, and returns its status. Never waits.
    ///
    /// The pidfd of a traced process can be readable before this call sees the exit, because the
    /// tracer is notified first. After `None` the descriptor may not become readable once more.
    ///
    /// # Errors
    ///
    /// As `waitid(2)`, except `ECHILD`: the result is then [`ExitStatus::Unknown`], or the real
    /// status where the kernel keeps it (Linux 6.15).
    pub fn try_wait(&self) -> io::Result<Option<ExitStatus>> {
        self.waitid(libc::WEXITED | libc::WNOHANG)
    }

    /// Waits until the process has exited, reaps it and returns its status.
    ///
    /// # Errors
    ///
    /// As [`try_wait`](Self::try_wait).
    pub fn wait(&self) -> io::Result<ExitStatus> {
        loop {
            if let Some(status) = self.waitid(libc::WEXITED)? {
                return Ok(status);
            }
        }
    }

    /// Reaps the child `pid` of this process, which the descriptor refers to, as
    /// [`try_wait`](Self::try_wait) does. Where a sandbox refuses `waitid(P_PIDFD)`, the child is
    /// awaited by its process id.
    ///
    /// The caller must not have reaped the child, because `pid` may mean another process then.
    ///
    /// # Errors
    ///
    /// As [`try_wait`](Self::try_wait).
    pub fn try_wait_child(&self, pid: u32) -> io::Result<Option<ExitStatus>> {
        match self.try_wait() {
            Err(error) if errno::is_refusal(&error) => self.wait4(pid, libc::WNOHANG),
            answer => answer,
        }
    }

    /// Waits until the child `pid` of this process has exited, reaps it and returns its status. See
    /// [`try_wait_child`](Self::try_wait_child).
    ///
    /// # Errors
    ///
    /// As [`try_wait`](Self::try_wait).
    pub fn wait_child(&self, pid: u32) -> io::Result<ExitStatus> {
        match self.wait() {
            Err(error) if errno::is_refusal(&error) => loop {
                if let Some(status) = self.wait4(pid, 0)? {
                    return Ok(status);
                }
            },
            answer => answer,
        }
    }

    fn wait4(&self, pid: u32, options: i32) -> io::Result<Option<ExitStatus>> {
        let Ok(id) = libc::pid_t::try_from(pid) else {
            return Err(io::Error::from_raw_os_error(libc::ECHILD));
        };
        // Another caller may have reaped the child, and `id` may mean a younger child.
        if matches!(self.is_alive(), Ok(false)) {
            return Ok(self.status_of_the_reaped());
        }
        let mut status = 0;
        // SAFETY: `status` is writable; the call takes integers otherwise, and no usage is asked.
        let answer = unsafe { libc::wait4(id, &raw mut status, options, ptr::null_mut()) };
        if answer == 0 {
            return Ok(None);
        }
        if answer > 0 {
            return Ok(Some(ExitStatus::from_wait_status(status)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EINTR) => Ok(None),
            Some(libc::ECHILD) => Ok(self.status_of_the_reaped()),
            _ => Err(error),
        }
    }

    fn waitid(&self, options: i32) -> io::Result<Option<ExitStatus>> {
        let mut info = MaybeUninit::<libc::siginfo_t>::zeroed();
        let id = self.0.as_raw_fd() as libc::id_t;
        // SAFETY: `info` is writable memory of the right size; the descriptor is open.
        let answer = unsafe { libc::waitid(libc::P_PIDFD, id, info.as_mut_ptr(), options) };
        if answer < 0 {
            let error = io::Error::last_os_error();
            return match error.raw_os_error() {
                Some(libc::EINTR) => Ok(None),
                // Reaped before: by the kernel (SIGCHLD is ignored) or by another caller.
                Some(libc::ECHILD) => Ok(self.status_of_the_reaped()),
                _ => Err(error),
            };
        }
        // SAFETY: zeroes are a valid `siginfo_t`, and the kernel wrote over them or left them.
        let info = unsafe { info.assume_init() };
        // SAFETY: `waitid` fills the fields of SIGCHLD, or leaves zeroes where nobody has exited.
        if unsafe { info.si_pid() } == 0 {
            return Ok(None);
        }
        // SAFETY: as above.
        let status = unsafe { info.si_status() };
        Ok(Some(match info.si_code {
            libc::CLD_EXITED => ExitStatus::Code(status),
            _ => Signal::from_number(status).map_or(ExitStatus::Unknown, ExitStatus::Signal),
        }))
    }

    /// Returns the status that a pidfd keeps of a reaped process, since Linux 6.15. `None` while
    /// the process runs: it is no child of this process, so its end can be awaited, but not its
    /// status.
    fn status_of_the_reaped(&self) -> Option<ExitStatus> {
        let mut info = PidFdInfo { mask: INFO_EXIT, ..PidFdInfo::default() };
        // SAFETY: the kernel writes at most the 64 bytes whose size is in the request number.
        let answer =
            unsafe { libc::ioctl(self.0.as_raw_fd(), GET_INFO as _, ptr::from_mut(&mut info)) };
        if answer == 0 && info.mask & INFO_EXIT != 0 {
            return Some(ExitStatus::from_wait_status(info.exit_code));
        }
        let alive = self.is_alive().unwrap_or(false);
        (!alive).then_some(ExitStatus::Unknown)
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<PidFd> for OwnedFd {
    fn from(pidfd: PidFd) -> Self {
        pidfd.0
    }
}

/// The first published layout of `struct pidfd_info`, 64 bytes.
#[repr(C)]
#[derive(Default)]
struct PidFdInfo {
    mask: u64,
    cgroup: u64,
    ids: [u32; 11],
    exit_code: i32,
}

/// `PIDFD_GET_INFO`: `_IOWR(0xFF, 11, struct pidfd_info)` with the 64-byte layout.
const GET_INFO: u32 = 0xC040_FF0B;
/// `PIDFD_INFO_EXIT`.
const INFO_EXIT: u64 = 1 << 3;

/// Reaps the child `pid` if it has ended, and forgets its status. Does nothing otherwise.
pub fn reap(pid: u32) {
    let options = libc::WEXITED | libc::WNOHANG | libc::__WALL;
    // SAFETY: no information is asked for.
    unsafe { libc::waitid(libc::P_PID, pid, ptr::null_mut(), options) };
}

/// Returns whether a pidfd keeps the status of a process that another caller has reaped.
pub(crate) fn remembers_exit() -> bool {
    static ANSWER: OnceLock<bool> = OnceLock::new();
    *ANSWER.get_or_init(|| {
        let Ok(names) = nix::sys::utsname::uname() else { return false };
        let release = names.release().to_string_lossy();
        let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse::<u32>);
        let mut next = || numbers.next().and_then(Result::ok).unwrap_or(0);
        (next(), next()) >= (6, 15)
    })
}

/// A `siginfo_t` of a queued signal without a value. libc has no names for these fields.
#[repr(C, align(8))]
struct QueuedInfo {
    signo: i32,
    errno: i32,
    code: i32,
    pad: i32,
    pid: u32,
    uid: u32,
    value: usize,
    rest: [u8; 96],
}

const _: () = assert!(size_of::<QueuedInfo>() == size_of::<libc::siginfo_t>());

impl QueuedInfo {
    fn new(signal: Signal) -> Self {
        // SAFETY: the call touches no memory of ours.
        let uid = unsafe { libc::getuid() };
        let (signo, pid) = (signal.number(), std::process::id());
        Self { signo, errno: 0, code: libc::SI_QUEUE, pad: 0, pid, uid, value: 0, rest: [0; 96] }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::*;

    fn start(script: &str) -> (std::process::Child, PidFd) {
        let child = Command::new("/bin/sh").args(["-c", script]).spawn().unwrap();
        let pidfd = PidFd::open(child.id()).unwrap();
        (child, pidfd)
    }

    #[test]
    fn the_layout_is_that_of_the_kernel() {
        assert_eq!(size_of::<PidFdInfo>(), 64);
    }

    #[test]
    fn an_exit_code_is_returned_once() {
        let (_child, pidfd) = start("exit 7");
        assert_eq!(pidfd.wait().unwrap(), ExitStatus::Code(7));
        let again = pidfd.try_wait().unwrap();
        let known = if remembers_exit() { ExitStatus::Code(7) } else { ExitStatus::Unknown };
        assert_eq!(again, Some(known), "the second status is the one that the pidfd keeps");
        assert!(!pidfd.is_alive().unwrap());
    }

    #[test]
    fn a_signal_ends_a_process_and_is_named() {
        let (_child, pidfd) = start("exec sleep 60");
        assert_eq!(pidfd.try_wait().unwrap(), None);
        assert!(pidfd.is_alive().unwrap());
        pidfd.send_signal(Signal::KILL).unwrap();
        assert!(crate::poll::readable(pidfd.as_fd(), Some(Duration::from_secs(10))).unwrap());
        assert_eq!(pidfd.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
        let gone = pidfd.send_signal(Signal::KILL).unwrap_err();
        assert_eq!(gone.raw_os_error(), Some(libc::ESRCH));
    }

    #[test]
    fn a_pid_without_a_process_is_not_opened() {
        assert_eq!(PidFd::open(u32::MAX).unwrap_err().raw_os_error(), Some(libc::ESRCH));
        assert!(PidFd::open(0).is_err());
    }

    #[test]
    fn a_child_is_reaped_by_its_process_id_where_the_pidfd_is_refused() {
        let mut shell = Command::new("/bin/sh");
        let shell = shell.args(["-c", "read line; exit 7"]).stdin(std::process::Stdio::piped());
        let mut child = shell.spawn().unwrap();
        let (pid, pidfd) = (child.id(), PidFd::open(child.id()).unwrap());
        assert_eq!(pidfd.wait4(pid, libc::WNOHANG).unwrap(), None);
        drop(child.stdin.take());
        assert_eq!(pidfd.wait4(pid, 0).unwrap(), Some(ExitStatus::Code(7)));
        let known = if remembers_exit() { ExitStatus::Code(7) } else { ExitStatus::Unknown };
        assert_eq!(pidfd.wait4(pid, 0).unwrap(), Some(known), "it is reaped");
        // Fails, because it is reaped.
        let _ = child.wait();
    }

    #[test]
    fn statuses_print_in_words() {
        assert_eq!(ExitStatus::Code(3).to_string(), "code 3");
        assert_eq!(ExitStatus::Signal(Signal::KILL).to_string(), "SIGKILL");
        assert_eq!(ExitStatus::from_wait_status(0x0300), ExitStatus::Code(3));
        assert_eq!(ExitStatus::from_wait_status(9), ExitStatus::Signal(Signal::KILL));
    }
}
