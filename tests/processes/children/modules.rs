//! Forks of a program that forgets `run_modules`, and the name of the module in a child.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

use child_process::{Command, Error, ExitStatus, Fork, Module, parent};

use crate::harness::{apply, case, module, role};
use crate::support::current_exe;
use crate::support::shell::sh;

/// The name of the role that runs without `run_modules`.
const FORGETFUL: &str = "forgetful";

/// Returns whether this process plays the program that forgets `run_modules`.
pub(crate) fn forgets_run_modules(args: &[String]) -> bool {
    matches!(args, [role, name, ..] if role == "role" && name == FORGETFUL)
}

/// `forgetful WHAT`: a program without `run_modules`. It forks a module of its own and prints the
/// exit; with `end` a forked process only ends.
#[apply(role)]
fn forgetful(args: &[String]) {
    println!("begins");
    if args[0] == "end" && parent().is_some() {
        return;
    }
    let mut fork = Fork::new(Module::current_exe("never"));
    fork.args(["role", FORGETFUL, &args[0]]);
    if args[0] == "exec_path" {
        fork.exec_path(current_exe());
    }
    match fork.spawn() {
        Ok(child) => println!("ends: {}", child.wait().unwrap()),
        Err(Error::ModuleNotRun(name)) if name == "never" => {
            eprintln!("Error: {:?}", Error::ModuleNotRun(name));
            std::process::exit(7);
        }
        Err(error) => panic!("{error:?}"),
    }
}

fn forget(what: &str) -> child_process::Output {
    let mut program = Command::new(current_exe());
    program.args(["role", FORGETFUL, what]).output().unwrap()
}

/// The first child of a program without `run_modules` starts no further one, and names the call.
#[apply(case)]
fn a_program_without_run_modules_stops_at_its_first_child() {
    for what in ["fork", "exec_path"] {
        let output = forget(what);
        assert_eq!(output.stdout_text(), "begins\nbegins\nends: code 7\n", "{output:?}");
        assert_eq!(output.stderr_text().matches("run_modules").count(), 2, "{output:?}");
        assert!(output.status.success());
    }
}

/// A child that ends without `run_modules` says that its module did not run.
#[apply(case)]
fn a_child_that_ends_without_run_modules_says_so() {
    let output = forget("end");
    assert_eq!(output.stdout_text(), "begins\nbegins\nends: code 0\n");
    assert!(output.stderr_text().contains("run_modules"), "{output:?}");
}

#[apply(module)]
fn exit_with_5() {
    std::process::exit(5);
}

/// A child that ends before it took the handshake is reaped, and its channel is closed, although
/// nobody takes its events.
#[apply(case)]
fn a_fork_that_ends_at_once_leaves_no_socket_behind() {
    for _ in 0..10 {
        let child = Fork::new(Module::current_exe("exit_with_5")).spawn().unwrap();
        assert_eq!(child.wait().unwrap(), ExitStatus::Code(5));
    }
}

/// The name of the module is no variable that a command can clear or replace.
#[apply(case)]
fn a_cleared_environment_keeps_the_module() {
    let ends = |fork: &mut Fork| fork.spawn().unwrap().wait().unwrap();
    let mut fork = Fork::new(Module::current_exe("exit_with_5"));
    fork.env_clear();
    assert_eq!(ends(&mut fork), ExitStatus::Code(5));
    fork.env("BROOD_MODULE", "none");
    assert_eq!(ends(&mut fork), ExitStatus::Code(5));
}

/// A child without a channel is distinguished from a channel that is closed, and the socket comes
/// back.
#[apply(case)]
fn a_message_to_a_child_without_a_channel_is_an_error_that_says_so() {
    let child = sh("true").spawn().unwrap();
    let error = child.send("lost").unwrap_err();
    assert!(matches!(error, ipc::Error::NoChannel), "{error:?}");
    let (socket, _other) = UnixStream::pair().unwrap();
    let failed = child.send_with_handle("lost", OwnedFd::from(socket)).unwrap_err();
    assert!(matches!(failed.error, ipc::Error::NoChannel), "{:?}", failed.error);
    assert!(matches!(child.disconnect(), Err(Error::NoChannel)));
    child.wait().unwrap();
}
