//! The tables of `docs/security.md`: each constant and each option in them exists.

use std::fs;

use crate::source::{assert_none, root, sources};

/// Returns the words between backquotes, in the tables of a page.
fn quoted(page: &str) -> Vec<String> {
    let rows = page.lines().filter(|line| line.starts_with('|'));
    let words = rows.flat_map(|row| row.split('`').skip(1).step_by(2).map(str::to_owned));
    words.collect()
}

fn is_constant(word: &str) -> bool {
    let capital = |letter: char| letter.is_ascii_uppercase() || letter == '_';
    word.contains('_') && word.chars().all(capital)
}

#[test]
fn constants_and_options_in_the_tables_of_the_security_page_exist() {
    let page = fs::read_to_string(root().join("docs/security.md")).unwrap();
    let programs: Vec<String> = sources()
        .iter()
        .filter(|source| source.is_in("crates"))
        .map(|source| source.program().map(|(_, line)| line.to_owned() + "\n").collect())
        .collect();
    let exists = |text: &str| programs.iter().any(|program| program.contains(text));
    let (mut missing, mut constants, mut options) = (Vec::new(), 0, 0);
    for word in quoted(&page) {
        if is_constant(&word) {
            constants += 1;
            if !exists(&format!("const {word}:")) {
                missing.push(format!("no constant {word}"));
            }
        } else if let Some((owner, method)) = word.split_once("::") {
            if owner == "Error" || owner == "Event" {
                continue;
            }
            options += 1;
            let method = method.split('(').next().unwrap_or_default();
            if !exists(&format!("struct {owner}")) || !exists(&format!("fn {method}(")) {
                missing.push(format!("no option {word}"));
            }
        }
    }
    assert_none(&missing, "in the tables of docs/security.md");
    assert!(constants >= 15 && options >= 8, "{constants} constants, {options} options");
}
