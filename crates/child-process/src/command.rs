//! The description of a child: one builder for every way to start a process.

mod credentials;
mod sandbox;
mod terminal;

use std::collections::BTreeMap;
use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::time::Duration;

use sys::rlimit::{Limit, Resource};
use sys::signal::Signal;
use sys::spawn::{Attributes, Plan};

use crate::cancel::CancelToken;
use crate::module::runs_scripts;
use crate::sandbox::Sandbox;
use crate::stdio::{Slot, Stdio};
use crate::terminal::TerminalSize;

/// A program to start, and the options of its process.
///
/// The defaults are Node's. Descriptors 0, 1 and 2 are pipes. The environment and the working
/// directory are those of this process. A program name without a slash is looked up in the
/// **child's** `PATH`. The child inherits no other descriptor, blocks no signal and handles none. As
/// in Node, it inherits only variables that have a name and a value.
///
/// Every option uses the same spawn engine, whose cost does not depend on the memory of this
/// process. There is no `pre_exec`, because a closure cannot run safely in the borrowed memory.
///
/// A command can start several children. Starting a child leaves every option unchanged, except
/// that descriptors (see [`Stdio`]) and the [`input`](Self::input) move into the child. A start that
/// fails leaves them as well, so that it can be tried again.
///
/// ```
/// use brood_child_process::{Command, Stdio};
///
/// let output = Command::new("sh").args(["-c", "echo $NAME"]).env("NAME", "value").output()?;
/// assert_eq!(output.stdout, b"value\n");
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
    /// The user whose ids and groups the child gets where `attributes` names none.
    pub(crate) user: Option<OsString>,
    pub(crate) start_within: Duration,
    pub(crate) controlling_terminal: Option<i32>,
    pub(crate) terminal_size: TerminalSize,
    pub(crate) sandbox: Option<Sandbox>,
    pub(crate) cgroup: Option<PathBuf>,
    /// The control group belongs to the child alone.
    pub(crate) cgroup_is_own: bool,
    pub(crate) timeout: Option<Duration>,
    pub(crate) kill_signal: Signal,
    pub(crate) kill_after: Duration,
    pub(crate) kill_tree: bool,
    pub(crate) max_buffer: Option<usize>,
    pub(crate) input: Option<Vec<u8>>,
    pub(crate) cancel: Option<CancelToken>,
    pub(crate) kill_on_drop: bool,
    pub(crate) channel: ipc::Options,
    pub(crate) is_fork: bool,
    /// The module of this program that the child runs. No variable of `env` replaces the name.
    pub(crate) module: Option<String>,
    /// The channel is Node's, whatever the program is called.
    pub(crate) is_node: bool,
}

impl Command {
    /// The default of [`max_buffer`](Self::max_buffer), in bytes, as in Node.
    pub const MAX_BUFFER_BYTES: usize = 1024 * 1024;

    /// The largest number of living children with a
    /// [`parent_death_signal`](Self::parent_death_signal) that threads other than the main thread
    /// have started. Each has a thread that waits for its end.
    pub const PARENT_DEATH_THREADS_MAX: usize = 1024;

    /// The default of [`start_within`](Self::start_within).
    pub const START_WITHIN: Duration = Plan::START_WITHIN;

    /// The default of [`kill_after`](Self::kill_after).
    pub const KILL_AFTER: Duration = Duration::from_secs(5);

