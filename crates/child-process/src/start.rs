//! From a [`Command`] to a running child: pipes and channel are made, the plan is handed to the
//! kernel's room, our ends go into the [`Child`].

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, OnceLock};
use std::thread;
use std::time::Instant;

use crossbeam_channel::Sender;
use ipc::{Link, Serialization};
use sys::spawn::{Descriptor, Plan, Source, SpawnError, Spawned, Step};

use crate::child::{Child, Streams};
use crate::command::{Command, Rights, take_owned};
use crate::error::{Error, Invalid, SpawnFailure};
use crate::module::runs_scripts;
use crate::plan::{self, Blueprint, NUMBER_MAX};
use crate::process::Process;
use crate::shared::{Shared, reap_orphans};
use crate::stdio::{ChildOutput, ChildStdin, Slot};

/// The variable that announces the channel to the child: `number:inode:version:codec`.
pub(crate) const CHANNEL: &str = "BROOD_CHANNEL";
/// The same for a program of Node's.
pub(crate) const NODE_CHANNEL: &str = "NODE_CHANNEL_FD";
pub(crate) const NODE_CODEC: &str = "NODE_CHANNEL_SERIALIZATION_MODE";
/// The version of that announcement.
pub(crate) const CHANNEL_VERSION: u32 = 1;

pub(crate) fn spawn(command: &mut Command) -> Result<Child, Error> {
    validate(command)?;
    reap_orphans();
    let mut ends = Ends::make(command).map_err(|error| failure(command, Step::Process, error))?;
    if let Some((number, theirs)) = &ends.channel {
        announce(command, *number, theirs)?;
    }
    let blueprint = plan::blueprint(&command.recipe, std::env::vars_os());
    // The announcement is for this child only.
    for name in [CHANNEL, NODE_CHANNEL, NODE_CODEC] {
        command.recipe.env.changes.remove(OsStr::new(name));
    }
    let blueprint = blueprint?;
    let cgroup =
        open_cgroup(&command.rights).map_err(|error| failure(command, Step::Cgroup, error))?;
    let mut owned = take_owned(&mut command.stdio);
    owned.append(&mut ends.theirs);
    owned.extend(ends.channel.take());
    let prepared = Prepared {
        blueprint,
        sources: sources(command),
        owned,
        rights: std::mem::take(&mut command.rights),
        cgroup,
    };
    let (spawned, rights) = prepared.launch_where_it_belongs();
    command.rights = rights;
    let spawned = spawned.map_err(|error| failure(command, error.step, error.into()))?;
    child(command, spawned, ends)
}

fn failure(command: &Command, step: Step, source: io::Error) -> Error {
    Error::Spawn(Box::new(SpawnFailure {
        program: command.recipe.shell.as_ref().unwrap_or(&command.recipe.program).clone(),
        arguments: command.recipe.args.clone(),
        current_dir: command.recipe.current_dir.clone(),
        step,
        source,
    }))
}

/// Checks what [`plan::blueprint`] does not: numbers and slots.
fn validate(command: &Command) -> Result<(), Invalid> {
    let rights = &command.rights;
    let id_max = i64::from(u32::MAX) - 1;
    if let Some(uid) = rights.uid {
        plan::within("uid", uid.into(), 0, id_max)?;
    }
    if let Some(gid) = rights.gid {
        plan::within("gid", gid.into(), 0, id_max)?;
    }
    for group in rights.groups.iter().flatten() {
        plan::within("groups", i64::from(*group), 0, id_max)?;
    }
    if let Some(nice) = rights.nice {
        plan::within("nice", nice.into(), -20, 19)?;
    }
    if let Some(umask) = rights.umask {
        plan::within("umask", umask.into(), 0, 0o777)?;
    }
    if let Some(group) = rights.process_group {
        plan::within("process_group", group.into(), 0, i32::MAX.into())?;
        if rights.session {
            return Err(Invalid::value("process_group", "a session leader has its own group"));
        }
    }
    if let Some(processors) = &rights.affinity {
        if processors.is_empty() {
            return Err(Invalid::value("affinity", "must name a processor"));
        }
        for processor in processors {
            plan::within("affinity", i64::from(*processor), 0, 8191)?;
        }
    }
    validate_slots(command)
}

