//! From spawn to exit of `/bin/true`, against resident memory and options.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::process::CommandExt;
use std::process::{self, Command};
use std::ptr;

use child_process::Stdio;
use serde_json::json;
use sys::spawn::{Descriptor, Plan, Source};

use super::ballast::{Ballast, sizes};
use crate::context::{Contender, Context, time_each};
use crate::node::Script;
use crate::report::{Chart, Measure, Role, Topic, Unit};
use crate::stats::Better;

/// Nobody, on every Linux.
const NOBODY: u32 = 65534;

/// What is asked of the spawn.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Options {
    Plain,
    /// An extra descriptor, a working directory, a process group.
    Several,
    /// Another user and group.
    Credentials,
}

impl Options {
    fn title(self) -> &'static str {
        match self {
            Self::Plain => "Spawn to exit, no options",
            Self::Several => "Spawn to exit, with an extra descriptor, a cwd and a process group",
            Self::Credentials => "Spawn to exit, as another user and group",
        }
    }

    /// What the script calls it.
    fn name(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Several => "several",
            Self::Credentials => "credentials",
        }
    }
}

pub fn run(context: &Context) -> Topic {
    let all = [Options::Plain, Options::Several, Options::Credentials];
    let mut measures: Vec<Measure> = all
        .map(|options| {
            Measure::new(options.title(), Unit::Nanoseconds, Better::Lower)
                .along("resident MiB", Chart::Lines { log_x: false, log_y: true })
        })
        .into();
    let mut ballast = Ballast::default();
    let mut node = start_node(context);
    let null = File::open("/dev/null").expect("every Linux has it");
    for mib in sizes(context) {
        context.progress.show("spawn", &format!("{mib} MiB: filling"), "", 0, 1);
        ballast.hold(mib);
        node = node.and_then(|mut script| {
            script.ask(&json!({ "hold": mib }))?;
            Ok(script)
        });
        for (options, measure) in all.into_iter().zip(&mut measures) {
            let contenders = contenders(context, options, &null, &mut node);
            let place = (format!("{mib} MiB"), mib as f64);
            let place = (place.0.as_str(), place.1);
            let what = format!("spawn, {}", options.name());
            measure.rows.push(context.compare(&what, place, Better::Lower, contenders));
        }
    }
    ballast.hold(0);
    Topic {
        name: "spawn".to_owned(),
        title: "Starting a program".to_owned(),
        notes: vec![
            "From the call to the end of `/bin/true`, waited for. The parent holds so much \
             touched memory, Node as much of its own. A `fork` copies the page tables of all of \
             it; an engine that borrows memory (vfork) does not."
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
    if options == Options::Credentials && !root {
        let why = "changing the user takes root";
        return vec![Contender::absent(Role::Ours, "brood", why)];
    }
    let plan = plan(options, null);
    let mut all = vec![
        Contender::new(Role::Ours, "brood", move || time_each(times, || ours(options, null))),
        Contender::new(Role::Ours, "brood, its engine alone", move || {
            time_each(times, || -> io::Result<()> {
                sys::spawn::spawn(&plan)?.pidfd.wait().map(drop)
            })
        }),
    ];
    all.push(match options {
        Options::Credentials => {
            Contender::absent(Role::Peer, "C posix_spawn", "it cannot change the user")
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
    command.stdio([Stdio::null(), Stdio::null(), Stdio::null()]);
    match options {
        Options::Plain => {}
        Options::Several => {
            let extra = null.try_clone().expect("a descriptor is left");
            command.descriptor(3, extra).current_dir("/").process_group(0);
        }
        Options::Credentials => {
            command.uid(NOBODY).gid(NOBODY);
        }
    }
    command.spawn()?.wait().map(drop)
}

fn plan(options: Options, null: &File) -> Plan<'_> {
    let mut plan = Plan::new(vec![c"/bin/true".into()], vec![c"true".into()]);
    let variables = std::env::vars().map(|(name, value)| format!("{name}={value}"));
    plan.environment = variables.filter_map(|text| CString::new(text).ok()).collect();
    plan.descriptors = (0..3).map(|number| Descriptor { number, source: Source::Null }).collect();
    match options {
        Options::Plain => {}
        Options::Several => {
            plan.descriptors.push(Descriptor { number: 3, source: Source::Fd(null.as_fd()) });
            plan.current_dir = Some(c"/".into());
            plan.process_group = Some(0);
        }
        Options::Credentials => (plan.uid, plan.gid) = (Some(NOBODY), Some(NOBODY)),
    }
    plan
}

/// As one would with std: what it has no option for goes into `pre_exec`.
fn command(options: Options, null: &File) -> Command {
    let mut command = Command::new("/bin/true");
    let null_stdio = process::Stdio::null;
    command.stdin(null_stdio()).stdout(null_stdio()).stderr(null_stdio());
    match options {
        Options::Plain => {}
        Options::Several => {
            let number = null.as_raw_fd();
            command.current_dir("/").process_group(0);
            let place = move || {
                // SAFETY: takes two integers; async-signal-safe.
                match unsafe { libc::dup2(number, 3) } {
                    -1 => Err(io::Error::last_os_error()),
                    _ => Ok(()),
                }
            };
            // SAFETY: the closure makes one async-signal-safe call and allocates nothing.
            unsafe { command.pre_exec(place) };
        }
        Options::Credentials => {
            command.uid(NOBODY).gid(NOBODY);
        }
    }
    command
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
    for number in 0..3 {
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
    // SAFETY: nobody changes the environment while we measure.
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
    // SAFETY: a child of ours that nobody else waits for, and a writable place.
    match unsafe { libc::waitpid(pid, &mut status, 0) } {
        -1 => Err(io::Error::last_os_error()),
        _ => Ok(()),
    }
}

/// These calls give the error number itself.
fn check(code: libc::c_int) -> io::Result<()> {
    if code == 0 { Ok(()) } else { Err(io::Error::from_raw_os_error(code)) }
}
