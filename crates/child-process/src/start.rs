//! From a [`Command`] to a running [`Child`]: creates the pipes and the channel, has the plan
//! executed, and keeps this process's ends.

use std::borrow::Cow;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use ipc::{Serialization, internal};
use sys::host::user::Account;
use sys::spawn::{Attributes, Descriptor, Plan, Source, Spawned, Step};
use sys::startup;

use crate::channel_env;
use crate::child::{Child, Streams};
use crate::child_state::{Kill, Shared, reap_orphans};
use crate::command::Command;
use crate::control_group::ControlGroup;
use crate::error::{Error, InvalidOption, SpawnError};
use crate::module;
use crate::parent_death;
use crate::plan;
use crate::process::Process;
use crate::sandbox::ruleset::{self, Failure};
use crate::sandbox::{Namespace, Sandbox};
use crate::stdio::{ChildOutput, ChildStdin, Slot};
use crate::terminal::Terminal;

impl Command {
    /// Starts the child and returns when it has executed its program.
    ///
    /// Descriptors that were given to the command are then open in the child only.
    ///
    /// # Errors
    ///
    /// [`Error::Invalid`] when an option is invalid: nothing was started. [`Error::Spawn`] with the
    /// step that failed: no process is left.
    pub fn spawn(&mut self) -> Result<Child, Error> {
        start(self, self.timeout)
    }
}

/// The time that a start has whatever its timeout is: a timeout of a nanosecond ends the child, and is
/// no error of the start.
const START_MIN: Duration = Duration::from_secs(1);

/// Starts the child with `timeout` in place of the command's.
pub(crate) fn start(command: &mut Command, timeout: Option<Duration>) -> Result<Child, Error> {
    // Checked first: an invalid command must not open or move a descriptor.
    plan::check(command)?;
    if command.module.is_some() || (command.is_fork && command.fallback.is_some()) {
        module::check_started()?;
    }
    // Checked before the start: without the loop neither a timeout nor a channel works.
    if timeout.is_some() || command.has_channel() {
        reactor::reactor()?;
    }
    let sandbox = command.sandbox.clone().unwrap_or_default();
    let attributes = attributes(command, &sandbox)?;
    reap_orphans();
    let mut pipes = Pipes::make(command)
        .map_err(|(call, error)| spawn_error(command, Step::Process, Some(call), error))?;
    pipes
        .add_terminal(command)
        .map_err(|error| spawn_error(command, Step::Terminal, None, error))?;
    let mut announcement = match &pipes.child_channel {
        Some((number, end)) => announcement(command, *number, end)?,
        None => Vec::new(),
    };
    announcement.extend(command.module.clone().map(|name| (module::MODULE, name)));
    let mut plan = plan::plan(command, inherited_variables(), &announcement)?;
    // A child that does not start is not to outlive the `SIGKILL` of its timeout either.
    if let Some(timeout) = timeout {
        let killed_after = timeout.saturating_add(command.kill_after).max(START_MIN);
        plan.start_within = plan.start_within.min(killed_after);
    }
    let timeout_at = timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let (cgroup, own_group) =
        open_cgroup(command).map_err(|error| spawn_error(command, Step::Cgroup, None, error))?;
    let ruleset = ruleset(command, &plan)?;
    let sources = sources(command);
    // The descriptors move only now: an error above leaves them in the command.
    let slots = command.stdio.iter_mut();
    let given = slots.filter_map(|(number, slot)| Some((*number, slot.take_owned()?)));
    let given: Arc<Vec<(i32, OwnedFd)>> = Arc::new(given.collect());
    let lent = Arc::clone(&given);
    let mut ends = std::mem::take(&mut pipes.child_ends);
    ends.extend(pipes.child_channel.take());
    let parent_death = attributes.parent_death_signal.is_some();
    // Owns everything, so that it can run on another thread. The child's ends close when it
    // returns, before anybody can wait for the end of a pipe.
    let launch = move || {
        let fixed = sources.iter().map(|(number, source)| (*number, *source));
        let moved = lent.iter().chain(&ends);
        let moved = moved.map(|(number, fd)| (*number, Source::Fd(fd.as_fd())));
        let descriptor = |(number, source)| Descriptor { number: number as u32, source };
        let descriptors = fixed.chain(moved).map(descriptor).collect();
        let cgroup = cgroup.as_ref().map(AsFd::as_fd);
        sys::spawn::spawn(&Plan {
            descriptors,
            attributes: Cow::Borrowed(&attributes),
            cgroup,
            network_namespace: sandbox.network_namespace.as_ref().map(Namespace::as_fd),
            mount_namespace: sandbox.mount_namespace.as_ref().map(Namespace::as_fd),
            landlock: ruleset.as_ref().map(AsFd::as_fd),
            ..plan
        })
    };
    let spawned = if parent_death { parent_death::launch(launch) } else { launch() };
    match &spawned {
        // Closed before anybody can wait for the end of a pipe that was given.
        Ok(_) => drop(given),
        Err(_) => give_back(command, given),
    }
    let spawned =
        spawned.map_err(|error| spawn_error(command, error.step, error.call, error.into()))?;
    child(command, timeout_at, spawned, pipes, own_group)
}

