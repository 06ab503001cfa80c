//! The scheduling priority of processes.

use crate::Error;
use std::collections::BTreeSet;
use std::fs;
use std::io;

/// The priority of process `pid`, from −20 (most) to 19 (least); 0 is this process.
///
/// Linux has a priority per thread; this is the main thread's.
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
/// such process, `EACCES` without the right to more priority, `EPERM` for another user's process.
///
/// Node: changes the main thread alone, which is all of a Node program that matters.
///
/// [`constants::priority`]: crate::constants::priority
#[doc(alias = "setPriority")]
pub fn set_priority(pid: u32, priority: i32) -> Result<(), Error> {
    if !(-20..=19).contains(&priority) {
        return Err(Error::OutOfRange { call: "setpriority", value: priority });
    }
    let pid = if pid == 0 { std::process::id() } else { pid };
    let set = |id| sys::host::user::set_priority(id, priority);
    set(pid).map_err(|error| Error::os("setpriority", error))?;
    let mut done = BTreeSet::from([pid]);
    // A thread that was not listed yet may be the child of one that was not changed yet.
    loop {
        let threads = threads(pid);
        let before = done.len();
        for thread in threads {
            if done.insert(thread) {
                match set(thread) {
                    Err(error) if error.raw_os_error() != Some(sys::errno::ESRCH) => {
                        return Err(Error::os("setpriority", error));
                    }
                    // Done, or the thread has ended.
                    Ok(()) | Err(_) => {}
                }
            }
        }
        if done.len() == before {
            return Ok(());
        }
    }
}

fn threads(pid: u32) -> Vec<u32> {
    let list = || -> io::Result<Vec<u32>> {
        let entries = fs::read_dir(format!("/proc/{pid}/task"))?;
        Ok(entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect())
    };
    list().unwrap_or_default()
}
