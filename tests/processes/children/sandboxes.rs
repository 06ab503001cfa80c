//! The sandbox of a command: each restriction, and the same program without it.

use std::fs::{self, File};
use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::Path;

use child_process::{
    Capability, Child, Command, Denied, Error, Filter, Instruction, Limit, Resource, Sandbox,
    Stdio, Step,
};

use crate::harness::{apply, case, role};
use crate::support::current_exe;
use crate::support::shell::{TestFolder, sh};

/// The tests of this file need the rights of root, and Landlock of this version.
fn can(what: &str, landlock: u32) -> bool {
    let is_root = sys::host::user::effective_ids().0 == 0;
    let version = Sandbox::landlock_version();
    if !is_root || version < landlock {
        eprintln!("SKIPPED: {what}: root is {is_root}, and Landlock has version {version}");
    }
    is_root && version >= landlock
}

/// Runs the command in the sandbox, and then without one; returns both outputs, errors last.
fn with_and_without(mut command: Command, sandbox: Sandbox) -> (String, String) {
    let mut run = |sandbox| {
        let output = command.sandbox(sandbox).output().unwrap();
        format!("{}{}", output.stdout_text(), output.stderr_text())
    };
    (run(sandbox), run(Sandbox::new()))
}

/// Runs a role of this program in the sandbox and without one.
fn role_with_and_without(args: &[&str], sandbox: Sandbox) -> (String, String) {
    let mut command = Command::new(current_exe());
    command.arg("role").args(args);
    with_and_without(command, sandbox)
}

#[track_caller]
fn refused(command: &mut Command, step: Step, code: &str) {
    let error = command.spawn().unwrap_err();
    assert_eq!((error.step(), error.code()), (Some(step), code), "{error:?}");
}

#[apply(case)]
fn a_sandbox_opens_the_paths_that_it_names_and_no_others() {
    if !can("paths", 3) {
        return;
    }
    let folder = TestFolder::new("sandbox-paths");
    let (open, shut) = (folder.file("open", "text\n", 0o644), folder.file("shut", "no\n", 0o644));
    let script = format!(
        "cat {0}; cat {1}; echo new > {0}; echo new > {1}; rm {1}; true",
        open.display(),
        shut.display()
    );
    let programs = || Sandbox::new().execute("/bin").write("/dev/null");
    let (with, without) = with_and_without(sh(&script), programs().read(&open));
    assert!(with.starts_with("text\n"), "{with}");
    assert_eq!(with.matches("Permission denied").count(), 4, "{with}");
    assert_eq!(without, "text\nno\n");
    assert!(!shut.exists(), "nothing stops a command without a sandbox");
    fs::write(&open, "text\n").unwrap();
    fs::write(&shut, "no\n").unwrap();
    let output = sh(&script).sandbox(programs().write(&folder.0)).output().unwrap();
    assert_eq!(output.stdout_text(), "text\nno\n", "{}", output.stderr_text());
    assert!(!shut.exists(), "a writable folder allows the rest");
    // A program that no rule names cannot be executed.
    let (with, without) = with_and_without(sh("/bin/ls /dev/null"), Sandbox::new().read("/dev"));
    assert_eq!(without, "/dev/null\n");
    assert!(with.contains("Permission denied"), "{with}");
    let missing = Sandbox::new().read("/nonexistent");
    let Err(Error::Invalid(invalid)) = sh("true").sandbox(missing).spawn() else {
        panic!("started")
    };
    assert_eq!(invalid.field, "sandbox path /nonexistent");
}

#[apply(case)]
fn the_files_that_execve_needs_are_in_every_sandbox() {
    if !can("paths", 3) {
        return;
    }
    let folder = TestFolder::new("sandbox-needs");
    let script = folder.file("script", "#! /bin/sh\necho $0\n", 0o755);
    let bare = folder.file("bare", "echo $0\n", 0o755);
    let nested = folder.file("nested", &format!("#!{}\n", script.display()), 0o755);
    let shut = || Sandbox::new().read("/dev/null");
    for program in [&script, &bare, &nested] {
        let output = Command::new(program).sandbox(shut()).output().unwrap();
        let own_name = if program == &nested { &script } else { program };
        assert_eq!(output.stdout_text(), format!("{}\n", own_name.display()), "{output:?}");
    }
    // Looked up in the PATH, and below a working directory.
    assert!(Command::new("true").sandbox(shut()).output().unwrap().status.success());
    let mut relative = Command::new("./script");
    let output = relative.current_dir(&folder.0).sandbox(shut()).output().unwrap();
    assert_eq!(output.stdout_text(), "./script\n");
    refused(Command::new("/nonexistent").sandbox(shut()), Step::Program, "ENOENT");
}