/// Returns the ids and groups of a user of the user database.
pub(crate) fn account(name: &OsStr) -> Result<Account, Error> {
    let account = sys::host::user::account(name).map_err(|error| Error::Os("getpwnam", error))?;
    let unknown = || InvalidOption::value("user", "is not in the user database");
    Ok(account.ok_or_else(unknown)?)
}

/// Returns the attributes of the child, with those of its user, its terminal and its sandbox.
fn attributes(command: &Command, sandbox: &Sandbox) -> Result<Attributes, Error> {
    let mut attributes = command.attributes.clone();
    if let Some(name) = &command.user {
        let account = account(name)?;
        attributes.uid.get_or_insert(account.uid);
        attributes.gid.get_or_insert(account.gid);
        attributes.groups.get_or_insert(account.groups);
    }
    attributes.umask = sandbox.umask.or(attributes.umask);
    attributes.limits.extend_from_slice(&sandbox.limits);
    attributes.bounding = sandbox.bounding_kept();
    attributes.ambient = sandbox.ambient;
    attributes.no_new_privileges |= sandbox.needs_no_new_privileges();
    attributes.filters = sandbox.all_filters();
    if let Some(number) = command.terminal_number() {
        attributes.session = true;
        attributes.terminal = Some(number as u32);
    }
    Ok(attributes)
}

/// Creates the Landlock ruleset of the child, if its sandbox has rules.
fn ruleset(command: &Command, plan: &Plan<'_>) -> Result<Option<OwnedFd>, Error> {
    let Some(sandbox) = command.sandbox.as_ref().filter(|it| it.uses_landlock()) else {
        return Ok(None);
    };
    let ruleset = ruleset::create(sandbox, &plan.candidates, plan.current_dir.as_deref());
    ruleset.map_err(|failure| match failure {
        Failure::Path(path) => {
            let field = format!("sandbox path {}", path.display());
            InvalidOption::value(field, "does not exist, or cannot be looked up").into()
        }
        Failure::Call(call, error) => spawn_error(command, Step::Landlock, Some(call), error),
    })
}

/// Puts descriptors back into the slots from which they were taken.
fn give_back(command: &mut Command, given: Arc<Vec<(i32, OwnedFd)>>) {
    // Nothing else holds them once the launch has returned.
    for (number, fd) in Arc::into_inner(given).into_iter().flatten() {
        command.descriptor(number, fd);
    }
}

/// Returns the variables of this process that its children inherit. Sockets of a service manager
/// that this process has taken are no business of theirs.
fn inherited_variables() -> impl Iterator<Item = (OsString, OsString)> {
    let taken = startup::listen_sockets_taken();
    let is_taken = move |name: &OsString| {
        taken && startup::SERVICE_MANAGER_NAMES.iter().any(|known| name == known)
    };
    std::env::vars_os().filter(move |(name, _)| !is_taken(name))
}

fn spawn_error(
    command: &Command,
    step: Step,
    call: Option<&'static str>,
    source: io::Error,
) -> Error {
    Error::Spawn(Box::new(SpawnError {
        program: command.shell.as_ref().unwrap_or(&command.program).clone(),
        arguments: command.args.clone(),
        current_dir: command.current_dir.clone(),
        step,
        call,
        source,
    }))
}

/// The pipes and the channel of a child: the child's ends by descriptor number, and this process's.
#[derive(Default)]
struct Pipes {
    child_ends: Vec<(i32, OwnedFd)>,
    child_channel: Option<(i32, OwnedFd)>,
    channel: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    outputs: Vec<(i32, OwnedFd)>,
    extra: Vec<(i32, OwnedFd)>,
    terminal: Option<OwnedFd>,
}