fn validate_slots(command: &Command) -> Result<(), Invalid> {
    let mut channels = 0;
    for (number, slot) in &command.stdio {
        if *number < 0 || *number > NUMBER_MAX {
            return Err(Invalid::range(format!("stdio[{number}]"), "is out of range"));
        }
        match slot {
            Slot::Channel => channels += 1,
            Slot::Moved => {
                let why = "the descriptor went into an earlier child; give another one";
                return Err(Invalid::value(format!("stdio[{number}]"), why));
            }
            _ => {}
        }
    }
    if channels > 1 {
        return Err(Invalid::coded(
            "stdio",
            "at most one slot can be the channel",
            "ERR_IPC_ONE_PIPE",
        ));
    }
    if channels == 0 && command.is_fork {
        let code = "ERR_CHILD_PROCESS_IPC_REQUIRED";
        return Err(Invalid::coded("stdio", "a fork must have a channel", code));
    }
    Ok(())
}

/// What was made for the child: its ends by number, and ours.
#[derive(Default)]
struct Ends {
    theirs: Vec<(i32, OwnedFd)>,
    channel: Option<(i32, OwnedFd)>,
    link: Option<OwnedFd>,
    stdin: Option<OwnedFd>,
    outputs: Vec<(i32, OwnedFd)>,
    extra: Vec<(i32, OwnedFd)>,
}

impl Ends {
    fn make(command: &Command) -> io::Result<Self> {
        let mut ends = Self::default();
        for (number, slot) in &command.stdio {
            match (slot, *number) {
                (Slot::Pipe, 0) => {
                    let (reader, writer) = sys::pipe::pipe()?;
                    ends.theirs.push((0, reader));
                    ends.stdin = Some(writer);
                }
                (Slot::Pipe, number @ (1 | 2)) => {
                    let (reader, writer) = sys::pipe::pipe()?;
                    ends.theirs.push((number, writer));
                    ends.outputs.push((number, reader));
                }
                (Slot::Pipe, number) => {
                    let (ours, theirs) = sys::socket::pair_stream()?;
                    ends.theirs.push((number, theirs));
                    ends.extra.push((number, ours));
                }
                (Slot::Channel, number) => {
                    let (ours, theirs) = sys::socket::pair_stream()?;
                    ends.channel = Some((number, theirs));
                    ends.link = Some(ours);
                }
                _ => {}
            }
        }
        Ok(ends)
    }
}

/// Tells the child where its channel is: by our variable, or by Node's.
fn announce(command: &mut Command, number: i32, theirs: &OwnedFd) -> Result<(), Error> {
    let inode = sys::fd::inode(theirs.as_fd()).map_err(|error| Error::Os("fstat", error))?;
    let codec = channel_options(command).serialization.name();
    if speaks_node(command) {
        command.env(NODE_CHANNEL, number.to_string()).env(NODE_CODEC, codec);
    } else {
        command.env(CHANNEL, format!("{number}:{inode}:{CHANNEL_VERSION}:{codec}"));
    }
    Ok(())
}

/// Whether the child expects Node's channel.
pub(crate) fn speaks_node(command: &Command) -> bool {
    command.is_node || (command.recipe.shell.is_none() && runs_scripts(&command.recipe.program))
}

/// Limits and codec of the channel; Node knows two codecs, and the first is its default.
fn channel_options(command: &Command) -> ipc::Options {
    let mut options = command.channel.clone();
    if speaks_node(command) && options.serialization == Serialization::Bincode {
        options.serialization = Serialization::Json;
    }
    options
}

fn open_cgroup(rights: &Rights) -> io::Result<Option<OwnedFd>> {
    let Some(directory) = &rights.cgroup else { return Ok(None) };
    let file = directory.join("cgroup.procs");
    if rights.cgroup_is_own && !std::fs::read_to_string(&file)?.trim().is_empty() {
        return Err(io::Error::from_raw_os_error(sys::errno::EBUSY));
    }
    let procs = File::options().write(true).open(file)?;
    Ok(Some(procs.into()))
}

/// The slots that need no descriptor of ours.
fn sources(command: &Command) -> Vec<(i32, Source<'static>)> {
    let source = |(number, slot): &(i32, Slot)| {
        let source = match slot {
            Slot::InheritOwn => Source::Inherit(*number as u32),
            Slot::Inherit(of) => Source::Inherit(*of as u32),
            Slot::Null => Source::Null,
            Slot::Closed => Source::Closed,
            Slot::Pipe | Slot::Channel | Slot::Owned(_) | Slot::Moved => return None,
        };
        Some((*number, source))
    };
    command.stdio.iter().filter_map(source).collect()
}

