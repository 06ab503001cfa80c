//! The scheduling priority of processes.

use std::fs;
use std::io;

use crate::Error;

/// The maximum number of scans of the threads of one process. The next scan finds the threads that
/// started during the last one.
const SCANS_MAX: u32 = 32;

/// Returns the priority of process `pid`, from −20 (highest) to 19 (lowest); 0 is this process.
///
/// Linux has a priority per thread. The result is the priority of the main thread.
///
/// Node: with 0, returns the priority of the calling thread, which differs in a worker thread that
/// changed its own.
///
/// ```
/// let before = brood_os_info::get_priority(0)?;
/// brood_os_info::set_priority(0, before)?;
/// # Ok::<(), brood_os_info::Error>(())
/// ```
///
/// # Errors
///
/// `ESRCH` from `getpriority` when the process does not exist.
#[doc(alias = "getPriority")]
pub fn get_priority(pid: u32) -> Result<i32, Error> {
    let pid = if pid == 0 { std::process::id() } else { pid };
    sys::host::user::priority(pid).map_err(|error| Error::os("getpriority", error))
}

/// Sets the priority of process `pid`, from −20 (highest) to 19 (lowest); 0 is this process.
///
/// The priority applies to all threads of the process, and later threads inherit it. Where `/proc`
/// is missing, it applies to the main thread only. [`constants::priority`] has Node's levels.
///
/// # Errors
///
/// [`Error::OutOfRange`] before any call. From `setpriority`: `ESRCH` when the process does not
/// exist, `EACCES` without the privilege to raise the priority, `EPERM` for another user's process,
/// `EAGAIN` when threads start faster than they can be changed. Threads that were changed before
/// an error stay changed.
///
/// Node: changes one thread only, the main thread (with 0, the calling thread). The threads of its
/// workers and its pool keep their priority.
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
    // A thread that starts during a scan may inherit the old priority from a thread that the scan
    // has not changed yet, and may be missing from its list.
    let mut last = Scan::Complete;
    for _ in 0..SCANS_MAX {
        last = scan(pid, priority).map_err(|error| Error::os("setpriority", error))?;
        if last == Scan::Complete {
            break;
        }
    }
    match last {
        // Threads that start and end all the time are no failure, as long as the last scan found
        // none with another priority.
        Scan::Complete | Scan::Ended => Ok(()),
        Scan::Changed => {
            let error = io::Error::from_raw_os_error(sys::errno::EAGAIN);
            Err(Error::os("setpriority", error))
        }
    }
}

/// The result of one scan of all threads of a process, in ascending order of importance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Scan {
    /// All threads have the priority, and their children will inherit it.
    Complete,
    /// A thread ended before the scan reached it. Its children may be missing from the list.
    Ended,
    /// A thread had another priority.
    Changed,
}

/// Sets `priority` for the threads that have another one.
///
/// A scan does not remember threads of earlier scans, because the kernel reuses their numbers.
fn scan(pid: u32, priority: i32) -> io::Result<Scan> {
    let mut found = Scan::Complete;
    for thread in threads(pid) {
        let one = match sys::host::user::priority(thread) {
            Ok(has) if has == priority => Ok(Scan::Complete),
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
