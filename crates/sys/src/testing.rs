//! Sandboxes for tests: system calls that fail as a seccomp filter makes them fail.
//!
//! Only with the feature `testing`, which no other crate of the workspace enables. The filter is
//! permanent and goes over to every thread and process that is started later.

use std::io;

use crate::errno;

/// A system call, or one use of it, that a filter refuses.
#[derive(Clone, Copy, Debug)]
pub struct Refused {
    /// The name, as in `"waitid(P_PIDFD)"`.
    pub name: &'static str,
    number: libc::c_long,
    argument: Option<Argument>,
}

/// A condition on the lower half of the first argument.
#[derive(Clone, Copy, Debug)]
enum Argument {
    Is(u32),
    HasBits(u32),
}

const fn whole(name: &'static str, number: libc::c_long) -> Refused {
    Refused { name, number, argument: None }
}

const fn part(name: &'static str, number: libc::c_long, argument: Argument) -> Refused {
    Refused { name, number, argument: Some(argument) }
}

/// The calls younger than Linux 2.6.22 that the library, its dependencies or libc make, by name.
pub const REFUSED: &[Refused] = &[
    whole("accept4", libc::SYS_accept4),
    part("clone(CLONE_PIDFD)", libc::SYS_clone, Argument::HasBits(libc::CLONE_PIDFD as u32)),
    whole("clone3", libc::SYS_clone3),
    whole("close_range", libc::SYS_close_range),
    whole("epoll_create1", libc::SYS_epoll_create1),
    whole("eventfd2", libc::SYS_eventfd2),
    whole("getrandom", libc::SYS_getrandom),
    whole("memfd_create", libc::SYS_memfd_create),
    whole("pidfd_open", libc::SYS_pidfd_open),
    whole("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    whole("pipe2", libc::SYS_pipe2),
    whole("ppoll", libc::SYS_ppoll),
    whole("prctl", libc::SYS_prctl),
    whole("prlimit64", libc::SYS_prlimit64),
    whole("statx", libc::SYS_statx),
    whole("waitid", libc::SYS_waitid),
    part("waitid(P_PIDFD)", libc::SYS_waitid, Argument::Is(libc::P_PIDFD)),
];

/// The call by which older programs send signals.
pub const KILL: Refused = whole("kill", libc::SYS_kill);

/// Makes these calls fail with `errno` in this thread, and in all threads and processes that it
/// starts. A process with other threads calls this too late.
///
/// # Errors
///
/// Those of `seccomp(2)`: `EINVAL` where the kernel has no filters.
pub fn refuse(calls: &[Refused], errno: i32) -> io::Result<()> {
    let mut program = vec![load(OFFSET_OF_NUMBER)];
    for call in calls {
        let answer = statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ERRNO | errno as u32);
        match call.argument {
            None => program.extend([skip_unless(libc::BPF_JEQ, call.number as u32, 1), answer]),
            Some(argument) => {
                let (test, value) = match argument {
                    Argument::Is(value) => (libc::BPF_JEQ, value),
                    Argument::HasBits(bits) => (libc::BPF_JSET, bits),
                };
                program.extend([
                    skip_unless(libc::BPF_JEQ, call.number as u32, 4),
                    load(OFFSET_OF_FIRST_ARGUMENT),
                    skip_unless(test, value, 1),
                    answer,
                    load(OFFSET_OF_NUMBER),
                ]);
            }
        }
    }
    program.push(statement(libc::BPF_RET | libc::BPF_K, libc::SECCOMP_RET_ALLOW));
    install(&mut program)
}

/// Makes `SIGPIPE` end this process, as in a program that is not written in Rust.
pub fn reset_sigpipe() {
    // SAFETY: the default disposition runs no code of ours.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_DFL) };
}

/// Returns the number of an error by its name: `EPERM` or `ENOSYS`.
#[must_use]
pub fn errno_by_name(name: &str) -> Option<i32> {
    [errno::EPERM, errno::ENOSYS].into_iter().find(|number| errno::name(*number) == name)
}

/// The places in `struct seccomp_data`. The lower half of an argument comes first on the supported
/// platforms.
const OFFSET_OF_NUMBER: u32 = 0;
const OFFSET_OF_FIRST_ARGUMENT: u32 = 16;

fn load(offset: u32) -> libc::sock_filter {
    statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, offset)
}

fn statement(code: u32, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt: 0, jf: 0, k }
}

/// Skips the next `count` statements unless the test is true.
fn skip_unless(test: u32, k: u32, count: u8) -> libc::sock_filter {
    let code = (libc::BPF_JMP | test | libc::BPF_K) as u16;
    libc::sock_filter { code, jt: 0, jf: count, k }
}

fn install(program: &mut [libc::sock_filter]) -> io::Result<()> {
    // A process without privileges may install a filter only after this.
    // SAFETY: integers only.
    if unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) } < 0 {
        return Err(io::Error::last_os_error());
    }
    let program = libc::sock_fprog { len: program.len() as u16, filter: program.as_mut_ptr() };
    let (operation, flags) = (libc::SECCOMP_SET_MODE_FILTER, 0);
    // SAFETY: the program and its length belong together, and outlive the call.
    let answer =
        unsafe { libc::syscall(libc::SYS_seccomp, operation, flags, std::ptr::from_ref(&program)) };
    if answer < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}
