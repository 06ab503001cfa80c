//! Starts that would not end by themselves.

use std::sync::mpsc;
use std::time::Instant;

use super::super::super::remnants;
use super::*;
use crate::dumpable;

/// The limit of the starts that do not end.
const SOON: Duration = Duration::from_millis(300);

/// Returns the only child of this process, once it is there.
fn only_child() -> u32 {
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
        let all = lists.map(Result::unwrap_or_default).collect::<String>();
        if let Some(pid) = all.split_whitespace().next() {
            return pid.parse().unwrap();
        }
        thread::yield_now();
    }
}

/// Returns a child that looks for its program long enough to be met there.
fn slow(within: Duration) -> Plan<'static> {
    const MISSING: usize = 200_000;
    let mut plan = Plan::new(vec![c("/nonexistent/x"); MISSING], vec![c("true")]);
    plan.candidates.push(c("/bin/true"));
    plan.start_within = within;
    plan
}

#[test]
fn a_child_that_is_stopped_before_it_executes_is_killed_in_time() {
    in_a_process_of_its_own("ends::stopped");
}

#[test]
#[ignore = "runs in a process of its own"]
fn stopped() {
    let before = crate::fd::open_descriptors().unwrap();
    let users = if is_root() { &[None, Some(65_534)][..] } else { &[None][..] };
    for &uid in users {
        let mut plan = slow(SOON * 10);
        plan.attributes.to_mut().uid = uid;
        let (answer, answered) = mpsc::channel();
        let spawner = thread::spawn(move || answer.send(failure(&plan)).unwrap());
        let child = only_child();
        crate::signal::kill(child, Signal::STOP).unwrap();
        // Another start does not wait for this one, whatever it changes.
        let mut other = sh("exit 7");
        other.attributes.to_mut().uid = uid;
        let status = spawn(&other).unwrap().pidfd.wait().unwrap();
        assert_eq!(status, ExitStatus::Code(7));
        assert!(answered.try_recv().is_err(), "the first start still waits");
        let result = answered.recv_timeout(Duration::from_secs(20)).expect("a start has an end");
        assert_eq!(result.1, "ETIMEDOUT", "at {}", result.0);
        spawner.join().unwrap();
        let all = nix::sys::wait::waitpid(None, None);
        assert_eq!(all, Err(nix::errno::Errno::ECHILD), "the child is reaped");
        assert_eq!(remnants::count(), 0);
        assert_eq!(dumpable::get(), 1);
    }
    assert_eq!(crate::fd::open_descriptors().unwrap(), before);
}

#[test]
fn a_child_that_is_killed_before_it_executes_is_noticed_at_once() {
    in_a_process_of_its_own("ends::killed");
}

#[test]
#[ignore = "runs in a process of its own"]
fn killed() {
    let begin = Instant::now();
    let spawner = thread::spawn(|| spawn(&slow(Duration::from_secs(30))).unwrap());
    crate::signal::kill(only_child(), Signal::KILL).unwrap();
    let child = spawner.join().unwrap();
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    assert_eq!(child.pidfd.wait().unwrap(), ExitStatus::Signal(Signal::KILL));
}

#[test]
fn a_start_without_a_limit_ends_when_the_child_goes_on() {
    in_a_process_of_its_own("ends::continued");
}

#[test]
#[ignore = "runs in a process of its own"]
fn continued() {
    let spawner = thread::spawn(|| spawn(&slow(Duration::MAX)).unwrap());
    let child = only_child();
    crate::signal::kill(child, Signal::STOP).unwrap();
    assert!(spawn(&sh("true")).unwrap().pidfd.wait().unwrap().success());
    crate::signal::kill(child, Signal::CONT).unwrap();
    assert!(spawner.join().unwrap().pidfd.wait().unwrap().success());
}

/// A file system whose server never answers, mounted in a namespace of this process alone.
struct Dead {
    path: PathBuf,
    _server: File,
}

