//! The wait of a parent until its child has left the memory that it borrows.
//!
//! The child announces a word to the kernel (`set_tid_address(2)`), which the kernel clears when the
//! child executes its program or exits, and wakes the thread that waits there. That is the moment at
//! which a `vfork` returns; but a `vfork` cannot return earlier, and this wait has a deadline. A
//! child that is killed before it has announced the word is noticed by its pidfd, and the failure of
//! a child in an emulator by a pipe.
//!
//! Parent and child share the thread's variables, `errno` among them. The parent therefore waits
//! without libc, and with all its signals blocked.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::ptr;
use std::sync::atomic::AtomicU32;
use std::time::{Duration, Instant};

use super::child::Failure;
use super::engine::Spawned;
use super::loan::{Loan, copy_above};
use crate::poll;

/// The time between two looks for events that wake nobody.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// The way by which the parent saw that the child has left the memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Left {
    /// The kernel cleared the word.
    Word,
    /// The child closed its end of the pipe: it executed its program, or has a copy of the memory.
    Pipe,
    /// The child has exited.
    Exit,
}

/// Waits until the child has left the memory; `None` if it has not at `until`.
pub(super) fn until_left(
    loan: &Loan,
    child: &Spawned,
    mut pipe: Option<&mut Report>,
    until: Option<Instant>,
) -> Option<Left> {
    loop {
        if loan.has_been_left() {
            return Some(Left::Word);
        }
        let left = until.map(|at| at.saturating_duration_since(Instant::now()));
        let slice = left.map_or(LOOK_EVERY, |left| left.min(LOOK_EVERY));
        let has_ended = match &mut pipe {
            Some(pipe) => pipe.has_ended_within(slice),
            None => {
                wait_for_change(loan.borrowed(), 1, slice);
                false
            }
        };
        if loan.has_been_left() {
            return Some(Left::Word);
        }
        if has_ended {
            return Some(Left::Pipe);
        }
        if has_exited(child) {
            return Some(Left::Exit);
        }
        if left.is_some_and(|left| left.is_zero()) {
            return None;
        }
    }
}

/// Whether the process has exited.
pub(super) fn has_exited(child: &Spawned) -> bool {
    poll::readable(child.pidfd.as_fd(), Some(Duration::ZERO)).unwrap_or(false)
}

/// Reaps a child that has exited, or does so within `limit`; `false` if it does not.
pub(super) fn reap_within(child: &Spawned, limit: Duration) -> bool {
    let until = Instant::now() + limit;
    loop {
        // An error means that another part of the program has reaped the child.
        if !matches!(child.pidfd.try_wait_child(child.pid), Ok(None)) {
            return true;
        }
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return false;
        }
        // A traced child is readable before it can be reaped.
        if has_exited(child) {
            std::thread::sleep(Duration::from_millis(1).min(left));
        } else {
            let _ = poll::readable(child.pidfd.as_fd(), Some(left.min(LOOK_EVERY)));
        }
    }
}

/// A pipe whose writing end a child inherits until it executes its program.
#[derive(Debug)]
pub(super) struct Pipe {
    reader: OwnedFd,
    writer: OwnedFd,
}

impl Pipe {
    /// Makes a pipe whose writing end has a number of at least `above`, the numbers of the child.
    pub(super) fn new(above: RawFd) -> io::Result<Self> {
        let (reader, writer) = crate::pipe::pipe()?;
        let writer = copy_above(writer.as_fd(), above)?;
        Ok(Self { reader, writer })
    }

    /// Returns the number of the writing end.
    pub(super) fn writer(&self) -> RawFd {
        self.writer.as_raw_fd()
    }

    /// Closes the writing end of this process: the child has its own.
    pub(super) fn into_report(self) -> Report {
        Report { reader: self.reader, failure: None }
    }
}

/// The reading end of a [`Pipe`], and the failure that arrived there.
#[derive(Debug)]
pub(super) struct Report {
    reader: OwnedFd,
    failure: Option<Failure>,
}

impl Report {
    /// Waits until the child has closed its end; `false` if it has not within `limit`, or another
    /// process that was forked meanwhile holds the end as well.
    pub(super) fn has_ended_within(&mut self, limit: Duration) -> bool {
        while poll::readable(self.reader.as_fd(), Some(limit)).unwrap_or(false) {
            let mut failure = MaybeUninit::<Failure>::uninit();
            let (buffer, bytes) = (failure.as_mut_ptr().cast(), size_of::<Failure>());
            // SAFETY: the buffer is ours and of that size. The pipe takes a few bytes at once.
            let count = unsafe { libc::read(self.reader.as_raw_fd(), buffer, bytes) };
            if count == bytes as isize {
                // SAFETY: the child runs this program and has written the bytes of a `Failure`.
                self.failure = Some(unsafe { failure.assume_init() });
            } else {
                return true;
            }
        }
        false
    }

    pub(super) fn failure(&self) -> Option<Failure> {
        self.failure
    }
}

/// Blocks every signal of this thread, libc's own two included, until it is dropped.
pub(super) struct BlockedSignals {
    before: u64,
}

impl BlockedSignals {
    pub(super) fn new() -> Self {
        let (all, mut before) = (u64::MAX, 0u64);
        set_mask(&all, &mut before);
        Self { before }
    }
}

impl Drop for BlockedSignals {
    fn drop(&mut self) {
        set_mask(&self.before, ptr::null_mut());
    }
}

fn set_mask(new: *const u64, old: *mut u64) {
    let how = libc::SIG_SETMASK;
    // SAFETY: eight bytes each, the size of the kernel's signal set, or null.
    unsafe { libc::syscall(libc::SYS_rt_sigprocmask, how, new, old, size_of::<u64>()) };
}

/// Sleeps until the word is no longer `value`, at most for `limit`. Sets no errno.
fn wait_for_change(word: &AtomicU32, value: u32, limit: Duration) {
    let time = libc::timespec {
        tv_sec: limit.as_secs() as libc::time_t,
        tv_nsec: limit.subsec_nanos().into(),
    };
    // Not private: the kernel wakes by the shared key.
    let (number, operation) = (libc::SYS_futex, libc::FUTEX_WAIT);
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the kernel reads the word and the time, which live until the call returns, and
    // changes no other register.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number => _,
            in("rdi") word.as_ptr(),
            in("rsi") i64::from(operation),
            in("rdx") u64::from(value),
            in("r10") &raw const time,
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    #[cfg(target_arch = "aarch64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "svc 0",
            in("x8") number,
            inlateout("x0") word.as_ptr() => _,
            in("x1") i64::from(operation),
            in("x2") u64::from(value),
            in("x3") &raw const time,
            options(nostack),
        );
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    // SAFETY: as above. A child that fails at the same moment may report this errno as its own.
    unsafe {
        libc::syscall(number, word.as_ptr(), operation, value, &raw const time);
    }
}
