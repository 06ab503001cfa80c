//! Workers that are restricted: what a captured worker tries, and what it gets.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::time::Duration;

use child_process::{Command, ExitStatus, Signal};
use cluster::{Error, Event, Primary, Sandbox, Worker, WorkerOptions};
use ipc::Handle;
use nix::errno::Errno;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::ptrace;
use nix::sys::signal::kill;
use nix::sys::uio::{RemoteIoVec, process_vm_readv};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};

use crate::harness::{apply, case, role};
use crate::support::pool::Pool;
use crate::support::shell::TestFolder;
use crate::support::{eventually, http};

const NOBODY: u32 = 65_534;

/// A thing that was tried, and the number of the error.
type Outcome = (String, Option<i32>);

/// A message of a worker that was sent its targets.
#[derive(Debug, Serialize, Deserialize)]
enum Said {
    Outcomes(Vec<Outcome>),
    Descriptor(Handle<OwnedFd>),
}

/// The number of descriptors that a captured worker sends its primary.
const DESCRIPTORS: usize = 10_000;

fn can(what: &str, landlock: u32) -> bool {
    let is_root = sys::host::user::effective_ids().0 == 0;
    let version = Sandbox::landlock_version();
    if !is_root || version < landlock {
        eprintln!("SKIPPED: {what}: root is {is_root}, and Landlock has version {version}");
    }
    is_root && version >= landlock
}

fn nobody() -> WorkerOptions {
    WorkerOptions::new().uid(NOBODY).gid(NOBODY)
}

/// The things that a captured worker goes for.
#[derive(Clone, Debug, Serialize, Deserialize)]
struct Targets {
    secret: PathBuf,
    sibling: u32,
    /// The place of [`SECRET`] in the sibling.
    address: usize,
    service: PathBuf,
    database: SocketAddr,
    folder: PathBuf,
}

static SECRET: [u8; 8] = *b"password";

/// Says who it is, and serves; tries everything when it is sent its targets.
#[apply(role)]
fn captive(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let messages = worker.take_messages().expect("taken once");
    let listener = cluster::listen("127.0.0.1:0").expect("listen");
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let Ok((mut stream, _)) = connection else { break };
            let _ = http::answer(&mut stream, "served", Duration::ZERO);
        }
    });
    worker.send(&(std::process::id(), SECRET.as_ptr() as usize)).expect("send");
    while let Ok(message) = messages.recv() {
        let targets: Targets = message.decode().expect("targets");
        let outcomes = Said::Outcomes(attempts(&worker, &targets));
        // The channel is full of descriptors until the primary has read them.
        eventually("the channel has room", || worker.send(&outcomes).ok());
    }
    worker.draining().wait();
}

/// Returns what was tried, and how that went.
fn attempts(worker: &Worker, targets: &Targets) -> Vec<Outcome> {
    let io = |answer: std::io::Result<()>| answer.map_err(|it| it.raw_os_error().unwrap_or(0));
    let nix = |answer: nix::Result<()>| answer.map_err(|errno| errno as i32);
    let sibling = Pid::from_raw(targets.sibling as i32);
    let none = None::<&str>;
    let attempts = [
        ("open a file of root", io(fs::File::open(&targets.secret).map(drop))),
        ("bind port 22", io(TcpListener::bind("127.0.0.1:22").map(drop))),
        ("trace a sibling", nix(trace(sibling))),
        ("signal the primary", nix(kill(nix::unistd::getppid(), None))),
        ("mount", nix(mount(Some("none"), &targets.folder, Some("tmpfs"), MsFlags::empty(), none))),
        ("unshare", nix(unshare(CloneFlags::CLONE_NEWUTS))),
        ("read the memory of a sibling", nix(read_memory(sibling, targets.address))),
        ("connect to a database", io(TcpStream::connect(targets.database).map(drop))),
        ("replace the socket of a service", io(replace(&targets.service))),
    ];
    let _ = umount(&targets.folder);
    send_descriptors(worker);
    attempts.map(|(what, answer)| (what.to_owned(), answer.err())).to_vec()
}

fn trace(process: Pid) -> nix::Result<()> {
    ptrace::seize(process, ptrace::Options::empty())?;
    ptrace::interrupt(process)?;
    nix::sys::wait::waitpid(process, None)?;
    ptrace::detach(process, None)
}

fn read_memory(process: Pid, address: usize) -> nix::Result<()> {
    let mut copy = [0; SECRET.len()];
    let from = RemoteIoVec { base: address, len: copy.len() };
    let mut to = [std::io::IoSliceMut::new(&mut copy)];
    process_vm_readv(process, &mut to, &[from])?;
    assert_eq!(copy, SECRET);
    Ok(())
}

fn replace(path: &Path) -> std::io::Result<()> {
    fs::remove_file(path)?;
    UnixListener::bind(path).map(drop)
}

