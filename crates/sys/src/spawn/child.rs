//! The program that runs in the child between `clone` and `execve`.
//!
//! The program borrows the parent's memory while the thread that spawned it waits and all other
//! threads run on. Only the operations of a signal handler are therefore allowed: system calls on
//! memory prepared for the program. The program must not allocate, lock, or panic: a panic would
//! unwind into the parent's memory.
//! The code has no indexing, no checked arithmetic, no `expect`, and drops nothing that is owned.
//!
//! Every signal is blocked until just before `execve`, when no handler of the parent is left.

pub(super) mod confinement;
pub(super) mod descriptors;
pub(super) mod socket;

use std::cell::Cell;
use std::ffi::{c_char, c_int, c_void};
use std::os::fd::RawFd;
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use self::confinement::{
    Confinement, change_credentials, enter_namespaces, forbid_new_privileges, give_up_capabilities,
    install_filters, restrict_self,
};
use self::descriptors::place_descriptors;
use super::plan::Step;
use crate::rlimit::Resource;

/// The origin of a descriptor of the child. Sources are raw numbers here; the
/// [`Plan`](super::Plan) keeps them open.
#[derive(Clone, Copy, Debug)]
pub(super) enum Origin {
    Fd(RawFd),
    Null,
    Closed,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Target {
    pub(super) number: RawFd,
    pub(super) origin: Origin,
    /// Whether `/dev/null` replaces an origin that is closed or close-on-exec: for inherited
    /// descriptors 0 to 2.
    pub(super) or_null: bool,
}

/// The plan in the form that the child needs. The engine owns the memory behind the pointers.
pub(super) struct Program<'a> {
    pub(super) candidates: &'a [*const c_char],
    /// Ends with null, as do `shell_argv` and `envp`.
    pub(super) argv: &'a [*const c_char],
    /// `/bin/sh`, a place for the script, and the arguments without the first.
    pub(super) shell_argv: &'a [Cell<*const c_char>],
    pub(super) envp: &'a [*const c_char],
    pub(super) current_dir: *const c_char,
    /// Sorted by number.
    pub(super) targets: &'a [Cell<Target>],
    /// The first number above all targets, at least 3.
    pub(super) above: RawFd,
    pub(super) session: bool,
    /// The number of the descriptor whose terminal the session gets; −1 for none.
    pub(super) terminal: RawFd,
    pub(super) process_group: Option<i32>,
    pub(super) umask: Option<u32>,
    pub(super) limits: &'a [(Resource, libc::rlimit64)],
    pub(super) nice: Option<i32>,
    /// One bit per processor; empty for the affinity of the parent.
    pub(super) affinity: &'a [u64],
    pub(super) confinement: Confinement<'a>,
    pub(super) parent: i32,
    pub(super) parent_death_signal: Option<i32>,
    /// The socket that the child opens instead of executing a program.
    pub(super) socket: Option<&'a socket::SocketProgram>,
    /// −1 for the control group of the parent.
    pub(super) cgroup: RawFd,
    pub(super) default_signals: bool,
    pub(super) mask: u64,
    /// The pipe through which a failure is reported where this memory is a copy; −1 for none.
    pub(super) report: RawFd,
    /// Whether the child has begun, which the parent sees only in memory that both share.
    pub(super) entered: bool,
    /// 1 until the kernel clears it, when the child has left the memory: `execve` or exit.
    pub(super) borrowed: AtomicU32,
    /// The step that the child is at, by its code.
    pub(super) step: AtomicU32,
    /// Whether the parent has given the child up, which then begins no further step.
    pub(super) is_given_up: AtomicBool,
    pub(super) failure: Option<Failure>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Failure {
    pub(super) step: Step,
    pub(super) errno: i32,
}

type Done = Result<(), Failure>;

/// The entry point given to `clone`. Returns after a failure, or when it has sent a socket; libc
/// then exits.
pub(super) extern "C" fn main(program: *mut c_void) -> c_int {
    let program = program.cast::<Program<'_>>();
    // SAFETY: the engine gave a pointer to its own `Program`, and stands still until we are done.
    let entered = unsafe { &raw mut (*program).entered };
    // SAFETY: nobody else touches the field; volatile, because the reader is another process in the
    // compiler's eyes.
    unsafe { entered.write_volatile(true) };
    // SAFETY: as above.
    let plan = unsafe { &*program };
    // Not a flag of `clone`, which musl refuses.
    // SAFETY: the word lives until the kernel has cleared it, or the child is gone.
    unsafe { libc::syscall(libc::SYS_set_tid_address, plan.borrowed.as_ptr()) };
    let done = prepare(plan).and_then(|()| match plan.socket {
        Some(order) => begin(plan, Step::Socket)
            .and_then(|()| give_up_capabilities(&plan.confinement))
            .and_then(|()| socket::open_socket(order)),
        None => Err(execute(plan)),
    });
    let Err(failure) = done else { return 0 };
    // SAFETY: as above; nobody else touches the field before the engine goes on.
    let slot = unsafe { &raw mut (*program).failure };
    // SAFETY: volatile, because the reader is another process in the compiler's eyes.
    unsafe { slot.write_volatile(Some(failure)) };
    if plan.report >= 0 {
        let bytes = ptr::from_ref(&failure).cast::<c_void>();
        // SAFETY: readable memory of this size. A failure could not be reported either.
        unsafe { libc::write(plan.report, bytes, size_of::<Failure>()) };
    }
    127
}

fn prepare(plan: &Program<'_>) -> Done {
    reset_signals(plan.default_signals);
    if plan.session {
        begin(plan, Step::Session)?;
        // SAFETY: no arguments.
        check(Step::Session, unsafe { libc::syscall(libc::SYS_setsid) })?;
    }
    if let Some(group) = plan.process_group {
        begin(plan, Step::ProcessGroup)?;
        // SAFETY: integers only.
        let answer = unsafe { libc::syscall(libc::SYS_setpgid, 0, group) };
        check(Step::ProcessGroup, answer)?;
    }
    if plan.cgroup >= 0 {
        begin(plan, Step::Cgroup)?;
        // SAFETY: one readable byte; the descriptor is kept open by the plan.
        let answer = unsafe { libc::write(plan.cgroup, c"0".as_ptr().cast(), 1) };
        check(Step::Cgroup, answer as i64)?;
    }
    begin(plan, Step::NetworkNamespace)?;
    enter_namespaces(&plan.confinement)?;
    schedule(plan)?;
    if let Some(umask) = plan.umask {
        // SAFETY: cannot fail; the mask is the child's own, `clone` was not given CLONE_FS.
        unsafe { libc::umask(umask as libc::mode_t) };
    }
    if !plan.current_dir.is_null() {
        begin(plan, Step::CurrentDir)?;
        // SAFETY: a C string the engine owns.
        check(Step::CurrentDir, i64::from(unsafe { libc::chdir(plan.current_dir) }))?;
    }
    place_descriptors(plan)?;
    if plan.terminal >= 0 {
        begin(plan, Step::Terminal)?;
        // The group of the session leader is then in the foreground.
        // SAFETY: integers only.
        let answer = unsafe { libc::ioctl(plan.terminal, libc::TIOCSCTTY as _, 0) };
        check(Step::Terminal, i64::from(answer))?;
    }
    // After the descriptors: a lower limit would forbid their numbers.
    for (resource, limit) in plan.limits {
        begin(plan, Step::Limit(*resource))?;
        let (new, old) = (ptr::from_ref(limit), ptr::null_mut::<libc::rlimit64>());
        // SAFETY: `new` is a limit, and there is no old one to write.
        let answer = unsafe { libc::syscall(libc::SYS_prlimit64, 0, resource.number(), new, old) };
        check(Step::Limit(*resource), answer)?;
    }
    begin(plan, Step::Uid)?;
    change_credentials(&plan.confinement)?;
    begin(plan, Step::NoNewPrivileges)?;
    forbid_new_privileges(&plan.confinement)?;
    set_parent_death_signal(plan)?;
    begin(plan, Step::Landlock)?;
    restrict_self(&plan.confinement)
}

/// Resets handlers, `SIGPIPE` and `SIGCHLD` to default. Other ignored signals stay ignored, as
/// `nohup` needs, unless `all` are reset. Raw calls, because libc refuses to change two numbers of its own, whose handlers
/// would run here as well.
fn reset_signals(all: bool) {
    const WORDS: usize = 4;
    const MASK_BYTES: usize = 8;
    let fresh = [0u64; WORDS];
    for number in 1..=64 {
        // `struct sigaction` of the kernel: handler, flags, restorer, mask.
        let mut old = [0u64; WORDS];
        let (none, out) = (ptr::null::<u64>(), ptr::from_mut(&mut old));
        // SAFETY: `old` has the size of the kernel's structure.
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, none, out, MASK_BYTES) };
        let [handler, ..] = old;
        let ignored = handler == libc::SIG_IGN as u64;
        let is_default = handler == libc::SIG_DFL as u64;
        let stays = !all && number != libc::SIGPIPE && number != libc::SIGCHLD;
        if is_default || ignored && stays {
            continue;
        }
        let (new, none) = (ptr::from_ref(&fresh), ptr::null_mut::<u64>());
        // SAFETY: `fresh` is a whole structure of zeroes, which means "default".
        unsafe { libc::syscall(libc::SYS_rt_sigaction, number, new, none, MASK_BYTES) };
    }
}

