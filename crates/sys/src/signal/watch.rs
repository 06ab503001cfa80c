//! Watching for signals: opt-in handlers that write to an eventfd.
//!
//! [`SignalWatch`] installs handlers for the signals it is created with and for no others. Its
//! descriptor becomes readable when one arrives, and dropping it restores the earlier dispositions.
//!
//! The handler uses only atomics and `write(2)`, and reaches the watches through a fixed table of
//! [`WATCHES_MAX`] slots, because a handler must not lock or allocate. The eventfd of a watch is
//! closed only when no handler is running that could still hold its number.

use std::fmt;
use std::io;
use std::mem;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::ptr;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicU32, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use nix::sys::eventfd::{EfdFlags, EventFd};

use crate::fd;

use super::handler::{Handler, Origin, action, handlers_are_gone, in_handler, with_handler};
use super::{NUMBER_MAX, Signal, held};

/// The largest number of [`SignalWatch`]es in one process at a time.
pub const WATCHES_MAX: usize = 16;

/// The largest number of times that one [`SignalWatch::take`] returns the same signal. Further
/// arrivals are dropped, as the kernel merges signals that arrive faster than they are handled.
pub const REPEATS_MAX: u32 = 64;

/// Handlers for some signals, and a descriptor that is readable when one has arrived.
///
/// While the watch lives, its signals do not have their usual effect. Several watches may watch one
/// signal: each of them gets it, and the disposition from before the first watch comes back with
/// the drop of the last. A disposition that other code has installed meanwhile stays.
///
/// The handlers run with `SA_RESTART`. A signal that every thread blocks is not noticed.
///
/// ```
/// use brood_sys::signal::{self, Signal, SignalWatch};
///
/// let watch = SignalWatch::new(&[Signal::USR1])?;
/// signal::raise(Signal::USR1)?;
/// assert_eq!(watch.take(), [Signal::USR1]);
/// # Ok::<(), std::io::Error>(())
/// ```
pub struct SignalWatch {
    /// `Some` until drop.
    event: Option<EventFd>,
    slot: &'static Slot,
    signals: u64,
    active: AtomicBool,
}

/// The arrivals of one signal since the last look, and where they came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrivals {
    /// The signal.
    pub signal: Signal,
    /// The number of arrivals, at most [`REPEATS_MAX`].
    pub times: u32,
    /// Whether the kernel sent one of them, as it does with `SIGHUP` when a terminal hangs up.
    pub by_kernel: bool,
    /// The process that last sent the signal with `sigqueue(3)` or its relatives, such as
    /// [`PidFd::queue_signal`](crate::pidfd::PidFd::queue_signal). Plain `kill(2)` does not count.
    pub queued_by: Option<u32>,
}

impl SignalWatch {
    /// Starts watching those of `signals` that have the default disposition at this moment.
    ///
    /// A signal that is ignored or has a handler is left to the code that wanted that. In a worker
    /// of a cluster, a signal that was held since before `main` counts as default, and the watch
    /// gets what has arrived. Held signals that the watch does not have, all of them after an error,
    /// are released as by [`release_held`](super::release_held).
    ///
    /// # Errors
    ///
    /// As [`new`](Self::new).
    pub fn where_default(signals: &[Signal]) -> io::Result<Self> {
        let is_default = |signal: &&Signal| {
            let current = action(**signal, None);
            current.is_ok_and(|it| it.sa_sigaction == libc::SIG_DFL || held::is_held(&it))
        };
        let watch = Self::new(&signals.iter().filter(is_default).copied().collect::<Vec<_>>());
        for (signal, times) in held::release().filter(|(_, times)| *times > 0) {
            match &watch {
                Ok(watch) if watch.signals & signal.bit() != 0 => {
                    let times = 0..times.min(REPEATS_MAX);
                    times.for_each(|_| watch.slot.notify(signal, Origin::Other));
                }
                Ok(_) | Err(_) => held::send_again(signal),
            }
        }
        watch
    }

    /// Starts watching `signals`.
    ///
    /// # Errors
    ///
    /// `EINVAL` for `SIGKILL`, `SIGSTOP`, libc's own numbers, and the faults from which a handler
    /// cannot return (`SIGSEGV`, `SIGBUS`, `SIGFPE`, `SIGILL`); `EMFILE` when no descriptor is
    /// left; `EBUSY` when there are [`WATCHES_MAX`] watches. After an error nothing has changed.
    pub fn new(signals: &[Signal]) -> io::Result<Self> {
        if signals.iter().any(|signal| signal.is_fault()) {
            return Err(io::Error::from_raw_os_error(libc::EINVAL));
        }
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        let event = fd::with_standard_occupied(|| EventFd::from_flags(flags))?;
        let mut installed = lock();
        let free = SLOTS.iter().find(|slot| slot.fd.load(Ordering::Acquire) == EMPTY);
        let slot = free.ok_or_else(|| io::Error::from_raw_os_error(libc::EBUSY))?;
        slot.occupy(&event);
        let mut watch =
            Self { event: Some(event), slot, signals: 0, active: AtomicBool::new(true) };
        for &signal in signals {
            if watch.signals & signal.bit() != 0 {
                continue;
            }
            // The slot wants the signal before the handler exists: a signal in between would be lost.
            slot.signals.store(watch.signals | signal.bit(), Ordering::Release);
            if let Err(error) = installed.add(signal) {
                installed.withdraw(watch.signals, watch.slot);
                // Everything is undone already: drop must not do it again.
                watch.active.store(false, Ordering::Release);
                // The lock is released before the watch, whose drop takes it.
                drop(installed);
                return Err(error);
            }
            watch.signals |= signal.bit();
        }
        drop(installed);
        Ok(watch)
    }

