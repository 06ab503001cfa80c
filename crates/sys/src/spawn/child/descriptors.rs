//! The descriptors of the child: each at its number, and no other one beyond `execve`.
//!
//! The code runs in the child before its program, and keeps the rules of [`super`].

use std::ffi::c_int;
use std::os::fd::RawFd;

use super::{Done, Origin, Program, Target, begin, check, errno, set_errno};
use crate::spawn::plan::Step;

/// Moves every source out of the range of the targets, then puts each in its place.
pub(super) fn place_descriptors(plan: &Program<'_>) -> Done {
    for cell in plan.targets {
        let mut target = cell.get();
        begin(plan, Step::Descriptor(target.number as u32))?;
        if target.or_null {
            target.origin = inheritable(target.origin);
            cell.set(target);
        }
        if let Origin::Fd(source) = target.origin {
            if source < plan.above && source != target.number {
                // SAFETY: integers only.
                let copy = unsafe { libc::fcntl(source, libc::F_DUPFD_CLOEXEC, plan.above) };
                // The answer of `F_DUPFD` to a number above the limit.
                if copy < 0 && errno() == libc::EINVAL {
                    set_errno(libc::EMFILE);
                }
                check(Step::Descriptor(target.number as u32), i64::from(copy))?;
                cell.set(Target { origin: Origin::Fd(copy), ..target });
            }
        }
    }
    let mut next = 3;
    for cell in plan.targets {
        let target = cell.get();
        begin(plan, Step::Descriptor(target.number as u32))?;
        check(Step::Descriptor(target.number as u32), i64::from(place(target)))?;
        if target.number >= 3 {
            close_on_exec(next, target.number.wrapping_sub(1));
            next = target.number.wrapping_add(1);
        }
    }
    close_on_exec(next, c_int::MAX);
    Ok(())
}

/// Replaces a standard stream by `/dev/null` if it is closed, or if its number belongs to an object
/// that is not meant for children and was opened after the stream was closed.
fn inheritable(origin: Origin) -> Origin {
    let Origin::Fd(number) = origin else { return origin };
    // SAFETY: integers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFD) };
    if flags < 0 || flags & libc::FD_CLOEXEC != 0 { Origin::Null } else { origin }
}

fn place(target: Target) -> c_int {
    let number = target.number;
    let answer = match target.origin {
        Origin::Closed => {
            // SAFETY: the number is the child's own; what it led to is not wanted.
            unsafe { libc::close(number) };
            return 0;
        }
        Origin::Null => place_null(number),
        Origin::Fd(source) if source == number => {
            // SAFETY: integers only.
            unsafe { libc::fcntl(number, libc::F_SETFD, 0) }
        }
        Origin::Fd(source) => duplicate(source, number),
    };
    if answer >= 0 && number <= 2 {
        make_blocking(number);
    }
    answer
}

fn place_null(number: RawFd) -> c_int {
    // Close-on-exec: if it occupies the number of a later target, that target replaces it.
    // SAFETY: a C string.
    let null = unsafe { libc::open(c"/dev/null".as_ptr(), libc::O_RDWR | libc::O_CLOEXEC) };
    if null < 0 {
        return null;
    }
    if null == number {
        // SAFETY: integers only.
        return unsafe { libc::fcntl(number, libc::F_SETFD, 0) };
    }
    let answer = duplicate(null, number);
    let kept = errno();
    // SAFETY: we opened it above, and nobody else knows it.
    unsafe { libc::close(null) };
    set_errno(kept);
    answer
}

fn duplicate(source: RawFd, number: RawFd) -> c_int {
    // SAFETY: integers only.
    let answer = unsafe { libc::dup2(source, number) };
    // SAFETY: integers only.
    if answer < 0 && errno() == libc::EBADF && unsafe { libc::fcntl(source, libc::F_GETFD) } >= 0 {
        // The source is open, so the number must be above the limit.
        set_errno(libc::EMFILE);
    }
    answer
}