fn schedule(plan: &Program<'_>) -> Done {
    if !plan.affinity.is_empty() {
        begin(plan, Step::Affinity)?;
        let (bytes, bits) = (size_of_val(plan.affinity), plan.affinity.as_ptr());
        // SAFETY: `bits` leads to that many bytes.
        let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, bytes, bits) };
        check(Step::Affinity, answer)?;
    }
    if let Some(nice) = plan.nice {
        begin(plan, Step::Nice)?;
        // SAFETY: integers only.
        let answer = unsafe { libc::syscall(libc::SYS_setpriority, libc::PRIO_PROCESS, 0, nice) };
        check(Step::Nice, answer)?;
    }
    Ok(())
}

fn set_parent_death_signal(plan: &Program<'_>) -> Done {
    if let Some(signal) = plan.parent_death_signal {
        begin(plan, Step::ParentDeathSignal)?;
        // After the credentials, because their change resets it.
        // SAFETY: integers only.
        let answer = unsafe { libc::syscall(libc::SYS_prctl, libc::PR_SET_PDEATHSIG, signal) };
        check(Step::ParentDeathSignal, answer)?;
        // SAFETY: no arguments.
        let parent = unsafe { libc::syscall(libc::SYS_getppid) };
        // A parent outside of the child's process namespace has the number 0 there, before and
        // after its end.
        if parent != 0 && parent != libc::c_long::from(plan.parent) {
            return Err(Failure { step: Step::ParentDeathSignal, errno: libc::ESRCH });
        }
    }
    Ok(())
}

