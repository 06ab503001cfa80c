//! The rules of this project that no compiler checks: dependencies, sizes, sleeps, prints.
//!
//! Each rule reads the sources as text, without comments and literals, and names file and line.
#![allow(clippy::unwrap_used, reason = "test code")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

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

/// One source file, divided into program and tests.
struct Source {
    /// The path from the root of the project.
    path: String,
    /// The text without comments, and with empty literals; the lines are those of the file.
    code: String,
    /// The header: the lines that begin with `//!`.
    header: String,
    /// The line with which the tests begin, counted from 0; the length when there are none.
    tests_at: usize,
}

impl Source {
    fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap();
        let code = without_comments_and_literals(&text);
        let header = text.lines().take_while(|line| line.starts_with("//!"));
        let header: Vec<&str> = header.collect();
        let lines: Vec<&str> = code.lines().collect();
        // The tests begin with `#[cfg(test)]` and `mod name {`, and end with the file.
        let tests_at = (0..lines.len()).find(|&at| {
            lines[at].trim() == "#[cfg(test)]"
                && lines.get(at + 1).is_some_and(|next| {
                    next.trim().starts_with("mod ") && next.trim().ends_with('{')
                })
        });
        let tests_at = if is_test(path) { 0 } else { tests_at.unwrap_or(lines.len()) };
        let path = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        Self { path, header: header.join("\n"), tests_at, code }
    }

    /// Returns the lines outside of tests, with line numbers from 1.
    fn program(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines().take(self.tests_at))
    }

    fn tests(&self) -> impl Iterator<Item = (usize, &str)> {
        (1..).zip(self.code.lines()).skip(self.tests_at)
    }

    fn is_pure(&self) -> bool {
        self.header.lines().any(|line| line.trim_start_matches("//!").trim().starts_with("Pure."))
    }

    fn is_in(&self, folder: &str) -> bool {
        self.path.starts_with(folder)
    }
}

/// Returns true for files that only tests compile: by folder, or by `#[cfg(test)] mod name;` in the
/// parent module.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let inside = path.strip_prefix(root()).unwrap();
    let in_tests = inside.components().any(|part| part.as_os_str() == "tests");
    let declared = path.parent().unwrap().parent().is_some() && {
        let folder = path.parent().unwrap();
        let doors = [folder.join("lib.rs"), folder.join("mod.rs"), folder.with_extension("rs")];
        let needle = format!("mod {name};");
        doors.iter().filter_map(|door| fs::read_to_string(door).ok()).any(|door| {
            let lines: Vec<&str> = door.lines().map(str::trim).collect();
            lines.windows(2).any(|pair| pair[0] == "#[cfg(test)]" && pair[1] == needle)
        })
    };
    in_tests || declared
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Returns every Rust file of the workspace and of the packages beside it.
fn sources() -> Vec<Source> {
    let mut files = Vec::new();
    for folder in ["crates", "tests", "examples", "bench", "fuzz"] {
        walk(&root().join(folder), &mut files);
    }
    let rust = files.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    rust.map(|path| Source::read(path)).collect()
}

fn walk(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if !path.is_dir() {
            files.push(path);
        } else if !path.ends_with("target") {
            walk(&path, files);
        }
    }
}

/// Blanks comments and the inside of string and character literals; keeps every line break.
fn without_comments_and_literals(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut kept = String::with_capacity(text.len());
    let mut at = 0;
    while at < bytes.len() {
        let rest = &text[at..];
        let skip = if rest.starts_with("//") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            block_comment(rest)
        } else if let Some(length) = raw_string(rest, kept.chars().last()) {
            length
        } else if rest.starts_with('"') {
            quoted(rest, b'"')
        } else if rest.starts_with('\'') && is_character(rest) {
            quoted(rest, b'\'')
        } else {
            0
        };
        if skip > 0 {
            kept.extend(rest[..skip].matches('\n'));
            at += skip;
        } else {
            let next = rest.chars().next().unwrap();
            kept.push(next);
            at += next.len_utf8();
        }
    }
    kept
}

