//! The settings that workers are started with.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use child_process::internal::{self, OwnRestrictions};
use child_process::{Fork, InvalidOption, Module, Sandbox, Stdio};
use ipc::Serialization;
use sys::host::user::Account;

use crate::error::Error;
use crate::listen_rules::Credentials;
use crate::node::{self, inspector};
use crate::primary::release::{WorkingDirectory, own_program};
use crate::protocol::message::SANDBOX;
use crate::protocol::own_restrictions;
use crate::worker_options::{WorkerOptions, WorkerStdio};

/// The settings that every new worker of a primary is started with.
///
/// [`Primary::settings`](crate::Primary::settings) returns them, and
/// [`WorkerOptions`] changes them.
///
/// Node: `cluster.settings`. Setting `uid` and `gid` requires the privileges of `setuid(2)` and
/// `setgid(2)`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// The program or script that workers run instead of this program.
    pub exec: Option<PathBuf>,
    /// The Node executable that runs the script of `exec`; by default `node` of the `PATH`.
    pub exec_path: Option<OsString>,
    /// Options for the Node executable, in front of the script.
    pub exec_argv: Vec<OsString>,
    /// The port of every worker's inspector; `None` when each worker gets a port of its own.
    pub inspect_port: Option<u16>,
    /// The arguments, without the program's name; by default those of this process, and none for
    /// another program.
    pub args: Vec<OsString>,
    /// Variables that are added to the environment of this process.
    pub env: Vec<(OsString, OsString)>,
    /// The working directory; `None` for the one of this process, or the one that has replaced it
    /// at the same path.
    pub current_dir: Option<PathBuf>,
    /// Whether standard input, output and error are pipes, unless `stdio` names them.
    pub silent: bool,
    /// The targets of descriptors by number. Descriptors 0 to 2 are inherited by default, all
    /// others are closed.
    pub stdio: BTreeMap<i32, WorkerStdio>,
    /// The name of the user to run as, whose ids and groups are those of the user database. `uid`
    /// and `gid` replace their part.
    pub user: Option<OsString>,
    /// The user id to run as.
    pub uid: Option<u32>,
    /// The group id to run as.
    pub gid: Option<u32>,
    /// The restrictions of the workers.
    pub sandbox: Sandbox,
    /// The format of messages; `None` for bincode to Rust workers and JSON to Node workers.
    pub serialization: Option<Serialization>,
    /// The number of handles that the primary takes with one message of a worker.
    pub received_handles_max: usize,
    /// The path by which this program was started. Workers run the file that lies there, so a new
    /// build takes effect with the next worker.
    program: Option<PathBuf>,
    /// The working directory by its path. Workers start in the directory that lies there.
    directory: Option<WorkingDirectory>,
    /// The arguments are those of this process, because no options have named any.
    inherits_args: bool,
    /// Whether the primary and its workers raise their soft limits of descriptors.
    pub(crate) raises_descriptors: bool,
    /// The limit of the start of a worker.
    pub(crate) start_within: Duration,
}

impl Settings {
    /// Returns settings that run this program again, with the arguments of this process.
    pub(crate) fn of_this_process() -> Self {
        let directory = WorkingDirectory::of_this_process();
        Self {
            exec: None,
            exec_path: None,
            exec_argv: Vec::new(),
            inspect_port: None,
            args: std::env::args_os().skip(1).collect(),
            env: Vec::new(),
            current_dir: None,
            silent: false,
            stdio: BTreeMap::new(),
            user: None,
            uid: None,
            gid: None,
            sandbox: Sandbox::new(),
            serialization: None,
            received_handles_max: 0,
            program: own_program(directory.as_ref()),
            directory,
            inherits_args: true,
            raises_descriptors: true,
            start_within: child_process::Command::START_WITHIN,
        }
    }

    /// Applies the options; settings that they do not name stay.
    pub(crate) fn overlay(&mut self, options: &WorkerOptions) {
        let options = options.clone();
        fn put<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let WorkerOptions { exec, exec_path, exec_argv, args, env, current_dir, .. } = options;
        if (exec.is_some() || args.is_some()) && std::mem::take(&mut self.inherits_args) {
            self.args.clear();
        }
        put(&mut self.exec, exec.map(Some));
        put(&mut self.exec_path, exec_path.map(Some));
        put(&mut self.exec_argv, exec_argv);
        put(&mut self.inspect_port, options.inspect_port.map(Some));
        put(&mut self.args, args);
        for (name, value) in env {
            self.env.retain(|(known, _)| *known != name);
            self.env.push((name, value));
        }
        put(&mut self.current_dir, current_dir.map(Some));
        put(&mut self.silent, options.silent);
        put(&mut self.user, options.user.map(Some));
        put(&mut self.uid, options.uid.map(Some));
        put(&mut self.gid, options.gid.map(Some));
        put(&mut self.sandbox, options.sandbox);
        put(&mut self.serialization, options.serialization.map(Some));
        put(&mut self.received_handles_max, options.received_handles_max);
        self.stdio.extend(options.stdio);
    }