    /// Returns the signals that have arrived since the last call, and clears the readiness of the
    /// descriptor.
    ///
    /// A signal is listed as often as it arrived, up to [`REPEATS_MAX`]. Different signals are
    /// sorted by number, not by arrival.
    #[must_use]
    pub fn take(&self) -> Vec<Signal> {
        // Fails with `EAGAIN` when empty. Read before the counters: a signal in between is counted,
        // and makes the descriptor readable again.
        let arrivals = self.arrivals().into_iter();
        arrivals.flat_map(|it| (0..it.times).map(move |_| it.signal)).collect()
    }

    /// As [`take`](Self::take), with one entry for each signal that has arrived, and its origin.
    #[must_use]
    pub fn arrivals(&self) -> Vec<Arrivals> {
        let _ = self.event.as_ref().map(EventFd::read);
        let mut seen = Vec::new();
        for (number, count) in (1..).zip(&self.slot.counts[1..]) {
            // The slot may hold a late signal of its previous watch.
            let signal = Signal(number);
            if self.signals & signal.bit() == 0 {
                continue;
            }
            let times = count.swap(0, Ordering::AcqRel).min(REPEATS_MAX);
            if times > 0 {
                let by_kernel = self.slot.by_kernel.fetch_and(!signal.bit(), Ordering::AcqRel);
                let queued_by = self.slot.queued_by[number as usize].swap(0, Ordering::AcqRel);
                let queued_by = (queued_by != 0).then_some(queued_by);
                let by_kernel = by_kernel & signal.bit() != 0;
                seen.push(Arrivals { signal, times, by_kernel, queued_by });
            }
        }
        seen
    }

    /// Restores the previous dispositions now, as drop does. The descriptor stays open.
    pub fn restore(&self) {
        let mut installed = lock();
        if self.active.swap(false, Ordering::AcqRel) {
            installed.withdraw(self.signals, self.slot);
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
            // A leaked descriptor is better than the write of a handler into another file.
            mem::forget(self.event.take());
        }
    }
}

/// The entry of a watch in the table of the handler. A slot is free when its `fd` is [`EMPTY`].
struct Slot {
    fd: AtomicI32,
    signals: AtomicU64,
    counts: [AtomicU32; NUMBER_MAX + 1],
    /// The bits of the signals that the kernel sent.
    by_kernel: AtomicU64,
    /// For each signal the process that queued it; 0 for none.
    queued_by: [AtomicU32; NUMBER_MAX + 1],
}

const EMPTY: RawFd = -1;

static SLOTS: [Slot; WATCHES_MAX] = [const {
    Slot {
        fd: AtomicI32::new(EMPTY),
        signals: AtomicU64::new(0),
        counts: [const { AtomicU32::new(0) }; NUMBER_MAX + 1],
        by_kernel: AtomicU64::new(0),
        queued_by: [const { AtomicU32::new(0) }; NUMBER_MAX + 1],
    }
}; WATCHES_MAX];

impl Slot {
    /// Called under the lock of [`INSTALLED`], so that two watches never share a slot.
    fn occupy(&self, event: &EventFd) {
        self.signals.store(0, Ordering::Release);
        for count in self.counts.iter().chain(&self.queued_by) {
            count.store(0, Ordering::Release);
        }
        self.by_kernel.store(0, Ordering::Release);
        self.fd.store(event.as_fd().as_raw_fd(), Ordering::SeqCst);
    }

    fn clear(&self) {
        self.signals.store(0, Ordering::Release);
        self.fd.store(EMPTY, Ordering::SeqCst);
    }

