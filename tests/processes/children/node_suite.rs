//! Node's own suite for child processes, row by row: the cases assert the same about this crate.
//! The rows are those of `child-process-behaviours.md` that are meaningful here.
//!
//! A row is the name of one of Node's files, without `parallel/` and `.js`. Its case names it by
//! `#[node_test(…)]`; most cases are in the files below, the others in `node`.

mod exec;
mod fork;
mod messages;
mod spawn;
mod stdio;

use crate::harness::{apply, case};
use crate::support::node_rows;

/// The rows without a case of their own here, and the reasons.
const NOT: &[(&str, &str)] = &[
    ("test-listen-fd-cluster", "a row of cluster::node_suite"),
    ("test-listen-fd-ebadf", "a kind is checked where it arrives: Handle::kind in ipc"),
    ("test-cluster-fork-env", "a row of cluster::node_suite"),
    ("test-cluster-fork-stdio", "a row of cluster::node_suite"),
    ("test-cluster-advanced-serialization", "a row of cluster::node_suite"),
    ("test-cluster-message", "a row of cluster::node_suite"),
    ("test-cluster-ipc-throw", "a row of cluster::node_suite"),
    ("test-cluster-process-disconnect", "a row of cluster::node_suite"),
    ("test-cluster-send-deadlock", "a row of cluster::node_suite"),
    ("test-cluster-accept-fail", "a row of cluster::node_suite"),
    ("test-handle-wrap-hasref", "there is no loop that a handle could keep alive"),
    ("test-os", "os-info: every_stable_field_is_what_node_says in examples::os_info"),
    ("test-os-eol", "os-info: a const, compared with Node's by examples::os_info"),
    ("test-os-homedir-no-envvar", "os-info: tests of its user.rs and examples::os_info"),
    ("test-os-process-priority", "os-info: tests/priority.rs there"),
    ("test-os-checked-function", "os-info: errors name call, errno and code"),
];

/// The number of PORT and ADAPT rows of the table.
const ROWS: usize = 134;

#[apply(case)]
fn every_row_has_a_case_or_a_reason() {
    node_rows::check(|case| !case.starts_with("cluster::"), NOT, ROWS);
}
