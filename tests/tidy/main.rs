//! The rules of this project that no compiler checks: dependencies, sizes, sleeps, prints.
//!
//! Each rule reads the sources as text, without comments and literals, and names file and line.
#![allow(clippy::unwrap_used, reason = "test code")]

mod rooms;
mod security;
mod source;
mod words;

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use source::{assert_none, found, root, sources};

/// The largest number of lines of a file, without the tests at its end.
const FILE_LINES_MAX: usize = 500;

/// The allowed dependencies of each crate, which point down only.
const EDGES: [(&str, &[&str]); 6] = [
    ("sys", &[]),
    ("reactor", &["sys"]),
    ("os-info", &["sys"]),
    ("ipc", &["reactor", "sys"]),
    ("child-process", &["ipc", "reactor", "sys"]),
    ("cluster", &["child-process", "ipc", "os-info", "reactor", "sys"]),
];

/// Names that a file whose header ends with `Pure.` may not use. Addresses are values and allowed.
const IMPURE: &[&str] = &[
    "std::fs",
    "std::process",
    "std::thread",
    "std::os::unix::net",
    "Instant::now",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
    "libc",
    "nix",
    "mio",
    "sys",
    "reactor",
];

/// The parts of `sys` that are numbers and plain data, which a pure file may name.
const PURE_PARTS_OF_SYS: &[&str] = &["sys::errno", "sys::spawn::Plan", "sys::text"];

#[test]
fn crates_depend_downwards_only() {
    let crates: Vec<String> = EDGES.iter().map(|edge| edge.0.to_owned()).collect();
    let folders = fs::read_dir(root().join("crates")).unwrap().flatten();
    let folders: BTreeSet<_> = folders.map(|at| at.file_name().into_string().unwrap()).collect();
    assert_eq!(folders, crates.iter().cloned().collect(), "every crate has its row in EDGES");
    let mut broken = Vec::new();
    for (name, allowed) in EDGES {
        let manifest = root().join("crates").join(name).join("Cargo.toml");
        for dependency in dependencies(&fs::read_to_string(manifest).unwrap()) {
            if crates.contains(&dependency) && !allowed.contains(&dependency.as_str()) {
                broken.push(format!("{name} -> {dependency}"));
            }
        }
    }
    assert_none(&broken, "dependencies that are not in EDGES");
}

/// Returns the names in all dependency tables of a manifest, those for tests and builds, too.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut inside = false;
    let mut names = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(table) = line.strip_prefix('[') {
            let table = table.trim_end_matches(']');
            inside = table.ends_with("dependencies");
            if let Some((_, name)) = table.split_once("dependencies.") {
                names.push(name.to_owned());
            }
        } else if inside && !line.starts_with('#') {
            let end = line.find(['.', '=', ' ']).unwrap_or(0);
            names.push(line[..end].trim_matches('"').to_owned());
        }
    }
    names.retain(|name| !name.is_empty());
    names
}

#[test]
fn pure_files_know_no_kernel_and_no_clock() {
    let (mut broken, mut pure) = (Vec::new(), 0);
    for source in sources().iter().filter(|source| source.is_pure()) {
        pure += 1;
        let without = |line: &str| {
            PURE_PARTS_OF_SYS.iter().fold(line.to_owned(), |line, part| line.replace(part, ""))
        };
        let lines: Vec<(usize, String)> =
            source.program().map(|(number, line)| (number, without(line))).collect();
        let lines = lines.iter().map(|(number, line)| (*number, line.as_str()));
        broken.extend(found(source, lines, IMPURE));
    }
    assert_none(&broken, "in files that say `Pure.`");
    assert!(pure >= 30, "only {pure} files say `Pure.`: decisions are pure in every crate");
}

