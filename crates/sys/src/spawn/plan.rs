//! The description of a child: plain data, validated by its types.

use std::borrow::Cow;
use std::ffi::CString;
use std::fmt;
use std::os::fd::BorrowedFd;
use std::time::Duration;

use super::child::socket::SocketProgram;
use crate::capability::Capabilities;
use crate::rlimit::{Limit, Resource};
use crate::seccomp::Filter;
use crate::signal::Signal;

/// The description of a child. Start from [`Plan::new`] and set the fields that matter.
///
/// The defaults are Node's: handlers and `SIGPIPE` are reset, no signal is blocked, descriptors 0
/// to 2 are inherited (`/dev/null` replaces a closed one), and every other descriptor is closed.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// The paths to try in order, as `execvp(3)` does: after a missing file the next path is tried;
    /// a permission error is remembered and the search goes on. Relative paths count from
    /// `current_dir`.
    pub candidates: Vec<CString>,
    /// The arguments, `argv[0]` first. A file that is no executable and has no `#!` is run by
    /// `/bin/sh`, with its path before the arguments.
    pub arguments: Vec<CString>,
    /// The environment, `NAME=value` each. Nothing is inherited.
    pub environment: Vec<CString>,
    /// The working directory; with `None` that of this process.
    pub current_dir: Option<CString>,
    /// The descriptors of the child. No number occurs twice.
    pub descriptors: Vec<Descriptor<'a>>,
    /// The process attributes, lent by the caller or owned by the plan.
    pub attributes: Cow<'a, Attributes>,
    /// `cgroup.procs` of the control group in which the child starts, open for writing.
    pub cgroup: Option<BorrowedFd<'a>>,
    /// The socket that the child opens instead of executing a program.
    #[doc(hidden)]
    pub socket: Option<SocketProgram>,
    /// The network namespace of the child.
    pub network_namespace: Option<BorrowedFd<'a>>,
    /// The mount namespace of the child, at whose root it starts unless `current_dir` is set.
    pub mount_namespace: Option<BorrowedFd<'a>>,
    /// The Landlock ruleset that the child is restricted by.
    pub landlock: Option<BorrowedFd<'a>>,
    /// The longest time until the child has executed its program; see [`spawn`](super::spawn).
    pub start_within: Duration,
}

/// The process attributes that are set in the child before it executes its program.
///
/// The default sets none of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// Makes the child the leader of a new session, and of a new process group.
    pub session: bool,
    /// The number of a descriptor of the child, a terminal, that becomes the controlling terminal of
    /// its session. Needs `session`.
    pub terminal: Option<u32>,
    /// The process group that the child joins; 0 makes a new group that the child leads.
    pub process_group: Option<u32>,
    /// The file mode creation mask.
    pub umask: Option<u32>,
    /// Resource limits, set in this order.
    pub limits: Vec<(Resource, Limit)>,
    /// The nice value, −20 to 19.
    pub nice: Option<i32>,
    /// The processors on which the child may run, by number.
    pub affinity: Option<Vec<u32>>,
    /// The supplementary groups. With `None`, a child that changes its user or group has none. Where
    /// the kernel refuses that, a child that becomes another user is not started, and every other
    /// child keeps the groups.
    pub groups: Option<Vec<u32>>,
    /// The real, effective and saved group.
    pub gid: Option<u32>,
    /// The real, effective and saved user.
    pub uid: Option<u32>,
    /// The signal that the child gets when the **thread** that spawned it ends.
    pub parent_death_signal: Option<Signal>,
    /// The capabilities that stay in the child's bounding set. With `None` the set stays.
    pub bounding: Option<Capabilities>,
    /// The capabilities that the child has although it is not root. With `None` the inheritable and
    /// the ambient set stay, without those that `bounding` lacks.
    pub ambient: Option<Capabilities>,
    /// Forbids the child to gain privileges through the files that it executes. A ruleset and
    /// filters need it, except in a process with `CAP_SYS_ADMIN`.
    pub no_new_privileges: bool,
    /// The filters of system calls, in the order in which they are installed. They must allow
    /// `execve`, and hold for `seccomp`, `write` and `exit_group` of the child as well.
    pub filters: Vec<Filter>,
    /// Whether signals that this process ignores get their default actions. Those with a handler,
    /// `SIGPIPE` and `SIGCHLD` always do.
    pub default_signals: bool,
    /// The signals that are blocked when the child starts.
    pub blocked_signals: Vec<Signal>,
}

/// A descriptor of the child.
#[derive(Clone, Copy, Debug)]
pub struct Descriptor<'fd> {
    /// The number in the child.
    pub number: u32,
    /// The object that it refers to.
    pub source: Source<'fd>,
}

/// The object that a descriptor of the child refers to.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub enum Source<'fd> {
    /// The object of this descriptor of the parent.
    Fd(BorrowedFd<'fd>),
    /// The object of the parent's descriptor with this number at the time of the start. For numbers
    /// 0 to 2 `/dev/null` replaces a descriptor that is closed or close-on-exec.
    Inherit(u32),
    /// `/dev/null`, for reading and writing.
    Null,
    /// No object: the number is closed.
    Closed,
}

