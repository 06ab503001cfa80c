//! Sandboxes that refuse system calls: what works by a fallback, and what fails at once.
//!
//! Each cell of the table is a process of its own. It installs the filter, performs one operation,
//! twice where the first may leave permanent descriptors, and says how that went. A cell works, or
//! fails with an error that names the refused call. It never hangs, and leaves no child and no
//! descriptor. `docs/sandbox.md` has the tables; with `BROOD_WRITE_DOCS=1` these cases write them.

mod emulator;
mod operations;
mod unkillable;

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use child_process::{Command, Signal};
use sys::testing::REFUSED;

use crate::harness::{apply, case, storm};
use crate::support::current_exe;
use operations::OPERATIONS;
pub(crate) use operations::hide_proc;

/// The longest that a cell may take.
const CELL_MAX: Duration = Duration::from_secs(20);

/// The word between the calls of a row with several.
const AND: &str = " and ";

/// The number of cells that run at the same time.
const AT_ONCE: usize = 6;

#[apply(storm)]
fn calls_that_are_refused_with_eperm_have_a_fallback_or_a_name() {
    check("EPERM");
}

#[apply(storm)]
fn calls_that_are_refused_with_enosys_have_a_fallback_or_a_name() {
    check("ENOSYS");
}

/// The control of the tables: without a refused call everything works.
#[apply(case)]
fn every_operation_works_without_a_sandbox() {
    for operation in OPERATIONS {
        assert_eq!(cell("none", "EPERM", operation.0), Ok(Verdict::Works), "{}", operation.0);
    }
}

/// A private copy of the mounts, in which `/proc` is missing, needs the rights of root.
#[apply(case)]
fn trees_and_programs_that_start_themselves_need_proc() {
    for operation in OPERATIONS {
        match cell("/proc", "EPERM", operation.0) {
            Ok(Verdict::Refused(why)) if operation.0 == "kill_tree" => {
                assert!(why.contains("reading /proc failed"), "{why}");
            }
            Ok(Verdict::Refused(why)) if ["channel", "cluster of two"].contains(&operation.0) => {
                assert!(why.contains("/proc/self/exe"), "{why}");
            }
            Ok(verdict) => assert_eq!(verdict, Verdict::Works, "{}", operation.0),
            Err(why) if why.contains("SKIPPED") => return println!("{why}"),
            Err(why) => panic!("{}: {why}", operation.0),
        }
    }
}

/// The numbers in `/proc` are those of another namespace: a descendant by number could be anybody.
#[apply(case)]
fn proc_of_another_pid_namespace_is_not_trusted() {
    let mut unshare = Command::new("unshare");
    let output = unshare.args(["--pid", "--fork", "true"]).output();
    if !output.is_ok_and(|output| output.status.success()) {
        return println!("SKIPPED: unshare cannot make a pid namespace");
    }
    let mut unshare = Command::new("unshare");
    // The shell is process 1, which gets the orphans.
    let script = "\"$0\" role sandboxed none EPERM kill_tree; exit $?";
    unshare.args(["--pid", "--fork", "/bin/sh", "-c", script]).arg(current_exe());
    let output = unshare.output().unwrap();
    let said = output.stdout_text();
    let expected = "reading /proc failed: /proc shows another pid namespace";
    assert!(said.contains(expected), "{said}{}", output.stderr_text());
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Verdict {
    Works,
    Refused(String),
}

/// Runs one cell, and returns the verdict, or the reason why it is no verdict.
fn cell(call: &str, errno: &str, operation: &str) -> Result<Verdict, String> {
    let mut role = Command::new(current_exe());
    role.args(["role", "sandboxed", call, errno, operation]);
    role.process_group(0).timeout(CELL_MAX).kill_signal(Signal::KILL).kill_tree(true);
    let output = role.output().map_err(|error| format!("hangs: {error:?}"))?;
    let said = output.stdout_text().into_owned();
    let last = said.lines().next_back().unwrap_or_default();
    match last.split_once(' ') {
        None if last == "works" && output.status.success() => Ok(Verdict::Works),
        Some(("error", why)) if call.split(AND).any(|call| why.contains(call)) => {
            Ok(Verdict::Refused(why.to_owned()))
        }
        _ => Err(format!("{}: {said}{}", output.status, output.stderr_text())),
    }
}

/// The rows of the tables: single calls, and calls that are the fallback of each other.
fn rows() -> impl Iterator<Item = &'static str> {
    REFUSED.iter().map(|call| call.name).chain(["clone(CLONE_PIDFD) and pidfd_open"])
}

