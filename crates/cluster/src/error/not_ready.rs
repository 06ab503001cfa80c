//! The workers that a start or a reload waited for in vain, and what each of them has to do.

use std::fmt;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use child_process::ExitStatus;
use sys::text;

use crate::protocol::address::Address;
use crate::worker_id::WorkerId;
use crate::worker_state::WorkerState;

/// The number of workers, and of addresses, that the text names.
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
    /// The addresses that its predecessor has, and on which this new worker of a reload does not
    /// listen.
    pub missing: Vec<Address>,
    /// The worker is a Node program.
    pub(crate) is_node: bool,
}

/// How far a worker has come, as the text groups workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// The runtime of this program, or of another Rust program, is not up.
    Silent,
    /// Node has not reported.
    NodeSilent,
    /// The worker has no listener.
    Online,
    /// The worker listens, but not on all addresses of its predecessor.
    Listening,
    /// The worker is about to end.
    Ending,
}

impl Stage {
    const ALL: [Self; 5] =
        [Self::Silent, Self::NodeSilent, Self::Online, Self::Listening, Self::Ending];

    /// Returns what is missing, before the list of workers.
    fn missing(self) -> &'static str {
        match self {
            Self::Silent => "`Worker::current` was not called by worker",
            Self::NodeSilent => "Node has not started in worker",
            Self::Online => "there is no listener in worker",
            Self::Listening => "some listeners are missing in worker",
            Self::Ending => "the channel is closed to worker",
        }
    }
}

impl UnreadyWorker {
    fn stage(&self) -> Stage {
        match self.state {
            WorkerState::Started if self.is_node => Stage::NodeSilent,
            WorkerState::Started => Stage::Silent,
            WorkerState::Online => Stage::Online,
            WorkerState::Listening if !self.missing.is_empty() => Stage::Listening,
            WorkerState::Listening
            | WorkerState::Disconnecting
            | WorkerState::Disconnected
            | WorkerState::Dead => Stage::Ending,
        }
    }
}

impl fmt::Display for UnreadyWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.worker.fmt(f)?;
        self.exec
            .as_ref()
            .map_or(Ok(()), |exec| write!(f, " ({})", text::line(exec.as_os_str().as_bytes())))?;
        let mut separator = ", which does not listen on ";
        for address in self.missing.iter().take(NAMED_MAX) {
            write!(f, "{}{address}", std::mem::replace(&mut separator, ", "))?;
        }
        match self.missing.len().saturating_sub(NAMED_MAX) {
            0 => Ok(()),
            more => write!(f, " and {more} more"),
        }
    }
}

impl NotReady {
    fn at(&self, stage: Stage) -> impl Iterator<Item = &UnreadyWorker> {
        self.workers.iter().filter(move |worker| worker.stage() == stage)
    }

    /// Returns what to do.
    fn advice(&self) -> Vec<&'static str> {
        let mut advice = Vec::new();
        if self.at(Stage::Silent).any(|worker| worker.exec.is_none()) {
            advice.push(
                "call it first in `main`, and build the primary only where it returns `None`",
            );
        }
        if self.at(Stage::Silent).any(|worker| worker.exec.is_some()) {
            advice.push("start a program that is not written as a worker with `child_process`");
        }
        if self.at(Stage::Online).next().is_some() {
            advice.push(
                "let every worker call `listen`, or set `Builder::listens(false)` if workers do not \
                 listen",
            );
        }
        if self.workers.iter().any(|worker| !worker.missing.is_empty()) {
            advice.push(
                "let a new worker listen on all addresses of its predecessor within \
                 `Builder::ready_within`, or call `Primary::close_address` for one that is not to \
                 be served any more",
            );
        }
        if !self.requested {
            advice.push("call `start` or `fork` first");
        } else if self.workers.is_empty() {
            advice.push("a worker runs until `Listener::incoming` or `Worker::draining` ends");
        }
        advice
    }
}

impl fmt::Display for NotReady {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not ready within {:?}", self.within)?;
        let mut separator = ": ";
        for stage in Stage::ALL {
            let count = self.at(stage).count();
            let mut before = stage.missing();
            for worker in self.at(stage).take(NAMED_MAX) {
                let separator = std::mem::take(&mut separator);
                write!(f, "{separator}{before} {worker}")?;
                before = ",";
            }
            if count > NAMED_MAX {
                write!(f, " and {} more", count - NAMED_MAX)?;
            }
            if count > 0 {
                separator = "; ";
            }
        }
        if let Some((last, status)) = self.last_ended {
            let ended = self.ended;
            write!(f, "{separator}{ended} ended before, the last, worker {last}, with {status}")?;
        }
        if !self.requested {
            write!(f, "{separator}no worker was requested")?;
        }
        self.advice().iter().try_for_each(|advice| write!(f, "; {advice}"))
    }
}