/// All that is needed to start the child, owned, so that another thread can do it.
struct Prepared {
    blueprint: Blueprint,
    sources: Vec<(i32, Source<'static>)>,
    owned: Vec<(i32, OwnedFd)>,
    rights: Rights,
    cgroup: Option<OwnedFd>,
}

type Launched = (Result<Spawned, SpawnError>, Rights);

impl Prepared {
    /// Here, or on the thread whose end is the end of the process.
    fn launch_where_it_belongs(self) -> Launched {
        if self.rights.parent_death_signal.is_none() {
            return self.launch();
        }
        let (answer, launched) = crossbeam_channel::bounded(1);
        let job: Job = Box::new(move || {
            // The asker waits for it.
            let _ = answer.send(self.launch());
        });
        spawner().send(job).expect("the thread never ends");
        launched.recv().expect("every job answers")
    }

    fn launch(self) -> Launched {
        let Self { blueprint, sources, owned, rights, cgroup } = self;
        let Blueprint { candidates, arguments, environment, current_dir } = blueprint;
        let fixed = sources.iter().map(|(number, source)| (*number, *source));
        let given = owned.iter().map(|(number, fd)| (*number, Source::Fd(fd.as_fd())));
        let descriptor = |(number, source)| Descriptor { number: number as u32, source };
        let mut plan = Plan::new(candidates, arguments);
        plan.descriptors = fixed.chain(given).map(descriptor).collect();
        plan.environment = environment;
        plan.current_dir = current_dir;
        plan.session = rights.session;
        plan.process_group = rights.process_group;
        plan.umask = rights.umask;
        plan.limits.clone_from(&rights.limits);
        plan.nice = rights.nice;
        plan.affinity.clone_from(&rights.affinity);
        plan.groups.clone_from(&rights.groups);
        plan.gid = rights.gid;
        plan.uid = rights.uid;
        plan.parent_death_signal = rights.parent_death_signal;
        plan.cgroup = cgroup.as_ref().map(AsFd::as_fd);
        plan.no_new_privileges = rights.no_new_privileges;
        plan.blocked_signals.clone_from(&rights.blocked_signals);
        let spawned = sys::spawn::spawn(&plan);
        drop(plan);
        (spawned, rights)
    }
}

type Job = Box<dyn FnOnce() + Send>;

/// The thread that starts children with a parent-death signal.
fn spawner() -> &'static Sender<Job> {
    static SPAWNER: OnceLock<Sender<Job>> = OnceLock::new();
    SPAWNER.get_or_init(|| {
        let (jobs, received) = crossbeam_channel::unbounded::<Job>();
        let run = move || received.into_iter().for_each(|job| job());
        let thread = thread::Builder::new().name("brood-spawn".to_owned()).spawn(run);
        drop(thread.expect("a process that starts processes can start a thread"));
        jobs
    })
}

/// Puts our ends into a [`Child`].
fn child(command: &Command, spawned: Spawned, ends: Ends) -> Result<Child, Error> {
    let process = Process::new(spawned.pid, spawned.pidfd);
    let timeout_at = command.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let connected = ends.link.is_some();
    let shared = Arc::new(Shared::new(process, command.kill_signal, timeout_at, connected));
    let mut streams = Streams { stdin: ends.stdin.map(ChildStdin::new), ..Streams::default() };
    for (number, pipe) in ends.outputs {
        let pipe = Arc::new(File::from(pipe));
        shared.add_output(&pipe);
        let output = Some(ChildOutput::new(pipe, &shared));
        if number == 1 { streams.stdout = output } else { streams.stderr = output }
    }
    let extra = ends.extra.into_iter();
    streams.extra = extra.map(|(number, pipe)| (number, UnixStream::from(pipe))).collect();
    let child = Child::new(shared, streams, command);
    if let Some(socket) = ends.link {
        // The child is there already: should this fail, dropping `child` reaps it, and it finds
        // its channel closed.
        child.connect(socket, channel_options(command), speaks_node(command))?;
    }
    child.arm(command)?;
    Ok(child)
}

impl Child {
    fn connect(&self, socket: OwnedFd, options: ipc::Options, node: bool) -> Result<(), Error> {
        // Weak: the link keeps this closure, and the child keeps the link.
        let weak = Arc::downgrade(self.shared());
        let start = if node { Link::start_node } else { Link::start_paused };
        let link = start(socket, options, move |event| {
            if let Some(shared) = weak.upgrade() {
                shared.link_event(event);
            }
        })?;
        self.shared().set_link(link);
        Ok(())
    }
}