impl Pipes {
    fn make(command: &Command) -> Result<Self, (&'static str, io::Error)> {
        let pipe = || sys::pipe::pipe().map_err(|error| ("pipe2", error));
        let pair = || sys::socket::pair_stream().map_err(|error| ("socketpair", error));
        let mut pipes = Self::default();
        for (number, slot) in &command.stdio {
            match (slot, *number) {
                (Slot::Pipe, 0) => {
                    let (reader, writer) = pipe()?;
                    pipes.child_ends.push((0, reader));
                    pipes.stdin = Some(writer);
                }
                (Slot::Pipe, number @ (1 | 2)) => {
                    let (reader, writer) = pipe()?;
                    pipes.child_ends.push((number, writer));
                    pipes.outputs.push((number, reader));
                }
                (Slot::Pipe, number) => {
                    let (ours, theirs) = pair()?;
                    pipes.child_ends.push((number, theirs));
                    pipes.extra.push((number, ours));
                }
                (Slot::Channel, number) => {
                    let (ours, theirs) = pair()?;
                    pipes.child_channel = Some((number, theirs));
                    pipes.channel = Some(ours);
                }
                _ => {}
            }
        }
        Ok(pipes)
    }

    /// Opens the terminal, once for all its slots.
    fn add_terminal(&mut self, command: &Command) -> io::Result<()> {
        let slots = command.stdio.iter().filter(|(_, slot)| matches!(slot, Slot::Terminal));
        let mut numbers = slots.map(|(number, _)| *number);
        let Some(first) = numbers.next() else { return Ok(()) };
        let size = command.terminal_size;
        let (ours, theirs) = sys::terminal::open(size.rows, size.columns)?;
        for number in numbers {
            self.child_ends.push((number, theirs.try_clone()?));
        }
        self.child_ends.push((first, theirs));
        self.terminal = Some(ours);
        Ok(())
    }
}

/// Returns the variables that announce the channel to the child.
fn announcement(
    command: &Command,
    number: i32,
    child_end: &OwnedFd,
) -> Result<Vec<(&'static str, String)>, Error> {
    let inode = sys::fd::inode(child_end.as_fd()).map_err(|error| Error::Os("fstat", error))?;
    let codec = internal::serialization(&channel_options(command));
    Ok(channel_env::variables(number, inode, codec, command.speaks_node()))
}

/// Returns the options of the channel. Node has no bincode: its default is JSON.
fn channel_options(command: &Command) -> ipc::Options {
    let options = command.channel.clone();
    match internal::serialization(&options) {
        Serialization::Bincode if command.speaks_node() => {
            options.serialization(Serialization::Json)
        }
        _ => options,
    }
}

/// Returns the descriptor by which the child moves itself into its group before it executes its
/// program, and the group if it belongs to the child alone.
fn open_cgroup(command: &Command) -> io::Result<(Option<OwnedFd>, Option<ControlGroup>)> {
    let of_sandbox = command.sandbox.as_ref().and_then(|sandbox| sandbox.cgroup.as_ref());
    let Some(directory) = of_sandbox.or(command.cgroup.as_ref()) else { return Ok((None, None)) };
    let is_own = of_sandbox.is_none() && command.cgroup_is_own;
    let group = ControlGroup::open(directory)?;
    let joining = group.joining()?;
    if is_own && !group.processes()?.is_empty() {
        return Err(io::Error::from_raw_os_error(sys::errno::EBUSY));
    }
    Ok((Some(joining), is_own.then_some(group)))
}

/// Returns the sources of the descriptors for which this process opens nothing.
fn sources(command: &Command) -> Vec<(i32, Source<'static>)> {
    let source = |(number, slot): &(i32, Slot)| {
        let source = match slot {
            Slot::InheritOwn => Source::Inherit(*number as u32),
            Slot::Inherit(of) => Source::Inherit(*of as u32),
            Slot::Null => Source::Null,
            Slot::Closed => Source::Closed,
            Slot::Pipe | Slot::Channel | Slot::Terminal | Slot::Owned(_) | Slot::Moved => {
                return None;
            }
        };
        Some((*number, source))
    };
    command.stdio.iter().filter_map(source).collect()
}

/// Creates the [`Child`] and starts the channel, the timeout and the cancellation.
fn child(
    command: &Command,
    timeout_at: Option<Instant>,
    spawned: Spawned,
    pipes: Pipes,
    own_group: Option<ControlGroup>,
) -> Result<Child, Error> {
    let process = Process::new(spawned.pid, spawned.pidfd);
    let connected = pipes.channel.is_some();
    let kill = Kill {
        signal: command.kill_signal,
        after: command.kill_after,
        tree: command.kill_tree,
        cgroup: own_group,
    };
    let shared = Arc::new(Shared::new(process, kill, timeout_at, connected));
    let mut streams = Streams { stdin: pipes.stdin.map(ChildStdin::new), ..Streams::default() };
    for (number, pipe) in pipes.outputs {
        let pipe = Arc::new(File::from(pipe));
        shared.add_output(&pipe);
        let output = Some(ChildOutput::new(pipe, &shared));
        if number == 1 { streams.stdout = output } else { streams.stderr = output }
    }
    if let Some(terminal) = pipes.terminal {
        let terminal = Arc::new(File::from(terminal));
        // Ends as an output does: with the last process that has it open.
        shared.add_output(&terminal);
        streams.terminal = Some(Terminal::new(terminal, &shared));
    }
    let extra = pipes.extra.into_iter();
    streams.extra = extra.map(|(number, pipe)| (number, UnixStream::from(pipe))).collect();
    // A failure from here on drops `child`: the process is reaped and finds its channel closed.
    let child = Child::new(Arc::clone(&shared), streams, command.kill_on_drop);
    if let Some(socket) = pipes.channel {
        connect(&shared, socket, command)?;
    }
    if timeout_at.is_some() {
        shared.wake_driver()?;
    }
    if let Some(token) = &command.cancel {
        token.watch(&shared);
    }
    Ok(child)
}