#[apply(case)]
fn a_folder_with_the_name_of_the_program_stays_closed() {
    if !can("paths", 3) {
        return;
    }
    let folder = TestFolder::new("sandbox-folder");
    let first = folder.0.join("first");
    let secret = first.join("tool/secret");
    fs::create_dir_all(first.join("tool")).unwrap();
    fs::write(&secret, "secret\n").unwrap();
    let script = format!("#!/bin/sh\nread line < {} && echo $line\n", secret.display());
    folder.file("tool", &script, 0o755);
    // The search of the path passes over the folder.
    let mut tool = Command::new("tool");
    tool.env("PATH", format!("{}:{}", first.display(), folder.0.display()));
    let (with, without) = with_and_without(tool, Sandbox::new().read("/dev/null"));
    assert_eq!(without, "secret\n");
    assert!(with.to_lowercase().contains("permission denied"), "{with}");
}

/// `sandbox_ports BIND CONNECT`: prints how binding and connecting to these ports went.
#[apply(role)]
fn sandbox_ports(args: &[String]) {
    let port = |index: usize| args[index].parse::<u16>().unwrap();
    let says = |answer: std::io::Result<()>| match answer {
        Ok(()) => "done".to_owned(),
        Err(error) => error.to_string(),
    };
    println!("bind: {}", says(TcpListener::bind(("127.0.0.1", port(0))).map(drop)));
    println!("connect: {}", says(TcpStream::connect(("127.0.0.1", port(1))).map(drop)));
}

#[apply(case)]
fn a_sandbox_binds_and_connects_to_the_ports_that_it_names() {
    if !can("ports", 4) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let connect = listener.local_addr().unwrap().port();
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let args = ["sandbox_ports", &free.to_string(), &connect.to_string()];
    let (none, without) = role_with_and_without(&args, Sandbox::new().bind_tcp([]).connect_tcp([]));
    assert_eq!(without, "bind: done\nconnect: done\n");
    let denied = "Permission denied (os error 13)";
    assert_eq!(none, format!("bind: {denied}\nconnect: {denied}\n"));
    let (bind, _) = role_with_and_without(&args, Sandbox::new().bind_tcp([free]).connect_tcp([]));
    assert_eq!(bind, format!("bind: done\nconnect: {denied}\n"));
    let (connects, _) = role_with_and_without(&args, Sandbox::new().connect_tcp([connect]));
    assert_eq!(connects, "bind: done\nconnect: done\n");
}

/// Connects by `connect`, by the first bytes, and by MPTCP, which is TCP to the other side.
const WAYS: &str = "
import socket, sys
to = ('127.0.0.1', int(sys.argv[1]))
def way(name, go):
    try:
        go()
        print(name, 'done')
    except OSError as error:
        print(name, error.errno)
way('connect', lambda: socket.socket().connect(to))
way('fast open', lambda: socket.socket().sendto(b'x', 0x20000000, to))
way('mptcp', lambda: socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).connect(to))
";

#[apply(case)]
fn the_rules_for_ports_have_no_way_around() {
    if !can("ports", 4) {
        return;
    }
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port().to_string();
    let mut python = Command::new("python3");
    python.args(["-c", WAYS, &port]);
    if python.output().map_or(true, |output| !output.status.success()) {
        eprintln!("SKIPPED: there is no Python, which can connect in these ways");
        return;
    }
    let sandbox = Sandbox::new().connect_tcp([]);
    let (with, without) = with_and_without(python, sandbox);
    assert!(without.starts_with("connect done\nfast open done\n"), "{without}");
    assert_eq!(with, "connect 13\nfast open 95\nmptcp 93\n");
}

/// `sandbox_reach NAME`: connects to an abstract socket, and signals its parent.
#[apply(role)]
fn sandbox_reach(args: &[String]) {
    let address = SocketAddr::from_abstract_name(&args[0]).unwrap();
    let connected = UnixStream::connect_addr(&address).map(drop);
    println!("{:?}", connected.map_err(|error| error.raw_os_error()));
    let parent = nix::unistd::getppid();
    println!("{:?}", nix::sys::signal::kill(parent, None));
}

