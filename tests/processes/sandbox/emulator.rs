//! An emulator that copies the memory of a process for its child: Valgrind, where it is installed.

use std::time::Duration;

use child_process::Command;

use crate::harness::{apply, case};
use crate::support::current_exe;

/// Under Valgrind a start has no shared memory, `CLONE_VFORK` does not wait, and the kernel's newer
/// calls are missing.
#[apply(case)]
fn children_of_a_program_under_valgrind_start_fail_and_end() {
    let known = Command::new("valgrind").arg("--version").output();
    if known.is_err() {
        return println!("SKIPPED: valgrind is not installed");
    }
    for operation in ["start", "wait", "kill"] {
        let mut emulated = Command::new("valgrind");
        emulated.arg("-q").arg(current_exe()).args(["role", "sandboxed", "valgrind", "ENOSYS"]);
        let output = emulated.arg(operation).timeout(Duration::from_secs(30)).output().unwrap();
        let said = output.stdout_text();
        let last = said.lines().next_back();
        assert_eq!(last, Some("works"), "{operation}: {said}{}", output.stderr_text());
    }
}
