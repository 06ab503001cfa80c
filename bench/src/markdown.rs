//! BENCHMARKS.md, which this module generates from the figures.
//!
//! The figures of each topic are stored beside its charts as JSON, with the machine of the run. The
//! page contains all of them, so that a new run of one topic keeps the others.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::Path;

use crate::chart;
use crate::report::{Measure, Report, Topic};
use crate::stats::Better;
use crate::targets;
use crate::text::table;
use crate::topic;

/// The folder beside BENCHMARKS.md.
const FOLDER: &str = "docs/bench";

/// Writes the figures of `report`, their charts, and the page with all figures.
pub fn write(folder: &Path, report: &Report) -> io::Result<()> {
    let charts = folder.join(FOLDER);
    fs::create_dir_all(&charts)?;
    for topic in &report.topics {
        let alone = serde_json::json!({
            "machine": report.machine, "quick": report.quick, "topics": [topic],
        });
        let file = charts.join(format!("{}.json", topic.name));
        fs::write(file, format!("{}\n", serde_json::to_string(&alone)?))?;
    }
    let mut reports: Vec<Report> = Vec::new();
    for entry in topic::ALL {
        match fs::read(charts.join(format!("{}.json", entry.name))) {
            Ok(bytes) => reports.push(serde_json::from_slice(&bytes)?),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    // All charts are drawn again, so that they have the same style.
    for topic in reports.iter().flat_map(|report| &report.topics) {
        draw(&charts, topic)?;
    }
    fs::write(folder.join("BENCHMARKS.md"), page(&reports))
}

fn draw(charts: &Path, topic: &Topic) -> io::Result<()> {
    for measure in &topic.measures {
        if let Some(picture) = chart::draw(measure) {
            fs::write(charts.join(chart_name(topic, measure)), picture)?;
        }
    }
    Ok(())
}

/// Returns the file name of a chart. It follows from the title, so that other pages can link to it.
fn chart_name(topic: &Topic, measure: &Measure) -> String {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
    let words: String = measure.title.chars().map(plain).collect();
    let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
    format!("{}-{}.svg", topic.name, words.join("-"))
}

fn page(reports: &[Report]) -> String {
    let mut page = String::from(
        "# Benchmarks\n\n\
         `cargo run --release --manifest-path bench/Cargo.toml -- all --out .` writes this page; \
         no figure is typed by hand.\n\n\
         Contenders run in turn (A B C, C B A, …) after a warm-up, in the same run on the same \
         machine. *median* is the median over the rounds. *p50* and *p99* cover all single \
         samples where a round has several. *± rounds* is half the distance between the \
         quartiles of the rounds. *ours is* compares the first of our contenders with the \
         contender of the row, round by round. A value over 1 is good for us in every table. The \
         column says *too noisy* when the rounds disagree about the better contender. An absent \
         peer is listed with the reason. A target is *within the noise* when the quartiles of its rounds \
         lie on both sides of it.\n",
    );
    for report in reports {
        for topic in &report.topics {
            section(&mut page, report, topic);
        }
    }
    page
}

fn section(page: &mut String, report: &Report, topic: &Topic) {
    let _ = writeln!(page, "\n## {}\n", topic.title);
    for note in &topic.notes {
        let _ = writeln!(page, "{note}\n");
    }
    if report.quick {
        let _ = writeln!(page, "Measured with `--quick`: a rough picture only.\n");
    }
    let verdicts = targets::verdicts(topic);
    if !verdicts.is_empty() {
        let _ = writeln!(page, "| {} |\n| --- | ---: | ---: | --- |", targets::HEAD.join(" | "));
        for line in verdicts {
            let _ = writeln!(page, "| {} |", line.join(" | "));
        }
        page.push('\n');
    }
    for measure in &topic.measures {
        let better = if measure.better == Better::Lower { "less" } else { "more" };
        let _ = writeln!(page, "### {} ({better} is better)\n", measure.title);
        if chart::draw(measure).is_some() {
            let name = chart_name(topic, measure);
            let _ = writeln!(page, "![{}]({FOLDER}/{name})\n", measure.title);
        }
        *page += &markdown_table(measure);
        page.push('\n');
    }
    let facts = report.machine.iter().map(|(name, value)| format!("{name}: {value}"));
    let facts: Vec<String> = facts.collect();
    let _ = writeln!(page, "<sub>{}</sub>", facts.join("; "));
}

fn markdown_table(measure: &Measure) -> String {
    let mut lines = table(measure).into_iter();
    let mut text = String::new();
    let mut put = |cells: &[String]| {
        let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
        let _ = writeln!(text, "| {} |", cells.join(" | "));
    };
    put(&lines.next().expect("a table has a header"));
    put(&["---", "---", "---:", "---:", "---:", "---:", "---"].map(String::from));
    for line in lines {
        put(&line);
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::{Cell, Outcome, Role, Row, Unit};
    use crate::stats::Summary;

    fn report() -> Report {
        let mut measure = Measure::new("time of it", Unit::Nanoseconds, Better::Lower);
        let cell = |contender: &str, role, outcome| Cell {
            contender: contender.to_owned(),
            role,
            outcome,
            ratio: None,
        };
        let summary = Summary::of(&[vec![1000.0, 3000.0], vec![2000.0]]).unwrap();
        let cells = vec![
            cell("ours", Role::Ours, Outcome::Measured(summary)),
            cell("nginx", Role::Peer, Outcome::Absent("not installed".to_owned())),
        ];
        measure.rows.push(Row { at: 0.0, label: "here".to_owned(), cells });
        let topic = Topic {
            name: topic::ALL[0].name.to_owned(),
            title: "It".to_owned(),
            notes: vec!["A note.".to_owned()],
            measures: vec![measure],
        };
        Report { machine: vec![("kernel".into(), "6".into())], quick: true, topics: vec![topic] }
    }

    #[test]
    fn the_page_has_every_figure_and_names_absent_contenders() {
        let page = page(&[report()]);
        for text in ["## It", "A note.", "| ours | 2.00 µs |", "absent: not installed", "kernel: 6"]
        {
            assert!(page.contains(text), "no {text:?} in\n{page}");
        }
    }

    #[test]
    fn the_readme_shows_charts_that_were_written() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let readme = fs::read_to_string(root.join("README.md")).unwrap();
        let names = readme.split("](docs/bench/").skip(1).filter_map(|text| text.split(')').next());
        let names: Vec<&str> = names.collect();
        assert!(names.len() >= 2, "{names:?}");
        for name in names {
            let picture = fs::read_to_string(root.join(FOLDER).join(name)).expect(name);
            assert!(picture.starts_with("<svg"), "{name}");
        }
    }

    #[test]
    fn figures_are_the_same_after_being_written_and_read() {
        let written = serde_json::to_string(&report()).unwrap();
        let read: Report = serde_json::from_str(&written).unwrap();
        assert_eq!(page(&[read]), page(&[report()]));
    }
}