#[test]
fn unsafe_code_and_descriptor_numbers_stay_in_sys() {
    let mut broken = Vec::new();
    for source in sources() {
        // The packages beside the workspace measure and attack code that uses `unsafe`.
        if source.is_in("crates/sys/") || source.is_in("bench/") || source.is_in("fuzz/") {
            continue;
        }
        let words = ["unsafe", "RawFd", "FromRawFd", "IntoRawFd", "from_raw_fd", "into_raw_fd"];
        broken.extend(found(&source, source.program(), &words));
        if source.is_in("tests/") {
            broken.extend(found(&source, source.tests(), &words));
        }
        // mio and tokio take the number of a descriptor to watch; a case may count numbers.
        let asks = source.path == "crates/reactor/src/poller.rs"
            || source.path.ends_with("/src/tokio.rs")
            || source.is_in("crates/cluster/src/adapter/")
            || source.is_in("tests/processes/");
        if !asks {
            broken.extend(found(&source, source.program(), &["AsRawFd", "as_raw_fd"]));
        }
    }
    assert_none(&broken, "only crates/sys has these");
}

#[test]
fn files_are_short_and_begin_with_what_they_are() {
    let mut broken = Vec::new();
    for source in sources() {
        // A file of tests alone is as short as a program.
        let is_test = source.tests_at == 0;
        let lines = if is_test { source.code.lines().count() } else { source.tests_at };
        if lines > FILE_LINES_MAX {
            broken.push(format!("{}: {lines} lines", source.path));
        }
        if source.header.is_empty() {
            broken.push(format!("{}: no header", source.path));
        }
    }
    assert_none(&broken, &format!("over {FILE_LINES_MAX} lines, or without a `//!` header"));
}

#[test]
fn tests_wait_for_something_and_do_not_sleep() {
    let mut broken = Vec::new();
    for source in sources() {
        let tests = source.tests();
        broken.extend(found(&source, tests, &["sleep", "sleep_ms"]));
    }
    assert_none(&broken, "sleeps; wait for a message, a pidfd or a deadline");
}

#[test]
fn libraries_print_nothing() {
    let words = ["println", "eprintln", "print", "eprint", "dbg", "todo", "unimplemented"];
    let words = words.map(|word| format!("{word}!"));
    let mut broken = Vec::new();
    for source in sources().iter().filter(|source| source.is_in("crates/")) {
        for (number, line) in source.program() {
            let hit = words.iter().find(|word| {
                let before = line.split(word.as_str()).next().unwrap_or_default();
                before.len() < line.len()
                    && !before.ends_with(|c: char| c.is_alphanumeric() || c == '_')
            });
            broken.extend(hit.map(|word| format!("{}:{number}: {word}", source.path)));
        }
    }
    assert_none(&broken, "a library reports by values and events");
}

#[test]
fn no_line_names_a_place_on_somebodys_machine() {
    let listed = Command::new("git").args(["ls-files", "-z"]).current_dir(root()).output();
    // A source archive has no history, and no file list to check.
    let Ok(listed) = listed else { return };
    let places = [["/work", "/"].concat(), ["/tmp", "/brood"].concat(), ["/home", "/"].concat()];
    let mut broken = Vec::new();
    for path in String::from_utf8(listed.stdout).unwrap().split_terminator('\0') {
        let Ok(text) = fs::read_to_string(root().join(path)) else { continue };
        for (number, line) in (1..).zip(text.lines()) {
            if places.iter().any(|place| line.contains(place)) {
                broken.push(format!("{path}:{number}"));
            }
        }
    }
    assert_none(&broken, "names a folder that others do not have");
}

#[test]
fn dependencies_of_every_table_of_a_manifest_are_seen() {
    let manifest = "[dependencies]\nsys.workspace = true\n# x\nipc = { path = \"\" }\n\n[lints]\nq = 1\n[dev-dependencies.mio]\n";
    assert_eq!(dependencies(manifest), ["sys", "ipc", "mio"]);
}

#[test]
fn every_file_of_a_test_target_is_a_module_of_it() {
    let sources = sources();
    let texts: Vec<&str> = sources
        .iter()
        .filter(|source| source.is_in("tests/"))
        .map(|source| source.code.as_str())
        .collect();
    let mut broken = Vec::new();
    for source in sources.iter().filter(|source| source.is_in("tests/")) {
        let stem = source.path.rsplit(['/', '.']).nth(1).unwrap_or_default();
        let declared = format!("mod {stem};");
        if stem != "main" && !texts.iter().any(|text| text.contains(&declared)) {
            broken.push(source.path.clone());
        }
    }
    assert_none(&broken, "files that no `mod` line names: their tests never run");
}
