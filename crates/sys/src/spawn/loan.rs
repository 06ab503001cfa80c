//! The memory that a child borrows until it has executed its program: the program for the child,
//! all data to which it leads, and the stack.
//!
//! Nothing of it belongs to the caller of a spawn, because a child whose end the kernel delays
//! borrows the memory for longer than the spawn lasts.

use std::cell::Cell;
use std::ffi::{CString, c_char, c_void};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use super::child::confinement::{Confinement, Groups};
use super::child::socket::SocketProgram;
use super::child::{Failure, Origin, Program, Target};
use super::engine::{SpawnError, errno_of, process_error};
use super::plan::{Plan, Source, Step};
use crate::capability::Capabilities;
use crate::rlimit::{self, Limit, Resource};
use crate::seccomp::Filter;

/// The memory of one child. Freed when it is dropped, so its owner drops it only when no child uses
/// it any more.
#[derive(Debug)]
pub(super) struct Loan {
    memory: *mut Memory,
    program: *mut Program<'static>,
    stack: Stack,
}

// SAFETY: the pointers are to allocations that the loan owns, and no thread has others to them.
unsafe impl Send for Loan {}

impl Loan {
    /// Prepares the memory for the child of `plan`.
    ///
    /// # Errors
    ///
    /// `ENOMEM` when there is none for the stack; `EMFILE` when no descriptor is left for the
    /// ruleset.
    pub(super) fn new(plan: &Plan<'_>) -> Result<Self, SpawnError> {
        let stack = Stack::new().map_err(|error| process_error("mmap", &error))?;
        let memory = Box::into_raw(Box::new(Memory::new(plan)?));
        // SAFETY: the allocation lives until the loan is dropped, and the program with it.
        let lent: &'static Memory = unsafe { &*memory };
        let program = Box::into_raw(Box::new(lent.program(plan)));
        Ok(Self { memory, program, stack })
    }

    /// Returns the argument of the child.
    pub(super) fn program(&self) -> *mut Program<'static> {
        self.program
    }

    pub(super) fn stack_top(&self) -> *mut c_void {
        self.stack.top()
    }

    /// Returns the first number above all descriptors of the child.
    pub(super) fn above(&self) -> RawFd {
        // SAFETY: the child does not write this field.
        unsafe { (*self.program).above }
    }

    /// Sets the pipe through which a child with a copy of this memory reports a failure. Only
    /// before there is a child.
    pub(super) fn set_report(&mut self, writer: RawFd) {
        // SAFETY: no child uses the program yet, and the loan is borrowed exclusively.
        unsafe { (*self.program).report = writer };
    }

    /// Sets the process that the child takes for its parent.
    #[cfg(test)]
    pub(super) fn set_parent(&mut self, pid: i32) {
        // SAFETY: as in `set_report`.
        unsafe { (*self.program).parent = pid };
    }

    /// Returns the word that is 1 while the child borrows the memory, and 0 afterwards.
    pub(super) fn borrowed(&self) -> &AtomicU32 {
        // SAFETY: the allocation lives as long as `self`; the field is atomic.
        unsafe { &(*self.program).borrowed }
    }

    /// Whether the kernel has reported that the child left the memory.
    pub(super) fn has_been_left(&self) -> bool {
        self.borrowed().load(Ordering::Acquire) == 0
    }

    /// Whether the child has begun in this memory and not in a copy of it.
    pub(super) fn was_entered(&self) -> bool {
        // SAFETY: a field of our own allocation.
        let entered = unsafe { &raw const (*self.program).entered };
        // SAFETY: as above; volatile, because the child writes it behind the compiler's back.
        unsafe { entered.read_volatile() }
    }

    /// Returns the failure of a child that has left the memory.
    pub(super) fn failure(&self) -> Option<Failure> {
        // SAFETY: a field of our own allocation.
        let failure = unsafe { &raw const (*self.program).failure };
        // SAFETY: as above; the child is gone, and volatile, because it wrote behind the compiler's
        // back.
        unsafe { failure.read_volatile() }
    }

    /// Returns the step that the child is at, or was at.
    pub(super) fn step(&self) -> Step {
        // SAFETY: the allocation lives as long as `self`; the field is atomic.
        let step = unsafe { &(*self.program).step };
        Step::of_code(step.load(Ordering::Relaxed))
    }

    /// Has the child begin no further step.
    pub(super) fn give_up(&self) {
        // SAFETY: the allocation lives as long as `self`; the field is atomic.
        let is_given_up: &AtomicBool = unsafe { &(*self.program).is_given_up };
        is_given_up.store(true, Ordering::Relaxed);
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        // SAFETY: made by `Box::into_raw` in `new`, and no child uses it any more.
        drop(unsafe { Box::from_raw(self.program) });
        // SAFETY: as above; the program, which led there, is gone.
        drop(unsafe { Box::from_raw(self.memory) });
    }
}

/// The child's stack, above a guard page that cannot be accessed.
#[derive(Debug)]
struct Stack {
    base: *mut c_void,
}

impl Stack {
    /// The child's program needs about one page; the records of `getdents64` need another.
    const BYTES: usize = 64 * 1024;
    /// The largest page size of the supported platforms.
    const GUARD_BYTES: usize = 64 * 1024;
    const ALL_BYTES: usize = Self::BYTES + Self::GUARD_BYTES;

