//! What a child shall be: one builder for every way to start one.

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::limit::{Limit, Resource};
use sys::signal::Signal;
use sys::spawn::Attributes;

use crate::cancel::CancelToken;
use crate::module::runs_scripts;
use crate::stdio::{Slot, Stdio};

/// The default of [`Command::max_buffer`], in bytes, as in Node.
pub const MAX_BUFFER_BYTES: usize = 1024 * 1024;

/// A program to start, and everything about how.
///
/// Without more, as in Node: descriptors 0, 1 and 2 are pipes, the environment and the working
/// directory are ours, a bare program name is looked for in the **child's** `PATH`, no other
/// descriptor is inherited, no signal is blocked or handled.
///
/// Every option works on the same engine, which costs the same however much memory this process
/// uses. There is no `pre_exec`: a closure could not run there.
///
/// ```
/// use child_process::{Command, Stdio};
///
/// let said = Command::new("sh").args(["-c", "echo $NAME"]).env("NAME", "value").output()?;
/// assert_eq!(said.stdout, b"value\n");
/// let child = Command::new("true").stdout(Stdio::inherit()).spawn()?;
/// assert!(child.wait()?.success());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
pub struct Command {
    pub(crate) program: OsString,
    /// Tried after the paths of `program`, for a program that is known by two paths.
    pub(crate) fallback: Option<OsString>,
    pub(crate) argv0: Option<OsString>,
    pub(crate) args: Vec<OsString>,
    pub(crate) shell: Option<OsString>,
    pub(crate) current_dir: Option<PathBuf>,
    /// The child inherits no variable of this process.
    pub(crate) env_clear: bool,
    /// The changes to the inherited environment; `None` removes a variable.
    pub(crate) env: BTreeMap<OsString, Option<OsString>>,
    /// The slots by descriptor number; 0 to 2 are always present.
    pub(crate) stdio: Vec<(i32, Slot)>,
    pub(crate) attributes: Attributes,
    pub(crate) cgroup: Option<PathBuf>,
    /// The control group belongs to the child alone.
    pub(crate) cgroup_is_own: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_signal: Signal,
    pub(crate) max_buffer: Option<usize>,
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) kill_on_drop: bool,
    pub(crate) channel: ipc::Options,
    pub(crate) is_fork: bool,
    /// The channel is announced in Node's way.
    pub(crate) is_node: bool,
}