fn check(errno: &str) {
    let cells: Vec<(&str, &str)> = rows()
        .flat_map(|calls| OPERATIONS.iter().map(move |operation| (calls, operation.0)))
        .collect();
    let (next, verdicts) = (AtomicUsize::new(0), Mutex::new(vec![None; cells.len()]));
    thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while let Some((call, operation)) = cells.get(next.fetch_add(1, Ordering::Relaxed))
                {
                    let verdict = cell(call, errno, operation);
                    let at = cells.iter().position(|cell| *cell == (*call, *operation));
                    let mut verdicts = verdicts.lock().unwrap_or_else(PoisonError::into_inner);
                    verdicts[at.expect("one of them")] = Some(verdict);
                }
            });
        }
    });
    let verdicts = verdicts.into_inner().unwrap_or_else(PoisonError::into_inner);
    let mut wrong = String::new();
    for ((call, operation), verdict) in cells.iter().zip(&verdicts) {
        if let Some(Err(why)) = verdict {
            let _ = writeln!(wrong, "{call} {errno}, {operation}: {why}");
        }
    }
    let verdicts: Vec<Verdict> =
        verdicts.into_iter().flatten().map(|v| v.unwrap_or(Verdict::Works)).collect();
    let table = table(&verdicts);
    println!("{errno}\n{table}\n{}", sentences(&verdicts));
    assert!(wrong.is_empty(), "cells without a verdict:\n{wrong}");
    compare(errno, &table, &sentences(&verdicts));
}

fn table(verdicts: &[Verdict]) -> String {
    let names: Vec<&str> = OPERATIONS.iter().map(|operation| operation.0).collect();
    let mut table = format!("| refused call | {} |\n|---|", names.join(" | "));
    table += &"---|".repeat(names.len());
    for (calls, row) in rows().zip(verdicts.chunks(OPERATIONS.len())) {
        let cell = |verdict: &Verdict| match verdict {
            Verdict::Works => "works",
            Verdict::Refused(_) => "**error**",
        };
        let row: Vec<&str> = row.iter().map(cell).collect();
        let _ = write!(table, "\n| `{}` | {} |", calls.replace(AND, "` and `"), row.join(" | "));
    }
    table
}

/// Returns the errors, each once.
fn sentences(verdicts: &[Verdict]) -> String {
    let errors = verdicts.iter().filter_map(|verdict| match verdict {
        Verdict::Works => None,
        Verdict::Refused(why) => Some(format!("- `{}`", without_particulars(why))),
    });
    errors.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join("\n")
}

/// Replaces the parts of an error that are different in every run.
fn without_particulars(why: &str) -> String {
    let why = why.replace(current_exe().to_str().expect("text"), "PROGRAM");
    let number =
        |word: &str| word.trim_end_matches([')', ':']).parse::<u32>().is_ok_and(|n| n > 99);
    let words = why.split(' ').map(|word| if number(word) { "PID):" } else { word });
    words.collect::<Vec<_>>().join(" ")
}

/// Compares the page with the run, or writes it.
fn compare(errno: &str, table: &str, sentences: &str) {
    let page = page();
    let text = fs::read_to_string(&page).unwrap_or_default();
    let (begin, end) = (format!("<!-- {errno} -->\n"), format!("<!-- end of {errno} -->"));
    let parts = text.split_once(&begin).and_then(|(before, rest)| {
        rest.split_once(&end).map(|(between, after)| (before, between, after))
    });
    let (before, between, after) = parts.expect("the page has a place for this table");
    if std::env::var_os("BROOD_WRITE_DOCS").is_some() {
        let errors = if sentences.is_empty() { String::new() } else { format!("\n{sentences}\n") };
        let text = format!("{before}{begin}{table}\n{errors}{end}{after}");
        fs::write(&page, text).expect("the page is written");
    } else {
        // musl starts threads without `clone3`, and aarch64 has no older call than `ppoll`.
        let elsewhere = |line: &&str| {
            !(cfg!(target_env = "musl") && line.contains("`clone3`")
                || cfg!(target_arch = "aarch64") && line.contains("`ppoll`"))
        };
        let written = between.lines().filter(|line| line.starts_with('|'));
        let written: Vec<&str> = written.filter(elsewhere).collect();
        let seen: Vec<&str> = table.lines().filter(elsewhere).collect();
        assert_eq!(written, seen, "{}: BROOD_WRITE_DOCS=1 writes these", page.display());
    }
}

fn page() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/sandbox.md")
}
