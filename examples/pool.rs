//! A pool of forked workers that counts primes, with a progress bar.
//!
//! ```text
//! cargo run --release --example pool -- [--below N] [--workers N] [--kill]
//! ```
//!
//! You will see the bar, the number of primes, and the speed-up over one process: the processor time
//! of all ranges, divided by the time that passed. More workers than processors do not raise it.
//! With `--kill` the program kills one worker in the middle. Only the range of that worker is lost,
//! and another worker counts it again.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "an example prints")]

use std::collections::{HashMap, VecDeque};
use std::error::Error;
use std::io::{IsTerminal, Write};
use std::ops::Range;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use child_process::{Child, Event, Fork, Module, Signal};
use crossbeam_channel::{Receiver, Select};
use serde::{Deserialize, Serialize};
use sys::host::thread_cpu_time;

const USAGE: &str = "usage: pool [--below N] [--workers N] [--kill]";

/// The size of a range.
const RANGE: u64 = 50_000;

/// The largest number of `--below`: a million ranges.
const BELOW_MAX: u64 = RANGE * 1_000_000;

/// The largest number of workers.
const WORKERS_MAX: u64 = 4096;

/// The answer of a worker for one range.
#[derive(Serialize, Deserialize)]
struct Counted {
    primes: u64,
    /// The processor time that the worker used. The time that passed would be longer on a busy
    /// machine, because it contains the wait for a processor.
    cpu: Duration,
}

fn main() -> ExitCode {
    brood::init().expect("process 1 has one thread at this point");
    child_process::run_modules(&[("count", count_ranges)]);
    let options = match Options::parse(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("pool: {why}; {USAGE}");
            return ExitCode::from(2);
        }
    };
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("pool: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    below: u64,
    workers: usize,
    kill: bool,
}

impl Options {
    fn parse(mut args: impl Iterator<Item = String>) -> Result<Options, String> {
        let mut options = Options {
            below: 3_000_000,
            workers: os_info::available_parallelism().get().max(2),
            kill: false,
        };
        while let Some(arg) = args.next() {
            let mut number = |max: u64| {
                let text = args.next().ok_or_else(|| format!("{arg} needs a number"))?;
                let number: Option<u64> = text.parse().ok();
                number
                    .filter(|number| *number <= max)
                    .ok_or_else(|| format!("{arg} needs a number up to {max}, not {text}"))
            };
            match arg.as_str() {
                "--below" => options.below = number(BELOW_MAX)?,
                "--workers" => options.workers = number(WORKERS_MAX)? as usize,
                "--kill" => options.kill = true,
                _ => return Err(format!("unknown flag {arg}")),
            }
        }
        if options.workers == 0 {
            return Err("a pool needs at least one worker".to_owned());
        }
        Ok(options)
    }
}

/// A worker, and the range that it works on.
struct Worker {
    child: Child,
    events: Receiver<Event>,
    range: Option<Range<u64>>,
}

impl Worker {
    fn start() -> Result<Worker, child_process::Error> {
        let child = Fork::new(Module::current_exe("count")).spawn()?;
        let events = child.take_events().expect("taken once");
        Ok(Worker { child, events, range: None })
    }
}

struct Pool {
    workers: HashMap<u32, Worker>,
    waiting: VecDeque<Range<u64>>,
    total: usize,
    done: usize,
    primes: u64,
    /// The processor time of all ranges, which one process would have needed.
    work: Duration,
}

fn run(options: &Options) -> Result<(), Box<dyn Error>> {
    let starts = (0..options.below).step_by(RANGE as usize);
    let waiting: VecDeque<_> =
        starts.map(|start| start..(start + RANGE).min(options.below)).collect();
    let total = waiting.len();
    let mut pool =
        Pool { workers: HashMap::new(), waiting, total, done: 0, primes: 0, work: Duration::ZERO };
    let begin = Instant::now();
    for _ in 0..options.workers {
        pool.add_worker()?;
    }
    let mut victim = options.kill.then(|| pool.workers.keys().next().copied()).flatten();
    while pool.done < pool.total {
        let (pid, event) = pool.next_event()?;
        pool.handle(pid, event)?;
        if let Some(pid) = victim.take_if(|_| pool.done >= pool.total / 2) {
            if let Some(worker) = pool.workers.get(&pid) {
                worker.child.kill(Signal::KILL)?;
            }
        }
    }
    let took = begin.elapsed();
    println!("\n{} primes below {}", pool.primes, options.below);
    let speed_up = pool.work.as_secs_f64() / took.as_secs_f64();
    println!("{:.2} s, {speed_up:.2} times as fast as one process", took.as_secs_f64());
    Ok(())
}

impl Pool {
    fn add_worker(&mut self) -> Result<(), Box<dyn Error>> {
        let worker = Worker::start()?;
        let pid = worker.child.pid();
        self.workers.insert(pid, worker);
        self.dispatch(pid)
    }

    fn dispatch(&mut self, pid: u32) -> Result<(), Box<dyn Error>> {
        let Some(worker) = self.workers.get_mut(&pid) else { return Ok(()) };
        if let Some(range) = self.waiting.pop_front() {
            // The send fails when the worker has died. Its exit event then returns the range.
            let _ = worker.child.send(&(range.start, range.end));
            worker.range = Some(range);
        }
        Ok(())
    }

    /// Waits for the next event of any worker.
    fn next_event(&self) -> Result<(u32, Event), Box<dyn Error>> {
        let all: Vec<_> = self.workers.iter().collect();
        let mut select = Select::new();
        for (_, worker) in &all {
            select.recv(&worker.events);
        }
        let operation = select.select();
        let (pid, worker) = all[operation.index()];
        Ok((*pid, operation.recv(&worker.events)?))
    }

    fn handle(&mut self, pid: u32, event: Event) -> Result<(), Box<dyn Error>> {
        match event {
            Event::Message(message) => {
                let counted: Counted = message.decode()?;
                self.primes += counted.primes;
                self.work += counted.cpu;
                self.done += 1;
                self.show();
                if let Some(worker) = self.workers.get_mut(&pid) {
                    worker.range = None;
                }
                self.dispatch(pid)
            }
            // `Close` follows after all messages of the worker, so only its current range is lost.
            Event::Close(status) => {
                let lost = self.workers.remove(&pid).and_then(|worker| worker.range);
                eprintln!("\nworker {pid} ended ({status}); its range goes to another worker");
                self.waiting.extend(lost);
                self.add_worker()
            }
            _ => Ok(()),
        }
    }

    fn show(&self) {
        if std::io::stdout().is_terminal() || self.done == self.total {
            let filled = 40 * self.done / self.total;
            print!(
                "\r[{}{}] {}/{}",
                "#".repeat(filled),
                " ".repeat(40 - filled),
                self.done,
                self.total
            );
            let _ = std::io::stdout().flush();
        }
    }
}

/// Runs a worker: counts one range after the other.
fn count_ranges() {
    let parent = child_process::parent().expect("this module is only ever forked");
    for event in parent.take_events().expect("taken once") {
        let Event::Message(message) = event else { continue };
        let Ok((start, end)) = message.decode::<(u64, u64)>() else { continue };
        let before = thread_cpu_time().expect("every thread has this clock");
        let primes = (start..end).filter(|number| is_prime(*number)).count() as u64;
        let cpu = thread_cpu_time().expect("every thread has this clock") - before;
        if parent.send(&Counted { primes, cpu }).is_err() {
            break;
        }
    }
}

fn is_prime(number: u64) -> bool {
    number >= 2 && (2..).take_while(|part| part * part <= number).all(|part| number % part != 0)
}
