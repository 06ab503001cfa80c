//! How a case is written, and how the harness runs it.
//!
//! The body of a test is a *case*: a function whose name is a sentence, in the file of its
//! subject. A new file needs its `mod` line and nothing else.
//!
//! ```ignore
//! use crate::harness::{apply, case, role};
//!
//! #[apply(case)]
//! fn a_killed_child_is_reaped() {
//!     let mut child = Command::new(current_exe()).args(["role", "hang"]).spawn().unwrap();
//!     …
//! }
//!
//! /// `hang`: waits until a signal ends the process.
//! #[apply(role)]
//! fn hang(args: &[String]) { … }
//! ```
//!
//! | attribute | meaning |
//! |---|---|
//! | `#[apply(case)]` | a test, which runs beside others |
//! | `#[apply(storm)]` | a test that loads the machine or measures this process, and runs alone |
//! | `#[apply(role)]` | a program that cases start: `current_exe() role NAME ARG…` |
//! | `#[apply(module)]` | the function that `Fork::new(Module::current_exe(NAME))` runs |
//! | `#[apply(specimen)]` | a case for the tests of the harness, which does not run otherwise |
//!
//! Below `case` or `storm`, `#[node_test("test-child-process-cwd")]` names the tests of Node's own
//! suite whose assertions the case makes.
//!
//! While you work on a case: `cargo test --test processes -- --nocapture NAME`.
//!
//! Every case runs in a process of its own. A case fails when it panics, when it takes longer than
//! [`CASE_MAX`], or when it leaves something behind: a descriptor, a child, a zombie, a thread that
//! it started, a descendant that still runs. Then the test prints the output of the case (standard
//! output and standard error, with those of all its descendants, in one) and the state of each
//! process. In every case all descendants are killed: the process group, and every process that
//! inherited [`MARK`](process::MARK) in its environment, in whatever group or session.
//!
//! A case may change limits, environment, signals, the working directory and descriptors 0 to 2,
//! because no other test shares them. Cases wait for messages, pidfds and deadlines, and never sleep
//! until "surely done". A test that needs none of this is an ordinary `#[test]` next to the code.

mod case;
mod ledger;
mod process;
mod registry;
mod self_test;

use std::process::ExitCode;
use std::sync::{PoisonError, RwLock};

use libtest_mimic::{Arguments, Trial};

pub(crate) use macro_rules_attribute::apply;
pub(crate) use process::{CASE_MAX, try_case};
pub(crate) use registry::{
    Case, Kind, Module, Role, case, cases, module, modules, register_case, role, specimen, storm,
};

/// The lock that every case holds while it runs; a storm holds it alone.
static RUNNING: RwLock<()> = RwLock::new(());

/// Runs the cases that the command line asks for.
pub(crate) fn run_cases() -> ExitCode {
    let args = Arguments::from_args();
    let shows_output = args.nocapture;
    let mut cases: Vec<&'static Case> =
        cases().filter(|case| case.kind != Kind::Specimen).collect();
    // The storms come last, because a storm that waits for other cases keeps a thread idle.
    cases.sort_by_key(|case| (case.kind == Kind::Storm, case.name()));
    let trials = cases.into_iter().map(|case| trial(case, shows_output)).collect();
    libtest_mimic::run(&args, trials).exit_code()
}

fn trial(case: &'static Case, shows_output: bool) -> Trial {
    let run = move || {
        let (_alone, _shared);
        if case.kind == Kind::Storm {
            _alone = RUNNING.write().unwrap_or_else(PoisonError::into_inner);
        } else {
            _shared = RUNNING.read().unwrap_or_else(PoisonError::into_inner);
        }
        let output = process::run_case(case.name())?;
        if shows_output {
            print!("{output}");
        }
        // The output of a test that passes is not shown, but what was not checked is no secret.
        for line in output.lines().filter(|line| line.starts_with("SKIPPED: ")) {
            eprintln!("{}: {line}", case.name());
        }
        Ok(())
    };
    // `.config/nextest.toml` selects storms by this word: under nextest each test has a process of
    // its own, and no lock holds between them.
    let kind = if case.kind == Kind::Storm { "storm" } else { "" };
    Trial::test(case.name(), run).with_kind(kind)
}

/// Runs the case `name` in this process.
pub(crate) fn play_case(name: &str) -> ExitCode {
    match cases().find(|case| case.name() == name) {
        Some(case) => case::run(case.body),
        None => refuse(&format!("no case named {name}")),
    }
}

/// Plays the role `name`.
pub(crate) fn play_role(name: &str, args: &[String]) -> ExitCode {
    let Some(role) = registry::roles().find(|role| role.name == name) else {
        return refuse(&format!("no role named {name}"));
    };
    (role.play)(args);
    ExitCode::SUCCESS
}

fn refuse(why: &str) -> ExitCode {
    eprintln!("processes: {why}");
    ExitCode::from(2)
}