    /// Returns the command for the worker `number`, without its variables in the environment.
    ///
    /// The new worker of a reload, `is_new_release`, runs what lies at the path of this program, or
    /// fails. Any other worker runs the file of this process when none lies there.
    pub(crate) fn fork(
        &self,
        number: u32,
        is_new_release: bool,
        credentials: Option<&Credentials>,
    ) -> Result<Fork, child_process::Error> {
        let module = match (&self.exec, &self.program) {
            (Some(exec), _) => Module::from_path(exec),
            (None, Some(program)) if is_new_release && self.exec_path.is_none() => {
                Module::program(program)
            }
            (None, Some(program)) => Module::this_program_at(program),
            (None, None) => Module::this_program(),
        };
        let mut fork = Fork::new(module);
        if let Some(path) = &self.exec_path {
            fork.exec_path(path);
        }
        let inspect_port = if fork.speaks_node() { self.inspect_port_option(number) } else { None };
        let exec_argv = self.exec_argv.iter().cloned();
        fork.exec_argv(exec_argv.chain(inspect_port.map(OsString::from))).silent(self.silent);
        fork.args(&self.args);
        for (name, value) in &self.env {
            fork.env(name, value);
        }
        let replaced = || self.directory.as_ref().and_then(|it| it.replaced(is_new_release));
        if let Some(dir) = self.current_dir.as_deref().or_else(replaced) {
            fork.current_dir(dir);
        }
        for (number, stdio) in &self.stdio {
            let stdio = match stdio {
                WorkerStdio::Inherit => Stdio::inherit(),
                WorkerStdio::Null => Stdio::null(),
                WorkerStdio::Pipe => Stdio::pipe(),
                WorkerStdio::Shared(shared) => {
                    let clone = shared.try_clone();
                    clone.map_err(|error| child_process::Error::Os("dup", error))?.into()
                }
            };
            fork.descriptor(*number, stdio);
        }
        let Credentials { uid, gid, groups } = credentials.cloned().unwrap_or_default();
        if let Some(uid) = uid {
            fork.uid(uid);
        }
        if let Some(gid) = gid {
            fork.gid(gid);
        }
        if let Some(groups) = groups {
            fork.groups(groups);
        }
        let (sandbox, own) = self.worker_sandbox(credentials)?;
        fork.sandbox(sandbox);
        if let Some(own) = own_restrictions::to_variable(own) {
            fork.env(SANDBOX, own);
        }
        let channel = self.channel_options(fork.speaks_node());
        fork.channel_options(channel);
        Ok(fork)
    }

    fn channel_options(&self, speaks_node: bool) -> ipc::Options {
        let options = if speaks_node { node::channel_options() } else { ipc::Options::new() };
        let options = options.received_handles_max(self.received_handles_max);
        match self.serialization {
            Some(serialization) => options.serialization(serialization),
            None => options,
        }
    }

    /// Returns the user and groups of the workers, if the settings name any.
    ///
    /// # Errors
    ///
    /// There is no user of this name, or the user database cannot be read.
    pub(crate) fn credentials(&self) -> Result<Option<Credentials>, child_process::Error> {
        let account = self.user.as_deref().map(internal::account).transpose()?;
        let named = account.map(|Account { uid, gid, groups }| Credentials {
            uid: Some(uid),
            gid: Some(gid),
            groups: Some(groups),
        });
        let Credentials { uid, gid, groups } = named.unwrap_or_default();
        let (uid, gid) = (self.uid.or(uid), self.gid.or(gid));
        let credentials = Credentials { uid, gid, groups };
        Ok(Some(credentials).filter(|it| *it != Credentials::default()))
    }

    fn inspect_port_option(&self, number: u32) -> Option<String> {
        let runs_node = |path: &OsString| {
            let name = Path::new(path).file_name();
            name.is_none_or(|name| name != "bun" && name != "deno")
        };
        if !self.exec_path.as_ref().is_none_or(runs_node) {
            return None;
        }
        let variable = self.env.iter().rev().find(|(name, _)| name == "NODE_OPTIONS");
        let variable = variable.map(|(_, value)| value.clone());
        let node_options = variable.or_else(|| std::env::var_os("NODE_OPTIONS"));
        let node_options = node_options.unwrap_or_default();
        let exec_argv = self.exec_argv.iter().filter_map(|word| word.to_str());
        let node_options = node_options.to_string_lossy();
        inspector::port_option(exec_argv, &node_options, self.inspect_port, number)
    }

    /// Whether workers inherit the standard error of this process.
    pub(crate) fn inherits_stderr(&self) -> bool {
        matches!(self.stdio.get(&2), Some(WorkerStdio::Inherit)) || {
            !self.silent && !self.stdio.contains_key(&2)
        }
    }

