//! The parent's side of a spawn: prepares the child's memory, blocks signals, reads the result.

use std::cell::Cell;
use std::error;
use std::ffi::{CString, c_char, c_void};
use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use super::child::confinement::{Confinement, Groups};
use super::child::{Failure, Origin, Program, Target};
use super::clone::clone;
use super::plan::{Plan, Source, Step};
use crate::capability::Capabilities;
use crate::pidfd::{self, PidFd};
use crate::rlimit::{self, Limit, Resource};
use crate::seccomp::Filter;
use crate::{dumpable, errno, poll};

/// A process that was started.
#[derive(Debug)]
pub struct Spawned {
    /// The process id, which means this process until it is reaped.
    pub pid: u32,
    /// The descriptor of the process.
    pub pidfd: PidFd,
}

/// The reason why no program was started. Nothing of the attempt is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpawnError {
    /// The step that failed.
    pub step: Step,
    /// The system call that failed, if the step has several.
    pub call: Option<&'static str>,
    /// The error number of the kernel, see [`crate::errno`].
    pub errno: i32,
}

pub(super) fn errno_of(error: &io::Error) -> i32 {
    error.raw_os_error().unwrap_or(libc::EIO)
}

impl fmt::Display for SpawnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.step)?;
        if let Some(call) = self.call {
            write!(f, "{call}: ")?;
        }
        f.write_str(&errno::text(self.errno))
    }
}

impl error::Error for SpawnError {}

impl From<SpawnError> for io::Error {
    fn from(error: SpawnError) -> Self {
        Self::from_raw_os_error(error.errno)
    }
}

/// Starts the child that `plan` describes and returns when it has executed its program.
///
/// The calling thread sleeps meanwhile; the other threads run on. No memory is copied, so the cost
/// does not grow with the memory of this process. The kernel binds the child's parent-death signal,
/// if there is one, to the calling thread.
///
/// A program that is open for writing (`ETXTBSY`) is tried again for up to 127 ms.
///
/// If `SIGCHLD` is ignored, a kernel before 6.15 would forget how children ended. The disposition
/// is then set to default for the whole process.
///
/// # Errors
///
/// The step that failed and the reason. The child is gone and reaped then.
///
/// ```
/// use brood_sys::spawn::{Plan, spawn};
///
/// let child = spawn(&Plan::new(vec![c"/bin/true".into()], vec![c"true".into()]))?;
/// assert!(child.pidfd.wait()?.success());
/// # Ok::<(), std::io::Error>(())
/// ```
pub fn spawn(plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    for pause in BUSY_PAUSES_MS {
        match spawn_once(plan) {
            Err(error) if error.errno == libc::ETXTBSY => {
                thread::sleep(Duration::from_millis(pause));
            }
            result => return result,
        }
    }
    spawn_once(plan)
}

/// The pauses before a program that is open for writing is tried again. A program that this process
/// has just written is open in every child that another thread starts, until that child executes
/// its own program.
const BUSY_PAUSES_MS: [u64; 7] = [1, 2, 4, 8, 16, 32, 64];

fn spawn_once(plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    let memory = Memory::new(plan)?;
    let mut program = memory.program(plan);
    stop_ignoring_exits();
    if !plan.attributes.changes_credentials() {
        return clone(&mut program);
    }
    // A child that changes its credentials makes the kernel mark the memory it borrows from this
    // process as not dumpable, so that the new user cannot read it. Restoring the flag while
    // another such child still borrows the memory would open it to that child's user: one at a
    // time.
    let _alone = CREDENTIALS.lock().unwrap_or_else(PoisonError::into_inner);
    let before = dumpable::get();
    let watch = Watch::new(program.above).map_err(|error| SpawnError {
        step: Step::Process,
        call: Some("pipe2"),
        errno: errno_of(&error),
    })?;
    let spawned = clone(&mut program);
    watch.wait();
    if dumpable::get() != before {
        // Refused by a sandbox only, in which the flag stays as the kernel has set it.
        let _ = dumpable::set(before);
    }
    spawned
}

static CREDENTIALS: Mutex<()> = Mutex::new(());

/// Reports when a child has left the borrowed memory. `clone` returns a moment earlier, while the
/// kernel still counts the child as a user of the memory; close-on-exec descriptors are closed only
/// after that moment.
pub(super) struct Watch {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Watch {
    pub(super) fn new(above: i32) -> io::Result<Self> {
        let (reader, writer) = crate::pipe::pipe()?;
        let writer = copy_above(writer.as_fd(), above)?;
        Ok(Self { reader, writer })
    }

