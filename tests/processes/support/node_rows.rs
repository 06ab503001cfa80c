//! The rows of Node's own suite, as the cases name them.

use crate::harness;

/// Checks that every row of a table of `count` rows is named by a case of these modules, or has a
/// reason in `not`, and that no row is named twice.
pub(crate) fn check(module: impl Fn(&str) -> bool, not: &[(&str, &str)], count: usize) {
    let cases = harness::cases().filter(|case| module(case.name()));
    let done: Vec<&str> = cases.flat_map(|case| case.node_tests).copied().collect();
    let mut names: Vec<&str> = done.iter().copied().chain(not.iter().map(|row| row.0)).collect();
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before, "a row is named twice");
    println!("{} of {count} rows have a case, {} a reason for none", done.len(), not.len());
    assert_eq!(before, count, "{} rows are missing", count.abs_diff(before));
}
