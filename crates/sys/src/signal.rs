//! Signals: their names, sending them, and watching for them.
//!
//! [`Signal`] is a number with Node's name. [`SignalWatch`] reports signals through a descriptor.
//! [`release_held`] gives up the handlers that a worker of a cluster has from before `main` on.
//! [`without_sigpipe`] keeps a write to a pipe from ending this process.

mod handler;
mod held;
mod sigpipe;
mod watch;

use std::fmt;
use std::io;

pub(crate) use held::hold;
pub use held::release_held;
pub use sigpipe::without_sigpipe;
pub use watch::{Arrivals, REPEATS_MAX, SignalWatch, WATCHES_MAX};

/// The highest signal number of Linux on x86-64 and aarch64.
const NUMBER_MAX: usize = 64;

/// A signal: a number from 1 to 64, shown by its name.
///
/// ```
/// use brood_sys::signal::Signal;
/// assert_eq!(Signal::TERM.to_string(), "SIGTERM");
/// assert_eq!(Signal::from_name("SIGKILL"), Some(Signal::KILL));
/// assert_eq!(Signal::from_number(2), Some(Signal::INT));
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Signal(i32);

macro_rules! signals {
    ($($(#[$doc:meta])* $short:ident = $full:ident,)*) => {
        impl Signal {
            $($(#[$doc])* pub const $short: Self = Self(libc::$full);)*

            /// All named signals, by number.
            pub const ALL: &'static [Self] = &[$(Self::$short,)*];

            /// Returns the name with its `SIG`, as Node and `kill -l` write it. A real-time signal
            /// has no fixed name and is called `SIG34` and the like.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self.0 {
                    $(libc::$full => stringify!($full),)*
                    number => REAL_TIME[(number as usize).saturating_sub(32)],
                }
            }
        }
    };
}

signals! {
    /// The terminal has hung up; often a request to read the configuration again.
    HUP = SIGHUP,
    /// Ctrl-C.
    INT = SIGINT,
    /// Ctrl-\: ends the process with a core file.
    QUIT = SIGQUIT,
    /// An invalid instruction.
    ILL = SIGILL,
    /// A trace or break point.
    TRAP = SIGTRAP,
    /// `abort(3)`.
    ABRT = SIGABRT,
    /// An invalid access to memory, such as a misaligned one.
    BUS = SIGBUS,
    /// An arithmetic error.
    FPE = SIGFPE,
    /// Ends the process; cannot be caught.
    KILL = SIGKILL,
    /// Free for use by programs.
    USR1 = SIGUSR1,
    /// A reference to memory that is not mapped.
    SEGV = SIGSEGV,
    /// Free for use by programs.
    USR2 = SIGUSR2,
    /// A write to a pipe or socket without a reader.
    PIPE = SIGPIPE,
    /// `alarm(2)`.
    ALRM = SIGALRM,
    /// Asks the process to end.
    TERM = SIGTERM,
    /// Unused by the kernel.
    STKFLT = SIGSTKFLT,
    /// A child ended or stopped.
    CHLD = SIGCHLD,
    /// Continues the process after a stop.
    CONT = SIGCONT,
    /// Stops the process; cannot be caught.
    STOP = SIGSTOP,
    /// Ctrl-Z.
    TSTP = SIGTSTP,
    /// A background process reads from the terminal.
    TTIN = SIGTTIN,
    /// A background process writes to the terminal.
    TTOU = SIGTTOU,
    /// Urgent data on a socket.
    URG = SIGURG,
    /// Over the CPU time limit.
    XCPU = SIGXCPU,
    /// Over the file size limit.
    XFSZ = SIGXFSZ,
    /// The CPU time of an interval timer has passed.
    VTALRM = SIGVTALRM,
    /// A profiling timer has expired.
    PROF = SIGPROF,
    /// The size of the terminal has changed.
    WINCH = SIGWINCH,
    /// A descriptor is ready.
    IO = SIGIO,
    /// The power fails.
    PWR = SIGPWR,
    /// An invalid system call.
    SYS = SIGSYS,
}

/// Other names for the same numbers.
const ALIASES: [(&str, Signal); 4] = [
    ("SIGIOT", Signal::ABRT),
    ("SIGCLD", Signal::CHLD),
    ("SIGPOLL", Signal::IO),
    ("SIGUNUSED", Signal::SYS),
];

/// The names of the numbers from 32 on. libc reserves the first two or three, and how many depends
/// on the libc, so a name relative to `SIGRTMIN` would not always mean the same number.
const REAL_TIME: [&str; 33] = [
    "SIG32", "SIG33", "SIG34", "SIG35", "SIG36", "SIG37", "SIG38", "SIG39", "SIG40", "SIG41",
    "SIG42", "SIG43", "SIG44", "SIG45", "SIG46", "SIG47", "SIG48", "SIG49", "SIG50", "SIG51",
    "SIG52", "SIG53", "SIG54", "SIG55", "SIG56", "SIG57", "SIG58", "SIG59", "SIG60", "SIG61",
    "SIG62", "SIG63", "SIG64",
];

impl Signal {
    /// Returns the signal with this number, from 1 to 64.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        if number >= 1 && number <= NUMBER_MAX as i32 { Some(Self(number)) } else { None }
    }

    /// Returns the signal with this name, such as `SIGTERM`, in upper case. `SIGIOT`, `SIGCLD`,
    /// `SIGPOLL` and `SIGUNUSED` are second names of known numbers.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |&&signal: &&Self| signal.name() == name;
        let number = || Some(Self(32 + REAL_TIME.iter().position(|&n| n == name)? as i32));
        let alias = || Some(ALIASES.iter().find(|alias| alias.0 == name)?.1);
        Self::ALL.iter().find(named).copied().or_else(alias).or_else(number)
    }

    /// Returns the number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// Returns whether a handler for this signal would return into the instruction that raised it,
    /// for ever.
    fn is_fault(self) -> bool {
        [Self::SEGV, Self::BUS, Self::FPE, Self::ILL].contains(&self)
    }
}

