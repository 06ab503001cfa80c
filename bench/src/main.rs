//! Benchmarks of brood beside its peers, interleaved in the same run, after a warm-up.
//!
//! ```text
//! cargo run --release --manifest-path bench/Cargo.toml -- \
//!     [spawn|fork|ipc|os|cluster|all] [--quick] [--json FILE] [--out DIR]
//! ```
//!
//! The program prints a table per topic. `--json` writes the same as JSON. `--out` writes
//! `DIR/BENCHMARKS.md` with its charts in `DIR/docs/bench/`, where topics that were measured
//! earlier keep their figures. `--out .` in the project's folder updates the published page.
//!
//! A topic is one file in `topic/` with `fn run(context: &Context) -> Topic` and one line in
//! `topic::ALL`. The topic describes contenders; [`context::Context::compare`] runs them in turn
//! and does the arithmetic. An absent peer is listed with the reason, never left out.

mod chart;
mod context;
mod idle;
mod load;
mod machine;
mod markdown;
mod node;
mod options;
mod report;
mod server;
mod stats;
mod targets;
mod text;
mod topic;
mod wrk;

use std::process::ExitCode;

use context::Context;
use options::Options;
use report::Report;

fn main() -> ExitCode {
    // Some topics start this program as another process.
    child_process::run_modules(topic::MODULES);
    if let Some(code) = topic::run_role() {
        return code;
    }
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("bench: {why}\n{}", options::usage());
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> std::io::Result<()> {
    let context = Context::new(options.quick);
    let machine = machine::describe();
    println!("{}", text::machine(&machine));
    let mut report = Report { machine, quick: options.quick, topics: Vec::new() };
    for entry in topic::ALL.iter().filter(|entry| options.topics.contains(&entry.name)) {
        let topic = (entry.run)(&context);
        context.progress.done();
        println!("{}", text::topic(&topic));
        report.topics.push(topic);
    }
    if let Some(file) = &options.json {
        std::fs::write(file, serde_json::to_vec_pretty(&report)?)?;
    }
    if let Some(folder) = &options.out {
        markdown::write(folder, &report)?;
    }
    Ok(())
}
