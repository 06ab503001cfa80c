//! Node's own suite for `cluster`, row by row: what each of its tests asserts, asserted of ours.
//! The rows are those that are meaningful here.
//!
//! A row is a name of a file of Node's (`parallel/` and `.js` left out). Its case, in a file
//! beside this one, names it by `#[node_test(…)]`.

use crate::harness::{apply, case};
use crate::support::node_rows;

/// Rows without a case, and why.
const NOT: &[(&str, &str)] = &[
    (
        "test-dgram-cluster-close-during-bind",
        "bind blocks until the answer: there is nothing to close before",
    ),
    (
        "test-dgram-exclusive-implicit-bind",
        "sockets that only send are std's own: nothing of ours to test",
    ),
    ("benchmark/test-benchmark-cluster", "bench measures ours"),
    (
        "test-cluster-send-handle-twice",
        "a socket is moved into its message: there is nothing left to send a second time",
    ),
];

/// Rows that are meaningful here, and four more tests of Node's that touch `cluster`.
const ROWS: usize = 74;

#[apply(case)]
fn every_row_has_a_case_or_a_reason() {
    node_rows::check(|case| case.starts_with("cluster::"), NOT, ROWS);
}
