//! How a root test is written: its body is a *case*, which runs in a process of its own.
//!
//! 1. Write the body in `src/bin/fixture/cases/<topic>.rs`, a function whose name is a sentence:
//!
//!    ```ignore
//!    fn a_killed_child_is_reaped() {
//!        let mut child = Command::new(fixture()).args(["role", "hang"]).spawn().unwrap();
//!        …
//!    }
//!    ```
//!
//!    Add it to the `TOPIC` at the end of that file; a new file gets one line in
//!    `cases/mod.rs`. A role is a program that cases start: `fixture role NAME ARG…`.
//!
//! 2. Name it in `tests/<topic>.rs`, and `cargo test` knows it:
//!
//!    ```ignore
//!    mod common;
//!    common::cases![a_killed_child_is_reaped, output_is_not_cut];
//!    ```
//!
//! 3. While you work on it: `cargo run -- case a_killed_child_is_reaped`.
//!
//! A case fails when it panics, when it takes longer than [`CASE_MAX`], or when it leaves
//! something behind: a descriptor, a child, a zombie, a thread of its own making, a process
//! further down that still runs. Then the test prints what the case wrote (standard output and
//! standard error, and those of everything it started, in one) and what each process was doing.
//! Whatever happens, everything the case started is killed: its process group, and every process
//! that inherited [`MARK`] in its environment, whatever group or session it is in.
//!
//! A case may change limits, environment, signals, the working directory, descriptors 0 to 2:
//! nobody shares them. It waits for messages, pidfds and deadlines, and never sleeps until
//! "surely done". A test that needs none of this is an ordinary `#[test]` next to the code.
#![allow(
    dead_code,
    unused_macros,
    unused_imports,
    reason = "every test program compiles this file and uses a part of it"
)]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "test code")]

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use sys::pidfd::PidFd;
use sys::signal::{Signal, kill, kill_group};

/// The longest a case may take.
pub(crate) const CASE_MAX: Duration = Duration::from_secs(45);

/// The environment variable by which every process of a case is known.
pub(crate) const MARK: &str = "BROOD_TEST_CASE";

/// Tells the fixture how long left-overs may take to go away by themselves.
const SETTLE_MS: &str = "BROOD_TEST_SETTLE_MS";

/// How long processes further down may take to end after the case has.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// One `#[test]` for each named case, of the same name.
macro_rules! cases {
    ($($(#[$meta:meta])* $name:ident),* $(,)?) => {
        $($(#[$meta])* #[test] fn $name() { $crate::common::case(stringify!($name)); })*
    };
}
pub(crate) use cases;

/// Runs the case `name` and panics, with everything there is to know, when it fails.
#[track_caller]
pub(crate) fn case(name: &str) {
    match try_case(name, CASE_MAX, SETTLE_MAX) {
        Ok(output) => print!("{output}"),
        Err(report) => panic!("{report}"),
    }
}

/// Runs the case `name`, for `deadline` at most; gives what it wrote, or a report of what went
/// wrong. What it left behind may take `settle` to go away by itself.
pub(crate) fn try_case(name: &str, deadline: Duration, settle: Duration) -> Result<String, String> {
    assert!(deadline <= CASE_MAX, "no test takes longer than {CASE_MAX:?}");
    let settle_ms = settle.as_millis().to_string();
    let mut running = Running::start(&["case", name], &[(SETTLE_MS, &settle_ms)]);
    let mut report = String::new();
    if running.ends_within(deadline) {
        let left = running.left_behind(settle);
        let status = running.end();
        if !status.success() {
            report = format!("case {name}: {status}\n");
        }
        report += &left;
    } else {
        report = format!("case {name}: not done after {deadline:?}\n{}", running.describe());
        running.end();
    }
    let output = running.output();
    if report.is_empty() { Ok(output) } else { Err(format!("{report}--- it wrote:\n{output}")) }
}

/// A fixture that runs, with all its descendants. Dropping it kills and reaps them.
struct Running {
    child: Child,
    mark: String,
    output: File,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts the fixture with these arguments, in a process group of its own.
    fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{count}", std::process::id());
        // A file and no pipe: nobody down there can keep us waiting for its end.
        let output = tempfile::tempfile().unwrap();
        let child = Command::new(env!("CARGO_BIN_EXE_fixture"))
            .args(args)
            .env(MARK, &mark)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(output.try_clone().unwrap())
            .stderr(output.try_clone().unwrap())
            .process_group(0)
            .spawn()
            .unwrap();
        Self { child, mark, output, ended: None }
    }

    /// Waits until the fixture itself has ended, and leaves it a zombie: so the number of its
    /// group stays its own.
    fn ends_within(&self, deadline: Duration) -> bool {
        let ended = PidFd::open(self.child.id()).unwrap();
        sys::poll::readable(ended.as_fd(), Some(deadline)).unwrap()
    }

    /// Kills whatever still runs, in the group and outside of it, and reaps the fixture.
    fn end(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let _ = kill_group(self.child.id(), Signal::KILL);
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        // Those that left the group. Again and again, in case one starts another meanwhile.
        for _ in 0..100 {
            let escaped = self.processes();
            if escaped.is_empty() {
                break;
            }
            for pid in escaped {
                let _ = kill(pid, Signal::KILL);
            }
            wait(Duration::from_millis(5));
        }
        status
    }

    /// What it and its descendants have written so far.
    fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        self.output.rewind().unwrap();
        self.output.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Processes that are still there some time after the case: one line each.
    fn left_behind(&self, settle: Duration) -> String {
        let until = Instant::now() + settle;
        while !self.processes().is_empty() {
            if Instant::now() >= until {
                return format!("still running after the case:\n{}", self.describe());
            }
            wait(Duration::from_millis(5));
        }
        String::new()
    }

    /// Every process of this case that is no zombie.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.mark);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // A zombie has no environment any more.
        let marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        };
        pids.filter(marked).collect()
    }

    /// What each process, and each of its threads, is doing.
    fn describe(&self) -> String {
        let mut text = String::new();
        for pid in self.processes() {
            let folder = format!("/proc/{pid}");
            let read = |name: String| fs::read_to_string(name).unwrap_or_default();
            let command = read(format!("{folder}/cmdline")).replace('\0', " ");
            let _ = writeln!(text, "  process {pid}: {}", command.trim_end());
            for thread in fs::read_dir(Path::new(&folder).join("task")).into_iter().flatten() {
                let Ok(thread) = thread.map(|thread| thread.path()) else { continue };
                let read = |name| fs::read_to_string(thread.join(name)).unwrap_or_default();
                let (name, place, call) = (read("comm"), read("wchan"), read("syscall"));
                let state = read("stat");
                let state = state.rsplit_once(") ").and_then(|tail| tail.1.chars().next());
                let _ = writeln!(
                    text,
                    "    thread {}: state {}, in {place}, system call {}",
                    name.trim_end(),
                    state.unwrap_or('?'),
                    call.split(' ').next().unwrap_or_default().trim_end(),
                );
            }
        }
        text
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.end();
    }
}

/// Lets time pass between two looks at something that sends no message.
fn wait(time: Duration) {
    let (_held, never) = mpsc::channel::<()>();
    let _ = never.recv_timeout(time);
}

/// The path of an example, which `cargo test` builds before it runs any test.
pub(crate) fn example(name: &str) -> std::path::PathBuf {
    let path = Path::new(env!("CARGO_BIN_EXE_fixture")).with_file_name("examples").join(name);
    assert!(path.exists(), "no {}: build it with `cargo build --examples`", path.display());
    path
}
