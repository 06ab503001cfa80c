//! What workers are started with, and how that is changed.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::path::PathBuf;

use child_process::{Fork, Module, Stdio};
use ipc::Serialization;

use crate::error::Error;
use crate::worker_options::{WorkerOptions, WorkerStdio};

/// What each new worker of a primary is started with. Read it with
/// [`Primary::settings`](crate::Primary::settings), change it with [`WorkerOptions`](crate::WorkerOptions).
///
/// Node: `cluster.settings`. `uid` and `gid` need the rights for it, as everywhere.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Settings {
    /// What is run instead of this program.
    pub exec: Option<PathBuf>,
    /// Which Node runs the script of `exec`; by default `node` of the `PATH`.
    pub exec_path: Option<OsString>,
    /// Options for Node itself, in front of the script.
    pub exec_argv: Vec<OsString>,
    /// The arguments, without the program itself; by default those of this process, and none for
    /// another program.
    pub args: Vec<OsString>,
    /// What is added to this process's own environment.
    pub env: Vec<(OsString, OsString)>,
    /// The directory to start in; `None` for this process's own.
    pub current_dir: Option<PathBuf>,
    /// Standard input, output and error are pipes, where `stdio` does not say otherwise.
    pub silent: bool,
    /// What the descriptors lead to; those not named are ours (0 to 2) or closed.
    pub stdio: BTreeMap<i32, WorkerStdio>,
    /// The user to run as.
    pub uid: Option<u32>,
    /// The group to run as.
    pub gid: Option<u32>,
    /// How messages are written; `None` for bincode to Rust workers and JSON to Node workers.
    pub serialization: Option<Serialization>,
    /// The file of this program, as it was found when the primary was set up: what lies there is
    /// started, so that a new build takes effect with the next worker.
    program: Option<PathBuf>,
    /// Nobody has said which arguments.
    own_args: bool,
}

impl Settings {
    /// This program again, with its own arguments.
    pub(crate) fn of_this_process() -> Self {
        Self {
            exec: None,
            exec_path: None,
            exec_argv: Vec::new(),
            args: std::env::args_os().skip(1).collect(),
            env: Vec::new(),
            current_dir: None,
            silent: false,
            stdio: BTreeMap::new(),
            uid: None,
            gid: None,
            serialization: None,
            program: std::env::current_exe().ok(),
            own_args: true,
        }
    }

    /// Takes over what `setup` names; the rest stays.
    pub(crate) fn overlay(&mut self, setup: &WorkerOptions) {
        let setup = setup.clone();
        fn put<T>(to: &mut T, from: Option<T>) {
            if let Some(value) = from {
                *to = value;
            }
        }
        let WorkerOptions { exec, exec_path, exec_argv, args, env, current_dir, .. } = setup;
        if (exec.is_some() || args.is_some()) && std::mem::take(&mut self.own_args) {
            self.args.clear();
        }
        put(&mut self.exec, exec.map(Some));
        put(&mut self.exec_path, exec_path.map(Some));
        put(&mut self.exec_argv, exec_argv);
        put(&mut self.args, args);
        for (name, value) in env {
            self.env.retain(|(known, _)| *known != name);
            self.env.push((name, value));
        }
        put(&mut self.current_dir, current_dir.map(Some));
        put(&mut self.silent, setup.silent);
        put(&mut self.uid, setup.uid.map(Some));
        put(&mut self.gid, setup.gid.map(Some));
        put(&mut self.serialization, setup.serialization.map(Some));
        self.stdio.extend(setup.stdio);
    }

    /// A fork of what they say, but for what differs from worker to worker.
    pub(crate) fn fork(&self) -> Result<Fork, child_process::Error> {
        let module = match (&self.exec, &self.program) {
            (Some(exec), _) => Module::from_path(exec),
            (None, Some(program)) => Module::this_program_at(program),
            (None, None) => Module::this_program(),
        };
        let mut fork = Fork::new(module);
        if let Some(path) = &self.exec_path {
            fork.exec_path(path);
        }
        fork.exec_argv(&self.exec_argv).silent(self.silent);
        fork.args(&self.args);
        for (name, value) in &self.env {
            fork.env(name, value);
        }
        if let Some(dir) = &self.current_dir {
            fork.current_dir(dir);
        }
        for (number, stdio) in &self.stdio {
            let stdio = match stdio {
                WorkerStdio::Inherit => Stdio::inherit(),
                WorkerStdio::Null => Stdio::null(),
                WorkerStdio::Pipe => Stdio::pipe(),
                WorkerStdio::Shared(shared) => {
                    let ours = shared.try_clone();
                    ours.map_err(|error| child_process::Error::Os("dup", error))?.into()
                }
            };
            fork.descriptor(*number, stdio);
        }
        if let Some(uid) = self.uid {
            fork.uid(uid);
        }
        if let Some(gid) = self.gid {
            fork.gid(gid);
        }
        if let Some(serialization) = self.serialization {
            fork.serialization(serialization);
        }
        Ok(fork)
    }

    /// Standard error is ours, as far as the workers are concerned.
    pub(crate) fn inherits_stderr(&self) -> bool {
        matches!(self.stdio.get(&2), Some(WorkerStdio::Inherit)) || {
            !self.silent && !self.stdio.contains_key(&2)
        }
    }

    /// Those of the user's descriptors from 3 on that are pipes.
    pub(crate) fn extra_pipes(&self) -> impl Iterator<Item = i32> {
        let pipes = self.stdio.range(3..).filter(|(_, stdio)| **stdio == WorkerStdio::Pipe);
        pipes.map(|(number, _)| *number)
    }

    /// A descriptor number that nothing else of a worker has.
    pub(crate) fn free_number(&self, least: i32) -> i32 {
        let mut free = (least..).filter(|number| !self.stdio.contains_key(number));
        free.next().expect("there are more numbers than descriptors")
    }

    /// Refuses descriptor numbers that a worker cannot have.
    pub(crate) fn check(&self) -> Result<(), Error> {
        let (most, _) = sys::limit::descriptors().unwrap_or((1024, 0));
        for number in self.stdio.keys() {
            let why = match u64::try_from(*number) {
                Ok(3) => "3 is the channel's".to_owned(),
                // One more may be needed beside.
                Ok(number) if number + 1 < most => continue,
                _ => format!("{number} is not between 0 and {}", most.saturating_sub(2)),
            };
            return Err(Error::Option("stdio", why));
        }
        Ok(())
    }

    /// Both start the same.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Self { own_args: other.own_args, ..self.clone() } == *other
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_setup_overlays_only_what_it_names() {
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
    fn numbers_beside_those_of_the_user_are_free() {
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