fn connect(shared: &Arc<Shared>, socket: OwnedFd, command: &Command) -> Result<(), Error> {
    // Weak, because the link keeps this closure and the child keeps the link.
    let weak = Arc::downgrade(shared);
    let start = if command.speaks_node() { internal::start_node } else { internal::start_paused };
    let link = start(socket, channel_options(command), move |event| {
        if let Some(shared) = weak.upgrade() {
            shared.channel_event(event);
        }
    })?;
    shared.set_link(link);
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::fork::Fork;
    use crate::module::Module;
    use sys::signal::Signal;

    /// Creates a fork of a shell at `program` that prints the announcement of its channel.
    fn announced(program: impl AsRef<std::path::Path>) -> Fork {
        let mut fork = Fork::new(Module::program(program));
        let script = "echo ${NODE_CHANNEL_FD-none} ${BROOD_CHANNEL:+ours} $OTHER";
        fork.silent(true).args(["-c", script]).env("OTHER", "kept").env("NODE_CHANNEL_FD", "77");
        fork
    }

    fn output(command: &mut Command) -> String {
        let mut child = command.spawn().unwrap();
        let mut text = String::new();
        child.take_stdout().unwrap().read_to_string(&mut text).unwrap();
        assert!(child.wait().unwrap().success());
        text.trim_end().to_owned()
    }

    #[test]
    fn a_command_is_the_same_after_its_child_was_started() {
        let mut fork = announced("/bin/sh");
        fork.nice(3).umask(0o077).parent_death_signal(Signal::KILL);
        let before = (fork.env.clone(), fork.attributes.clone());
        for _ in 0..2 {
            assert_eq!(output(&mut fork), "77 ours kept");
            assert_eq!((&fork.env, &fork.attributes), (&before.0, &before.1));
        }
        let shell = std::mem::replace(&mut fork.program, "/nonexistent/sh".into());
        for _ in 0..2 {
            assert_eq!(fork.spawn().unwrap_err().step(), Some(Step::Program));
            assert_eq!((&fork.env, &fork.attributes), (&before.0, &before.1));
        }
        fork.program = shell;
        assert_eq!(output(&mut fork), "77 ours kept");
    }

    #[test]
    fn the_input_stays_in_a_command_that_could_not_be_started() {
        let mut command = Command::new("/nonexistent/cat");
        command.input("text");
        command.output().unwrap_err();
        command.program = "cat".into();
        assert_eq!(command.output().unwrap().stdout, b"text");
    }

    #[test]
    fn a_timeout_is_the_same_after_output_was_collected() {
        let mut command = Command::new("sleep");
        command.arg("60").timeout(Duration::from_millis(1));
        for _ in 0..2 {
            assert!(matches!(command.output().unwrap_err().error, Error::TimedOut));
        }
    }

    #[test]
    fn a_node_channel_that_the_user_names_reaches_a_child_without_a_channel() {
        let mut command = Command::shell_line("echo $NODE_CHANNEL_FD");
        command.env("NODE_CHANNEL_FD", "77");
        for _ in 0..2 {
            assert_eq!(output(&mut command), "77");
        }
    }

    #[test]
    fn our_announcement_wins_in_the_child_and_leaves_the_users_variable_in_the_command() {
        let folder = tempfile::tempdir().unwrap();
        let node = folder.path().join("node");
        std::os::unix::fs::symlink("/bin/sh", &node).unwrap();
        let mut fork = announced(&node);
        assert!(fork.speaks_node());
        for _ in 0..2 {
            assert_eq!(output(&mut fork), "3 kept");
            let kept = fork.env.get("NODE_CHANNEL_FD".as_ref() as &std::ffi::OsStr);
            assert_eq!(kept.unwrap().as_deref(), Some("77".as_ref()));
        }
        // The same command without a channel.
        fork.is_fork = false;
        fork.descriptor(3, crate::Stdio::null());
        assert_eq!(output(&mut fork), "77 kept");
    }
}