    /// Returns the numbers of the descriptors from 3 on that are pipes.
    pub(crate) fn extra_pipes(&self) -> impl Iterator<Item = i32> {
        let pipes = self.stdio.range(3..).filter(|(_, stdio)| **stdio == WorkerStdio::Pipe);
        pipes.map(|(number, _)| *number)
    }

    /// Returns the first descriptor number from `least` on that is not in use.
    pub(crate) fn free_number(&self, least: i32) -> i32 {
        let mut free = (least..).filter(|number| !self.stdio.contains_key(number));
        free.next().expect("there are more numbers than descriptors")
    }

    /// Checks that workers can be started, and may have descriptors of these numbers.
    pub(crate) fn check(&self) -> Result<(), Error> {
        self.check_sandbox()?;
        // Such a worker would end before `main`, and be replaced for ever.
        if self.exec.is_none() && sys::host::user::is_elevated_by_own_file() {
            let why = "the file of this program gives it more privileges than its user has, and such \
                       a program is no worker: remove them from the file and give the service \
                       AmbientCapabilities=, or let the workers run another program";
            return Err(Error::InvalidOption { option: "exec", why: why.to_owned() });
        }
        let (most, _) = sys::rlimit::descriptors().unwrap_or((1024, 0));
        for number in self.stdio.keys() {
            let why = match u64::try_from(*number) {
                Ok(3) => "use another number, 3 is reserved for the channel".to_owned(),
                // A worker may need one more descriptor, see `free_number`.
                Ok(number) if number + 1 < most => continue,
                _ => format!("use a number between 0 and {}, not {number}", most.saturating_sub(2)),
            };
            return Err(Error::InvalidOption { option: "stdio", why });
        }
        Ok(())
    }

    /// Returns the restrictions that a worker has from its start, and those that its runtime sets.
    fn worker_sandbox(
        &self,
        credentials: Option<&Credentials>,
    ) -> Result<(Sandbox, OwnRestrictions), InvalidOption> {
        let is_native = self.exec.is_none() && self.exec_path.is_none();
        let is_other_user = credentials.is_some_and(is_another_user);
        internal::worker_sandbox(&self.sandbox, is_native, is_other_user)
    }

    fn check_sandbox(&self) -> Result<(), Error> {
        let invalid = |why: String| Error::InvalidOption { option: "sandbox", why };
        // A user that does not exist is an error of the start.
        let credentials = self.credentials().ok().flatten();
        let worker_sandbox = self.worker_sandbox(credentials.as_ref());
        let _ = worker_sandbox.map_err(|error| invalid(error.to_string()))?;
        let (user, group) = sys::host::user::effective_ids();
        let Credentials { uid, gid, .. } = credentials.unwrap_or_default();
        let ids = (uid.unwrap_or(user), gid.unwrap_or(group));
        if internal::is_hardened(&self.sandbox) && (ids.0 == 0 || ids.1 == 0) {
            let why = "hardened workers must not run as root: set uid and gid, neither of them 0";
            return Err(invalid(why.to_owned()));
        }
        Ok(())
    }

    /// Whether workers start in the same way with both.
    pub(crate) fn equal_in_effect(&self, other: &Self) -> bool {
        Self { inherits_args: other.inherits_args, ..self.clone() } == *other
    }
}

/// Returns whether a worker with these credentials has another user than this process.
pub(crate) fn is_another_user(credentials: &Credentials) -> bool {
    let (user, _) = sys::host::user::effective_ids();
    credentials.uid.is_some_and(|uid| uid != user)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn options_change_only_the_settings_that_they_name() {
        let mut settings = Settings::of_this_process();
        settings.overlay(&WorkerOptions::new().exec("overridden"));
        settings.overlay(&WorkerOptions::new().args(["foo", "bar"]));
        settings.overlay(&WorkerOptions::new().exec_argv(["baz", "bang"]));
        let before = settings.clone();
        settings.overlay(&WorkerOptions::new());
        assert_eq!(settings, before);
        assert_eq!(settings.exec.as_deref(), Some("overridden".as_ref()));
        assert_eq!((settings.args.len(), settings.exec_argv.len()), (2, 2));
        assert!(!settings.silent);
    }

    #[test]
    fn descriptor_numbers_that_the_user_does_not_name_are_free() {
        let mut settings = Settings::of_this_process();
        assert_eq!(settings.free_number(4), 4);
        settings
            .overlay(&WorkerOptions::new().stdio(2, WorkerStdio::Null).stdio(6, WorkerStdio::Pipe));
        assert_eq!(settings.free_number(4), 4);
        assert_eq!(settings.free_number(6), 7);
        assert!(settings.check().is_ok());
        for number in [-1, 3, i32::MAX] {
            let mut settings = settings.clone();
            settings.overlay(&WorkerOptions::new().stdio(number, WorkerStdio::Null));
            let error = settings.check().expect_err("no such number");
            assert_eq!(error.code(), "ERR_INVALID_ARG_VALUE", "{number}");
        }
        assert!(!settings.inherits_stderr());
    }
}
