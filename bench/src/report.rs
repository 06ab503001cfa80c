//! The report of a run: topics with measures, rows and cells.
//!
//! The types are plain data, written and read as JSON.
//!
//! Pure.

use serde::{Deserialize, Serialize};

use crate::stats::{Better, Ratio, Summary};

/// The results of one run.
#[derive(Debug, Serialize, Deserialize)]
pub struct Report {
    pub machine: Machine,
    pub quick: bool,
    pub topics: Vec<Topic>,
}

/// The facts about machine and time, each with name and value.
pub type Machine = Vec<(String, String)>;

/// One subject of measurement, such as `spawn`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Topic {
    pub name: String,
    pub title: String,
    /// The explanations of the figures, one paragraph each.
    pub notes: Vec<String>,
    pub measures: Vec<Measure>,
}

/// A table with contenders side by side, at one or several places of an axis.
#[derive(Debug, Serialize, Deserialize)]
pub struct Measure {
    pub title: String,
    pub unit: Unit,
    pub better: Better,
    /// The quantity that changes from row to row, such as `resident MiB`. Empty with one row only.
    pub axis: String,
    pub chart: Chart,
    pub rows: Vec<Row>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Unit {
    Nanoseconds,
    /// A rate per second.
    PerSecond,
    BytesPerSecond,
    Bytes,
    /// A plain number.
    Count,
    /// A fraction, printed as a percentage.
    Part,
}

/// The chart of a measure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Chart {
    None,
    /// One bar per contender, for measures of one row.
    Bars,
    /// One line per contender along the axis.
    Lines {
        log_x: bool,
        log_y: bool,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Row {
    /// The place on the axis.
    pub at: f64,
    /// The label of the place.
    pub label: String,
    pub cells: Vec<Cell>,
}

#[derive(Debug, Serialize, Deserialize)]
pub struct Cell {
    pub contender: String,
    pub role: Role,
    pub outcome: Outcome,
    /// The ratio of our figure to this one.
    pub ratio: Option<Ratio>,
}

/// The part of a contender in the comparison.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    Ours,
    Peer,
    /// The best that the kernel allows. No contender can be faster.
    Limit,
}

#[derive(Debug, Serialize, Deserialize)]
pub enum Outcome {
    Measured(Summary),
    /// The reason why there is no figure.
    Absent(String),
}

impl Measure {
    pub fn new(title: impl Into<String>, unit: Unit, better: Better) -> Self {
        let (axis, chart, rows) = (String::new(), Chart::Bars, Vec::new());
        Self { title: title.into(), unit, better, axis, chart, rows }
    }

    #[must_use]
    pub fn along(mut self, axis: &str, chart: Chart) -> Self {
        axis.clone_into(&mut self.axis);
        self.chart = chart;
        self
    }

    /// Returns the contenders, in the order in which they first appear.
    pub fn contenders(&self) -> Vec<(&str, Role)> {
        let mut names: Vec<(&str, Role)> = Vec::new();
        for cell in self.rows.iter().flat_map(|row| &row.cells) {
            if !names.iter().any(|(name, _)| *name == cell.contender) {
                names.push((&cell.contender, cell.role));
            }
        }
        names
    }
}

impl Row {
    pub fn cell(&self, contender: &str) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.contender == contender)
    }
}

impl Cell {
    pub fn summary(&self) -> Option<&Summary> {
        match &self.outcome {
            Outcome::Measured(summary) => Some(summary),
            Outcome::Absent(_) => None,
        }
    }
}

impl Unit {
    /// Formats the value for people, with three significant digits.
    pub fn show(self, value: f64) -> String {
        match self {
            Self::Nanoseconds => scaled(value, 1000.0, &["ns", "µs", "ms", "s"]),
            Self::PerSecond => scaled(value, 1000.0, &["/s", "k/s", "M/s", "G/s"]),
            Self::BytesPerSecond => scaled(value, 1000.0, &["B/s", "kB/s", "MB/s", "GB/s"]),
            Self::Bytes => scaled(value, 1024.0, &["B", "KiB", "MiB", "GiB"]),
            Self::Count => digits(value),
            Self::Part => format!("{} %", digits(value * 100.0)),
        }
    }
}

fn scaled(value: f64, step: f64, names: &[&str]) -> String {
    let mut value = value;
    let mut at = 0;
    while value.abs() >= 999.5 && at + 1 < names.len() {
        value /= step;
        at += 1;
    }
    format!("{} {}", digits(value), names[at])
}

/// Formats a number with three significant digits, at most two of them behind the point.
pub fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 99.95 || size == 0.0 => format!("{value:.0}"),
        size if size >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_shown_with_three_digits_and_a_fitting_unit() {
        let cases = [
            (Unit::Nanoseconds, 550_123.0, "550 µs"),
            (Unit::Nanoseconds, 70_140_000.0, "70.1 ms"),
            (Unit::Nanoseconds, 0.0, "0 ns"),
            (Unit::PerSecond, 1_234_567.0, "1.23 M/s"),
            (Unit::Bytes, 1024.0, "1.00 KiB"),
            (Unit::BytesPerSecond, 4.5e9, "4.50 GB/s"),
            (Unit::Part, 0.125, "12.5 %"),
            (Unit::Count, 42.0, "42.0"),
        ];
        for (unit, value, shown) in cases {
            assert_eq!(unit.show(value), shown);
        }
    }
}
