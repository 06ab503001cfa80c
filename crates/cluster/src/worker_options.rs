//! What one worker or all to come are started with: changes to the settings.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use ipc::Serialization;

/// What a descriptor of every worker leads to.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum WorkerStdio {
    /// The same as ours of the same number.
    Inherit,
    /// `/dev/null`.
    Null,
    /// A pipe between us and each worker (0 to 2), or a Unix stream socket (all others): our end
    /// is had from [`WorkerProcess`](crate::WorkerProcess), for example by `take_stdout`.
    Pipe,
    /// This descriptor, shared by all workers.
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

/// Changes to [`Settings`](crate::Settings): what is not named stays as it was.
///
/// For all workers to come with [`Builder::setup`](crate::Builder::setup) and
/// [`Primary::setup_primary`](crate::Primary::setup_primary), for one of them and who replaces it
/// with [`Primary::fork`](crate::Primary::fork).
///
/// ```
/// # fn main() -> Result<(), cluster::Error> {
/// use cluster::{Primary, WorkerOptions};
///
/// let primary = Primary::builder().build()?;
/// primary.setup_primary(WorkerOptions::new().args(["--quiet"]).silent(true))?;
/// primary.setup_primary(WorkerOptions::new().current_dir("/"))?;
/// let settings = primary.settings();
/// assert!(settings.silent && settings.args == ["--quiet"]);
/// # Ok(()) }
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use = "it changes nothing before it is given to a primary"]
pub struct WorkerOptions {
    pub(crate) exec: Option<PathBuf>,
    pub(crate) exec_path: Option<OsString>,
    pub(crate) exec_argv: Option<Vec<OsString>>,
    pub(crate) args: Option<Vec<OsString>>,
    pub(crate) env: Vec<(OsString, OsString)>,
    pub(crate) current_dir: Option<PathBuf>,
    pub(crate) silent: Option<bool>,
    pub(crate) stdio: BTreeMap<i32, WorkerStdio>,
    pub(crate) uid: Option<u32>,
    pub(crate) gid: Option<u32>,
    pub(crate) serialization: Option<Serialization>,
}

fn owned<I: IntoIterator<Item: AsRef<OsStr>>>(list: I) -> Vec<OsString> {
    list.into_iter().map(|item| item.as_ref().to_owned()).collect()
}

impl WorkerOptions {
    /// Changes nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// What is run instead of this program: another program, or a script for Node (`.js`, `.mjs`,
    /// `.cjs`, `.ts`).
    pub fn exec(mut self, exec: impl AsRef<Path>) -> Self {
        self.exec = Some(exec.as_ref().to_owned());
        self
    }

    /// Which Node runs the script.
    #[doc(alias = "execPath")]
    pub fn exec_path(mut self, path: impl AsRef<OsStr>) -> Self {
        self.exec_path = Some(path.as_ref().to_owned());
        self
    }

    /// Options for Node itself.
    #[doc(alias = "execArgv")]
    pub fn exec_argv<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.exec_argv = Some(owned(args));
        self
    }

    /// The arguments, without the program itself.
    pub fn args<I: IntoIterator<Item: AsRef<OsStr>>>(mut self, args: I) -> Self {
        self.args = Some(owned(args));
        self
    }

    /// Adds a variable to the environment, which is otherwise this process's own.
    pub fn env(mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// The directory to start in.
    #[doc(alias = "cwd")]
    pub fn current_dir(mut self, dir: impl AsRef<Path>) -> Self {
        self.current_dir = Some(dir.as_ref().to_owned());
        self
    }

    /// Pipes instead of our own standard streams; see [`WorkerStdio::Pipe`].
    pub fn silent(mut self, silent: bool) -> Self {
        self.silent = Some(silent);
        self
    }

    /// What the workers' descriptor `number` leads to. 3 is the channel's.
    pub fn stdio(mut self, number: i32, stdio: WorkerStdio) -> Self {
        self.stdio.insert(number, stdio);
        self
    }

    /// The user to run as.
    pub fn uid(mut self, uid: u32) -> Self {
        self.uid = Some(uid);
        self
    }

    /// The group to run as.
    pub fn gid(mut self, gid: u32) -> Self {
        self.gid = Some(gid);
        self
    }

    /// How messages are written; see [`Settings::serialization`](crate::Settings::serialization).
    pub fn serialization(mut self, serialization: Serialization) -> Self {
        self.serialization = Some(serialization);
        self
    }
}