fn block_comment(rest: &str) -> usize {
    let (mut depth, mut at) = (0, 0);
    loop {
        match rest.as_bytes().get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) => at += 1,
            None => return rest.len(),
        }
        if depth == 0 {
            return at;
        }
    }
}

/// Returns the length of a raw string that begins here; `before` distinguishes an `r` from the end
/// of a name.
fn raw_string(rest: &str, before: Option<char>) -> Option<usize> {
    if before.is_some_and(|c| c.is_alphanumeric() && c != 'b' || c == '_') {
        return None;
    }
    let hashes = rest.strip_prefix('r')?;
    let count = hashes.len() - hashes.trim_start_matches('#').len();
    let inside = hashes[count..].strip_prefix('"')?;
    let end = format!("\"{}", "#".repeat(count));
    let length = inside.find(&end).map_or(inside.len(), |at| at + end.len());
    Some(rest.len() - inside.len() + length)
}

fn quoted(rest: &str, quote: u8) -> usize {
    let bytes = rest.as_bytes();
    let mut at = 1;
    while at < bytes.len() && bytes[at] != quote {
        at += if bytes[at] == b'\\' { 2 } else { 1 };
    }
    (at + 1).min(bytes.len())
}

/// Returns true for `'a'` and `'\n'`, and false for the lifetime `'a`.
fn is_character(rest: &str) -> bool {
    let mut chars = rest.chars().skip(1);
    match chars.next() {
        Some('\\') => true,
        Some(_) => chars.next() == Some('\''),
        None => false,
    }
}

/// Returns true when `word` stands in `line` on its own; `a::b` matches at the end of a longer path.
fn names(line: &str, word: &str) -> bool {
    let is_part = |c: char| c.is_alphanumeric() || c == '_';
    line.match_indices(word).any(|(at, _)| {
        let before = line[..at].chars().next_back();
        let after = line[at + word.len()..].chars().next();
        !before.is_some_and(is_part) && !after.is_some_and(is_part)
    })
}

#[track_caller]
fn assert_none(broken: &[String], rule: &str) {
    assert!(broken.is_empty(), "{rule}:\n  {}", broken.join("\n  "));
}

/// Returns the lines in `lines` of `source` that use one of `words`.
fn found<'a>(
    source: &'a Source,
    lines: impl Iterator<Item = (usize, &'a str)>,
    words: &[&str],
) -> Vec<String> {
    lines
        .flat_map(|(number, line)| {
            let hits = words.iter().filter(move |word| names(line, word));
            hits.map(move |word| format!("{}:{number}: {word}", source.path))
        })
        .collect()
}

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
        broken.extend(found(source, source.program(), IMPURE));
    }
    assert_none(&broken, "in files that say `Pure.`");
    assert!(pure >= 5, "only {pure} files say `Pure.`: the core of the house is pure");
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
        let asks = source.path == "crates/reactor/src/readiness.rs"
            || source.path.ends_with("/src/tokio.rs")
            || source.path.ends_with("/src/mio.rs")
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
        // The limit holds for the root's own tests as for programs.
        let lines =
            if source.is_in("tests/") { source.code.lines().count() } else { source.tests_at };
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
fn the_reader_of_sources_sees_code_and_nothing_else() {
    let text = "let a = \"unsafe\"; // unsafe\nlet b = 'u'; /* un\nsafe */ let c: &'static str;\n\
                let d = r#\"unsafe \" \"#; br\"x\"; b'\\''; '\"'; e\n";
    let code = without_comments_and_literals(text);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(!names(&code, "unsafe") && code.contains("&'static str") && code.contains("; e"));
    assert!(names("use std::fs;", "std::fs") && !names("unsafe_code", "unsafe"));
    assert!(names("a sys::x", "sys") && !names("system", "sys"));
    let manifest = "[dependencies]\nsys.workspace = true\n# x\nipc = { path = \"\" }\n\n[lints]\nq = 1\n[dev-dependencies.mio]\n";
    assert_eq!(dependencies(manifest), ["sys", "ipc", "mio"]);
}
