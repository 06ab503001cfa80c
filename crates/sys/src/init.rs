//! The init of a container: process 1 divided into an init and the program.
//!
//! The kernel gives process 1 of a pid namespace every process whose parent is gone, and sends it
//! no signal for which it has no handler. A program that runs as process 1 would have to wait for
//! children that it does not know, without a way to tell them from its own. [`divide`] forks: the
//! parent stays process 1 and does that work, the child is the program.

use std::ffi::{c_int, c_void};
use std::fs;
use std::io;
use std::mem::MaybeUninit;
use std::process;
use std::ptr;

/// The name that `ps` shows for the init.
const NAME: &std::ffi::CStr = c"brood-init";
/// The first descriptor that is no standard stream.
const FIRST_TO_CLOSE: c_int = 3;

/// Variables that name a process as the receiver of other variables.
const NAMES_OF_RECEIVERS: [&str; 2] = ["LISTEN_PID", "WATCHDOG_PID"];

/// Divides process 1 into an init and the program, and returns in the program. Returns at once in
/// any other process.
///
/// # Errors
///
/// `InvalidInput` when process 1 has several threads: only one of them would be in the program.
/// `EAGAIN` or `ENOMEM` when no process can be made. The process is unchanged then.
pub fn divide() -> io::Result<()> {
    if process::id() != 1 {
        return Ok(());
    }
    if !is_single_threaded() {
        let why = "process 1 has several threads; `init` must be the first call in `main`";
        return Err(io::Error::new(io::ErrorKind::InvalidInput, why));
    }
    // Blocked before the fork: a signal in between waits for the init, which passes it on.
    let mask = block(&every_signal());
    // An ignored SIGCHLD would make the kernel forget how the program ended.
    let disposition = set_disposition(&default_disposition());
    // SAFETY: this process has one thread, so the child has a whole copy of it.
    let program = unsafe { libc::fork() };
    if program > 0 {
        serve(program);
    }
    let error = io::Error::last_os_error();
    if program == 0 {
        lead_a_group();
        become_receiver();
    }
    set_disposition(&disposition);
    // SAFETY: the set was read from the kernel.
    unsafe { libc::sigprocmask(libc::SIG_SETMASK, &raw const mask, ptr::null_mut()) };
    if program < 0 { Err(error) } else { Ok(()) }
}

/// Returns whether this process has one thread only.
fn is_single_threaded() -> bool {
    if let Ok(tasks) = fs::read_dir("/proc/self/task") {
        return tasks.count() == 1;
    }
    // Without `/proc`: the call changes nothing, and the kernel refuses it to several threads.
    // SAFETY: integers only.
    let answer = unsafe { libc::unshare(libc::CLONE_THREAD) };
    answer == 0 || io::Error::last_os_error().raw_os_error() != Some(libc::EINVAL)
}

fn every_signal() -> libc::sigset_t {
    let mut all = MaybeUninit::uninit();
    // SAFETY: the set is ours.
    unsafe { libc::sigfillset(all.as_mut_ptr()) };
    // SAFETY: the call has written all of it.
    unsafe { all.assume_init() }
}

/// Blocks signals and returns the mask of before.
fn block(signals: &libc::sigset_t) -> libc::sigset_t {
    let mut before = MaybeUninit::uninit();
    // SAFETY: a whole set, and room for the old one.
    unsafe { libc::sigprocmask(libc::SIG_BLOCK, signals, before.as_mut_ptr()) };
    // SAFETY: the call cannot fail with these arguments, so it has written the set.
    unsafe { before.assume_init() }
}

fn default_disposition() -> libc::sigaction {
    // SAFETY: all zeroes is a valid `sigaction`: the default, without flags.
    unsafe { std::mem::zeroed() }
}

/// Sets the disposition of `SIGCHLD`, and returns the one of before.
fn set_disposition(new: &libc::sigaction) -> libc::sigaction {
    let mut before = MaybeUninit::zeroed();
    // SAFETY: two structures of ours.
    unsafe { libc::sigaction(libc::SIGCHLD, new, before.as_mut_ptr()) };
    // SAFETY: zeroes are valid, and the kernel wrote over them.
    unsafe { before.assume_init() }
}

/// Puts the program into a process group of its own, in the foreground of the terminal if process 1
/// was there. Ctrl-C then reaches the program once, and not by way of the init as well.
fn lead_a_group() {
    // SAFETY: no arguments.
    let before = unsafe { libc::getpgrp() };
    // SAFETY: integers only.
    unsafe { libc::setpgid(0, 0) };
    // SAFETY: a C string.
    let terminal = unsafe { libc::open(c"/dev/tty".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if terminal < 0 {
        return;
    }
    // SAFETY: integers only, on a descriptor of ours.
    if unsafe { libc::tcgetpgrp(terminal) } == before {
        // SAFETY: integers only. SIGTTOU, which the kernel would send, is blocked.
        unsafe { libc::tcsetpgrp(terminal, process::id() as libc::pid_t) };
    }
    // SAFETY: opened above, and nobody else knows the number.
    unsafe { libc::close(terminal) };
}

/// Names the program, in place of process 1, as the receiver of sockets and of a watchdog's period.
fn become_receiver() {
    for name in NAMES_OF_RECEIVERS {
        if std::env::var_os(name).is_some_and(|pid| pid == "1") {
            // SAFETY: this process has one thread, so nobody reads the environment meanwhile.
            unsafe { std::env::set_var(name, process::id().to_string()) };
        }
    }
}

/// Passes signals on to the program, reaps every child, and ends as the program ends.
fn serve(program: libc::pid_t) -> ! {
    release_resources();
    let all = every_signal();
    loop {
        // SAFETY: a whole set, and no information is asked for.
        let signal = unsafe { libc::sigwaitinfo(&raw const all, ptr::null_mut()) };
        if signal == libc::SIGCHLD {
            reap(program);
        } else if signal > 0 {
            // Not reaped yet, so the number means the program.
            // SAFETY: integers only.
            unsafe { libc::kill(program, signal) };
        }
    }
}

/// Reaps every child that has ended. Ends this process if the program is among them: with its exit
/// code, or with 128 and the number of the signal.
fn reap(program: libc::pid_t) {
    loop {
        let mut status: c_int = 0;
        // SAFETY: the status is ours.
        let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG | libc::__WALL) };
        if pid <= 0 {
            return;
        }
        if pid == program {
            let code = if libc::WIFEXITED(status) {
                libc::WEXITSTATUS(status)
            } else {
                128 + libc::WTERMSIG(status)
            };
            // SAFETY: ends the process; the hooks of a normal exit belong to the program.
            unsafe { libc::_exit(code) };
        }
    }
}

/// Closes all descriptors but the standard streams and leaves the working directory: a socket or a
/// pipe that the program closes must not stay open here. The standard streams stay, because other
/// processes of a container write its log through `/proc/1/fd/1` and `/proc/1/fd/2`.
fn release_resources() {
    // SAFETY: integers only. Nothing in this process uses a descriptor from now on.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, FIRST_TO_CLOSE, c_int::MAX, 0) };
    if answer < 0 {
        let limit = crate::rlimit::descriptors().map_or(1024, |(soft, _)| soft.min(65_536));
        for number in FIRST_TO_CLOSE..limit as c_int {
            // SAFETY: integers only, as above.
            unsafe { libc::close(number) };
        }
    }
    // SAFETY: a C string.
    unsafe { libc::chdir(c"/".as_ptr()) };
    let name = NAME.as_ptr().cast::<c_void>();
    // SAFETY: a C string.
    unsafe { libc::prctl(libc::PR_SET_NAME, name) };
}
