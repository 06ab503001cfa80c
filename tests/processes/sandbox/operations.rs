//! The operations of the tables, and the process that performs one of them behind a filter.

use std::error::Error;
use std::fs;
use std::io::Read;
use std::net::TcpStream;
use std::time::{Duration, Instant};

use child_process::{Command, Event, ExitStatus, Fork, Module, Signal, Signalled, Step, parent};
use cluster::{Address, Primary, Worker, WorkerOptions};
use nix::mount::{MntFlags, MsFlags};
use sys::testing::{REFUSED, errno_by_name, refuse};

use crate::harness::{apply, module, role};
use crate::support::OrLeave;
use crate::support::shell::sh;
use crate::support::wait;

type Outcome = Result<(), Box<dyn Error>>;

/// The name of a column, and its operation.
type Operation = (&'static str, fn() -> Outcome);

/// The columns of the tables.
pub(super) const OPERATIONS: &[Operation] = &[
    ("start", start),
    ("wait", wait_for_exit),
    ("kill", kill),
    ("kill_tree", kill_tree),
    ("output, timeout", collect),
    ("exec, timeout", execute),
    ("channel", channel),
    ("cluster of two", cluster),
];

/// `sandboxed CALL ERRNO OPERATION`: performs the operation where the call is refused, and prints
/// `works`, or `error` and the error.
#[apply(role)]
fn sandboxed(args: &[String]) {
    let [call, errno, operation] = args else { panic!("three arguments") };
    let is_refused = |name: &str| call.split(super::AND).any(|refused| refused == name);
    let calls: Vec<_> = REFUSED.iter().copied().filter(|known| is_refused(known.name)).collect();
    let others = ["none", "/proc", "valgrind"];
    assert!(!calls.is_empty() || others.contains(&call.as_str()), "no call {call}");
    if call == "/proc" {
        if let Err(error) = hide_proc() {
            return println!("SKIPPED: /proc stays: {error}");
        }
    }
    let perform = OPERATIONS.iter().find(|known| known.0 == operation).expect("an operation").1;
    if call != "valgrind" {
        refuse(&calls, errno_by_name(errno).expect("an error")).expect("a filter");
    }
    match perform() {
        Ok(()) => {}
        Err(error) => {
            settle(None);
            return println!("error {error:?}");
        }
    }
    // The loop keeps its descriptors, so the first run may leave more than the second.
    let before = settle(None);
    if operation != "cluster of two" {
        perform().expect("as before");
        settle(Some(before));
    }
    println!("works");
}

/// Makes `/proc` disappear for this process, in mounts of its own.
pub(crate) fn hide_proc() -> nix::Result<()> {
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS)?;
    let (none, private) = (None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE);
    nix::mount::mount(none, "/", none, private, none)?;
    nix::mount::umount2("/proc", MntFlags::MNT_DETACH)
}

/// Waits until no child is left, and no more descriptors than `most`; returns their number.
fn settle(most: Option<usize>) -> usize {
    let until = Instant::now() + Duration::from_secs(5);
    if !fs::exists("/proc/self").expect("a path") {
        return 0;
    }
    loop {
        let children = fs::read_to_string("/proc/thread-self/children").expect("children");
        let open = fs::read_dir("/proc/self/fd").expect("descriptors").count();
        if children.trim().is_empty() && most.is_none_or(|most| open <= most) {
            return open;
        }
        assert!(Instant::now() < until, "left: children {children:?}, {open} descriptors");
        wait(Duration::from_millis(10));
    }
}

fn start() -> Outcome {
    let child = Command::new("true").spawn()?;
    assert!(child.wait()?.success());
    let missing = Command::new("/nonexistent/program").spawn().unwrap_err();
    assert_eq!((missing.step(), missing.code()), (Some(Step::Program), "ENOENT"));
    let missing = Command::new("true").current_dir("/nonexistent").spawn().unwrap_err();
    assert_eq!(missing.step(), Some(Step::CurrentDir));
    Ok(())
}

fn wait_for_exit() -> Outcome {
    let child = sh("read line; exit 7").spawn()?;
    assert_eq!(child.try_wait()?, None);
    assert_eq!(child.wait_timeout(Duration::from_secs(10))?, Some(ExitStatus::Code(7)));
    assert_eq!(child.wait()?, ExitStatus::Code(7));
    let killed = sh("kill -9 $$").spawn()?;
    assert_eq!(killed.wait()?, ExitStatus::Signal(Signal::KILL));
    Ok(())
}

