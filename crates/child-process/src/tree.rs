//! Signals for a child together with its descendants.
//!
//! The kernel lists the children of each process. Each descendant is opened as a pidfd before it is
//! signalled, and its parent is checked afterwards: a process id that has come to mean another
//! process is noticed, because the parent of that process is not in the tree.
//!
//! A process that cannot be seen or signalled is a [`TreeError`], after all others have the signal.
//!
//! Limits: a process that has left the tree (its parent ended, and another process adopted it) is
//! reached only through a control group of the child's own, or through the process group if the
//! child leads one. The tree is searched [`ROUNDS_MAX`] times.

use std::collections::BTreeMap;
use std::io;

use sys::errno::ESRCH;
use sys::pidfd::PidFd;
use sys::signal::Signal;

use crate::control_group::ControlGroup;
use crate::error::Error;
use crate::proc_fs;
use crate::process::Process;
use crate::signalled::{Signalled, TreeError};

/// The number of searches of the tree for processes that were started meanwhile.
const ROUNDS_MAX: usize = 8;

/// The call that a search of `/proc` is named by.
const READING_PROC: &str = "reading /proc";

/// Sends `signal` to the process, to its descendants, to its process group if it leads one, and to
/// the processes in `cgroup`. The result says whether the process ran before.
pub(crate) fn signal(
    process: &Process,
    cgroup: Option<&ControlGroup>,
    signal: Signal,
) -> Result<Signalled, Error> {
    let mut tree =
        Tree { process, signal, held: BTreeMap::new(), unreached: Vec::new(), failure: None };
    // Processes that will be killed are stopped first: a stopped process cannot fork, so no new
    // process appears between the search for its children and its end.
    if signal == Signal::KILL {
        // A failure is that of the signal below, too, which reports it.
        let _ = process.signal_unreaped(Signal::STOP);
    }
    // The descendants are found before the child gets the signal, because they lose their parent,
    // and so the tree, when it ends. They get the signal after the child, because a child may end
    // when its own children do, and would then count as ended before.
    let proc = proc_fs::check();
    if proc.is_ok() {
        tree.rounds(Tree::hold_descendants);
    }
    let child = process.signal_group(signal);
    match proc {
        Ok(()) => tree.rounds(|tree| {
            tree.signal_held();
            tree.hold_descendants();
        }),
        Err(error) => tree.fail(READING_PROC, error),
    }
    if let Some(cgroup) = cgroup {
        tree.signal_cgroup(cgroup);
    }
    let (child, group) = child?;
    if let Err(Error::Os(call, error)) = group {
        tree.fail(call, error);
    }
    match tree.failure {
        None => Ok(child),
        Some((call, source)) => {
            let unreached = tree.unreached;
            Err(Error::Tree(Box::new(TreeError { child, unreached, call, source })))
        }
    }
}

/// A search for the processes of a tree.
struct Tree<'a> {
    process: &'a Process,
    signal: Signal,
    /// The descendants that were found, each with whether it was signalled.
    held: BTreeMap<u32, (bool, PidFd)>,
    /// The processes that were found and could not be signalled.
    unreached: Vec<u32>,
    /// The first failure, and the call that failed.
    failure: Option<(&'static str, io::Error)>,
}

