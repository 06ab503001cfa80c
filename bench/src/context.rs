//! The comparison of contenders, which run in turn.
//!
//! [`Context::compare`] warms each contender up, then runs rounds: A B C, C B A, A B C … Each round
//! of a contender yields one or more samples. A contender that fails is absent from then on, with
//! its reason; the others continue.

use std::cell::Cell as Mutable;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

use crate::node::Node;
use crate::report::{Cell, Outcome, Role, Row};
use crate::stats::{Better, Ratio, Summary};

/// The time limit of a comparison. After it the comparison ends once it has [`ROUNDS_MIN`] rounds.
const TIME_FULL: Duration = Duration::from_secs(12);
const TIME_QUICK: Duration = Duration::from_secs(4);
const ROUNDS_MIN: usize = 3;

/// The settings and tools of a topic.
pub struct Context {
    /// Whether to run fewer rounds with smaller sizes.
    pub quick: bool,
    /// Node, or the reason why Node is absent.
    pub node: Result<Node, String>,
    pub progress: Progress,
}

/// One way to do the measured task.
pub struct Contender<'a> {
    name: String,
    role: Role,
    run: Run<'a>,
}

enum Run<'a> {
    /// Runs one round, and returns its samples.
    Round(Box<dyn FnMut() -> Result<Vec<f64>, String> + 'a>),
    Absent(String),
}

impl<'a> Contender<'a> {
    /// Creates a contender whose round is `run`.
    ///
    /// `run` returns one or more samples of the same kind, in the measure's unit (nanoseconds, a
    /// rate, bytes).
    pub fn new<E: ToString>(
        role: Role,
        name: impl Into<String>,
        mut run: impl FnMut() -> Result<Vec<f64>, E> + 'a,
    ) -> Self {
        let run = Run::Round(Box::new(move || run().map_err(|error| error.to_string())));
        Self { name: name.into(), role, run }
    }

    /// Creates a contender that is absent for the reason `why`.
    pub fn absent(role: Role, name: impl Into<String>, why: impl Into<String>) -> Self {
        Self { name: name.into(), role, run: Run::Absent(why.into()) }
    }
}

/// Calls `once` `times` times, and returns the nanoseconds of each call.
pub fn time_each<E>(times: usize, mut once: impl FnMut() -> Result<(), E>) -> Result<Vec<f64>, E> {
    (0..times)
        .map(|_| {
            let begin = Instant::now();
            once()?;
            Ok(begin.elapsed().as_nanos() as f64)
        })
        .collect()
}

impl Context {
    pub fn new(quick: bool) -> Self {
        Self { quick, node: Node::find(), progress: Progress::default() }
    }

    /// Returns the number of rounds of a comparison.
    pub fn rounds(&self) -> usize {
        if self.quick { 5 } else { 15 }
    }

    /// Returns one of two values, by `--quick`.
    pub fn pick<T>(&self, quick: T, full: T) -> T {
        if self.quick { quick } else { full }
    }

    /// Runs the contenders in turn, and compares the first of ours with all others.
    ///
    /// `what` is the text of the progress bar; `label` and `at` are the place on the measure's
    /// axis.
    pub fn compare(
        &self,
        what: &str,
        (label, at): (&str, f64),
        better: Better,
        contenders: Vec<Contender<'_>>,
    ) -> Row {
        let mut all: Vec<Series<'_>> = contenders.into_iter().map(Series::new).collect();
        let rounds = self.rounds();
        let steps = (rounds + 1) * all.len();
        let mut step = 0;
        let begin = Instant::now();
        // Round 0 is the warm-up.
        for round in 0..=rounds {
            // Slow contenders get fewer rounds, so that the comparison ends in time.
            if round > ROUNDS_MIN && begin.elapsed() > self.pick(TIME_QUICK, TIME_FULL) {
                break;
            }
            let count = all.len();
            for index in 0..count {
                let index = if round % 2 == 0 { index } else { count - 1 - index };
                let series = &mut all[index];
                self.progress.show(what, label, &series.contender.name, step, steps);
                series.round(round > 0);
                step += 1;
            }
        }
        let mut cells: Vec<Cell> = all.into_iter().map(Series::into_cell).collect();
        rate(&mut cells, better);
        Row { at, label: label.to_owned(), cells }
    }
}

