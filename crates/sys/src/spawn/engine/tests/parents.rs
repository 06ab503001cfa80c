//! Children whose parent ends before they have executed their program.

use super::*;
use crate::spawn::clone::clone;

/// Starts a child that believes that its parent has this process number.
fn spawn_of(parent: i32, plan: &Plan<'_>) -> Result<Spawned, SpawnError> {
    let mut loan = Loan::new(plan).expect("a stack");
    loan.set_parent(parent);
    clone(loan, None, None)
}

#[test]
fn a_child_whose_parent_is_another_already_is_not_started() {
    let mut plan = sh("exit 7");
    let own = std::process::id() as i32;
    // Without the option it does not matter who the parent is.
    assert_eq!(spawn_of(1, &plan).unwrap().pidfd.wait().unwrap(), ExitStatus::Code(7));
    plan.attributes.to_mut().parent_death_signal = Some(Signal::KILL);
    assert_eq!(spawn_of(own, &plan).unwrap().pidfd.wait().unwrap(), ExitStatus::Code(7));
    let error = spawn_of(1, &plan).unwrap_err();
    assert_eq!((error.step, errno::name(error.errno)), (Step::ParentDeathSignal, "ESRCH"));
}

#[test]
fn a_child_in_another_process_namespace_can_have_a_parent_death_signal() {
    if is_root() {
        in_a_process_of_its_own("parents::in_another_process_namespace");
    }
}

/// The parent has no number in the namespace of the child.
#[test]
#[ignore = "runs in a process of its own"]
fn in_another_process_namespace() {
    if nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWPID).is_err() {
        return eprintln!("skipped: no process namespace here");
    }
    let mut plan = sh("exit 7");
    plan.attributes.to_mut().parent_death_signal = Some(Signal::KILL);
    assert_eq!(spawn(&plan).unwrap().pidfd.wait().unwrap(), ExitStatus::Code(7));
}