    /// Returns the number of the writing end, which the child of an emulator reports a failure to.
    pub(super) fn writer(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// Reads the failure of a child that has a copy of this memory; `None` once the child has
    /// executed its program.
    pub(super) fn read(self) -> Option<Failure> {
        drop(self.writer);
        let mut failure = MaybeUninit::<Failure>::uninit();
        let (buffer, bytes) = (failure.as_mut_ptr().cast::<c_void>(), size_of::<Failure>());
        // A child of another thread may hold a copy of the writing end until it executes.
        let ready = poll::readable(self.reader.as_fd(), Some(Duration::from_secs(10)));
        if !ready.unwrap_or(false) {
            return None;
        }
        // SAFETY: the buffer is ours and of that size. The pipe takes a few bytes at once.
        let count = unsafe { libc::read(self.reader.as_raw_fd(), buffer, bytes) };
        // SAFETY: the child runs this program and has written the bytes of a `Failure`.
        (count == bytes as isize).then(|| unsafe { failure.assume_init() })
    }

    fn wait(self) {
        drop(self.writer);
        // The end of the pipe comes within a moment, unless another thread forked meanwhile and its
        // child executes nothing: that process then holds the writing end as well. The wait is
        // therefore bounded.
        let _ = poll::readable(self.reader.as_fd(), Some(Duration::from_secs(1)));
    }
}

/// Duplicates a descriptor to a number from `above` on, which no descriptor of the child takes.
fn copy_above(fd: BorrowedFd<'_>, above: i32) -> io::Result<OwnedFd> {
    // SAFETY: integers only, on a descriptor that is open.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Blocks every signal, libc's own two included, and returns the previous mask.
pub(super) fn block_signals() -> u64 {
    let (all, mut before) = (u64::MAX, 0u64);
    set_mask(&all, &mut before);
    before
}

pub(super) fn restore_signals(before: u64) {
    set_mask(&before, ptr::null_mut());
}

fn set_mask(new: *const u64, old: *mut u64) {
    let how = libc::SIG_SETMASK;
    // SAFETY: eight bytes each, the size of the kernel's signal set, or null.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, size_of::<u64>()) };
}

/// Resets an ignored `SIGCHLD`: old kernels then reap children themselves and forget their status.
fn stop_ignoring_exits() {
    if pidfd::remembers_exit() {
        return;
    }
    let mut now = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: asks only; the structure has the right size.
    unsafe { libc::sigaction(libc::SIGCHLD, ptr::null(), now.as_mut_ptr()) };
    // SAFETY: zeroes are a valid `sigaction`, and the kernel wrote over them.
    let mut now = unsafe { now.assume_init() };
    if now.sa_sigaction == libc::SIG_IGN || now.sa_flags & libc::SA_NOCLDWAIT != 0 {
        now.sa_flags &= !libc::SA_NOCLDWAIT;
        if now.sa_sigaction == libc::SIG_IGN {
            now.sa_sigaction = libc::SIG_DFL;
        }
        // SAFETY: a whole structure, with a handler that was there or the default.
        unsafe { libc::sigaction(libc::SIGCHLD, &raw const now, ptr::null_mut()) };
    }
}

/// The child's stack, above a guard page that cannot be accessed.
pub(super) struct Stack {
    base: *mut c_void,
}

impl Stack {
    /// The child's program needs about one page; the records of `getdents64` need another.
    const BYTES: usize = 64 * 1024;
    /// The largest page size of the supported platforms.
    const GUARD_BYTES: usize = 64 * 1024;
    const ALL_BYTES: usize = Self::BYTES + Self::GUARD_BYTES;

    pub(super) fn new() -> io::Result<Self> {
        let kind = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        // SAFETY: a fresh mapping at a place the kernel chooses.
        let base =
            unsafe { libc::mmap(ptr::null_mut(), Self::ALL_BYTES, libc::PROT_NONE, kind, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let stack = Self { base };
        let usable = base.wrapping_byte_add(Self::GUARD_BYTES);
        // SAFETY: the upper part of the mapping just made.
        let answer =
            unsafe { libc::mprotect(usable, Self::BYTES, libc::PROT_READ | libc::PROT_WRITE) };
        if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(stack) }
    }

    /// Stacks grow down. The top is aligned to a page, more than any supported platform needs.
    pub(super) const fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(Self::ALL_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing uses any more.
        unsafe { libc::munmap(self.base, Self::ALL_BYTES) };
    }
}

/// The memory to which the pointers of a [`Program`] lead.
struct Memory {
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    shell_argv: Vec<Cell<*const c_char>>,
    envp: Vec<*const c_char>,
    targets: Vec<Cell<Target>>,
    limits: Vec<(Resource, libc::rlimit64)>,
    affinity: Vec<u64>,
    filters: Vec<libc::sock_fprog>,
    /// The ruleset again, above the numbers of the child.
    landlock: Option<OwnedFd>,
}

impl Memory {
    fn new(plan: &Plan<'_>) -> Result<Self, SpawnError> {
        let attributes = &plan.attributes;
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(pointers(&plan.arguments).into_iter().skip(1));
        if plan.arguments.is_empty() {
            shell_argv.push(ptr::null());
        }
        let sets_descriptors = attributes.limits.iter().any(|(r, _)| *r == Resource::Descriptors);
        let restored = if sets_descriptors { None } else { rlimit::descriptors_of_children() };
        let restored = restored.map(|limit| (Resource::Descriptors, limit));
        let limits = attributes.limits.iter().copied().chain(restored);
        let limits = limits.map(|(resource, Limit { soft, hard })| {
            (resource, libc::rlimit64 { rlim_cur: soft, rlim_max: hard })
        });
        let targets = targets(plan);
        let landlock = plan.landlock.map(|fd| copy_above(fd, above(&targets))).transpose();
        let landlock = landlock.map_err(|error| SpawnError {
            step: Step::Landlock,
            call: Some("fcntl"),
            errno: errno_of(&error),
        })?;
        Ok(Self {
            candidates: plan.candidates.iter().map(|path| path.as_ptr()).collect(),
            argv: pointers(&plan.arguments),
            shell_argv: shell_argv.into_iter().map(Cell::new).collect(),
            envp: pointers(&plan.environment),
            targets,
            limits: limits.collect(),
            affinity: attributes.affinity.as_deref().map(processor_bits).unwrap_or_default(),
            filters: attributes.filters.iter().map(Filter::as_program).collect(),
            landlock,
        })
    }

    /// Returns the child's view of the plan. Valid while `self` and `plan` are.
    fn program<'a>(&'a self, plan: &'a Plan<'_>) -> Program<'a> {
        let attributes = &plan.attributes;
        let groups = match &attributes.groups {
            Some(list) => Groups::Set(list),
            None if attributes.changes_credentials() => Groups::Clear,
            None => Groups::Keep,
        };
        let bit = |mask: u64, signal: &crate::signal::Signal| mask | 1 << (signal.number() - 1);
        Program {
            candidates: &self.candidates,
            argv: &self.argv,
            shell_argv: &self.shell_argv,
            envp: &self.envp,
            current_dir: plan.current_dir.as_ref().map_or(ptr::null(), |path| path.as_ptr()),
            targets: &self.targets,
            above: above(&self.targets),
            session: attributes.session,
            terminal: attributes.terminal.map_or(-1, |number| number as i32),
            process_group: attributes.process_group.map(|group| group as i32),
            umask: attributes.umask,
            limits: &self.limits,
            nice: attributes.nice,
            affinity: &self.affinity,
            confinement: Confinement {
                network_namespace: number(plan.network_namespace),
                mount_namespace: number(plan.mount_namespace),
                bounding: attributes.bounding.map(Capabilities::bits),
                groups,
                gid: attributes.gid,
                uid: attributes.uid,
                ambient: attributes.ambient.map(Capabilities::bits),
                no_new_privileges: attributes.no_new_privileges,
                landlock: number(self.landlock.as_ref().map(AsFd::as_fd)),
                filters: &self.filters,
            },
            parent: std::process::id() as i32,
            parent_death_signal: attributes.parent_death_signal.map(crate::signal::Signal::number),
            socket: plan.socket.as_ref(),
            cgroup: number(plan.cgroup),
            default_signals: attributes.default_signals,
            mask: attributes.blocked_signals.iter().fold(0, bit),
            report: -1,
            entered: false,
            failure: None,
        }
    }
}

/// Returns a list of C strings in the form of `argv`: pointers, and a null at the end.
fn pointers(strings: &[CString]) -> Vec<*const c_char> {
    strings.iter().map(|string| string.as_ptr()).chain([ptr::null()]).collect()
}

fn processor_bits(numbers: &[u32]) -> Vec<u64> {
    let words = numbers.iter().max().map_or(1, |highest| *highest as usize / 64 + 1);
    let mut bits = vec![0u64; words];
    for &number in numbers {
        bits[number as usize / 64] |= 1 << (number % 64);
    }
    bits
}

/// Returns the first number above all descriptors of the child.
fn above(targets: &[Cell<Target>]) -> i32 {
    let highest = targets.iter().map(|target| target.get().number).max().unwrap_or(2);
    highest.saturating_add(1)
}

/// Returns the number of a descriptor, or −1.
fn number(fd: Option<BorrowedFd<'_>>) -> RawFd {
    fd.map_or(-1, |fd| fd.as_raw_fd())
}

/// Returns the descriptors of the child, sorted by number; 0 to 2 are always among them.
fn targets(plan: &Plan<'_>) -> Vec<Cell<Target>> {
    let missing = (0..=2u32).filter(|n| plan.descriptors.iter().all(|d| d.number != *n));
    let inherited = missing.map(|number| (number, Source::Inherit(number)));
    let asked = plan.descriptors.iter().map(|d| (d.number, d.source));
    let mut targets: Vec<Target> = inherited
        .chain(asked)
        .map(|(number, source)| Target {
            number: number as i32,
            origin: match source {
                Source::Fd(fd) => Origin::Fd(fd.as_raw_fd()),
                Source::Inherit(of) => Origin::Fd(of as i32),
                Source::Null => Origin::Null,
                Source::Closed => Origin::Closed,
            },
            or_null: matches!(source, Source::Inherit(0..=2)),
        })
        .collect();
    targets.sort_by_key(|target| target.number);
    targets.into_iter().map(Cell::new).collect()
}

#[cfg(test)]
mod tests;
