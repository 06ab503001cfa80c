//! Programs with more privileges than the user who starts them, and libraries that are loaded into a
//! running program: neither believes nor takes the variables of a worker.

use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use child_process::{Command, Output};
use cluster::{Primary, WorkerOptions};

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::TestFolder;

const NOBODY: u32 = 65_534;

/// `says_its_role`: prints whether it is a worker, and how a primary of it is built.
#[apply(role)]
fn says_its_role(_: &[String]) {
    println!("worker {} sockets {}", cluster::is_worker(), sys::startup::listen_sockets().len());
    let shown = |built: Result<Primary, cluster::Error>| match built {
        Ok(_) => "built".to_owned(),
        Err(error) => format!("{error:?}"),
    };
    println!("own program: {}", shown(Primary::builder().build()));
    let other = WorkerOptions::new().exec("/bin/true");
    println!("another program: {}", shown(Primary::builder().worker(other).build()));
}

/// Makes a copy of this program, in a folder that every user may enter.
fn copy(folder: &TestFolder) -> PathBuf {
    let program = folder.0.join("program");
    std::fs::copy(current_exe(), &program).unwrap();
    for path in [&folder.0, &program] {
        std::fs::set_permissions(path, PermissionsExt::from_mode(0o755)).unwrap();
    }
    program
}

/// Gives the file the effective capability to bind low ports; `false` where that is not possible.
fn set_capability(program: &Path) -> bool {
    let mut setcap = Command::new("setcap");
    let output = setcap.arg("cap_net_bind_service=ep").arg(program).output();
    let is_set = output.is_ok_and(|output| output.status.success());
    if !is_set {
        println!("SKIPPED: setcap cannot give a file capabilities here");
    }
    is_set
}

/// Runs the program as another user, with these variables, and a socket as descriptor 3.
fn run_as_nobody(program: &Path, variables: &[(&str, &str)]) -> Output {
    let (_ours, theirs) = UnixStream::pair().unwrap();
    let mut command = Command::new(program);
    command.args(["role", "says_its_role"]).uid(NOBODY).gid(NOBODY).current_dir("/");
    command.descriptor(3, OwnedFd::from(theirs));
    for (name, value) in variables {
        command.env(name, value);
    }
    command.output().unwrap_or_else(|failed| panic!("{failed:?}"))
}

const WORKER: &[(&str, &str)] = &[
    ("NODE_UNIQUE_ID", "7"),
    ("NODE_CHANNEL_FD", "3"),
    ("NODE_CHANNEL_SERIALIZATION_MODE", "json"),
];

#[apply(case)]
fn a_program_with_file_capabilities_is_no_worker_of_whoever_starts_it() {
    if !nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: needs root");
    }
    let folder = TestFolder::new("secure");
    let program = copy(&folder);
    // The counter-proof: without capabilities the same program is a worker, and a primary.
    let plain = run_as_nobody(&program, &[]);
    let lines = "worker false sockets 0\nown program: built\nanother program: built\n";
    assert_eq!(plain.stdout_text(), lines, "{}", plain.stderr_text());
    if !set_capability(&program) {
        return;
    }
    let refused = Command::new(&program)
        .args(["role", "says_its_role"])
        .uid(NOBODY)
        .gid(NOBODY)
        .current_dir("/")
        .envs(WORKER.iter().copied())
        .output()
        .unwrap();
    println!("{}", refused.stderr_text());
    assert_eq!((refused.status.code(), refused.stdout_text().as_ref()), (Some(1), ""));
    assert!(refused.stderr_text().contains("NODE_CHANNEL_FD"), "{}", refused.stderr_text());
    let refused = run_as_nobody(&program, WORKER);
    assert_eq!((refused.status.code(), refused.stdout_text().as_ref()), (Some(1), ""));
    // A primary that would start itself is not built; with another program it is.
    let primary = run_as_nobody(&program, &[]);
    let said = primary.stdout_text().into_owned();
    println!("{said}");
    assert!(said.starts_with("worker false sockets 0\n"), "{said}{}", primary.stderr_text());
    assert!(said.contains("own program:") && said.contains("AmbientCapabilities="), "{said}");
    assert!(said.ends_with("another program: built\n"), "{said}");
}