impl fmt::Display for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl fmt::Debug for Signal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Sends `signal` to process `pid`.
///
/// Reaches the right process only while `pid` has not been reaped; prefer
/// [`PidFd::send_signal`](crate::pidfd::PidFd::send_signal).
///
/// # Errors
///
/// `ESRCH` when there is no such process, `EPERM` when it may not be signalled, `EINVAL` for pid 0.
pub fn kill(pid: u32, signal: Signal) -> io::Result<()> {
    kill_number(positive(pid)?, signal)
}

/// Sends `signal` to every process of the process group `group`.
///
/// # Errors
///
/// `ESRCH` when the group is empty, `EPERM` when no process of it may be signalled, `EINVAL` for
/// group 0 and for group 1 (the kernel would signal every process).
pub fn kill_group(group: u32, signal: Signal) -> io::Result<()> {
    let group = positive(group)?;
    if group == 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    kill_number(-group, signal)
}

/// Returns the process group of process `pid`, which may be a zombie.
///
/// # Errors
///
/// `ESRCH` when there is no such process, `EINVAL` for pid 0.
pub fn group_of(pid: u32) -> io::Result<u32> {
    let pid = nix::unistd::Pid::from_raw(positive(pid)?);
    Ok(nix::unistd::getpgid(Some(pid))?.as_raw() as u32)
}

/// Sends `signal` to the calling thread. A handler has run when the call returns.
///
/// # Errors
///
/// `EINVAL` for a number that the kernel does not know.
pub fn raise(signal: Signal) -> io::Result<()> {
    // SAFETY: the call takes an integer and touches no memory of ours.
    match unsafe { libc::raise(signal.0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Gives `signal` its default effect in this process, and in the programs that it executes.
///
/// A program that was started in the background by a shell without job control ignores `SIGINT` and
/// `SIGQUIT`, one below `nohup` ignores `SIGHUP`, and children inherit that.
///
/// # Errors
///
/// `EINVAL` for `SIGKILL` and `SIGSTOP`, which always have their effect.
pub fn set_default(signal: Signal) -> io::Result<()> {
    // SAFETY: the default disposition runs no code of this process.
    let before = unsafe { libc::signal(signal.0, libc::SIG_DFL) };
    if before == libc::SIG_ERR { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// Converts a process id for `kill(2)`, to which zero and negative numbers mean groups.
fn positive(pid: u32) -> io::Result<i32> {
    let pid = i32::try_from(pid).ok().filter(|&pid| pid > 0);
    pid.ok_or_else(|| io::Error::from_raw_os_error(libc::EINVAL))
}

fn kill_number(pid: i32, signal: Signal) -> io::Result<()> {
    // SAFETY: the call takes two integers and touches no memory of ours.
    match unsafe { libc::kill(pid, signal.0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_and_number_leads_back_to_its_signal() {
        for number in 1..=64 {
            let signal = Signal::from_number(number).unwrap();
            assert_eq!(signal.number(), number);
            assert_eq!(Signal::from_name(signal.name()), Some(signal));
        }
        assert_eq!(Signal::from_name("SIGIOT"), Some(Signal::ABRT));
        assert_eq!(Signal::from_number(64).unwrap().to_string(), "SIG64");
        for number in [-1, 0, 65, i32::MAX, i32::MIN] {
            assert_eq!(Signal::from_number(number), None);
        }
        for name in ["", "TERM", "sigterm", "SIGTERM ", "SIG31", "SIG65"] {
            assert_eq!(Signal::from_name(name), None, "{name}");
        }
    }

    #[test]
    fn ids_that_mean_every_process_are_refused() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert_eq!(kill(pid, Signal::CONT).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        for group in [0, 1, u32::MAX] {
            let error = kill_group(group, Signal::CONT).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    }
}