impl Dead {
    fn mount(name: &str) -> Option<Self> {
        use nix::mount::{MsFlags, mount};
        let none = None::<&str>;
        if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).is_err() {
            eprintln!("skipped: no mount namespace here");
            return None;
        }
        mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).ok()?;
        let server = File::options().read(true).write(true).open("/dev/fuse");
        let Ok(server) = server else {
            eprintln!("skipped: no /dev/fuse here");
            return None;
        };
        let path = temp_dir(name);
        let number = server.as_raw_fd();
        let data = format!("fd={number},rootmode=40000,user_id=0,group_id=0,allow_other");
        let (kind, flags) = (Some("fuse"), MsFlags::empty());
        match mount(Some("dead"), &path, kind, flags, Some(data.as_str())) {
            Ok(()) => Some(Self { path, _server: server }),
            Err(error) => {
                eprintln!("skipped: no file system of our own here: {error}");
                None
            }
        }
    }
}

impl Drop for Dead {
    fn drop(&mut self) {
        let _ = nix::mount::umount2(&self.path, nix::mount::MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(&self.path);
    }
}

#[test]
fn a_file_system_that_does_not_answer_ends_the_start_at_the_step_that_needs_it() {
    if is_root() {
        in_a_process_of_its_own("ends::dead_file_system");
    }
}

#[test]
#[ignore = "runs in a process of its own"]
fn dead_file_system() {
    let Some(dead) = Dead::mount("dead") else { return };
    let mut directory = sh("true");
    directory.start_within = SOON;
    directory.current_dir = Some(c_path(&dead.path.join("x")));
    assert_eq!(failure(&directory), (Step::CurrentDir, "ETIMEDOUT"));
    let mut program = Plan::new(vec![c_path(&dead.path.join("program"))], vec![c("x")]);
    program.start_within = SOON;
    assert_eq!(failure(&program), (Step::Program, "ETIMEDOUT"));
    program.attributes.to_mut().uid = Some(65_534);
    assert_eq!(failure(&program), (Step::Program, "ETIMEDOUT"));
    assert_eq!((dumpable::get(), remnants::count()), (1, 0));
}

#[test]
fn a_child_in_a_frozen_control_group_is_left_behind_and_reaped_later() {
    if is_root() {
        in_a_process_of_its_own("ends::frozen");
    }
}

/// A control group that is thawed at the end, so that its processes end.
struct Freezer(PathBuf);

impl Freezer {
    fn set(&self, state: &str) {
        fs::write(self.0.join("freezer.state"), state).unwrap();
    }
}

impl Drop for Freezer {
    fn drop(&mut self) {
        self.set("THAWED");
        while fs::remove_dir(&self.0).is_err() {
            thread::yield_now();
        }
    }
}

/// A frozen process of version 1 does not end by `SIGKILL` before it is thawed.
#[test]
#[ignore = "runs in a process of its own"]
fn frozen() {
    let group = PathBuf::from(format!("/sys/fs/cgroup/freezer/brood-{}", std::process::id()));
    if let Err(error) = fs::create_dir(&group) {
        return eprintln!("skipped: no freezer here: {error}");
    }
    let procs = File::options().write(true).open(group.join("cgroup.procs")).unwrap();
    let freezer = Freezer(group);
    freezer.set("FROZEN");
    let mut plan = sh("true");
    plan.cgroup = Some(procs.as_fd());
    plan.start_within = SOON;
    plan.attributes.to_mut().uid = Some(65_534);
    let begin = Instant::now();
    assert_eq!(failure(&plan), (Step::Cgroup, "ETIMEDOUT"));
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
    assert_eq!(remnants::count(), 1, "the child still borrows the memory");
    // Other starts go on. After a change of user the memory is not dumpable, because the child that
    // was left behind may become its user when it is thawed.
    assert!(spawn(&sh("true")).unwrap().pidfd.wait().unwrap().success());
    let mut other = sh("true");
    other.attributes.to_mut().uid = Some(65_533);
    assert!(spawn(&other).unwrap().pidfd.wait().unwrap().success());
    assert_eq!((remnants::count(), dumpable::get()), (1, 0));
    freezer.set("THAWED");
    let until = Instant::now() + Duration::from_secs(10);
    while remnants::count() > 0 {
        assert!(Instant::now() < until, "the thawed child ends and is reaped");
        assert!(spawn(&sh("true")).unwrap().pidfd.wait().unwrap().success());
    }
    assert_eq!(dumpable::get(), 1);
}

#[test]
fn a_child_that_may_not_be_killed_executes_nothing_after_the_deadline() {
    if is_root() {
        in_a_process_of_its_own("ends::not_killable");
    }
}

/// A process that may change its user but not signal others, as one with `CAP_SETUID` alone.
#[test]
#[ignore = "runs in a process of its own"]
fn not_killable() {
    const CAP_KILL: u32 = 5;
    let mut plan = slow(SOON);
    // The child would make this folder.
    let trace = temp_dir("not-killable").join("executed");
    *plan.candidates.last_mut().unwrap() = c("/bin/mkdir");
    plan.arguments = vec![c("mkdir"), c_path(&trace)];
    fs::set_permissions(trace.parent().unwrap(), fs::Permissions::from_mode(0o777)).unwrap();
    plan.attributes.to_mut().uid = Some(65_534);
    // The user that the child becomes stops and continues it.
    let mut stopper = sh("read -r pid; kill -STOP $pid; read -r _; kill -CONT $pid; read -r _");
    let (input, writer) = pipe();
    let input = OwnedFd::from(input);
    stopper.descriptors = vec![Descriptor { number: 0, source: Source::Fd(input.as_fd()) }];
    stopper.attributes.to_mut().uid = Some(65_534);
    let stopper_process = spawn(&stopper).unwrap();
    let mut writer = File::from(writer);
    let spawner = thread::spawn(move || {
        without_capability(CAP_KILL);
        failure(&plan)
    });
    let child = loop {
        let child = only_child_but(stopper_process.pid);
        let status = fs::read_to_string(format!("/proc/{child}/status")).unwrap_or_default();
        if status.contains("Uid:\t65534\t") {
            break child;
        }
    };
    writeln!(writer, "{child}").unwrap();
    assert_eq!(spawner.join().unwrap().1, "ETIMEDOUT");
    assert_eq!((remnants::count(), dumpable::get()), (1, 0));
    writeln!(writer).unwrap();
    let until = Instant::now() + Duration::from_secs(10);
    while remnants::count() > 0 {
        assert!(Instant::now() < until, "the child ends at its next step");
        assert!(spawn(&sh("true")).unwrap().pidfd.wait().unwrap().success());
    }
    drop(writer);
    assert!(stopper_process.pidfd.wait().is_ok());
    assert!(!trace.exists(), "nothing was executed");
    assert_eq!(dumpable::get(), 1);
    fs::remove_dir(trace.parent().unwrap()).unwrap();
}

/// Returns the child of this process that is not `known`, once it is there.
fn only_child_but(known: u32) -> u32 {
    loop {
        let tasks = fs::read_dir("/proc/self/task").unwrap().flatten();
        let lists = tasks.map(|task| fs::read_to_string(task.path().join("children")));
        let all = lists.map(Result::unwrap_or_default).collect::<Vec<_>>().join(" ");
        let mut pids = all.split_whitespace().map(|pid| pid.parse::<u32>().unwrap());
        if let Some(pid) = pids.find(|pid| *pid != known) {
            return pid;
        }
        thread::yield_now();
    }
}

/// Drops a capability of this thread.
fn without_capability(number: u32) {
    // The third version, of the calling thread; then effective, permitted and inheritable sets.
    let header = [0x2008_0522u32, 0];
    let mut sets = [0u32; 6];
    // SAFETY: a header and room for its two groups of sets.
    let got = unsafe { libc::syscall(libc::SYS_capget, header.as_ptr(), sets.as_mut_ptr()) };
    assert_eq!(got, 0);
    for set in &mut sets[..2] {
        *set &= !(1 << number);
    }
    // SAFETY: as above, and nothing is written.
    let set = unsafe { libc::syscall(libc::SYS_capset, header.as_ptr(), sets.as_ptr()) };
    assert_eq!(set, 0);
}
