//! The sandbox that suits most servers.

use std::path::Path;

use sys::capability::Capabilities;
use sys::seccomp::Filter;

use super::{PathAccess, Sandbox, Undumpable};

/// The files that most servers read: names and addresses, time zones, certificates, and facts about
/// machine and process.
const READ: &[&str] = &[
    "/dev/random",
    "/dev/urandom",
    "/dev/zero",
    "/etc/ca-certificates",
    "/etc/gai.conf",
    "/etc/group",
    "/etc/host.conf",
    "/etc/hosts",
    "/etc/localtime",
    "/etc/mime.types",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/pki",
    "/etc/protocols",
    "/etc/resolv.conf",
    "/etc/services",
    "/etc/ssl",
    "/etc/timezone",
    "/proc",
    "/sys/devices/system",
    "/sys/fs/cgroup",
    "/sys/kernel/mm/transparent_hugepage",
    "/usr/share/ca-certificates",
    "/usr/share/zoneinfo",
];

const WRITE: &[&str] = &["/dev/full", "/dev/null"];

impl Sandbox {
    /// Creates the sandbox that suits most servers, to which further calls add what the program
    /// needs.
    ///
    /// The process can:
    ///
    /// - serve the connections of sockets that it inherits or receives, and use every descriptor that
    ///   it has;
    /// - execute its own program, and nothing else, see [Paths](Self#paths);
    /// - read the files that name servers, users, time zones and certificates of the system, `/proc`,
    ///   and the parts of `/sys` that describe processors and control groups;
    /// - write to `/dev/null` and `/dev/full`;
    /// - use UDP, and connect to Unix sockets by their paths, as far as their permissions allow.
    ///
    /// It can open no other file, bind no TCP port, connect to no TCP port, signal or trace no process
    /// outside of itself and its children, connect to no abstract Unix socket of others, and has no
    /// capability. [`Filter::for_servers`] refuses further calls. A worker that runs this program is
    /// not [`dumpable`](Self::dumpable).
    ///
    /// The bounding set is emptied if this process has `CAP_SETPCAP`; without capabilities and
    /// without new privileges it has no effect. Landlock 6 (Linux 6.12) is needed, unless
    /// [`best_effort`](Self::best_effort) is set.
    ///
    /// ```
    /// use brood_child_process::Sandbox;
    ///
    /// // A server that reads its pages, writes a log, and asks a database.
    /// let sandbox = Sandbox::hardened()
    ///     .read("/srv/www")
    ///     .write("/var/log/site")
    ///     .connect_tcp([5432]);
    /// # drop(sandbox);
    /// ```
    pub fn hardened() -> Self {
        let mut sandbox = Self::new()
            .no_new_privileges(true)
            .ambient([])
            .bind_tcp([])
            .connect_tcp([])
            .scoped()
            .filter(Filter::for_servers());
        for path in READ {
            sandbox = sandbox.path(Path::new(path), PathAccess::Read, true);
        }
        for path in WRITE {
            sandbox = sandbox.path(Path::new(path), PathAccess::Write, true);
        }
        sandbox.bounding = Some(Capabilities::NONE);
        sandbox.bounding_if_allowed = true;
        sandbox.undumpable = Undumpable::IfNative;
        sandbox.is_hardened = true;
        sandbox
    }
}