impl Command {
    /// Starts from a program: a path, or a name that is looked for in the child's `PATH`.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        Self {
            program: program.as_ref().to_owned(),
            fallback: None,
            argv0: None,
            args: Vec::new(),
            shell: None,
            current_dir: None,
            env_clear: false,
            env: BTreeMap::new(),
            stdio: vec![(0, Slot::Pipe), (1, Slot::Pipe), (2, Slot::Pipe)],
            attributes: Attributes::default(),
            cgroup: None,
            cgroup_is_own: false,
            timeout: None,
            kill_signal: Signal::TERM,
            max_buffer: Some(MAX_BUFFER_BYTES),
            input: None,
            cancel: None,
            kill_on_drop: false,
            channel: ipc::Options::default(),
            is_fork: false,
            is_node: false,
        }
    }

    /// A command line for `/bin/sh -c`.
    pub fn shell_line(line: impl AsRef<OsStr>) -> Self {
        let mut command = Self::new(line);
        command.shell("/bin/sh");
        command
    }

    /// Adds an argument.
    pub fn arg(&mut self, arg: impl AsRef<OsStr>) -> &mut Self {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// Adds arguments.
    pub fn args(&mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> &mut Self {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// What the program finds as its own name; the program as given without.
    pub fn argv0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Runs through this shell: `SHELL -c "PROGRAM ARGS…"`. Nothing is quoted, so program and
    /// arguments must come from somebody you trust. A fork never uses a shell.
    pub fn shell(&mut self, shell: impl AsRef<OsStr>) -> &mut Self {
        self.shell = (!self.is_fork).then(|| shell.as_ref().to_owned());
        self
    }

    /// Where the child works; a relative program counts from there. An empty path: where we do.
    #[doc(alias = "cwd")]
    pub fn current_dir(&mut self, path: impl AsRef<Path>) -> &mut Self {
        self.current_dir = Some(path.as_ref().to_owned());
        self
    }

    /// Sets a variable of the child's environment.
    pub fn env(&mut self, name: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> &mut Self {
        let (name, value) = (name.as_ref().to_owned(), value.as_ref().to_owned());
        self.env.insert(name, Some(value));
        self
    }

    /// Sets variables of the child's environment.
    pub fn envs(
        &mut self,
        vars: impl IntoIterator<Item = (impl AsRef<OsStr>, impl AsRef<OsStr>)>,
    ) -> &mut Self {
        for (name, value) in vars {
            self.env(name, value);
        }
        self
    }

    /// Takes a variable out of the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Starts from an empty environment, as Node does when it is given one.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env_clear = true;
        self.env.clear();
        self
    }

    /// Descriptor 0.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(0, stdio)
    }

    /// Descriptor 1.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(1, stdio)
    }

    /// Descriptor 2.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(2, stdio)
    }

    /// Descriptors 0, 1, 2, … in order; what is not listed stays as it was.
    pub fn stdio(&mut self, slots: impl IntoIterator<Item = Stdio>) -> &mut Self {
        for (number, slot) in (0..).zip(slots) {
            self.descriptor(number, slot);
        }
        self
    }

    /// The child's descriptor `number`.
    pub fn descriptor(&mut self, number: i32, stdio: impl Into<Stdio>) -> &mut Self {
        let slot = stdio.into().0;
        match self.stdio.iter_mut().find(|(known, _)| *known == number) {
            Some(known) => known.1 = slot,
            None => self.stdio.push((number, slot)),
        }
        self
    }

    /// Makes the child leader of a session of its own: signals from our terminal do not reach it.
    #[doc(alias = "setsid")]
    pub fn detached(&mut self, detached: bool) -> &mut Self {
        self.attributes.session = detached;
        self
    }

    /// Puts the child into a process group; 0: a new one, which it leads.
    pub fn process_group(&mut self, group: u32) -> &mut Self {
        self.attributes.process_group = Some(group);
        self
    }

    /// Runs the child as this user. Supplementary groups are dropped unless
    /// [`groups`](Self::groups) says otherwise; the group stays unless [`gid`](Self::gid) does.
    pub fn uid(&mut self, uid: u32) -> &mut Self {
        self.attributes.uid = Some(uid);
        self
    }

    /// Runs the child with this group.
    pub fn gid(&mut self, gid: u32) -> &mut Self {
        self.attributes.gid = Some(gid);
        self
    }

    /// Runs the child with these supplementary groups.
    pub fn groups(&mut self, groups: impl IntoIterator<Item = u32>) -> &mut Self {
        self.attributes.groups = Some(groups.into_iter().collect());
        self
    }

    /// Clears these mode bits of every file the child makes.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.attributes.umask = Some(mask);
        self
    }

    /// Limits the child.
    pub fn limit(&mut self, resource: Resource, limit: Limit) -> &mut Self {
        self.attributes.limits.push((resource, limit));
        self
    }

    /// Sets the child's nice value, −20 to 19.
    pub fn nice(&mut self, nice: i32) -> &mut Self {
        self.attributes.nice = Some(nice);
        self
    }

    /// Binds the child to these processors.
    pub fn affinity(&mut self, processors: impl IntoIterator<Item = u32>) -> &mut Self {
        self.attributes.affinity = Some(processors.into_iter().collect());
        self
    }

    /// The child gets this signal when this process dies.
    ///
    /// The kernel binds it to the thread that starts the child; such children are therefore
    /// started by a thread of ours that lives as long as the process.
    pub fn parent_death_signal(&mut self, signal: Signal) -> &mut Self {
        self.attributes.parent_death_signal = Some(signal);
        self
    }

    /// Starts the child inside this control group (a directory below `/sys/fs/cgroup`).
    pub fn cgroup(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cgroup = Some(directory.as_ref().to_owned());
        self.cgroup_is_own = false;
        self
    }

    /// Starts the child inside this control group, which is the child's own: it must be empty, and
    /// nobody else shall be put there. [`kill_tree`](crate::Child::kill_tree) then reaches everybody in
    /// it, also processes that have left the tree and the session. The directory stays yours:
    /// make it before, remove it after.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use child_process::{Command, Step};
    ///
    /// // A group that is not there, or not empty, is an error before anything runs.
    /// let error = Command::new("true").own_cgroup("/nonexistent").spawn().unwrap_err();
    /// assert_eq!(error.step(), Some(Step::Cgroup));
    /// # Ok(())
    /// # }
    /// ```
    pub fn own_cgroup(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cgroup(directory);
        self.cgroup_is_own = true;
        self
    }

    /// Forbids the child, for good, to gain rights through the files it executes.
    pub fn no_new_privileges(&mut self) -> &mut Self {
        self.attributes.no_new_privileges = true;
        self
    }

    /// The signals the child starts with blocked; none without.
    pub fn block_signals(&mut self, signals: impl IntoIterator<Item = Signal>) -> &mut Self {
        self.attributes.blocked_signals = signals.into_iter().collect();
        self
    }

    /// Sends the kill signal after this long. Zero: never, as in Node.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// What timeout, cancellation and [`max_buffer`](Self::max_buffer) send; `SIGTERM` without.
    pub fn kill_signal(&mut self, signal: Signal) -> &mut Self {
        self.kill_signal = signal;
        self
    }

    /// How much of each output is collected before the child is ended for it.
    pub fn max_buffer(&mut self, bytes: usize) -> &mut Self {
        self.max_buffer = Some(bytes);
        self
    }

    /// Collects outputs of any size.
    pub fn max_buffer_unlimited(&mut self) -> &mut Self {
        self.max_buffer = None;
        self
    }

    /// What the child reads as its standard input, when its output is collected.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.input = Some(bytes.into());
        self
    }

    /// Ends the child when `token` is thrown.
    #[doc(alias = "signal")]
    pub fn cancel_with(&mut self, token: &CancelToken) -> &mut Self {
        self.cancel = Some(token.clone());
        self
    }

    /// Kills the child with `SIGKILL` when its [`Child`](crate::Child) is dropped. Without, it lives on and is
    /// reaped when it ends.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// How messages are written on the channel; the child is told. A Node child speaks JSON unless
    /// [`Advanced`](ipc::Serialization::Advanced) is asked for.
    pub fn serialization(&mut self, serialization: ipc::Serialization) -> &mut Self {
        self.channel.serialization = serialization;
        self
    }

    /// Limits and habits of the channel.
    pub fn channel_options(&mut self, options: ipc::Options) -> &mut Self {
        self.channel = options;
        self
    }

    /// Returns whether the child expects a channel as Node makes it.
    pub(crate) fn speaks_node(&self) -> bool {
        self.is_node || (self.shell.is_none() && runs_scripts(&self.program))
    }

    pub(crate) fn has_channel(&self) -> bool {
        self.stdio.iter().any(|(_, slot)| matches!(slot, Slot::Channel))
    }

    /// The command as one line, for messages.
    pub(crate) fn line(&self) -> String {
        let words = [&self.program].into_iter().chain(&self.args);
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}