/// Writes the lines of a standard error that say most on the line of an error, after a colon: a
/// panic and its message, or the last line.
pub(super) fn write_last_lines(stderr: &str, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    let lines: Vec<&str> = stderr.lines().map(str::trim).filter(|it| !it.is_empty()).collect();
    // A panic may be followed by a backtrace, and is followed by a hint how to get one.
    let panic = lines.iter().rposition(|line| line.contains("panicked at "));
    let said = match panic {
        Some(at) => &lines[at..lines.len().min(at + 2)],
        None => &lines[lines.len().saturating_sub(1)..],
    };
    let mut separator = ": ";
    for line in said {
        write!(f, "{separator}{}", text::line(line))?;
        separator = " ";
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn worker(number: u32, state: WorkerState, exec: Option<&str>) -> UnreadyWorker {
        let exec = exec.map(PathBuf::from);
        let missing = Vec::new();
        UnreadyWorker { worker: WorkerId(number), state, exec, missing, is_node: false }
    }

    fn not_ready(workers: Vec<UnreadyWorker>) -> NotReady {
        let within = Duration::from_secs(30);
        NotReady { within, workers, ended: 0, last_ended: None, requested: true }
    }

    fn check(not_ready: &NotReady, text: &str) {
        assert_eq!(not_ready.to_string(), format!("not ready within 30s: {text}"));
    }

    const LISTEN: &str = "let every worker call `listen`, or set `Builder::listens(false)` if \
                          workers do not listen";
    const MAIN: &str =
        "call it first in `main`, and build the primary only where it returns `None`";

    #[test]
    fn the_text_says_how_far_each_worker_has_come_and_what_is_missing() {
        let started = worker(1, WorkerState::Started, None);
        let online = worker(2, WorkerState::Online, None);
        let silent = "`Worker::current` was not called by worker";
        check(&not_ready(vec![started.clone()]), &format!("{silent} 1; {MAIN}"));
        let listening = "there is no listener in worker";
        check(&not_ready(vec![online.clone()]), &format!("{listening} 2; {LISTEN}"));
        let both = format!("{silent} 1; {listening} 2; {MAIN}; {LISTEN}");
        check(&not_ready(vec![online, started]), &both);
        let foreign = worker(3, WorkerState::Started, Some("/bin/sh"));
        let program = "start a program that is not written as a worker with `child_process`";
        check(&not_ready(vec![foreign]), &format!("{silent} 3 (/bin/sh); {program}"));
        let node = UnreadyWorker { is_node: true, ..worker(4, WorkerState::Started, Some("a.js")) };
        check(&not_ready(vec![node]), "Node has not started in worker 4 (a.js)");
    }

    #[test]
    fn the_text_names_the_addresses_that_a_successor_does_not_have() {
        let at = |port| Address::from(std::net::SocketAddr::from(([127, 0, 0, 1], port)));
        let partial = |ports: std::ops::Range<u16>| UnreadyWorker {
            missing: ports.map(at).collect(),
            ..worker(3, WorkerState::Listening, None)
        };
        let advice = "let a new worker listen on all addresses of its predecessor within \
                      `Builder::ready_within`, or call `Primary::close_address` for one that is \
                      not to be served any more";
        let missing = "some listeners are missing in worker 3, which does not listen on";
        check(&not_ready(vec![partial(1..2)]), &format!("{missing} 127.0.0.1:1; {advice}"));
        let four = "127.0.0.1:1, 127.0.0.1:2, 127.0.0.1:3, 127.0.0.1:4 and 2 more";
        check(&not_ready(vec![partial(1..7)]), &format!("{missing} {four}; {advice}"));
    }

    #[test]
    fn many_workers_are_counted() {
        let workers = (1..=6).map(|number| worker(number, WorkerState::Started, None)).collect();
        let named = "`Worker::current` was not called by worker 1, 2, 3, 4 and 2 more";
        check(&not_ready(workers), &format!("{named}; {MAIN}"));
    }

    #[test]
    fn the_text_names_ends_and_a_start_that_is_missing() {
        let last_ended = Some((WorkerId(9), ExitStatus::Code(0)));
        let ended = NotReady { ended: 9, last_ended, ..not_ready(Vec::new()) };
        let runs = "a worker runs until `Listener::incoming` or `Worker::draining` ends";
        check(&ended, &format!("9 ended before, the last, worker 9, with code 0; {runs}"));
        let still = NotReady { requested: false, ..not_ready(Vec::new()) };
        check(&still, "no worker was requested; call `start` or `fork` first");
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
        assert_eq!(Line("one\n two \n").to_string(), ": two");
        assert_eq!(Line("\n \n").to_string(), "");
        assert_eq!(Line("a\rexit 1\x1b[2K").to_string(), r": a\rexit 1\u{1b}[2K");
    }
}
