//! The Landlock ruleset of a child: created by this process, enforced by the child.

use std::error::Error as _;
use std::ffi::{CStr, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread;

use landlock::{
    ABI, Access, AccessFs, AccessNet, BitFlags, CompatLevel, Compatible, NetPort, PathBeneath,
    PathFd, Ruleset, RulesetAttr, RulesetCreated, RulesetCreatedAttr, RulesetError, Scope,
};

use super::needs::{HEAD_BYTES, Interpreter, interpreter_of};
use super::{PathAccess, PathRule, Sandbox};

/// The folders and files from which the loader of a dynamic program takes libraries.
const LIBRARIES: &[&str] = &[
    "/etc/ld.so.cache",
    "/etc/ld.so.preload",
    "/lib",
    "/lib32",
    "/lib64",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/local/lib",
];

/// The number of interpreters that lead from a script to a program. The kernel follows five.
const INTERPRETERS_MAX: usize = 5;

const SHELL: &str = "/bin/sh";

/// The reason why there is no ruleset.
#[derive(Debug)]
pub(crate) enum Failure {
    /// This path of the sandbox cannot be opened.
    Path(PathBuf),
    /// This call failed, or the kernel lacks a feature.
    Call(&'static str, io::Error),
}

impl From<RulesetError> for Failure {
    fn from(error: RulesetError) -> Self {
        let mut cause = error.source();
        while let Some(error) = cause {
            if let Some(errno) = error.downcast_ref::<io::Error>().and_then(io::Error::raw_os_error)
            {
                return Self::Call("landlock_add_rule", io::Error::from_raw_os_error(errno));
            }
            cause = error.source();
        }
        Self::Call("landlock_create_ruleset", io::Error::other(error.to_string()))
    }
}

/// Creates the ruleset of a child that executes one of `candidates` in `folder`; `None` where the
/// kernel has no Landlock and the sandbox allows that.
pub(crate) fn create(
    sandbox: &Sandbox,
    candidates: &[impl AsRef<CStr> + Sync],
    folder: Option<&CStr>,
) -> Result<Option<OwnedFd>, Failure> {
    if !sandbox.best_effort {
        check_version(sandbox)?;
    }
    let Some(namespace) = &sandbox.mount_namespace else {
        return create_here(sandbox, candidates, folder);
    };
    // A thread of its own, because the namespace is entered for good.
    let create = || {
        sys::landlock::enter_mount_namespace(namespace.as_fd())
            .map_err(|error| Failure::Call("setns", error))?;
        create_here(sandbox, candidates, folder)
    };
    thread::scope(|scope| {
        let thread = thread::Builder::new().spawn_scoped(scope, create);
        let thread = thread.map_err(|error| Failure::Call("clone", error))?;
        thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    })
}

fn check_version(sandbox: &Sandbox) -> Result<(), Failure> {
    let version = sys::landlock::version();
    let has_ports = sandbox.bind_tcp.is_some() || sandbox.connect_tcp.is_some();
    let needed = [(sandbox.paths.is_some(), 3), (has_ports, 4), (sandbox.scoped, 6)];
    if needed.into_iter().any(|(wanted, least)| wanted && version < least) {
        let errno = if version == 0 { sys::errno::ENOSYS } else { sys::errno::EOPNOTSUPP };
        let error = io::Error::from_raw_os_error(errno);
        return Err(Failure::Call("landlock_create_ruleset", error));
    }
    Ok(())
}

fn create_here(
    sandbox: &Sandbox,
    candidates: &[impl AsRef<CStr>],
    folder: Option<&CStr>,
) -> Result<Option<OwnedFd>, Failure> {
    // The version was checked before: newer rights that the kernel lacks are left out.
    let mut ruleset = Ruleset::default().set_compatibility(CompatLevel::BestEffort);
    if sandbox.paths.is_some() {
        ruleset = ruleset.handle_access(AccessFs::from_all(ABI::V5))?;
    }
    if sandbox.bind_tcp.is_some() {
        ruleset = ruleset.handle_access(AccessNet::BindTcp)?;
    }
    if sandbox.connect_tcp.is_some() {
        ruleset = ruleset.handle_access(AccessNet::ConnectTcp)?;
    }
    if sandbox.scoped {
        ruleset = ruleset.scope(Scope::from_all(ABI::V6))?;
    }
    let mut ruleset = ruleset.create()?;
    for rule in sandbox.paths.iter().flatten() {
        ruleset = add_path(ruleset, rule)?;
    }
    if sandbox.paths.is_some() {
        ruleset = add_needs(ruleset, candidates, folder)?;
    }
    let binds = sandbox.bind_tcp.iter().flatten().map(|port| (*port, AccessNet::BindTcp));
    let connects = sandbox.connect_tcp.iter().flatten().map(|port| (*port, AccessNet::ConnectTcp));
    for (port, access) in binds.chain(connects) {
        ruleset = ruleset.add_rule(NetPort::new(port, access))?;
    }
    Ok(ruleset.into())
}

/// Adds what `execve` needs to start one of the candidates. Those that are missing or cannot be read
/// are left out: the child finds out by itself. Folders, which cannot be executed, are left out, too:
/// a rule for a folder that a script names as its interpreter would open everything below it.
fn add_needs(
    mut ruleset: RulesetCreated,
    candidates: &[impl AsRef<CStr>],
    folder: Option<&CStr>,
) -> Result<RulesetCreated, Failure> {
    let path = |text: &CStr| PathBuf::from(OsStr::from_bytes(text.to_bytes()));
    let folder = folder.map(path).unwrap_or_default();
    for candidate in candidates {
        let mut next = Some(folder.join(path(candidate.as_ref())));
        for _ in 0..INTERPRETERS_MAX {
            let Some(program) = next.take() else { break };
            ruleset = add_program(ruleset, &program)?;
            next = match head(&program).map(|head| interpreter_of(&head)) {
                Err(_) | Ok(Interpreter::None) => None,
                Ok(Interpreter::Script(path)) => Some(folder.join(path)),
                Ok(Interpreter::Shell) => Some(PathBuf::from(SHELL)),
                Ok(Interpreter::Loader(path)) => {
                    ruleset = add_program(ruleset, &path)?;
                    None
                }
            };
        }
    }
    for path in LIBRARIES {
        let rule = PathRule { path: path.into(), access: PathAccess::Read, optional: true };
        ruleset = add_path(ruleset, &rule)?;
    }
    Ok(ruleset)
}

fn head(program: &Path) -> io::Result<Vec<u8>> {
    let mut head = Vec::new();
    let file = sys::fd::open_regular(program)?;
    file.take(HEAD_BYTES as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn add_program(ruleset: RulesetCreated, path: &Path) -> Result<RulesetCreated, Failure> {
    match PathFd::new(path) {
        // Judged and allowed by one descriptor, so that nobody exchanges the file in between.
        Ok(fd) if !is_folder(&fd) => add(ruleset, fd, access(PathAccess::Execute)),
        _ => Ok(ruleset),
    }
}

fn add_path(ruleset: RulesetCreated, rule: &PathRule) -> Result<RulesetCreated, Failure> {
    match PathFd::new(&rule.path) {
        Ok(fd) => add(ruleset, fd, access(rule.access)),
        Err(_) if rule.optional => Ok(ruleset),
        Err(_) => Err(Failure::Path(rule.path.clone())),
    }
}

fn add(
    ruleset: RulesetCreated,
    fd: PathFd,
    all: BitFlags<AccessFs>,
) -> Result<RulesetCreated, Failure> {
    let access = if is_folder(&fd) { all } else { all & AccessFs::from_file(ABI::V5) };
    Ok(ruleset.add_rule(PathBeneath::new(fd, access))?)
}

fn is_folder(fd: &PathFd) -> bool {
    sys::fd::kind(fd.as_fd()).is_ok_and(|kind| kind == sys::fd::Kind::Directory)
}

fn access(access: PathAccess) -> BitFlags<AccessFs> {
    let read = AccessFs::ReadFile | AccessFs::ReadDir;
    match access {
        PathAccess::Read => read,
        PathAccess::Write => read | AccessFs::from_write(ABI::V5),
        PathAccess::Execute => read | AccessFs::Execute,
    }
}
