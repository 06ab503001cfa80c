//! The restrictions of a process, as data: what it may reach once it runs.

mod hardened;
pub(crate) mod needs;
pub(crate) mod ruleset;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sys::capability::{Capabilities, Capability};
use sys::rlimit::{Limit, Resource};
use sys::seccomp::Filter;

use crate::error::InvalidOption;

/// Restrictions of a process, for [`Command::sandbox`](crate::Command::sandbox) and for the workers
/// of a cluster.
///
/// A sandbox is plain data: it can be cloned, compared and used for any number of processes. The
/// restrictions are set in the child, after its user and groups, before it executes its program; they
/// are permanent, and hold for every process that the child starts. A restriction that cannot be set
/// ends the start, and the error names the [`Step`](crate::Step).
///
/// The order is: control group, namespaces, umask, limits, bounding capabilities, groups and user,
/// ambient capabilities, [`no_new_privileges`](Self::no_new_privileges), Landlock, filters.
///
/// # Paths
///
/// The first call of [`read`](Self::read), [`write`](Self::write) or [`execute`](Self::execute)
/// closes the file system: the process can open, change or execute only what these calls name, by
/// Landlock. Descriptors that it inherits or receives keep working. Files that
/// `execve` needs are added, for the program of the command:
///
/// - the program, and the interpreter in the first line of a script, with its own interpreter;
/// - the loader of a dynamic program, such as `/lib64/ld-linux-x86-64.so.2`;
/// - `/bin/sh`, for a shell line and for a program without a header;
/// - for reading: `/etc/ld.so.cache`, `/etc/ld.so.preload`, and the folders `/lib`, `/lib32`,
///   `/lib64`, `/usr/lib`, `/usr/lib32`, `/usr/lib64` and `/usr/local/lib`.
///
/// Not added: libraries in other folders (`LD_LIBRARY_PATH`, a run path), the program that
/// `#!/usr/bin/env` looks up, the programs that a shell line names, a script that is an argument.
/// A path is looked up by this process at each start, with its symbolic links, and names the file or
/// folder that is there then.
///
/// Landlock does not restrict `stat(2)`, `chdir(2)`, nor connecting to a Unix socket by its path,
/// for which the permissions of the socket's file hold. In TCP it restricts ports, not addresses;
/// UDP is not restricted at all, see [`network_namespace`](Self::network_namespace). MPTCP,
/// SMC, `MSG_FASTOPEN` and `io_uring` lead around the rules for ports, so a process with such rules has
/// the filter [`Filter::around_ports`] as well.
///
/// ```
/// use brood_child_process::{Command, Sandbox};
///
/// if brood_child_process::Sandbox::landlock_version() < 3 {
///     return Ok(()); // This kernel has no Landlock, or an old one.
/// }
/// let sandbox = Sandbox::new().read("/etc/hostname").execute("/bin/cat");
/// let output = Command::new("/bin/cat").arg("/etc/passwd").sandbox(sandbox).output()?;
/// assert_eq!(output.status.code(), Some(1));
/// assert!(output.stderr_text().contains("Permission denied"));
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "a sandbox restricts nothing until a command or a worker has it"]
pub struct Sandbox {
    pub(crate) no_new_privileges: Option<bool>,
    pub(crate) bounding: Option<Capabilities>,
    /// A process that may not change the bounding set starts its child without this step.
    pub(crate) bounding_if_allowed: bool,
    pub(crate) ambient: Option<Capabilities>,
    pub(crate) limits: Vec<(Resource, Limit)>,
    pub(crate) umask: Option<u32>,
    pub(crate) cgroup: Option<PathBuf>,
    /// `None` for the whole file system.
    pub(crate) paths: Option<Vec<PathRule>>,
    /// `None` for every port.
    pub(crate) bind_tcp: Option<Vec<u16>>,
    /// `None` for every port.
    pub(crate) connect_tcp: Option<Vec<u16>>,
    pub(crate) scoped: bool,
    pub(crate) best_effort: bool,
    pub(crate) filters: Vec<Filter>,
    pub(crate) network_namespace: Option<Namespace>,
    pub(crate) mount_namespace: Option<Namespace>,
    pub(crate) undumpable: Undumpable,
    pub(crate) forbids_execve: bool,
    pub(crate) is_hardened: bool,
}