    /// Creates a command for `program`: a path, or a name that is looked up in the child's `PATH`.
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
            user: None,
            start_within: Self::START_WITHIN,
            controlling_terminal: None,
            terminal_size: TerminalSize::default(),
            sandbox: None,
            cgroup: None,
            cgroup_is_own: false,
            timeout: None,
            kill_signal: Signal::TERM,
            kill_after: Self::KILL_AFTER,
            kill_tree: false,
            max_buffer: Some(Self::MAX_BUFFER_BYTES),
            input: None,
            cancel: None,
            kill_on_drop: false,
            channel: ipc::Options::default(),
            is_fork: false,
            module: None,
            is_node: false,
        }
    }

    /// Creates a command for a line that `/bin/sh -c` runs.
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

    /// Sets the name that the program finds as its own, `argv[0]`. The default is the program.
    pub fn argv0(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.argv0 = Some(name.as_ref().to_owned());
        self
    }

    /// Runs the program through a shell: `SHELL -c "PROGRAM ARGS…"`.
    ///
    /// Nothing is quoted, so the program and the arguments must come from a trusted source. A fork
    /// ignores this option.
    pub fn shell(&mut self, shell: impl AsRef<OsStr>) -> &mut Self {
        self.shell = (!self.is_fork).then(|| shell.as_ref().to_owned());
        self
    }

    /// Sets the working directory. A relative program path counts from that directory.
    ///
    /// With an empty path the child has the working directory of this process.
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

    /// Removes a variable from the child's environment.
    pub fn env_remove(&mut self, name: impl AsRef<OsStr>) -> &mut Self {
        self.env.insert(name.as_ref().to_owned(), None);
        self
    }

    /// Clears the child's environment and all earlier changes to it; the child inherits nothing.
    pub fn env_clear(&mut self) -> &mut Self {
        self.env_clear = true;
        self.env.clear();
        self
    }

    /// Sets descriptor 0 of the child.
    pub fn stdin(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(0, stdio)
    }

    /// Sets descriptor 1 of the child.
    pub fn stdout(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(1, stdio)
    }

    /// Sets descriptor 2 of the child.
    pub fn stderr(&mut self, stdio: impl Into<Stdio>) -> &mut Self {
        self.descriptor(2, stdio)
    }

    /// Sets descriptors 0, 1, 2, … in order. Descriptors beyond the list keep their setting.
    pub fn stdio(&mut self, slots: impl IntoIterator<Item = Stdio>) -> &mut Self {
        for (number, slot) in (0..).zip(slots) {
            self.descriptor(number, slot);
        }
        self
    }

    /// Sets descriptor `number` of the child.
    pub fn descriptor(&mut self, number: i32, stdio: impl Into<Stdio>) -> &mut Self {
        let slot = stdio.into().0;
        match self.stdio.iter_mut().find(|(known, _)| *known == number) {
            Some(known) => known.1 = slot,
            None => self.stdio.push((number, slot)),
        }
        self
    }

    /// Makes the child the leader of a new session, so that signals from this process's terminal do
    /// not reach it. See `setsid(2)`.
    #[doc(alias = "setsid")]
    pub fn detached(&mut self, detached: bool) -> &mut Self {
        self.attributes.session = detached;
        self
    }

    /// Puts the child into a process group. 0 makes a new group that the child leads.
    pub fn process_group(&mut self, group: u32) -> &mut Self {
        self.attributes.process_group = Some(group);
        self
    }

    /// Sets the file mode creation mask of the child: the mode bits that new files do not get.
    pub fn umask(&mut self, mask: u32) -> &mut Self {
        self.attributes.umask = Some(mask);
        self
    }

    /// Sets a resource limit of the child. Limits are set in the order of the calls.
    pub fn limit(&mut self, resource: Resource, limit: Limit) -> &mut Self {
        self.attributes.limits.push((resource, limit));
        self
    }

    /// Sets the nice value of the child, −20 to 19.
    pub fn nice(&mut self, nice: i32) -> &mut Self {
        self.attributes.nice = Some(nice);
        self
    }

    /// Sets the processors on which the child may run, by number.
    pub fn affinity(&mut self, processors: impl IntoIterator<Item = u32>) -> &mut Self {
        self.attributes.affinity = Some(processors.into_iter().collect());
        self
    }

    /// Sets the signal that the child gets when this process dies.
    ///
    /// The kernel ties the signal to the thread that starts the child. The main thread starts the
    /// child itself. For any other thread, a new thread does so and then waits until the child has
    /// ended. The child has what the calling thread has: its namespaces, capabilities, filters,
    /// processors, and the rest.
    ///
    /// The start fails with [`Step::ParentDeathThread`](crate::Step::ParentDeathThread) when the
    /// thread cannot be had: `EAGAIN` when the process has too many threads, or
    /// [`PARENT_DEATH_THREADS_MAX`](Self::PARENT_DEATH_THREADS_MAX) of these; `EINVAL` when the
    /// calling thread has given its children another pid namespace by `unshare(2)`, because a thread
    /// cannot be started into it. A child that executes a set-user-ID program, or one with
    /// capabilities, loses the signal. See `PR_SET_PDEATHSIG` in `prctl(2)`.
    pub fn parent_death_signal(&mut self, signal: Signal) -> &mut Self {
        self.attributes.parent_death_signal = Some(signal);
        self
    }

    /// Starts the child inside a control group, a directory below `/sys/fs/cgroup`.
    pub fn cgroup(&mut self, directory: impl AsRef<Path>) -> &mut Self {
        self.cgroup = Some(directory.as_ref().to_owned());
        self.cgroup_is_own = false;
        self
    }

    /// Starts the child inside a control group that belongs to the child alone.
    ///
    /// The group must be empty, and no other process may be put there.
    /// [`kill_tree`](crate::Child::kill_tree) then reaches every process in the group, including
    /// processes that have left the process tree and the session. The caller creates the directory
    /// before and removes it afterwards. The directory is looked up once, for the start, and takes a
    /// descriptor until the [`Child`](crate::Child) is dropped.
    ///
    /// ```
    /// # fn main() -> Result<(), Box<dyn std::error::Error>> {
    /// use brood_child_process::{Command, Step};
    ///
    /// // A missing group is an error before anything runs, and so is a group with processes.
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

    /// Forbids the child, permanently, to gain privileges through the files that it executes.
    pub fn no_new_privileges(&mut self) -> &mut Self {
        self.attributes.no_new_privileges = true;
        self
    }

    /// Resets every signal of the child to its default action. Without this option, a signal that
    /// this process ignores stays ignored, except `SIGPIPE` and `SIGCHLD`: a program under `nohup`
    /// starts children that survive the end of the terminal as well. Handlers are always reset.
    ///
    /// Node: resets all signals.
    pub fn default_signals(&mut self, reset: bool) -> &mut Self {
        self.attributes.default_signals = reset;
        self
    }

    /// Sets the signals that are blocked when the child starts. The default is none.
    pub fn block_signals(&mut self, signals: impl IntoIterator<Item = Signal>) -> &mut Self {
        self.attributes.blocked_signals = signals.into_iter().collect();
        self
    }

    /// Sets how long the start of the child may take, until it has executed its program; by default
    /// [`START_WITHIN`](Self::START_WITHIN), 10 s. With `Duration::MAX` there is no limit, and zero
    /// is refused. The sum of [`timeout`](Self::timeout) and [`kill_after`](Self::kill_after), one
    /// second at least, limits the start as well.
    ///
    /// A start takes that long only if another process stops or traces the child, or if the file
    /// system of the program or the working directory does not answer. The child is then killed, and
    /// the start fails with `ETIMEDOUT` and the [`Step`](crate::Step) that did not end. A child that
    /// the kernel does not end within another second, in a frozen control group of version 1 or in
    /// an uninterruptible system call, is left behind, with 128 KiB of address space; a later start
    /// reaps it. With 64 such children a start fails with `EAGAIN`.
    ///
    /// Node: waits without limit, and with it the whole process.
    ///
    /// ```
    /// use std::time::Duration;
    /// use brood_child_process::Command;
    ///
    /// let mut command = Command::new("true");
    /// assert!(command.start_within(Duration::from_secs(2)).spawn()?.wait()?.success());
    /// # Ok::<(), brood_child_process::Error>(())
    /// ```
    pub fn start_within(&mut self, limit: Duration) -> &mut Self {
        self.start_within = limit;
        self
    }

    /// Sets the time after which the child is sent its kill signal. Zero means never, as in Node.
    /// The time of the start counts.
    ///
    /// A stopped child is continued, so that it can handle the signal. A child that still runs after
    /// [`kill_after`](Self::kill_after) is sent `SIGKILL`. Collected output is therefore returned at
    /// the latest two seconds after that, even if the child does not end at all.
    pub fn timeout(&mut self, timeout: Duration) -> &mut Self {
        self.timeout = (!timeout.is_zero()).then_some(timeout);
        self
    }

    /// Sets the signal that is sent on a timeout, on cancellation, and when an output exceeds
    /// [`max_buffer`](Self::max_buffer). The default is `SIGTERM`.
    pub fn kill_signal(&mut self, signal: Signal) -> &mut Self {
        self.kill_signal = signal;
        self
    }

    /// Sets the time between the kill signal and `SIGKILL`, which a child gets if it still runs. The
    /// default is [`KILL_AFTER`](Self::KILL_AFTER), 5 s.
    ///
    /// With zero, `SIGKILL` follows at once. With `Duration::MAX`, it is never sent: a call that
    /// collects output then waits as long as the child ignores its kill signal. Node has no second
    /// signal.
    ///
    /// ```
    /// use std::time::Duration;
    /// use brood_child_process::{Command, ExitStatus, Signal};
    ///
    /// let mut deaf = Command::shell_line("trap '' TERM; while :; do sleep 1; done");
    /// let (timeout, kill_after) = (Duration::from_millis(100), Duration::from_millis(100));
    /// let failed = deaf.timeout(timeout).kill_after(kill_after).output().unwrap_err();
    /// assert_eq!(failed.code(), "ETIMEDOUT");
    /// assert_eq!(failed.status, Some(ExitStatus::Signal(Signal::KILL)));
    /// ```
    #[doc(alias = "forceKillAfterDelay")]
    pub fn kill_after(&mut self, grace: Duration) -> &mut Self {
        self.kill_after = grace;
        self
    }

    /// Sends the kill signal, and the `SIGKILL` after it, to the child's descendants as well, as
    /// [`Child::kill_tree`](crate::Child::kill_tree) does. The default is the child alone, as in
    /// Node.
    ///
    /// If a descendant may not have been reached, the failure of the command is
    /// [`Error::Tree`](crate::Error::Tree) in place of the timeout.
    pub fn kill_tree(&mut self, tree: bool) -> &mut Self {
        self.kill_tree = tree;
        self
    }

    /// Sets how many bytes of each output are collected. A child that writes more is sent its kill
    /// signal. The default is [`MAX_BUFFER_BYTES`](Self::MAX_BUFFER_BYTES).
    pub fn max_buffer(&mut self, bytes: usize) -> &mut Self {
        self.max_buffer = Some(bytes);
        self
    }

    /// Collects outputs of any size.
    pub fn max_buffer_unlimited(&mut self) -> &mut Self {
        self.max_buffer = None;
        self
    }

    /// Sets the standard input of the next child whose output is collected. Standard input is then
    /// a pipe, and the bytes move into that child.
    pub fn input(&mut self, bytes: impl Into<Vec<u8>>) -> &mut Self {
        self.input = Some(bytes.into());
        self
    }

    /// Sends the child its kill signal when `token` is cancelled.
    #[doc(alias = "signal")]
    pub fn cancel_with(&mut self, token: &CancelToken) -> &mut Self {
        self.cancel = Some(token.clone());
        self
    }

    /// Sends `SIGKILL` to the child when its [`Child`](crate::Child) is dropped. Without this
    /// option the child keeps running and is reaped when it ends.
    pub fn kill_on_drop(&mut self, kill: bool) -> &mut Self {
        self.kill_on_drop = kill;
        self
    }

    /// Sets the codec of the channel, which is announced to the child. The default is bincode; a
    /// Node child then gets JSON, and [`Advanced`](ipc::Serialization::Advanced) on request.
    pub fn serialization(&mut self, serialization: ipc::Serialization) -> &mut Self {
        let options = std::mem::take(&mut self.channel);
        self.channel = options.serialization(serialization);
        self
    }

    /// Sets the limits and other options of the channel, its codec included.
    ///
    /// A start with a tag over [`Options::TAG_BYTES_MAX`](ipc::Options::TAG_BYTES_MAX) is refused.
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

    /// Returns the command as one line, for messages.
    pub(crate) fn line(&self) -> String {
        let words = [&self.program].into_iter().chain(&self.args);
        let words: Vec<_> = words.map(|word| word.to_string_lossy()).collect();
        words.join(" ")
    }
}