/// Clears `O_NONBLOCK`: programs do not expect `EAGAIN` from their first three descriptors.
fn make_blocking(number: RawFd) {
    // SAFETY: integers only.
    let flags = unsafe { libc::fcntl(number, libc::F_GETFL) };
    if flags >= 0 && flags & libc::O_NONBLOCK != 0 {
        // SAFETY: integers only.
        unsafe { libc::fcntl(number, libc::F_SETFL, flags & !libc::O_NONBLOCK) };
    }
}

/// Marks every descriptor from `first` to `last` close-on-exec; the mark takes effect at `execve`.
fn close_on_exec(first: RawFd, last: RawFd) {
    if first > last {
        return;
    }
    const CLOSE_RANGE_CLOEXEC: u32 = 4;
    let (from, to) = (first as u32, last as u32);
    // SAFETY: integers only.
    let answer = unsafe { libc::syscall(libc::SYS_close_range, from, to, CLOSE_RANGE_CLOEXEC) };
    if answer < 0 {
        close_on_exec_by_walk(first, last);
    }
}

/// Marks the descriptors one by one, for kernels older than 5.11 and for sandboxes: those in
/// `/proc/self/fd`, or every number if that is missing.
pub(in crate::spawn) fn close_on_exec_by_walk(first: RawFd, last: RawFd) {
    const NUMBERS_MAX: RawFd = 65_536;
    // SAFETY: a C string.
    let directory = unsafe {
        libc::open(c"/proc/self/fd".as_ptr(), libc::O_RDONLY | libc::O_DIRECTORY | libc::O_CLOEXEC)
    };
    if directory < 0 {
        let mut number = first;
        while number <= last && number < NUMBERS_MAX {
            mark(number);
            number = number.wrapping_add(1);
        }
        return;
    }
    // Aligned as the kernel's records are.
    let mut records = [0u64; 512];
    loop {
        let (buffer, size) = (records.as_mut_ptr().cast::<u8>(), size_of_val(&records));
        // SAFETY: the buffer is ours and has that many bytes.
        let got = unsafe { libc::syscall(libc::SYS_getdents64, directory, buffer, size) };
        if got <= 0 {
            break;
        }
        mark_records(buffer, got as usize, first, last);
    }
    // SAFETY: we opened it above.
    unsafe { libc::close(directory) };
}

/// Reads records of `getdents64(2)`: inode and offset (8 bytes each), length (2), type (1), name.
fn mark_records(buffer: *const u8, bytes: usize, first: RawFd, last: RawFd) {
    const LENGTH_AT: usize = 16;
    const NAME_AT: usize = 19;
    let mut offset = 0usize;
    while offset < bytes {
        // SAFETY: the kernel wrote whole records up to `bytes`, and `offset` is where one begins.
        let record = unsafe { buffer.add(offset) };
        // SAFETY: the record has a length field at this place.
        let length = unsafe { record.add(LENGTH_AT) }.cast::<u16>();
        // SAFETY: two bytes inside the record.
        let length = unsafe { length.read_unaligned() };
        // SAFETY: the name follows and ends with a zero byte inside the record.
        let name = unsafe { record.add(NAME_AT) };
        if let Some(number) = decimal(name) {
            if number >= first && number <= last {
                mark(number);
            }
        }
        if length == 0 {
            return;
        }
        offset = offset.wrapping_add(usize::from(length));
    }
}

fn decimal(mut text: *const u8) -> Option<RawFd> {
    let mut number: RawFd = 0;
    let mut digits = 0u8;
    loop {
        // SAFETY: we stop at the zero byte that ends the name.
        let byte = unsafe { *text };
        if byte == 0 {
            return if digits == 0 { None } else { Some(number) };
        }
        if !byte.is_ascii_digit() {
            return None;
        }
        number = number.wrapping_mul(10).wrapping_add(RawFd::from(byte.wrapping_sub(b'0')));
        digits = digits.wrapping_add(1);
        // SAFETY: the byte we stand on is not the last one.
        text = unsafe { text.add(1) };
    }
}

fn mark(number: RawFd) {
    // SAFETY: integers only; a closed number answers EBADF.
    unsafe { libc::fcntl(number, libc::F_SETFD, libc::FD_CLOEXEC) };
}