#[apply(case)]
fn a_scoped_process_reaches_no_other_process() {
    if !can("scopes", 6) {
        return;
    }
    let name = format!("brood-sandbox-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).unwrap();
    let _listener = UnixListener::bind_addr(&address).unwrap();
    let (with, without) = role_with_and_without(&["sandbox_reach", &name], Sandbox::new().scoped());
    assert_eq!(without, "Ok(())\nOk(())\n");
    assert_eq!(with, "Err(Some(1))\nErr(EPERM)\n");
    // Signals of the parent arrive, and so do those among the children.
    let mut sleeper = sh("sleep 60 & kill $!; wait $!; echo $?; read line");
    let mut child = sleeper.sandbox(Sandbox::new().scoped()).spawn().unwrap();
    let mut said = [0; 4];
    child.take_stdout().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"143\n");
    child.kill(child_process::Signal::TERM).unwrap();
    assert_eq!(child.wait().unwrap().signal(), Some(child_process::Signal::TERM));
}

#[apply(case)]
fn a_filter_refuses_system_calls() {
    if !can("filters", 0) {
        return;
    }
    let (with, without) = with_and_without(
        sh("unshare --user true; echo $?"),
        Sandbox::new().filter(Filter::for_servers()),
    );
    assert!(with.contains("Operation not permitted") && with.starts_with("1\n"), "{with}");
    assert_eq!(without, "0\n");
    let uname = Denied { number: 63, when: None, errno: 99 };
    if cfg!(target_arch = "x86_64") {
        let filter = Filter::deny(&[uname]).unwrap();
        let (with, without) = with_and_without(sh("uname"), Sandbox::new().filter(filter));
        assert_eq!(without, "Linux\n");
        assert!(with.contains("Cannot assign requested address"), "{with}");
    }
    let no_execve = || Sandbox::new().filter(Filter::without_execve());
    refused(sh("true").sandbox(no_execve()), Step::Program, "EPERM");
    let nonsense = Instruction { code: 0xffff, jump_true: 0, jump_false: 0, operand: 0 };
    let nonsense = Filter::new([nonsense]).unwrap();
    refused(sh("true").sandbox(Sandbox::new().filter(nonsense)), Step::Seccomp, "EINVAL");
}

/// Returns the value of a line in `/proc/self/status` of the command's child.
fn status_line(command: &mut Command, name: &str) -> String {
    let output = command.output().unwrap();
    let text = output.stdout_text();
    let line = text.lines().find(|line| line.starts_with(name)).unwrap();
    line.split_whitespace().last().unwrap().to_owned()
}

#[apply(case)]
fn capabilities_are_dropped_and_given() {
    if !can("capabilities", 0) {
        return;
    }
    let mut status = Command::new("cat");
    status.arg("/proc/self/status").uid(65_534).gid(65_534);
    assert_eq!(status_line(&mut status, "CapAmb"), "0000000000000000");
    assert_ne!(status_line(&mut status, "CapBnd"), "0000000000000400");
    let service = [Capability::NET_BIND_SERVICE];
    status.sandbox(Sandbox::new().bounding(service).ambient(service));
    for set in ["CapBnd", "CapAmb", "CapEff", "CapPrm", "CapInh"] {
        assert_eq!(status_line(&mut status, set), "0000000000000400", "{set}");
    }
    // Root without a bounding set has no capability either.
    let mut root = Command::new("cat");
    root.arg("/proc/self/status");
    assert_ne!(status_line(&mut root, "CapEff"), "0000000000000000");
    root.sandbox(Sandbox::new().bounding([]));
    assert_eq!(status_line(&mut root, "CapEff"), "0000000000000000");
    // A capability that this process lacks cannot be given.
    let mut lacking = Command::new(current_exe());
    lacking.args(["role", "sandbox_gives"]).sandbox(Sandbox::new().bounding([]));
    assert_eq!(lacking.output().unwrap().stdout_text(), "ambient capabilities: EPERM\n");
    let mut nobody = Command::new(current_exe());
    nobody.args(["role", "sandbox_gives"]).uid(65_534).gid(65_534);
    assert_eq!(nobody.output().unwrap().stdout_text(), "bounding capabilities: EPERM\n");
}

/// `sandbox_gives`: starts a child with a capability, and prints the step that failed.
#[apply(role)]
fn sandbox_gives(_args: &[String]) {
    let kill = [Capability::KILL];
    let error =
        sh("true").sandbox(Sandbox::new().bounding(kill).ambient(kill)).spawn().unwrap_err();
    println!("{}: {}", error.step().unwrap(), error.code());
}

