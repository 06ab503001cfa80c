//! What a child shall be: plain data, validated by its types.

use std::ffi::CString;
use std::fmt;
use std::os::fd::BorrowedFd;

use crate::limit::{Limit, Resource};
use crate::signal::Signal;

/// What the child is to become. Start from [`Plan::new`] and set the fields that matter.
///
/// Everything not asked for is as in Node: handlers and `SIGPIPE` back to default, no signal
/// blocked, descriptors 0 to 2 inherited (and `/dev/null` where they are closed), every other
/// descriptor closed.
#[derive(Clone, Debug)]
pub struct Plan<'fd> {
    /// Paths to try in order, as `execvp(3)` does: a missing one leads to the next, a forbidden
    /// one is remembered. Relative paths count from `current_dir`.
    pub candidates: Vec<CString>,
    /// `argv`, the program's name for itself first. A file that is no program and has no `#!` is
    /// run by `/bin/sh` with its path in front of the arguments.
    pub arguments: Vec<CString>,
    /// `NAME=value` each. There is no inheriting: say what the child shall have.
    pub environment: Vec<CString>,
    /// Where the child works; ours without.
    pub current_dir: Option<CString>,
    /// What stands under which number. No number twice.
    pub descriptors: Vec<Descriptor<'fd>>,
    /// Makes the child leader of a new session (and of a new process group).
    pub session: bool,
    /// Puts the child into this process group; 0: a new one that it leads.
    pub process_group: Option<u32>,
    /// The file mode bits that are cleared.
    pub umask: Option<u32>,
    /// Limits to set, in order.
    pub limits: Vec<(Resource, Limit)>,
    /// The nice value, −20 to 19.
    pub nice: Option<i32>,
    /// The processors the child may run on, by number.
    pub affinity: Option<Vec<u32>>,
    /// Supplementary groups. Without, a child that changes uid or gid has none, where we may
    /// take them away.
    pub groups: Option<Vec<u32>>,
    /// Real, effective and saved group.
    pub gid: Option<u32>,
    /// Real, effective and saved user.
    pub uid: Option<u32>,
    /// The signal the child gets when the **thread** that spawned it ends.
    pub parent_death_signal: Option<Signal>,
    /// `cgroup.procs` of the group the child shall start in, open for writing.
    pub cgroup: Option<BorrowedFd<'fd>>,
    /// Never gain rights through the files that are executed.
    pub no_new_privileges: bool,
    /// The signals the child starts with blocked.
    pub blocked_signals: Vec<Signal>,
}

/// A descriptor of the child.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor<'fd> {
    /// Its number in the child.
    pub number: u32,
    /// What it leads to.
    pub source: Source<'fd>,
}

/// What a descriptor of the child leads to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Source<'fd> {
    /// The same as this one of ours.
    Fd(BorrowedFd<'fd>),
    /// The same as the one with this number in the parent, whatever it is when the child starts;
    /// for numbers 0 to 2 `/dev/null` where it is closed or close-on-exec.
    Inherit(u32),
    /// `/dev/null`, for reading and writing.
    Null,
    /// Nothing: the number is closed.
    Closed,
}

impl Plan<'_> {
    /// A plan with an empty environment and nothing special.
    #[must_use]
    pub const fn new(candidates: Vec<CString>, arguments: Vec<CString>) -> Self {
        Self {
            candidates,
            arguments,
            environment: Vec::new(),
            current_dir: None,
            descriptors: Vec::new(),
            session: false,
            process_group: None,
            umask: None,
            limits: Vec::new(),
            nice: None,
            affinity: None,
            groups: None,
            gid: None,
            uid: None,
            parent_death_signal: None,
            cgroup: None,
            no_new_privileges: false,
            blocked_signals: Vec::new(),
        }
    }

    /// Whether the child changes who it is: then the kernel marks our memory, which it still
    /// borrows, as not dumpable.
    pub(super) const fn changes_credentials(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups.is_some()
    }
}

/// Where in the child's way to its program something failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Making the process: too many processes, descriptors or too little memory.
    Process,
    /// Making a session.
    Session,
    /// Joining the process group.
    ProcessGroup,
    /// Entering the control group.
    Cgroup,
    /// Choosing processors.
    Affinity,
    /// Setting the nice value.
    Nice,
    /// Changing to the working directory.
    CurrentDir,
    /// Placing the descriptor with this number.
    Descriptor(u32),
    /// Setting this limit.
    Limit(Resource),
    /// Setting the supplementary groups.
    Groups,
    /// Changing the group.
    Gid,
    /// Changing the user.
    Uid,
    /// Giving up new privileges.
    NoNewPrivileges,
    /// Asking for the parent-death signal, or finding that the parent is dead already.
    ParentDeathSignal,
    /// Executing the program.
    Program,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Session => "session",
            Self::ProcessGroup => "process group",
            Self::Cgroup => "control group",
            Self::Affinity => "affinity",
            Self::Nice => "nice value",
            Self::CurrentDir => "working directory",
            Self::Descriptor(number) => return write!(f, "descriptor {number}"),
            Self::Limit(resource) => return write!(f, "limit {resource:?}"),
            Self::Groups => "groups",
            Self::Gid => "gid",
            Self::Uid => "uid",
            Self::NoNewPrivileges => "no new privileges",
            Self::ParentDeathSignal => "parent-death signal",
            Self::Program => "program",
        })
    }
}
