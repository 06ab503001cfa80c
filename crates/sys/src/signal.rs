//! Signals by name, sending them, and opt-in handlers that write to an eventfd.
//!
//! [`Signal`] is a number with Node's name. [`SignalWatch`] installs handlers for the signals it
//! is asked for and for no others; its descriptor becomes readable when one arrives, and
//! dropping it puts back what was there before.
//!
//! The handler touches only atomics and `write(2)`. It knows its watches through a fixed table
//! ([`WATCHES_MAX`] places), because a handler must not lock or allocate. A watch's eventfd is
//! closed only when no handler is running that could still hold its number.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

use nix::sys::eventfd::{EfdFlags, EventFd};

/// The most [`SignalWatch`]es that can exist in one process at a time.
pub const WATCHES_MAX: usize = 16;

/// How often one [`SignalWatch::take`] names the same signal at most; further ones are dropped,
/// as the kernel merges signals that arrive faster than they are handled.
pub const REPEATS_MAX: u32 = 64;

/// The highest signal number of Linux on x86-64 and aarch64.
const NUMBER_MAX: usize = 64;

/// A signal: a number from 1 to 64, shown by its name.
///
/// ```
/// use sys::signal::Signal;
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

            /// Every named signal, by number.
            pub const ALL: &'static [Self] = &[$(Self::$short,)*];

            /// The name with its `SIG`, as Node and `kill -l` write it; `SIG34` and the like for
            /// real-time signals, which have no fixed names.
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
    /// The terminal is gone; often "read your configuration again".
    HUP = SIGHUP,
    /// Ctrl-C.
    INT = SIGINT,
    /// Ctrl-\: ends with a core file.
    QUIT = SIGQUIT,
    /// An instruction that is none.
    ILL = SIGILL,
    /// A trace or break point.
    TRAP = SIGTRAP,
    /// `abort(3)`.
    ABRT = SIGABRT,
    /// Memory that cannot be reached as asked.
    BUS = SIGBUS,
    /// Arithmetic that has no result.
    FPE = SIGFPE,
    /// Ends the process; cannot be caught.
    KILL = SIGKILL,
    /// Free for programs.
    USR1 = SIGUSR1,
    /// Memory that is not there.
    SEGV = SIGSEGV,
    /// Free for programs.
    USR2 = SIGUSR2,
    /// A write that nobody will read.
    PIPE = SIGPIPE,
    /// `alarm(2)`.
    ALRM = SIGALRM,
    /// Asks the process to end.
    TERM = SIGTERM,
    /// Unused by the kernel.
    STKFLT = SIGSTKFLT,
    /// A child ended or stopped.
    CHLD = SIGCHLD,
    /// Goes on after a stop.
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
    /// The CPU time of an interval timer is over.
    VTALRM = SIGVTALRM,
    /// A profiling timer.
    PROF = SIGPROF,
    /// The terminal has another size.
    WINCH = SIGWINCH,
    /// A descriptor is ready.
    IO = SIGIO,
    /// The power fails.
    PWR = SIGPWR,
    /// A system call that is none.
    SYS = SIGSYS,
}

/// Other names for the same numbers.
const ALIASES: [(&str, Signal); 4] = [
    ("SIGIOT", Signal::ABRT),
    ("SIGCLD", Signal::CHLD),
    ("SIGPOLL", Signal::IO),
    ("SIGUNUSED", Signal::SYS),
];

/// The numbers from 32 on. libc keeps the first two or three for itself, and how many differs,
/// so that counting from `SIGRTMIN` would mean another number under another libc.
const REAL_TIME: [&str; 33] = [
    "SIG32", "SIG33", "SIG34", "SIG35", "SIG36", "SIG37", "SIG38", "SIG39", "SIG40", "SIG41",
    "SIG42", "SIG43", "SIG44", "SIG45", "SIG46", "SIG47", "SIG48", "SIG49", "SIG50", "SIG51",
    "SIG52", "SIG53", "SIG54", "SIG55", "SIG56", "SIG57", "SIG58", "SIG59", "SIG60", "SIG61",
    "SIG62", "SIG63", "SIG64",
];

impl Signal {
    /// The signal with this number, from 1 to 64.
    #[must_use]
    pub const fn from_number(number: i32) -> Option<Self> {
        if number >= 1 && number <= NUMBER_MAX as i32 { Some(Self(number)) } else { None }
    }