#[apply(case)]
fn limits_umask_and_privileges_are_those_of_the_sandbox() {
    let mut shell = sh("umask; ulimit -n; grep NoNewPrivs /proc/self/status");
    shell.umask(0o027).limit(Resource::Descriptors, Limit { soft: 50, hard: 60 });
    let sandbox = Sandbox::new().umask(0o077).no_new_privileges(true);
    let sandbox = sandbox.limit(Resource::Descriptors, Limit { soft: 40, hard: 40 });
    let (with, without) = with_and_without(shell, sandbox);
    assert_eq!(without, "0027\n50\nNoNewPrivs:\t0\n");
    assert_eq!(with, "0077\n40\nNoNewPrivs:\t1\n");
    let nowhere = Sandbox::new().cgroup("/nonexistent");
    refused(sh("true").sandbox(nowhere), Step::Cgroup, "ENOENT");
}

#[apply(case)]
fn restrictions_that_a_program_must_set_itself_are_refused() {
    for (sandbox, field) in [
        (Sandbox::new().dumpable(false), "sandbox.dumpable"),
        (Sandbox::new().forbid_execve(), "sandbox.forbid_execve"),
        (Sandbox::new().umask(0o1000), "sandbox.umask"),
    ] {
        let Err(Error::Invalid(invalid)) = sh("true").sandbox(sandbox).spawn() else {
            panic!("{field} was accepted")
        };
        assert_eq!(invalid.field, field);
    }
}

/// Starts a shell in namespaces of its own, and waits until its script has said a line.
fn in_namespaces(flag: &str, script: &str) -> Child {
    let mut command = Command::new("unshare");
    command.args([flag, "sh", "-c", &format!("{script}; echo ready; read line")]);
    command.stderr(Stdio::inherit()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut said = [0; 6];
    child.take_stdout().unwrap().read_exact(&mut said).unwrap();
    assert_eq!(&said, b"ready\n");
    child
}

fn namespace(pid: u32, name: &str) -> File {
    File::open(format!("/proc/{pid}/ns/{name}")).unwrap()
}

#[apply(case)]
fn a_child_starts_in_the_namespaces_of_its_sandbox() {
    if !can("namespaces", 3) {
        return;
    }
    let holder = in_namespaces("--net", "true");
    let own = fs::read_link(format!("/proc/{}/ns/net", holder.pid())).unwrap();
    let sandbox = || Sandbox::new().network_namespace(namespace(holder.pid(), "net"));
    let (with, without) = with_and_without(sh("readlink /proc/self/ns/net"), sandbox());
    assert_eq!(with.trim_end(), own.to_str().unwrap());
    assert_ne!(without, with);
    // Entered before the user changes.
    let output =
        sh("readlink /proc/self/ns/net").uid(65_534).gid(65_534).sandbox(sandbox()).output();
    assert_eq!(output.unwrap().stdout_text(), with);
    let folder = TestFolder::new("sandbox-mounts");
    let script = format!("mount -t tmpfs none {0} && echo inside > {0}/file", folder.0.display());
    let mounts = in_namespaces("--mount", &script);
    let sandbox = || Sandbox::new().mount_namespace(namespace(mounts.pid(), "mnt"));
    let cat = || sh(&format!("pwd; cat {}/file", folder.0.display()));
    let (with, without) = with_and_without(cat(), sandbox());
    assert_eq!(with, "/\ninside\n");
    assert!(without.contains("No such file"), "{without}");
    // The rules for paths are looked up there as well.
    let shut = sandbox().execute("/bin").read(&folder.0);
    assert_eq!(with_and_without(cat(), shut).0, "/\ninside\n");
    let none = Sandbox::new().network_namespace(File::open("/dev/null").unwrap());
    refused(sh("true").sandbox(none), Step::NetworkNamespace, "EINVAL");
    let none = Sandbox::new().mount_namespace(File::open("/dev/null").unwrap());
    refused(sh("true").sandbox(none), Step::MountNamespace, "EINVAL");
    for child in [holder, mounts] {
        child.kill(child_process::Signal::KILL).unwrap();
        child.wait().unwrap();
    }
}

/// The ruleset's descriptor keeps clear of the numbers that the child is given.
#[apply(case)]
fn a_ruleset_and_many_descriptors_do_not_meet() {
    if !can("paths", 3) {
        return;
    }
    let null = File::open("/dev/null").unwrap();
    let mut list = sh("ls /proc/self/fd | wc -l; cat /etc/passwd");
    list.sandbox(Sandbox::new().execute("/bin").read("/proc"));
    for number in 3..80 {
        list.descriptor(number, null.try_clone().unwrap());
    }
    let output = list.output().unwrap();
    assert_eq!(output.stdout_text(), "81\n", "{}", output.stderr_text());
    assert!(
        Path::new("/etc/passwd").exists() && output.stderr_text().contains("Permission denied")
    );
}