/// A path, and the access that a process has to it and to everything below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PathRule {
    pub(crate) path: PathBuf,
    pub(crate) access: PathAccess,
    /// Skipped where it is absent.
    pub(crate) optional: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PathAccess {
    Read,
    /// Reading included.
    Write,
    /// Reading included.
    Execute,
}

/// Whether the process itself is to forbid that others look into it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Undumpable {
    #[default]
    No,
    /// Where its program can do that.
    IfNative,
    Required,
}

/// A namespace, by a descriptor that clones share.
#[derive(Clone, Debug)]
pub(crate) struct Namespace(Arc<OwnedFd>);

impl Namespace {
    pub(crate) fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl PartialEq for Namespace {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Namespace {}

impl Sandbox {
    /// The largest number of paths, of ports to bind, of ports to connect to, and of filters, each:
    /// 1024.
    pub const RULES_MAX: usize = 1024;

    /// Creates a sandbox that restricts nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Returns the version of Landlock in this kernel, and 0 where it is absent or turned off. Rules
    /// for paths need version 3 (Linux 6.2), rules for ports 4 (6.7), and [`scoped`](Self::scoped)
    /// 6 (6.12).
    #[must_use]
    pub fn landlock_version() -> u32 {
        sys::landlock::version()
    }

    /// Sets whether the process is forbidden, permanently, to gain privileges through the files that
    /// it executes.
    ///
    /// By default this is forbidden to a process with rules of Landlock or filters, for which
    /// `false` is an error, and to workers under another user than the primary's.
    pub fn no_new_privileges(mut self, forbidden: bool) -> Self {
        self.no_new_privileges = Some(forbidden);
        self
    }

    /// Drops all capabilities but these from the bounding set: root, and programs with capabilities
    /// of their own, get no others. They are removed from the inheritable and ambient set as well.
    ///
    /// Needs `CAP_SETPCAP`; without it the start fails with
    /// [`Step::BoundingCapabilities`](crate::Step::BoundingCapabilities).
    pub fn bounding(mut self, kept: impl IntoIterator<Item = Capability>) -> Self {
        self.bounding = Some(kept.into_iter().collect());
        self.bounding_if_allowed = false;
        self
    }

    /// Sets the capabilities that the process has although it is not root: the ambient and the
    /// inheritable set. With an empty list it has none, even if this process has ambient ones.
    ///
    /// They must be in the list of [`bounding`](Self::bounding), if that is set, and this process must
    /// have them.
    pub fn ambient(mut self, capabilities: impl IntoIterator<Item = Capability>) -> Self {
        self.ambient = Some(capabilities.into_iter().collect());
        self
    }

    /// Sets a resource limit. Limits are set in the order of the calls.
    pub fn limit(mut self, resource: Resource, limit: Limit) -> Self {
        self.limits.push((resource, limit));
        self
    }

    /// Sets the file mode creation mask: the mode bits that new files do not get.
    pub fn umask(mut self, mask: u32) -> Self {
        self.umask = Some(mask);
        self
    }

    /// Starts the process inside a control group, a directory below `/sys/fs/cgroup`.
    pub fn cgroup(mut self, directory: impl AsRef<Path>) -> Self {
        self.cgroup = Some(directory.as_ref().to_owned());
        self
    }

    /// Allows to read a file, or a folder with everything below it, and closes the rest of the file
    /// system: see [above](Self#paths).
    pub fn read(self, path: impl AsRef<Path>) -> Self {
        self.path(path.as_ref(), PathAccess::Read, false)
    }

    /// Allows to read and write a file, or a folder with everything below it: to create, rename,
    /// truncate and remove files and folders, and to control devices. See [above](Self#paths).
    pub fn write(self, path: impl AsRef<Path>) -> Self {
        self.path(path.as_ref(), PathAccess::Write, false)
    }

    /// Allows to read and execute a file, or all files of a folder and below. See
    /// [above](Self#paths).
    pub fn execute(self, path: impl AsRef<Path>) -> Self {
        self.path(path.as_ref(), PathAccess::Execute, false)
    }

    pub(crate) fn path(mut self, path: &Path, access: PathAccess, optional: bool) -> Self {
        let path = path.to_owned();
        self.paths.get_or_insert_default().push(PathRule { path, access, optional });
        self
    }

    /// Allows to bind these TCP ports, and no others that earlier calls do not name. With an empty
    /// list no port can be bound; port 0 allows the range of ephemeral ports.
    ///
    /// Sockets that a primary has opened for its worker need no rule.
    pub fn bind_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.bind_tcp.get_or_insert_default().extend(ports);
        self
    }

    /// Allows to connect to these TCP ports, of any address, and to no others that earlier calls do
    /// not name. With an empty list the process cannot connect at all.
    pub fn connect_tcp(mut self, ports: impl IntoIterator<Item = u16>) -> Self {
        self.connect_tcp.get_or_insert_default().extend(ports);
        self
    }

    /// Forbids signals to processes outside of the sandbox, and connections to Unix sockets in the
    /// abstract namespace that were made outside. Each process that is started has a sandbox of its own,
    /// which its children share. Signals from outside are delivered.
    pub fn scoped(mut self) -> Self {
        self.scoped = true;
        self
    }

    /// Starts the process also where the kernel has no Landlock, or an older version than the rules
    /// need; such rules are left out. Without this option the start fails with
    /// [`Step::Landlock`](crate::Step::Landlock).
    pub fn best_effort(mut self) -> Self {
        self.best_effort = true;
        self
    }

    /// Adds a filter of system calls: a ready program, such as the crate `seccompiler` makes, see
    /// [`Filter`]. Filters are set last, in the order of the calls.
    ///
    /// A filter must allow `execve`; this process reports an `execve` that it refuses as the failure of
    /// [`Step::Program`](crate::Step::Program), if it allows `write` and `exit_group`.
    pub fn filter(mut self, filter: Filter) -> Self {
        self.filters.push(filter);
        self
    }

    /// Starts the process in this network namespace, such as an open file of `/run/netns`. Needs
    /// `CAP_SYS_ADMIN`.
    pub fn network_namespace(mut self, namespace: impl Into<OwnedFd>) -> Self {
        self.network_namespace = Some(Namespace(Arc::new(namespace.into())));
        self
    }

    /// Starts the process in this mount namespace. Its paths, the program included, are looked up
    /// there, and it starts in the root folder unless it has a working directory of its own. Needs
    /// `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`.
    pub fn mount_namespace(mut self, namespace: impl Into<OwnedFd>) -> Self {
        self.mount_namespace = Some(Namespace(Arc::new(namespace.into())));
        self
    }

    /// With `false`, forbids core dumps of the process, and that other processes of its user trace
    /// it or read its memory. See `PR_SET_DUMPABLE` in `prctl(2)`.
    ///
    /// `execve` resets this, so the process must do it itself: the runtime of a worker that runs
    /// this program. Everywhere else the option is an error: for a [`Command`](crate::Command), and
    /// for workers that run another program or Node.
    pub fn dumpable(mut self, dumpable: bool) -> Self {
        self.undumpable = if dumpable { Undumpable::No } else { Undumpable::Required };
        self
    }

    /// Forbids the process to execute programs. The runtime of a worker sets this, so it has the
    /// limits of [`dumpable`](Self::dumpable).
    pub fn forbid_execve(mut self) -> Self {
        self.forbids_execve = true;
        self
    }

    pub(crate) fn uses_landlock(&self) -> bool {
        let has_ports = self.bind_tcp.is_some() || self.connect_tcp.is_some();
        self.paths.is_some() || has_ports || self.scoped
    }

    /// Returns the filters in the order in which they are installed.
    pub(crate) fn all_filters(&self) -> Vec<Filter> {
        let has_ports = self.bind_tcp.is_some() || self.connect_tcp.is_some();
        let first = has_ports.then(Filter::around_ports);
        first.into_iter().chain(self.filters.iter().cloned()).collect()
    }

    /// Returns whether the process must be unable to gain privileges.
    pub(crate) fn needs_no_new_privileges(&self) -> bool {
        self.no_new_privileges == Some(true) || self.has_rules()
    }

    fn has_rules(&self) -> bool {
        self.uses_landlock() || !self.filters.is_empty()
    }

    /// Sets what a process under another user has by default: no way to new privileges, and no
    /// capabilities of this process.
    pub(crate) fn of_another_user(mut self) -> Self {
        self.no_new_privileges.get_or_insert(true);
        self.ambient.get_or_insert_default();
        self
    }

    /// Returns the capabilities that stay in the bounding set.
    pub(crate) fn bounding_kept(&self) -> Option<Capabilities> {
        let may = || sys::capability::effective().is_ok_and(|it| it.contains(Capability::SETPCAP));
        self.bounding.filter(|_| !self.bounding_if_allowed || may())
    }

    /// Checks what can be checked without the kernel.
    pub(crate) fn check(&self) -> Result<(), InvalidOption> {
        let counts = [
            ("sandbox.paths", self.paths.as_ref().map_or(0, Vec::len)),
            ("sandbox.bind_tcp", self.bind_tcp.as_ref().map_or(0, Vec::len)),
            ("sandbox.connect_tcp", self.connect_tcp.as_ref().map_or(0, Vec::len)),
            ("sandbox.filter", self.filters.len()),
        ];
        for (field, count) in counts {
            if count > Self::RULES_MAX {
                return Err(InvalidOption::range(field, "must have at most 1024 rules"));
            }
        }
        if self.umask.is_some_and(|umask| umask > 0o777) {
            return Err(InvalidOption::range("sandbox.umask", "must be from 0 to 0o777"));
        }
        if self.no_new_privileges == Some(false) && self.has_rules() {
            let why = "must be set for rules of Landlock and filters";
            return Err(InvalidOption::value("sandbox.no_new_privileges", why));
        }
        let bounding = self.bounding.filter(|_| !self.bounding_if_allowed);
        let ambient = self.ambient.unwrap_or_default();
        if bounding.is_some_and(|bounding| !ambient.without(bounding).is_empty()) {
            let why = "must be in the bounding set";
            return Err(InvalidOption::value("sandbox.ambient", why));
        }
        let own = "can be set for workers that run this program only";
        if self.undumpable == Undumpable::Required {
            return Err(InvalidOption::value("sandbox.dumpable", own));
        }
        if self.forbids_execve {
            return Err(InvalidOption::value("sandbox.forbid_execve", own));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sandbox_without_options_needs_nothing() {
        let sandbox = Sandbox::new();
        assert!(!sandbox.uses_landlock() && !sandbox.needs_no_new_privileges());
        assert!(sandbox.check().is_ok() && sandbox.bounding_kept().is_none());
        assert!(Sandbox::new().read("/").needs_no_new_privileges());
        assert!(Sandbox::new().bind_tcp([]).uses_landlock());
        assert!(Sandbox::new().scoped().uses_landlock());
        assert!(Sandbox::new().filter(Filter::for_servers()).needs_no_new_privileges());
    }

    #[test]
    fn options_that_cannot_hold_are_refused_by_their_names() {
        let refused = |sandbox: Sandbox| sandbox.check().unwrap_err().field;
        assert_eq!(refused(Sandbox::new().umask(0o1000)), "sandbox.umask");
        assert_eq!(refused(Sandbox::new().bind_tcp(0..1025)), "sandbox.bind_tcp");
        assert!(Sandbox::new().bind_tcp(0..1024).check().is_ok());
        let kill = [Capability::KILL];
        assert_eq!(refused(Sandbox::new().bounding([]).ambient(kill)), "sandbox.ambient");
        assert!(Sandbox::new().bounding(kill).ambient(kill).check().is_ok());
        let privileged = Sandbox::new().no_new_privileges(false);
        assert!(privileged.check().is_ok());
        assert_eq!(refused(privileged.scoped()), "sandbox.no_new_privileges");
        assert_eq!(refused(Sandbox::new().dumpable(false)), "sandbox.dumpable");
        assert!(Sandbox::new().dumpable(false).dumpable(true).check().is_ok());
        assert_eq!(refused(Sandbox::new().forbid_execve()), "sandbox.forbid_execve");
    }

    #[test]
    fn namespaces_are_equal_when_clones_share_them() {
        let null = || std::fs::File::open("/dev/null").unwrap();
        let one = Sandbox::new().network_namespace(null());
        assert_eq!(one, one.clone());
        assert_ne!(one, Sandbox::new().network_namespace(null()));
    }
}
