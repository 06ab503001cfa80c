//! The scheduling priority of processes.

use crate::Error;
use std::fs;
use std::io;

/// How often the threads of one process are looked through: those that start meanwhile are
/// found by the next look.
const SCANS_MAX: u32 = 32;

/// The priority of process `pid`, from −20 (most) to 19 (least); 0 is this process.
///
/// Linux has a priority per thread; this is the main thread's.
///
/// Node: with 0, the calling thread's, which differs in a worker thread that changed its own.
///
/// ```
/// let before = os_info::get_priority(0)?;
/// os_info::set_priority(0, before)?;
/// # Ok::<(), os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ESRCH` from `getpriority` when there is no such process.
#[doc(alias = "getPriority")]
pub fn get_priority(pid: u32) -> Result<i32, Error> {
    let pid = if pid == 0 { std::process::id() } else { pid };
    sys::host::user::priority(pid).map_err(|error| Error::os("getpriority", error))
}

/// Sets the priority of process `pid`, from −20 (most) to 19 (least); 0 is this process.
///
/// All threads of the process get it, and threads that they start later inherit it. Where
/// `/proc` is missing, the main thread alone gets it. [`constants::priority`] has Node's levels.
///
/// # Errors
///
/// [`Error::OutOfRange`] before anything is tried. From `setpriority`: `ESRCH` when there is no
/// such process, `EACCES` without the right to more priority, `EPERM` for another user's process,
/// `EAGAIN` when threads start faster than they can be changed. Threads that were changed before
/// an error stay changed.
///
/// Node: changes one thread alone, the main one (with 0, the calling one), and not those of its
/// workers and its pool.
///
/// [`constants::priority`]: crate::constants::priority
#[doc(alias = "setPriority")]
pub fn set_priority(pid: u32, priority: i32) -> Result<(), Error> {
    if !(-20..=19).contains(&priority) {
        return Err(Error::OutOfRange { call: "setpriority", value: priority });
    }
    let pid = if pid == 0 { std::process::id() } else { pid };
    sys::host::user::set_priority(pid, priority)
        .map_err(|error| Error::os("setpriority", error))?;
    // A thread that was not listed yet may be the child of one that was not changed yet.
    let mut last = Scan::Settled;
    for _ in 0..SCANS_MAX {
        last = scan(pid, priority).map_err(|error| Error::os("setpriority", error))?;
        if last == Scan::Settled {
            break;
        }
    }
    match last {
        // Threads that come and go all the time are no failure, if none was found unchanged.
        Scan::Settled | Scan::Ended => Ok(()),
        Scan::Changed => {
            let error = io::Error::from_raw_os_error(sys::errno::EAGAIN);
            Err(Error::os("setpriority", error))
        }
    }
}

/// What one look at all threads of a process found, the most important last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scan {
    /// All have the priority, and so will their children.
    Settled,
    /// A thread ended before it was looked at: its children may not have been listed.
    Ended,
    /// A thread had another priority.
    Changed,
}

/// Gives `priority` to the threads that do not have it.
///
/// The number of a thread says nothing about what was done before: the kernel uses it again.
fn scan(pid: u32, priority: i32) -> io::Result<Scan> {
    let mut found = Scan::Settled;
    for thread in threads(pid) {
        let one = match sys::host::user::priority(thread) {
            Ok(has) if has == priority => Ok(Scan::Settled),
            Ok(_) => sys::host::user::set_priority(thread, priority).map(|()| Scan::Changed),
            Err(error) => Err(error),
        };
        found = found.max(match one {
            Err(error) if error.raw_os_error() == Some(sys::errno::ESRCH) => Scan::Ended,
            one => one?,
        });
    }
    Ok(found)
}

fn threads(pid: u32) -> Vec<u32> {
    let list = || -> io::Result<Vec<u32>> {
        let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    };
    list().unwrap_or_default()
}