fn kill() -> Outcome {
    for signal in [Signal::TERM, Signal::KILL] {
        let child = Command::new("sleep").arg("60").spawn()?;
        assert_eq!(child.kill(signal)?, Signalled::Delivered);
        assert_eq!(child.wait()?, ExitStatus::Signal(signal));
        assert_eq!(child.kill(signal)?, Signalled::AlreadyExited);
    }
    Ok(())
}

fn kill_tree() -> Outcome {
    let mut shell = sh("sleep 60 & echo ready; wait");
    let mut child = shell.process_group(0).spawn()?;
    let mut stdout = child.take_stdout().expect("a pipe");
    stdout.read_exact(&mut [0; 6])?;
    let sent = child.kill_tree(Signal::KILL);
    // The group gets the signal as well: nothing is left in any case.
    assert_eq!(child.wait()?, ExitStatus::Signal(Signal::KILL));
    stdout.read_to_end(&mut Vec::new())?;
    if let Err(child_process::Error::Tree(failure)) = &sent {
        assert_eq!(failure.child, Signalled::Delivered);
    }
    assert_eq!(sent?, Signalled::Delivered);
    Ok(())
}

const TIMEOUT: Duration = Duration::from_millis(100);

fn collect() -> Outcome {
    let output = sh("cat; echo err >&2; exit 3").input("in").output()?;
    assert_eq!((output.status, output.stdout), (ExitStatus::Code(3), b"in".to_vec()));
    timed_out(sh("exec sleep 60").timeout(TIMEOUT).output())?;
    timed_out(sh("kill -STOP $$").timeout(TIMEOUT).output())
}

fn execute() -> Outcome {
    assert_eq!(child_process::exec("echo out")?.wait()?.stdout, b"out\n");
    timed_out(sh("exec sleep 60").timeout(TIMEOUT).exec()?.wait())?;
    let child = sh("exec sleep 60").timeout(TIMEOUT).spawn()?;
    let events: Vec<Event> = child.take_events().expect("taken once").iter().collect();
    let last = events.last().expect("an event");
    assert!(matches!(last, Event::Close(ExitStatus::Signal(Signal::TERM))), "{events:?}");
    Ok(())
}

/// Checks for a failure by the timeout; every other failure is the outcome.
fn timed_out(result: Result<child_process::Output, child_process::ExecError>) -> Outcome {
    let failed = result.expect_err("it takes too long");
    if failed.code() != "ETIMEDOUT" {
        return Err(failed.into());
    }
    assert_eq!(failed.status, Some(ExitStatus::Signal(Signal::TERM)));
    Ok(())
}

fn channel() -> Outcome {
    let child = Fork::new(Module::current_exe("sandboxed_echo")).spawn()?;
    let events = child.take_events().expect("taken once");
    child.send("hello")?;
    let mut answer = None;
    for event in &events {
        match event {
            Event::Message(message) => {
                answer = Some(message.decode::<String>()?);
                child.disconnect()?;
            }
            Event::Error(error) => return Err(error.into()),
            _ => {}
        }
    }
    // A child in the same sandbox may be the one that fails.
    let Some(answer) = answer else {
        return Err(format!("the child says: {}", child.wait()?).into());
    };
    assert_eq!((answer.as_str(), child.wait()?), ("hello", ExitStatus::Code(0)));
    Ok(())
}

/// `sandboxed_echo`: sends the first message back.
#[apply(module)]
fn sandboxed_echo() {
    let parent = parent().expect("a channel");
    let events = parent.take_events().expect("taken once");
    for event in &events {
        if let Event::Message(message) = event {
            parent.send(&message.decode::<String>().expect("text")).expect("open");
        }
    }
}

fn cluster() -> Outcome {
    let worker = WorkerOptions::new().args(["role", "sandboxed_worker"]);
    let primary = Primary::builder().workers(2).worker(worker).build()?;
    let events = primary.take_events().expect("taken once");
    primary.start();
    let ready = primary.ready();
    if ready.is_ok() {
        let address = events.iter().find_map(|event| match event {
            cluster::Event::Listening { address: Address::Tcp { address, .. }, .. } => {
                Some(address)
            }
            _ => None,
        });
        let address = address.expect("a worker listens");
        for _ in 0..4 {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(Duration::from_secs(10)))?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            assert_eq!(text, "served");
        }
    }
    primary.shutdown();
    let ended = primary.wait();
    ready?;
    Ok(ended?)
}

/// `sandboxed_worker`: answers each connection with a word.
#[apply(role)]
fn sandboxed_worker(_args: &[String]) {
    let _worker = Worker::current().expect("started by a primary");
    let listener = cluster::listen("127.0.0.1:0").or_leave();
    while let Ok((mut accepted, _)) = listener.accept() {
        std::io::Write::write_all(&mut accepted, b"served").expect("a client");
    }
}