    /// The signal with this name: `SIGTERM`, case as written. `SIGIOT`, `SIGCLD`, `SIGPOLL` and
    /// `SIGUNUSED` are other names of known numbers.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        let named = |&&signal: &&Self| signal.name() == name;
        let number = || Some(Self(32 + REAL_TIME.iter().position(|&n| n == name)? as i32));
        let alias = || Some(ALIASES.iter().find(|alias| alias.0 == name)?.1);
        Self::ALL.iter().find(named).copied().or_else(alias).or_else(number)
    }

    /// The number.
    #[must_use]
    pub const fn number(self) -> i32 {
        self.0
    }

    fn bit(self) -> u64 {
        1 << (self.0 - 1)
    }

    /// A handler for these returns into the instruction that caused them, for ever.
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
/// Reaches the right process only while nobody has reaped `pid`: prefer
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
/// `ESRCH` when the group is empty, `EPERM` when none may be signalled, `EINVAL` for group 0 and
/// for group 1 (which would mean every process there is).
pub fn kill_group(group: u32, signal: Signal) -> io::Result<()> {
    let group = positive(group)?;
    if group == 1 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    kill_number(-group, signal)
}

/// Sends `signal` to the calling thread; its handler, if there is one, has run on return.
///
/// # Errors
///
/// `EINVAL` for a number the kernel does not know.
pub fn raise(signal: Signal) -> io::Result<()> {
    // SAFETY: the call takes an integer and touches no memory of ours.
    match unsafe { libc::raise(signal.0) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Zero and negative numbers mean groups to `kill(2)`.
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

/// Handlers for some signals, and a descriptor that is readable when one has arrived.
///
/// While it lives, the signals it watches do not have their usual effect. Two watches may watch
/// the same signal: both see it, and the disposition from before the first comes back with the
/// last. A disposition that somebody else installed meanwhile is left alone.
///
/// The handlers run with `SA_RESTART`. A signal that every thread blocks is not seen.
///
/// ```
/// use sys::signal::{self, Signal, SignalWatch};
///
/// let watch = SignalWatch::new(&[Signal::USR1])?;
/// signal::raise(Signal::USR1)?;
/// assert_eq!(watch.take(), [Signal::USR1]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SignalWatch {
    /// There until drop.
    event: Option<EventFd>,
    place: &'static Place,
    signals: u64,
    active: AtomicBool,
}

impl SignalWatch {
    /// Starts to watch `signals`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for `SIGKILL`, `SIGSTOP`, libc's own numbers, and the faults a handler cannot
    /// return from (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`); `EMFILE` when no descriptor is
    /// left; `EBUSY` when there are [`WATCHES_MAX`] watches. Nothing is changed then.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        if signals.iter().any(|signal| signal.is_fault()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let event = EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        let mut installed = lock();
        let free = PLACES.iter().find(|place| place.fd.load(Ordering::Acquire) == EMPTY);
        let place = free.ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        place.claim(&event);
        let mut watch =
            Self { event: Some(event), place, signals: 0, active: AtomicBool::new(true) };
        for &signal in signals {
            if watch.signals & signal.bit() != 0 {
                continue;
            }
            if let Err(error) = installed.add(signal) {
                installed.withdraw(watch.signals, watch.place);
                // The places are settled: drop must not try again.
                watch.active.store(false, Ordering::Release);
                // Before the watch, whose drop takes the lock.
                drop(installed);
                return Err(error);
            }
            watch.signals |= signal.bit();
            place.signals.store(watch.signals, Ordering::Release);
        }
        drop(installed);
        Ok(watch)
    }

    /// Takes what has arrived since the last call and clears the descriptor's readiness.
    ///
    /// A signal is named as often as it arrived, up to [`REPEATS_MAX`]; different signals come by
    /// number, not in the order of arrival.
    #[must_use]
    pub fn take(&self) -> Vec<Signal> {
        // Empty is fine: `EAGAIN`. Read before the counters: what arrives in between is counted
        // and makes the descriptor readable again.
        let _ = self.event.as_ref().map(EventFd::read);
        let mut seen = Vec::new();
        for (number, count) in (1..).zip(&self.place.counts[1..]) {
            // The place may carry a late signal of the watch that had it before.
            if self.signals & Signal(number).bit() == 0 {
                continue;
            }
            let times = count.swap(0, Ordering::AcqRel).min(REPEATS_MAX);
            seen.extend((0..times).map(|_| Signal(number)));
        }
        seen
    }

    /// Puts the previous dispositions back now, as drop does. The descriptor stays open.
    pub fn restore(&self) {
        let mut installed = lock();
        if self.active.swap(false, Ordering::AcqRel) {
            installed.withdraw(self.signals, self.place);
        }
    }
}

