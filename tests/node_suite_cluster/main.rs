//! Node's own suite for `cluster`, row by row: what each of its tests asserts, asserted of ours.
//! The rows are those that are meaningful here.
//!
//! A row is a name of a file of Node's (`parallel/` and `.js` left out). Its test is the case of
//! the name in front of it. One file per area; each tells what is done, and why the rest is not.

use std::io::Write as _;

#[path = "../common/mod.rs"]
mod common;

macro_rules! rows {
    ($($case:ident: $($row:literal),+;)*) => {
        $(#[test] fn $case() { $crate::common::case(stringify!($case)); })*
        pub(crate) const DONE: &[&str] = &[$($($row),+),*];
    };
}

mod listening;
mod lives;

/// Rows that are meaningful here, and four more tests of Node's that touch `cluster`.
const ROWS: usize = 74;

#[test]
fn every_row_has_a_test_or_a_reason() {
    let done = listening::DONE.len() + lives::DONE.len();
    let reasons = [listening::NOT, lives::NOT].concat();
    let mut names: Vec<_> = [listening::DONE, lives::DONE].concat();
    names.extend(reasons.iter().map(|(row, _)| *row));
    names.sort_unstable();
    let before = names.len();
    names.dedup();
    assert_eq!(names.len(), before, "a row is named twice");
    // Not by `println!`: that of a test that passes is not shown.
    let why = reasons.len();
    writeln!(std::io::stderr(), "{done} of {ROWS} rows done, {why} with a reason why not")
        .expect("told");
    assert_eq!(before, ROWS, "{} rows are missing", ROWS.abs_diff(before));
}
