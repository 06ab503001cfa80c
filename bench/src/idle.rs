//! A process that holds idle children, in a role of its own so that nothing else is in its memory.
//!
//! `bench role idle KIND COUNT` starts the children, then answers each line on standard input with
//! three numbers: the growth of its resident memory in bytes, the number of wake-ups of its threads
//! during the next [`WATCH`], and the growth of its heap in bytes.

use std::fs;
use std::io::BufRead;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use child_process::{Event, Fork, Module, Signal};

/// The name of the role.
pub const ROLE: &str = "idle";
/// The module that a forked child runs.
pub const MODULE: &str = "idle-child";
/// The time over which wake-ups are counted.
pub const WATCH: Duration = Duration::from_millis(500);

type Done<T> = Result<T, Box<dyn std::error::Error>>;

pub fn role() {
    let args: Vec<String> = std::env::args().skip(3).collect();
    if let Err(error) = serve(&args) {
        eprintln!("bench idle {args:?}: {error}");
        std::process::exit(1);
    }
}

fn serve(args: &[String]) -> Done<()> {
    let count = args[1].parse()?;
    let before = Before { resident: resident()?, heap: heap() };
    // The children are held until the end of input.
    let _children: Box<dyn std::any::Any> = match args[0].as_str() {
        "brood" => Box::new(brood(count)?),
        "brood-fork" => Box::new(brood_fork(count)?),
        "std" => Box::new(of_std(count)?),
        "tokio" => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            return runtime.block_on(of_tokio(count, before));
        }
        _ => return Err("no such kind".into()),
    };
    for line in std::io::stdin().lock().lines() {
        line?;
        let grown = before.grown()?;
        let switches = switches()?;
        let (_held, never) = mpsc::channel::<()>();
        let _ = never.recv_timeout(WATCH);
        answer(grown, switches)?;
    }
    Ok(())
}

fn answer((resident, heap): (u64, usize), switches_before: u64) -> Done<()> {
    // The end of this wait is one of the switches.
    let woken = switches()?.saturating_sub(switches_before + 1);
    println!("[{resident},{woken},{heap}]");
    Ok(())
}

/// The memory before the first child.
#[derive(Clone, Copy)]
struct Before {
    resident: u64,
    heap: usize,
}

impl Before {
    fn grown(self) -> Done<(u64, usize)> {
        Ok((resident()?.saturating_sub(self.resident), heap().saturating_sub(self.heap)))
    }
}

/// Returns the number of allocated bytes.
pub fn heap() -> usize {
    // SAFETY: the call takes nothing and returns numbers.
    let info = unsafe { libc::mallinfo2() };
    info.uordblks + info.hblkhd
}

fn brood(count: usize) -> Done<Vec<child_process::Child>> {
    let start = |_| {
        let mut command = child_process::Command::new("/bin/sleep");
        let null = child_process::Stdio::null;
        command.arg("3600").kill_on_drop(true).stdio([null(), null(), null()]);
        Ok(command.spawn()?)
    };
    (0..count).map(start).collect()
}

/// Forks children, each of which has sent its first message and is silent since.
fn brood_fork(count: usize) -> Done<Vec<child_process::Child>> {
    let start = |_| {
        let mut fork = Fork::new(Module::current_exe(MODULE));
        fork.parent_death_signal(Signal::KILL).kill_on_drop(true);
        let child = fork.spawn()?;
        let events = child.take_events().expect("taken once");
        while !matches!(events.recv()?, Event::Message(_)) {}
        Ok(child)
    };
    (0..count).map(start).collect()
}

/// Runs a forked child: sends one message, and waits for the end of its channel.
pub fn module() {
    let parent = child_process::parent().expect("it was forked");
    let events = parent.take_events().expect("taken once");
    parent.send("here").expect("the parent listens");
    let _ = events.iter().find(|event| matches!(event, Event::Disconnect));
}

/// Children of std, which kills none of them on drop.
struct Killed(Vec<std::process::Child>);

impl Drop for Killed {
    fn drop(&mut self) {
        for child in &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

fn of_std(count: usize) -> Done<Killed> {
    let mut children = Killed(Vec::new());
    for _ in 0..count {
        let mut command = Command::new("/bin/sleep");
        let null = Stdio::null;
        let command = command.arg("3600").stdin(null()).stdout(null()).stderr(null());
        children.0.push(command.spawn()?);
    }
    Ok(children)
}

/// Starts a task for each child that waits for it, as a program would.
async fn of_tokio(count: usize, before: Before) -> Done<()> {
    for _ in 0..count {
        let mut command = tokio::process::Command::new("/bin/sleep");
        let null = Stdio::null;
        command.arg("3600").kill_on_drop(true).stdin(null()).stdout(null()).stderr(null());
        let mut child = command.spawn()?;
        tokio::spawn(async move { child.wait().await });
    }
    tokio::task::yield_now().await;
    let (lines, mut requests) = tokio::sync::mpsc::unbounded_channel();
    std::thread::spawn(move || {
        for line in std::io::stdin().lock().lines() {
            if lines.send(line).is_err() {
                break;
            }
        }
    });
    while requests.recv().await.is_some() {
        let grown = before.grown()?;
        let switches = switches()?;
        tokio::time::sleep(WATCH).await;
        answer(grown, switches)?;
    }
    Ok(())
}

fn resident() -> Done<u64> {
    let text = fs::read_to_string("/proc/self/statm")?;
    let pages: u64 = text.split(' ').nth(1).ok_or("no field")?.parse()?;
    Ok(pages * 4096)
}

/// Returns the number of voluntary context switches of all threads: each one ends with a wake-up.
pub fn switches() -> Done<u64> {
    let mut sum = 0;
    for thread in fs::read_dir("/proc/self/task")? {
        let status = fs::read_to_string(thread?.path().join("status"))?;
        let line = status.lines().find_map(|line| line.strip_prefix("voluntary_ctxt_switches:"));
        sum += line.ok_or("no such line")?.trim().parse::<u64>()?;
    }
    Ok(sum)
}