/// A service manager's sockets are not believed either: the user could have named the variables.
#[apply(case)]
fn a_program_with_file_capabilities_takes_no_sockets_from_its_environment() {
    if !nix::unistd::geteuid().is_root() {
        return println!("SKIPPED: needs root");
    }
    let folder = TestFolder::new("activated");
    let program = copy(&folder);
    let run = || {
        // The shell's number is that of the program.
        let line = "export LISTEN_PID=$$ LISTEN_FDS=1; exec \"$0\" role says_its_role";
        let (_ours, theirs) = UnixStream::pair().unwrap();
        let mut shell = crate::support::shell::sh(line);
        shell.arg(&program).uid(NOBODY).gid(NOBODY).current_dir("/");
        shell.descriptor(3, OwnedFd::from(theirs));
        let output = shell.output().unwrap();
        output.stdout_text().lines().next().unwrap_or_default().to_owned()
    };
    assert_eq!(run(), "worker false sockets 1");
    if !set_capability(&program) {
        return;
    }
    assert_eq!(run(), "worker false sockets 0");
}

/// The library that is loaded: `asked` says whether this library thinks that it is a worker.
const LIBRARY: &str = r#"
#[unsafe(no_mangle)]
pub extern "C" fn asked() -> i32 {
    i32::from(brood_sys::startup::variable("NODE_UNIQUE_ID").is_some())
}
"#;

/// Compiles the library against the newest build of `sys` that works; `None` where the compiler or
/// this way of linking is missing.
fn compile_library(folder: &TestFolder) -> Option<PathBuf> {
    let deps = current_exe().parent().expect("a folder").to_owned();
    let is_ours = |name: &str| name.starts_with("libbrood_sys-") && name.ends_with(".rlib");
    let mut builds: Vec<_> = std::fs::read_dir(&deps)
        .unwrap()
        .flatten()
        .filter(|entry| entry.file_name().to_str().is_some_and(is_ours))
        .map(|entry| (entry.metadata().and_then(|it| it.modified()).unwrap(), entry.path()))
        .collect();
    builds.sort();
    let source = folder.file("loaded.rs", LIBRARY, 0o644);
    let library = folder.0.join("libloaded.so");
    for (_, build) in builds.iter().rev() {
        let mut rustc = Command::new("rustc");
        rustc.args(["--edition=2024", "--crate-type=cdylib", "-Cpanic=unwind", "-o"]).arg(&library);
        rustc.arg(&source).arg("--extern").arg(format!("brood_sys={}", build.display()));
        rustc.arg("-L").arg(format!("dependency={}", deps.display()));
        match rustc.output() {
            Ok(output) if output.status.success() => return Some(library),
            Ok(output) => println!("{}", output.stderr_text()),
            Err(error) => println!("no rustc: {error:?}"),
        }
    }
    None
}

/// A program with two threads, whose environment names a channel, loads the library.
const LOADER: &str = "
import ctypes, fcntl, os, socket, sys, threading
ours, theirs = socket.socketpair()
os.dup2(theirs.fileno(), 9, True)
os.environ.update(NODE_UNIQUE_ID='7', NODE_CHANNEL_FD='9')
libc = ctypes.CDLL(None)
libc.getenv.restype = ctypes.c_char_p
end = threading.Event()
thread = threading.Thread(target=end.wait)
thread.start()
library = ctypes.CDLL(sys.argv[1])
print(library.asked(), libc.getenv(b'NODE_UNIQUE_ID'), fcntl.fcntl(9, fcntl.F_GETFD))
end.set()
thread.join()
";

#[apply(case)]
fn a_library_that_is_loaded_takes_nothing_from_the_running_program() {
    if cfg!(target_feature = "crt-static") {
        return println!("SKIPPED: a static program loads no library");
    }
    let folder = TestFolder::new("loaded");
    let Some(library) = compile_library(&folder) else {
        return println!("SKIPPED: the library cannot be compiled here");
    };
    let Ok(output) = Command::new("python3").arg("-c").arg(LOADER).arg(&library).output() else {
        return println!("SKIPPED: there is no python3 to load the library");
    };
    // The library reads the variable, which stays, and the descriptor is not marked.
    assert_eq!(output.stdout_text(), "1 b'7' 0\n", "{}", output.stderr_text());
}
