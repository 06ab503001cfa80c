//! Processes as `/proc` shows them: their children, their parents, zombies.

use std::fs;
use std::io::{self, ErrorKind};

/// Checks that the process ids in `/proc` are those of this process. In a new pid namespace `/proc`
/// shows the processes of the old one until it is mounted again, and the same number means another
/// process.
pub(crate) fn check() -> io::Result<()> {
    let status = fs::read_to_string("/proc/self/status")?;
    // One number for each namespace from that of `/proc` to that of this process.
    let ids = status.lines().find_map(|line| line.strip_prefix("NSpid:"));
    match ids.map(|ids| ids.split_whitespace().count()) {
        None | Some(1) => Ok(()),
        Some(_) => Err(io::Error::other("/proc shows another pid namespace")),
    }
}

/// Returns the children of every thread of `pid`.
pub(crate) fn children(pid: u32) -> io::Result<Vec<u32>> {
    let mut found = Vec::new();
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let thread = thread?.path();
        match fs::read_to_string(thread.join("children")) {
            Ok(list) => found.extend(numbers(&list)),
            // The thread has ended.
            Err(_) if !thread.join("stat").exists() => {}
            // A kernel without these lists: `CONFIG_PROC_CHILDREN` is an option.
            Err(error) if error.kind() == ErrorKind::NotFound => return children_by_parent(pid),
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

/// Returns the children of `pid` among all processes.
fn children_by_parent(pid: u32) -> io::Result<Vec<u32>> {
    let entries = fs::read_dir("/proc")?.filter_map(Result::ok);
    let processes = entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    Ok(processes.filter(|child| parent(*child) == Some(pid)).collect())
}

/// Returns the process ids of a list.
pub(crate) fn numbers(list: &str) -> Vec<u32> {
    list.split_whitespace().flat_map(str::parse).collect()
}

/// Returns the parent of `pid`; `None` if the process is gone or hidden.
pub(crate) fn parent(pid: u32) -> Option<u32> {
    stat(pid)?.1.parse().ok()
}

/// Returns whether `pid` has ended and is not reaped.
pub(crate) fn is_zombie(pid: u32) -> bool {
    stat(pid).is_some_and(|(state, _)| state == "Z")
}

/// Returns the state and the parent in `/proc/PID/stat`.
fn stat(pid: u32) -> Option<(String, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name can hold any byte, parentheses included.
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().map(str::to_owned);
    Some((fields.next()?, fields.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use sys::signal::Signal;

    #[test]
    fn our_own_entry_in_proc_is_read() {
        let me = std::process::id();
        assert_eq!(parent(me), Some(std::os::unix::process::parent_id()));
    }

    #[test]
    fn both_ways_of_finding_children_find_the_same() {
        let child = crate::Command::new("sleep").arg("60").spawn().unwrap();
        let me = std::process::id();
        assert!(children(me).unwrap().contains(&child.pid()));
        assert!(children_by_parent(me).unwrap().contains(&child.pid()));
        child.kill(Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}