impl Tree<'_> {
    /// Repeats `search` until it finds no further process.
    fn rounds(&mut self, search: impl Fn(&mut Self)) {
        for _ in 0..ROUNDS_MAX {
            let before = self.held.len();
            search(self);
            if self.held.len() == before {
                return;
            }
        }
        self.fail(READING_PROC, too_fast());
    }

    fn signal_held(&mut self) {
        let mut held = std::mem::take(&mut self.held);
        for (pid, (signalled, pidfd)) in held.iter_mut().filter(|(_, (signalled, _))| !signalled) {
            self.send(*pid, pidfd, self.signal);
            *signalled = true;
        }
        self.held = held;
    }

    /// Adds the living descendants of the process. Those that will be killed are stopped before
    /// their own children are searched.
    fn hold_descendants(&mut self) {
        let mut parents: Vec<u32> = self.held.keys().copied().collect();
        parents.push(self.process.pid());
        while let Some(parent) = parents.pop() {
            let children = match proc_fs::children(parent) {
                Ok(children) => children,
                // A process that has ended has no children.
                Err(_) if !self.runs(parent) => continue,
                Err(error) => {
                    self.fail(READING_PROC, error);
                    continue;
                }
            };
            for child in children {
                if self.held.contains_key(&child) {
                    continue;
                }
                let Some(pidfd) = self.open(child) else { continue };
                // Checked while the pidfd is held: now the id means this child. A process of
                // another user may be hidden, but its parent lists it.
                let is_child = match proc_fs::parent(child) {
                    Some(found) => found == parent,
                    None => proc_fs::children(parent).is_ok_and(|list| list.contains(&child)),
                };
                // Checked afterwards: until now the id of the parent meant the parent.
                if is_child && self.is_unreaped(parent) {
                    if self.signal == Signal::KILL {
                        // A process that cannot be stopped cannot be killed, which is reported.
                        let _ = pidfd.send_signal(Signal::STOP);
                    }
                    self.held.insert(child, (false, pidfd));
                    parents.push(child);
                }
            }
        }
    }

    /// Returns whether this process of the tree has not ended.
    fn runs(&self, pid: u32) -> bool {
        match self.held.get(&pid) {
            Some((_, pidfd)) => !matches!(pidfd.is_alive(), Ok(false)),
            None => self.process.known_status().is_none() && !self.process.has_ended(),
        }
    }

    /// Returns whether the id of this process of the tree cannot mean another process.
    fn is_unreaped(&self, pid: u32) -> bool {
        match self.held.get(&pid) {
            Some((_, pidfd)) => matches!(pidfd.is_alive(), Ok(true)),
            None => self.process.known_status().is_none(),
        }
    }

    /// Signals the processes in this control group, except the child, which has the signal already.
    fn signal_cgroup(&mut self, group: &ControlGroup) {
        if self.signal == Signal::KILL && group.kill().is_ok() {
            return;
        }
        let mut signalled = vec![self.process.pid()];
        for _ in 0..ROUNDS_MAX {
            let before = signalled.len();
            for pid in self.processes_in(group) {
                if signalled.contains(&pid) {
                    continue;
                }
                let Some(pidfd) = self.open(pid) else { continue };
                // Checked again while the pidfd is held: now the id means a process of this group.
                if self.processes_in(group).contains(&pid) {
                    self.send(pid, &pidfd, self.signal);
                    signalled.push(pid);
                }
            }
            if signalled.len() == before {
                return;
            }
        }
        self.fail("reading cgroup.procs", too_fast());
    }

    fn processes_in(&mut self, group: &ControlGroup) -> Vec<u32> {
        group.processes().unwrap_or_else(|error| {
            self.fail("reading cgroup.procs", error);
            Vec::new()
        })
    }

    fn open(&mut self, pid: u32) -> Option<PidFd> {
        match PidFd::open(pid) {
            Ok(pidfd) => Some(pidfd),
            Err(error) => {
                self.not_reached(pid, "pidfd_open", error);
                None
            }
        }
    }

    fn send(&mut self, pid: u32, pidfd: &PidFd, signal: Signal) {
        if let Err(error) = pidfd.send_signal(signal) {
            self.not_reached(pid, "pidfd_send_signal", error);
        }
    }

    fn not_reached(&mut self, pid: u32, call: &'static str, error: io::Error) {
        // A process that is gone needs no signal.
        if error.raw_os_error() != Some(ESRCH) {
            if !self.unreached.contains(&pid) {
                self.unreached.push(pid);
            }
            self.fail(call, error);
        }
    }

    /// Records a failure. The first one stays.
    fn fail(&mut self, call: &'static str, error: io::Error) {
        self.failure.get_or_insert((call, error));
    }
}

fn too_fast() -> io::Error {
    io::Error::other("processes are started faster than they are found")
}

#[cfg(test)]
mod tests {
    use std::ffi::CString;
    use std::io::Read;

    use sys::pidfd::ExitStatus;
    use sys::spawn::{Plan, spawn};

    use super::*;

