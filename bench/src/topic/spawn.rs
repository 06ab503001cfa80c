//! Topic `spawn`: the time from spawn to exit of `/bin/true`, by resident memory and options.

use std::ffi::CString;
use std::fs::File;
use std::io::{self, BufRead, Read};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::ptr;
use std::time::Instant;

use child_process::{Limit, Resource, Signal, Stdio};
use serde_json::json;
use sys::spawn::{Descriptor, Plan, Source};

use super::ballast::{Ballast, sizes};
use crate::context::{Contender, Context, time_each};
use crate::node::{Node, Script};
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// The user `nobody`, on every Linux.
const NOBODY: u32 = 65534;

/// The role of the small process that spawns on request.
pub const ROLE: &str = "small-spawner";
const ENGINE: &str = "brood, its engine alone";
const SMALL: &str = "brood in a small process";
/// The limit of open files of a child.
const FILES: u64 = 4096;

/// The options of a spawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Options {
    Plain,
    /// Pipes as the standard streams.
    Pipes,
    /// An extra descriptor, a working directory, a process group.
    Several,
    /// The options of a server: another user and group, three extra descriptors, a working
    /// directory, a process group, a limit, a signal mask.
    All,
}

impl Options {
    fn title(self) -> &'static str {
        match self {
            Self::Plain => "Spawn to exit, no options",
            Self::Pipes => "Spawn to exit, with three pipes",
            Self::Several => "Spawn to exit, with an extra descriptor, a cwd and a process group",
            Self::All => {
                "Spawn to exit, with uid, gid, 3 descriptors, cwd, process group, limit, mask"
            }
        }
    }

    /// Returns the name of the options in the script.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Pipes => "pipes",
            Self::Several => "several",
            Self::All => "all",
        }
    }
}

pub fn run(context: &Context) -> Topic {
    let all = [Options::Plain, Options::Pipes, Options::Several, Options::All];
    let mut measures: Vec<Measure> = all
        .map(|options| {
            Measure::new(options.title(), Unit::Nanoseconds, Better::Lower)
                .along("resident MiB", Chart::Lines { log_x: false, log_y: true })
        })
        .into();
    let mut ballast = Ballast::default();
    let mut node = start_node(context);
    // The same spawns in a process without ballast show the cost of the parent's memory.
    let mut small = start_small();
    let null = File::open("/dev/null").expect("every Linux has it");
    for mib in sizes(context) {
        context.progress.show("spawn", &format!("{mib} MiB: filling"), "", 0, 1);
        ballast.hold(mib);
        node = node.and_then(|mut script| {
            script.ask(&json!({ "hold": mib }))?;
            Ok(script)
        });
        for (options, measure) in all.into_iter().zip(&mut measures) {
            let mut contenders = contenders(context, options, &null, &mut node);
            if mib > 0 {
                contenders.push(of_small(context, options, &mut small));
            }
            let place = (format!("{mib} MiB"), mib as f64);
            let place = (place.0.as_str(), place.1);
            let what = format!("spawn, {}", options.name());
            measure.rows.push(context.compare(&what, place, Better::Lower, contenders));
        }
    }
    ballast.hold(0);
    measures.push(reading(context));
    Topic {
        name: "spawn".to_owned(),
        title: "Starting a program".to_owned(),
        notes: vec![
            "The time from the call until the exit of `/bin/true` has been reaped. The parent has \
             touched the memory of the row, Node as much of its own. A `fork` copies the page \
             tables of all this memory; an engine that borrows memory (vfork) does not. `brood in \
             a small process` is the same call at the same time in a process without that memory."
                .to_owned(),
            "Where a peer lacks an option, `pre_exec` sets it (std, tokio), or it is left out: C \
             `posix_spawn` changes no user and no limit, Node sets no limit and no mask."
                .to_owned(),
        ],
        measures,
    }
}

fn start_node(context: &Context) -> Result<Script, String> {
    context.node.as_ref().map_err(Clone::clone)?.start(include_str!("../peers/spawn.js"))
}

