//! Changes to the settings that workers are started with.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use child_process::Sandbox;
use ipc::Serialization;

/// The target of a descriptor in a worker.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkerStdio {
    /// The descriptor of this process with the same number.
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe to each worker (descriptors 0 to 2), or a Unix stream socket (all others).
    ///
    /// Methods of [`WorkerProcess`](crate::WorkerProcess) return the primary's end, for example
    /// `take_stdout`.
    Pipe,
    /// This descriptor; all workers share it.
    Shared(Arc<OwnedFd>),
}

impl PartialEq for WorkerStdio {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Inherit, Self::Inherit)
            | (Self::Null, Self::Null)
            | (Self::Pipe, Self::Pipe) => true,
            (Self::Shared(one), Self::Shared(two)) => Arc::ptr_eq(one, two),
            (Self::Inherit | Self::Null | Self::Pipe | Self::Shared(_), _) => false,
        }
    }
}

impl Eq for WorkerStdio {}

/// Changes to [`Settings`](crate::Settings). Settings that are not named stay as they are.
///
/// [`Builder::worker`](crate::Builder::worker) and
/// [`Primary::setup_primary`](crate::Primary::setup_primary) apply the options to all workers that
/// are started from then on. [`Primary::fork`](crate::Primary::fork) applies them to one slot: to
/// its worker, and to those that replace it.
///
/// ```
/// # fn main() -> Result<(), brood_cluster::Error> {
/// use brood_cluster::{Primary, WorkerOptions};
///
/// let primary = Primary::builder().build()?;
/// primary.setup_primary(WorkerOptions::new().args(["--quiet"]).silent(true))?;
/// primary.setup_primary(WorkerOptions::new().current_dir("/"))?;
/// let settings = primary.settings();
/// assert!(settings.silent && settings.args == ["--quiet"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "options change nothing until a primary gets them"]
pub struct WorkerOptions {
    pub(crate) exec: Option<PathBuf>,
    pub(crate) exec_path: Option<OsString>,
    pub(crate) exec_argv: Option<Vec<OsString>>,
    pub(crate) inspect_port: Option<u16>,
    pub(crate) args: Option<Vec<OsString>>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) silent: Option<bool>,
    pub(crate) stdio: BTreeMap<i32, WorkerStdio>,
    pub(crate) user: Option<OsString>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) serialization: Option<Serialization>,
    pub(crate) received_handles_max: Option<usize>,
}

fn owned<I: IntoIterator<Item: AsRef<OsStr>>>(list: I) -> Vec<OsString> {
    list.into_iter().map(|item| item.as_ref().to_owned()).collect()
}

impl WorkerOptions {
    /// Creates options that change nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets what the workers run instead of this program: another program, or a script for Node
    /// (`.js`, `.mjs`, `.cjs`, `.ts`).
    ///
    /// A Node application needs no change: its `listen` calls reach the primary. Workers get no
    /// arguments unless [`args`](Self::args) sets some.
    pub fn exec(mut self, exec: impl AsRef<Path>) -> Self {
        self.exec = Some(exec.as_ref().to_owned());
        self
    }

    /// Sets the Node executable that runs the script of [`exec`](Self::exec); by default `node` of
    /// the `PATH`.
    #[doc(alias = "execPath")]
    pub fn exec_path(mut self, path: impl AsRef<OsStr>) -> Self {
        self.exec_path = Some(path.as_ref().to_owned());
        self
    }

