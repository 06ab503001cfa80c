//! The report as text, with aligned tables for a terminal.
//!
//! Pure.

use std::fmt::Write;

use crate::report::{Cell, Machine, Measure, Outcome, Role, Topic, digits};
use crate::stats::{Better, Ratio, Verdict};
use crate::targets;

pub fn machine(machine: &Machine) -> String {
    let width = machine.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    machine.iter().map(|(name, value)| format!("{name:width$}  {value}\n")).collect()
}

pub fn topic(topic: &Topic) -> String {
    let mut text = format!("\n# {}: {}\n", topic.name, topic.title);
    for note in &topic.notes {
        let _ = writeln!(text, "  {note}");
    }
    for measure in &topic.measures {
        let better = if measure.better == Better::Lower { "less" } else { "more" };
        let _ = writeln!(text, "\n## {} ({better} is better)\n", measure.title);
        text += &aligned(&table(measure));
    }
    let verdicts = targets::verdicts(topic);
    if !verdicts.is_empty() {
        text += "\n## Targets\n\n";
    }
    for [goal, reach, measured, verdict] in verdicts {
        let _ = writeln!(text, "{verdict}: {goal}: {reach}, measured {measured}");
    }
    text
}

/// Returns the cells of a measure's table, with the header first.
pub fn table(measure: &Measure) -> Vec<Vec<String>> {
    let head = ["", "", "median", "p50", "p99", "± rounds", "ours is"];
    let mut lines = vec![head.map(String::from).to_vec()];
    measure.axis.clone_into(&mut lines[0][0]);
    for row in &measure.rows {
        for (index, cell) in row.cells.iter().enumerate() {
            let label = if index == 0 { row.label.clone() } else { String::new() };
            lines.push(line(measure, label, cell));
        }
    }
    lines
}

fn line(measure: &Measure, label: String, cell: &Cell) -> Vec<String> {
    let name = match cell.role {
        Role::Ours | Role::Peer => cell.contender.clone(),
        Role::Limit => format!("{} (limit)", cell.contender),
    };
    match &cell.outcome {
        Outcome::Absent(why) => {
            let mut line = vec![label, name, format!("absent: {why}")];
            line.resize(7, String::new());
            line
        }
        Outcome::Measured(summary) => {
            let show = |value| measure.unit.show(value);
            let many = summary.samples > summary.rounds.len();
            let percentile = |value| if many { show(value) } else { String::new() };
            vec![
                label,
                name,
                show(summary.median),
                percentile(summary.p50),
                percentile(summary.p99),
                format!("{} %", digits(summary.spread * 100.0)),
                cell.ratio.as_ref().map(ratio).unwrap_or_default(),
            ]
        }
    }
}

/// Formats a ratio in words.
pub fn ratio(ratio: &Ratio) -> String {
    let times = format!("{} ×", digits(ratio.times));
    match ratio.verdict {
        Verdict::Better => format!("{times} as good"),
        Verdict::Worse => format!("{times} as good (worse)"),
        Verdict::Equal => format!("equal ({times})"),
        Verdict::TooNoisy => {
            format!("too noisy to decide ({}–{} ×)", digits(ratio.low), digits(ratio.high))
        }
    }
}

fn aligned(lines: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = lines.iter().filter(|line| !line[2].starts_with("absent"));
        cells.map(|line| line[column].chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    let mut text = String::new();
    for line in lines {
        let mut row = String::new();
        for (column, (cell, &width)) in line.iter().zip(&widths).enumerate() {
            // Words are aligned to the left, figures to the right.
            let _ = match column {
                0 | 1 | 6 => write!(row, "{cell:<width$}  "),
                _ if cell.starts_with("absent") => write!(row, "{cell}"),
                _ => write!(row, "{cell:>width$}  "),
            };
        }
        text += row.trim_end();
        text.push('\n');
    }
    text
}