    /// Called by the handler: atomics and `write(2)` only.
    fn notify(&self, signal: Signal, origin: Origin) {
        if self.signals.load(Ordering::Acquire) & signal.bit() == 0 {
            return;
        }
        let fd = self.fd.load(Ordering::SeqCst);
        if fd == EMPTY {
            return;
        }
        // The origin precedes the count, which the reader takes first.
        match (origin, self.queued_by.get(signal.0 as usize)) {
            (Origin::Kernel, _) => drop(self.by_kernel.fetch_or(signal.bit(), Ordering::AcqRel)),
            (Origin::Queue(pid), Some(queued_by)) => queued_by.store(pid, Ordering::Release),
            (Origin::Queue(_), None) | (Origin::Other, _) => {}
        }
        if let Some(count) = self.counts.get(signal.0 as usize) {
            count.fetch_add(1, Ordering::AcqRel);
        }
        let one = 1u64;
        // SAFETY: the buffer is eight readable bytes of our stack. The descriptor is open: the drop
        // of the watch first empties the slot and then waits until `RUNNING` is zero.
        unsafe { libc::write(fd, ptr::from_ref(&one).cast(), size_of::<u64>()) };
    }
}

/// Never inlined: its address is compared, and must be the same everywhere.
#[inline(never)]
pub(super) extern "C" fn on_signal(
    number: libc::c_int,
    info: *const libc::siginfo_t,
    _context: *const libc::c_void,
) {
    in_handler(|| {
        let origin = Origin::of_pointer(info);
        for slot in &SLOTS {
            slot.notify(Signal(number), origin);
        }
    });
}

/// The signals that have our handler: the number of watches, and the disposition from before.
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
            // SAFETY: plain C data, for which all zeros is a value: the default disposition.
            let default = || unsafe { mem::zeroed() };
            self.previous[number] =
                Some(if held::is_held(&previous) { default() } else { previous });
        }
        self.watches[number] += 1;
        Ok(())
    }

    /// Ends a watch on `signals`. The dispositions come before the slot: a signal in between then
    /// has its usual effect and is not lost.
    fn withdraw(&mut self, signals: u64, slot: &Slot) {
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
        slot.clear();
    }

    fn restore(&mut self, signal: Signal) {
        let Some(previous) = self.previous[signal.0 as usize].take() else { return };
        let current = action(signal, None);
        if current.is_ok_and(|current| is_watched(&current)) {
            // Cannot fail: the same number was accepted before.
            let _ = action(signal, Some(&previous));
        }
    }
}

fn ours() -> libc::sigaction {
    with_handler(on_signal)
}

/// Returns whether this disposition is the handler of the watches.
pub(super) fn is_watched(action: &libc::sigaction) -> bool {
    action.sa_sigaction == on_signal as Handler as usize
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::poll::readable;
    use crate::signal::raise;

    // Each test has a signal of its own: dispositions belong to the whole process.

    #[test]
    fn a_watch_reports_each_arrival_once() {
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
    fn a_watch_knows_a_queued_signal_from_others_and_leaves_what_is_not_default() {
        let mut ignore = ours();
        ignore.sa_sigaction = libc::SIG_IGN;
        let default = action(Signal::USR1, Some(&ignore)).unwrap();
        let watch = SignalWatch::where_default(&[Signal::USR1, Signal::XCPU]).unwrap();
        assert_eq!(action(Signal::USR1, None).unwrap().sa_sigaction, libc::SIG_IGN);
        action(Signal::USR1, Some(&default)).unwrap();
        let plain = Arrivals { signal: Signal::XCPU, times: 1, by_kernel: false, queued_by: None };
        raise(Signal::XCPU).unwrap();
        assert_eq!(watch.arrivals(), [plain]);
        let own = std::process::id();
        crate::pidfd::PidFd::open(own).unwrap().queue_signal(Signal::XCPU).unwrap();
        assert!(readable(watch.as_fd(), Some(Duration::from_secs(10))).unwrap());
        assert_eq!(watch.arrivals(), [Arrivals { queued_by: Some(own), ..plain }]);
        assert_eq!(watch.arrivals(), []);
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
    fn a_disposition_installed_by_other_code_meanwhile_stays() {
        let watch = SignalWatch::new(&[Signal::IO]).unwrap();
        let mut ignore = ours();
        ignore.sa_sigaction = libc::SIG_IGN;
        let ours = action(Signal::IO, Some(&ignore)).unwrap();
        drop(watch);
        assert_eq!(action(Signal::IO, Some(&ours)).unwrap().sa_sigaction, libc::SIG_IGN);
        raise(Signal::IO).unwrap();
    }

    #[test]
    fn signals_that_cannot_be_watched_are_refused_and_leave_no_handler() {
        let before = action(Signal::PWR, None).unwrap().sa_sigaction;
        for refused in [Signal::KILL, Signal::STOP, Signal::SEGV] {
            let error = SignalWatch::new(&[Signal::PWR, refused]).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        }
        assert_eq!(action(Signal::PWR, None).unwrap().sa_sigaction, before);
    }

    #[test]
    fn an_interrupted_thread_keeps_its_errno() {
        let _watch = SignalWatch::new(&[Signal::CONT]).unwrap();
        nix::errno::Errno::EXDEV.set();
        raise(Signal::CONT).unwrap();
        assert_eq!(nix::errno::Errno::last(), nix::errno::Errno::EXDEV);
    }
}