impl AsFd for SignalWatch {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.event.as_ref().expect("the eventfd is there until drop").as_fd()
    }
}

impl fmt::Debug for SignalWatch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let watched = Signal::ALL.iter().filter(|signal| self.signals & signal.bit() != 0);
        f.debug_set().entries(watched).finish()
    }
}

impl Drop for SignalWatch {
    fn drop(&mut self) {
        self.restore();
        if !handlers_are_gone() {
            // Rather one descriptor too many than a handler's write in somebody else's file.
            mem::forget(self.event.take());
        }
    }
}

/// Where the handler finds a watch. A place is free when its `fd` is [`EMPTY`].
struct Place {
    fd: AtomicI32,
    signals: AtomicU64,
    counts: [AtomicU32; NUMBER_MAX + 1],
}

const EMPTY: RawFd = -1;

static PLACES: [Place; WATCHES_MAX] = [const {
    Place {
        fd: AtomicI32::new(EMPTY),
        signals: AtomicU64::new(0),
        counts: [const { AtomicU32::new(0) }; NUMBER_MAX + 1],
    }
}; WATCHES_MAX];

/// Handlers that run now, in all threads.
static RUNNING: AtomicUsize = AtomicUsize::new(0);

impl Place {
    /// Taken under the lock of [`INSTALLED`], so that two watches never share one.
    fn claim(&self, event: &EventFd) {
        self.signals.store(0, Ordering::Release);
        for count in &self.counts {
            count.store(0, Ordering::Release);
        }
        self.fd.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
    }

    fn clear(&self) {
        self.signals.store(0, Ordering::Release);
        self.fd.store(EMPTY, Ordering::SeqCst);
    }