/// Sends as many descriptors as the primary's credit allows, at most [`DESCRIPTORS`].
fn send_descriptors(worker: &Worker) {
    for _ in 0..DESCRIPTORS {
        let file = fs::File::open("/dev/null").expect("allowed");
        if worker.send(&Said::Descriptor(OwnedFd::from(file).into())).is_err() {
            return;
        }
    }
}

/// The world around a primary: files, a service and a database.
struct World {
    folder: TestFolder,
    database: TcpListener,
    _service: UnixListener,
}

impl World {
    fn new(name: &str) -> Self {
        let folder = TestFolder::new(name);
        fs::set_permissions(&folder.0, fs::Permissions::from_mode(0o777)).unwrap();
        folder.file("secret", "of root", 0o600);
        fs::create_dir(folder.0.join("mnt")).unwrap();
        chown(&folder.0, Some(NOBODY), Some(NOBODY)).unwrap();
        let service = UnixListener::bind(folder.0.join("service")).unwrap();
        let database = TcpListener::bind("127.0.0.1:0").unwrap();
        Self { folder, database, _service: service }
    }

    /// Has the first worker of a primary try everything. Returns the outcomes, and the number of
    /// descriptors that the primary was sent.
    fn tried(&self, pool: &Pool) -> (Vec<Outcome>, usize) {
        pool.said_by::<(u32, usize)>(1);
        let (sibling, address) = pool.said_by::<(u32, usize)>(2);
        let path = |name: &str| self.folder.0.join(name);
        let targets = Targets {
            secret: path("secret"),
            sibling,
            address,
            service: path("service"),
            database: self.database.local_addr().unwrap(),
            folder: path("mnt"),
        };
        pool.worker(1).send(&targets).unwrap();
        let mut received = 0;
        loop {
            let event = pool.next("message", |event| matches!(event, Event::Message { .. }));
            let Event::Message { message, .. } = event else { unreachable!("not asked for") };
            match message.decode::<Said>() {
                Ok(Said::Outcomes(outcomes)) => return (outcomes, received),
                Ok(Said::Descriptor(_)) => received += 1,
                // It came without the descriptor.
                Err(_) => {}
            }
        }
    }
}

/// Checks that the workers answer requests.
fn serves(address: SocketAddr) {
    for _ in 0..10 {
        assert_eq!(http::ask(address).unwrap().answer(), "served");
    }
}

/// The ten things that a captured worker would try fail.
#[apply(case)]
fn a_captured_worker_is_refused_what_it_tries() {
    if !can("hardened workers", 6) {
        return;
    }
    let world = World::new("captured");
    let builder = Primary::builder().workers(2).worker(nobody()).harden();
    let pool = Pool::of(builder, &["captive"]);
    let address = pool.ready_tcp();
    serves(address);
    let (outcomes, descriptors) = world.tried(&pool);
    for (what, errno) in &outcomes {
        println!(
            "{what}: {}",
            errno.map_or("done".to_owned(), |it| Errno::from_raw(it).to_string())
        );
    }
    println!("send {DESCRIPTORS} descriptors: the primary took {descriptors}");
    let expected = [
        ("open a file of root", Errno::EACCES),
        ("bind port 22", Errno::EACCES),
        ("trace a sibling", Errno::EPERM),
        ("signal the primary", Errno::EPERM),
        ("mount", Errno::EPERM),
        ("unshare", Errno::EPERM),
        ("read the memory of a sibling", Errno::EPERM),
        ("connect to a database", Errno::EACCES),
        ("replace the socket of a service", Errno::EACCES),
    ];
    let expected = expected.map(|(what, errno)| (what.to_owned(), Some(errno as i32)));
    assert_eq!(outcomes, expected);
    assert_eq!(descriptors, 0, "taken by the primary");
    serves(address);
    pool.end();
}

/// The counter-proof: without a sandbox, a worker of root does all of it.
#[apply(case)]
fn a_worker_of_root_without_a_sandbox_does_all_that() {
    if !can("workers of root", 0) {
        return;
    }
    let world = World::new("free");
    let takes_handles = WorkerOptions::new().received_handles_max(ipc::Options::HANDLES_MAX);
    let pool = Pool::of(Primary::builder().workers(2).worker(takes_handles), &["captive"]);
    serves(pool.ready_tcp());
    let (outcomes, descriptors) = world.tried(&pool);
    assert!(descriptors > 0, "the primary takes what it allows");
    let failed: Vec<_> = outcomes.iter().filter(|(_, errno)| errno.is_some()).collect();
    assert!(failed.is_empty(), "{failed:?}");
    assert_eq!(outcomes.len(), 9);
    pool.end();
}

