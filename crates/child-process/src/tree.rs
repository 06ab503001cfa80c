//! Signals for a child together with its descendants.
//!
//! The kernel lists the children of each process. Each descendant is opened as a pidfd before it is
//! signalled, and its parent is checked afterwards: a process id that has come to mean another
//! process is noticed, because the parent of that process is not in the tree.
//!
//! Limits: a process that has left the tree (its parent ended, and another process adopted it) is
//! reached only through a control group of the child's own, or through the process group if the
//! child leads one. The tree is searched [`ROUNDS_MAX`] times.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use sys::pidfd::PidFd;
use sys::signal::{Signal, kill_group};

use crate::child::Child;
use crate::error::Error;
use crate::process::Signalled;

/// The number of searches of the tree for processes that were started meanwhile.
const ROUNDS_MAX: usize = 8;

impl Child {
    /// Sends a signal to the child, to its descendants, and to its process group if it leads one.
    /// The result tells whether the child itself had ended before.
    ///
    /// Orphaned descendants are reached only through the group. Give a child whose whole tree must
    /// end a [`process_group`](crate::Command::process_group), or make it
    /// [`detached`](crate::Command::detached). A process can leave both by starting a session, but
    /// it cannot leave an [`own_cgroup`](crate::Command::own_cgroup). The processes of that control
    /// group get the signal even when the child has ended before; for `SIGKILL` the kernel's
    /// `cgroup.kill` is used if it exists (control groups version 2, Linux 5.14).
    ///
    /// ```
    /// use brood_child_process::{Command, ExitStatus, Signal, Signalled};
    ///
    /// let shell = Command::new("sh").args(["-c", "sleep 60 | sleep 60"]).process_group(0).spawn()?;
    /// assert_eq!(shell.kill_tree(Signal::KILL)?, Signalled::Delivered);
    /// assert_eq!(shell.wait()?, ExitStatus::Signal(Signal::KILL));
    /// # Ok::<(), brood_child_process::Error>(())
    /// ```
    ///
    /// # Errors
    ///
    /// `EPERM` when the child belongs to another user.
    pub fn kill_tree(&self, signal: Signal) -> Result<Signalled, Error> {
        let sent = self.kill_descendants(signal);
        if let Some(group) = self.own_cgroup() {
            kill_cgroup(group, signal, self.pid());
        }
        sent
    }

    fn kill_descendants(&self, signal: Signal) -> Result<Signalled, Error> {
        let mut held = BTreeMap::new();
        // Processes that will be killed are stopped first: a stopped process cannot fork, so no new
        // process appears between the search for its children and its end.
        let freeze = signal == Signal::KILL;
        if freeze && self.kill(Signal::STOP)? == Signalled::AlreadyExited {
            return Ok(Signalled::AlreadyExited);
        }
        // Descendants before the child: they lose their parent, and so the tree, when it ends.
        for _ in 0..ROUNDS_MAX {
            let before = held.len();
            hold_descendants(self.pid(), &mut held, freeze);
            for (signalled, pidfd) in held.values_mut().filter(|(signalled, _)| !signalled) {
                // Fails when the process is gone or belongs to another user.
                let _ = pidfd.send_signal(signal);
                *signalled = true;
            }
            if held.len() == before {
                break;
            }
        }
        let pid = self.pid();
        self.shared().process.while_unreaped(|| {
            if stat_field(pid, GROUP_FIELD) == Some(pid) {
                // Fails when the group is empty or belongs to another user.
                let _ = kill_group(pid, signal);
            }
        });
        self.kill(signal)
    }
}

/// Signals the processes in this control group, except `child`, which has the signal already.
fn kill_cgroup(group: &Path, signal: Signal, child: u32) {
    if signal == Signal::KILL && fs::write(group.join("cgroup.kill"), "1").is_ok() {
        return;
    }
    let mut signalled = vec![child];
    for _ in 0..ROUNDS_MAX {
        let before = signalled.len();
        for pid in processes_in(group) {
            let Ok(pidfd) = PidFd::open(pid) else { continue };
            // Checked again while the pidfd is held: now the id means a process of this group.
            if !signalled.contains(&pid) && processes_in(group).contains(&pid) {
                // Fails when the process is gone or belongs to another user.
                let _ = pidfd.send_signal(signal);
                signalled.push(pid);
            }
        }
        if signalled.len() == before {
            break;
        }
    }
}

fn processes_in(group: &Path) -> Vec<u32> {
    let list = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    list.split_whitespace().flat_map(str::parse).collect()
}

/// Adds the living descendants of `pid`, each with whether it was signalled. `freeze` stops each
/// one before its own children are searched.
fn hold_descendants(pid: u32, held: &mut BTreeMap<u32, (bool, PidFd)>, freeze: bool) {
    let mut parents = vec![pid];
    while let Some(parent) = parents.pop() {
        for child in children(parent) {
            if held.contains_key(&child) {
                parents.push(child);
                continue;
            }
            let Ok(pidfd) = PidFd::open(child) else { continue };
            // Checked while the pidfd is held: now the id means this child.
            if stat_field(child, PARENT_FIELD) == Some(parent) {
                if freeze {
                    // Fails when the process is gone or belongs to another user.
                    let _ = pidfd.send_signal(Signal::STOP);
                }
                held.insert(child, (false, pidfd));
                parents.push(child);
            }
        }
    }
}

/// Returns the children of every thread of `pid`.
fn children(pid: u32) -> Vec<u32> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let lists =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let numbers = |list: String| list.split_whitespace().flat_map(str::parse).collect::<Vec<_>>();
    lists.flat_map(numbers).collect()
}

/// Fields of `/proc/PID/stat`, counted from the one behind the name.
const PARENT_FIELD: usize = 1;
const GROUP_FIELD: usize = 2;

fn stat_field(pid: u32, field: usize) -> Option<u32> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name can hold any byte, parentheses included.
    stat.rsplit_once(')')?.1.split_whitespace().nth(field)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;

    #[test]
    fn descendants_end_with_a_child_that_leads_no_group() {
        let mut shell = crate::Command::new("sh");
        let script = "sleep 60 & sh -c 'echo up; sleep 60; true' & wait";
        let mut child = shell.args(["-c", script]).spawn().unwrap();
        let mut stdout = child.take_stdout().unwrap();
        let mut up = [0; 3];
        stdout.read_exact(&mut up).unwrap();
        assert_eq!(child.kill_tree(Signal::KILL).unwrap(), Signalled::Delivered);
        // The read ends only when every writer has ended.
        stdout.read_to_end(&mut Vec::new()).unwrap();
        child.wait().unwrap();
        assert_eq!(child.kill_tree(Signal::KILL).unwrap(), Signalled::AlreadyExited);
    }

    #[test]
    fn our_own_entry_in_proc_is_read() {
        let me = std::process::id();
        assert_eq!(stat_field(me, PARENT_FIELD), Some(std::os::unix::process::parent_id()));
        assert!(stat_field(me, GROUP_FIELD).is_some());
    }
}
