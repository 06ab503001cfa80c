//! Runs a case in a process of its own, and ends all processes that it started.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{Read, Seek};
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use sys::pidfd::PidFd;
use sys::signal::{Signal, kill, kill_group};

use super::case::SETTLE_MS;
use crate::support::{current_exe, wait};

/// The longest a case may take.
pub(crate) const CASE_MAX: Duration = Duration::from_secs(45);

/// The environment variable that marks every process of a case.
pub(crate) const MARK: &str = "BROOD_TEST_CASE";

/// The longest that descendants may take to end after the case.
const SETTLE_MAX: Duration = Duration::from_secs(3);

/// Runs the case `name`; returns its output, or a report of the failure.
pub(super) fn run_case(name: &str) -> Result<String, String> {
    try_case(name, CASE_MAX, SETTLE_MAX)
}

/// Runs the case `name`, for `deadline` at most; returns its output, or a report of the failure.
/// Processes and descriptors that the case leaves may take `settle` to disappear by themselves.
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

/// A running process of this program, with all its descendants. `drop` kills and reaps them.
struct Running {
    child: Child,
    mark: String,
    output: File,
    ended: Option<ExitStatus>,
}

impl Running {
    /// Starts this program with these arguments, in a process group of its own.
    fn start(args: &[&str], environment: &[(&str, &str)]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let mark = format!("{}-{count}", std::process::id());
        // The output is a file and no pipe, because a descendant that holds a pipe would delay its end.
        let output = tempfile::tempfile().unwrap();
        let child = Command::new(current_exe())
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

    /// Waits until the process itself has ended, and leaves it a zombie, so that the number of its
    /// group is not reused.
    fn ends_within(&self, deadline: Duration) -> bool {
        let ended = PidFd::open(self.child.id()).unwrap();
        sys::poll::readable(ended.as_fd(), Some(deadline)).unwrap()
    }

    /// Kills the descendants that still run, in the group and outside of it, and reaps the process.
    fn end(&mut self) -> ExitStatus {
        if let Some(status) = self.ended {
            return status;
        }
        let _ = kill_group(self.child.id(), Signal::KILL);
        let status = self.child.wait().unwrap();
        self.ended = Some(status);
        // These processes left the group. The loop repeats, because one may start another meanwhile.
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

    /// Returns the output of the process and its descendants so far.
    fn output(&mut self) -> String {
        let mut bytes = Vec::new();
        self.output.rewind().unwrap();
        self.output.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Describes processes that still run after `settle`, one line each.
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

    /// Returns every process of this case that is no zombie.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("{MARK}={}", self.mark);
        let entries = fs::read_dir("/proc").unwrap().flatten();
        let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
        // The kernel shows no environment of a zombie.
        let marked = |pid: &u32| {
            let environment = fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|&byte| byte == 0).any(|variable| variable == mark.as_bytes())
        };
        pids.filter(marked).collect()
    }

    /// Describes the state of each process and each of its threads.
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