/// `sandbox_report`: sends the lines of its status, the owner of its files in `/proc`, and the step
/// and error of a child.
#[apply(role)]
fn sandbox_report(_args: &[String]) {
    let worker = Worker::current().expect("started by a primary");
    let status = fs::read_to_string("/proc/self/status").expect("readable");
    let owner = fs::metadata("/proc/self/stat").expect("there").uid();
    let child = match Command::new("true").spawn() {
        Ok(child) => child.wait().expect("ended").to_string(),
        Err(error) => format!("{:?} {}", error.step(), error.code()),
    };
    worker.send(&(status, owner, child)).expect("send");
    worker.draining().wait();
}

/// Starts a worker with these options; returns what it reports.
fn report(options: WorkerOptions) -> (String, u32, String) {
    let pool =
        Pool::of(Primary::builder().workers(1).listens(false).worker(options), &["sandbox_report"]);
    let report = pool.said_by(1);
    pool.end();
    report
}

#[apply(case)]
fn workers_of_another_user_gain_no_privileges_unless_asked_for() {
    if !can("workers of another user", 0) {
        return;
    }
    let gains = |options| report(options).0.contains("NoNewPrivs:\t0");
    assert!(!gains(nobody()));
    assert!(gains(nobody().sandbox(Sandbox::new().no_new_privileges(false))));
    assert!(gains(WorkerOptions::new()));
}

#[apply(case)]
fn a_worker_sets_the_restrictions_that_only_it_can_set() {
    if !can("workers of another user", 0) {
        return;
    }
    let (_, owner, child) = report(nobody());
    assert_eq!((owner, child.as_str()), (NOBODY, "code 0"));
    let (_, owner, _) = report(nobody().sandbox(Sandbox::new().dumpable(false)));
    assert_eq!(owner, 0, "the files of a process that is not dumpable belong to root");
    let (_, _, child) = report(nobody().sandbox(Sandbox::new().forbid_execve()));
    assert_eq!(child, "Some(Program) EPERM");
    for options in [
        WorkerOptions::new().exec("app.js").sandbox(Sandbox::new().dumpable(false)),
        WorkerOptions::new().exec("program").sandbox(Sandbox::new().forbid_execve()),
        WorkerOptions::new().exec_path("program").sandbox(Sandbox::new().forbid_execve()),
    ] {
        let error = Primary::builder().worker(options.clone()).build().expect_err("refused");
        assert!(matches!(error, Error::InvalidOption { option: "sandbox", .. }), "{error:?}");
        let primary = Primary::builder().build().expect("build");
        let error = primary.setup_primary(options).expect_err("refused");
        assert!(matches!(error, Error::InvalidOption { option: "sandbox", .. }), "{error:?}");
    }
    let app = nobody().exec("app.js");
    assert!(Primary::builder().worker(app).harden().build().is_ok(), "left out for Node");
}

#[apply(case)]
fn hardened_workers_do_not_run_as_root() {
    if !can("hardened workers", 0) {
        return;
    }
    let refused = |options: WorkerOptions| {
        let error = Primary::builder().worker(options).harden().build().expect_err("refused");
        error.to_string()
    };
    let why = "sandbox: hardened workers must not run as root: set uid and gid, neither of them 0";
    assert_eq!(refused(WorkerOptions::new()), why);
    assert_eq!(refused(WorkerOptions::new().uid(NOBODY)), why);
    assert_eq!(refused(WorkerOptions::new().gid(NOBODY)), why);
}

/// A worker that cannot be restricted is not started, and the error names the step.
#[apply(case)]
fn a_worker_without_its_restrictions_is_not_started() {
    let nowhere = Sandbox::new().cgroup("/nonexistent");
    let options = WorkerOptions::new().sandbox(nowhere);
    let pool = Pool::of(Primary::builder().workers(1).worker(options), &["sandbox_report"]);
    let error = pool.primary.ready().expect_err("no worker");
    let text = format!("{error:?}");
    assert!(text.contains("control group: No such file or directory"), "{text}");
}

/// The signals of the primary reach a hardened worker, and its place is filled again.
#[apply(case)]
fn a_hardened_worker_is_killed_and_replaced() {
    if !can("hardened workers", 6) {
        return;
    }
    let builder = Primary::builder().workers(1).listens(false).worker(nobody()).harden();
    let pool = Pool::of(builder, &["sandbox_report"]);
    let (status, owner, child) = pool.said_by::<(String, u32, String)>(1);
    assert_eq!((owner, child.as_str()), (0, "Some(Program) EACCES"));
    for line in ["CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1"] {
        assert!(status.contains(line), "{line}: {status}");
    }
    for signal in [Signal::TERM, Signal::KILL] {
        let worker = pool.primary.workers().pop().expect("one lives");
        worker.kill(signal).expect("allowed");
        let id = worker.id().get();
        assert_eq!(pool.exit(id), ExitStatus::Signal(signal));
        pool.said_by::<(String, u32, String)>(id + 1);
    }
    pool.end();
}