fn contenders<'a>(
    context: &Context,
    options: Options,
    null: &'a File,
    node: &'a mut Result<Script, String>,
) -> Vec<Contender<'a>> {
    let times = context.pick(10, 12);
    // SAFETY: the call has no arguments and cannot fail.
    let root = unsafe { libc::geteuid() } == 0;
    if options == Options::All && !root {
        let why = "changing the user needs root";
        return vec![Contender::absent(Role::Ours, "brood", why)];
    }
    let plan = plan(options, null);
    let mut all =
        vec![Contender::new(Role::Ours, "brood", move || time_each(times, || ours(options, null)))];
    all.push(match options {
        Options::Pipes => Contender::absent(Role::Ours, ENGINE, "it makes no pipes"),
        _ => Contender::new(Role::Ours, ENGINE, move || {
            time_each(times, || -> io::Result<()> {
                sys::spawn::spawn(&plan)?.pidfd.wait().map(drop)
            })
        }),
    });
    all.push(match options {
        Options::All => {
            Contender::absent(Role::Peer, "C posix_spawn", "it changes no user and no limit")
        }
        _ => Contender::new(Role::Peer, "C posix_spawn", move || {
            time_each(times, || posix_spawn(options, null))
        }),
    });
    all.push(Contender::new(Role::Peer, "std::process", move || {
        time_each(times, || command(options, null).status().map(drop))
    }));
    all.push(match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => Contender::new(Role::Peer, "tokio::process", move || {
            time_each(times, || {
                let mut command = tokio::process::Command::from(command(options, null));
                runtime.block_on(async { command.status().await }).map(drop)
            })
        }),
        Err(error) => Contender::absent(Role::Peer, "tokio::process", error.to_string()),
    });
    all.push(match node {
        Ok(script) => Contender::new(Role::Peer, "Node spawn", move || {
            script.ask(&json!({ "spawn": times, "options": options.name() }))
        }),
        Err(why) => Contender::absent(Role::Peer, "Node spawn", why.clone()),
    });
    all
}

fn ours(options: Options, null: &File) -> Result<(), child_process::Error> {
    let mut command = child_process::Command::new("/bin/true");
    if options != Options::Pipes {
        command.stdio([Stdio::null(), Stdio::null(), Stdio::null()]);
    }
    let extra = || null.try_clone().expect("a descriptor is left");
    match options {
        Options::Plain | Options::Pipes => {}
        Options::Several => {
            command.descriptor(3, extra()).current_dir("/").process_group(0);
        }
        Options::All => {
            for number in 3..6 {
                command.descriptor(number, extra());
            }
            command.current_dir("/").process_group(0).uid(NOBODY).gid(NOBODY);
            command.limit(Resource::Descriptors, Limit { soft: FILES, hard: FILES });
            command.block_signals([Signal::USR1]);
        }
    }
    command.spawn()?.wait().map(drop)
}

fn plan(options: Options, null: &File) -> Plan<'_> {
    let mut plan = Plan::new(vec![c"/bin/true".into()], vec![c"true".into()]);
    let variables = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    plan.environment = variables.filter_map(|text| CString::new(text).ok()).collect();
    plan.descriptors = (0..3).map(|number| Descriptor { number, source: Source::Null }).collect();
    let extra = |number| Descriptor { number, source: Source::Fd(null.as_fd()) };
    match options {
        Options::Plain | Options::Pipes => {}
        Options::Several => {
            plan.descriptors.push(extra(3));
            plan.current_dir = Some(c"/".into());
            plan.attributes.to_mut().process_group = Some(0);
        }
        Options::All => {
            plan.descriptors.extend((3..6).map(extra));
            plan.current_dir = Some(c"/".into());
            let attributes = plan.attributes.to_mut();
            attributes.process_group = Some(0);
            (attributes.uid, attributes.gid) = (Some(NOBODY), Some(NOBODY));
            attributes.limits = vec![(Resource::Descriptors, Limit { soft: FILES, hard: FILES })];
            attributes.blocked_signals = vec![Signal::USR1];
        }
    }
    plan
}