/// Executes the first candidate that works, as `execvp(3)` does. After a file that is missing or
/// not reachable the next candidate is tried; a permission error is reported only if no candidate
/// works; any other error ends the search.
fn execute(plan: &Program<'_>) -> Failure {
    let how = libc::SIG_SETMASK;
    let (mask, none) = (&raw const plan.mask, ptr::null_mut::<u64>());
    // SAFETY: eight bytes, the size of the kernel's signal set.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, mask, none, size_of::<u64>()) };
    // After that call, which a filter may refuse.
    if let Err(failure) = install_filters(&plan.confinement) {
        return failure;
    }
    let mut forbidden = false;
    let mut errno = libc::ENOENT;
    for &path in plan.candidates {
        if let Err(failure) = begin(plan, Step::Program) {
            return failure;
        }
        errno = execute_one(plan, path);
        match errno {
            libc::EACCES => forbidden = true,
            libc::ENOENT | libc::ENOTDIR | libc::ESTALE | libc::ENODEV | libc::ETIMEDOUT => {}
            _ => return Failure { step: Step::Program, errno },
        }
    }
    let errno = if forbidden { libc::EACCES } else { errno };
    Failure { step: Step::Program, errno }
}

fn execute_one(plan: &Program<'_>, path: *const c_char) -> i32 {
    let (argv, envp) = (plan.argv.as_ptr(), plan.envp.as_ptr());
    // SAFETY: a C string and two null-terminated lists of such.
    unsafe { libc::execve(path, argv, envp) };
    let error = errno();
    if error != libc::ENOEXEC {
        return error;
    }
    if let Some(script) = plan.shell_argv.get(1) {
        script.set(path);
    }
    let argv = plan.shell_argv.as_ptr().cast::<*const c_char>();
    // SAFETY: as for the first call.
    unsafe { libc::execve(c"/bin/sh".as_ptr(), argv, envp) };
    errno()
}

/// Records the step that comes next; an error if the parent has given the child up.
pub(super) fn begin(plan: &Program<'_>, step: Step) -> Done {
    plan.step.store(step.code(), Ordering::Relaxed);
    if plan.is_given_up.load(Ordering::Relaxed) {
        return Err(Failure { step, errno: libc::ETIMEDOUT });
    }
    Ok(())
}

fn check(step: Step, answer: i64) -> Done {
    if answer < 0 { Err(Failure { step, errno: errno() }) } else { Ok(()) }
}

/// Returns errno. The variable belongs to the spawning thread, which waits without libc, and does
/// not read it afterwards.
fn errno() -> i32 {
    // SAFETY: gives a valid pointer, always.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *place }
}

fn set_errno(errno: i32) {
    // SAFETY: gives a valid pointer, always.
    let place = unsafe { libc::__errno_location() };
    // SAFETY: as above.
    unsafe { *place = errno };
}
