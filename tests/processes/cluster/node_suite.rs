//! Node's own suite for `cluster`, row by row: the cases assert the same about this crate. Rows
//! without a meaning here are left out.
//!
//! A row is the name of one of Node's files, without `parallel/` and `.js`. Its case, in a file
//! beside this one, names it by `#[node_test(…)]`.

use crate::harness::{apply, case};
use crate::support::node_rows;

/// The rows without a case, and the reasons.
const NOT: &[(&str, &str)] = &[
    (
        "test-dgram-cluster-close-during-bind",
        "bind blocks until the answer: there is nothing to close before",
    ),
    (
        "test-dgram-exclusive-implicit-bind",
        "sockets that only send come from std, without code of this crate",
    ),
    ("benchmark/test-benchmark-cluster", "bench has measurements of its own"),
    (
        "test-cluster-send-handle-twice",
        "a socket is moved into its message: there is nothing left to send a second time",
    ),
];

/// The number of rows that are meaningful here, and four more of Node's tests that touch `cluster`.
const ROWS: usize = 74;

#[apply(case)]
fn every_row_has_a_case_or_a_reason() {
    node_rows::check(|case| case.starts_with("cluster::"), NOT, ROWS);
}