/// Compares the first of ours with all others.
fn rate(cells: &mut [Cell], better: Better) {
    let ours = cells.iter().find(|cell| cell.role == Role::Ours);
    let Some(ours) = ours.and_then(Cell::summary).cloned() else { return };
    let first = cells.iter().position(|cell| cell.role == Role::Ours);
    for (index, cell) in cells.iter_mut().enumerate() {
        if Some(index) != first {
            cell.ratio = cell.summary().and_then(|peer| Ratio::of(&ours, peer, better));
        }
    }
}

/// A contender and the samples of its rounds.
struct Series<'a> {
    contender: Contender<'a>,
    rounds: Vec<Vec<f64>>,
}

impl<'a> Series<'a> {
    fn new(contender: Contender<'a>) -> Self {
        Self { contender, rounds: Vec::new() }
    }

    fn round(&mut self, counts: bool) {
        let Run::Round(run) = &mut self.contender.run else { return };
        match run() {
            Ok(samples) if counts && !samples.is_empty() => self.rounds.push(samples),
            Ok(_) => {}
            Err(why) => self.contender.run = Run::Absent(why),
        }
    }

    fn into_cell(self) -> Cell {
        let outcome = match (self.contender.run, Summary::of(&self.rounds)) {
            (Run::Absent(why), _) => Outcome::Absent(why),
            (Run::Round(_), Some(summary)) => Outcome::Measured(summary),
            (Run::Round(_), None) => Outcome::Absent("returned no samples".to_owned()),
        };
        let Contender { name, role, .. } = self.contender;
        Cell { contender: name, role, outcome, ratio: None }
    }
}

/// A progress bar on standard error, if standard error is a terminal.
#[derive(Default)]
pub struct Progress {
    shown: Mutable<bool>,
}

impl Progress {
    const WIDTH: usize = 24;

    /// Shows that `step` of `steps` is done.
    pub fn show(&self, what: &str, label: &str, contender: &str, step: usize, steps: usize) {
        let terminal = stderr().is_terminal();
        if !terminal {
            if step == 0 {
                eprintln!("… {what} {label}");
            }
            return;
        }
        let full = Self::WIDTH * step / steps.max(1);
        let bar = format!("{}{}", "█".repeat(full), "░".repeat(Self::WIDTH - full));
        eprint!("\r\x1b[2K{bar} {what} {label} · {contender}");
        let _ = stderr().flush();
        self.shown.set(true);
    }

    /// Removes the bar.
    pub fn done(&self) {
        if self.shown.take() {
            eprint!("\r\x1b[2K");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::RefCell;

    #[test]
    fn contenders_alternate_and_the_warm_up_does_not_count() {
        let order = RefCell::new(String::new());
        let contender = |name: &'static str, role| {
            let order = &order;
            Contender::new(role, name, move || {
                order.borrow_mut().push_str(name);
                Ok::<_, String>(vec![if name == "a" { 1.0 } else { 3.0 }])
            })
        };
        let contenders = vec![contender("a", Role::Ours), contender("b", Role::Peer)];
        let row = Context::new(true).compare("test", ("", 0.0), Better::Lower, contenders);
        assert_eq!(*order.borrow(), "abbaabbaabba");
        assert_eq!(row.cells[0].summary().unwrap().samples, 5);
        assert_eq!(row.cells[1].ratio.as_ref().unwrap().times, 3.0);
        assert_eq!(row.cells[0].ratio, None);
    }

    #[test]
    fn a_contender_that_fails_is_absent_with_its_reason() {
        let contenders = vec![
            Contender::new(Role::Peer, "a", || Err("broken")),
            Contender::absent(Role::Peer, "b", "not installed"),
        ];
        let row = Context::new(true).compare("test", ("", 0.0), Better::Lower, contenders);
        let why = |cell: &Cell| match &cell.outcome {
            Outcome::Absent(why) => why.clone(),
            Outcome::Measured(_) => String::new(),
        };
        assert_eq!(row.cells.iter().map(why).collect::<Vec<_>>(), ["broken", "not installed"]);
    }
}