/// Returns the command of std. `pre_exec` sets the options that std lacks.
fn command(options: Options, null: &File) -> Command {
    let mut command = Command::new("/bin/true");
    let stdio = || match options {
        Options::Pipes => process::Stdio::piped(),
        _ => process::Stdio::null(),
    };
    command.stdin(stdio()).stdout(stdio()).stderr(stdio());
    let extra = match options {
        Options::Plain | Options::Pipes => return command,
        Options::Several => 3..4,
        Options::All => 3..6,
    };
    command.current_dir("/").process_group(0);
    if options == Options::All {
        command.uid(NOBODY).gid(NOBODY);
    }
    let number = null.as_raw_fd();
    let place = move || prepare(number, extra.clone(), options == Options::All);
    // SAFETY: the closure makes async-signal-safe calls only and allocates nothing.
    unsafe { command.pre_exec(place) };
    command
}

/// Prepares the child of std: sets the descriptors, and on request a limit and a mask.
fn prepare(number: i32, extra: std::ops::Range<i32>, all: bool) -> io::Result<()> {
    let done = |code: libc::c_int| match code {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    };
    for place in extra {
        // SAFETY: takes two integers; async-signal-safe.
        done(unsafe { libc::dup2(number, place) })?;
    }
    if !all {
        return Ok(());
    }
    let limit = libc::rlimit { rlim_cur: FILES, rlim_max: FILES };
    // SAFETY: a valid structure; async-signal-safe.
    done(unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &limit) })?;
    // SAFETY: plain data that the next call initialises.
    let mut set: libc::sigset_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable place of the right type.
    done(unsafe { libc::sigemptyset(&mut set) })?;
    // SAFETY: initialised above.
    done(unsafe { libc::sigaddset(&mut set, libc::SIGUSR1) })?;
    // SAFETY: a valid set; async-signal-safe.
    done(unsafe { libc::sigprocmask(libc::SIG_SETMASK, &set, ptr::null_mut()) })
}

/// Runs the small process: reads the number of spawns and their options, and answers with the
/// nanoseconds of each.
pub fn role() {
    let null = File::open("/dev/null").expect("every Linux has it");
    for line in io::stdin().lock().lines().map_while(Result::ok) {
        let request: serde_json::Value = serde_json::from_str(&line).unwrap_or_default();
        let all = [Options::Plain, Options::Pipes, Options::Several, Options::All];
        let options = all.into_iter().find(|options| request["options"] == options.name());
        let times = request["spawn"].as_u64().and_then(|times| usize::try_from(times).ok());
        let (Some(options), Some(times)) = (options, times) else { return };
        let Ok(times) = time_each(times, || ours(options, &null)) else { return };
        println!("{}", json!(times));
    }
}

fn start_small() -> Result<Script, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    Node::run(Command::new(program).args(["role", ROLE]))
}

fn of_small<'a>(
    context: &Context,
    options: Options,
    small: &'a mut Result<Script, String>,
) -> Contender<'a> {
    let times = context.pick(10, 12);
    match small {
        Err(why) => Contender::absent(Role::Limit, SMALL, why.clone()),
        Ok(small) => Contender::new(Role::Limit, SMALL, move || {
            small.ask(&json!({ "spawn": times, "options": options.name() }))
        }),
    }
}

/// Measures the rate at which the output of a child is read.
fn reading(context: &Context) -> Measure {
    let mut measure =
        Measure::new("Reading what `yes` writes", Unit::BytesPerSecond, Better::Higher);
    let bytes = context.pick(256 << 20, 1 << 30);
    let contenders = vec![
        Contender::new(Role::Ours, "brood", move || {
            let mut command = child_process::Command::new("yes");
            command.stdio([Stdio::null(), Stdio::pipe(), Stdio::null()]).kill_on_drop(true);
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            let output = child.take_stdout().ok_or("no pipe")?;
            rate(bytes, output)
        }),
        Contender::new(Role::Peer, "std::process", move || {
            let mut command = Command::new("yes");
            command.stdin(process::Stdio::null()).stdout(process::Stdio::piped());
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            let output = child.stdout.take().ok_or("no pipe")?;
            let rate = rate(bytes, output);
            let _ = child.kill();
            let _ = child.wait();
            rate
        }),
        Contender::new(Role::Limit, "plain read loop", move || {
            let (reader, writer) = io::pipe().map_err(|error| error.to_string())?;
            let mut command = Command::new("yes");
            command.stdin(process::Stdio::null()).stdout(writer);
            let mut child = command.spawn().map_err(|error| error.to_string())?;
            drop(command);
            let rate = rate(bytes, reader);
            let _ = child.kill();
            let _ = child.wait();
            rate
        }),
    ];
    let row = context.compare("spawn, yes", ("", 0.0), Better::Higher, contenders);
    measure.rows.push(row);
    measure
}