    /// Starts a program that nothing but the test waits for.
    fn start(arguments: &[&str]) -> Process {
        let arguments: Vec<_> = arguments.iter().map(|text| CString::new(*text).unwrap()).collect();
        let paths = ["/bin/", "/usr/bin/"].map(|directory| {
            CString::new([directory.as_bytes(), arguments[0].as_bytes()].concat()).unwrap()
        });
        let spawned = spawn(&Plan::new(paths.to_vec(), arguments)).unwrap();
        Process::new(spawned.pid, spawned.pidfd)
    }

    fn end(process: &Process) {
        process.signal(Signal::KILL).unwrap();
        process.wait_until(None).unwrap();
    }

    fn tree(process: &Process, signal: Signal) -> Tree<'_> {
        Tree { process, signal, held: BTreeMap::new(), unreached: Vec::new(), failure: None }
    }

    /// A shell that has a child.
    fn parent() -> crate::Child {
        let script = "sleep 60 & echo up; wait";
        let mut shell = crate::Command::new("sh").args(["-c", script]).spawn().unwrap();
        shell.take_stdout().unwrap().read_exact(&mut [0; 3]).unwrap();
        shell
    }

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
    fn a_process_runs_until_it_has_ended_and_its_id_means_it_until_it_is_reaped() {
        let (root, other) = (start(&["sleep", "60"]), start(&["sleep", "60"]));
        let mut tree = tree(&root, Signal::TERM);
        tree.held.insert(other.pid(), (false, PidFd::open(other.pid()).unwrap()));
        for process in [&root, &other] {
            let (pid, end) = (process.pid(), Signal::KILL);
            assert!(tree.runs(pid) && tree.is_unreaped(pid));
            process.signal(end).unwrap();
            sys::poll::readable(std::os::fd::AsFd::as_fd(process.pidfd()), None).unwrap();
            assert!(tree.is_unreaped(pid), "a zombie keeps its id");
            let status = process.wait_until(None).unwrap();
            assert_eq!(status, Some(ExitStatus::Signal(end)));
            assert!(!tree.runs(pid) && !tree.is_unreaped(pid));
        }
    }

    #[test]
    fn a_descendant_that_has_ended_has_no_children_and_is_no_failure() {
        let (root, other) = (start(&["sleep", "60"]), start(&["sleep", "60"]));
        let mut tree = tree(&root, Signal::TERM);
        tree.held.insert(other.pid(), (false, PidFd::open(other.pid()).unwrap()));
        end(&other);
        tree.hold_descendants();
        assert!(tree.failure.is_none(), "{:?}", tree.failure);
        end(&root);
    }

    /// A descendant has ended, and its id means another process by now.
    #[test]
    fn children_of_a_process_that_has_got_the_id_of_a_descendant_are_not_held() {
        let (root, ended) = (start(&["sleep", "60"]), start(&["sleep", "60"]));
        let shell = parent();
        let held = |pidfd| {
            let mut tree = tree(&root, Signal::TERM);
            tree.held.insert(shell.pid(), (false, pidfd));
            tree.hold_descendants();
            tree.held.len()
        };
        assert_eq!(held(PidFd::open(shell.pid()).unwrap()), 2, "the shell has a child");
        let of_the_ended = PidFd::open(ended.pid()).unwrap();
        end(&ended);
        assert_eq!(held(of_the_ended), 1);
        shell.kill_tree(Signal::KILL).unwrap();
        end(&root);
    }

    #[test]
    fn every_process_of_a_control_group_but_the_child_gets_the_signal() {
        let (root, member) = (start(&["sleep", "60"]), start(&["sleep", "60"]));
        let group = tempfile::tempdir().unwrap();
        let list = format!("{}\n{}\n", root.pid(), member.pid());
        std::fs::write(group.path().join("cgroup.procs"), list).unwrap();
        let mut tree = tree(&root, Signal::TERM);
        tree.signal_cgroup(&ControlGroup::open(group.path()).unwrap());
        assert!(tree.failure.is_none(), "{:?}", tree.failure);
        let status = member.wait_until(None).unwrap();
        assert_eq!(status, Some(ExitStatus::Signal(Signal::TERM)));
        assert_eq!(root.try_wait().unwrap(), None, "the child has its signal already");
        end(&root);
    }
}