    fn new() -> io::Result<Self> {
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
    const fn top(&self) -> *mut c_void {
        self.base.wrapping_byte_add(Self::ALL_BYTES)
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: our own mapping, which nothing uses any more.
        unsafe { libc::munmap(self.base, Self::ALL_BYTES) };
    }
}

/// Copies of C strings, one behind the other in one allocation.
#[derive(Debug)]
struct Text(Vec<u8>);

impl Text {
    fn with_room_for<'a>(strings: impl Iterator<Item = &'a CString>) -> Self {
        Self(Vec::with_capacity(strings.map(|string| string.as_bytes_with_nul().len()).sum()))
    }

    /// Appends a copy. It stays where it is, because there is room for all strings.
    fn add(&mut self, string: &CString) -> *const c_char {
        let (at, bytes) = (self.0.len(), string.as_bytes_with_nul());
        assert!(at + bytes.len() <= self.0.capacity(), "all strings were counted");
        self.0.extend_from_slice(bytes);
        self.0.as_ptr().wrapping_add(at).cast()
    }

    /// Appends copies of a list, and returns them in the form of `argv`: pointers, and a null at
    /// the end.
    fn add_all(&mut self, strings: &[CString]) -> Vec<*const c_char> {
        let mut pointers = Vec::with_capacity(strings.len() + 1);
        pointers.extend(strings.iter().map(|string| self.add(string)));
        pointers.push(ptr::null());
        pointers
    }
}

/// The memory to which the pointers of a [`Program`] lead.
#[derive(Debug)]
struct Memory {
    /// Owns the strings of the lists.
    _text: Text,
    candidates: Vec<*const c_char>,
    argv: Vec<*const c_char>,
    shell_argv: Vec<Cell<*const c_char>>,
    envp: Vec<*const c_char>,
    current_dir: *const c_char,
    targets: Vec<Cell<Target>>,
    limits: Vec<(Resource, libc::rlimit64)>,
    affinity: Vec<u64>,
    groups: Option<Vec<u32>>,
    filters: Vec<libc::sock_fprog>,
    /// Own the programs of `filters`.
    _filters: Vec<Filter>,
    /// The ruleset again, above the numbers of the child.
    landlock: Option<OwnedFd>,
    socket: Option<SocketProgram>,
}

impl Memory {
    fn new(plan: &Plan<'_>) -> Result<Self, SpawnError> {
        let attributes = &plan.attributes;
        let lists = plan.candidates.iter().chain(&plan.arguments).chain(&plan.environment);
        let mut text = Text::with_room_for(lists.chain(&plan.current_dir));
        let mut candidates = text.add_all(&plan.candidates);
        // The list has a length and no null.
        candidates.pop();
        let argv = text.add_all(&plan.arguments);
        let mut shell_argv = vec![c"/bin/sh".as_ptr(), ptr::null()];
        shell_argv.extend(argv.iter().skip(1));
        if plan.arguments.is_empty() {
            shell_argv.push(ptr::null());
        }
        let envp = text.add_all(&plan.environment);
        let current_dir = plan.current_dir.as_ref().map_or(ptr::null(), |path| text.add(path));
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
        let filters = attributes.filters.clone();
        Ok(Self {
            _text: text,
            candidates,
            argv,
            shell_argv: shell_argv.into_iter().map(Cell::new).collect(),
            envp,
            current_dir,
            targets,
            limits: limits.collect(),
            affinity: attributes.affinity.as_deref().map(processor_bits).unwrap_or_default(),
            groups: attributes.groups.clone(),
            filters: filters.iter().map(Filter::as_program).collect(),
            _filters: filters,
            landlock,
            socket: plan.socket.clone(),
        })
    }

    /// Returns the child's view of the plan, which leads into this memory.
    fn program(&'static self, plan: &Plan<'_>) -> Program<'static> {
        let attributes = &plan.attributes;
        let groups = match &self.groups {
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
            current_dir: self.current_dir,
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
            socket: self.socket.as_ref(),
            cgroup: number(plan.cgroup),
            default_signals: attributes.default_signals,
            mask: attributes.blocked_signals.iter().fold(0, bit),
            report: -1,
            entered: false,
            borrowed: AtomicU32::new(1),
            step: AtomicU32::new(Step::Process.code()),
            is_given_up: AtomicBool::new(false),
            failure: None,
        }
    }
}

/// Duplicates a descriptor to a number from `above` on, which no descriptor of the child takes.
pub(super) fn copy_above(fd: BorrowedFd<'_>, above: RawFd) -> io::Result<OwnedFd> {
    // SAFETY: integers only, on a descriptor that is open.
    let copy = unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_DUPFD_CLOEXEC, above) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Returns the first number above all descriptors of the child.
fn above(targets: &[Cell<Target>]) -> RawFd {
    let highest = targets.iter().map(|target| target.get().number).max().unwrap_or(2);
    highest.saturating_add(1)
}

/// Returns the number of a descriptor, or −1.
fn number(fd: Option<BorrowedFd<'_>>) -> RawFd {
    fd.map_or(-1, |fd| fd.as_raw_fd())
}

fn processor_bits(numbers: &[u32]) -> Vec<u64> {
    let words = numbers.iter().max().map_or(1, |highest| *highest as usize / 64 + 1);
    let mut bits = vec![0u64; words];
    for &number in numbers {
        bits[number as usize / 64] |= 1 << (number % 64);
    }
    bits
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