fn rate(bytes: usize, mut output: impl Read) -> Result<Vec<f64>, String> {
    let mut buffer = vec![0; 64 << 10];
    let (mut left, begin) = (bytes, Instant::now());
    while left > 0 {
        let read = output.read(&mut buffer).map_err(|error| error.to_string())?;
        left =
            if read == 0 { return Err("it ended".to_owned()) } else { left.saturating_sub(read) };
    }
    Ok(vec![bytes as f64 / begin.elapsed().as_secs_f64()])
}

unsafe extern "C" {
    static environ: *const *mut libc::c_char;
}

fn posix_spawn(options: Options, null: &File) -> io::Result<()> {
    // SAFETY: plain C data that the next call initialises.
    let mut actions: libc::posix_spawn_file_actions_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable place of the right type.
    check(unsafe { libc::posix_spawn_file_actions_init(&mut actions) })?;
    // SAFETY: plain C data that the next call initialises.
    let mut attributes: libc::posix_spawnattr_t = unsafe { std::mem::zeroed() };
    // SAFETY: a writable place of the right type.
    check(unsafe { libc::posix_spawnattr_init(&mut attributes) })?;
    let pipes = match options {
        Options::Pipes => vec![io::pipe()?, io::pipe()?, io::pipe()?],
        _ => Vec::new(),
    };
    for (number, (reader, writer)) in (0..).zip(&pipes) {
        let end = if number == 0 { reader.as_raw_fd() } else { writer.as_raw_fd() };
        // SAFETY: `actions` was initialised; the descriptor stays open until the spawn.
        check(unsafe { libc::posix_spawn_file_actions_adddup2(&mut actions, end, number) })?;
    }
    for number in pipes.len() as i32..3 {
        // SAFETY: `actions` was initialised, the path is a C string and is copied.
        check(unsafe {
            let path = c"/dev/null".as_ptr();
            libc::posix_spawn_file_actions_addopen(&mut actions, number, path, libc::O_RDWR, 0)
        })?;
    }
    if options == Options::Several {
        // SAFETY: `actions` was initialised; the descriptor stays open until the spawn.
        check(unsafe {
            libc::posix_spawn_file_actions_adddup2(&mut actions, null.as_raw_fd(), 3)
        })?;
        // SAFETY: `actions` was initialised, the path is a C string and is copied.
        check(unsafe { libc::posix_spawn_file_actions_addchdir_np(&mut actions, c"/".as_ptr()) })?;
        // SAFETY: `attributes` was initialised.
        check(unsafe { libc::posix_spawnattr_setpgroup(&mut attributes, 0) })?;
        let flags = libc::POSIX_SPAWN_SETPGROUP as libc::c_short;
        // SAFETY: `attributes` was initialised.
        check(unsafe { libc::posix_spawnattr_setflags(&mut attributes, flags) })?;
    }
    let arguments = [c"true".as_ptr().cast_mut(), ptr::null_mut()];
    let (mut pid, path) = (0, c"/bin/true".as_ptr());
    // SAFETY: no thread changes the environment during the measurement.
    let environment = unsafe { environ };
    // SAFETY: every pointer is valid, `arguments` and the environment end with null.
    check(unsafe {
        libc::posix_spawn(&mut pid, path, &actions, &attributes, arguments.as_ptr(), environment)
    })?;
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::posix_spawn_file_actions_destroy(&mut actions) };
    // SAFETY: initialised above, and not used any more.
    unsafe { libc::posix_spawnattr_destroy(&mut attributes) };
    let mut status = 0;
    // SAFETY: a child of ours that no other thread waits for, and a writable place.
    match unsafe { libc::waitpid(pid, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// Converts the result of a call that returns the error number itself.
fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}