    /// Called by the handler: atomics and `write(2)` only.
    fn notify(&self, signal: Signal) {
        if self.signals.load(Ordering::Acquire) & signal.bit() == 0 {
            return;
        }
        let fd = self.fd.load(Ordering::SeqCst);
        if fd == EMPTY {
            return;
        }
        if let Some(count) = self.counts.get(signal.0 as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        let one = 1u64;
        // SAFETY: the buffer is eight readable bytes of our stack. The descriptor is open: who
        // closes it first empties the place and then waits until `RUNNING` is zero.
        unsafe { libc::write(fd, ptr::from_ref(&one).cast(), size_of::<u64>()) };
    }
}

/// Waits for the handlers that may have read a place before it was emptied; a handler takes
/// microseconds. `false` when one still runs: its thread was stopped in the middle, or this is
/// the child of a fork that happened there.
fn handlers_are_gone() -> bool {
    (0..1000).any(|_| {
        let gone = RUNNING.load(Ordering::SeqCst) == 0;
        if !gone {
            thread::yield_now();
        }
        gone
    })
}

extern "C" fn on_signal(number: libc::c_int) {
    RUNNING.fetch_add(1, Ordering::SeqCst);
    // SAFETY: gives the address of this thread's errno; async-signal-safe.
    let errno = unsafe { libc::__errno_location() };
    // SAFETY: the address is valid for as long as this thread runs.
    let kept = unsafe { *errno };
    for place in &PLACES {
        place.notify(Signal(number));
    }
    // SAFETY: as above; the interrupted code must find its errno again.
    unsafe { *errno = kept };
    RUNNING.fetch_sub(1, Ordering::SeqCst);
}

/// Which signals have our handler, for how many watches, and what was there before.
struct Installed {
    watches: [u32; NUMBER_MAX + 1],
    previous: [Option<libc::sigaction>; NUMBER_MAX + 1],
}

static INSTALLED: Mutex<Installed> = Mutex::new(Installed {
    watches: [0; NUMBER_MAX + 1],
    previous: [const { None }; NUMBER_MAX + 1],
});

fn lock() -> MutexGuard<'static, Installed> {
    INSTALLED.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Installed {
    fn add(&mut self, signal: Signal) -> io::Result<()> {
        let number = signal.0 as usize;
        if self.watches[number] == 0 {
            let previous = action(signal, Some(&ours()))?;
            self.previous[number] = Some(previous);
        }
        self.watches[number] += 1;
        Ok(())
    }

    /// Ends a watch on `signals`. First the dispositions, then the place: a signal in between has
    /// its usual effect and is not swallowed.
    fn withdraw(&mut self, signals: u64, place: &Place) {
        for number in 1..=NUMBER_MAX {
            let signal = Signal(number as i32);
            if signals & signal.bit() == 0 {
                continue;
            }
            self.watches[number] -= 1;
            if self.watches[number] == 0 {
                self.restore(signal);
            }
        }
        place.clear();
    }

    fn restore(&mut self, signal: Signal) {
        let Some(previous) = self.previous[signal.0 as usize].take() else { return };
        let current = action(signal, None).map(|current| current.sa_sigaction);
        if current.is_ok_and(|current| current == ours().sa_sigaction) {
            // Cannot fail: the same number was accepted before.
            let _ = action(signal, Some(&previous));
        }
    }
}

fn ours() -> libc::sigaction {
    // SAFETY: plain C data, for which all zeros is a value: an empty mask, no flags.
    let mut action: libc::sigaction = unsafe { mem::zeroed() };
    action.sa_sigaction = on_signal as extern "C" fn(libc::c_int) as usize;
    action.sa_flags = libc::SA_RESTART | libc::SA_ONSTACK;
    action
}

/// Sets a disposition, or only asks; gives the one from before.
fn action(signal: Signal, new: Option<&libc::sigaction>) -> io::Result<libc::sigaction> {
    let new = new.map_or(ptr::null(), ptr::from_ref);
    // SAFETY: plain C data, for which all zeros is a value.
    let mut old: libc::sigaction = unsafe { mem::zeroed() };
    // SAFETY: `new` is null or valid, `old` is writable, and the handler that may be set is
    // async-signal-safe and lives for ever.
    match unsafe { libc::sigaction(signal.0, new, &mut old) } {
        0 => Ok(old),
        _ => Err(io::Error::last_os_error()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll::readable;

    // Each test has a signal of its own: dispositions belong to the whole process.

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
    fn a_watch_sees_each_arrival_and_then_is_quiet() {
        let watch = SignalWatch::new(&[Signal::WINCH]).unwrap();
        assert!(!readable(watch.as_fd(), Some(Duration::ZERO)).unwrap());
        raise(Signal::WINCH).unwrap();
        raise(Signal::WINCH).unwrap();
        assert!(readable(watch.as_fd(), Some(Duration::ZERO)).unwrap());
        assert_eq!(watch.take(), [Signal::WINCH, Signal::WINCH]);
        assert!(!readable(watch.as_fd(), Some(Duration::ZERO)).unwrap());
        assert_eq!(watch.take(), []);
    }

    #[test]
    fn two_watches_share_a_signal_and_the_last_one_restores() {
        let before = action(Signal::URG, None).unwrap().sa_sigaction;
        let first = SignalWatch::new(&[Signal::URG]).unwrap();
        let second = SignalWatch::new(&[Signal::URG, Signal::URG]).unwrap();
        raise(Signal::URG).unwrap();
        assert_eq!(first.take(), [Signal::URG]);
        assert_eq!(second.take(), [Signal::URG]);
        drop(first);
        raise(Signal::URG).unwrap();
        assert_eq!(second.take(), [Signal::URG]);
        drop(second);
        assert_eq!(action(Signal::URG, None).unwrap().sa_sigaction, before);
    }

    #[test]
    fn a_disposition_set_by_somebody_else_meanwhile_stays() {
        let watch = SignalWatch::new(&[Signal::IO]).unwrap();
        let mut ignore = ours();
        ignore.sa_sigaction = libc::SIG_IGN;
        let ours = action(Signal::IO, Some(&ignore)).unwrap();
        drop(watch);
        assert_eq!(action(Signal::IO, Some(&ours)).unwrap().sa_sigaction, libc::SIG_IGN);
        raise(Signal::IO).unwrap();
    }

    #[test]
    fn what_cannot_be_watched_is_refused_and_leaves_no_handler() {
        let before = action(Signal::PWR, None).unwrap().sa_sigaction;
        for refused in [Signal::KILL, Signal::STOP, Signal::SEGV] {
            let error = SignalWatch::new(&[Signal::PWR, refused]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        assert_eq!(action(Signal::PWR, None).unwrap().sa_sigaction, before);
    }

    #[test]
    fn an_interrupted_thread_finds_its_errno_again() {
        let _watch = SignalWatch::new(&[Signal::CONT]).unwrap();
        nix::errno::Errno::EXDEV.set();
        raise(Signal::CONT).unwrap();
        assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::EXDEV);
    }

    #[test]
    fn pids_and_groups_that_mean_everybody_are_refused() {
        for pid in [0, u32::MAX, 1 << 31] {
            assert_eq!(kill(pid, Signal::CONT).unwrap_err().raw_os_error(), Some(libc::EINVAL));
        }
        for group in [0, 1, u32::MAX] {
            let error = kill_group(group, Signal::CONT).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
    }
}
