//! The workers that a start or a reload waited for in vain, and what each of them has to do.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use child_process::ExitStatus;

use crate::worker_id::WorkerId;
use crate::worker_state::WorkerState;

/// The number of workers that the text names.
const NAMED_MAX: usize = 4;

/// The workers that were not ready in time: the contents of
/// [`Error::NotReady`](crate::Error::NotReady).
///
/// `Display` names the workers, how far each has come, and what is missing.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct NotReady {
    /// The time that the caller waited.
    pub within: Duration,
    /// The workers that run and are not ready, ordered by number.
    pub workers: Vec<UnreadyWorker>,
    /// The number of workers that have ended since the last request for workers.
    pub ended: u32,
    /// The last worker that has ended since, and its status.
    pub last_ended: Option<(WorkerId, ExitStatus)>,
    /// Whether workers were requested at all.
    pub(crate) requested: bool,
}

/// A worker that runs and is not ready.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct UnreadyWorker {
    /// The number of the worker.
    pub worker: WorkerId,
    /// The state that the worker has reached.
    pub state: WorkerState,
    /// The program or script that the worker runs; `None` for the program of the primary.
    pub exec: Option<PathBuf>,
    /// The worker is a Node program.
    pub(crate) is_node: bool,
}

impl UnreadyWorker {
    /// Whether the worker runs, and has not reported that its runtime is up.
    fn is_silent(&self) -> bool {
        self.state == WorkerState::Started
    }
}

impl fmt::Display for UnreadyWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {}", self.worker)?;
        if let Some(exec) = &self.exec {
            write!(f, " ({})", exec.display())?;
        }
        f.write_str(match self.state {
            WorkerState::Started if self.is_node => " has not started Node's runtime",
            WorkerState::Started => " has not called `Worker::current`",
            WorkerState::Online => " is online and does not listen",
            WorkerState::Listening | WorkerState::Disconnecting => " is ending",
            WorkerState::Disconnected => " has closed its channel and has not ended",
            WorkerState::Dead => " has ended",
        })
    }
}

impl NotReady {
    /// Returns what the workers have to do that the text names.
    fn advice(&self) -> Vec<&'static str> {
        let any = |is: fn(&UnreadyWorker) -> bool| self.workers.iter().any(is);
        let mut advice = Vec::new();
        if any(|it| it.is_silent() && !it.is_node && it.exec.is_none()) {
            advice.push(
                "call `Worker::current` first in `main`, and build the primary only where that \
                 returns `None`",
            );
        }
        if any(|it| it.is_silent() && !it.is_node && it.exec.is_some()) {
            advice.push("start a program that is not written as a worker with `child_process`");
        }
        if any(|it| it.state == WorkerState::Online) {
            advice.push(
                "let every worker call `listen`, or set `Builder::listens(false)` if workers do not \
                 listen",
            );
        }
        if !self.requested {
            advice.push("call `start` or `fork` first");
        } else if self.workers.is_empty() {
            advice.push("the events `Exit` and `Error` tell why workers end");
        }
        advice
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not ready within {:?}", self.within)?;
        let mut separator = ": ";
        for worker in self.workers.iter().take(NAMED_MAX) {
            write!(f, "{separator}{worker}")?;
            separator = ", ";
        }
        if let Some(more) = self.workers.len().checked_sub(NAMED_MAX).filter(|more| *more > 0) {
            write!(f, " and {more} more")?;
        }
        if let Some((last, status)) = self.last_ended {
            let workers = if self.ended == 1 { "worker has" } else { "workers have" };
            write!(
                f,
                "{separator}{} {workers} ended, the last, {last}, with {status}",
                self.ended
            )?;
        }
        if !self.requested {
            write!(f, "{separator}no worker was requested")?;
        }
        self.advice().iter().try_for_each(|advice| write!(f, "; {advice}"))
    }
}

/// Writes the last lines of a standard error on the line of an error, after a colon.
pub(super) fn write_last_lines(stderr: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    // The last line of a panic is a hint that says nothing about the panic.
    let note =
        |line: &&str| !line.is_empty() && !line.starts_with("note: run with `RUST_BACKTRACE");
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(note).collect();
    let mut separator = ": ";
    for line in &lines[lines.len().saturating_sub(2)..] {
        write!(f, "{separator}{line}")?;
        separator = " ";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u32, state: WorkerState, exec: Option<&str>) -> UnreadyWorker {
        let exec = exec.map(PathBuf::from);
        UnreadyWorker { worker: WorkerId(number), state, exec, is_node: false }
    }

    fn not_ready(workers: Vec<UnreadyWorker>) -> NotReady {
        let within = Duration::from_secs(30);
        NotReady { within, workers, ended: 0, last_ended: None, requested: true }
    }

    fn contains(not_ready: &NotReady, parts: &[&str]) {
        let text = not_ready.to_string();
        assert!(text.starts_with("not ready within 30s: ") && !text.contains('\n'), "{text}");
        for part in parts {
            assert!(text.contains(part), "{part:?} is missing in {text:?}");
        }
    }

    #[test]
    fn the_text_says_how_far_each_worker_has_come_and_what_is_missing() {
        let started = worker(1, WorkerState::Started, None);
        let online = worker(2, WorkerState::Online, None);
        let foreign = worker(3, WorkerState::Started, Some("/bin/foreign"));
        contains(
            &not_ready(vec![started.clone()]),
            &["worker 1 has not", "build the primary only"],
        );
        contains(
            &not_ready(vec![online.clone()]),
            &["does not listen", "`Builder::listens(false)`"],
        );
        contains(
            &not_ready(vec![foreign.clone()]),
            &["worker 3 (/bin/foreign)", "`child_process`"],
        );
        let all = not_ready(vec![started, online, foreign]);
        contains(&all, &["worker 1 ", "worker 2 ", "worker 3 ", "first in `main`", "`listen`"]);
        let node = UnreadyWorker { is_node: true, ..worker(4, WorkerState::Started, Some("a.js")) };
        contains(&not_ready(vec![node]), &["worker 4 (a.js) has not started Node's runtime"]);
    }

    #[test]
    fn many_workers_are_counted() {
        let workers = (1..=6).map(|number| worker(number, WorkerState::Started, None)).collect();
        contains(&not_ready(workers), &["worker 4 has not", "and 2 more; call"]);
    }

    #[test]
    fn the_text_names_ends_and_a_start_that_is_missing() {
        let last_ended = Some((WorkerId(9), ExitStatus::Code(0)));
        let ended = NotReady { ended: 9, last_ended, ..not_ready(Vec::new()) };
        contains(&ended, &["9 workers have ended, the last, 9, with code 0", "`Exit`"]);
        let still = NotReady { requested: false, ..not_ready(Vec::new()) };
        contains(&still, &["no worker was requested; call `start` or `fork` first"]);
    }

    #[test]
    fn the_last_lines_of_a_standard_error_are_those_of_a_panic() {
        struct Line(&'static str);
        impl fmt::Display for Line {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write_last_lines(self.0, f)
            }
        }
        let panic = "\nthread 'main' panicked at src/main.rs:3:5:\nno luck\nnote: run with \
                     `RUST_BACKTRACE=1` environment variable to display a backtrace\n";
        assert_eq!(Line(panic).to_string(), ": thread 'main' panicked at src/main.rs:3:5: no luck");
        assert_eq!(Line("\n \n").to_string(), "");
    }
}