impl Plan<'_> {
    /// The default of [`start_within`](Self::start_within).
    pub const START_WITHIN: Duration = Duration::from_secs(10);

    /// Creates a plan with an empty environment and default attributes.
    #[must_use]
    pub fn new(candidates: Vec<CString>, arguments: Vec<CString>) -> Self {
        Self {
            candidates,
            arguments,
            environment: Vec::new(),
            current_dir: None,
            descriptors: Vec::new(),
            attributes: Cow::Owned(Attributes::default()),
            cgroup: None,
            socket: None,
            network_namespace: None,
            mount_namespace: None,
            landlock: None,
            start_within: Self::START_WITHIN,
        }
    }
}

impl Attributes {
    /// Returns whether the child changes its credentials. The kernel then marks the memory that
    /// the child borrows, which is this process's, as not dumpable.
    pub(super) const fn changes_credentials(&self) -> bool {
        self.uid.is_some() || self.gid.is_some() || self.groups.is_some()
    }
}

/// A step between the start of the child and the execution of its program.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Step {
    /// Creating the process: too many processes or descriptors, or too little memory.
    Process,
    /// Creating a session.
    Session,
    /// Joining the process group.
    ProcessGroup,
    /// Entering the control group.
    Cgroup,
    /// Entering the network namespace.
    NetworkNamespace,
    /// Entering the mount namespace.
    MountNamespace,
    /// Setting the processors.
    Affinity,
    /// Setting the nice value.
    Nice,
    /// Changing to the working directory.
    CurrentDir,
    /// Placing the descriptor with this number.
    Descriptor(u32),
    /// Opening a terminal, or making it the controlling terminal of the child.
    Terminal,
    /// Setting this limit.
    Limit(Resource),
    /// Setting the supplementary groups.
    Groups,
    /// Changing the group.
    Gid,
    /// Changing the user.
    Uid,
    /// Dropping capabilities from the bounding set.
    BoundingCapabilities,
    /// Setting the inheritable and ambient capabilities.
    AmbientCapabilities,
    /// Forbidding new privileges.
    NoNewPrivileges,
    /// Setting the parent-death signal, or noticing that the parent is already dead.
    ParentDeathSignal,
    /// Starting the thread that the parent-death signal is tied to.
    ParentDeathThread,
    /// Opening a socket for the parent.
    Socket,
    /// Creating the Landlock ruleset, or restricting the child by it.
    Landlock,
    /// Installing a filter of system calls.
    Seccomp,
    /// Executing the program.
    Program,
}

impl Step {
    /// The steps without a value, in any order.
    const PLAIN: [Self; 21] = [
        Self::Process,
        Self::Session,
        Self::ProcessGroup,
        Self::Cgroup,
        Self::Affinity,
        Self::Nice,
        Self::CurrentDir,
        Self::Terminal,
        Self::Groups,
        Self::Gid,
        Self::Uid,
        Self::NoNewPrivileges,
        Self::ParentDeathSignal,
        Self::NetworkNamespace,
        Self::MountNamespace,
        Self::BoundingCapabilities,
        Self::AmbientCapabilities,
        Self::Landlock,
        Self::Seccomp,
        Self::Socket,
        Self::Program,
    ];
    const DESCRIPTOR: u32 = 1 << 24;
    const LIMIT: u32 = 2 << 24;
    const VALUE: u32 = (1 << 24) - 1;

    /// Returns the step as a number, which a child can store in one operation.
    pub(super) fn code(self) -> u32 {
        match self {
            Self::Descriptor(number) => Self::DESCRIPTOR | number & Self::VALUE,
            Self::Limit(resource) => Self::LIMIT | resource.number(),
            plain => Self::PLAIN.iter().position(|it| *it == plain).unwrap_or(0) as u32,
        }
    }

    /// Returns the step of a number; `Process` for a number of none.
    pub(super) fn of_code(code: u32) -> Self {
        let value = code & Self::VALUE;
        match code & !Self::VALUE {
            Self::DESCRIPTOR => Self::Descriptor(value),
            Self::LIMIT => Resource::of_number(value).map_or(Self::Process, Self::Limit),
            _ => Self::PLAIN.get(value as usize).copied().unwrap_or(Self::Process),
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Process => "process",
            Self::Session => "session",
            Self::ProcessGroup => "process group",
            Self::Cgroup => "control group",
            Self::NetworkNamespace => "network namespace",
            Self::MountNamespace => "mount namespace",
            Self::Affinity => "affinity",
            Self::Nice => "nice value",
            Self::CurrentDir => "working directory",
            Self::Descriptor(number) => return write!(f, "descriptor {number}"),
            Self::Terminal => "controlling terminal",
            Self::Limit(resource) => return write!(f, "limit {resource:?}"),
            Self::Groups => "groups",
            Self::Gid => "gid",
            Self::Uid => "uid",
            Self::BoundingCapabilities => "bounding capabilities",
            Self::AmbientCapabilities => "ambient capabilities",
            Self::NoNewPrivileges => "no new privileges",
            Self::ParentDeathSignal => "parent-death signal",
            Self::ParentDeathThread => "thread of the parent-death signal",
            Self::Socket => "socket",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
            Self::Program => "program",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_of_a_child_has_a_number_of_its_own() {
        let others = [Step::Descriptor(0), Step::Descriptor(65_535)];
        let limits = [Resource::AddressSpace, Resource::StackBytes].map(Step::Limit);
        for step in Step::PLAIN.into_iter().chain(others).chain(limits) {
            assert_eq!(Step::of_code(step.code()), step);
        }
        assert_eq!(Step::of_code(u32::MAX), Step::Process);
    }
}