    /// Sets options for the Node executable, in front of the script.
    ///
    /// With `--inspect` or a related option, here or in `NODE_OPTIONS`, each worker has an
    /// inspector of its own. The ports count up from worker to worker as under a Node primary:
    /// worker 1 has the named port plus 1, by default 9230. See
    /// [`inspect_port`](Self::inspect_port).
    #[doc(alias = "execArgv")]
    pub fn exec_argv<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.exec_argv = Some(owned(args));
        self
    }

    /// Sets the port of the inspector, if Node is started with one; 0 for any free port. By default
    /// the ports count up from worker to worker.
    ///
    /// Other programs than Node itself, such as Bun and Deno, ignore the option.
    #[doc(alias = "inspectPort")]
    pub fn inspect_port(mut self, port: u16) -> Self {
        self.inspect_port = Some(port);
        self
    }

    /// Sets the arguments, without the program's name; by default those of this process, and none
    /// for another program.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args = Some(owned(args));
        self
    }

    /// Adds a variable to the environment, which is that of this process.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// Sets the working directory; by default that of this process.
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Sets whether the standard streams are pipes instead of those of this process; see
    /// [`WorkerStdio::Pipe`].
    pub fn silent(mut self, silent: bool) -> Self {
        self.silent = Some(silent);
        self
    }

    /// Sets the target of the workers' descriptor `number`. Number 3 is reserved for the channel.
    pub fn stdio(mut self, number: i32, stdio: WorkerStdio) -> Self {
        self.stdio.insert(number, stdio);
        self
    }

    /// Sets the user to run as, by name: uid, gid and supplementary groups are those of the user
    /// database, which each start of a worker reads anew.
    ///
    /// [`uid`](Self::uid) and [`gid`](Self::gid) replace the part that they name. A worker that
    /// cannot become the user is not started: [`Event::Error`](crate::Event::Error) has the step.
    /// See [`Command::user`](child_process::Command::user).
    ///
    /// ```no_run
    /// use brood_cluster::{Primary, WorkerOptions};
    ///
    /// let primary = Primary::builder().worker(WorkerOptions::new().user("www-data")).build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn user(mut self, name: impl AsRef<OsStr>) -> Self {
        self.user = Some(name.as_ref().to_owned());
        self
    }

    /// Sets the user id to run as. The workers of root then keep the group of root, with all that
    /// this group may read and write, unless [`gid`](Self::gid) sets another one.
    /// [`user`](Self::user) sets both, and the groups.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// Sets the group id to run as.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// Sets the restrictions of the workers, which replace those of an earlier call. A worker that
    /// cannot be restricted is not started.
    ///
    /// Workers under another user than the primary's can gain no privileges and have no capabilities
    /// of the primary, also without a sandbox; see [`Sandbox::no_new_privileges`] and
    /// [`Sandbox::ambient`] to change that.
    ///
    /// [`Sandbox::dumpable`] and [`Sandbox::forbid_execve`] are set by the worker's runtime, before the
    /// worker reports itself online. They are errors for workers with [`exec`](Self::exec) or
    /// [`exec_path`](Self::exec_path).
    ///
    /// ```no_run
    /// use brood_cluster::{Primary, Sandbox, WorkerOptions};
    ///
    /// let sandbox = Sandbox::hardened().read("/srv/www").connect_tcp([5432]);
    /// let site = WorkerOptions::new().uid(33).gid(33).sandbox(sandbox);
    /// let primary = Primary::builder().worker(site).build()?;
    /// # Ok::<(), brood_cluster::Error>(())
    /// ```
    pub fn sandbox(mut self, sandbox: Sandbox) -> Self {
        self.sandbox = Some(sandbox);
        self
    }

    /// Sets the format of messages between primary and workers; by default bincode for Rust workers
    /// and JSON for Node workers.
    ///
    /// [`Serialization::Advanced`] carries Node's own values: maps, big integers, buffers, and
    /// values that contain themselves.
    pub fn serialization(mut self, serialization: Serialization) -> Self {
        self.serialization = Some(serialization);
        self
    }

    /// Sets the number of handles that the primary takes with one message of a worker, at most 253.
    /// The default is 0: a worker sends its primary no handle.
    ///
    /// A message with more handles arrives without them, and its `decode` returns
    /// [`ipc::Error::HandlesRefused`]. The primary opens no descriptor for it, so that a worker
    /// cannot use up the descriptors of its primary.
    ///
    /// Node: a primary takes every handle.
    pub fn received_handles_max(mut self, handles: usize) -> Self {
        self.received_handles_max = Some(handles);
        self
    }
}
